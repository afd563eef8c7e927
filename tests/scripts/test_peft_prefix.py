"""Prefix tuning by PEFT beside deep prompts: what the table says is so, and both train the same."""

from __future__ import annotations

import argparse
import importlib
import io
import json
import subprocess
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.tiny import save_tiny_model

SCRIPTS = Path(__file__).parents[2] / "scripts"
needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="compares with PEFT: extra benchmark")
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # by PEFT


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("peft_prefix")


@pytest.fixture
def families(script: ModuleType) -> ModuleType:
    return importlib.import_module("peft_prefix_families")


@pytest.fixture
def trainings(script: ModuleType) -> ModuleType:
    return importlib.import_module("peft_prefix_trainings")


@pytest.fixture
def study(script: ModuleType) -> ModuleType:
    return importlib.import_module("peft_prefix_wnut17")


@pytest.fixture
def arguments(tmp_path: Path) -> Iterator[list[str]]:
    """A toy whose names are trees and dogs, and a tiny BERT."""
    sentences = ["the big tree is good", "a dog was not on the moon", "one cat of the sea", "yes the old dog sang"]
    tags = {"tree": "B-plant", "dog": "B-animal", "cat": "B-animal"}
    files = {}
    for split, repeats in (("train", 6), ("dev", 2), ("test", 2)):
        path = tmp_path / f"{split}.conll"
        lines = ["\n".join(f"{w}\t{tags.get(w, 'O')}" for w in s.split()) for s in sentences * repeats]
        path.write_text("\n\n".join(lines) + "\n")
        files[split] = str(path)
    given = ["wnut17", "--backbone", str(save_tiny_model(tmp_path / "bert"))]
    given += ["--task", json.dumps({"kind": "tagged", "name": "toy", **files}), "--length", "3", "--width", "6"]
    threads = torch.get_num_threads()
    yield [*given, *"--steps 6 --evaluations 2 --rates 3e-2 --seeds 1 --timed 2".split()]
    torch.set_num_threads(threads)


@pytest.fixture
def a(script: ModuleType, arguments: list[str]) -> argparse.Namespace:
    parsed: argparse.Namespace = script.parse(arguments)
    return parsed


def backbone_of(trainings: ModuleType, a: argparse.Namespace) -> Any:
    return trainings.prepared(a, trainings.ARMS[0], 1, 3e-2).backbone


@needs_peft
def test_the_table_of_families_says_what_works(script: ModuleType, families: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "families"
    script.main(["families", "--families", "bert", "albert", "mistral", "bart", "--out", str(out)])
    found = json.loads(out.with_suffix(".json").read_text())["families"]
    assert found["bert"]["peft"]["tasks"] == {"TOKEN_CLS": "works", "SEQ_CLS": "works"}
    assert found["bert"]["peft"]["layers"] == found["bert"]["trimtab"]["layers"] == [2, 2]
    assert found["bert"]["peft"]["recomputed_after"] == "no gradient"
    assert found["bert"]["trimtab"]["recomputed"] == "same"
    assert "gradient checkpointing" in found["bert"]["peft"]["recomputed_before"]
    padding = found["bert"]["peft"]["padding"]
    assert padding["positions"] < families.SAME < padding["mask"]
    assert "past key values" in found["albert"]["peft"]["tasks"]["TOKEN_CLS"]
    assert found["albert"]["trimtab"]["layers"] == [2, 2]
    assert found["albert"]["agreement"] is None
    assert found["mistral"]["agreement"]["first"] < families.SAME < found["mistral"]["agreement"]["all"], "its window"
    assert found["bart"]["peft"]["layers"] == [2, 4]
    assert found["bart"]["peft"]["different"] == 2
    assert found["bart"]["trimtab"]["layers"] == [8, 8]
    assert all(row["trimtab"]["padding"] is None or row["trimtab"]["padding"] < 1e-5 for row in found.values())
    text = out.with_suffix(".md").read_text()
    assert "| bert | TOKEN_CLS, SEQ_CLS | 2 of 2 | (1) / no gradient |" in text
    assert "1. ValueError: PREFIX_TUNING does not work with gradient checkpointing." in text


@needs_peft
def test_both_libraries_make_the_same_hidden_states_and_others_would_be_found(
    families: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("bert", "gpt2"):
        assert max(families.agreement(name).values()) < 1e-5
    own = families.PeftProbe.keys_values
    monkeypatch.setattr(families.PeftProbe, "keys_values", lambda self: own(self).flip(1))
    assert families.agreement("bert")["all"] > 0.01


@needs_peft
def test_gradients_are_the_same_where_the_text_is_moved(
    study: ModuleType, trainings: ModuleType, a: argparse.Namespace
) -> None:
    found = study.check_gradients(a, backbone_of(trainings, a))
    for arm, row in found.items():
        assert row["first_values"] == 0.0
        assert set(row["gradient"]) == set(row["steps"]) >= {"head.weight", "head.bias"}
        largest = max(*row["gradient"].values(), *row["steps"].values())
        assert largest < 1e-3 if "text moved" in arm else largest > 0.01


@needs_peft
@pytest.mark.parametrize("projected", [False, True])
def test_from_the_same_values_both_come_to_the_same_scores(
    trainings: ModuleType, a: argparse.Namespace, projected: bool
) -> None:
    ours, theirs = (trainings.Arm(library, projected) for library in ("trimtab", "PEFT"))
    p = trainings.prepared(a, ours, 1, 3e-2)
    one, other = trainings.start(p, ours).run(), trainings.start(p, theirs).run()
    assert one["step"] == other["step"]
    for split in ("dev", "test"):
        assert one[split] == pytest.approx(other[split], abs=1e-4)


@needs_peft
def test_peft_draws_its_own_prefix_by_seed_beside_the_same_head(trainings: ModuleType, a: argparse.Namespace) -> None:
    def first(seed: int, copied: bool) -> Any:
        p = trainings.prepared(a, trainings.ARMS[0], seed, 3e-2, backbone)
        return trainings.start(p, trainings.ARMS[0], copied).parameters

    backbone = backbone_of(trainings, a)
    own, again, other, copied = first(1, False), first(1, False), first(2, False), first(1, True)
    assert torch.equal(own["rows.self"], again["rows.self"])
    assert not torch.equal(own["rows.self"], other["rows.self"])
    assert not torch.equal(own["rows.self"], copied["rows.self"])
    assert torch.equal(own["head.weight"], copied["head.weight"])


@needs_peft
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from Linux's /proc")
@pytest.mark.slow
def test_results_are_written_with_command_and_versions(
    script: ModuleType, trainings: ModuleType, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def here(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """In this process: starting one takes long."""
        with redirect_stdout(io.StringIO()) as out:
            script.main(command[2:])
        return subprocess.CompletedProcess(command, 0, out.getvalue())

    monkeypatch.setattr(subprocess, "run", here)
    out = tmp_path / "deep" / "toy"
    script.main([*arguments, "--out", str(out)])
    outcome = json.loads(out.with_suffix(".json").read_text())
    arms = [str(arm) for arm in trainings.ARMS]
    assert list(outcome["arms"]) == list(outcome["cost"]) == arms
    assert len(set(arms)) == 6
    counts = {name: row["trained"] for name, row in outcome["arms"].items()}
    assert counts["PEFT"] == counts["trimtab"] == counts["trimtab, text moved"]
    assert counts["PEFT, projected"] == counts["trimtab, projected"]
    for name in ("PEFT", "PEFT, projected"):
        assert outcome["cost"][name]["ratio"]["median"] == outcome["cost"][name]["memory"]["ratio"] == 1.0
    text = out.with_suffix(".md").read_text()
    assert f"peft {outcome['environment']['peft']}" in text
    assert "| trimtab, text moved |" in text
    assert "`python scripts/peft_prefix.py wnut17" in text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["wnut17", "--length", "0"], "--length must be at least 1, got 0"),
        (["wnut17", "--first", "text"], "invalid choice: 'text'"),
        (["families", "--threads", "0"], "--threads must be at least 1, got 0"),
        (["families", "--families", "xlnet"], "invalid choice: 'xlnet'"),
        ([], "required: half"),
    ],
)
def test_wrong_arguments_are_refused(
    script: ModuleType, given: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        script.parse(given)
    assert message in capsys.readouterr().err


def test_without_peft_it_says_what_to_install(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("publishing.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="2"):
        script.parse(["families"])
    assert "pip install -e '.[benchmark]'" in capsys.readouterr().err
