"""Which of two methods is steadier: the ratio of their spreads over seeds.

Pure functions of scores, one per seed, in whatever unit. Swapping the methods inverts ratios and bounds exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trimtab.studies.statistics.bootstrap import finite, generator, in_fixed_order, percentiles, resampled, sample_sd


@dataclass(frozen=True)
class SpreadRatio:
    """Standard deviation of a over that of b; below 1, a is steadier.

    `low` and `high` belong to `sd_ratio`; None is unbounded, and the ratio itself is None where b does not vary. `p` is
    Brown and Forsythe's, None where their test is not defined. `note` says why something is None.
    """

    sd_a: float
    sd_b: float
    sd_ratio: float | None
    low: float | None
    high: float | None
    variance_ratio: float | None
    variance_low: float | None
    variance_high: float | None
    p: float | None
    n_a: int
    n_b: int
    level: float
    note: str = ""


def variance_ratio(
    a: Sequence[float], b: Sequence[float], *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> SpreadRatio:
    """How the spread over seeds of a compares to that of b, as a ratio of standard deviations and of variances.

    The interval is a percentile bootstrap that draws runs of each method; draws in which neither varies say nothing and
    are dropped. Of intervals that say 95 %, 92 to 96 % hold the ratio of normal scores with 5 to 20 seeds. `p` is the
    test of Brown & Forsythe 1974 (Levene's with medians): an analysis of variance of |score - median of its method|,
    which stands skewed scores where the F test does not.

    Raises:
        DataError: fewer than two scores of either, or one that is no finite number.
        ConfigError: `level` or `resamples` out of range.

    >>> found = variance_ratio([0.80, 0.82, 0.81, 0.79, 0.80], [0.80, 0.84, 0.82, 0.78, 0.80])
    >>> round(found.sd_ratio, 2), round(found.variance_ratio, 2), round(found.p, 2)
    (0.5, 0.25, 0.37)
    """
    rng = generator(seed, level, resamples)
    first, second, swapped = in_fixed_order(finite(a, least=2, where="a"), finite(b, least=2, where="b"))
    over, under = (sample_sd(resampled(scores, resamples, rng)) for scores in (first, second))
    sds = float(sample_sd(first)), float(sample_sd(second))
    if swapped:
        over, under, sds = under, over, sds[::-1]
    ratio, low, high, note = sds[0] / sds[1] if sds[1] else None, None, None, ""
    p = _brown_forsythe_p(first, second)
    if not any(sds):
        note = "neither method varies over seeds, so there is no ratio"
    elif not all(sds):
        low, note = 0.0, f"{'a' if sds[1] else 'b'} does not vary over seeds, so nothing bounds the ratio"
    else:
        says = (over > 0) | (under > 0)
        with np.errstate(divide="ignore"):
            low, bound = percentiles(over[says] / under[says], (1 - level) / 2)
        high = bound if bound < np.inf else None
    if p is None:
        note = note or "all scores are equally far from the median of their method, so the test is not defined"
    return SpreadRatio(
        sd_a=sds[0],
        sd_b=sds[1],
        sd_ratio=ratio,
        low=low,
        high=high,
        variance_ratio=None if ratio is None else ratio**2,
        variance_low=None if low is None else low**2,
        variance_high=None if high is None else high**2,
        p=p,
        n_a=len(a),
        n_b=len(b),
        level=level,
        note=note,
    )


def _brown_forsythe_p(a: np.ndarray, b: np.ndarray) -> float | None:
    """1 where neither varies; None where deviations do not vary within the methods, as F is then infinite or 0 / 0."""
    from scipy.stats import levene

    if a[0] == a[-1] and b[0] == b[-1]:
        return 1.0
    scale = max(abs(a).max(), abs(b).max())
    if all(np.ptp(abs(scores - np.median(scores))) <= 1e-12 * scale for scores in (a, b)):
        return None
    return float(levene(a, b, center="median").pvalue)
