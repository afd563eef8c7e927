"""P values of many comparisons at once: what is still a finding where much was tried. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from trimtab.errors import DataError


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values that keep the chance of any false finding at the level (Holm 1979).

    In ascending order `adjusted_i = max(adjusted_(i-1), min(1, (m - i + 1) p_i))` for i = 1 ... m; returned in the
    order given. Nothing is assumed of how the comparisons depend on each other.

    Raises:
        DataError: a p value outside [0, 1].

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    return _adjusted(p_values, lambda p: np.maximum.accumulate(p * np.arange(len(p), 0, -1)))


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values that keep the expected share of false ones among the findings (Benjamini & Hochberg 1995).

    In ascending order `adjusted_i = min(adjusted_(i+1), m p_i / i)`; returned in the order given. It holds for
    comparisons that are independent or positively dependent, as those with one baseline are.

    Raises:
        DataError: a p value outside [0, 1].

    >>> benjamini_hochberg([0.01, 0.04, 0.03])
    [0.03, 0.04, 0.04]
    """
    return _adjusted(p_values, lambda p: np.minimum.accumulate((p * len(p) / np.arange(1, len(p) + 1))[::-1])[::-1])


def _adjusted(p_values: Sequence[float], adjust: Callable[[np.ndarray], np.ndarray]) -> list[float]:
    p = np.asarray(p_values, dtype=np.float64)
    wrong = p[~((p >= 0) & (p <= 1))]
    if len(wrong):
        raise DataError(f"A p value lies between 0 and 1, got {wrong[0]}.", fix="Leave out tests that are not defined.")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(adjust(p[order]), 1.0)
    return adjusted.tolist()
