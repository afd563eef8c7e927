"""Sizes in bytes as text."""

from __future__ import annotations

import pytest

from trimtab.sizes import of_file, of_memory


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
