"""What members of an archive from anybody may not be: something elsewhere."""

from __future__ import annotations

from pathlib import PurePosixPath
from zipfile import ZipInfo


def leads_out(name: str) -> bool:
    """Whether the name of a member leads out of the folder into which it is unpacked, on any system, or is none.

    >>> [leads_out(name) for name in ("a/b.txt", ".", "", "/a", "../a", "a/../../b", "C:/a", "a\\\\b", "a\\0b")]
    [False, False, True, True, True, True, True, True, True]
    """
    path = PurePosixPath(name)
    return (
        not name
        or path.is_absolute()
        or ".." in path.parts
        or "\\" in name
        or "\0" in name
        or ":" in "".join(path.parts[:1])
    )


def is_link(member: ZipInfo) -> bool:
    """Whether a member of a zip archive is a symbolic link, as archives from Unix state it."""
    return (member.external_attr >> 16) & 0o170000 == 0o120000
