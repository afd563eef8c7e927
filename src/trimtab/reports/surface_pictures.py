"""Landscapes as SVG and PNG for papers, with matplotlib: contours, surfaces in three dimensions, and paths.

No pyplot: figures are objects, so nothing is global and nothing opens a window. The same arrays give the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from trimtab.landscape.surface import Paths, Surface
from trimtab.reports.colors import Scale

FORMATS = ("svg", "png")
MISSING = "No pictures were drawn, as matplotlib is not installed: pip install 'trimtab[figures]', then --redraw."

BRIGHT = 0.6
"""From this share of the scale on, colors are so bright that black is read on them, and below it white."""

_ACROSS = 4
_SIDE = 3.1  # inches of a panel
_LEVELS = 48
_STYLE: Any = {
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "svg.hashsalt": "trimtab",
    "svg.fonttype": "path",
    "figure.dpi": 150.0,
}
_MESH = {"linewidth": 0.3, "edgecolor": (0.0, 0.0, 0.0, 0.18)}
_DOT: Any = {"marker": "o", "color": "white", "markeredgecolor": "black", "markersize": 4, "markeredgewidth": 0.8}
_LINES = ("-", "--", "-.", ":")
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7a5a00", "#56b4e9", "#000000")
"""Okabe and Ito's, safe for color-blind readers; always with a line style."""


def can_draw() -> bool:
    """Whether matplotlib is there."""
    return find_spec("matplotlib") is not None


def contours(surfaces: Sequence[Surface], scale: Scale) -> dict[str, bytes]:
    """Contour maps side by side on one color scale, by format."""
    return _drawn(lambda: _contours(surfaces, scale))


def reliefs(surfaces: Sequence[Surface], scale: Scale) -> dict[str, bytes]:
    """Surfaces in three dimensions side by side, with one color scale and one height, by format."""
    return _drawn(lambda: _reliefs(surfaces, scale))


def curves(paths: Paths, log: bool = False) -> dict[str, bytes]:
    """Losses along the lines between runs, by format; dashed what a straight line between the ends would be."""
    return _drawn(lambda: _curves(paths, log))


def _drawn(draw: Callable[[], Any]) -> dict[str, bytes]:
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        figure = draw()
        found = {}
        for name in FORMATS:
            file = io.BytesIO()
            metadata = {"Creator": "trimtab", "Date": None} if name == "svg" else {"Software": "trimtab"}
            figure.savefig(file, format=name, metadata=metadata, dpi=200)
            found[name] = file.getvalue()
    return found


def _shape(count: int) -> tuple[int, int]:
    """Rows and columns of panels, rows as even as can be: three prompts and the same ones regularized are 2 x 3."""
    rows = -(-count // _ACROSS)
    return rows, -(-count // rows)


def _figure(count: int) -> tuple[Any, int, int]:
    """A figure with room for panels, and their rows and columns."""
    from matplotlib.figure import Figure

    rows, columns = _shape(count)
    return Figure(figsize=(_SIDE * columns + 0.9, _SIDE * rows), layout="constrained"), rows, columns


def _norm(scale: Scale) -> Any:
    from matplotlib.colors import LogNorm, Normalize

    return (LogNorm if scale.log else Normalize)(scale.low, scale.high)


def _levels(scale: Scale) -> np.ndarray:
    if scale.log:
        return np.geomspace(scale.low, scale.high, _LEVELS + 1)
    return np.linspace(scale.low, scale.high, _LEVELS + 1)


def _contours(surfaces: Sequence[Surface], scale: Scale) -> Any:
    figure, rows, columns = _figure(len(surfaces))
    axes, filled = [], None
    for i, its in enumerate(surfaces):
        panel = figure.add_subplot(rows, columns, i + 1)
        axes.append(panel)
        mean = its.mean.clip(scale.low, scale.high)
        filled = panel.contourf(its.x, its.y, mean, levels=_levels(scale), norm=_norm(scale), cmap="viridis")
        filled.set_edgecolor("face")  # else there are gaps between the levels of an SVG
        ticks = _ticks(scale)
        lines = panel.contour(its.x, its.y, mean, levels=ticks, colors=_inks(ticks, scale), linewidths=0.4)
        panel.clabel(lines, fmt=_short, fontsize=5.5)
        halves = (ticks[1:] + ticks[:-1]) / 2
        panel.contour(its.x, its.y, mean, levels=halves, colors=_inks(halves, scale), linewidths=0.2)
        _mark(panel, its)
        _name(panel, its)
        panel.set_box_aspect(1)
    _bar(figure, filled, scale, ax=axes, shrink=0.8)
    return figure


def _reliefs(surfaces: Sequence[Surface], scale: Scale) -> Any:
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    rows, columns = _shape(len(surfaces))
    width, height = _SIDE * columns + 1.0, _SIDE * rows + 0.3
    figure: Any = Figure(figsize=(width, height))  # layouts do not know how much room three dimensions take
    for i, its in enumerate(surfaces):
        row, column = divmod(i, columns)
        place = (_SIDE * column / width, (0.3 + _SIDE * (rows - 1 - row)) / height, _SIDE / width, _SIDE / height)
        panel = figure.add_axes(place, projection="3d")
        mean = its.mean.clip(scale.low, scale.high)
        ends = np.array([scale.low, scale.high])
        heights = np.log10(mean) if scale.log else mean  # matplotlib has no logarithmic axis in three dimensions
        options = {"rcount": len(its.y), "ccount": len(its.x), "shade": False, **_MESH}
        colors = _map()(_norm(scale)(_between(mean)))
        panel.plot_surface(*np.meshgrid(its.x, its.y), heights, facecolors=colors, **options)
        _mark_in_space(panel, its, scale)
        panel.set_zlim(*(np.log10(ends) if scale.log else ends))
        if scale.log:
            panel.zaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{10**v:.2g}"))
        for axis in (panel.xaxis, panel.yaxis, panel.zaxis):
            axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        panel.tick_params(pad=-3, labelsize=6)
        panel.view_init(elev=28, azim=-58)
        panel.set_box_aspect((1, 1, 0.75), zoom=0.84)
        x, y = its.facts["axes"]["x"], its.facts["axes"]["y"]
        panel.set_xlabel(x["name"], labelpad=-5, fontsize=7)
        panel.set_ylabel(y["name"], labelpad=-5, fontsize=7)
        panel.set_title(_title(its), y=0.93)
    unit = surfaces[0].facts["axes"]["x"]["unit"]
    figure.text(0.5, 0.06 / height, f"1 = {unit}; height: mean loss (nats)", ha="center", va="bottom", fontsize=7)
    place = ((width - 0.85) / width, 0.2, 0.13 / width, 0.6)
    _bar(figure, ScalarMappable(_norm(scale), "viridis"), scale, cax=figure.add_axes(place))
    return figure


def _curves(paths: Paths, log: bool) -> Any:
    figure, _, _ = _figure(1)
    figure.set_figwidth(_SIDE * 1.6)
    panel = figure.add_subplot()
    for i, (pair, losses) in enumerate(zip(paths.facts["pairs"], paths.mean, strict=True)):
        look = {"color": _COLORS[i % len(_COLORS)], "linestyle": _LINES[i // len(_COLORS) % len(_LINES)]}
        name = f"{pair['from']} to {pair['to']} (barrier {_short(pair['barrier'])})"
        panel.plot(paths.x, losses, linewidth=1.3, label=name, **look)
        ends = [int(np.abs(paths.x - w).argmin()) for w in (0.0, 1.0)]
        panel.plot(paths.x[ends], losses[ends], linewidth=0.6, linestyle="--", color=look["color"], marker="o", ms=3.5)
    if log:
        panel.set_yscale("log")
    axis = paths.facts["axes"]["x"]
    panel.set_xlabel(f"{axis['name']} (1 = {axis['unit']})")
    panel.set_ylabel("mean loss (nats)")
    panel.grid(linewidth=0.3, color="#cccccc")
    figure.legend(loc="outside lower center", fontsize=6, frameon=False)
    return figure


def _inks(levels: np.ndarray, scale: Scale) -> Any:
    """A color for the line of each level that is seen on the colors beside it."""
    return ["black" if share > BRIGHT else "white" for share in _norm(scale)(levels)] or "black"


def _map() -> Any:
    import matplotlib

    return matplotlib.colormaps["viridis"]


def _mark(panel: Any, its: Surface) -> None:
    """Where runs stand; their letters, where there are several."""
    for mark in its.facts["marks"]:
        panel.plot(mark["x"], mark["y"], **_DOT)
        if len(its.facts["marks"]) > 1:
            panel.annotate(
                mark["name"][:1], (mark["x"], mark["y"]), (4, 4), textcoords="offset points", color="white",
                fontweight="bold", path_effects=_outline(),
            )  # fmt: skip


def _mark_in_space(panel: Any, its: Surface, scale: Scale) -> None:
    """Where runs stand on a surface, in front of all that it hides."""
    for mark in its.facts["marks"]:
        height = min(max(mark["loss"], scale.low), scale.high)
        place = mark["x"], mark["y"], np.log10(height) if scale.log else height
        panel.plot(*([v] for v in place), zorder=10, **_DOT)
        if len(its.facts["marks"]) > 1:
            panel.text(*place, f"  {mark['name'][:1]}", zorder=11, fontsize=7, color="white", path_effects=_outline())


def _between(values: np.ndarray) -> np.ndarray:
    """The mean of the four corners of every cell [Y-1,N-1], so that a cell has the color of its height."""
    return (values[1:, 1:] + values[1:, :-1] + values[:-1, 1:] + values[:-1, :-1]) / 4


def _outline() -> list[Any]:
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=1.5, foreground="black")]


def _name(panel: Any, its: Surface) -> None:
    x, y = its.facts["axes"]["x"], its.facts["axes"]["y"]
    panel.set_xlabel(f"{x['name']}\n(1 = {x['unit']})")
    panel.set_ylabel(f"{y['name']}\n(1 = {y['unit']})")
    panel.set_title(_title(its))


def _title(its: Surface) -> str:
    """The run, or the runs, and their losses."""
    marks = its.facts["marks"]
    if len(marks) > 1:
        return "\n".join(f"{m['name']} ({_short(m['loss'])})" for m in marks)
    return f"{its.facts['label']}\nloss {_short(marks[0]['loss'])}"


def _bar(figure: Any, mappable: Any, scale: Scale, **place: Any) -> None:
    """What the colors stand for."""
    from matplotlib.ticker import FuncFormatter

    bar = figure.colorbar(mappable, ticks=_ticks(scale), format=FuncFormatter(_short), **place)
    bar.ax.minorticks_off()
    bar.solids.set_edgecolor("face")
    bar.set_label("mean loss (nats)" + (", logarithmic" if scale.log else ""))


def _ticks(scale: Scale) -> np.ndarray:
    """Round losses within the scale."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    locator = LogLocator(subs=(1.0, 2.0, 5.0)) if scale.log else MaxNLocator(8, steps=[1, 2, 2.5, 5, 10])
    found = np.asarray(locator.tick_values(scale.low, scale.high))
    return found[(found > scale.low) & (found < scale.high)]


def _short(value: float, _: Any = None) -> str:
    """A loss in few digits."""
    return f"{value:.3g}"


def named(files: Mapping[str, bytes], stem: str) -> dict[str, bytes]:
    """Files by their names."""
    return {f"{stem}.{suffix}": content for suffix, content in files.items()}
