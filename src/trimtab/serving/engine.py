"""The engine: one thread owns the model, everything else waits in line.

Rows of all tasks that arrive within `Pace.latency` seconds of each other are taken together, as many as fit the budget
of tokens, and those of like length share a forward pass. Texts are written one token at a time, so whatever arrives in
between goes in between. An error in a mixed batch must not be everybody's: then each request is computed alone, and
only the one that cannot be gets the error.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, final

from trimtab.backbones import Backbone
from trimtab.model import PromptedBackbone
from trimtab.prompt_table import PromptTable
from trimtab.serving.drafts import Draft
from trimtab.serving.gathering import joined
from trimtab.serving.grouping import OVERHEAD, grouped
from trimtab.serving.prefix_cache import PrefixCache
from trimtab.serving.refusals import ClosingError
from trimtab.serving.scoring import numbered, score
from trimtab.serving.tickets import Scoring, Seat, Ticket, Writing

T = TypeVar("T")


@dataclass(frozen=True)
class Pace:
    """How long the engine waits for more, and how much it takes at once.

    Attributes:
        latency: seconds that the first row of a batch waits for mates.
        tokens: taken at once, and of a pass, padding included.
        rows: taken at once.
        writers: texts that are written at the same time.
        prefix_bytes: for keys and values of prefix prompts; 0 keeps none.
    """

    latency: float = 0.003
    tokens: int = 8192
    rows: int = 256
    writers: int = 64
    prefix_bytes: int = 256 << 20


@dataclass
class Counts:
    """What the engine has done. Written by its thread, read by anybody."""

    steps: int = 0
    rows: int = 0
    tokens: int = 0
    writing_steps: int = 0
    written: int = 0
    repeats: int = 0


@final
class _Call(Ticket, Generic[T]):
    def __init__(self, work: Callable[[], T]) -> None:
        super().__init__()
        self.work = work


@final
class Engine:
    """Computes what it is given, in a thread of its own, until it is closed."""

    def __init__(self, backbone: Backbone, pace: Pace = Pace()) -> None:
        self.backbone, self.pace, self.counts = backbone, pace, Counts()
        self.prefixes = PrefixCache(backbone, pace.prefix_bytes)
        self._rows: deque[tuple[Scoring, int]] = deque()
        self._writings: deque[Writing] = deque()
        self._calls: deque[_Call[Any]] = deque()
        self._drafts: list[Draft] = []
        self._is_closing = False
        self._there = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="trimtab-engine", daemon=True)
        self._thread.start()

    # What may be asked of it, from any thread

    def score(self, seats: Sequence[Seat]) -> Scoring:
        """Score rows; see `trimtab.serving.scoring`."""
        scoring = Scoring(seats, [self.prefixes.cost(seat) for seat in seats])
        if not seats:
            scoring.answer([])
        self._put(lambda: self._rows.extend((scoring, i) for i in range(len(seats))))
        return scoring

    def write(self, writing: Writing) -> Writing:
        """Write one text."""
        self._put(lambda: self._writings.append(writing))
        return writing

    def call(self, work: Callable[[], T]) -> Future[T]:
        """Run anything that needs the model to itself."""
        ticket = _Call(work)
        self._put(lambda: self._calls.append(ticket))
        return ticket.future

    def forget(self, table: PromptTable) -> None:
        """Let go of what is kept of a prompt."""
        self.call(lambda: self.prefixes.forget(table))

    def close(self, patience: float | None = None) -> None:
        """Take nothing more, finish what is there, stop.

        Args:
            patience: seconds, after which whoever still waits gets an error; None to wait for all.
        """
        with self._there:
            self._is_closing = True
            self._there.notify_all()
        self._thread.join(patience)
        if self._thread.is_alive():
            self._drop_all(closing())
            self._thread.join(patience)

    @property
    def is_open(self) -> bool:
        """Whether it takes work."""
        return not self._is_closing and self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Rows and texts that are not done."""
        return len(self._rows) + len(self._writings) + len(self._calls) + self.writing

    @property
    def writing(self) -> int:
        """Texts that are being written."""
        return sum(map(len, self._drafts))

    def _put(self, enter: Callable[[], None]) -> None:
        with self._there:
            if self._is_closing:
                raise closing()
            enter()
            self._there.notify_all()

    # The thread

    def _run(self) -> None:
        while self._wait():
            try:
                self._do_calls()
                self._score_some()
                self._begin_some()
                self._write_on()
            except Exception as error:  # a defect: nobody may wait for ever, and the next request may go well
                self._drop_all(error)

    def _wait(self) -> bool:
        """Sleep until there is something to do; False when there never will be."""
        with self._there:
            while not (self._calls or self._writings or self._drafts or self._rows_are_ready()):
                if self._is_closing:
                    return False
                self._there.wait(self._time_left())
            return True

    def _time_left(self) -> float | None:
        """Seconds until the first row has waited long enough; None where there is none."""
        if not self._rows:
            return None
        return max(0.0, self._rows[0][0].since + self.pace.latency - time.monotonic())

    def _rows_are_ready(self) -> bool:
        if not self._rows:
            return False
        is_full = len(self._rows) >= self.pace.rows or self._fitting() < len(self._rows)
        return is_full or self._is_closing or self._time_left() == 0.0

    def _fitting(self) -> int:
        """How many of the rows that wait are taken at once; at least one."""
        tokens = 0
        for n, (scoring, i) in enumerate(self._rows):
            tokens += scoring.costs[i]
            if n and (n == self.pace.rows or tokens > self.pace.tokens):
                return n
        return len(self._rows)

    def _do_calls(self) -> None:
        while self._calls:
            ticket = self._calls.popleft()
            try:
                ticket.answer(ticket.work())
            except Exception as error:
                ticket.fail(error)

    def _score_some(self) -> None:
        with self._there:
            taken = [self._rows.popleft() for _ in range(self._fitting())]
        wanted = [(scoring, i) for scoring, i in taken if not scoring.is_over]
        costs = [scoring.costs[i] for scoring, i in wanted]
        overhead = OVERHEAD if self.backbone.device.type == "cpu" else None
        for places in grouped(costs, self.pace.tokens, overhead):
            self._score_together([wanted[place] for place in places])

    def _score_together(self, wanted: Sequence[tuple[Scoring, int]]) -> None:
        """Rows of one pass; each request by itself where that fails."""
        try:
            self._score(wanted)
        except Exception:
            self.counts.repeats += 1
            for scoring in dict.fromkeys(scoring for scoring, _ in wanted):
                try:
                    self._score([(its, i) for its, i in wanted if its is scoring])
                except Exception as error:
                    scoring.fail(error)

    def _score(self, wanted: Sequence[tuple[Scoring, int]]) -> None:
        seats = [self.prefixes.shortened(scoring.seats[i]) for scoring, i in wanted]
        found = score(self.backbone, seats)
        self.counts.steps += 1
        self.counts.rows += len(seats)
        self.counts.tokens += sum(seat.row.cost for seat in seats)
        for (scoring, i), scores in zip(wanted, found, strict=True):
            scoring.give(i, scores)

    def _begin_some(self) -> None:
        """Let waiting texts begin, together where they can."""
        with self._there:
            room = max(0, self.pace.writers - self.writing)
            taken = [self._writings.popleft() for _ in range(min(room, len(self._writings)))]
        wanted = [w for w in taken if not w.is_over]
        if not wanted:
            return
        begin = self._begin if self.backbone.family.is_causal else self._write_whole
        try:
            begin(wanted)
        except Exception:
            self.counts.repeats += 1
            for writing in wanted:
                self._begin_alone(writing, begin)

    def _begin_alone(self, writing: Writing, begin: Callable[[Sequence[Writing]], None]) -> None:
        """Let a text begin whose mates may have been the trouble; not one that has begun already."""
        if writing.is_over:
            return
        try:
            if writing.written:
                raise RuntimeError("the batch of this text failed behind its first token")
            begin([writing])
        except Exception as error:
            writing.fail(error)

    def _begin(self, wanted: Sequence[Writing]) -> None:
        seats = [self.prefixes.shortened(w.seat, w.order.new_tokens) for w in wanted]
        draft = Draft(self.backbone, wanted, seats)
        mate = next((d for d in self._drafts if d.can_merge and draft.can_merge), None)
        if mate is not None and len(draft):
            mate.merge(draft)
        elif len(draft):
            self._drafts.append(draft)

    def _write_whole(self, wanted: Sequence[Writing]) -> None:
        """Texts of an encoder-decoder, from beginning to end, together where they may be as long."""
        alike: dict[tuple[int, int | None], list[Writing]] = {}
        for writing in wanted:
            alike.setdefault((writing.order.new_tokens, writing.order.end_id), []).append(writing)
        model = PromptedBackbone(self.backbone)
        for (new_tokens, end_id), its in alike.items():
            rows, tables = numbered([w.seat for w in its])
            table = joined(tables) if tables else None
            texts = model.generate_rows(rows, table, self.pace.tokens, new_tokens, end_id)
            for writing, ids in zip(its, texts, strict=True):
                for token in (*ids, *([end_id] if len(ids) < new_tokens and end_id is not None else [])):
                    writing.take(token)
            self.counts.written += sum(map(len, texts))

    def _write_on(self) -> None:
        """One more token for every text."""
        for draft in list(self._drafts):
            self.counts.writing_steps += 1
            self.counts.written += len(draft)
            try:
                draft.step()
            except Exception as error:
                for writing in draft.writings:
                    writing.fail(error)
                draft.writings = []
        self._drafts = [draft for draft in self._drafts if len(draft)]

    def _drop_all(self, error: Exception) -> None:
        """Tell everybody that there will be no answer, and why."""
        with self._there:
            left: list[Ticket] = [*(s for s, _ in self._rows), *self._writings, *self._calls]
            left += [writing for draft in self._drafts for writing in draft.writings]
            self._rows.clear()
            self._writings.clear()
            self._calls.clear()
        for ticket in left:
            ticket.fail(error)


def closing() -> ClosingError:
    """Why nothing is taken any more."""
    return ClosingError("the server is shutting down.", where="server", fix="Ask again when it is back.")
