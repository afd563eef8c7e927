"""Axes, places and shapes of figures."""

from __future__ import annotations

import re

import pytest

from trimtab.reports.charts import Axis, Bar, Dots, Series, _aside, bar_rows, dot_rows, linear, logarithmic, panel
from trimtab.reports.markup import el, number


@pytest.mark.parametrize(
    "values", [[0.5], [0.31, 0.44], [0.0, 1.0], [-3.2, 7.9], [0.25, 0.25], [0.0, 0.0], [1e-9, 2e-9]]
)
def test_a_linear_axis_holds_its_values(values: list[float]) -> None:
    axis = linear(values)
    assert axis.low <= min(values)
    assert axis.high >= max(values)
    assert 2 <= len(axis.ticks) <= 8
    assert min(values) < 0 or axis.low >= 0  # scores are not negative


def test_a_logarithmic_axis_keeps_factors() -> None:
    axis = logarithmic([0.001, 0.01, 0.1])
    steps = [axis.at(v) for v in (0.001, 0.01, 0.1)]
    assert steps[1] - steps[0] == pytest.approx(steps[2] - steps[1])
    assert 0 < steps[0] < steps[2] < 1


def test_dots_that_are_close_step_aside() -> None:
    assert _aside([0.1, 0.5, 0.9]) == [0, 0, 0]
    assert sorted(_aside([0.5, 0.5, 0.5])) == [-1, 0, 1]
    assert len(_aside([0.5] * 7)) == 7


def test_a_dot_plot_draws_every_run_where_it_belongs() -> None:
    dots = [(0.25, "seed 0", "imputed"), (0.5, "seed 1", "plain"), (0.75, "seed 2", "collapsed")]
    row = Dots("line", "", "0.5", dots, 0.5, 0.3, 0.7, {"majority": 0.25, "no_prompt": None})
    html = dot_rows("d", [row], Axis(0.0, 1.0, (0.0, 1.0)))
    assert html.count("<circle") == 2
    assert 'cx="50%"' in html
    assert 'cx="75%"' in html
    assert html.count('class="dot imputed"') == 1
    assert 'x1="30%" x2="70%"' in html
    assert html.count("mark-majority") == 1
    assert "mark-no_prompt" not in html


def test_a_panel_has_curves_marks_and_whiskers() -> None:
    x, y = logarithmic([0.001, 0.1]), Axis(0.0, 1.0, (0.0, 0.5, 1.0))
    series = [Series("a", 0, [(0.001, 0.2), (0.1, 0.8)], [(0.1, 0.7, 0.9)], ring=0.1)]
    html = panel("p", "title", "about", series, x, y, 100)
    (path,) = re.findall(r'd="(M[^"]*L[^"]*)" class="curve"', html)
    assert [float(v) for v in re.findall(r" (\d+)", path)] == [80.0, 20.0]  # up is small
    assert html.count('class="ring"') == 1
    assert html.count('class="spread"') == 1
    assert '<title id="p-title">title</title><desc id="p-desc">about</desc>' in html


def test_a_single_point_is_a_mark_without_a_curve() -> None:
    html = panel("p", "t", "a", [Series("a", 0, [(1.0, 0.5)])], linear([1.0, 2.0]), linear([0.4, 0.6]), 100)
    assert "curve" not in html
    assert html.count('class="point"') == 1


def test_bars_have_their_share_as_width() -> None:
    html = bar_rows("b", [Bar("init", "sd 0.1", 0.4, 0.1, 0.9, 0)])
    assert 'width="40%"' in html
    assert 'x1="10%" x2="90%"' in html


def test_a_coordinate_that_is_not_finite_raises() -> None:
    with pytest.raises(ValueError, match="finite"):
        number(float("nan"))


def test_raw_text_of_scripts_is_left_alone_and_other_text_is_not() -> None:
    assert el("script", "a < b && c") == "<script>a < b && c</script>"
    assert el("p", "a < b", title='"') == '<p title="&quot;">a &lt; b</p>'


def test_whiskers_of_several_curves_stand_beside_each_other_but_context_moves_nothing() -> None:
    x, y = linear([1.0, 2.0]), linear([0.4, 0.6])
    curves = [Series(name, i, [(1.0, 0.5)], [(1.0, 0.4, 0.6)]) for i, name in enumerate("ab")]
    moved = re.findall(r"translateX\((-?[\d.]+)px\)", panel("p", "t", "a", curves, x, y, 100))
    assert moved == ["-1.5", "1.5"]
    context = Series("b", 1, [(1.0, 0.5)], marks=False, faint=True)
    assert "translateX" not in panel("p", "t", "a", [context, curves[0]], x, y, 100)
