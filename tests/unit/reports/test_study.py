"""The files of a report: whole or not at all, Markdown and CSV that other programs can read."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.study_folders import Result, write_study
from tests.unit.reports.conftest import HOSTILE, STUDIES, Report
from trimtab.errors import BundleError
from trimtab.reports.study import paths, runs_csv, write_report
from trimtab.studies.folder import StudyFolder

Written = Callable[[str], Report]


@pytest.mark.parametrize("name", STUDIES)
def test_all_files_are_written_and_agree(written: Written, name: str) -> None:
    report = written(name)
    assert all(Path(p).is_file() for p in paths(report.folder).values())
    assert json.loads((report.folder / "study.json").read_text()) == json.loads(json.dumps(report.facts))
    rows = list(csv.DictReader(io.StringIO((report.folder / "runs.csv").read_text())))
    assert len(rows) == report.facts["counts"]["ended"]


def test_a_row_of_runs_csv_has_everything_of_its_run(written: Written) -> None:
    rows = list(csv.DictReader(io.StringIO((written("rates").folder / "runs.csv").read_text())))
    row = next(
        r for r in rows if r["line"] == "steady" and r["training.learning_rate"] == "0.01" and r["seed.init"] == "4"
    )
    assert (float(row["test"]), float(row["test.accuracy"])) == (pytest.approx(0.58), pytest.approx(0.58))
    assert (row["status"], row["reported"], row["imputed"], row["parameters.kept"]) == ("done", "true", "false", "2560")
    failed = next(r for r in rows if r["status"] == "failed")
    assert (failed["error.message"], failed["test"], failed["imputed"], failed["run"]) == (HOSTILE, "0.25", "true", "")


def test_values_that_are_mappings_are_one_cell() -> None:
    assert runs_csv([{"prompt": {"kind": "residual", "length": 3}, "ok": True}]) == (
        'prompt,ok\n"{""kind"": ""residual"", ""length"": 3}",true\n'
    )


@pytest.mark.parametrize("name", STUDIES)
def test_tables_of_the_markdown_are_rectangular(written: Written, name: str) -> None:
    text = (written(name).folder / "report.md").read_text()
    blocks = [b for b in text.split("\n\n") if b.startswith("|")]
    assert blocks
    for block in blocks:
        assert len({line.replace("\\|", "").count("|") for line in block.splitlines()}) == 1, block


def test_the_markdown_says_what_the_page_says(written: Written) -> None:
    report = written("rates")
    text = (report.folder / "report.md").read_text()
    assert "\\<script>" in text
    assert "<script>" not in text.replace("\\<script>", "")
    assert "## Failed runs" in text
    for rule in report.facts["rule"]:
        assert rule in text


def test_a_report_is_not_written_over_a_study_that_was_tampered_with(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "s", {"seeds": 2}, lambda run: Result())
    write_report(folder)
    before = (folder.path / "report.html").read_bytes()
    next(iter(folder.runs_dir.glob("*/metrics.jsonl"))).write_text("{}\n")
    with pytest.raises(BundleError, match=r"metrics\.jsonl"):
        write_report(StudyFolder(folder.path))
    assert (folder.path / "report.html").read_bytes() == before
    assert not list(folder.path.glob(".*"))
