"""Metrics that tasks name: hand-made cases, scikit-learn, perfect and constant predictions."""

from __future__ import annotations

import random

import pytest
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from tests.unit.refusals import refused
from trimtab.benchmark_metrics import METRICS, Judged, benchmark, best_candidate
from trimtab.errors import DataError
from trimtab.types import Example

TRUTH = ("true", "false")


def answer(question: int, gold: bool, said: bool | None) -> Judged:
    example = Example(f"{question}-{gold}-{said}", {}, str(gold).lower(), "f:1", group=("0", str(question)))
    return Judged(example, None if said is None else str(said).lower())


def entity(query: int, name: str, share: float, answers: tuple[str, ...]) -> Judged:
    label = "true" if name in answers else "false"
    found = tuple((text, 0) for text in answers)
    example = Example(f"{query}-{name}", {"entity": name}, label, "f:1", answers=found, group=("0", str(query)))
    return Judged(example, "true" if share > 0.5 else "false", {"true": share, "false": 1 - share})


MULTIRC = [
    answer(0, True, True), answer(0, False, False), answer(0, True, True),  # all right
    answer(1, True, False), answer(1, False, False),  # one missed
    answer(2, False, True), answer(2, True, True), answer(2, False, None),  # one invented, one unnamed
]  # fmt: skip


def test_multirc_by_hand() -> None:
    found = benchmark(["f1a", "question_em"], MULTIRC, TRUTH)
    assert found["f1a"] == pytest.approx(2 * 3 / (4 + 4))  # 3 hits, 4 said, 4 right ones
    assert found["question_em"] == pytest.approx(1 / 3)
    assert found["score"] == pytest.approx((found["f1a"] + found["question_em"]) / 2)


def test_questions_of_several_passages_are_told_apart() -> None:
    one = Judged(Example("a", {}, "true", group=("0", "0")), "true")
    other = Judged(Example("b", {}, "true", group=("1", "0")), "false")
    assert benchmark(["question_em"], [one, other], TRUTH) == {"question_em": 0.5}


def test_record_takes_the_likeliest_entity_and_the_best_of_its_spellings() -> None:
    answers = ("Anna Berg", "Anna")
    judged = [
        entity(0, "Anna Berg", 0.4, answers), entity(0, "Carl", 0.3, answers), entity(0, "Anna", 0.2, answers),
        entity(1, "the City of Mill", 0.9, ("City of Ford",)), entity(1, "Ford", 0.1, ("City of Ford",)),
    ]  # fmt: skip
    found = benchmark(["answer_f1", "answer_em"], judged, TRUTH)
    f1 = 2 * 2 / (3 + 3)  # "city of mill" against "city of ford", the article aside
    assert found == pytest.approx({"answer_f1": (1 + f1) / 2, "answer_em": 0.5, "score": (1 + f1) / 4 + 0.25})


def test_among_equal_entities_the_first_by_the_alphabet_is_the_answer() -> None:
    judged = [entity(0, name, 0.5, ("Zoe",)) for name in ("Zoe", "Carl", "Dora")]
    assert best_candidate(judged) == "Carl"


def test_of_what_was_written_the_part_before_the_semicolon_counts() -> None:
    example = Example("a", {}, "Anna Berg; Anna", answers=(("Anna Berg", 0), ("Anna", 0)), group=("0", "0"))
    for text, right in (("Anna Berg; Anna", 1.0), ("anna", 1.0), ("Carl; Anna", 0.0), ("", 0.0)):
        assert benchmark(["answer_em"], [Judged(example, text=text)], ()) == {"answer_em": right}


def test_scikit_learn_agrees_on_random_labels() -> None:
    generator = random.Random(3)
    gold, said = ([generator.choice(TRUTH) for _ in range(200)] for _ in range(2))
    judged = [
        Judged(Example(str(i), {}, g, group=("0", str(i // 5))), s)
        for i, (g, s) in enumerate(zip(gold, said, strict=True))
    ]
    found = benchmark(["accuracy", "macro_f1", "matthews", "f1a"], judged, TRUTH)
    assert found["accuracy"] == pytest.approx(accuracy_score(gold, said))
    assert found["macro_f1"] == pytest.approx(f1_score(gold, said, average="macro"))
    assert found["matthews"] == pytest.approx(matthews_corrcoef(gold, said))
    assert found["f1a"] == pytest.approx(f1_score(gold, said, pos_label="true"))


def test_matthews_by_hand() -> None:
    judged = [answer(i, g, s) for i, (g, s) in enumerate([(True, True)] * 6 + [(True, False)] * 2 + [(False, True)]
              + [(False, False)] * 3)]  # fmt: skip
    by_hand = (6 * 3 - 1 * 2) / ((6 + 1) * (6 + 2) * (3 + 1) * (3 + 2)) ** 0.5
    assert benchmark(["matthews"], judged, TRUTH)["matthews"] == pytest.approx(by_hand)


def test_perfect_predictions_score_one() -> None:
    judged = [answer(j.example.group[1], j.example.label == "true", j.example.label == "true") for j in MULTIRC]  # type: ignore[arg-type]
    names = ["accuracy", "macro_f1", "matthews", "f1a", "question_em"]
    assert benchmark(names, judged, TRUTH) == dict.fromkeys([*names, "score"], 1.0)
    perfect = [entity(0, name, float(name == "Anna"), ("Anna",)) for name in ("Anna", "Carl")]
    assert set(benchmark(["answer_f1", "answer_em"], perfect, TRUTH).values()) == {1.0}


def test_constant_predictions_score_their_chance() -> None:
    always = {said: [answer(int(j.example.group[1]), j.example.label == "true", said) for j in MULTIRC]
              for said in (True, False)}  # fmt: skip
    names = ["accuracy", "matthews", "f1a", "question_em"]
    share = 4 / 8  # of right answers
    yes, no = (benchmark(names, always[said], TRUTH) for said in (True, False))
    assert (yes["accuracy"], yes["matthews"], yes["question_em"]) == (share, 0.0, 0.0)
    assert yes["f1a"] == pytest.approx(2 * share / (1 + share))
    assert (no["accuracy"], no["matthews"], no["f1a"], no["question_em"]) == (1 - share, 0.0, 0.0, 0.0)


def pair(hypothesis: str, said: str) -> Judged:
    return Judged(Example(hypothesis, {"hypothesis": hypothesis}, "entailment", f"f:{hypothesis}"), said)


def test_gender_parity_is_the_share_of_pairs_with_one_prediction() -> None:
    same, other = ("entailment", "entailment"), ("entailment", "not_entailment")
    judged = [pair(h, said) for h, both in zip("abcd", (same, other, same, other), strict=True) for said in both]
    assert benchmark(["gender_parity"], judged, ()) == {"gender_parity": 0.5}
    assert benchmark(["gender_parity"], [pair(h, "entailment") for h in "aabbcc"], ()) == {"gender_parity": 1.0}


def test_rows_that_are_no_pair_are_refused() -> None:
    with refused(DataError, "the row and the one before it are no pair", where="f:b", fix="Keep the order"):
        benchmark(["gender_parity"], [pair("a", "x"), pair("b", "x")], ())
    with refused(DataError, "the last row has no partner", where="f:c"):
        benchmark(["gender_parity"], [pair("a", "x"), pair("a", "x"), pair("c", "x")], ())


@pytest.mark.parametrize("name", ["question_em", "answer_f1", "answer_em"])
def test_rows_without_a_question_are_refused(name: str) -> None:
    with refused(DataError, "the row belongs to no question", where="f:1", fix="task.form=multirc or record"):
        benchmark([name], [Judged(Example("a", {"entity": "x"}, "true", "f:1"), "true")], TRUTH)


def test_one_metric_has_no_mean() -> None:
    assert benchmark(["f1a"], MULTIRC, TRUTH).keys() == {"f1a"}
    assert benchmark([], MULTIRC, TRUTH) == {}
    assert set(METRICS) >= {"accuracy", "macro_f1", "matthews", "f1a", "question_em", "gender_parity"}
