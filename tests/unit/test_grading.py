"""Graders: names of metrics, phrases that mean the same, the best constant answer."""

from __future__ import annotations

import pytest

from trimtab.grading import PLAIN, Grader, Graders, judged, means_the_same
from trimtab.predictions import Prediction, Written
from trimtab.types import Example
from trimtab.verbalizers import Verbalizer

TRUTH = Verbalizer.of({"false": "no", "true": "yes"})


def test_names_of_metrics_begin_with_what_selects() -> None:
    assert PLAIN.names(["accuracy", "macro_f1"]) == ("accuracy", "macro_f1")
    both = Grader(TRUTH, ("f1a", "question_em"), "score")
    assert both.names(["accuracy", "macro_f1"]) == ("score", "accuracy", "macro_f1", "f1a", "question_em")
    assert Grader(TRUTH, ("matthews",)).names(["accuracy"]) == ("accuracy", "matthews")
    assert Grader(TRUTH, candidate="referent").names(["exact_match"]) == ("accuracy", "macro_f1")


@pytest.mark.parametrize(
    ("said", "candidate", "is_same"),
    [
        ("the councilmen", "The city councilmen", True),
        ("The city councilmen of Mill", "The city councilmen", True),
        ("city, councilmen the!", "The city councilmen", True),
        ("the demonstrators", "The city councilmen", False),
        ("the the", "The city councilmen", True),
        ("", "The city councilmen", False),
        ("12", "The city councilmen", False),
    ],
)
def test_phrases_mean_the_same_where_one_has_all_words_of_the_other(said: str, candidate: str, is_same: bool) -> None:
    assert means_the_same(said, candidate) == is_same
    assert means_the_same(said, candidate, nothing_matches=True) == (is_same or said in ("", "12"))


def test_what_was_written_is_compared_with_the_candidate_of_the_example() -> None:
    grader = Grader(TRUTH, candidate="referent")
    examples = [Example("a", {"referent": "the cup"}, "true"), Example("b", {"referent": "the bag"}, "false")]
    found = grader.named(examples, ["cup", "the cup"])
    assert [(p.label, p.text, p.gold) for p in found if isinstance(p, Prediction)] == [
        ("true", "cup", "true"), ("false", "the cup", "false")
    ]  # fmt: skip


def test_nothing_may_count_as_the_candidate() -> None:
    examples = [Example("a", {"referent": "the cup"}, "true")]
    for nothing_matches, label in ((False, "false"), (True, "true")):
        (found,) = Grader(TRUTH, candidate="referent", nothing_matches=nothing_matches).named(examples, ["..."])
        assert isinstance(found, Prediction)
        assert found.label == label


def test_free_text_and_classes_are_named_as_before() -> None:
    free = Grader(Verbalizer.free())
    assert free.named([Example("a", {}, "x")], ["y"]) == [Written("a", "y", "x")]
    (one,) = Grader(TRUTH).named([Example("a", {}, "true")], ["Yes."])
    assert isinstance(one, Prediction)
    assert one.label == "true"
    assert [j.text for j in judged([Example("a", {}, "x")], [Written("a", "y", "x")])] == ["y"]


def test_several_tasks_come_to_the_mean_of_what_stands_for_each() -> None:
    both = Graders({"a": Grader(TRUTH, headline="accuracy"), "b": Grader(Verbalizer.free(), headline="f1")})
    assert both.names([["accuracy"], ["exact_match", "f1"]]) == ("score", "a.accuracy", "b.f1", "b.exact_match")
    one = {"loss": 1.0, "accuracy": 0.5, "rows": 4, "confusion": {}}
    found = both.combined([one, {"loss": 2.0, "f1": 1.0, "exact_match": 0.0, "rows": 2}])
    assert (found["score"], found["loss"], found["rows"]) == (0.75, 1.5, 6)
    assert {k: v for k, v in found.items() if "." in k} == {
        "a.loss": 1.0, "a.accuracy": 0.5, "b.loss": 2.0, "b.f1": 1.0, "b.exact_match": 0.0
    }  # fmt: skip
    assert set(both.combined([one, {"loss": 2.0}])) == {"loss", "a.loss", "a.accuracy", "b.loss"}, "b was not asked"
    alone = Grader(TRUTH)
    assert alone.parts == {"": alone}
    assert alone.combined([one]) == one


def test_the_best_constant_answer_of_a_named_metric() -> None:
    rows = [Example(str(i), {}, label, group=("0", str(i // 2))) for i, label in enumerate(["true", "false"] * 3)]
    grader = Grader(TRUTH, ("f1a", "question_em"), "score")
    assert grader.constant(rows, "f1a") == pytest.approx(2 * 0.5 / 1.5)
    assert grader.constant(rows, "score") == pytest.approx(0.5 / 1.5)
    assert grader.constant(rows, "accuracy") is None
    answers = (("Mill", 0),)
    queries = [Example(str(i), {}, "Mill", answers=answers, group=("0", str(i))) for i in range(2)]
    assert Grader(Verbalizer.free(), ("answer_em",)).constant(queries, "answer_em") == 1.0
