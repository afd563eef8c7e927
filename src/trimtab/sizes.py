"""Sizes as people read them: files in thousands of bytes, as shops and file managers count, memory in powers of two,
times in seconds, minutes and hours.
"""

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


def of_time(seconds: int | float, *, tenths: bool = False) -> str:
    """A time.

    Args:
        tenths: tell tenths of a second below ten, for what was measured and not judged.

    >>> [of_time(s) for s in (0.4, 59.7, 61.0, 3720.0, 200_000)]
    ['0 s', '1 min 0 s', '1 min 1 s', '1 h 2 min', '55 h 33 min']
    >>> [of_time(s, tenths=True) for s in (3.21, 9.96, 75)]
    ['3.2 s', '10 s', '1 min 15 s']
    """
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if tenths and round(seconds, 1) < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _counted(count: int | float, base: int, units: tuple[str, ...], whole: int) -> str:
    """In the largest unit that gives 1 or more; the first `whole` units have no decimals."""
    level = 0
    while count >= base and level < len(units) - 1:
        count, level = count / base, level + 1
    return f"{count:.{int(level >= whole)}f} {units[level]}"
