"""Two methods side by side: how much better one is, and how often.

Pure functions of scores, one per seed, in whatever unit; larger is better. Swapping the methods turns differences and
their intervals around exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimtab.errors import DataError
from trimtab.studies.statistics.bootstrap import (
    Interval,
    Strata,
    by_task,
    finite,
    generator,
    in_fixed_order,
    percentiles,
    resampled,
    sample_sd,
    widened_tail,
)


@dataclass(frozen=True)
class Difference:
    """Mean score of a less that of b, in the unit of the scores.

    `sd` is what `seeds_needed` takes: that of the differences by seed where `paired`, else of a less b for one run of
    each. `p_t` is None where the test is not defined, as the scores do not vary. `left_out` seeds had no partner.
    """

    mean: float
    low: float | None
    high: float | None
    sd: float | None
    p_t: float | None
    p_wilcoxon: float
    n_a: int
    n_b: int
    left_out: int
    paired: bool
    level: float

    @property
    def p(self) -> float:
        """The t test's, else Wilcoxon's: with 5 seeds Wilcoxon's signed-rank test never comes under 0.0625."""
        return self.p_wilcoxon if self.p_t is None else self.p_t


def difference(
    a: Mapping[Any, float],
    b: Mapping[Any, float],
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Difference:
    """`paired_difference` where two seeds or more are shared, `unpaired_difference` of all seeds elsewhere."""
    if len(a.keys() & b.keys()) > 1:
        return paired_difference(a, b, level=level, resamples=resamples, seed=seed)
    return unpaired_difference(list(a.values()), list(b.values()), level=level, resamples=resamples, seed=seed)


def paired_difference(
    a: Mapping[Any, float],
    b: Mapping[Any, float],
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Difference:
    """Mean of a less b over the seeds that both have.

    Pairs share whatever the seed decides (examples, their order, initial values), which is then no part of the spread.
    The interval is the widened bootstrap of `bootstrap_interval`, with seeds drawn as pairs. `p_t` is the two-sided
    paired t test. `p_wilcoxon` is the signed-rank test (Wilcoxon 1945): zero differences are dropped, equal ones share
    their rank, and p is exact at any number of seeds, by counting all signs. Differences that are equal up to rounding
    (1e-12 of the largest score) are equal. A single shared seed has a mean and no interval.

    Raises:
        DataError: no seed is shared; a score that is no finite number.
        ConfigError: `level` or `resamples` out of range.

    >>> found = paired_difference({0: 0.9, 1: 0.8, 2: 0.7}, {0: 0.8, 1: 0.8, 2: 0.5, 3: 0.1})
    >>> round(found.mean, 3), found.n_a, found.left_out, found.p_wilcoxon
    (0.1, 3, 1, 0.5)
    """
    rng = generator(seed, level, resamples)
    shared = a.keys() & b.keys()
    if not shared:
        raise DataError(
            f"A paired difference needs seeds that both methods have; got {_listed(a)} and {_listed(b)}.",
            fix="Run both methods with the same seeds, or compare them with `unpaired_difference`.",
        )
    pairs = [(a[s], b[s]) for s in shared]
    finite([score for pair in pairs for score in pair], where="paired difference")
    d = np.sort(_without_rounding(np.array(pairs)))
    turned = _side(d)  # so that swapping the methods turns the interval around
    low = high = sd = None
    if len(d) > 1:
        draws = resampled(np.sort(turned * d), resamples, rng).mean(axis=1)
        low, high = sorted(turned * end for end in percentiles(draws, widened_tail(level, len(d), 1)))
        sd = float(sample_sd(d))
    return Difference(
        mean=float(np.clip(d.mean(), d[0], d[-1])),
        low=low,
        high=high,
        sd=sd,
        p_t=_paired_t(d),
        p_wilcoxon=signed_rank_p(d),
        n_a=len(d),
        n_b=len(d),
        left_out=len(a) + len(b) - 2 * len(d),
        paired=True,
        level=level,
    )


def _side(d: np.ndarray) -> int:
    """The sign of the mean; where that is 0 up to rounding, of what is not symmetric about 0. Other units, or what both
    methods gain, do not change it."""
    least = 1e-9 * float(np.abs(d).max())
    lopsided = np.sort(d) - np.sort(-d)
    clear = [v for v in (float(d.mean()), *lopsided.tolist()) if abs(v) > least]
    return -1 if clear and clear[0] < 0 else 1


def _listed(scores: Mapping[Any, float]) -> str:
    seeds = sorted(map(str, scores))
    return f"seeds {', '.join(seeds[:5])}{' ...' if len(seeds) > 5 else ''}" if seeds else "no seeds"


def _without_rounding(pairs: np.ndarray) -> np.ndarray:
    """Differences, rounded where floating point makes 0.9 - 0.8 and 0.8 - 0.7 differ."""
    scale = np.abs(pairs).max() or 1.0
    return np.asarray(np.round((pairs[:, 0] - pairs[:, 1]) / scale, 12) * scale)


def _paired_t(d: np.ndarray) -> float | None:
    """Two-sided p of the mean being 0; 1 where all are 0, None where they are equal or there is but one."""
    from scipy.stats import t

    if not d.any():
        return 1.0
    if len(d) < 2 or d[0] == d[-1]:
        return None
    return float(2 * t.sf(abs(d.mean()) / (float(sample_sd(d)) / len(d) ** 0.5), len(d) - 1))


def signed_rank_p(d: np.ndarray) -> float:
    """Two-sided p of Wilcoxon's signed-rank test, from the distribution of the rank sum over all 2^n signs.

    The distribution is built rank by rank, so n may be hundreds; `scipy.stats.wilcoxon` is exact without ties only.
    """
    from scipy.stats import rankdata

    d = d[d != 0]
    doubled = np.rint(2 * rankdata(np.abs(d))).astype(int)  # ranks of ties are halves
    chances = np.ones(1)
    for rank in doubled:
        chances = (np.pad(chances, (0, rank)) + np.pad(chances, (rank, 0))) / 2
    above = int(doubled[d > 0].sum())
    return min(1.0, 2 * float(min(chances[: above + 1].sum(), chances[above:].sum())))


def unpaired_difference(
    a: Sequence[float],
    b: Sequence[float],
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Difference:
    """Mean of a less mean of b, for runs that share no seeds.

    The interval is a bootstrap that draws runs of each method, widened for n_a + n_b - 2 degrees of freedom; `p_t` is
    Welch's t test and `p_wilcoxon` the rank-sum test (Mann & Whitney 1947), exact for few runs without ties.

    Raises:
        DataError: fewer than two scores of either, or one that is no finite number.
        ConfigError: `level` or `resamples` out of range.

    >>> found = unpaired_difference([0.9, 0.8, 0.7], [0.5, 0.6])
    >>> round(found.mean, 3), found.p_wilcoxon
    (0.25, 0.2)
    """
    from scipy.stats import mannwhitneyu

    rng = generator(seed, level, resamples)
    first, second, swapped = in_fixed_order(finite(a, least=2, where="a"), finite(b, least=2, where="b"))
    turned, alike = -1 if swapped else 1, first[0] == second[-1] and second[0] == first[-1]
    base = min(first[0], second[0])  # without it, rounding would tell equal scores apart
    draws = resampled(first - base, resamples, rng).mean(axis=1) - resampled(second - base, resamples, rng).mean(axis=1)
    low, high = sorted(turned * e for e in percentiles(draws, widened_tail(level, len(first) + len(second), 2)))
    return Difference(
        mean=turned * float((first - base).mean() - (second - base).mean()),
        low=low,
        high=high,
        sd=float(sample_sd(first) ** 2 + sample_sd(second) ** 2) ** 0.5,
        p_t=1.0 if alike else _welch_t(first, second),
        p_wilcoxon=1.0 if alike else float(mannwhitneyu(first, second).pvalue),
        n_a=len(a),
        n_b=len(b),
        left_out=0,
        paired=False,
        level=level,
    )


def _welch_t(a: np.ndarray, b: np.ndarray) -> float | None:
    """Two-sided p of equal means; None where neither varies. Scipy's warns where one does not: collapsed runs."""
    from scipy.stats import t

    parts = [float(sample_sd(scores)) ** 2 / len(scores) for scores in (a, b)]  # squared standard errors
    if not any(parts):
        return None
    df = sum(parts) ** 2 / sum(part**2 / (len(scores) - 1) for part, scores in zip(parts, (a, b), strict=True))
    return float(2 * t.sf(abs(a.mean() - b.mean()) / sum(parts) ** 0.5, df))


def probability_of_improvement(
    a: Strata, b: Strata, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Chance that a run of a scores above a run of b, on average over tasks; equal scores count half.

    Per task it is `U / (n_a n_b)`, U the statistic of Mann & Whitney 1947: the share of pairs that a wins (Agarwal et
    al. 2021, arXiv 2108.13264, section 4.3). The interval redraws runs of each method within each task; where a wins
    all pairs it is [1, 1], which few seeds do not bear out.

    Raises:
        DataError: the tasks of a and b are not the same; fewer than two scores of a task; a score that is no finite
            number.
        ConfigError: `level` or `resamples` out of range.

    >>> probability_of_improvement([0.9, 0.7], [0.8, 0.7]).estimate
    0.625
    """
    rng = generator(seed, level, resamples)
    of_a, of_b = by_task(a, least=2), by_task(b, least=2)
    if of_a.keys() != of_b.keys():
        alone = ", ".join(sorted(task or "a task without a name" for task in of_a.keys() ^ of_b.keys()))
        raise DataError(f"Both methods need scores of the same tasks; only one has {alone}.")
    shares, draws = [], []
    for task in sorted(of_a):
        first, second, swapped = in_fixed_order(of_a[task], of_b[task])
        wins = (first[:, None] > second) + 0.5 * (first[:, None] == second)
        m, n = wins.shape
        often = [rng.multinomial(k, [1 / k] * k, size=resamples) for k in (m, n)]  # how often each run is drawn
        drawn, share = ((often[0] @ wins) * often[1]).sum(axis=1) / (m * n), wins.mean()
        shares.append(1 - share if swapped else share)
        draws.append(1 - drawn if swapped else drawn)
    low, high = percentiles(np.mean(draws, axis=0), (1 - level) / 2)
    return Interval(float(np.mean(shares)), low, high, level)
