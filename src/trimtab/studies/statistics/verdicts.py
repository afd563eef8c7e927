"""What a comparison comes to, in one sentence: better, no difference, or not enough seeds to tell.

A verdict never rests on a p value alone: the interval must agree, and where nothing is visible, the sentence says
whether a difference that matters could have been seen. Pure functions.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, pi
from statistics import NormalDist

from trimtab.errors import ConfigError
from trimtab.studies.statistics.comparison import Difference
from trimtab.studies.statistics.spread import SpreadRatio

FEWEST_SEEDS = 5
"""No verdict from fewer: spread is then all but unknown."""

_CHANCE = "on its own that would count, among so many comparisons it may be chance"


@dataclass(frozen=True)
class Verdict:
    """What it comes to for the first method: `better` (of spread: steadier), `worse`, `no_difference` or
    `not_enough_seeds`, and the same in words.

    `seeds_needed` is a rough count for each method; None where there are enough or nobody can say.
    """

    outcome: str
    sentence: str
    seeds_needed: int | None = None


def seeds_needed(sd: float, difference: float, *, power: float = 0.8, alpha: float = 0.05) -> int:
    """Pairs of runs after which a true difference is visible with chance `power`: a rough count, for planning.

    `n = ((z_(1 - alpha/2) + z_power) sd / difference)² + z_(1 - alpha/2)² / 2`, rounded up, at least 2: the normal
    approximation for the two-sided paired t test, with the correction of Guenther 1981 for an estimated spread. From 6
    pairs on power is what it should be, or up to 0.03 more; with 4 it is 0.05 less. Without pairs take
    `sqrt(sd_a² + sd_b²)` as `sd`; n is then per method.

    Args:
        sd: sample standard deviation of the differences by seed. From few seeds it is rough, and so is the result.
        difference: what should be seen, in the unit of `sd`.
        power: in (alpha, 1).
        alpha: chance of seeing a difference where there is none.

    Raises:
        ConfigError: a negative `sd`, a `difference` of 0, `power` or `alpha` out of range.

    >>> seeds_needed(0.03, 0.02), seeds_needed(0.03, 0.01)
    (20, 73)
    """
    if not 0 <= sd < float("inf"):
        raise ConfigError(f"A standard deviation is a number of at least 0, got {sd}.", where="sd")
    if not 0 < abs(difference) < float("inf"):
        raise ConfigError(
            f"A difference to be seen is a number other than 0, got {difference}.",
            where="difference",
            fix="No number of seeds shows that two methods are equal; say how small a difference would not matter.",
        )
    z, z_power = _quantiles(power, alpha)
    return max(2, ceil(((z + z_power) * sd / difference) ** 2 + z * z / 2))


def seeds_needed_for_ratio(ratio: float, *, power: float = 0.8, alpha: float = 0.05) -> int:
    """Runs of each method after which the Brown-Forsythe test sees this ratio of standard deviations.

    It compares mean distances from the median; of normal scores these have mean `sd sqrt(2/pi)` and variance
    `sd² (1 - 2/pi)`, so with z = z_(1 - alpha/2),
    `n = (z + z_power)² (pi/2 - 1) (1 + ratio²) / (1 - ratio)² + z² / 4`, rounded up. Simulated power for a ratio of 2
    is 0.80 at the 24 seeds that this gives.

    Raises:
        ConfigError: a ratio that is 1 or not positive; `power` or `alpha` out of range.

    >>> seeds_needed_for_ratio(2.0), seeds_needed_for_ratio(3.0)
    (24, 13)
    """
    if not 0 < ratio < float("inf") or ratio == 1:
        raise ConfigError(f"A ratio to be seen is positive and not 1, got {ratio}.", where="ratio", fix="Take 2.")
    z, z_power = _quantiles(power, alpha)
    return max(2, ceil((z + z_power) ** 2 * (pi / 2 - 1) * (1 + ratio**2) / (1 - ratio) ** 2 + z * z / 4))


def _quantiles(power: float, alpha: float) -> tuple[float, float]:
    if not 0 < alpha < power < 1:
        raise ConfigError(f"Needs 0 < alpha < power < 1, got alpha {alpha} and power {power}.")
    return NormalDist().inv_cdf(1 - alpha / 2), NormalDist().inv_cdf(power)


def verdict(
    found: Difference,
    *,
    a: str = "A",
    b: str = "B",
    adjusted_p: float | None = None,
    matters: float = 0.02,
    digits: int = 3,
) -> Verdict:
    """Whether a is better than b, in a sentence with difference, interval and seeds.

    * better or worse: at least 5 seeds, the interval leaves 0 out, and p is at most 1 - level;
    * no difference: the interval lies within ± `matters`, or there were seeds enough to see `matters` four times in
      five (`seeds_needed`) and nothing was seen;
    * not enough seeds: everything else, with the reason and a rough count of what would do.

    Args:
        found: from `paired_difference` or `unpaired_difference`.
        a: name of the first method; `b`: of the second.
        adjusted_p: `found.p` after `holm` or `benjamini_hochberg`, where several comparisons were made; it decides.
        matters: the smallest difference that anybody would care for, in the unit of the scores.
        digits: decimals of scores.

    Raises:
        ConfigError: `matters` is not positive, or `adjusted_p` is no p value.

    >>> from trimtab.studies.statistics.comparison import paired_difference
    >>> old = dict(enumerate([0.80, 0.81, 0.79, 0.82, 0.80, 0.78]))
    >>> new = dict(enumerate([0.83, 0.83, 0.83, 0.85, 0.82, 0.82]))
    >>> verdict(paired_difference(new, old), a="residual", b="plain").sentence
    'residual is better than plain by 0.030 [0.022, 0.038] (6 seeds).'
    >>> verdict(paired_difference({1: 0.8, 2: 0.9}, {1: 0.7, 2: 0.9})).outcome
    'not_enough_seeds'
    """
    if not matters > 0:
        raise ConfigError(f"A difference that matters is positive, got {matters}.", where="matters")
    seeds = f"{found.n_a} seeds" if found.paired else f"{found.n_a} and {found.n_b} seeds, not the same"
    neither = f"Not enough seeds to tell whether {a} or {b} is better: "
    if found.low is None or found.high is None or found.sd is None:
        return Verdict(
            "not_enough_seeds", f"{neither}{found.mean:+.{digits}f} with one shared seed; {FEWEST_SEEDS} are the least."
        )
    adjusted = _adjusted(adjusted_p)
    values = f"{found.mean:+.{digits}f} [{found.low:+.{digits}f}, {found.high:+.{digits}f}] ({seeds}){adjusted}"
    fewest, alpha = min(found.n_a, found.n_b), 1 - found.level
    needed = max(seeds_needed(found.sd, matters, alpha=alpha), FEWEST_SEEDS) if found.sd else None
    hint = f"; about {needed} {'' if found.paired else 'of each '}would show {matters:g} in four of five studies"
    if fewest < FEWEST_SEEDS:
        least = f"; {FEWEST_SEEDS} are the least{hint if needed and needed > FEWEST_SEEDS else ''}"
        return Verdict("not_enough_seeds", f"{neither}{values}{least}.", needed)
    leaves_0_out = not found.low <= 0 <= found.high
    if leaves_0_out and _at_most(found.p if adjusted_p is None else adjusted_p, alpha):
        word = "better" if found.mean > 0 else "worse"
        low, high = sorted((abs(found.low), abs(found.high)))
        by = f"{abs(found.mean):.{digits}f} [{low:.{digits}f}, {high:.{digits}f}] ({seeds}){adjusted}"
        little = f", less than the {matters:g} that matters" if high < matters else ""
        return Verdict(word, f"{a} is {word} than {b} by {by}{little}.")
    if leaves_0_out and _at_most(found.p, alpha):
        return Verdict("not_enough_seeds", f"{neither}{values}; {_CHANCE}.")
    none = f"No difference is visible between {a} and {b}: {values}"
    if -matters < found.low and found.high < matters:
        return Verdict("no_difference", f"{none}; {matters:g} or more is ruled out.")
    if needed and needed <= fewest:
        return Verdict("no_difference", f"{none}; one of {matters:g} would have shown in four of five such studies.")
    why = f"; the interval holds {matters:g} and more{hint}" if needed else "; nothing varies, so it takes more seeds"
    return Verdict("not_enough_seeds", f"{neither}{values}{why}.", needed)


def _adjusted(p: float | None) -> str:
    if p is None:
        return ""
    if not 0 <= p <= 1:
        raise ConfigError(f"A p value lies between 0 and 1, got {p}.", where="adjusted_p")
    return f", p = {p:.2g} adjusted for several comparisons"


def _at_most(p: float, alpha: float) -> bool:
    """1 - 0.95 is a little more than 0.05, and so be it."""
    return p <= alpha + 1e-12


def verdict_on_spread(
    found: SpreadRatio,
    *,
    a: str = "A",
    b: str = "B",
    adjusted_p: float | None = None,
    matters: float = 2.0,
    digits: int = 3,
) -> Verdict:
    """Whether a is steadier than b, that is spreads less over seeds, in a sentence; as `verdict`, for the ratio of sds.

    Spread needs many more seeds than means do: with 5 of each not even the F test, which assumes normal scores, tells a
    ratio under 3.1 from 1, and Brown and Forsythe's hardly sees one of 2. The sentence says so.

    Args:
        found: from `variance_ratio`; where one method does not vary at all, its p alone decides.
        adjusted_p: `found.p` after `holm` or `benjamini_hochberg`; it then decides.
        matters: the smallest ratio of standard deviations that anybody would care for, above 1.
        digits: decimals of standard deviations.

    Raises:
        ConfigError: `matters` is not above 1, or `adjusted_p` is no p value.

    >>> from trimtab.studies.statistics.spread import variance_ratio
    >>> found = variance_ratio([0.80, 0.82, 0.81, 0.79, 0.80], [0.80, 0.84, 0.82, 0.78, 0.80])
    >>> verdict_on_spread(found).outcome
    'not_enough_seeds'
    """
    if not 1 < matters < float("inf"):
        raise ConfigError(f"A ratio that matters is above 1, got {matters}.", where="matters", fix="Take 2.")
    adjusted, alpha = _adjusted(adjusted_p), 1 - found.level
    p = found.p if adjusted_p is None else adjusted_p
    values = f"sd {found.sd_a:.{digits}f} against {found.sd_b:.{digits}f}"
    ratio, low, high = found.sd_ratio, found.low or 0.0, found.high if found.high is not None else float("inf")
    varies = bool(found.sd_a and found.sd_b)
    if ratio is not None and varies:
        values += f", ratio {ratio:.2f} [{low:.2f}, {'unbounded' if found.high is None else f'{high:.2f}'}]"
    tested = adjusted or (f", p = {p:.2g}" if p is not None else "")
    values += f" ({found.n_a} and {found.n_b} seeds{tested})"
    fewest, needed = min(found.n_a, found.n_b), seeds_needed_for_ratio(matters, alpha=alpha)
    neither = f"Not enough seeds to tell whether {a} or {b} is steadier: {values}"
    hint = f"; about {needed} of each would show {matters:g} in four of five studies"
    if fewest < FEWEST_SEEDS:
        return Verdict("not_enough_seeds", f"{neither}; {FEWEST_SEEDS} are the least{hint}.", needed)
    if p is None or found.p is None:
        return Verdict("not_enough_seeds", f"{neither}; the scores take too few values to compare their spread.")
    leaves_1_out = high < 1 or low > 1 or (found.sd_a != found.sd_b and not varies)
    if leaves_1_out and _at_most(p, alpha):
        word, phrase = ("better", "steadier") if found.sd_a < found.sd_b else ("worse", "less steady")
        return Verdict(word, f"{a} is {phrase} than {b}: {values}.")
    if leaves_1_out and _at_most(found.p, alpha):
        return Verdict("not_enough_seeds", f"{neither}; {_CHANCE}.")
    none = f"No difference in spread is visible between {a} and {b}: {values}"
    if not found.sd_a and not found.sd_b:
        return Verdict("no_difference", f"{none}; neither varies at all.")
    if 1 / matters < low and high < matters:
        return Verdict("no_difference", f"{none}; a ratio of {matters:g} or more is ruled out.")
    if needed <= fewest:
        return Verdict("no_difference", f"{none}; one of {matters:g} would have shown in four of five such studies.")
    floor = _least_visible_ratio(fewest, alpha)
    least = (
        f"; with {fewest} seeds not even the F test tells ratios under {floor:.1f} from 1" if floor > matters else ""
    )
    return Verdict("not_enough_seeds", f"{neither}{least}{hint}.", needed)


def _least_visible_ratio(n: int, alpha: float) -> float:
    """The ratio of standard deviations from which the two-sided F test says that normal scores differ in spread."""
    from scipy.stats import f

    return float(f.ppf(1 - alpha / 2, n - 1, n - 1)) ** 0.5
