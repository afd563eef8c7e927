"""What a comparison comes to: the sentence in each case, and how many seeds a study needs."""

from __future__ import annotations

import random
import statistics
from math import sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import levene, nct, t

from tests.unit.refusals import refused
from trimtab.errors import ConfigError
from trimtab.studies.statistics.comparison import Difference, paired_difference, unpaired_difference
from trimtab.studies.statistics.spread import SpreadRatio, variance_ratio
from trimtab.studies.statistics.verdicts import seeds_needed, seeds_needed_for_ratio, verdict, verdict_on_spread


def differing(
    *, mean: float, low: float, high: float, sd: float, p: float, n: int = 10, paired: bool = True
) -> Difference:
    return Difference(mean, low, high, sd, p, p, n, n, 0, paired, 0.95)


CLEAR = differing(mean=0.021, low=0.010, high=0.034, sd=0.02, p=0.001)


def test_a_clear_difference() -> None:
    assert verdict(CLEAR).sentence == "A is better than B by 0.021 [0.010, 0.034] (10 seeds)."
    turned = differing(mean=-0.021, low=-0.034, high=-0.010, sd=0.02, p=0.001, paired=False)
    found = verdict(turned, a="plain", b="residual", digits=2)
    assert found.sentence == "plain is worse than residual by 0.02 [0.01, 0.03] (10 and 10 seeds, not the same)."
    assert (verdict(CLEAR).outcome, found.outcome, found.seeds_needed) == ("better", "worse", None)


def test_a_clear_difference_that_is_too_small_to_matter() -> None:
    found = verdict(CLEAR, matters=0.05)
    assert found.outcome == "better"
    assert found.sentence.endswith("(10 seeds), less than the 0.05 that matters.")


def test_an_adjusted_p_decides() -> None:
    kept = verdict(CLEAR, adjusted_p=0.004)
    assert kept.outcome == "better"
    assert kept.sentence.endswith("(10 seeds), p = 0.004 adjusted for several comparisons.")
    lost = verdict(CLEAR, adjusted_p=0.08)
    assert (lost.outcome, lost.seeds_needed) == ("not_enough_seeds", None)
    assert lost.sentence == (
        "Not enough seeds to tell whether A or B is better: +0.021 [+0.010, +0.034] (10 seeds), p = 0.08 adjusted for "
        "several comparisons; on its own that would count, among so many comparisons it may be chance."
    )


def test_neither_the_interval_nor_p_decides_alone() -> None:
    for found in (
        differing(mean=0.02, low=-0.001, high=0.04, sd=0.05, p=0.01),
        differing(mean=0.02, low=0.001, high=0.04, sd=0.05, p=0.06),
    ):
        assert verdict(found).outcome == "not_enough_seeds"
    assert verdict(differing(mean=0.02, low=0.001, high=0.04, sd=0.03, p=0.05)).outcome == "better"


def test_no_difference_where_one_that_matters_is_ruled_out() -> None:
    found = verdict(differing(mean=0.001, low=-0.004, high=0.006, sd=0.01, p=0.7))
    assert (found.outcome, found.seeds_needed) == ("no_difference", None)
    assert found.sentence == (
        "No difference is visible between A and B: +0.001 [-0.004, +0.006] (10 seeds); 0.02 or more is ruled out."
    )


def test_no_difference_where_one_that_matters_would_have_shown() -> None:
    found = verdict(differing(mean=0.008, low=-0.006, high=0.022, sd=0.02, p=0.3))
    assert found.outcome == "no_difference"
    assert found.sentence.endswith("(10 seeds); one of 0.02 would have shown in four of five such studies.")


def test_too_wide_an_interval_is_not_enough_seeds() -> None:
    found = verdict(differing(mean=0.008, low=-0.02, high=0.04, sd=0.04, p=0.5, paired=False))
    assert (found.outcome, found.seeds_needed) == ("not_enough_seeds", seeds_needed(0.04, 0.02))
    assert found.sentence == (
        "Not enough seeds to tell whether A or B is better: +0.008 [-0.020, +0.040] (10 and 10 seeds, not the same); "
        f"the interval holds 0.02 and more; about {found.seeds_needed} of each would show 0.02 in four of five "
        "studies."
    )


def test_fewer_than_five_seeds_are_never_enough() -> None:
    found = verdict(differing(mean=0.2, low=0.19, high=0.21, sd=0.001, p=1e-6, n=4))
    assert (found.outcome, found.seeds_needed) == ("not_enough_seeds", 5)
    assert found.sentence.endswith("(4 seeds); 5 are the least.")
    rough = verdict(differing(mean=0.2, low=0.1, high=0.3, sd=0.04, p=0.01, n=3))
    assert rough.sentence.endswith("(3 seeds); 5 are the least; about 34 would show 0.02 in four of five studies.")
    assert rough.seeds_needed == 34
    one = verdict(paired_difference({1: 0.9}, {1: 0.7}))
    assert one.outcome == "not_enough_seeds"
    assert one.sentence.endswith("better: +0.200 with one shared seed; 5 are the least.")


def test_differences_that_do_not_vary_need_six_seeds() -> None:
    five, six = (paired_difference(dict.fromkeys(range(n), 0.8), dict.fromkeys(range(n), 0.7)) for n in (5, 6))
    assert verdict(six).outcome == "better"
    found = verdict(five)
    assert (found.outcome, found.seeds_needed) == ("not_enough_seeds", None)
    assert found.sentence.endswith("(5 seeds); nothing varies, so it takes more seeds.")
    assert (
        verdict(paired_difference(dict.fromkeys(range(5), 0.8), dict.fromkeys(range(5), 0.8))).outcome
        == "no_difference"
    )


def test_verdicts_err_about_as_rarely_as_they_say() -> None:
    """No true difference: one of twenty studies says there is one. A difference of 2 sd: nearly all say so."""
    draw, wrong, right = random.Random(11), 0, 0
    for _ in range(300):
        a, b = ([draw.gauss(0.8, 0.01) for _ in range(8)] for _ in range(2))
        wrong += verdict(paired_difference(dict(enumerate(a)), dict(enumerate(b)), resamples=300)).outcome in (
            "better",
            "worse",
        )
        right += verdict(unpaired_difference([s + 0.02 for s in a], b, resamples=300)).outcome == "better"
    assert wrong <= 0.08 * 300
    assert right >= 0.9 * 300


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=9), st.lists(st.integers(0, 20), min_size=1, max_size=9))
def test_each_method_hears_the_same(a: list[int], b: list[int]) -> None:
    x, y = ({s: c / 100 for s, c in enumerate(counts)} for counts in (a, b))
    one, other = (verdict(paired_difference(*pair, resamples=200)) for pair in ((x, y), (y, x)))
    turned = {"better": "worse", "worse": "better"}
    assert other.outcome == turned.get(one.outcome, one.outcome)
    assert one.seeds_needed == other.seeds_needed
    assert one.sentence.endswith(".")


def test_verdicts_refuse_what_cannot_be_meant() -> None:
    for matters in (0.0, -0.1, float("nan")):
        with refused(ConfigError, f"is positive, got {matters}.", where="matters"):
            verdict(CLEAR, matters=matters)
    with refused(ConfigError, "between 0 and 1, got 1.2", where="adjusted_p"):
        verdict(CLEAR, adjusted_p=1.2)
    with refused(ConfigError, "above 1, got 1.0", where="matters", fix="Take 2"):
        verdict_on_spread(STEADIER, matters=1.0)
    with refused(ConfigError, "between 0 and 1, got -1.0", where="adjusted_p"):
        verdict_on_spread(STEADIER, adjusted_p=-1.0)


# How many seeds


@pytest.mark.parametrize(("sd", "visible"), [(0.03, 0.02), (0.01, 0.02), (0.05, 0.02), (0.02, -0.02)])
@pytest.mark.parametrize("power", [0.8, 0.95])
def test_the_count_has_the_power_that_students_test_has_by_integration(sd: float, visible: float, power: float) -> None:
    def reached(n: int) -> float:
        critical, center = t.ppf(0.975, n - 1), abs(visible) / sd * sqrt(n)
        return float(nct.sf(critical, n - 1, center) + nct.cdf(-critical, n - 1, center))

    n = seeds_needed(sd, visible, power=power)
    assert reached(n) > power - (0.01 if n > 4 else 0.05)
    assert reached(n - 2) < power


def test_the_count_is_its_formula() -> None:
    assert seeds_needed(0.03, 0.02) == 20  # (2.8016 * 1.5)^2 + 1.92 = 19.58
    assert seeds_needed(0.03, 0.02, alpha=0.01) == 30  # (3.4175 * 1.5)^2 + 3.32 = 29.6
    assert seeds_needed(0.0, 0.02) == 2


def test_the_count_for_a_ratio_has_the_power_it_says() -> None:
    n, draw = seeds_needed_for_ratio(2.0), random.Random(0)
    seen = [
        levene([draw.gauss(0, 2) for _ in range(n)], [draw.gauss(0, 1) for _ in range(n)], center="median").pvalue
        < 0.05
        for _ in range(800)
    ]
    assert 0.75 < statistics.fmean(seen) < 0.86
    assert seeds_needed_for_ratio(0.5) == n
    assert seeds_needed_for_ratio(1.2) > 100


def test_counts_refuse_what_no_number_of_seeds_can_do() -> None:
    with refused(ConfigError, "at least 0, got -1.0", where="sd"):
        seeds_needed(-1.0, 0.1)
    with refused(
        ConfigError, "other than 0, got 0.0", where="difference", fix="how small a difference would not matter"
    ):
        seeds_needed(0.1, 0.0)
    with refused(ConfigError, "0 < alpha < power < 1, got alpha 0.05 and power 1.0."):
        seeds_needed(0.1, 0.1, power=1.0)
    with refused(ConfigError, "got alpha 0.9 and power 0.8."):
        seeds_needed_for_ratio(2.0, alpha=0.9)
    for ratio in (0.0, 1.0, -2.0, float("inf")):
        with refused(ConfigError, f"positive and not 1, got {ratio}.", where="ratio", fix="Take 2"):
            seeds_needed_for_ratio(ratio)


# Spread


def spreading(sd_a: float, sd_b: float, low: float, high: float | None, p: float | None, n: int = 10) -> SpreadRatio:
    return SpreadRatio(sd_a, sd_b, sd_a / sd_b, low, high, (sd_a / sd_b) ** 2, low**2, high and high**2, p, n, n, 0.95)


STEADIER = spreading(0.01, 0.04, 0.15, 0.6, 0.003)


def test_a_clear_difference_in_spread() -> None:
    found = verdict_on_spread(STEADIER)
    assert (
        found.sentence
        == "A is steadier than B: sd 0.010 against 0.040, ratio 0.25 [0.15, 0.60] (10 and 10 seeds, p = 0.003)."
    )
    turned = verdict_on_spread(spreading(0.04, 0.01, 1.7, None, 0.003), a="plain", b="residual", digits=2)
    assert turned.sentence == (
        "plain is less steady than residual: sd 0.04 against 0.01, ratio 4.00 [1.70, unbounded] (10 and 10 "
        "seeds, p = 0.003)."
    )
    assert (found.outcome, turned.outcome) == ("better", "worse")


def test_five_seeds_do_not_show_twice_the_spread() -> None:
    """Real scores, whose spread differs by a factor of two."""
    found = verdict_on_spread(variance_ratio([0.80, 0.84, 0.82, 0.78, 0.80], [0.80, 0.82, 0.81, 0.79, 0.80]))
    assert (found.outcome, found.seeds_needed) == ("not_enough_seeds", 24)
    assert found.sentence.startswith(
        "Not enough seeds to tell whether A or B is steadier: sd 0.023 against 0.011, ratio 2.00 ["
    )
    assert found.sentence.endswith(
        "; with 5 seeds not even the F test tells ratios under 3.1 from 1; about 24 of each would show 2 in four "
        "of five studies."
    )  # F(4, 4) has 9.60 at 0.975, the square of 3.1


def test_seeds_enough_for_the_f_test_are_not_told_otherwise() -> None:
    found = verdict_on_spread(spreading(0.02, 0.01, 0.9, 3.0, 0.1, n=15))
    assert found.outcome == "not_enough_seeds"
    assert found.sentence.endswith("(15 and 15 seeds, p = 0.1); about 24 of each would show 2 in four of five studies.")


def test_fewer_than_five_seeds_say_nothing_of_spread() -> None:
    found = verdict_on_spread(spreading(0.01, 0.04, 0.15, 0.6, 0.003, n=4))
    assert (found.outcome, found.seeds_needed) == ("not_enough_seeds", 24)
    assert "; 5 are the least; about 24" in found.sentence


def test_no_difference_in_spread() -> None:
    ruled_out = verdict_on_spread(spreading(0.01, 0.011, 0.6, 1.4, 0.6, n=20))
    assert ruled_out.sentence.startswith("No difference in spread is visible between A and B: sd 0.010 against 0.011")
    assert ruled_out.sentence.endswith("; a ratio of 2 or more is ruled out.")
    seen = verdict_on_spread(spreading(0.01, 0.013, 0.4, 1.4, 0.2, n=24))
    assert seen.sentence.endswith("; one of 2 would have shown in four of five such studies.")
    assert (ruled_out.outcome, seen.outcome) == ("no_difference", "no_difference")


def test_an_adjusted_p_decides_on_spread() -> None:
    lost = verdict_on_spread(STEADIER, adjusted_p=0.06)
    assert lost.outcome == "not_enough_seeds"
    assert lost.sentence.endswith("seeds, p = 0.06 adjusted for several comparisons); on its own that would count, "
                                  "among so many comparisons it may be chance.")  # fmt: skip
    assert verdict_on_spread(STEADIER, adjusted_p=0.04).outcome == "better"


def test_a_method_that_does_not_vary_is_judged_by_p_alone() -> None:
    varied = [0.70, 0.85, 0.79, 0.62, 0.81, 0.66, 0.74, 0.9]
    steady, turned = (variance_ratio(*pair) for pair in (([0.8] * 8, varied), (varied, [0.8] * 8)))
    assert verdict_on_spread(steady).sentence.startswith(
        "A is steadier than B: sd 0.000 against 0.096 (8 and 8 seeds, p = "
    )
    assert verdict_on_spread(turned).outcome == "worse"
    neither = verdict_on_spread(variance_ratio([0.8] * 5, [0.7] * 5))
    assert neither.outcome == "no_difference"
    assert neither.sentence.endswith("sd 0.000 against 0.000 (5 and 5 seeds, p = 1); neither varies at all.")
    few_values = variance_ratio([0.4, 0.4, 0.4, 0.6, 0.6, 0.6], [0.1, 0.1, 0.1, 0.9, 0.9, 0.9])
    assert verdict_on_spread(few_values).sentence.endswith("; the scores take too few values to compare their spread.")
    assert verdict_on_spread(few_values).outcome == "not_enough_seeds"
