"""Numbers as people read them. A missing one is a dash."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from trimtab.sizes import of_memory, of_time

Real = float | int

DASH = "–"
MINUS = "−"


def score(value: Real | None, digits: int = 3) -> str:
    """A score.

    >>> score(0.12345), score(None), score(-0.5)
    ('0.123', '–', '−0.500')
    """
    return DASH if value is None else f"{value:.{digits}f}".replace("-", MINUS)


def signed(value: Real | None, digits: int = 3) -> str:
    """A difference, always with its sign."""
    return DASH if value is None else f"{value:+.{digits}f}".replace("-", MINUS)


def bounds(low: Real | None, high: Real | None, *, sign: bool = False) -> str:
    """An interval; a bound that is not there is unbounded.

    >>> bounds(0.1, 0.25), bounds(-0.1, 0.2, sign=True), bounds(0.0, None)
    ('[0.100, 0.250]', '[−0.100, +0.200]', '[0.000, ∞]')
    """
    if low is None and high is None:
        return DASH
    show = signed if sign else score
    return f"[{f'{MINUS}∞' if low is None else show(low)}, {'∞' if high is None else show(high)}]"


def bounds_if_any(low: Real | None, high: Real | None, *, sign: bool = False) -> str:
    """The same for small print: empty where there is no lower bound."""
    return "" if low is None else bounds(low, high, sign=sign)


def between(found: Mapping[str, Any] | None) -> str:
    """The interval of an estimate for small print; empty where there is no estimate."""
    return bounds(found["low"], found["high"]) if found else ""


def interval(found: Mapping[str, Any] | None, *, sign: bool = False) -> str:
    """An estimate with its interval."""
    if not found:
        return DASH
    return f"{(signed if sign else score)(found['estimate'])} {bounds(found['low'], found['high'], sign=sign)}"


def mean_sd(mean: Real | None, sd: Real | None) -> str:
    """`0.437 ± 0.031`; one run has no spread."""
    return score(mean) if sd is None else f"{score(mean)} ± {score(sd)}"


def p_value(value: Real | None) -> str:
    """A p value.

    >>> p_value(0.0312), p_value(0.00001), p_value(1.0)
    ('0.031', '< 0.001', '1.000')
    """
    if value is None:
        return DASH
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def share(value: Real | None) -> str:
    """A share in whole percent."""
    return DASH if value is None else f"{100 * value:.0f} %"


def count(value: Real | None) -> str:
    """A whole number with thin groups.

    >>> count(208528), count(None)
    ('208,528', '–')
    """
    return DASH if value is None else f"{value:,.0f}"


def duration(seconds: Real | None) -> str:
    """A measured time."""
    return DASH if seconds is None else of_time(seconds, tenths=True)


def size(value: Real | None) -> str:
    """Bytes of memory."""
    return DASH if value is None else of_memory(value)


def prose(text: str) -> str:
    """A sentence with proper minus signs and no powers of ten.

    >>> prose("by -0.047 [-0.073, -0.016] with nano-3"), prose("p = 9.7e-06 adjusted")
    ('by −0.047 [−0.073, −0.016] with nano-3', 'p < 0.001 adjusted')
    """
    text = re.sub(r"\bp = \d(\.\d+)?e-\d+", "p < 0.001", text)
    return re.sub(r"(?<![\w-])-(?=\d)", MINUS, text)
