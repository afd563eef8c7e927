"""Prepared toy runs as checks see them: healthy ones, and such with one defect."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.contract.toy_runs import toy_run
from trimtab.backbones import Backbone
from trimtab.config import resolve
from trimtab.diagnosis import Check, Finding
from trimtab.diagnosis.case import Case
from trimtab.registry import checks
from trimtab.training.preparing import prepare


def toy_case(
    folder: Path, backbone: Backbone, recipe: Mapping[str, Any] | None = None, n: int = 32, **task: Any
) -> Case:
    """A run on the toy; `recipe` holds sections over small defaults, `task` options of the table."""
    return Case(toy_run(folder, backbone, recipe, n, **task))


def case_of(backbone: Backbone, task: Mapping[str, Any], prompt: Any = "prompt_tuning", **sections: Any) -> Case:
    """A run of these sections of a recipe, with few steps."""
    training = {"max_steps": 20, "batch_size": 8, "evaluations": 2, **sections.pop("training", {})}
    recipe = {"task": task, "prompt": prompt, "training": training, "seed": 1, **sections}
    return Case(prepare(resolve(recipe).config, backbone))


def seen(kind: str, case: Case) -> list[Finding]:
    """What one check finds, of each task in turn."""
    check: Check = checks.build({"kind": kind})
    return [finding for part in (case.each if check.of_each_task else (case,)) for finding in check.examine(part)]


def only(kind: str, case: Case) -> Finding:
    """The one thing that a check finds."""
    (finding,) = seen(kind, case)
    return finding
