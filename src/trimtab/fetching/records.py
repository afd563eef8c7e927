"""Records of a data directory: the SHA-256 of the files in it, one record for what belongs together.

A record lies in `.trimtab/NAME.json`. `fetch` writes one for what it has brought; `check` writes one for a folder that
has none, such as data that came otherwise, and compares from then on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from trimtab.errors import DataError, suggest
from trimtab.files import read_json, sha256_of, understood, write_json

OWN = ".trimtab"
"""The folder in a data directory that holds records and downloads under way."""
RECORD_SCHEMA = 1


@dataclass(frozen=True)
class Checked:
    """How the files of one record stand. `is_new`: the record was written just now."""

    name: str
    files: int
    changed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    is_new: bool = False

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return {"name": self.name, "files": self.files, "changed": list(self.changed), "missing": list(self.missing),
                "added": list(self.added), "new": self.is_new}  # fmt: skip


def read_record(data: Path, name: str) -> dict[str, Any]:
    """A record: `archives` by address, and `files`, path -> SHA-256. Empty where there is none.

    Raises:
        DataError: of another schema version.
    """
    path = data / OWN / f"{name}.json"
    if not path.exists():
        return {"archives": {}, "files": {}}
    record = read_json(path)
    if record.get("schema") != RECORD_SCHEMA:
        what = f"the record has schema {record.get('schema')!r}, this version of trimtab reads {RECORD_SCHEMA}."
        raise DataError(what, where=str(path))
    with understood(path):
        hashes = {_inside(name): _text(its) for name, its in record["files"].items()}
        archives = {url: {"sha256": _text(its["sha256"]), "verified": bool(its["verified"]),
                          "files": [_inside(name) for name in its["files"]]}
                    for url, its in record["archives"].items()}  # fmt: skip
    return {"archives": archives, "files": hashes}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a text is expected, got {value!r}")
    return value


def _inside(name: Any) -> str:
    """The path of a file in the data directory."""
    path = PurePosixPath(_text(name))
    if path.is_absolute() or ".." in path.parts or "\0" in name or any(len(p.encode()) > 255 for p in path.parts):
        raise ValueError(f"a path in the data directory is expected, got {name[:100]!r}")
    return str(name)


def write_record(data: Path, name: str, archives: Mapping[str, Any], files: Mapping[str, str]) -> None:
    """Write a record; errors as `trimtab.files.write_json`."""
    content = {"schema": RECORD_SCHEMA, "archives": dict(archives), "files": dict(sorted(files.items()))}
    write_json(data / OWN / f"{name}.json", content)


def recorded(data: Path) -> list[str]:
    """Names of the records."""
    return sorted(path.stem for path in (data / OWN).glob("*.json"))


def check(data: Path, names: Sequence[str] = (), *, write: bool = False) -> list[Checked]:
    """Compare the files of a data directory with their records; write one for folders that have none.

    Args:
        names: records or folders of the directory; all by default.
        write: write records anew from what lies there.

    Raises:
        DataError: no such directory, record or folder.
        StorageError: a record cannot be written.
    """
    if not data.is_dir():
        raise DataError("there is no such data directory.", where=str(data), fix="Give --data-dir or set TRIMTAB_DATA.")
    there = recorded(data)
    folders = sorted(p.name for p in data.iterdir() if p.is_dir() and p.name != OWN)
    covered = {file.partition("/")[0] for name in there for file in read_record(data, name)["files"]}
    known = [*there, *(f for f in folders if f not in covered)]
    for name in names:
        if name not in known and name not in folders:
            what = "there is no record and no folder of this name in the data directory."
            raise DataError(what, where=str(data / name), fix=suggest(name, {*known, *folders}) or None)
    return [_check(data, name, write) for name in (names or known)]


def _check(data: Path, name: str, write: bool) -> Checked:
    record = read_record(data, name)
    before = record["files"]
    roots = {_root(file) for file in before} or {name}
    paths = {path for root in roots for path in (data / root).rglob("*") if path.is_file()}
    now = sorted(path.relative_to(data).as_posix() for path in paths)
    is_new = not before
    if is_new or write:
        hashes = {file: sha256_of(data / file) for file in now}
        write_record(data, name, record["archives"] if is_new else _kept(record["archives"], hashes), hashes)
        return Checked(name, len(hashes), is_new=True)
    present = [file for file in before if (data / file).is_file()]
    changed = tuple(file for file in present if sha256_of(data / file) != before[file])
    missing = tuple(file for file in before if file not in present)
    return Checked(name, len(before), changed, missing, tuple(file for file in now if file not in before))


def _root(file: str) -> str:
    """The folder that a file's record speaks for: the one it lies in."""
    return file.rpartition("/")[0] or "."


def _kept(archives: Mapping[str, Any], files: Mapping[str, str]) -> dict[str, Any]:
    """The archives whose files are all still recorded."""
    return {url: its for url, its in archives.items() if all(file in files for file in its["files"])}


def refuse_changes(found: Sequence[Checked], data: Path) -> None:
    """Refuse what is not as it was recorded.

    Raises:
        DataError: a file has changed or is gone; the message names it.
    """
    wrong = [(file, "has changed") for its in found for file in its.changed]
    wrong += [(file, "is missing") for its in found for file in its.missing]
    if wrong:
        others = "".join(f"; {file} {what}" for file, what in wrong[1:4])
        more = f"; and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise DataError(
            f"the file {wrong[0][1]} since it was recorded{others}{more}.",
            where=str(data / wrong[0][0]),
            fix="Restore it (`trimtab data fetch NAME --again`), or accept it: `trimtab data check --write`.",
        )
