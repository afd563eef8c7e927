"""Scores of spans, against seqeval, counts done by hand and a re-derivation of SQuAD's rules."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics import classification_report

from tests.unit.refusals import refused
from trimtab.errors import DataError
from trimtab.span_metrics import best_threshold, extraction, tagging, with_threshold

# Entities


def tags(*sentences: str) -> list[list[str]]:
    return [s.split() for s in sentences]


def test_a_worked_example_of_entities() -> None:
    gold = tags("B-x I-x O B-y", "B-x O", "O O")
    predicted = tags("B-x I-x O B-x", "B-x I-x", "O B-y")
    assert tagging(gold, predicted) == {
        "entity_f1": pytest.approx(2 * 1 / (3 + 4)),
        "precision": pytest.approx(1 / 4),
        "recall": pytest.approx(1 / 3),
        "token_accuracy": pytest.approx(5 / 8),
        "rows": 3,
        "per_type": {
            "x": {"f1": pytest.approx(2 / 5), "precision": pytest.approx(1 / 3), "recall": 0.5, "entities": 2},
            "y": {"f1": 0.0, "precision": 0.0, "recall": 0.0, "entities": 1},
        },
    }


def test_an_entity_needs_its_first_word_its_last_word_and_its_type() -> None:
    gold = tags("B-x I-x I-x")
    assert tagging(gold, tags("B-x I-x O"))["entity_f1"] == 0.0
    assert tagging(gold, tags("O B-x I-x"))["entity_f1"] == 0.0
    assert tagging(gold, tags("B-y I-y I-y"))["entity_f1"] == 0.0
    assert tagging(gold, tags("I-x I-x I-x"))["entity_f1"] == 1.0


def test_entities_do_not_cross_sentences_and_equal_places_in_two_sentences_are_two() -> None:
    assert tagging(tags("B-x", "I-x"), tags("B-x", "B-x"))["entity_f1"] == 1.0
    found = tagging(tags("B-x", "B-x"), tags("B-x", "O"))
    assert (found["precision"], found["recall"]) == (1.0, 0.5)


def test_no_entity_on_one_side_is_zero_and_on_neither_is_one_without_a_warning() -> None:
    nothing, some = tags("O O"), tags("B-x O")
    scores = ("entity_f1", "precision", "recall")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [tagging(nothing, nothing)[s] for s in scores] == [1.0, 1.0, 1.0]
        assert [tagging(some, nothing)[s] for s in scores] == [0.0, 0.0, 0.0]
        assert [tagging(nothing, some)[s] for s in scores] == [0.0, 0.0, 0.0]
    assert tagging(nothing, nothing)["per_type"] == {}
    assert tagging(nothing, some)["per_type"]["x"]["entities"] == 0
    assert tagging([[]], [[]])["token_accuracy"] == 1.0


@pytest.mark.parametrize("tag", ["person", "", "B", "B-", "X-y", "o"])
@pytest.mark.parametrize("side", [0, 1])
def test_what_is_no_tag_is_refused_before_seqeval_guesses(tag: str, side: int) -> None:
    sides = [[["O", "B-x"]], [["O", "B-x"]]]
    sides[side] = [["O", tag]]
    with refused(DataError, f"{tag!r} is no tag of an entity", fix="Tags are O, B-type and I-type"):
        tagging(*sides)


def test_sentences_of_other_lengths_are_a_defect() -> None:
    with pytest.raises(ValueError, match="zip"):
        tagging(tags("O O"), tags("O"))
    with pytest.raises(ValueError, match="zip"):
        tagging(tags("O O"), tags("O O", "O"))


TAG = st.sampled_from(["O", "O", "B-x", "I-x", "B-x-y", "I-x-y"])
PAIRS = st.lists(st.lists(st.tuples(TAG, TAG), min_size=1, max_size=6), min_size=1, max_size=4)


@given(PAIRS)
def test_scores_are_those_of_seqeval(pairs: list[list[tuple[str, str]]]) -> None:
    gold, predicted = ([[pair[side] for pair in s] for s in pairs] for side in (0, 1))
    found = tagging(gold, predicted)
    json.dumps(found)
    if not found["per_type"]:
        return
    expected: dict[str, Any] = classification_report(gold, predicted, output_dict=True, zero_division=0)
    micro = expected["micro avg"]
    assert found["entity_f1"] == pytest.approx(micro["f1-score"])
    assert (found["precision"], found["recall"]) == pytest.approx((micro["precision"], micro["recall"]))
    assert set(found["per_type"]) == {t for t in expected if not t.endswith(" avg")}
    for kind, scores in found["per_type"].items():
        theirs = expected[kind]
        assert scores["f1"] == pytest.approx(theirs["f1-score"])
        assert (scores["precision"], scores["recall"]) == pytest.approx((theirs["precision"], theirs["recall"]))
        assert scores["entities"] == theirs["support"]


@given(PAIRS)
def test_tagging_scores_lie_between_0_and_1_and_the_right_tags_reach_1(pairs: list[list[tuple[str, str]]]) -> None:
    gold, predicted = ([[pair[side] for pair in s] for s in pairs] for side in (0, 1))
    names = ("entity_f1", "precision", "recall", "token_accuracy")
    assert all(0 <= tagging(gold, predicted)[n] <= 1 for n in names)
    assert all(tagging(gold, gold)[n] == 1 for n in names)
    forward, backward = tagging(gold, predicted), tagging(predicted, gold)
    assert (forward["precision"], forward["entity_f1"]) == (backward["recall"], backward["entity_f1"])


# Answers


@pytest.mark.parametrize(
    ("gold", "predicted", "exact", "f1"),
    [
        (["the Danube"], "Danube", 1, 1),
        (["Danube"], "  DANUBE!\n", 1, 1),
        (["e-mail"], "email", 1, 1),  # punctuation joins
        (["e-mail"], "e mail", 0, 0),
        (["don't"], "dont", 1, 1),
        (["$3.50"], "350", 1, 1),
        (["a-the"], "athe", 1, 1),  # punctuation goes before articles
        (["an  apple, a pear"], "apple pear", 1, 1),
        (["theatre"], "the atre", 0, 0),
        (["«Wien»"], "Wien", 0, 0),  # punctuation of ASCII only
        (["the’s"], "’s", 1, 1),  # a word boundary stands beside other signs, too
        (["Black Sea"], "the sea", 0, 2 / 3),
        (["Black Sea coast"], "coast of the Black Forest", 0, 2 * 2 / (3 + 4)),
        (["x x y"], "x", 0, 2 * 1 / (3 + 1)),
        (["x x y"], "x x", 0, 2 * 2 / (3 + 2)),
        (["no", "no way", "way"], "no way at all", 0, 2 * 2 / (2 + 4)),
        (["Ulm", "Vienna"], "vienna", 1, 1),
        (["Ulm"], "", 0, 0),
        ([], "", 1, 1),
        ([], "Ulm", 0, 0),
        ([], "the", 1, 1),  # nothing is left of it
        (["the", "Ulm"], "", 0, 0),  # an answer of which nothing is left does not count
        (["the"], "", 1, 1),
        (["?"], "a", 1, 1),
        (["Ulm"], "?", 0, 0),
    ],
)
def test_answers_are_scored_as_by_the_script_of_squad(gold: list[str], predicted: str, exact: float, f1: float) -> None:
    found = extraction([gold], [predicted])
    assert (found["exact_match"], found["f1"], found["rows"]) == (exact, pytest.approx(f1), 1)


def test_scores_are_means_and_questions_without_an_answer_stand_apart() -> None:
    assert extraction([["x"], ["x y"]], ["x", "x"]) == {
        "exact_match": 0.5,
        "f1": pytest.approx((1 + 2 / 3) / 2),
        "rows": 2,
    }
    found = extraction([["x"], [], ["x y"], []], ["x", "", "x", "x"])
    assert found["rows"] == 4
    assert found["has_answer"] == {"exact_match": 0.5, "f1": pytest.approx(5 / 6), "rows": 2}
    assert found["no_answer"] == {"exact_match": 0.5, "f1": 0.5, "rows": 2}
    assert set(extraction([[]], [""])) == {"exact_match", "f1", "rows", "no_answer"}


def test_a_question_more_or_less_is_a_defect() -> None:
    with pytest.raises(ValueError, match="zip"):
        extraction([["x"]], [])


ANSWER = st.text(st.sampled_from("xy ,-aT"), max_size=6)
QUESTIONS = st.lists(
    st.tuples(st.lists(ANSWER, max_size=3), ANSWER, st.integers(-3, 3).map(float)), min_size=1, max_size=6
)


@given(QUESTIONS)
def test_answer_scores_lie_between_0_and_1_and_the_right_answer_reaches_1(
    questions: list[tuple[list[str], str, float]],
) -> None:
    gold, predicted, _ = zip(*questions, strict=True)
    found = extraction(gold, predicted)
    assert 0 <= found["exact_match"] <= found["f1"] <= 1
    assert all(any(extraction([g], [a])["exact_match"] == 1 for a in g or [""]) for g in gold)
    json.dumps(found)


# Thresholds


def test_a_worked_example_of_a_threshold() -> None:
    gold = [["x"], [], ["y"], []]
    predicted = ["x", "x", "y", "y"]
    threshold, found = best_threshold(gold, predicted, [-2.0, 1.0, 0.5, 3.0])
    assert threshold == 0.5
    assert (found["f1"], found["has_answer"]["f1"], found["no_answer"]["f1"]) == (1.0, 1.0, 1.0)
    assert with_threshold(predicted, [-2.0, 1.0, 0.5, 3.0], threshold) == ["x", "", "y", ""]


@pytest.mark.parametrize(("odds", "threshold"), [([0.4, 0.2], 0.0), ([0.0, 0.2], -1.0), ([-3.0, 5.0], -4.0)])
def test_where_no_answer_is_best_for_all_the_threshold_lies_below_all_odds(odds: list[float], threshold: float) -> None:
    assert best_threshold([[], []], ["x", "y"], odds) == (threshold, extraction([[], []], ["", ""]))


def test_of_equally_good_thresholds_the_lowest_is_kept() -> None:
    assert best_threshold([["x"], ["x"]], ["x", "y"], [0.1, 0.9])[0] == 0.1


def test_questions_of_equal_odds_pass_together() -> None:
    gold, predicted, odds = [["x"], [], []], ["x", "x", "x"], [0.5, 0.5, 0.5]
    threshold, found = best_threshold(gold, predicted, odds)
    assert (threshold, found["f1"]) == (0.0, pytest.approx(2 / 3))  # answering the first alone would give 1


@given(QUESTIONS)
def test_no_threshold_is_better(questions: list[tuple[list[str], str, float]]) -> None:
    gold, predicted, odds = zip(*questions, strict=True)
    threshold, found = best_threshold(gold, predicted, odds)
    assert found == extraction(gold, with_threshold(predicted, odds, threshold))
    others = [extraction(gold, with_threshold(predicted, odds, t))["f1"] for t in [-4.0, *odds]]
    assert found["f1"] == pytest.approx(max(others))


def official(gold: list[list[str]], predicted: list[str], odds: list[float]) -> tuple[float, float]:
    """The search of the script of SQuAD 2.0 from its description, over distinct odds above 0: threshold and best F1."""

    def f1(answers: list[str], answer: str) -> float:
        return float(extraction([answers], [answer])["f1"])

    order = sorted(range(len(odds)), key=odds.__getitem__)
    totals = [
        sum(f1(gold[i], predicted[i] if n < k else "") for n, i in enumerate(order)) for k in range(len(order) + 1)
    ]
    first = min(k for k, total in enumerate(totals) if total > max(totals) - 1e-9)
    return (odds[order[first - 1]] if first else 0.0), totals[first] / len(gold)


@given(QUESTIONS, st.randoms(use_true_random=False))
def test_distinct_odds_above_zero_give_the_threshold_of_the_script(
    questions: list[tuple[list[str], str, float]], random: Any
) -> None:
    gold, predicted, _ = map(list, zip(*questions, strict=True))
    odds = [k / 10 for k in range(1, len(gold) + 1)]
    random.shuffle(odds)
    threshold, found = best_threshold(gold, predicted, odds)
    assert (threshold, found["f1"]) == pytest.approx(official(gold, predicted, odds))
