"""What lies in a folder: all that it says without times, what is finished there, and what must be told apart."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

TIMES = {"created", "started", "seconds", "seconds_per_step", "working_directory", "generated"}
"""Keys whose values are times and places."""
_TOLD = ("report.md", "report.html", "runs.csv", "study.json", "fits.json", "results.jsonl.gz")
"""Files of a study that are made of them."""


def snapshot(folder: Path) -> dict[str, Any]:
    """Path -> content of every file, without times; of the files that are made of times, that they are there."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.relative_to(folder).parts[0] != "tmp")
    return {p.relative_to(folder).as_posix(): content(p) for p in paths}


def content(path: Path) -> Any:
    """What a file says, apart from times; `broken: ...` if it cannot be read.

    >>> from tempfile import mkdtemp
    >>> path = Path(mkdtemp()) / "a.json"
    >>> _ = path.write_text('{"started": 3, "steps": 2}')
    >>> content(path)
    {'steps': 2}
    >>> _ = path.write_text('{"started": 3, "st')
    >>> content(path)
    'broken: JSONDecodeError'
    """
    from safetensors.numpy import load

    if path.name in _TOLD:
        return "there"
    raw = path.read_bytes()
    try:
        if path.suffix == ".json":
            return _timeless(json.loads(raw))
        if path.suffix == ".jsonl":
            return [_timeless(json.loads(line)) for line in raw.splitlines()]
        if path.suffix == ".safetensors":
            load(raw)
    except Exception as error:
        return f"broken: {type(error).__name__}"
    if path.suffix == ".md":
        raw = re.sub(rb"\d{4}-\d\d-\d\d[T \d:+]*", b"", raw)
    return sha256(raw).hexdigest()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):  # a line of the ledger seals files that hold times
        return {k: sorted(v) if k == "files" and isinstance(v, dict) else _timeless(v)
                for k, v in value.items() if k not in TIMES}  # fmt: skip
    return [_timeless(v) for v in value] if isinstance(value, list) else value


def beneath(found: dict[str, Any], folder: str) -> dict[str, Any]:
    """The part of a snapshot below a folder."""
    return {name: its for name, its in found.items() if name.startswith(f"{folder}/")}


def finished(folder: Path) -> dict[str, tuple[int, int]]:
    """Run folders that are done, by where they are: what tells that run.json was not written again."""
    from trimtab.storage import RunFolder

    runs = [RunFolder(p.parent) for p in folder.glob("**/run.json") if not is_hidden(p, folder)]
    found = {r.path.relative_to(folder).as_posix(): (r.path / "run.json").stat() for r in runs if r.status == "done"}
    return {name: (its.st_ino, its.st_mtime_ns) for name, its in found.items()}


def is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def entered(folder: Path) -> list[dict[str, Any]]:
    """The lines of all ledgers, those that a kill cut off aside."""
    from trimtab.files import read_jsonl

    return [line for ledger in sorted(folder.glob("studies/*/ledger.jsonl")) for line in read_jsonl(ledger)]


def checkpoints(folder: Path) -> list[int]:
    """How many steps lie in the checkpoints of packs that are not done."""
    from safetensors import safe_open

    from trimtab.storage import RunFolder

    found = []
    for path in folder.glob("**/resume.safetensors"):
        with safe_open(path, "np") as file:
            facts = json.loads(file.metadata()["facts"])
        if any(RunFolder(path.parent.parent / run).status != "done" for run in facts["runs"]):
            found.append(facts["steps_done"])
    return sorted(found)
