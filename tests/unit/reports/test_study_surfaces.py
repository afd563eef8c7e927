"""The section "Loss landscape": a surface per line, of the run in the middle, from what lies in the run folders."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.unit.reports.conftest import Report
from trimtab.errors import BundleError
from trimtab.landscape.surface import FOLDER
from trimtab.reports.study_surfaces import about, study_surfaces, surfaces_section, surfaces_table, title

Written = Callable[[str], Report]


def test_it_stands_where_runs_were_looked_at_and_nowhere_else(written: Written) -> None:
    report = written("landscapes")
    assert '<h2 id="landscape">Loss landscape</h2>' in report.html
    assert report.html.count('class="relief"') == 4
    assert "## Loss landscape: Around the texts" in (report.folder / "report.md").read_text()
    other = written("lengths")
    assert 'id="landscape"' not in other.html
    assert "relief" not in other.html
    assert "## Loss landscape" not in (other.folder / "report.md").read_text()


def test_each_line_shows_its_run_with_the_median_score(written: Written) -> None:
    report = written("landscapes")
    groups = report.facts["surfaces"]
    assert [(g["view"], g["examples"]) for g in groups] == [("text", 2), ("prompt", 2)]
    for group in groups:
        assert [(s["line"], s["of"]) for s in group["surfaces"]] == [("arm 0", 2), ("arm 1", 1)]
        for shown in group["surfaces"]:
            line = next(line for line in report.facts["lines"] if line["label"] == shown["line"])
            scores = {s["run"]: s["test"] for s in line["scores"]}
            looked_at = [r for r in scores if (report.folder / "runs" / r / FOLDER / "text.json").exists()]
            lower_middle = sorted(scores[r] for r in looked_at)[(len(looked_at) - 1) // 2]
            assert scores[shown["facts"]["run"]] == lower_middle


def test_the_numbers_are_those_of_the_run(written: Written) -> None:
    (group, _) = written("landscapes").facts["surfaces"]
    for row, shown in zip(surfaces_table(group).rows, group["surfaces"], strict=True):
        bend = 1.0 + float(shown["seed"])
        assert row[0].text == shown["line"]
        assert [row[i].key for i in (1, 2, 3)] == pytest.approx([0.5, 0.5, 0.5 + 3 * bend], abs=1e-5)


def test_title_and_lead_say_what_is_seen(written: Written) -> None:
    (text, prompt) = written("landscapes").facts["surfaces"]
    assert title(text) == "Around the texts"
    assert title({**prompt, "task": "sst2"}) == "sst2, around the prompt"
    assert "2 examples that all runs share" in about(text)
    assert "median test score" in about(prompt)
    assert surfaces_section([]) == []


def test_runs_that_were_looked_at_on_other_examples_stand_apart(written: Written) -> None:
    report = written("landscapes")
    second = next(s for s in report.facts["surfaces"][0]["surfaces"] if s["line"] == "arm 1")
    facts = report.folder / "runs" / second["facts"]["run"] / FOLDER / "text.json"
    before = facts.read_text()
    changed = json.loads(before)
    changed["batch"]["sha256"] = "1" * 64
    try:
        facts.write_text(json.dumps(changed))
        found = study_surfaces(report.folder / "runs", report.facts["lines"])
        assert [[s["line"] for s in g["surfaces"]] for g in found] == [["arm 0"], ["arm 0", "arm 1"], ["arm 1"]]
        facts.write_text(json.dumps({**changed, "schema": 99}))
        with pytest.raises(BundleError, match="schema 99"):
            study_surfaces(report.folder / "runs", report.facts["lines"])
    finally:
        facts.write_text(before)
