"""Figures as inline SVG that fits any width without scaling its text: positions across are percentages, heights pixels.

Colors are classes `s0` to `s7` (safe for color-blind readers), always together with a shape; see report.css.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trimtab.reports.markup import Html, el, number, percent
from trimtab.reports.numbers import Real, score, share

SHAPES = (
    "M-4 0A4 4 0 1 0 4 0A4 4 0 1 0 -4 0Z",
    "M-3.6-3.6H3.6V3.6H-3.6Z",
    "M0-4.8L4.6 3.6H-4.6Z",
    "M0-5.2L5.2 0L0 5.2L-5.2 0Z",
    "M0 4.8L4.6-3.6H-4.6Z",
    "M-1.5-4.5H1.5V-1.5H4.5V1.5H1.5V4.5H-1.5V1.5H-4.5V-1.5H-1.5Z",
    "M-4.5 0L-2.2-4.2H2.2L4.5 0L2.2 4.2H-2.2Z",
    "M0-5L1.5-1.6L5-1.2L2.4 1.2L3.1 4.6L0 2.8L-3.1 4.6L-2.4 1.2L-5-1.2L-1.5-1.6Z",
)
COLORS = len(SHAPES)
CROSS = "M-3.5-3.5L3.5 3.5M-3.5 3.5L3.5-3.5"
CLOSE = 0.018
"""Dots nearer than this share of the width step aside."""


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high` onto [0, 1], with ticks."""

    low: Real
    high: Real
    ticks: tuple[Real, ...]
    log: bool = False

    def at(self, value: Real) -> Real:
        """Where a value lies."""
        low, high, v = (
            (math.log10(x) for x in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        )
        return (v - low) / (high - low)


def linear(values: Sequence[Real], *, many: int = 5, least: Real = 0.02) -> Axis:
    """An axis with round ticks around values; never narrower than `least`.

    >>> linear([0.31, 0.44]).ticks
    (0.3, 0.35, 0.4, 0.45)
    """
    low, high = min(values), max(values)
    if high - low < least:
        low, high = (low + high - least) / 2, (low + high + least) / 2
    raw = (high - low) / many
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(m * unit for m in (1, 2, 2.5, 5, 10) if m * unit >= raw * 0.999)
    low = max(low, 0.0) if min(values) >= 0 else low
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(round(i * step, 10) for i in range(first, last + 1))
    return Axis(ticks[0], ticks[-1], ticks)


def logarithmic(values: Sequence[Real]) -> Axis:
    """An axis for positive values on which equal factors are equally far; the ticks are the values."""
    low, high = min(values), max(values)
    room = (high / low) ** 0.04 if high > low else 2.0
    return Axis(low / room, high * room, tuple(sorted(set(values))), log=True)


def tick_text(value: Real) -> str:
    """A tick.

    >>> tick_text(0.35), tick_text(0.0003), tick_text(100.0), tick_text(0.05)
    ('0.35', '3e-4', '100', '0.05')
    """
    if value and abs(value) < 0.001:
        mantissa, _, exponent = f"{value:.10g}".partition("e")
        if not exponent:
            power = math.floor(math.log10(abs(value)))
            mantissa, exponent = f"{value / 10**power:g}", str(power)
        return f"{mantissa}e{int(exponent)}".replace("e-", "e-")
    return f"{value:g}"


@dataclass(frozen=True)
class Dots:
    """A row of a dot plot: `dots` are (score, words, sort), sort being `plain`, `collapsed` or `imputed`."""

    label: str
    note: str
    value: str
    dots: Sequence[tuple[Real, str, str]]
    mean: Real | None
    low: Real | None
    high: Real | None
    marks: Mapping[str, Real | None] = field(default_factory=dict)


def dot_rows(slug: str, rows: Sequence[Dots], axis: Axis) -> Html:
    """Dots above, mean with interval below, baselines as lines through all: an image per row and a shared axis."""
    parts = [_dot_row(f"{slug}-{i}", row, axis) for i, row in enumerate(rows)]
    return el("div", parts, _axis_row(axis), class_="rows")


def _dot_row(slug: str, row: Dots, axis: Axis) -> Html:
    height = 46
    shapes: list[Html] = _grid(axis, height)
    for name, value in row.marks.items():
        if value is not None and axis.low <= value <= axis.high:
            x = percent(axis.at(value))
            shapes.append(el("line", x1=x, x2=x, y1=0, y2=height, class_=f"mark-{name}"))
    if row.low is not None and row.high is not None:
        ends = {"x1": percent(axis.at(row.low)), "x2": percent(axis.at(row.high))}
        shapes.append(el("line", **ends, y1=34, y2=34, class_="interval"))
        shapes += [el("line", x1=e, x2=e, y1=30, y2=38, class_="interval-end") for e in ends.values()]
    if row.mean is not None:
        shapes.append(_at(percent(axis.at(row.mean)), 34, el("path", d=SHAPES[3], class_="mean")))
    places = _aside([axis.at(value) for value, _, _ in row.dots])
    for (value, words, sort), offset in zip(row.dots, places, strict=True):
        x, y, tip = percent(axis.at(value)), 15 + 5.5 * offset, el("title", words)
        if sort == "imputed":
            shapes.append(_at(x, y, el("path", tip, d=CROSS, class_="dot imputed")))
        else:
            shapes.append(el("circle", tip, cx=x, cy=y, r=4, class_=f"dot {sort}"))
    title = f"{row.label}: {row.value}"
    about = "; ".join(words for _, words, _ in row.dots) or "no runs"
    if row.low is not None:
        about += f". Mean {score(row.mean)}, 95 % interval {score(row.low)} to {score(row.high)}"
    plot = image(slug, title, about, shapes, height)
    label = el(
        "div", el("span", row.label, class_="name"), el("small", row.note) if row.note else None, class_="row-label"
    )
    return el("div", label, el("div", row.value, class_="row-value"), el("div", plot, class_="row-plot"), class_="row")


def _aside(places: Sequence[Real]) -> list[int]:
    """For each dot 0, -1 or 1: which of three rows it takes so as not to hide its neighbors."""
    last: dict[int, Real] = {}
    found = [0] * len(places)
    for i in sorted(range(len(places)), key=lambda j: places[j]):
        free = [row for row in (0, -1, 1) if places[i] - last.get(row, -1.0) >= CLOSE]
        found[i] = free[0] if free else min(last, key=lambda row: last[row])
        last[found[i]] = places[i]
    return found


def _grid(axis: Axis, height: Real) -> list[Html]:
    xs = (percent(axis.at(t)) for t in axis.ticks)
    return [el("line", x1=x, x2=x, y1=0, y2=height, class_="grid") for x in xs]


def _axis_row(axis: Axis) -> Html:
    ticks = [el("text", tick_text(t), x=percent(axis.at(t)), y=14, text_anchor="middle") for t in axis.ticks]
    plot = el("svg", ticks, class_="plot", height=18, aria_hidden="true")
    return el("div", el("div", class_="row-label"), el("div", class_="row-value"), el("div", plot, class_="row-plot"),
              class_="row axis", aria_hidden="true")  # fmt: skip


@dataclass(frozen=True)
class Bar:
    """A share with its interval."""

    label: str
    note: str
    share: Real
    low: Real | None
    high: Real | None
    color: int


def bar_rows(slug: str, bars: Sequence[Bar]) -> Html:
    """Shares of a whole as bars with intervals."""
    axis = Axis(0.0, 1.0, (0.0, 0.25, 0.5, 0.75, 1.0))
    rows = []
    for i, bar in enumerate(bars):
        shapes = _grid(axis, 26)
        shapes.append(
            el("rect", x=0, y=6, width=percent(bar.share), height=14, rx=2, class_=f"bar s{bar.color % COLORS}")
        )
        if bar.low is not None and bar.high is not None:
            ends = percent(bar.low), percent(bar.high)
            shapes.append(el("line", x1=ends[0], x2=ends[1], y1=13, y2=13, class_="whisker"))
            shapes += [el("line", x1=e, x2=e, y1=9, y2=17, class_="whisker") for e in ends]
        about = f"{share(bar.share)} of the variance, 95 % interval {share(bar.low)} to {share(bar.high)}"
        plot = image(f"{slug}-{i}", bar.label, about, shapes, 26)
        label = el(
            "div", el("span", bar.label, class_="name"), el("small", bar.note) if bar.note else None, class_="row-label"
        )
        rows.append(el("div", label, el("div", share(bar.share), class_="row-value"),
                       el("div", plot, class_="row-plot"), class_="row slim"))  # fmt: skip
    ticks = [el("text", share(t), x=percent(t), y=14, text_anchor="middle") for t in axis.ticks]
    last = el("div", el("div", class_="row-label"), el("div", class_="row-value"),
              el("div", el("svg", ticks, class_="plot", height=18, aria_hidden="true"), class_="row-plot"),
              class_="row axis", aria_hidden="true")  # fmt: skip
    return el("div", rows, last, class_="rows")


@dataclass(frozen=True)
class Series:
    """A curve: `points` are (x, y); `whiskers` (x, low, high); `ring` the x of the point that was chosen."""

    label: str
    color: int
    points: Sequence[tuple[Real, Real]]
    whiskers: Sequence[tuple[Real, Real, Real]] = ()
    ring: Real | None = None
    marks: bool = True
    faint: bool = False


def panel(
    slug: str,
    title: str,
    about: str,
    series: Sequence[Series],
    x: Axis,
    y: Axis,
    height: int = 260,
    x_name: str = "",
    dots: Sequence[tuple[Real, Real]] = (),
) -> Html:
    """Curves over an axis; faint ones are drawn first, as context. `dots` are marked above all."""

    def up(value: Real) -> Real:
        return height * (1 - y.at(value))

    shapes: list[Any] = []
    for t in y.ticks:
        shapes.append(el("line", x1=0, x2="100%", y1=up(t), y2=up(t), class_="grid"))
        shapes.append(el("text", tick_text(t), x=-8, y=up(t) + 4, text_anchor="end"))
    for place, t in _spaced(x):
        shapes.append(el("line", x1=percent(place), x2=percent(place), y1=height, y2=height + 4, class_="tick"))
        shapes.append(el("text", tick_text(t), x=percent(place), y=height + 17, text_anchor="middle"))
    drawn = sorted(series, key=lambda s: not s.faint)
    behind = sum(s.faint for s in series)
    for i, s in enumerate(drawn, -behind):
        kind = f"s{s.color % COLORS}{' dashed' if s.color >= COLORS else ''}{' faint' if s.faint else ''}"
        nudge = 3.0 * (i - (len(drawn) - behind - 1) / 2) if s.whiskers else 0.0  # whiskers beside each other
        moved = {"style": f"transform:translateX({number(nudge)}px)"} if nudge else {}
        d = "M" + "L".join(f"{number(1000 * x.at(a))} {number(up(b))}" for a, b in s.points)
        line = el("path", d=d, class_="curve", vector_effect="non-scaling-stroke")
        inside: list[Any] = []
        if len(s.points) > 1:
            inside.append(el("svg", line, viewBox=f"0 0 1000 {height}", preserveAspectRatio="none", width="100%",
                             height=height, overflow="visible", role="none"))  # fmt: skip
        for a, low, high in s.whiskers:
            at = percent(x.at(a))
            inside.append(el("line", x1=at, x2=at, y1=up(low), y2=up(high), class_="spread"))
        if s.marks:
            for a, b in s.points:
                tip = el("title", f"{s.label}, {tick_text(a)}: {score(b)}")
                mark = [el("path", tip, d=SHAPES[s.color % COLORS], class_="point")]
                if s.ring is not None and a == s.ring:
                    mark.append(el("circle", r=8.5, class_="ring"))
                inside.append(_at(percent(x.at(a)), up(b), mark))
        shapes.append(el("g", inside, class_=f"series {kind}", **moved))
    shapes += [el("circle", cx=percent(x.at(a)), cy=up(b), r=2.75, class_="point s0") for a, b in dots]
    if x_name:
        shapes.append(el("text", x_name, x="100%", y=height + 34, text_anchor="end", class_="axis-name"))
    return el("div", image(slug, title, about, shapes, height), class_="plot-box" + (" named" if x_name else ""))


def _spaced(x: Axis) -> list[tuple[Real, Real]]:
    """Ticks that do not touch, first and last kept."""
    places = [(x.at(t), t) for t in x.ticks]
    kept = places[:1]
    for place in places[1:]:
        if place[0] - kept[-1][0] >= 0.11:
            kept.append(place)
    return kept


def legend(series: Sequence[Series]) -> Html:
    """Names of curves with their color and shape."""
    items = []
    for s in series:
        mark = el("path", d=SHAPES[s.color % COLORS], class_="point")
        swatch = el("svg", el("g", el("line", x1=-11, x2=11, y1=0, y2=0, class_="curve"), mark,
                              class_=f"series s{s.color % COLORS}{' dashed' if s.color >= COLORS else ''}"),
                    viewBox="-12 -8 24 16", width=24, height=16, aria_hidden="true")  # fmt: skip
        items.append(el("li", swatch, el("span", s.label)))
    return el("ul", items, class_="legend")


def key_of_dots(names: Mapping[str, str]) -> Html:
    """What the marks of a dot plot mean; `names` of those that occur."""
    drawings = {
        "plain": el("circle", r=4, class_="dot plain"),
        "collapsed": el("circle", r=4, class_="dot collapsed"),
        "imputed": el("path", d=CROSS, class_="dot imputed"),
        "mean": [el("line", x1=-11, x2=11, y1=0, y2=0, class_="interval"), el("path", d=SHAPES[3], class_="mean")],
        "majority": el("line", x1=0, x2=0, y1=-8, y2=8, class_="mark-majority"),
        "no_prompt": el("line", x1=0, x2=0, y1=-8, y2=8, class_="mark-no_prompt"),
    }
    items = [
        el(
            "li",
            el("svg", drawings[k], viewBox="-12 -8 24 16", width=24, height=16, aria_hidden="true"),
            el("span", said),
        )
        for k, said in names.items()
    ]
    return el("ul", items, class_="legend")


def image(slug: str, title: str, about: str, shapes: Sequence[Any], height: int) -> Html:
    """An SVG with a name and a description."""
    names = f"{slug}-title {slug}-desc"
    texts = [el("title", title, id=f"{slug}-title"), el("desc", about, id=f"{slug}-desc")]
    return el("svg", texts, shapes, class_="plot", height=height, role="img", aria_labelledby=names)


def _at(x: str, y: Real, shape: Any) -> Html:
    """A shape around a place that is given in percent."""
    return el("svg", shape, x=x, y=y, overflow="visible", width=1, height=1, role="none")
