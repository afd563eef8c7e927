"""Scores of ranked facts on cases worked out by hand."""

from __future__ import annotations

import pytest

from trimtab.fact_metrics import RankedFact, macro, most_frequent, ranked_facts

FACTS = [
    RankedFact("P19", 1, 1),
    RankedFact("P19", 3, 1),
    RankedFact("P19", 11, 2),
    RankedFact("P19", 1, 0),
    RankedFact("P20", 2, 1),
    RankedFact("P20", None, 0),
]


def test_every_number_is_a_mean_over_relations() -> None:
    found = ranked_facts(FACTS)
    assert found["p_at_1"] == pytest.approx((2 / 4 + 0 / 1) / 2)
    assert found["p_at_10"] == pytest.approx((3 / 4 + 1 / 1) / 2)
    assert found["mrr"] == pytest.approx(((1 + 1 / 3 + 1 / 11 + 1) / 4 + 1 / 2) / 2)
    assert found["rows"] == 6
    first = {"p_at_1": 0.5, "p_at_10": 0.75, "mrr": pytest.approx((2 + 1 / 3 + 1 / 11) / 4), "rows": 4}
    assert found["relations"] == {"P19": first, "P20": {"p_at_1": 0.0, "p_at_10": 1.0, "mrr": 0.5, "rows": 2}}


def test_what_cannot_be_ranked_is_left_out_counted_and_wrong_in_the_score_of_all() -> None:
    found = ranked_facts([RankedFact("a", 1), RankedFact("a", None)])
    assert (found["p_at_1"], found["p_at_1_all"], found["unreachable"], found["rows"]) == (1.0, 0.5, 1, 2)
    nothing = ranked_facts([RankedFact("a", None)])
    assert (nothing["p_at_1"], nothing["p_at_1_all"], nothing["unreachable"]) == (0.0, 0.0, 1)
    assert "unreachable" not in ranked_facts([RankedFact("a", 1)])


def test_subsets_say_what_frequency_cannot_explain() -> None:
    found = ranked_facts(FACTS)
    assert found["p_at_1_not_majority"] == pytest.approx(1 / 2)  # P19: ranks 11 and 1; P20 has none that is reached
    assert found["rows_not_majority"] == 2
    assert found["p_at_1_new_objects"] == 1.0
    assert found["rows_new_objects"] == 1
    unknown = ranked_facts([RankedFact("a", 1)])
    assert not unknown.keys() & {"p_at_1_not_majority", "p_at_1_new_objects", "relations"}


def test_perfect_ranks_score_one_and_ranks_by_frequency_what_the_baseline_says() -> None:
    perfect = ranked_facts([RankedFact(f.group, 1, f.prior) for f in FACTS])
    assert [perfect[k] for k in ("p_at_1", "p_at_10", "mrr", "p_at_1_all", "p_at_1_new_objects")] == [1.0] * 5
    by_frequency = [RankedFact(f.group, f.prior or 10**6, f.prior) for f in FACTS if f.rank is not None]
    scored, baseline = ranked_facts(by_frequency), most_frequent(FACTS)
    assert baseline is not None
    for name in ("p_at_1", "p_at_10", "mrr"):
        assert scored[name] == pytest.approx(baseline[name], abs=1e-6), name
    assert baseline["p_at_1"] == pytest.approx((2 / 4 + 1 / 1) / 2)
    assert baseline["p_at_1_all"] == pytest.approx((2 / 4 + 1 / 2) / 2)
    assert scored["p_at_1_not_majority"] == 0.0


def test_a_baseline_of_frequency_needs_to_know_them() -> None:
    assert most_frequent([RankedFact("a", 1, 1), RankedFact("a", 1)]) is None
    assert most_frequent([]) is None


def test_relations_weigh_the_same_whatever_their_size() -> None:
    facts = [RankedFact("large", 1)] * 9 + [RankedFact("small", 7)]
    assert macro(facts, lambda fact: float(fact.rank == 1)) == 0.5
    assert macro([], lambda fact: 1.0) == 0.0
