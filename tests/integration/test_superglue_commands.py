"""SuperGLUE end to end on made-up files: training, scores of another task, submission files, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_command_line import Trimtab, trimtab  # noqa: F401  (a fixture)
from tests.superglue_files import write_superglue
from trimtab.documents import dump_yaml

OFFICIAL = {
    "boolq": "BoolQ", "cb": "CB", "copa": "COPA", "copa_cloze": "COPA", "multirc": "MultiRC", "record": "ReCoRD",
    "rte": "RTE", "wic": "WiC", "wsc": "WSC", "wsc_pair": "WSC",
}  # fmt: skip


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = write_superglue(tmp_path / "data")
    monkeypatch.setenv("TRIMTAB_DATA", str(folder))
    return folder


@pytest.fixture
def recipe(tmp_path: Path, tiny_folder: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    training = {"max_steps": 1, "evaluations": 1, "min_steps": 0, "batch_size": 4}
    prompt = {"kind": "prompt_tuning", "length": 2}
    backbone = {"model": str(tiny_folder), "dtype": "float32"}
    path.write_text(dump_yaml({"backbone": backbone, "prompt": prompt, "task": "superglue/rte", "training": training}))
    return path


def trained(trimtab: Trimtab, recipe: Path, task: str) -> dict[str, Any]:  # noqa: F811
    done = trimtab("run", recipe, f"task=superglue/{task}", "--quiet", "--json")
    assert done.code == 0, done.err
    return dict(done.json)


@pytest.mark.parametrize("task", OFFICIAL)
def test_every_task_is_trained_and_handed_in(
    task: str, trimtab: Trimtab, recipe: Path, data: Path, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    record = trained(trimtab, recipe, task)
    metrics, metric = record["metrics"]["test"], record["metric"]
    assert metric == ("score" if task in ("cb", "multirc", "record") else "accuracy")
    assert 0 <= metrics[metric] <= 1
    assert record["metrics"]["dev"][metric] is not None
    assert record["baselines"]["majority"] is not None
    test, out = data / "superglue" / OFFICIAL[task] / "test.jsonl", tmp_path / "out"
    out.mkdir()
    done = trimtab("predict", record["run"], "-i", test, "--format", "superglue", "-o", out)
    assert done.code == 0, done.err
    (file,) = out.iterdir()
    assert file.name == f"{OFFICIAL[task]}.jsonl"
    found = [json.loads(line) for line in file.read_text().splitlines()]
    asked = [json.loads(line) for line in test.read_text().splitlines()]
    if task == "record":
        queries = [(q["idx"], [line["passage"]["text"][e["start"] : e["end"] + 1] for e in line["passage"]["entities"]])
                   for line in asked for q in line["qas"]]  # fmt: skip
        assert [line["idx"] for line in found] == [idx for idx, _ in queries]
        assert all(line["label"] in entities for line, (_, entities) in zip(found, queries, strict=True))
        return
    assert [line["idx"] for line in found] == [line["idx"] for line in asked]
    if task == "multirc":
        numbers = [
            [(q["idx"], [a["idx"] for a in q["answers"]]) for q in line["passage"]["questions"]] for line in asked
        ]
        assert numbers == [
            [(q["idx"], [a["idx"] for a in q["answers"]]) for q in line["passage"]["questions"]] for line in found
        ]
        return
    known = {"copa": (0, 1), "copa_cloze": (0, 1), "wsc": ("True", "False"), "wsc_pair": ("True", "False")}
    plain = ("true", "false", "entailment", "not_entailment", "contradiction", "neutral")
    assert {line["label"] for line in found} <= set(known.get(task, plain))


def test_diagnostics_are_scored_and_handed_in_by_a_run_of_rte(
    trimtab: Trimtab, recipe: Path, data: Path, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    run = trained(trimtab, recipe, "rte")["run"]
    broad = trimtab("evaluate", run, "--task", "superglue/ax_b", "--json").json["metrics"]
    assert -1 <= broad["matthews"] <= 1
    assert broad["rows"] == 2
    done = trimtab("evaluate", run, "--task", "superglue/ax_g")
    assert done.code == 0, done.err
    assert "gender parity" in done.out
    assert "accuracy" in done.out
    for kind, name, n in (("ax_b", "AX-b", 2), ("ax_g", "AX-g", 4)):
        file = data / "superglue" / name / f"{name}.jsonl"
        command = ("predict", run, "-i", file, "--task", f"superglue/{kind}", "--format", "superglue")
        assert len(trimtab(*command).out.splitlines()) == n
        assert trimtab(*command, "-o", tmp_path).code == 0
        assert len((tmp_path / f"{name}.jsonl").read_text().splitlines()) == n


def test_mistakes_say_what_to_do(trimtab: Trimtab, recipe: Path, data: Path, tmp_path: Path) -> None:  # noqa: F811
    run = trained(trimtab, recipe, "multirc")["run"]
    wrong = data / "superglue" / "WiC" / "test.jsonl"
    for words, arguments in (
        ("there is no 'passage'", ("predict", run, "-i", wrong)),
        ("A line of the form 'multirc' is", ("predict", run, "-i", wrong)),
        ("has no file of the dev split", ("evaluate", run, "--task", "superglue/ax_b", "--split", "dev")),
        ("the label 'not_entailment' is not one of true, false", ("evaluate", run, "--task", "superglue/ax_b")),
        ("rows of another task come from a table", ("evaluate", run, "--task", "lama/trex")),
        ("there is no task 'superglue/axb'", ("evaluate", run, "--task", "superglue/axb")),
    ):
        done = trimtab(*arguments)
        assert done.code == 2, done.out
        assert words in done.err
    toy = tmp_path / "rows.txt"
    toy.write_text("plain text\n")
    done = trimtab("predict", run, "-i", toy, "--format", "superglue")
    assert (done.code, "plain texts have no number 'idx'" in done.err) == (2, True)
    unnamed = trained(trimtab, recipe, "rte")["run"]
    other = "{kind: superglue/rte, submission: null}"
    file = data / "superglue" / "RTE" / "test.jsonl"
    done = trimtab("predict", unnamed, "-i", file, "--task", other, "--format", "superglue")
    assert (done.code, "is none of SuperGLUE's" in done.err) == (2, True)
