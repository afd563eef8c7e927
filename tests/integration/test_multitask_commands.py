"""Several tasks end to end, as a user types it."""

from __future__ import annotations

import json
from math import log
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from tests.integration.test_command_line import Trimtab, trimtab  # noqa: F401  (a fixture)
from tests.tiny import tagged_task, toy_task, write_jsonl
from trimtab import api
from trimtab.documents import dump_yaml
from trimtab.storage import read_json


@pytest.fixture
def recipe(tmp_path: Path, tiny_folder: Path) -> Path:
    path = tmp_path / "both.yaml"
    sections: dict[str, Any] = {
        "backbone": {"model": str(tiny_folder), "dtype": "float32"},
        "task": {"kind": "multitask", "tasks": [toy_task(tmp_path, 8), tagged_task(tmp_path, 8)], "mixing": "equal"},
        "prompt": {"kind": "prompt_tuning", "length": 2},
        "training": {"max_steps": 2, "evaluations": 1, "min_steps": 0, "batch_size": 4},
    }
    path.write_text(dump_yaml(sections))
    return path


def test_several_tasks_are_trained_scored_asked_and_taken_apart(
    trimtab: Trimtab, recipe: Path, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    done = trimtab("validate", recipe)
    assert "is valid: toy+names, prompt_tuning" in done.out
    shown = trimtab("show", recipe, "-n", "1")
    assert "toy  0-0  label" in shown.out
    assert "names  0-0  " in shown.out
    done = trimtab("run", recipe, "--quiet")
    assert done.code == 0, done.err
    assert "mean score" in done.out
    assert [line.split()[0] for line in done.out.splitlines() if line.startswith("    ")] == ["toy", "names"] * 2
    run = json.loads(trimtab("run", recipe, "--quiet", "--json").out)

    done = trimtab("evaluate", run["run"])
    assert [line.split(":")[0].strip() for line in done.out.splitlines()] == ["test", "toy", "names"]
    one = trimtab("evaluate", run["run"], "--task", "toy", "--json").json
    assert one["metrics"] == run["metrics"]["test"]["tasks"]["toy"]

    rows = write_jsonl(tmp_path / "rows.jsonl", [{"text": "good", "task": "toy"}, {"text": "a cat", "task": "names"}])
    found = [json.loads(line) for line in trimtab("predict", run["run"], "-i", rows).out.splitlines()]
    assert [(its["id"], its["task"]) for its in found] == [("1", "toy"), ("2", "names")]
    alone = trimtab("predict", run["run"], "-i", rows, "--task", "toy").out.splitlines()
    assert json.loads(alone[0]) == {k: v for k, v in found[0].items() if k != "task"}
    plain = write_jsonl(tmp_path / "plain.jsonl", [{"text": "good"}])
    refused = trimtab("predict", run["run"], "-i", plain)
    assert refused.code == 2
    assert "the input does not say which task it is of" in refused.err

    looked = ("landscape", run["run"], "--points", "3", "--examples", "4", "--no-sharpness", "--view", "prompt")
    assert "Say which one: --task toy." in trimtab(*looked).err
    surface = trimtab(*looked, "--task", "toy", "--json").json["surfaces"][0]
    its = read_json(Path(run["run"]) / "landscape" / "prompt.json")["batch"]["examples"]
    judged = [p for p in api.evaluate(run["run"], task="toy").predictions if p.id in its]
    assert surface["loss"] == pytest.approx(fmean(-log(p.scores[p.gold]) for p in judged), rel=1e-4)

    taken = tmp_path / "toy"
    assert trimtab("take", run["run"], "toy", "-o", taken, "--json").json == {"bundle": str(taken), "task": "toy"}
    assert trimtab("predict", taken, "-i", plain).code == 0
    done = trimtab("take", run["run"], "names", "-o", tmp_path / "names")
    assert done.out.strip() == f"names of {run['run']} is in {tmp_path / 'names'}"
    refused = trimtab("take", run["run"], "toi", "-o", tmp_path / "x")
    assert refused.code == 2
    assert "Did you mean 'toy'?" in refused.err


def test_a_study_of_several_tasks_tells_of_each(trimtab: Trimtab, recipe: Path, tmp_path: Path) -> None:  # noqa: F811
    path = tmp_path / "mixed.yaml"
    path.write_text(dump_yaml({"recipe": recipe.name, "axes": {"task.mixing": ["proportional", "equal"]}, "seeds": 2}))
    done = trimtab("study", path)
    assert done.code == 0, done.err
    facts = json.loads((tmp_path / "studies" / "mixed" / "study.json").read_text())
    assert facts["metrics"] == ["score"]
    assert [line["n"] for line in facts["lines"]] == [2, 2]
    assert [list(line["tasks"]) for line in facts["of_tasks"]] == [["toy", "names"]] * 2
