"""Labels and reads: the head reads its own position, and losses are taken at the tokens that labels belong to."""

from __future__ import annotations

from pathlib import Path

import torch

from correctness.checks import Build, Check, effective
from correctness.examples import ALIKE
from correctness.subject import apart


def own_position(build: Build, folder: Path) -> float:
    """The share of positions that are read and should not be, or should be and are not."""
    found, expected = build().positions_read()
    return len(found ^ expected) / len(found | expected)


def loss(build: Build, folder: Path) -> float:
    """Of rows of one length, so that pads have no part in it."""
    subject = effective(build())
    return apart([torch.tensor(subject.loss(ALIKE))], [torch.tensor(subject.loss_by_hand(ALIKE))])


CHECKS = (
    Check("own position", "the head reads its own token ([CLS], the last) and no prompt row", ("head",), own_position),
    Check("token labels", "the loss is taken at the tokens of the words", ("tokens",), loss),
    Check("span positions", "the loss is taken at the answer's first and last token", ("span",), loss),
    Check("multiple choice", "the loss is that of each choice alone", ("choice",), loss),
    Check("label words", "a label word is read at its place (in encoders: the mask, cloze)", ("words",), loss),
    Check("text labels", "the loss is taken at the tokens of the answer", ("text",), loss),
)
