"""Rendered examples: few are held, many are rendered again whenever they are read.

A rendered row takes some ten times the memory of its text. So a large training table keeps its texts and what each row
costs in a batch, and a step renders the rows that it draws.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import final, overload

from trimtab.types import Example, Row


@final
class Rerendered(Sequence[Row]):
    """The rows of many examples; none of them is held.

    Args:
        render: the rows of an example, the same whenever it is asked.

    Raises:
        TemplateError, DataError: what is wrong with an example is found at once, as each is rendered for its length.
    """

    def __init__(self, examples: Sequence[Example], render: Callable[[Example], list[Row]]) -> None:
        self._examples, self._render = examples, render
        self._costs, self._example_of = array("q"), array("q")
        for number, example in enumerate(examples):
            for row in render(example):
                self._costs.append(row.cost)
                self._example_of.append(number)

    @property
    def costs(self) -> list[int]:
        """`Row.cost` of each."""
        return self._costs.tolist()

    def __len__(self) -> int:
        return len(self._costs)

    @overload
    def __getitem__(self, at: int) -> Row: ...

    @overload
    def __getitem__(self, at: slice) -> list[Row]: ...

    def __getitem__(self, at: int | slice) -> Row | list[Row]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        at = range(len(self))[at]
        number = self._example_of[at]
        return self._render(self._examples[number])[at - bisect_left(self._example_of, number)]

    def __iter__(self) -> Iterator[Row]:
        return (row for example in self._examples for row in self._render(example))


def costs_of(rows: Sequence[Row]) -> list[int]:
    """What each row costs in a batch; nothing is rendered for it."""
    return rows.costs if isinstance(rows, Rerendered) else [row.cost for row in rows]
