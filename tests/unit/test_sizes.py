"""Sizes and times as text."""

from __future__ import annotations

import pytest

from trimtab.sizes import of_file, of_memory, of_time


@pytest.mark.parametrize(
    ("count", "file", "memory"),
    [
        (0, "0 B", "0 B"),
        (1000, "1.0 kB", "1000 B"),
        (1024, "1.0 kB", "1 KiB"),
        (1 << 20, "1.0 MB", "1 MiB"),
        (3 << 30, "3.2 GB", "3.0 GiB"),
        (5 << 40, "5497.6 GB", "5120.0 GiB"),
    ],
)
def test_files_are_counted_in_thousands_and_memory_in_powers_of_two(count: int, file: str, memory: str) -> None:
    assert (of_file(count), of_memory(count)) == (file, memory)


@pytest.mark.parametrize(
    ("seconds", "judged", "measured"),
    [
        (0, "0 s", "0.0 s"),
        (9.94, "10 s", "9.9 s"),
        (9.96, "10 s", "10 s"),
        (59.4, "59 s", "59 s"),
        (59.6, "1 min 0 s", "1 min 0 s"),
        (3599.6, "1 h 0 min", "1 h 0 min"),
        (86_400, "24 h 0 min", "24 h 0 min"),
    ],
)
def test_times_change_their_unit_where_they_are_rounded_to_one(seconds: float, judged: str, measured: str) -> None:
    assert (of_time(seconds), of_time(seconds, tenths=True)) == (judged, measured)
