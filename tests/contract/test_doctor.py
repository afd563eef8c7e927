"""The doctor accuses no family that is well, whatever the prompt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.contract.test_backbone_families import family_folder
from tests.contract.tiny_families import BUILDERS
from tests.tiny import toy_task
from trimtab.backbones import load_backbone
from trimtab.config import resolve
from trimtab.diagnosis.doctor import chosen_checks, diagnose
from trimtab.training.preparing import prepare

__all__ = ["family_folder"]

PROMPTS: list[dict[str, Any]] = [{"kind": "prompt_tuning", "length": 5}, {"kind": "deep", "length": 5}]
USUAL = ("llama", "t5")
"""Families unlike the BERT of other tests; the others are left to `make test-all`."""


@pytest.mark.parametrize("name", [n if n in USUAL else pytest.param(n, marks=pytest.mark.slow) for n in BUILDERS])
def test_healthy_families_are_not_accused(tmp_path: Path, family_folder: Callable[[str], Path], name: str) -> None:
    backbone = load_backbone(str(family_folder(name)), dtype="float32", device="cpu")
    task, checks = toy_task(tmp_path, template="{prompt} {text} {answer}"), chosen_checks((), ("leakage",))
    for prompt in PROMPTS:
        training = {"max_steps": 20, "batch_size": 8, "learning_rate": 0.05}
        prepared = prepare(resolve({"task": task, "prompt": prompt, "training": training}).config, backbone)
        found = diagnose(prepared, checks)
        assert [(f.check, f.seen) for f in found.findings if f.severity == "problem"] == []
        assert {"padding", "prompted", "gradients", "save_load", "frozen"}.isdisjoint(found.unasked)
