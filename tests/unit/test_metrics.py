"""Metrics, against counts done by hand."""

from __future__ import annotations

import pytest

from trimtab.metrics import classification, majority_baseline

CLASSES = ["a", "b", "c"]


def test_accuracy_macro_f1_and_confusion_of_a_worked_example() -> None:
    found = classification([0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 2, 2], CLASSES)
    f1 = [2 * 2 / (3 + 2), 2 * 1 / (2 + 2), 2 * 1 / (1 + 2)]  # 2 hits / (gold + predicted), by class
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["macro_f1"] == pytest.approx(sum(f1) / 3)
    assert found["rows"] == 6
    assert found["confusion"] == {"classes": CLASSES, "counts": [[2, 1, 0], [0, 1, 1], [0, 0, 1]]}


def test_a_class_that_never_occurs_counts_as_zero_in_macro_f1() -> None:
    found = classification([0, 1], [0, 1], CLASSES)
    assert found["accuracy"] == 1.0
    assert found["macro_f1"] == pytest.approx(2 / 3)


def test_a_class_that_is_never_predicted_counts_as_zero_without_a_warning() -> None:
    assert classification([0, 1], [0, 0], ["a", "b"])["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)


def test_results_are_plain_numbers_that_json_can_hold() -> None:
    found = classification([0], [0], ["a", "b"])
    assert type(found["accuracy"]) is float
    assert type(found["macro_f1"]) is float
    assert type(found["confusion"]["counts"][0][0]) is int


def test_majority_is_the_share_of_the_most_frequent_scored_class() -> None:
    assert majority_baseline([0, 0, 0, 1]) == 0.75
    assert majority_baseline([2, 1, 1, 0, 2]) == pytest.approx(2 / 5)
