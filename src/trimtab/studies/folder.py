"""A study on disk. Files only: no torch, nothing live.

    study.yaml     the study, recipe included          plan.json   every run that is to be
    ledger.jsonl   a line per run that has ended       packs.jsonl which runs trained together, written before they do
    fits.json      pack sizes that were tried          runs/       run folders
    report.html  report.md  runs.csv  study.json       written at the end, and by `trimtab report`
    results.jsonl.gz  the runs without their prompts   adopted.jsonl  runs that came in such a file, trained elsewhere

The ledger is only ever appended to. A line holds the hash of every file of the run folder, so a change by hand is
found; a line that a crash cut off is dropped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimtab.documents import dump_yaml
from trimtab.errors import BundleError, ConfigError, DataError, StorageError, TrimtabError
from trimtab.files import read_json, read_jsonl, sha256_of, understood, write_json, write_text
from trimtab.studies.results import check_same_plan, read_results

STUDY_SCHEMA = 1
SHARPNESS_FILE = "landscape/sharpness.json"
"""Of a run folder, as `trimtab.landscape.sharpness` writes it."""
_UNSEALED = ("resume.safetensors",)


@dataclass(frozen=True)
class StudyRun:
    """A run of a study as it stands on disk.

    Attributes:
        key: of its resolved config.
        status: `done`, `diverged`, `failed`, or `missing` where it has not ended yet.
        cell: axis -> value.
        seeds: random stream -> seed.
        folder: the run folder; None where it has none.
        record: the content of run.json; empty where there is none.
        error: what went wrong with a failed run: `type`, `message`.
        pack: the number of the pack it trained in.
        name: of its folder, whether that lies here or not; None where it never had one.
        adopted: what came of it in a file from elsewhere: `record`, `events`, `sharpness`.
    """

    key: str
    stage: str
    status: str
    cell: Mapping[str, Any]
    seeds: Mapping[str, int]
    folder: Path | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    error: Mapping[str, str] | None = None
    pack: int | None = None
    name: str | None = None
    adopted: Mapping[str, Any] = field(default_factory=dict)

    def events(self) -> list[dict[str, Any]]:
        """Its evaluations, first to last.

        Raises:
            BundleError: metrics.jsonl is not readable.
        """
        if self.folder is None:
            return list(self.adopted.get("events", ()))
        return read_jsonl(self.folder / "metrics.jsonl")

    def sharpness(self) -> dict[str, Any] | None:
        """What `trimtab landscape` has measured of it; None if nothing was.

        Raises:
            BundleError: the file is not readable.
        """
        if self.folder is None:
            return self.adopted.get("sharpness")
        path = self.folder / SHARPNESS_FILE
        return read_json(path) if path.exists() else None


class StudyFolder:
    """The files of one study.

    Args:
        path: the folder; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runs_dir = path / "runs"

    @property
    def plan(self) -> dict[str, Any]:
        """The content of plan.json.

        Raises:
            TrimtabError: not a study folder, or one of another schema version.
        """
        if not (self.path / "plan.json").exists():
            what = "there is no plan.json" if self.path.is_dir() else "there is no such folder"
            raise TrimtabError(
                f"{what}.", where=str(self.path), fix="Name the folder of a study, such as studies/NAME."
            )
        plan = read_json(self.path / "plan.json")
        if plan.get("schema") != STUDY_SCHEMA:
            raise TrimtabError(
                f"the study has schema {plan.get('schema')!r}, this version of trimtab reads {STUDY_SCHEMA}.",
                where=str(self.path / "plan.json"),
                fix="Use the version it was made with, or another --studies-dir.",
            )
        return plan

    def begin(self, definition: Mapping[str, Any], plan: Mapping[str, Any], *, extend: bool = False) -> None:
        """Create the folder, or find the same plan in it. What decides no outcome (the baseline, what matters, limits
        of packs, names of arms) may have changed since.

        Args:
            extend: put the new plan in the place of another; runs of the old one that the new one has too are kept.

        Raises:
            ConfigError: another plan is there.
            DataError: the data has changed since.
            StorageError: the folder cannot be written.
        """
        is_same = False
        if (self.path / "plan.json").exists():
            there = self.plan
            _check_sources(there.get("sources", {}), plan.get("sources", {}), self.path)
            if there["digest"] != plan["digest"] and not extend:
                raise ConfigError(
                    f"the folder holds another plan: {_difference(there, plan)}.",
                    where=str(self.path),
                    fix="Use another --name, or --extend to keep the finished runs that the new plan has too.",
                )
            is_same = there["digest"] == plan["digest"] and _cells(there) == _cells(plan)
        self._define(definition)
        if not is_same:
            write_json(self.path / "plan.json", {"schema": STUDY_SCHEMA, **plan})

    def _define(self, definition: Mapping[str, Any]) -> None:
        """Write the study down, unless the same is there."""
        path, text = self.path / "study.yaml", dump_yaml(dict(definition))
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)

    def ledger(self) -> dict[str, dict[str, Any]]:
        """Key -> the last line that was written of it."""
        return self._by_key("ledger.jsonl", "status")

    def _by_key(self, name: str, *needed: str) -> dict[str, dict[str, Any]]:
        """The lines of a file by their key, each with what is needed."""
        found = {}
        with understood(self.path / name):
            for line in read_jsonl(self.path / name):
                for other in ("key", *needed):
                    if not isinstance(line[other], str):
                        raise TypeError(f"{other!r} must be a text, got {line[other]!r}")
                found[line["key"]] = line
        return found

    def enter(self, line: Mapping[str, Any]) -> None:
        """Add a line to the ledger.

        Raises:
            StorageError: it cannot be written; no half of it stays.
        """
        run = line.get("run")
        files = seal(self.runs_dir / run) if run else {}
        _append(self.path / "ledger.jsonl", {**line, "files": files})

    def place(self, cells: Mapping[str, Mapping[str, Any]]) -> None:
        """Let runs that have ended stand where the plan has them: an arm may have got another name since.

        Args:
            cells: key -> cell.
        """
        ended = self.ledger()
        moved = [{**ended[key], "cell": dict(cell)} for key, cell in cells.items() if key in ended
                 and ended[key]["cell"] != dict(cell)]  # fmt: skip
        _append(self.path / "ledger.jsonl", *moved)

    def packs(self) -> list[dict[str, Any]]:
        """The packs that were begun, in order: `number`, `keys`."""
        return read_jsonl(self.path / "packs.jsonl")

    def begin_pack(self, keys: Sequence[str]) -> int:
        """Write down who trains together, before they do; returns the number of the pack."""
        number = len(self.packs())
        _append(self.path / "packs.jsonl", {"number": number, "keys": list(keys)})
        return number

    def fits(self) -> dict[str, Any]:
        """What has been found of pack sizes: pack key -> size, bytes, seconds."""
        return read_json(self.path / "fits.json") if (self.path / "fits.json").exists() else {}

    def keep_fit(self, pack_key: str, fit: Mapping[str, Any]) -> None:
        """Keep what was found by trying."""
        write_json(self.path / "fits.json", {**self.fits(), pack_key: dict(fit)})

    def adopt(self, path: Path, *, extend: bool = False) -> int:
        """Take over the runs of a file that a study of the same plan has left elsewhere, those that are not here yet.

        Args:
            path: a `results.jsonl.gz`.
            extend: take them from another plan, too: of those only the ones that this plan has will be used.

        Returns:
            How many were taken.

        Raises:
            BundleError: the file is damaged, or is none.
            ConfigError: it is of another plan.
            DataError: it was made with other data.
            StorageError: the folder cannot be written.
        """
        head, runs = read_results(path)
        plan, known = self.plan, self.ledger()
        if not extend:
            check_same_plan(head, plan, path)
        _check_sources(head["plan"].get("sources", {}), plan.get("sources", {}), path)
        if not known and not self.packs():
            _append(self.path / "packs.jsonl", *head.get("packs", ()))
            write_json(self.path / "fits.json", {**head.get("fits", {}), **self.fits()})
        new = [run for run in runs if run["line"]["key"] not in known]
        kept = ({"key": run["line"]["key"], **{k: v for k, v in run.items() if k != "line"}} for run in new)
        _append(self.path / "adopted.jsonl", *kept)  # before the ledger, which says that they have ended
        _append(self.path / "ledger.jsonl", *(run["line"] for run in new))
        return len(new)

    def adopted(self) -> dict[str, dict[str, Any]]:
        """Key -> what came of a run in a file from elsewhere."""
        return self._by_key("adopted.jsonl")

    def ended(self) -> dict[str, dict[str, Any]]:
        """The ledger without the runs whose folder has been removed, checked against the files.

        Raises:
            BundleError: a run folder is not as it was when the run ended.
        """
        return self._ended(self.adopted())

    def _ended(self, adopted: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        there = {}
        with understood(self.path / "ledger.jsonl"):
            for key, line in self.ledger().items():
                if line.get("run") and (self.runs_dir / line["run"]).exists():
                    check_seal(self.runs_dir / line["run"], line["files"])
                    there[key] = line
                elif not line.get("run") or key in adopted:
                    there[key] = line
        return there

    def read(self) -> list[StudyRun]:
        """All runs: those of the plan first, then those that a search has added. Errors as `ended`."""
        adopted, plan = self.adopted(), self.plan
        ended = self._ended(adopted)
        with understood(self.path / "plan.json"):
            entries = {r["key"]: r for r in plan["runs"]}
            if plan["searched"]:
                entries |= {k: line for k, line in ended.items() if k not in entries}
            return [self._run(entry, ended.get(key), adopted.get(key, {})) for key, entry in entries.items()]

    def _run(self, entry: Mapping[str, Any], line: Mapping[str, Any] | None, adopted: Mapping[str, Any]) -> StudyRun:
        facts = (entry["key"], entry["stage"])
        where = {"cell": entry["cell"], "seeds": entry["seeds"]}
        if line is None:
            return StudyRun(*facts, "missing", **where)
        name: str | None = line.get("run")
        folder = self.runs_dir / name if name and (self.runs_dir / name).exists() else None
        record = read_json(folder / "run.json") if folder else adopted.get("record", {})
        return StudyRun(*facts, line["status"], **where, folder=folder, record=record, error=line.get("error"),
                        pack=line.get("pack"), name=name, adopted=adopted)  # fmt: skip


def seal(folder: Path) -> dict[str, str]:
    """File name -> SHA-256 of the files of a run folder."""
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.name[0] != "." and p.name not in _UNSEALED)
    return {p.name: sha256_of(p) for p in files}


def check_seal(folder: Path, files: Mapping[str, str]) -> None:
    """Compare a run folder with its seal.

    Raises:
        BundleError: a file was changed, added or removed.
    """
    now = seal(folder)
    changed = sorted(name for name in {*now, *files} if now.get(name) != files.get(name))
    if changed:
        raise BundleError(
            f"the run folder is not as it was when the run ended: {', '.join(changed)}.",
            where=str(folder),
            fix="Restore it, or remove the folder to train the run again.",
        )


def _check_sources(there: Mapping[str, str], now: Mapping[str, str], folder: Path) -> None:
    changed = sorted(path for path in there if path in now and now[path] != there[path])
    if changed:
        raise DataError(
            f"the data has changed since the study began: {', '.join(changed)}; its runs could not be compared.",
            where=str(folder),
            fix="Restore the data, or begin another study with --name.",
        )


def _cells(plan: Mapping[str, Any]) -> dict[str, Any]:
    return {run["key"]: run.get("cell") for run in plan["runs"]}


def _difference(there: Mapping[str, Any], plan: Mapping[str, Any]) -> str:
    """In what two plans differ, in a few words."""
    old, new = ({r["key"] for r in p["runs"]} for p in (there, plan))
    if old == new:
        return "the same runs are compared or tuned by other axes, or searched otherwise"
    return f"it has {len(old - new)} runs that the new plan lacks and lacks {len(new - old)} of its {len(new)}"


def _append(path: Path, *lines: Mapping[str, Any]) -> None:
    """Add lines, each there whole or not at all, even if the process or the disk gives up on the way."""
    if not lines:
        return
    data = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(0)
            whole = file.read().rfind(b"\n") + 1
            file.truncate(whole)
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                file.truncate(min(whole, end))
                raise
    except OSError as error:
        raise StorageError(
            f"the file cannot be written: {error.strerror}.", where=str(path), fix="Free some space, then go on."
        ) from None
