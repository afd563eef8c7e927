"""Sizes in bytes as people read them: files in thousands, as shops and file managers count, memory in powers of two."""

from __future__ import annotations


def of_file(count: int | float) -> str:
    """Bytes on a disk or over a network.

    >>> of_file(999), of_file(50_000), of_file(4_118_001), of_file(31_000_000_000)
    ('999 B', '50.0 kB', '4.1 MB', '31.0 GB')
    """
    return _counted(count, 1000, ("B", "kB", "MB", "GB"), whole=1)


def of_memory(count: int | float) -> str:
    """Bytes of memory.

    >>> of_memory(512), of_memory(123_456_789), of_memory(3 << 30)
    ('512 B', '118 MiB', '3.0 GiB')
    """
    return _counted(count, 1024, ("B", "KiB", "MiB", "GiB"), whole=3)


def _counted(count: int | float, base: int, units: tuple[str, ...], whole: int) -> str:
    """In the largest unit that gives 1 or more; the first `whole` units have no decimals."""
    level = 0
    while count >= base and level < len(units) - 1:
        count, level = count / base, level + 1
    return f"{count:.{int(level >= whole)}f} {units[level]}"
