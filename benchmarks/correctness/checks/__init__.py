"""The checks. Each is data; the functions that measure know no library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from correctness.subject import NotApplicable, Subject, apart

Build = Callable[[], Subject]
TASKS = ("head", "tokens", "span", "choice", "words", "text")
"""What is read: a class by a head, a tag of every word, a span, the best of several choices, label words (in the mask
of a masked language model, as the next token of the others), free text that is written."""
SAME = 1e-4
"""Relative differences up to here are rounding."""


@dataclass(frozen=True)
class Check:
    """One thing that must hold.

    Attributes:
        name: short, as in tables.
        holds: what must hold, in a sentence.
        tasks: those for which it means something.
        measure: how far it is from holding, given what builds a subject and an empty folder.
        tolerance: what `measure` may return at most.
    """

    name: str
    holds: str
    tasks: tuple[str, ...]
    measure: Callable[[Build, Path], float]
    tolerance: float = SAME


def effective(subject: Subject) -> Subject:
    """The subject, if its prompt changes anything: else all prompts are alike, and so is none.

    Raises:
        NotApplicable: it does not, which the check `effect` finds.
    """
    if not says_something(subject):
        raise NotApplicable("the prompt changes nothing")
    return subject


def says_something(subject: Subject) -> bool:
    """Whether another prompt makes another score."""
    one, two = (subject.said([0], prompts=[k]) for k in (0, 1))
    return apart(one, two) > SAME


def all_checks() -> tuple[Check, ...]:
    """In the order of the tables."""
    from correctness.checks import keeping, labels, padding, sharing, training

    return (*training.CHECKS, *labels.CHECKS, *padding.CHECKS, *sharing.CHECKS, *keeping.CHECKS)
