"""Writes the report of a study beside its runs: report.html, report.md, runs.csv, study.json and results.jsonl.gz."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trimtab.files import write_json, write_text
from trimtab.reports.markdown import markdown
from trimtab.reports.page import page
from trimtab.reports.study_surfaces import study_surfaces
from trimtab.studies.analysis import analyse
from trimtab.studies.folder import StudyFolder
from trimtab.studies.results import FILE as RESULTS
from trimtab.studies.results import write_results


def write_report(folder: StudyFolder) -> dict[str, Any]:
    """Analyse a study and write all files, each whole or not at all. Returns the content of study.json.

    Raises:
        TrimtabError: not a study folder, a run folder that was changed, or a disk that refuses.
    """
    runs = folder.read()
    facts = analyse(folder, runs)
    facts["surfaces"] = study_surfaces(folder.runs_dir, facts["lines"])
    write_json(folder.path / "study.json", facts)
    write_results(folder, runs)
    write_text(folder.path / "runs.csv", runs_csv(facts["runs"]))
    write_text(folder.path / "report.md", markdown(facts))
    write_text(folder.path / "report.html", page(facts))
    return facts


def paths(folder: Path) -> dict[str, str]:
    """What `write_report` writes, by name."""
    return {name: str(folder / name) for name in ("report.html", "report.md", "runs.csv", "study.json", RESULTS)}


def runs_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line per run; columns are all keys that any run has, what is missing is empty."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: _flat(v) for k, v in row.items()} for row in rows)
    return out.getvalue()


def _flat(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping | list):
        from trimtab.studies.analysis.lines import fixed

        return fixed(value)
    return value
