"""Padding: a row in a padded batch is what it is alone. What transformers' own model does not
bear is no prompt's fault."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from correctness.checks import TASKS, Build, Check
from correctness.examples import SEVERAL
from correctness.subject import NotApplicable, Side, apart, different


def padded(side: Side, build: Build, folder: Path) -> float:
    subject = build()
    if not subject.bears_pads(side):
        raise NotApplicable("transformers' own model says something else of padded rows")
    return apart(subject.said(SEVERAL, side), [subject.said([i], side)[0] for i in SEVERAL])


def written(side: Side, build: Build, folder: Path) -> float:
    """The share of rows that get another text."""
    subject = build()
    if not subject.bears_pads(side, written=True):
        raise NotApplicable("transformers' own model writes something else for padded rows")
    return different(subject.written(SEVERAL, side), [subject.written([i], side)[0] for i in SEVERAL])


CHECKS = (
    Check("right pads", "a right-padded row is what it is alone", TASKS, partial(padded, "right")),
    Check("left pads", "a left-padded row is what it is alone", TASKS, partial(padded, "left")),
    Check(
        "right pads, written", "the same text for a right-padded row; measured: the share of others", ("text",),
        partial(written, "right"), 0.0,
    ),
    Check(
        "left pads, written", "the same text for a left-padded row; measured: the share of others", ("text",),
        partial(written, "left"), 0.0,
    ),
)  # fmt: skip
