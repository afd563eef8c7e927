"""The doctor: a healthy run is not accused, kinds of runs are all examined, and what is found is counted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import trimtab
from tests.tiny import facts_task, tagged_task, toy_task, written_task
from tests.unit.diagnosis.cases import case_of
from trimtab.backbones import Backbone
from trimtab.diagnosis import Check, Diagnosis, Finding
from trimtab.diagnosis.case import Case
from trimtab.diagnosis.checks.padding import Padding
from trimtab.diagnosis.doctor import diagnose, in_order
from trimtab.errors import BackboneError, ConfigError
from trimtab.registry import checks


def toy_recipe(folder: Path, model: Path, **sections: Any) -> dict[str, Any]:
    return {
        "backbone": {"model": str(model), "dtype": "float32"},
        "task": toy_task(folder),
        "prompt": {"kind": "prompt_tuning", "length": 3},
        "training": {"max_steps": 20, "batch_size": 8},
        **sections,
    }


def two_tasks(folder: Path) -> dict[str, Any]:
    (folder / "other").mkdir()
    return {"kind": "multitask", "tasks": [toy_task(folder), {**toy_task(folder / "other"), "name": "other"}]}


def question_task(folder: Path) -> dict[str, Any]:
    """Two choices for a text, the right one named by its number."""
    rows = [{"text": f"the {a} is", "one": a, "two": "old", "label": i % 2} for i, a in enumerate(["cat", "dog"] * 12)]
    path = folder / "choices.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"kind": "table", "path": str(path), "choices": ["one", "two"], "template": "{prompt} {text} {choice}"}


def squad_task(folder: Path) -> dict[str, Any]:
    """Questions to long contexts, which are read in windows."""
    files = {}
    for split in ("train", "dev", "test"):
        context = "the cat is red . " * 8 + "the dog is blue . " + "the sun is big . " * 4
        answer = {"text": "blue", "answer_start": context.index("blue")}
        asked = [
            {"id": f"{split}-{w}", "question": f"is the dog {w}", "answers": [answer]} for w in ("red", "big", "old")
        ]
        files[split] = str(folder / f"{split}.json")
        paragraphs = [{"context": context, "qas": asked}]
        Path(files[split]).write_text(
            json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]})
        )
    return {"kind": "squad", **files}


SORTS = {
    "words at a mask": lambda folder: {"task": toy_task(folder)},
    "a head": lambda folder: {"task": toy_task(folder), "readout": "head", "prompt": "deep"},
    "tags": lambda folder: {"task": tagged_task(folder), "prompt": "deep"},
    "choices": lambda folder: {"task": question_task(folder)},
    "spans": lambda folder: {"task": squad_task(folder), "prompt": "deep"},
    "facts": lambda folder: {"task": facts_task(folder), "prompt": {"kind": "prompt_tuning", "length": 9}},
    "several tasks": lambda folder: {"task": two_tasks(folder)},
    "nothing is trained": lambda folder: {"task": toy_task(folder, template="{text} {answer}."), "prompt": "manual"},
    "the backbone is trained": lambda folder: {
        "task": toy_task(folder), "training": {"learning_rates": {"backbone": 1e-4}}
    },
    "an attack": lambda folder: {"task": toy_task(folder), "regularizers": [{"kind": "pgd", "steps": 1}]},
}  # fmt: skip


SLOW = ("spans", "an attack")


def grave(found: Diagnosis) -> list[str]:
    return [f"{f.check}: {f.seen}" for f in found.findings if f.severity == "problem" and f.check != "leakage"]


@pytest.mark.parametrize("sort", [s if s not in SLOW else pytest.param(s, marks=pytest.mark.slow) for s in SORTS])
def test_healthy_runs_of_every_sort_are_not_accused(tmp_path: Path, backbone: Backbone, sort: str) -> None:
    found = diagnose(case_of(backbone, **SORTS[sort](tmp_path)).prepared, in_order())
    assert grave(found) == []
    assert {f.check for f in found.findings} | set(found.unasked) == set(in_order())
    json.dumps(found.as_json(), allow_nan=False)


def test_a_causal_model_that_writes_is_not_accused(tmp_path: Path, causal: Backbone) -> None:
    found = diagnose(case_of(causal, written_task(tmp_path)).prepared, in_order())
    assert grave(found) == []
    assert "label_words" in found.unasked


def test_findings_of_several_tasks_name_theirs(tmp_path: Path, backbone: Backbone) -> None:
    found = diagnose(case_of(backbone, two_tasks(tmp_path)).prepared, ["truncation", "padding"])
    assert [(f.check, f.task) for f in found.findings] == [
        ("truncation", "toy"), ("truncation", "other"), ("padding", "")
    ]  # fmt: skip
    assert found.findings[0].as_json()["task"] == "toy"


def test_what_is_refused_in_a_check_is_a_problem(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: Check, case: Case) -> Iterator[Finding]:
        raise BackboneError("it cannot.", where="backbone.model", fix="Take another.")

    monkeypatch.setattr(Padding, "examine", refused)
    (found,) = diagnose(case_of(backbone, toy_task(tmp_path)).prepared, ["padding"]).findings
    assert (found.severity, found.seen, found.advice) == ("problem", "backbone.model: it cannot.", "Take another.")


def test_the_doctor_is_asked_with_a_recipe(tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(p.name for p in tmp_path.iterdir())
    found = trimtab.doctor(
        toy_recipe(tmp_path, tiny_folder), ["prompt.length=4"], skip=["padding"], only=["padding", "dtype"]
    )
    assert [f.check for f in found.findings] == ["dtype"]
    assert (found.about["prompt"], found.about["steps"], found.about["rows"]["dev"]) == ("prompt_tuning", 20, 32)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*before, "train.jsonl", "dev.jsonl", "test.jsonl"])


def test_a_check_that_does_not_exist_is_refused(tmp_path: Path, tiny_folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no check 'pading'\. Did you mean 'padding'"):
        trimtab.doctor(toy_recipe(tmp_path, tiny_folder), only=["pading"])


def test_severities_decide_who_is_fit() -> None:
    def of(*severities: Any) -> Diagnosis:
        return Diagnosis({}, tuple(Finding(s, "") for s in severities), (), 0.0)

    assert of().worst == "ok"
    assert of("ok", "warning", "note").worst == "warning"
    assert of("ok", "note").is_fit(strict=True)
    assert of("warning").is_fit()
    assert not of("warning").is_fit(strict=True)
    assert not of("ok", "problem").is_fit()
    assert of("note", "note", "ok").counts == {"ok": 1, "note": 2, "warning": 0, "problem": 0}


def test_checks_are_made_topic_by_topic() -> None:
    topics = [checks.get(kind).topic for kind in in_order()]  # type: ignore[attr-defined]
    assert list(dict.fromkeys(topics)) == ["data", "text", "training", "model"]
    assert len(topics) == len(checks.kinds())
