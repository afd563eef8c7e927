"""Getting official data into the data directory, and telling whether what lies there is still what it was.

A **manifest** (`manifests/NAME.yaml`) names archives by their public address, with SHA-256, size, license and the
files that come out. `fetch` downloads what is not there, checks it, unpacks it beside the data directory's own files,
and moves every file into its place at once. A **record** (`.trimtab/NAME.json` in the data directory) holds the SHA-256
of files that lie there; `check` compares.

No hash is made up: where a manifest does not know one, nothing is fetched unless the user accepts that, and then the
hash that was found is told and recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from trimtab.errors import DataError
from trimtab.fetching.download import Source, Waits, retrieve
from trimtab.fetching.manifests import Archive, Manifest
from trimtab.fetching.records import OWN, read_record, write_record
from trimtab.fetching.unpacking import move_into, unpack
from trimtab.files import hold, sha256_of

Events = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Fetched:
    """What `fetch` has done for one archive. `files` are paths in the data directory; `was_there`: nothing was done."""

    url: str
    sha256: str
    is_verified: bool
    files: tuple[str, ...]
    was_there: bool

    def as_json(self) -> dict[str, Any]:
        """`{url, sha256, verified, files, there}`."""
        return {"url": self.url, "sha256": self.sha256, "verified": self.is_verified, "files": list(self.files),
                "there": self.was_there}  # fmt: skip


def fetch(
    manifest: Manifest,
    data: Path,
    *,
    accept_unverified: bool = False,
    again: bool = False,
    copies: Path | None = None,
    report: Events | None = None,
    waits: Waits = Waits(),  # noqa: B008  (frozen)
) -> list[Fetched]:
    """Bring the files of a manifest into the data directory.

    What an earlier call has recorded is not fetched again. A download that was cut off goes on where it stopped. Files
    come into their places one by one, each at once, after all of an archive have been checked and unpacked.

    Args:
        accept_unverified: also take archives whose SHA-256 is not known.
        again: fetch what is there, too, and put it in the place of what lies there.
        copies: a folder where archives may lie already, by the last part of their address.
        report: receives events: `{"event": "begin" | "progress" | "retry" | "unverified" | "end", "url": ...}`.

    Raises:
        DataError: an unknown hash, a mismatch, a server that refuses, an archive that is not one or lacks a file, or
            files in the way.
        StorageError: the disk is full or may not be written; nothing of the archive stays.
        BusyError: another process fetches into the directory.
    """
    told = report or (lambda event: None)
    with hold([data / OWN], "fetching into this data directory", "--data-dir"):
        found = []
        for archive in manifest.archives:
            there = None if again else _recorded(manifest, archive, data)
            if there is None:
                there = _fetch(manifest, Source(archive, copies), data, accept_unverified, again, told, waits)
            found.append(there)
    return found


def _recorded(manifest: Manifest, archive: Archive, data: Path) -> Fetched | None:
    """An archive that was fetched before, and whose files have not changed since."""
    record = read_record(data, manifest.name)
    its = record["archives"].get(archive.url)
    if its is None or (archive.sha256 and its["sha256"] != archive.sha256):
        return None
    for name in its["files"]:
        if not (data / name).is_file():
            return None
        if sha256_of(data / name) != record["files"].get(name):
            raise DataError(
                "the file has changed since it was fetched.",
                where=str(data / name),
                fix="Use --again to fetch it anew, or `trimtab data check --write` to keep it as it is.",
            )
    return Fetched(archive.url, its["sha256"], its["verified"], tuple(its["files"]), True)


def _fetch(
    manifest: Manifest, source: Source, data: Path, accept: bool, again: bool, told: Events, waits: Waits
) -> Fetched:
    archive = source.archive
    if archive.sha256 is None and not accept:
        raise DataError(
            f"no SHA-256 is known of {archive.url}, so nobody can tell whether what comes is what was meant.",
            where=manifest.name,
            fix="If you trust the address, use --accept-unverified: the SHA-256 that is found is told and recorded.",
        )
    sure = [f"{archive.into}/{name}" for name in archive.files or (archive.file_name,) if "*" not in name]
    _check_free(data, sure, again)
    told({"event": "begin", "url": archive.url, "bytes": archive.bytes})
    file = retrieve(source, data / OWN / "downloads", told, waits)
    digest = sha256_of(file)
    if archive.sha256 is None:
        told({"event": "unverified", "url": archive.url, "sha256": digest})
    with TemporaryDirectory(dir=data / OWN, prefix="unpacking-") as scratch:
        unpacked = unpack(file, archive, Path(scratch))
        targets = [f"{archive.into}/{name}" for name in unpacked]
        _check_free(data, targets, again)
        hashes = {target: sha256_of(Path(scratch) / name) for target, name in zip(targets, unpacked, strict=True)}
        move_into(Path(scratch), unpacked, data / archive.into)
    is_verified = archive.sha256 is not None
    entry = {"sha256": digest, "verified": is_verified, "files": targets}
    record = read_record(data, manifest.name)
    write_record(data, manifest.name, {**record["archives"], archive.url: entry}, {**record["files"], **hashes})
    file.unlink()
    told({"event": "end", "url": archive.url, "files": len(targets)})
    return Fetched(archive.url, digest, is_verified, tuple(targets), False)


def _check_free(data: Path, targets: Sequence[str], again: bool) -> None:
    in_the_way = [name for name in targets if (data / name).exists()]
    if in_the_way and not again:
        more = f" and {len(in_the_way) - 1} more" if len(in_the_way) > 1 else ""
        raise DataError(
            f"here lies a file{more} that was not fetched, and it is not overwritten.",
            where=str(data / in_the_way[0]),
            fix="Use it as it is, move it away, or use --again.",
        )
