"""A table before it is HTML, Markdown or text: columns, and rows of cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.reports.numbers import Real


@dataclass(frozen=True)
class Column:
    """`numeric` aligns right; `about` explains the name."""

    name: str
    numeric: bool = True
    about: str = ""


@dataclass(frozen=True)
class Cell:
    """What is read, what is sorted by, and a second line in small print."""

    text: str
    key: Real | str | None = None
    note: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of cells, as many as columns; the first cell of a row names it."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


def table(caption: str, columns: Sequence[Column], rows: Sequence[Sequence[Cell | str]]) -> Table:
    """A table; plain text is a cell that is sorted by itself."""
    cells = (tuple(Cell(c, c) if isinstance(c, str) else c for c in row) for row in rows)
    return Table(caption, tuple(columns), tuple(cells))
