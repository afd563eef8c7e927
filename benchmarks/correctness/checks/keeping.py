"""Keeping: what was saved is what is loaded, the best checkpoint comes back, an interrupted training goes on."""

from __future__ import annotations

from pathlib import Path

import torch

from correctness.checks import Build, Check
from correctness.examples import SEVERAL
from correctness.subject import apart

KEPT = ("head", "tokens", "words", "text")
TRAINED = ("head", "text")


def reloaded(build: Build, folder: Path) -> float:
    subject = build()
    return apart(subject.reloaded(SEVERAL, folder), subject.said(SEVERAL))


def best(build: Build, folder: Path) -> float:
    recorded, left = build().best(folder)
    return apart([torch.tensor(left)], [torch.tensor(recorded)])


def resumed(build: Build, folder: Path) -> float:
    straight, interrupted = build().resumed(folder)
    return apart(interrupted, straight)


CHECKS = (
    Check("save, load", "what is loaded says what was saved", KEPT, reloaded),
    Check("best checkpoint", "what a training leaves has the best loss that it recorded", TRAINED, best),
    Check("resume", "an interrupted training that goes on ends as one in one go", TRAINED, resumed),
)
