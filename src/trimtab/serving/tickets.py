"""What waits for the engine: rows to be scored, and rows to be written."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, final

from torch import Tensor

from trimtab.prompt_table import PromptTable
from trimtab.serving.choosing import Choice
from trimtab.serving.readers import Reader
from trimtab.types import Row


@dataclass(frozen=True)
class Seat:
    """A row and what goes with it, whatever its batch mates are.

    Attributes:
        table: its prompt, as a table of one; None for a bare row.
        reader: what reads it; None for rows that are written.
        has_prefix: all that stands before the end of its prompt is the same for every text.
    """

    row: Row
    table: PromptTable | None
    reader: Reader | None = None
    has_prefix: bool = False


class Ticket:
    """Work whose answer is waited for."""

    def __init__(self) -> None:
        self.future: Future[Any] = Future()
        self.since = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Nobody waits any more: it is answered, or whoever asked has gone."""
        return self.future.done()

    def cancel(self) -> None:
        """Whoever asked has gone; what is not computed yet is left out."""
        self.future.cancel()

    def answer(self, value: Any) -> None:
        """Give the answer, unless nobody waits."""
        with suppress(InvalidStateError):
            self.future.set_result(value)

    def fail(self, error: BaseException) -> None:
        """Say why there is no answer."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)


@final
class Scoring(Ticket):
    """Rows to be scored; answered with their scores, one tensor each, in the order of the rows.

    Args:
        costs: tokens that are computed for each.
    """

    def __init__(self, seats: Sequence[Seat], costs: Sequence[int]) -> None:
        super().__init__()
        self.seats, self.costs = seats, costs
        self._scores: list[Tensor | None] = [None] * len(seats)
        self._missing = len(seats)

    def give(self, place: int, scores: Tensor) -> None:
        """Scores of one row."""
        self._scores[place] = scores
        self._missing -= 1
        if not self._missing:
            self.answer(self._scores)


@dataclass(frozen=True)
class Ended:
    """What was written, its end token left out; `length` where there was no room for more."""

    ids: tuple[int, ...]
    reason: Literal["stop", "length"]


@dataclass(frozen=True)
class Order:
    """How much is written, and how.

    Attributes:
        end_id: the token that ends it, and is not part of it.
        told: is given each token when it is there, in the engine's thread; must not wait.
    """

    new_tokens: int
    end_id: int | None
    choice: Choice = field(default_factory=Choice)
    told: Callable[[int], None] | None = None


@final
class Writing(Ticket):
    """One row to be written; answered with `Ended`."""

    def __init__(self, seat: Seat, order: Order) -> None:
        super().__init__()
        self.seat, self.order = seat, order
        self.chooser = order.choice.begin()
        self.written: list[int] = []

    def take(self, token: int) -> None:
        """The next token; answers when it is the last."""
        if token == self.order.end_id:
            self.answer(Ended(tuple(self.written), "stop"))
            return
        self.written.append(token)
        try:
            if self.order.told is not None:
                self.order.told(token)
        except Exception as error:  # whoever listens must not break the others' batch
            self.fail(error)
        if len(self.written) >= self.order.new_tokens:
            self.answer(Ended(tuple(self.written), "length"))
