"""Values that lie in a scratch file are those that were added, and little of them is in memory."""

from __future__ import annotations

import errno
import tempfile
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from pathlib import Path
from typing import Any

import pytest

from tests.unit.disks import failing
from trimtab.errors import DataError
from trimtab.stored import FieldStore, Stored, StoredFields

VALUES: list[Any] = [{"a": "x", "b": None}, ["ä", "\U0001f30a", ""], 3, 2.5, True, {"deep": [{"er": "\n\t"}]}, "\ud83d"]


@pytest.mark.parametrize("held", [0, 1, 3, 100])
def test_values_are_those_that_were_added(held: int) -> None:
    stored = Stored(held)
    assert [stored.append(value) for value in VALUES] == list(range(len(VALUES)))
    assert list(stored) == VALUES == list(stored)
    assert [stored[i - len(VALUES)] for i in range(len(VALUES))] == VALUES
    assert stored[1:6:2] == VALUES[1:6:2]
    with pytest.raises(IndexError):
        stored[len(VALUES)]
    stored.append("behind what was read")
    assert stored[-1] == "behind what was read"
    assert len(stored) == len(VALUES) + 1


def test_an_empty_one_is_false() -> None:
    assert not Stored()
    assert list(Stored(0)) == []


def test_threads_read_what_is_theirs() -> None:
    stored = Stored(0)
    for i in range(500):
        stored.append([i] * (i % 7))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(stored.__getitem__, range(500))) == [[i] * (i % 7) for i in range(500)]


def test_texts_are_not_in_memory() -> None:
    def taken(held: int) -> int:
        tracemalloc.start()
        stored = Stored(held)
        for i in range(300):
            stored.append(f"{i} " * 1000)
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return size

    assert taken(300) > 10 * taken(10)


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", failing(errno.ENOSPC))
    stored = Stored(1)
    stored.append("held")
    with pytest.raises(DataError, match=r"behind the first 1 are kept in a scratch file.*No space left") as caught:
        stored.append("not")
    assert "TMPDIR" in str(caught.value.fix)
    assert list(stored) == ["held"]


def test_fields_are_those_of_the_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("trimtab.stored.HELD", 2)
    store = FieldStore()
    rows = [{"text": f"text {i}", "other": "ö" * i} for i in range(5)] + [{"text": "alone"}]
    kept = [store.keep(row) for row in rows]
    assert [type(fields) for fields in kept] == [dict] * 2 + [StoredFields] * 4
    assert kept == rows
    assert [dict(fields) for fields in kept] == rows
    assert [list(fields) for fields in kept] == [list(row) for row in rows]
    assert "label" not in kept[-1]
    assert kept[-1].get("other", "none") == "none"
    assert repr(kept[-1]) == repr(rows[-1])
    copied = copy(kept[-1])  # as pickle does
    assert type(copied) is dict
    assert copied == rows[-1]
