"""The prompts that are served, by name. They come and go while others are in use."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any, final

from trimtab.errors import ConfigError, suggest
from trimtab.predictor import Predictor
from trimtab.prompt_table import PromptTable
from trimtab.readouts import ScoresInPasses, WritesInPasses
from trimtab.serving.engine import Engine
from trimtab.serving.prefix_cache import has_prefix
from trimtab.serving.readers import Reader, Readers
from trimtab.serving.refusals import ClosingError, OverloadedError, TakenError, UnknownError
from trimtab.serving.tickets import Seat
from trimtab.types import Row

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
"""What a prompt may be called."""


@final
class Asker:
    """A task with its prompt, or with none: what turns rows into seats.

    Attributes:
        in_passes: its readout reads in several passes, so its rows cannot share one with others.
    """

    def __init__(self, predictor: Predictor, readers: Readers) -> None:
        self.predictor, self._readers = predictor, readers
        self._has_prefix = has_prefix(predictor)
        self.in_passes = isinstance(predictor.model.readout, ScoresInPasses | WritesInPasses)
        self._lock = threading.Lock()
        self._reader: Reader | None = None

    @property
    def reader(self) -> Reader:
        """Its place on the shelves, taken when it is first asked for."""
        with self._lock:
            if self._reader is None:
                rendering, encoder = self.predictor.rendering, self.predictor.model.backbone.encoder
                self._reader = self._readers.open(rendering.readout, rendering.plan(encoder), self.predictor.table)
            return self._reader

    def seats(self, rows: list[Row]) -> list[Seat]:
        """Rows, ready for the engine."""
        reader = None if self.predictor.model.readout.writes else self.reader
        return [Seat(row, self.predictor.table, reader, self._has_prefix) for row in rows]

    def close(self) -> None:
        """Give its place up."""
        with self._lock:
            if self._reader is not None:
                self._reader.close()
                self._reader = None


@final
class Loaded:
    """A prompt that is served, and how many questions about it are open."""

    def __init__(self, name: str, predictor: Predictor, readers: Readers) -> None:
        self.name, self._readers = name, readers
        self.prompted = Asker(predictor, readers)
        self.uses = 0
        self.is_removed = self.is_closed = False

    @cached_property
    def bare(self) -> Asker:
        """The same question without the prompt; errors as `Predictor.bare`."""
        return Asker(self.prompted.predictor.bare, self._readers)

    @property
    def table(self) -> PromptTable | None:
        return self.prompted.predictor.table

    def close(self) -> None:
        """Give the places up."""
        self.is_closed = True
        self.prompted.close()
        if "bare" in vars(self):
            self.bare.close()


@final
class Catalog:
    """Prompts by name; may be used from any thread."""

    def __init__(self, engine: Engine, reserved: str) -> None:
        """
        Args:
            reserved: a name that no prompt may have: that of the backbone.
        """
        self._engine, self._reserved = engine, reserved
        self._readers = Readers(engine.backbone)
        self._loaded: dict[str, Loaded] = {}
        self._changed = threading.Condition()

    @property
    def names(self) -> list[str]:
        """All prompts, in the order of their names."""
        return sorted(self._loaded)

    def __len__(self) -> int:
        return len(self._loaded)

    def check_name(self, name: str) -> None:
        """Refuse a name that cannot be, or that is taken.

        Raises:
            ConfigError, TakenError: it is.
        """
        if not re.fullmatch(NAME, name):
            what = (
                f"a name has letters, digits, '.', '_' and '-', at most 100 and a letter or digit first; got {name!r}."
            )
            raise ConfigError(what, where="name")
        if name in self._loaded or name == self._reserved:
            what = f"{name!r} is the backbone." if name == self._reserved else f"there is a prompt {name!r} already."
            raise TakenError(what, where="name", fix="Choose another name, or remove that one first.")

    def add(self, name: str, predictor: Predictor) -> Loaded:
        """Serve a prompt from now on; errors as `check_name`."""
        with self._changed:
            self.check_name(name)
            loaded = self._loaded[name] = Loaded(name, predictor, self._readers)
            return loaded

    def get(self, name: str) -> Loaded:
        """
        Raises:
            UnknownError: there is no such prompt.
        """
        loaded = self._loaded.get(name)
        if loaded is None:
            what = f"there is no prompt {name!r}."
            raise UnknownError(what, where="task", fix=suggest(name, self.names) or "None is loaded.")
        return loaded

    @contextmanager
    def using(self, name: str) -> Iterator[Loaded]:
        """A prompt that stays while this is open, or longer, see `hold`."""
        with self._changed:
            loaded = self.get(name)
            loaded.uses += 1
        try:
            yield loaded
        finally:
            self._release(loaded)

    def hold(self, loaded: Loaded, until: Future[Any]) -> None:
        """Keep a prompt that is in use until an answer is there."""
        with self._changed:
            loaded.uses += 1
        until.add_done_callback(lambda _: self._release(loaded))

    def _release(self, loaded: Loaded) -> None:
        with self._changed:
            loaded.uses -= 1
            if loaded.is_removed and not loaded.uses:
                self._let_go(loaded)

    def _let_go(self, loaded: Loaded) -> None:
        loaded.close()
        if loaded.table is not None:
            with suppress(ClosingError):
                self._engine.forget(loaded.table)
        self._changed.notify_all()

    def remove(self, name: str, patience: float = 30.0) -> None:
        """Serve a prompt no longer: from now on it is unknown, and when its last question is answered it is let go.

        Args:
            patience: seconds to wait for that; behind them the prompt goes when it can, without being waited for.

        Raises:
            UnknownError: there is no such prompt.
            OverloadedError: it is still in use.
        """
        with self._changed:
            loaded = self.get(name)
            del self._loaded[name]
            loaded.is_removed = True
            if not loaded.uses:
                self._let_go(loaded)
            is_gone = self._changed.wait_for(lambda: loaded.is_closed, patience)
        if not is_gone:
            what = f"{name!r} is removed, but {loaded.uses} questions that began before are not answered yet."
            raise OverloadedError(what, where="task", fix="It will go with the last of them.")
