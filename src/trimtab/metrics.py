"""Scores of predictions against gold classes; pure functions on class indices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix, f1_score


def classification(gold: Sequence[int], predicted: Sequence[int], classes: Sequence[str]) -> dict[str, Any]:
    """Accuracy, macro-F1 and the confusion matrix.

    Macro-F1 averages over all classes of the task; a class that occurs neither in `gold` nor in `predicted` counts as
    0, so a split that lacks a class cannot reach 1.

    Args:
        gold: class indices in [0, C).
        predicted: class indices in [0, C), as many as `gold`.
        classes: the C class names.

    Returns:
        `{"accuracy", "macro_f1", "rows", "confusion": {"classes", "counts"}}`; `counts[i][j]` rows of gold class i were
        predicted as class j.

    >>> classification([0, 1, 1], [0, 1, 0], ["no", "yes"])["accuracy"]
    0.6666666666666666
    """
    indices = list(range(len(classes)))
    return {
        "accuracy": float(np.mean(np.asarray(gold) == np.asarray(predicted))),
        "macro_f1": float(f1_score(gold, predicted, labels=indices, average="macro", zero_division=0.0)),
        "rows": len(gold),
        "confusion": {
            "classes": list(classes),
            "counts": confusion_matrix(gold, predicted, labels=indices).tolist(),
        },
    }


def majority_baseline(gold: Sequence[int]) -> float:
    """Accuracy of the best constant answer: the share of the most frequent class among the scored rows.

    Counted on the scored rows and not on the training rows, whose counts are all equal in the few-shot setting.

    >>> majority_baseline([1, 0, 0, 0])
    0.75
    """
    return float(np.bincount(np.asarray(gold)).max() / len(gold))
