"""Metrics, against counts done by hand."""

from __future__ import annotations

import re
import string
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.metrics import classification, majority_baseline, normalized, written_answers

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


def test_rows_without_a_predicted_class_are_wrong_and_counted() -> None:
    found = classification([0, 1, 1], [0, -1, 1], ["a", "b"])
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["macro_f1"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["confusion"]["counts"] == [[1, 0], [0, 1]]
    assert found["unanswered"] == 1
    nothing = classification([0, 1], [-1, -1], ["a", "b"])
    assert (nothing["accuracy"], nothing["macro_f1"], nothing["unanswered"]) == (0.0, 0.0, 2)
    assert "unanswered" not in classification([0], [0], ["a", "b"])


def test_majority_of_texts() -> None:
    assert majority_baseline(["x", "y", "x"]) == pytest.approx(2 / 3)


# Written answers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Eiffel Tower!", "eiffel tower"),
        ("  a  cat\n and\tthe dog ", "cat and dog"),
        ("Theatre, an area", "theatre area"),
        ("don't", "don t"),
        ("e-mail", "e mail"),
        ("$3.50", "3 50"),
        ("A", "a"),
        ("the The", "the the"),
        ("?!", "?!"),
        (" - ", "-"),
        ("", ""),
        (" \n", ""),
        ("«Größe»…", "größe"),
        ("ΑΒΓ; Δ", "αβγ δ"),
        ("किताब।", "किताब"),
        ("東京は。", "東 京 は"),
        ("안녕하세요?", "안녕하세요"),
        ("C++ 😀", "c 😀"),
    ],
)
def test_texts_are_normalized(text: str, expected: str) -> None:
    assert normalized(text) == expected


@given(st.text(alphabet=st.sampled_from("aAtThHenEN .,-?'é。東😀\n"), max_size=12))
def test_what_is_normalized_stays_as_it_is_and_does_not_depend_on_spaces_around_signs(text: str) -> None:
    once = normalized(text)
    assert normalized(once) == once
    if any(c.isalnum() for c in text):
        assert normalized(re.sub(r"([.,'?-])", r" \1 ", text)) == once
    assert bool(once) == bool(text.strip())


def squad(text: str) -> str:
    """The official script's steps, for texts whose punctuation has spaces around it."""
    kept = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(w for w in kept.split() if w not in ("a", "an", "the"))


@given(st.lists(st.sampled_from(["The", "a", "An", "cat", "Theme", "an1", ",", "?", "über"]), max_size=6))
def test_words_are_those_of_squad(words: list[str]) -> None:
    if squad(" ".join(words)):
        assert normalized(" ".join(words)) == squad(" ".join(words))


def one(gold: str, written: str) -> tuple[float, float, float]:
    found = written_answers([gold], [written])
    return found["exact_match"], found["token_f1"], found["rouge_l"]


@pytest.mark.parametrize(
    ("gold", "written", "expected"),
    [
        ("red fox", "the red fox.", (1.0, 1.0, 2 * 2 / 5)),
        ("red fox", "fox red", (0.0, 1.0, 0.5)),
        ("red fox", "", (0.0, 0.0, 0.0)),
        ("", "", (1.0, 1.0, 1.0)),
        ("", "x", (0.0, 0.0, 0.0)),
        ("A", "the", (0.0, 0.0, 0.0)),
        ("?", "!", (0.0, 0.0, 0.0)),
        ("no no yes", "no yes yes", (0.0, 2 * 2 / 6, 2 * 2 / 6)),
        ("x x x", "x", (0.0, 2 * 1 / 4, 2 * 1 / 4)),
        ("東京", "東 京", (1.0, 1.0, 1.0)),
        ("東京都", "京都", (0.0, 2 * 2 / 5, 2 * 2 / 5)),
    ],
)
def test_written_answers_by_hand(gold: str, written: str, expected: tuple[float, float, float]) -> None:
    assert one(gold, written) == pytest.approx(expected)


def test_scores_of_written_answers_are_means_over_rows() -> None:
    found = written_answers(["x", "y z"], ["x", "y"])
    assert found == {
        "exact_match": 0.5,
        "token_f1": pytest.approx((1 + 2 / 3) / 2),
        "rouge_l": pytest.approx((1 + 2 / 3) / 2),
        "rows": 2,
    }
    assert type(found["exact_match"]) is float


def longest_common(a: list[str], b: list[str]) -> int:
    """Of all subsequences of `a`, the longest that `b` has too."""
    for n in range(len(a), 0, -1):
        for picked in combinations(a, n):
            rest = iter(b)
            if all(word in rest for word in picked):
                return n
    return 0


@given(*[st.lists(st.sampled_from(["p", "q", "r"]), min_size=1, max_size=7)] * 2)
def test_rouge_l_is_over_the_longest_common_subsequence(a: list[str], b: list[str]) -> None:
    expected = 2 * longest_common(a, b) / (len(a) + len(b))
    assert one(" ".join(a), " ".join(b))[2] == pytest.approx(expected)
    assert one(" ".join(b), " ".join(a))[2] == pytest.approx(expected)
