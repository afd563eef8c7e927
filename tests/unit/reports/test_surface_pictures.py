"""Pictures for papers: labelled, on one scale, and the same bytes from the same arrays."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="needs matplotlib: pip install 'trimtab[figures]'")

from PIL import Image

from tests.unit.reports.made_landscapes import paths, surface
from trimtab.reports import surface_pictures
from trimtab.reports.colors import Scale, shared_scale
from trimtab.reports.surface_pictures import FORMATS, contours, curves, reliefs

Draw = Callable[..., dict[str, bytes]]
SCALE = Scale(0.5, 6.5)
PAIR = [surface("a"), surface("b", bend=2.0)]


def figure_of(draw: str, *arguments: Any) -> Any:
    """The figure before it becomes a file."""
    return getattr(surface_pictures, f"_{draw}")(*arguments)


def texts(figure: Any) -> str:
    """All that a figure says."""
    from matplotlib.text import Text

    return " | ".join(t.get_text() for t in figure.findobj(Text) if t.get_text())


@pytest.mark.parametrize("draw", [contours, reliefs])
@pytest.mark.parametrize("log", [False, True])
def test_a_picture_is_svg_and_png_and_always_the_same(draw: Draw, log: bool) -> None:
    scale = shared_scale([s.mean for s in PAIR], log)
    first, second = draw(PAIR, scale), draw(PAIR, scale)
    assert tuple(first) == FORMATS
    assert first["svg"] == second["svg"]
    assert first["png"] == second["png"]
    assert first["svg"].startswith(b"<?xml")
    image = Image.open(io.BytesIO(first["png"]))
    assert image.width > 1000
    assert len(np.unique(np.asarray(image.convert("L")))) > 50


@pytest.mark.parametrize("name", ["contours", "reliefs"])
def test_axes_say_what_they_are_and_in_which_unit(name: str) -> None:
    said = texts(figure_of(name, PAIR, SCALE))
    for part in ("along the gradient", "along a random direction", "1 = norm of the texts' embeddings",
                 "mean loss (nats)", "a\nloss 0.5", "b\nloss 0.5"):  # fmt: skip
        assert part in said
    assert "logarithmic" not in said
    assert "logarithmic" in texts(figure_of(name, PAIR, Scale(0.5, 6.5, log=True)))


@pytest.mark.parametrize("name", ["contours", "reliefs"])
def test_surfaces_share_their_scale(name: str) -> None:
    figure = figure_of(name, PAIR, SCALE)
    bar = figure.axes[-1]
    assert bar.get_ylim() == (0.5, 6.5)
    if name == "reliefs":
        heights = [axes.get_zlim() for axes in figure.axes if hasattr(axes, "get_zlim")]
        assert len(heights) == 2
        assert heights[0] == heights[1]


def test_contours_are_drawn_where_the_losses_are() -> None:
    (panel, _) = figure_of("contours", [PAIR[0]], shared_scale([PAIR[0].mean])).axes
    lines = panel.collections[1]
    assert list(lines.levels) == [1.0, 1.5, 2.0, 2.5, 3.0]
    ring = next(p for level, p in zip(lines.levels, lines.get_paths(), strict=True) if level == 1.5)
    x, y = ring.vertices.T
    np.testing.assert_allclose(x**2 + 2 * y**2 + 0.5, 1.5, atol=0.08)  # between grid points


def test_lines_are_white_on_dark_colors_and_black_on_bright_ones() -> None:
    (panel, _) = figure_of("contours", [surface("a", bend=2.0)], SCALE).axes
    for lines in panel.collections[1:3]:
        inks = {level: ink[:3].mean() for level, ink in zip(lines.levels, lines.get_edgecolor(), strict=True)}
        assert min(inks) < 2.0 < 5.0 < max(inks)
        assert all(ink == (1.0 if level < 0.5 + 0.6 * 6 else 0.0) for level, ink in inks.items())


@pytest.mark.parametrize("log", [False, True])
def test_every_cell_of_a_relief_has_the_color_of_its_height(log: bool) -> None:
    from matplotlib import colormaps

    scale = shared_scale([PAIR[1].mean], log)
    (panel, _) = figure_of("reliefs", [PAIR[1]], scale).axes
    z = PAIR[1].mean
    cells = (z[1:, 1:] + z[1:, :-1] + z[:-1, 1:] + z[:-1, :-1]).ravel() / 4
    shares = (np.log(cells / scale.low) / np.log(scale.high / scale.low)) if log else (cells - 0.5) / 6
    found, expected = panel.collections[0].get_facecolor(), colormaps["viridis"](shares)
    for i in range(3):  # cells are drawn from back to front
        np.testing.assert_allclose(np.sort(found[:, i]), np.sort(expected[:, i]), atol=0.02)


def test_runs_are_marked_on_reliefs() -> None:
    for log in (False, True):
        (panel, _) = figure_of("reliefs", [surface("a", view="plane", marks=3)], Scale(0.5, 6.5, log)).axes
        dots = [tuple(float(v[0]) for v in line.get_data_3d()) for line in panel.lines]
        heights = np.log10([0.5, 1.5, 1.25]) if log else [0.5, 1.5, 1.25]
        assert dots == [pytest.approx(p) for p in zip([0, 1, 0.5], [0, 0, 0.5], heights, strict=True)]
        assert [t.get_text().strip() for t in panel.texts] == ["A", "B", "C"]


def test_a_surface_without_any_height_can_be_drawn() -> None:
    flat = replace(PAIR[0], losses=np.full_like(PAIR[0].losses, 0.3))
    for log in (False, True):
        assert contours([flat], shared_scale([flat.mean], log))["png"]


def test_runs_are_marked_and_named() -> None:
    plane = surface("a", view="plane", marks=3)
    said = texts(figure_of("contours", [plane], SCALE))
    for part in ("A: a (0.5)", "B: a (1.5)", "C: a (1.25)"):
        assert part in said
    (panel, _) = figure_of("contours", [plane], SCALE).axes
    dots = [tuple(float(v[0]) for v in line.get_data()) for line in panel.lines]
    assert dots == [(0.0, 0.0), (1.0, 0.0), (0.5, 0.5)]


def test_paths_show_losses_ends_and_barriers() -> None:
    its = paths("a", ["b", "c"])
    assert tuple(curves(its)) == FORMATS
    figure = figure_of("curves", its, False)
    (panel,) = figure.axes
    np.testing.assert_allclose(panel.lines[0].get_ydata(), its.mean[0])
    assert panel.lines[1].get_xdata().tolist() == [0.0, 1.0]
    said = texts(figure)
    for part in ("a to b (barrier 0.75)", "a to c (barrier 0.75)", "mean loss (nats)", "distance of the two"):
        assert part in said
    assert panel.get_yscale() == "linear"
    assert figure_of("curves", its, True).axes[0].get_yscale() == "log"


def test_a_loss_of_zero_can_be_drawn_on_a_logarithmic_scale() -> None:
    zero = replace(PAIR[0], losses=PAIR[0].losses - PAIR[0].losses.min())
    scale = shared_scale([zero.mean], log=True)
    for draw in (contours, reliefs):
        assert draw([zero], scale)["png"]


@pytest.mark.parametrize("draw", [contours, reliefs])
def test_many_runs_take_several_even_rows(draw: Draw) -> None:
    four, six = (
        Image.open(io.BytesIO(draw([surface(f"r{i}") for i in range(count)], SCALE)["png"])) for count in (4, 6)
    )
    assert six.height > 1.8 * four.height
    assert six.width < 0.85 * four.width


def test_drawing_leaves_no_trace_in_pyplot() -> None:
    code = (
        "import sys; from tests.unit.reports.made_landscapes import surface; "
        "from trimtab.reports.surface_pictures import Scale, contours; contours([surface('a')], Scale(0.5, 6.5)); "
        "print([m for m in ('matplotlib.pyplot', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"
