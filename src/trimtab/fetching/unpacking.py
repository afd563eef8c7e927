"""Taking the wanted files out of an archive, and nothing else, nowhere else."""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO, Any

from trimtab.archives import is_link, leads_out
from trimtab.errors import DataError, StorageError
from trimtab.fetching.manifests import Archive

MOST_BYTES = 8 << 30
"""More than this is not unpacked: no data that is meant here is as large."""
_BLOCK = 1 << 20

_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, RuntimeError)
"""What readers of archives say of damaged ones, and of those with a password."""

Member = tuple[str, int, Callable[[], AbstractContextManager[IO[bytes]]]]
"""Name, size, and how to open it."""


def unpack(file: Path, archive: Archive, scratch: Path) -> list[str]:
    """Write the files that the manifest names into an empty folder; returns their paths in it, sorted.

    Raises:
        DataError: not an archive of its kind, damaged, a name that leads out of its folder, a link, two files for one
            place, too large, or a named file that is not in it.
        StorageError: the disk is full.
    """
    try:
        if not archive.files:
            shutil.copyfile(file, scratch / archive.file_name)
            return [archive.file_name]
        with _opened(file, archive) as members:
            return _take(list(members), archive, scratch)
    except _DAMAGED as error:
        what = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"this is not a readable archive: {what.rstrip('.')}.", where=archive.url) from None
    except OSError as error:
        raise StorageError(f"the files cannot be written: {error.strerror}.", where=str(scratch.parent),
                           fix="Free some space, or choose another --data-dir.") from None  # fmt: skip


@contextmanager
def _opened(file: Path, archive: Archive) -> Iterator[Iterator[Member]]:
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as opened:
            yield _zip_members(opened, archive)
    elif tarfile.is_tarfile(file):
        with tarfile.open(file) as tar:
            yield _tar_members(tar, archive)
    else:
        raise DataError("this is neither a zip nor a tar archive.", where=archive.url)


def _zip_members(opened: zipfile.ZipFile, archive: Archive) -> Iterator[Member]:
    for info in opened.infolist():
        _check_name(info.filename, archive)
        if not info.is_dir():
            if is_link(info):
                raise _unsafe(info.filename, "a link", archive)
            yield info.filename, info.file_size, lambda info=info: opened.open(info)  # type: ignore[misc]


def _tar_members(tar: tarfile.TarFile, archive: Archive) -> Iterator[Member]:
    for info in tar.getmembers():
        _check_name(info.name, archive)
        if info.isfile():
            yield info.name, info.size, lambda info=info: tar.extractfile(info)  # type: ignore[misc]
        elif not info.isdir():
            raise _unsafe(info.name, "a link or a device", archive)


def _check_name(name: str, archive: Archive) -> None:
    if leads_out(name):
        raise _unsafe(name, "a name that leads out of its folder", archive)


def _unsafe(name: str, what: str, archive: Archive) -> DataError:
    return DataError(f"the archive holds {what}: {name!r}; nothing of it was unpacked.", where=archive.url)


def _take(members: Sequence[Member], archive: Archive, scratch: Path) -> list[str]:
    """Write what is wanted; every pattern must be met."""
    wanted: dict[str, Member] = {}
    met: set[str] = set()
    for member in members:
        own = _relative(PurePosixPath(member[0]), PurePosixPath(archive.inside))
        pattern = next((p for p in archive.files if own is not None and _matches(own, p)), None)
        if own is None or pattern is None:
            continue
        if str(own) in wanted:
            what = f"two files of the archive belong at {own}: {wanted[str(own)][0]!r} and {member[0]!r}."
            raise DataError(what, where=archive.url)
        wanted[str(own)] = member
        met.add(pattern)
    if missing := [p for p in archive.files if p not in met]:
        raise DataError(
            f"the archive has no {missing[0]!r}{f' in {archive.inside!r}' if archive.inside else ''}.",
            where=archive.url,
            fix="It is not the one that the manifest was written for.",
        )
    if (size := sum(m[1] for m in wanted.values())) > MOST_BYTES:
        raise DataError(f"the archive unpacks to {size:,} bytes, at most {MOST_BYTES:,} are.", where=archive.url)
    for name, (_, stated, opened) in wanted.items():
        _write(scratch / name, stated, opened, archive)
    return sorted(wanted)


def _relative(path: PurePosixPath, inside: PurePosixPath) -> PurePosixPath | None:
    """A member's path below the folder that is wanted, at whatever depth that is; None where it is not below it."""
    if "__MACOSX" in path.parts or path.name.startswith("._"):
        return None
    parts, n = path.parts, len(inside.parts)
    if not n:
        return PurePosixPath(*(p for p in parts if p != "."))
    at = next((i for i in range(len(parts) - n) if parts[i : i + n] == inside.parts), None)
    return None if at is None else PurePosixPath(*parts[at + n :])


def _matches(path: PurePosixPath, pattern: str) -> bool:
    wanted = PurePosixPath(pattern).parts
    return len(path.parts) == len(wanted) and all(map(fnmatchcase, path.parts, wanted))


def _write(path: Path, stated: int, opened: Callable[[], Any], archive: Archive) -> None:
    """A member, and not more of it than it says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with opened() as content, path.open("wb") as file:
        while block := content.read(_BLOCK):
            written += len(block)
            if written > stated:
                raise DataError(f"{path.name!r} is larger than the archive says.", where=archive.url)
            file.write(block)
    if written < stated:
        raise DataError(f"{path.name!r} is cut off: {written:,} of {stated:,} bytes.", where=archive.url)


def move_into(scratch: Path, names: Sequence[str], folder: Path) -> None:
    """Move files into their places, each at once.

    Raises:
        StorageError: the file system refuses.
    """
    try:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(scratch / name, folder / name)
    except OSError as error:
        raise StorageError(f"the files cannot be moved into place: {error.strerror}.", where=str(folder)) from None
