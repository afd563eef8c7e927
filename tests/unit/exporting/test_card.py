"""The model card says what the run folder says, and nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from tests.unit.exporting.conftest import INPUT, RunOf
from trimtab.exporting import Source, export
from trimtab.exporting.card import SCORES, card
from trimtab.metric_names import METRIC_NAMES


def test_a_card_has_what_the_run_has(run_of: RunOf, tmp_path: Path) -> None:
    run = run_of("gpt2")
    found = export([Source.read(run)], "card: {license: apache-2.0}", tmp_path / "out")
    assert found["files"] == ["README.md", "trimtab.json"]
    assert found["notes"] == []
    text = (tmp_path / "out" / "README.md").read_text()
    _, front, rest = text.split("---\n", 2)
    assert yaml.safe_load(front)["license"] == "apache-2.0"
    assert yaml.safe_load(front)["base_model"].endswith("gpt2")
    record = json.loads((run / "run.json").read_text())
    for split in ("dev", "test"):
        assert f"{record['metrics'][split]['accuracy']:.3f}" in rest
    assert record["fingerprints"]["data"] in rest
    assert "8 train, 8 dev, 8 test rows, 0 of them truncated" in rest
    assert "128 numbers (prompt_tuning: `inputs` [4, 32]) for a frozen" in rest
    assert "{prompt} {text} {answer}." in rest
    assert "* positive: yes" in rest
    assert "no prompt" in rest
    assert "seeds: init 1" in rest
    assert "No license was stated" not in rest
    assert "study" not in rest


def test_without_a_license_it_says_so(run_of: RunOf, tmp_path: Path) -> None:
    found = export([Source.read(run_of("gpt2"))], "card", tmp_path / "out")
    assert "no license is given" in found["notes"][0]
    text = (tmp_path / "out" / "README.md").read_text()
    assert "license:" not in text.split("---\n")[1]
    assert "No license was stated" in text


def test_the_code_in_a_card_runs(run_of: RunOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "prompt").mkdir()
    for name in ("bundle.json", "prompt.safetensors"):
        shutil.copy(run_of("gpt2") / name, tmp_path / "prompt" / name)
    text = card(Source.read(run_of("gpt2")), None)
    monkeypatch.chdir(tmp_path)
    exec(compile(text.split("```python\n")[1].split("```")[0], "card", "exec"), {})


def test_a_run_of_a_study_has_the_mean_over_its_seeds(run_of: RunOf, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "toy-1"
    shutil.copytree(run_of("gpt2"), run)
    line = {"label": "prompt_tuning", "setting": "learning rate 0.1", "metric": "accuracy", "n": 3, "min": 0.4,
            "max": 0.75, "mean": 0.6012, "sd": 0.0321, "scores": [{"run": "toy-0"}, {"run": "toy-1"}]}  # fmt: skip
    facts = {"study": "mine", "lines": [{**line, "scores": [{"run": "other"}], "mean": 0.1}, line]}
    (tmp_path / "study.json").write_text(json.dumps(facts))
    text = card(Source.read(run), None)
    assert (
        "In the study `mine` the same setting (prompt_tuning, learning rate 0.1) has a test accuracy of 0.601 ± 0.032 "
        "over 3 seeds, from 0.400 to 0.750" in text
    )
    (tmp_path / "study.json").write_text(json.dumps({"study": "mine", "lines": [{**line, "sd": None}]}))
    assert "of 0.601 over 3 seeds" in card(Source.read(run), None)


def test_a_bundle_without_its_history(run_of: RunOf, tmp_path: Path) -> None:
    for name in ("bundle.json", "prompt.safetensors"):
        shutil.copy(run_of("gpt2") / name, tmp_path / name)
    assert "| accuracy |" in card(Source.read(tmp_path), None), "bundle.json has the metrics, too"
    metadata = json.loads((tmp_path / "bundle.json").read_text())
    del metadata["metrics"]
    (tmp_path / "bundle.json").write_text(json.dumps(metadata))
    text = card(Source.read(tmp_path), None)
    assert "None are known" in text
    assert "## Data" not in text


def test_a_trained_backbone_is_told_of(run_of: RunOf) -> None:
    training = {"max_steps": 1, "evaluations": 1, "learning_rates": {"backbone": 1e-5}}
    text = card(Source.read(run_of("gpt2", {**INPUT, "training": training})), None)
    assert "for a trained" in text
    assert "The backbone was trained with it" in text


def test_metrics_are_called_as_in_reports() -> None:
    for key, name in METRIC_NAMES.items():
        if key in SCORES:
            assert SCORES[key] == name
