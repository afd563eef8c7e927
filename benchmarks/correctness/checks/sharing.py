"""Sharing a model: rows of several prompts in one batch, prompts that are off, and caches of a fixed size."""

from __future__ import annotations

from pathlib import Path

from correctness.checks import Build, Check, effective
from correctness.examples import ALIKE, SEVERAL
from correctness.subject import NotApplicable, apart, different

TURNS = (0, 1)
"""The prompt of each of two rows of one length, so that pads have no part in it."""


def mixed(build: Build, folder: Path) -> float:
    subject = effective(build())
    alone = [subject.said([i], prompts=[k])[0] for i, k in zip(ALIKE, TURNS, strict=True)]
    return apart(subject.said(ALIKE, prompts=TURNS), alone)


def mixed_written(build: Build, folder: Path) -> float:
    subject = build()
    alone = [subject.written([i], prompts=[k])[0] for i, k in zip(ALIKE, TURNS, strict=True)]
    return different(subject.written(ALIKE, prompts=TURNS), alone)


def off(build: Build, folder: Path) -> float:
    subject = build()
    return apart(subject.off_said(SEVERAL[:1]), subject.plain_said(SEVERAL[:1]))


def off_written(build: Build, folder: Path) -> float:
    subject = build()
    return different(subject.off_written(SEVERAL[:1]), subject.plain_written(SEVERAL[:1]))


def static_cache(build: Build, folder: Path) -> float:
    subject = build()
    if any(subject.plain_written([i], static=True) != subject.plain_written([i]) for i in ALIKE):
        raise NotApplicable("transformers' own model writes something else with a static cache")
    return sum(subject.written([i], static=True) != subject.written([i]) for i in ALIKE) / len(ALIKE)


CHECKS = (
    Check("mixed batch", "rows of two prompts in one batch are what they are alone", ("head", "words"), mixed),
    Check("mixed batch, written", "the same texts; measured: the share of others", ("text",), mixed_written, 0.0),
    Check("off", "with the prompt switched off the model is the bare one", ("words",), off),
    Check("off, written", "the same, for texts", ("text",), off_written, 0.0),
    Check(
        "static cache",
        "a static cache writes the same texts; measured: the share of others",
        ("text",),
        static_cache,
        0.0,
    ),
)
