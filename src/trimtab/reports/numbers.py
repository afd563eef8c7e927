"""Numbers as people read them. A missing one is a dash."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from trimtab.sizes import of_memory

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
    """Seconds, minutes or hours.

    >>> duration(3.21), duration(75), duration(7300), duration(200000)
    ('3.2 s', '1 min 15 s', '2 h 1 min', '55 h 33 min')
    """
    if seconds is None:
        return DASH
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


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
