"""HTML and SVG as a tree of calls; whatever is not markup already is escaped, so no text can become markup."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape
from typing import Any

from trimtab.reports.numbers import Real

_VOID = {"meta", "link", "br", "wbr", "hr"}
_RAW = {"style", "script"}


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def el(tag: str, *children: Any, **attributes: Any) -> Html:
    """An element. `class_` is class, underscores are hyphens; None and False leave an attribute out, True is bare.

    >>> el("p", "a < b", el("b", "c"), class_="x", aria_label='"q"', hidden=False)
    '<p class="x" aria-label="&quot;q&quot;">a &lt; b<b>c</b></p>'
    >>> el("circle", cx="3%", stroke_width=1.50)
    '<circle cx="3%" stroke-width="1.5"></circle>'
    """
    shown = "".join(
        f" {_name(n)}" if value is True else f' {_name(n)}="{escape(_text(value))}"'
        for n, value in attributes.items()
        if value is not None and value is not False
    )
    if tag in _VOID:
        return Html(f"<{tag}{shown}>")
    return Html(f"<{tag}{shown}>{join(children, raw=tag in _RAW)}</{tag}>")


def join(children: Iterable[Any], *, raw: bool = False) -> Html:
    """Children one after the other; lists are flattened, None is nothing."""
    parts: list[str] = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, list | tuple):
            parts.append(join(child, raw=raw))
        elif isinstance(child, Html) or raw:
            parts.append(child)
        else:
            parts.append(escape(_text(child), quote=False))
    return Html("".join(parts))


def _name(name: str) -> str:
    return name.rstrip("_").replace("_", "-")


def _text(value: Any) -> str:
    return number(value) if isinstance(value, float) else str(value)


def number(value: Real) -> str:
    """A coordinate: two places, no trailing zeros.

    >>> number(1.5), number(2.0), number(-0.001)
    ('1.5', '2', '0')
    """
    if not math.isfinite(value):
        raise ValueError(f"a coordinate is a finite number, got {value}")
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def percent(share: Real) -> str:
    """A share of a width as a coordinate.

    >>> percent(0.25)
    '25%'
    """
    return f"{number(100 * share)}%"
