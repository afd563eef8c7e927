"""The section "Stability": shown where runs were measured, with the numbers that lie in their folders."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable

import pytest

from tests.unit.reports.conftest import Report
from trimtab.reports.stability import about, axis_of, brief, correlations, sharpness, stability_section, told_rho

Written = Callable[[str], Report]


def test_it_stands_where_runs_were_measured_and_nowhere_else(written: Written) -> None:
    report = written("landscapes")
    assert '<h2 id="stability">Stability</h2>' in report.html
    assert "## Stability" in (report.folder / "report.md").read_text()
    other = written("lengths")
    assert 'id="stability"' not in other.html
    assert "## Stability" not in (other.folder / "report.md").read_text()


def test_every_line_is_a_dot_in_every_plot(written: Written) -> None:
    html = written("landscapes").html
    for measure, n in ((0, 5), (1, 5)):
        for side in ("sd", "mean"):
            start = html.index(f'aria-labelledby="stability-0-{measure}-{side}-title')
            plot = html[start : html.index("</svg></div>", start)]
            assert plot.count('class="point"') == n
            assert plot.count("<title>arm") == n
    assert html.index("top eigenvalue, prompt") > html.index("top eigenvalue, texts")


def test_the_tables_have_the_numbers_of_the_runs(written: Written) -> None:
    (group,) = written("landscapes").facts["stability"]
    rows = {row[0].text: row for row in sharpness(group).rows}
    assert list(rows) == [f"arm {i}" for i in range(5)]
    names = [c.name for c in sharpness(group).columns]
    assert rows["arm 2"][names.index("top eigenvalue, texts")].text == "2 ± 0.001"
    assert rows["arm 2"][1].text == "3 of 3"
    assert rows["arm 0"][names.index("max − min, prompt")].text == "–"
    found = {row[0].text: row for row in correlations(group).rows}
    assert (found["top eigenvalue, texts"][1].text, found["top eigenvalue, texts"][1].note) == ("+1.00", "")
    assert found["top eigenvalue, texts"][2].text == "+0.90"
    low, high = found["top eigenvalue, texts"][2].note.strip("[]").replace("−", "-").split(", ")
    assert float(low) < 0.9 < float(high)
    assert (found["top eigenvalue, prompt"][1].text, found["top eigenvalue, prompt"][1].note) == ("−1.00", "")
    assert found["top eigenvalue, prompt"][3].text == "4"
    assert found["max − min, prompt"][1].text == "–"  # it does not vary


def test_runs_csv_has_them_too(written: Written) -> None:
    rows = list(csv.DictReader(io.StringIO((written("landscapes").folder / "runs.csv").read_text())))
    one = next(r for r in rows if r["line"] == "arm 3" and r["seed.init"] == "2")
    assert float(one["sharpness.text.top_eigenvalue"]) == pytest.approx(20.002)
    assert next(r for r in rows if r["line"] == "arm 5")["sharpness.text.top_eigenvalue"] == ""


def test_tasks_have_plots_of_their_own(written: Written) -> None:
    (group,) = written("landscapes").facts["stability"]
    parts = "".join(str(p) for p in stability_section([{**group, "task": "a"}, {**group, "task": "b"}]) if p)
    assert "<h3>a</h3>" in parts
    assert "<h3>b</h3>" in parts
    assert 'id="stability-1-scatter"' in parts
    assert "24 examples" in about(group)
    assert "no cause" in about(group)


def test_axes_hold_their_dots() -> None:
    for values in ([0.2], [0.0, 0.0], [1e-5, 3.0], [-2.0, 5.0], [1e-6, 1.1e-6], [4.0, 4.4]):
        axis = axis_of(values)
        assert all(-1e-6 <= axis.at(v) <= 1 + 1e-6 for v in values), values
        assert len(axis.ticks) >= 2
    assert axis_of([1e-5, 3.0]).log


def test_correlations_in_words() -> None:
    full = {"rho": -0.5, "low": -0.9, "high": 0.1, "n": 7}
    assert told_rho(full) == "ρ = −0.50 [−0.900, +0.100], 7 lines"
    assert told_rho({**full, "low": None, "high": None, "n": 4}) == "ρ = −0.50, without bounds, 4 lines"
    assert "all are equal" in told_rho({**full, "rho": None})
    assert "Fewer than 3" in told_rho(None)
    assert brief(-0.00012345) == "−0.000123"
