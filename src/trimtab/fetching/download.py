"""Downloads that go on where they stopped, and are used only if their hash is right."""

from __future__ import annotations

import errno
import hashlib
import http.client
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.errors import BundleError, DataError, StorageError
from trimtab.fetching.manifests import Archive
from trimtab.files import read_json, sha256_of, write_json

Events = Callable[[Mapping[str, Any]], None]
_BLOCK = 1 << 18
_PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Answers of servers that may be others a moment later."""


@dataclass(frozen=True)
class Waits:
    """How patient a download is, in seconds: for an answer, and between tries, twice as long each time."""

    answer: float = 30.0
    first: float = 1.0
    tries: int = 5


@dataclass(frozen=True)
class Source:
    """An archive, and a folder where it may lie already."""

    archive: Archive
    copies: Path | None = None


class _CutOff(Exception):
    """The connection ended before the file did."""


def retrieve(source: Source, folder: Path, told: Events, waits: Waits) -> Path:
    """The file of an archive, with the right hash if one is known.

    What a try has received stays in `folder` for the next one, which asks for the rest. A file with a wrong hash is
    removed.

    Raises:
        DataError: the server refuses or cannot be reached, or the hash or the size is wrong.
        StorageError: the disk is full or may not be written; what was received is removed.
    """
    archive = source.archive
    stem = hashlib.sha256(archive.url.encode()).hexdigest()[:12]
    part = folder / f"{stem}-{archive.file_name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        copy = None if source.copies is None else source.copies / archive.file_name
        if copy is not None and copy.is_file():
            shutil.copyfile(copy, part)
        else:
            _persist(archive, part, told, waits)
    except StorageError:
        _remove(part)
        raise
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS, errno.EPERM):
            raise
        _remove(part)
        is_refused = error.errno in (errno.EACCES, errno.EROFS, errno.EPERM)
        raise StorageError(
            f"the download cannot be written: {error.strerror if is_refused else 'no space left on the disk'}.",
            where=str(folder),
            fix="Choose another --data-dir." if is_refused else "Free some space, or choose another --data-dir.",
        ) from None
    _check(archive, part, str(copy) if copy is not None and copy.is_file() else archive.url)
    return part


def _check(archive: Archive, part: Path, where: str) -> None:
    """The file is what the manifest says."""
    if archive.sha256 is not None and (got := sha256_of(part)) != archive.sha256:
        size = part.stat().st_size
        _remove(part)
        sizes = f", {archive.bytes:,} bytes" if archive.bytes else ""
        raise DataError(
            f"the file is not what the manifest says: SHA-256 {got} ({size:,} bytes), not {archive.sha256}{sizes}.",
            where=where,
            fix="It was removed. Try again; if it stays so, the file has changed at its source: do not trust it.",
        )


def _persist(archive: Archive, part: Path, told: Events, waits: Waits) -> None:
    """Try until the file is there."""
    reason = ""
    for attempt in range(waits.tries):
        if attempt:
            wait = waits.first * 2 ** (attempt - 1)
            told({"event": "retry", "url": archive.url, "reason": reason, "seconds": wait})
            time.sleep(wait)
        try:
            return _receive(archive, part, told, waits.answer)
        except urllib.error.HTTPError as error:
            error.close()
            reason = f"the server answers {error.code} {error.reason}"
            if error.code not in _PASSING:
                break
        except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException, _CutOff) as error:
            inner = getattr(error, "reason", error)
            if isinstance(inner, OSError) and inner.errno in (errno.ENOSPC, errno.EDQUOT):
                raise inner from None
            reason = " ".join(str(inner).split()) or type(inner).__name__
    got = part.stat().st_size if part.exists() else 0
    kept = f" {got:,} bytes are kept, and the next try goes on from there." if got else ""
    raise DataError(
        f"the download has failed: {reason.rstrip('.')}.{kept}",
        where=archive.url,
        fix=f"Try again later, or get the file otherwise and name its folder: --from FOLDER with {archive.file_name}.",
    )


def _receive(archive: Archive, part: Path, told: Events, patience: float) -> None:
    """One try: ask for what is missing, and append it."""
    note = part.with_name(f"{part.name}.json")
    begun = part.stat().st_size if part.exists() else 0
    if archive.bytes is not None and begun == archive.bytes:
        return
    tag = None
    with suppress(BundleError):
        tag = read_json(note).get("etag") if begun else None
    headers = {"User-Agent": "trimtab", "Accept-Encoding": "identity"}
    if begun:
        headers |= {"Range": f"bytes={begun}-", **({"If-Range": tag} if tag else {})}
    try:
        response = urllib.request.urlopen(urllib.request.Request(archive.url, headers=headers), timeout=patience)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not begun:
            raise
        error.close()
        _remove(part)  # what is here is longer than what is there: another file
        raise _CutOff("the server has less than was received; starting over") from None
    with response:
        if begun and (response.status != 206 or not _goes_on(response, begun)):
            begun = 0
        etag = response.headers.get("ETag")
        write_json(note, {"url": archive.url, **({"etag": etag} if etag and not etag.startswith("W/") else {})})
        left = response.headers.get("Content-Length")
        total = None if left is None else begun + int(left)
        _append(response, part, begun, total, archive, told)
    _remove(note)


def _goes_on(response: Any, begun: int) -> bool:
    """The server sends the rest, and no other part."""
    return str(response.headers.get("Content-Range", "")).startswith(f"bytes {begun}-")


def _append(response: Any, part: Path, begun: int, total: int | None, archive: Archive, told: Events) -> None:
    got = begun
    with part.open("r+b" if begun else "wb") as file:
        file.seek(begun)
        while block := response.read(_BLOCK):
            file.write(block)
            got += len(block)
            told({"event": "progress", "url": archive.url, "got": got, "of": total or archive.bytes})
            if archive.bytes is not None and got > archive.bytes:
                return  # it cannot be what was meant; the hash will say so
    if total is not None and got < total:
        raise _CutOff(f"the connection ended after {got:,} of {total:,} bytes")


def _remove(part: Path) -> None:
    for path in (part, part.with_name(f"{part.name}.json")):
        path.unlink(missing_ok=True)
