"""Long sequences: the first values are held in memory, the rest lies in a scratch file.

A table of texts takes several times its size in memory, once as rows and once as examples. So what has more than `HELD`
rows keeps an offset for each of the others, and reads a row when it is asked for.
"""

from __future__ import annotations

import json
import tempfile
from array import array
from collections.abc import Iterator, Mapping, Sequence
from threading import Lock
from typing import IO, Any, final, overload
from weakref import finalize

from trimtab.errors import DataError

HELD = 10_000
"""Rows of a table that are held in memory."""


@final
class Stored(Sequence[Any]):
    """JSON values in the order in which they were added; those behind the first `held` are read back at every look.

    The file has no name: nothing of it is left, however the process ends. Threads may read it together.

    Args:
        held: how many values stay in memory; None for `HELD`.

    >>> values = Stored(held=1)
    >>> values.append(["in", "memory"]), values.append(["on", "disk"])
    (0, 1)
    >>> values[1], len(values)
    (['on', 'disk'], 2)
    """

    def __init__(self, held: int | None = None) -> None:
        self._held, self._most = list[Any](), HELD if held is None else held
        self._ends, self._lock = array("q", [0]), Lock()
        self._file: IO[bytes] | None = None

    def append(self, value: Any) -> int:
        """Add a value that JSON can hold; its place is returned.

        Raises:
            DataError: the scratch file cannot be written.
        """
        if len(self._held) < self._most:
            self._held.append(value)
            return len(self) - 1
        written = json.dumps(value).encode()
        try:
            with self._lock:
                self._file = self._file or self._opened()
                self._file.seek(self._ends[-1])
                self._file.write(written)
                self._file.flush()
        except OSError as error:
            raise DataError(
                f"rows behind the first {self._most:,} are kept in a scratch file, which cannot be written: "
                f"{error.strerror}.",
                where=tempfile.gettempdir(),
                fix="Make room there, or set TMPDIR to a folder that has some.",
            ) from None
        self._ends.append(self._ends[-1] + len(written))
        return len(self) - 1

    def _opened(self) -> IO[bytes]:
        file = tempfile.TemporaryFile(prefix="trimtab-")  # noqa: SIM115  (it lives as long as what it belongs to)
        finalize(self, file.close)
        return file

    def __len__(self) -> int:
        return len(self._held) + len(self._ends) - 1

    @overload
    def __getitem__(self, at: int) -> Any: ...

    @overload
    def __getitem__(self, at: slice) -> list[Any]: ...

    def __getitem__(self, at: int | slice) -> Any:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        at = range(len(self))[at]
        if at < len(self._held):
            return self._held[at]
        begin, end = self._ends[at - len(self._held) : at - len(self._held) + 2]
        assert self._file is not None
        with self._lock:
            self._file.seek(begin)
            return json.loads(self._file.read(end - begin))

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))


class StoredFields(Mapping[str, str]):
    """Columns and texts of a row, which are read when they are looked at; a plain dict where it is pickled.

    Args:
        columns: shared by all rows that have them.
        texts: of all rows, a list each.
        at: which is this row's.
    """

    __slots__ = ("_at", "_columns", "_texts")

    def __init__(self, columns: tuple[str, ...], texts: Stored, at: int) -> None:
        self._columns, self._texts, self._at = columns, texts, at

    def __getitem__(self, column: str) -> str:
        if column not in self._columns:
            raise KeyError(column)
        return str(self._texts[self._at][self._columns.index(column)])

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)

    def __repr__(self) -> str:
        return repr(dict(self))


class FieldStore:
    """Keeps the fields of many rows: dicts as they are for the first `HELD`, `StoredFields` for those behind."""

    def __init__(self) -> None:
        self._texts, self._columns, self._held = Stored(0), dict[tuple[str, ...], tuple[str, ...]](), 0

    def keep(self, fields: Mapping[str, str]) -> Mapping[str, str]:
        """The same fields, in memory or on disk.

        Raises:
            DataError: see `Stored.append`.
        """
        if self._held < HELD:
            self._held += 1
            return fields
        columns = tuple(fields)
        columns = self._columns.setdefault(columns, columns)
        return StoredFields(columns, self._texts, self._texts.append(list(fields.values())))
