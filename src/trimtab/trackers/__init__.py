"""Who follows a run while it trains: one file per service.

A tracker is told the numbers of every evaluation, and in the end what has come out. It is no part of a run: it stands
neither in the config nor in the id and changes no result, and where it fails the run goes on without it.

Names of numbers: `train/loss` (mean since the last evaluation, absent at step 0), `dev/<metric>`, and `best`, 1 where
the evaluation has given the best checkpoint so far.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from trimtab.documents import parse_yaml
from trimtab.errors import ConfigError
from trimtab.registry import trackers

ALWAYS = "jsonl"
"""The tracker that every run has."""

Spec = str | Mapping[str, Any]


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker may know of its run.

    Attributes:
        config: resolved, as plain data.
        folder: of the run. What trackers leave there is in subfolders and hidden files, which are no results.
        group: the study that it belongs to.
        since: the step that a killed run goes on from; what a tracker has seen beyond it comes again. None for a run
            that starts at the beginning.
    """

    id: str
    config: Mapping[str, Any]
    folder: Path
    group: str | None = None
    since: int | None = None

    def known_as(self, kind: str) -> str | None:
        """The name that a service has given to this run before it was killed; None if it shall give one."""
        if self.since is None:
            return None
        with suppress(OSError):
            return self._memo(kind).read_text(encoding="utf-8")
        return None

    def remember(self, kind: str, name: str) -> None:
        """Keep the name that a service has given to this run."""
        self._memo(kind).write_text(name, encoding="utf-8")

    def _memo(self, kind: str) -> Path:
        return self.folder / f".{kind}"


class Tracker(ABC):
    """Follows one run. Built from its `TrackedRun` when the run begins, or goes on; options are keyword-only.

    Attributes:
        module: the library that is needed, if any.
        extra: of trimtab, that installs it.
    """

    module: ClassVar[str | None] = None
    extra: ClassVar[str | None] = None

    @classmethod
    def library(cls) -> Any:
        """The library, imported; None where none is needed.

        Raises:
            ConfigError: it is not installed.
        """
        if cls.module is None:
            return None
        try:
            return import_module(cls.module)
        except ImportError as error:
            what = f"this tracker needs a library that is not installed ({error})."
            name = f"'trimtab[{cls.extra}]'" if cls.extra else cls.module
            raise ConfigError(what, where=f"track: {cls.extra or cls.module}", fix=f"pip install {name}") from None

    @abstractmethod
    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of an evaluation."""

    @abstractmethod
    def end(self, status: str, summary: Mapping[str, float]) -> None:
        """The run is over.

        Args:
            status: `done` or `diverged`, when its folder is written; `failed` after an error, `stopped` by hand.
            summary: scores of the best checkpoint, as `final/test/accuracy`, and what the run took; empty unless its
                folder is written.
        """


def check_trackers(given: Sequence[Spec]) -> tuple[dict[str, Any], ...]:
    """Trackers as they are asked for, as resolved plain data: `tensorboard`, `wandb: {project: x}`, or the same as a
    mapping, with or without `kind`.

    Raises:
        ConfigError: no such tracker or option, one that is asked for twice, or its library is not installed.
    """
    found: dict[str, dict[str, Any]] = {}
    for one in given:
        resolved = trackers.resolve(_spec(parse_yaml(one, "track") if isinstance(one, str) else one), "track")
        kind = resolved["kind"]
        if kind in found:
            raise ConfigError(f"the tracker {kind!r} is asked for twice.", where="track", fix="Leave one out.")
        trackers.get(kind).library()  # type: ignore[attr-defined]
        found[kind] = resolved
    found.pop(ALWAYS, None)
    return tuple(found.values())


def _spec(given: Any) -> Spec:
    if isinstance(given, Mapping) and len(given) == 1 and "kind" not in given:
        ((kind, options),) = given.items()
        if options is None or isinstance(options, Mapping):
            return {**(options or {}), "kind": kind}
    if isinstance(given, str) or (isinstance(given, Mapping) and "kind" in given):
        return given
    fix = "Write its name, or name: {option: value}, such as wandb: {project: mine}."
    raise ConfigError(f"this is no tracker: {given!r}.", where="track", fix=fix)


def flattened(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested plain data with dotted keys, for services that know no nesting.

    >>> flattened({"a": {"b": 1, "c": [2, {"d": 3}]}, "e": {}})
    {'a.b': 1, 'a.c': [2, {'d': 3}], 'e': {}}
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= flattened(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {prefix + key: value}
    return flat
