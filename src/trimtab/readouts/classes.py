"""What readouts that choose a class have in common: cross-entropy, the best class, accuracy and macro-F1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from trimtab.metrics import classification, majority_baseline
from trimtab.predictions import Prediction
from trimtab.types import Example, Row


class Classes:
    """One class per example, from scores [X,C]; classes that an example does not have score -inf."""

    kinds: ClassVar[tuple[str, ...]] = ("class",)
    trains: ClassVar[bool] = False
    writes: ClassVar[bool] = False
    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1")
    new_tokens: ClassVar[int] = 0
    end_id: ClassVar[int | None] = None

    def loss(self, scores: Float[Tensor, "X C"], labels: Int[Tensor, "X"]) -> Float[Tensor, "X"]:
        """Cross-entropy over the classes, per example."""
        return cross_entropy(scores, labels, reduction="none")

    def distribution(
        self, scores: Float[Tensor, "X C"], labels: Int[Tensor, "X"]
    ) -> tuple[Float[Tensor, "X 1 C"], Bool[Tensor, "X 1"]]:
        """Log-probabilities of the classes."""
        return scores.log_softmax(1)[:, None], torch.ones(len(scores), 1, dtype=torch.bool, device=scores.device)

    def decide(self, scores: Float[Tensor, "X C"], rows: Sequence[Row]) -> list[int]:
        """The class with the highest score."""
        return scores.argmax(1).tolist()

    def measure(self, rows: Sequence[Row], answers: Sequence[int], classes: Sequence[str]) -> dict[str, Any]:
        """Accuracy, macro-F1 and the confusion matrix."""
        return classification([int(row.label) for row in rows], answers, classes)  # type: ignore[arg-type]

    def records(self, rows: Sequence[Row], scores: Float[Tensor, "X C"], classes: Sequence[str]) -> list[Prediction]:
        """The best class, and a probability for each."""
        found = []
        for row, its in zip(rows, scores.softmax(1).tolist(), strict=True):
            named = dict(zip(classes, its, strict=False))
            best = max(named, key=lambda c: (not math.isnan(named[c]), named[c]))
            found.append(Prediction(row.origin.id, best, named, row.origin.label))
        return found

    def missing(self, example: Example, classes: Sequence[str]) -> str | None:
        """A label of the task."""
        return missing_label(example, classes)

    def constant(self, rows: Sequence[Row], metric: str) -> float | None:
        """Accuracy of the most frequent class."""
        return majority_baseline([int(row.label) for row in rows])  # type: ignore[arg-type]


def own_choices(found: Sequence[Prediction], rows: Sequence[Row], counts: Sequence[int]) -> list[Prediction]:
    """Predictions of classes that are choices of the example: the best with its text, and a probability for each of
    the `counts` that the example has."""
    return [
        replace(its, scores=dict(list(its.scores.items())[:count]), text=row.origin.fields[str(its.label)])
        for its, row, count in zip(found, rows, counts, strict=True)
    ]


def missing_label(example: Example, classes: Sequence[str]) -> str | None:
    """Why the label of an example cannot be compared with an answer; None where it can."""
    if not example.label:
        return "the example has no label."
    if classes and example.label not in classes:
        return f"the label {example.label!r} is not one of {', '.join(classes)}."
    return None
