"""The table of several studies: every planned cell, filled where it was carried out, and as it is published."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

from tests.study_folders import RECIPE, Result, write_study
from trimtab.documents import dump_yaml
from trimtab.studies.analysis import analyse
from trimtab.studies.plan import PlannedRun

ROOT = Path(__file__).parents[2]
AXES = {"prompt.kind": ["prompt_tuning", "residual"], "task.kind": ["product_reviews", "support_desk"]}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module("cells")


def known(run: PlannedRun) -> Result:
    base = 0.6 if run.cell["prompt.kind"] == "residual" else 0.5
    return Result(base + 0.02 * (run.seeds["init"] - 1), task=run.cell["task.kind"])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two studies, of which one has been carried out, and that with its second task only."""
    (tmp_path / "recipes/some").mkdir(parents=True)
    for name in ("begun", "waiting"):
        (tmp_path / f"recipes/some/{name}.yaml").write_text(dump_yaml({"recipe": RECIPE, "axes": AXES, "seeds": 3}))
    part = {"axes": {**AXES, "task.kind": ["support_desk"]}, "seeds": 3}
    facts = analyse(write_study(tmp_path / "studies/begun", part, known))
    (tmp_path / "docs/results/some/begun").mkdir(parents=True)
    (tmp_path / "docs/results/some/begun/study.json").write_text(json.dumps(facts))
    return tmp_path


def test_a_cell_has_its_own_runs_or_none(script: ModuleType, root: Path) -> None:
    rows = {(row.study, row.task): row for row in script.rows("some", root)}
    assert list(rows) == [(s, t) for s in ("begun", "waiting") for t in AXES["task.kind"]]
    assert {key: (row.done, row.planned) for key, row in rows.items() if key[1] == "support_desk"} == {
        ("begun", "support_desk"): (6, 12),
        ("waiting", "support_desk"): (0, 12),
    }
    full = rows["begun", "support_desk"]
    assert {m: str(s) for m, s in full.scores.items()} == {
        "prompt_tuning": "0.500 ± 0.020",
        "residual": "0.600 ± 0.020",
    }
    assert (full.metric, full.majority, full.seconds) == ("accuracy", 0.25, pytest.approx(6 * 12.5))
    empty = [row for key, row in rows.items() if key != ("begun", "support_desk")]
    assert all(set(row.scores.values()) == {None} for row in empty)


def test_the_page_says_what_is_done_and_leaves_the_rest_empty(script: ModuleType, root: Path) -> None:
    text = script.page("some", script.rows("some", root), "python scripts/cells.py some", root)
    assert text[0] == "# some: 6 of 24 runs are done"
    assert [line for line in text if line.endswith("| 0.250 | 0.500 ± 0.020 | 0.600 ± 0.020 | 6 of 12 | 0.0 |")]
    assert "| waiting | support_desk |  |  |  |  | 0 of 12 |  |" in text


def test_the_published_page_is_what_studies_and_reports_give(script: ModuleType) -> None:
    published = (ROOT / "docs/results/minilm.md").read_text()
    command = next(line.split("`")[1] for line in published.splitlines() if line.startswith("Command: "))
    assert "\n".join([*script.page("minilm", script.rows("minilm"), command), ""]) == published
