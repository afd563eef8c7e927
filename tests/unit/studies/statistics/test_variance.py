"""Variance components, against sums of squares by hand, known components, and how often intervals hold them."""

from __future__ import annotations

import random
import statistics
from dataclasses import asdict
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.refusals import refused
from trimtab.errors import ConfigError, DataError
from trimtab.studies.statistics.variance import variance_components

Table = list[tuple[dict[str, int | str], float]]


def crossing(scores: dict[tuple, float] | list[list[float]], names: str = "init order") -> Table:
    """Rows are the first factor, columns the second."""
    if isinstance(scores, list):
        scores = {(i, j): y for i, row in enumerate(scores) for j, y in enumerate(row)}
    return [(dict(zip(names.split(), cell, strict=False)), y) for cell, y in scores.items()]


def drawn(
    draw: random.Random, levels: dict[str, int], sds: dict[str, float], repeats: int = 1, noise: float = 1.0
) -> Table:
    """A crossing with known standard deviations of factors, and of interactions by 'a x b'."""
    effects = {
        source: {cell: draw.gauss(0, sd) for cell in product(*(range(levels[name]) for name in source.split(" x ")))}
        for source, sd in sds.items()
    }
    table: Table = []
    for cell in product(*map(range, levels.values())):
        at = dict(zip(levels, cell, strict=True))
        fixed = sum(e[tuple(at[name] for name in source.split(" x "))] for source, e in effects.items())
        table += [(dict(at), fixed + draw.gauss(0, noise)) for _ in range(repeats)]
    return table


def named(table: Table, *factors: str, **options) -> dict:
    found = variance_components(table, list(factors) or None, **options)
    return {c.source: c for c in found.components}


TWO_WAY = [[0.70, 0.74, 0.78], [0.80, 0.86, 0.85], [0.60, 0.71, 0.70], [0.77, 0.75, 0.82]]


def test_two_factors_and_one_run_per_cell_are_the_two_way_table_of_a_textbook() -> None:
    found = named(crossing(TWO_WAY))
    rows = [statistics.fmean(row) for row in TWO_WAY]
    columns = [statistics.fmean(column) for column in zip(*TWO_WAY, strict=True)]
    grand = statistics.fmean(rows)
    ms_rows = 3 * sum((m - grand) ** 2 for m in rows) / 3
    ms_columns = 4 * sum((m - grand) ** 2 for m in columns) / 2
    ms_rest = sum((TWO_WAY[i][j] - rows[i] - columns[j] + grand) ** 2 for i in range(4) for j in range(3)) / 6
    assert list(found) == ["init", "order", "residual"]
    assert [c.df for c in found.values()] == [3, 2, 6]
    assert [c.mean_square for c in found.values()] == pytest.approx([ms_rows, ms_columns, ms_rest])
    expected = [(ms_rows - ms_rest) / 3, (ms_columns - ms_rest) / 4, ms_rest]
    assert [c.variance for c in found.values()] == pytest.approx(expected)
    assert [c.share for c in found.values()] == pytest.approx([v / sum(expected) for v in expected])
    assert [c.sd for c in found.values()] == pytest.approx([v**0.5 for v in expected])
    assert not any(c.truncated for c in found.values())


def test_repeats_part_the_interaction_from_the_residual() -> None:
    cells = {
        (0, 0): [1.0, 3.0],
        (0, 1): [4.0, 4.0],
        (1, 0): [6.0, 8.0],
        (1, 1): [1.0, 5.0],
        (2, 0): [9.0, 7.0],
        (2, 1): [7.0, 9.0],
    }
    table = [({"init": i, "order": j}, y) for (i, j), ys in cells.items() for y in ys]
    means = {cell: sum(ys) / 2 for cell, ys in cells.items()}
    rows = [(means[i, 0] + means[i, 1]) / 2 for i in range(3)]
    columns = [sum(means[i, j] for i in range(3)) / 3 for j in range(2)]
    grand = sum(rows) / 3
    ms_row = 4 * sum((m - grand) ** 2 for m in rows) / 2
    ms_column = 6 * sum((m - grand) ** 2 for m in columns)
    ms_both = 2 * sum((means[i, j] - rows[i] - columns[j] + grand) ** 2 for i, j in cells) / 2
    ms_rest = sum((y - means[cell]) ** 2 for cell, ys in cells.items() for y in ys) / 6
    found = variance_components(table)
    assert [c.source for c in found.components] == ["init", "order", "init x order", "residual"]
    assert [c.df for c in found.components] == [2, 1, 2, 6]
    assert [c.mean_square for c in found.components] == pytest.approx([ms_row, ms_column, ms_both, ms_rest])
    raw = [(ms_row - ms_both) / 4, (ms_column - ms_both) / 6, (ms_both - ms_rest) / 2, ms_rest]
    assert [c.variance for c in found.components] == pytest.approx([max(0, v) for v in raw])
    assert [c.truncated for c in found.components] == [v < 0 for v in raw] == [False, True, False, False]
    assert (found.runs, found.repeats, found.residual_holds) == (12, 2, "what differs between runs of one cell")


def test_one_factor_with_several_runs_is_the_one_way_table() -> None:
    groups = [[1.0, 2.0, 3.0], [4.0, 6.0, 5.0], [9.0, 8.0, 10.0], [2.0, 2.0, 5.0]]
    found = named([({"init": f"seed {i}"}, y) for i, g in enumerate(groups) for y in g])
    between = 3 * statistics.variance([sum(g) / 3 for g in groups])
    within = statistics.fmean(statistics.variance(g) for g in groups)
    assert found["init"].variance == pytest.approx((between - within) / 3)
    assert found["residual"].variance == pytest.approx(within)
    assert [c.df for c in found.values()] == [3, 8]


def test_factors_that_are_not_named_are_part_of_the_residual() -> None:
    table = crossing(TWO_WAY)
    assert named(table, "init") == named([({"init": levels["init"]}, y) for levels, y in table])
    assert list(named(table, "order", "init")) == ["order", "init", "residual"]


def test_nested_seeds_need_no_common_names() -> None:
    """Three subsets, four initial values in each, all different, two runs of each; sums of squares by loops."""
    draw = random.Random(0)
    data = {(s, f"{s}-{i}"): [draw.gauss(s, 1) for _ in range(2)] for s in range(3) for i in range(4)}
    table = [({"subset": s, "init": i}, y) for (s, i), ys in data.items() for y in ys]
    found = variance_components(table, ["subset", "init"], nested=True)
    inner = {key: statistics.fmean(ys) for key, ys in data.items()}
    outer = {s: statistics.fmean(m for (t, _), m in inner.items() if t == s) for s in range(3)}
    grand = statistics.fmean(outer.values())
    ms = [
        8 * sum((m - grand) ** 2 for m in outer.values()) / 2,
        2 * sum((m - outer[s]) ** 2 for (s, _), m in inner.items()) / 9,
        sum((y - inner[key]) ** 2 for key, ys in data.items() for y in ys) / 12,
    ]
    assert [c.source for c in found.components] == ["subset", "init within subset", "residual"]
    assert [c.df for c in found.components] == [2, 9, 12]
    assert [c.mean_square for c in found.components] == pytest.approx(ms)
    raw = [(ms[0] - ms[1]) / 8, (ms[1] - ms[2]) / 2, ms[2]]
    assert [c.variance for c in found.components] == pytest.approx([max(0, v) for v in raw])
    renamed = [({"subset": lv["subset"], "init": str(lv["init"])[2:]}, y) for lv, y in table]
    assert asdict(variance_components(renamed, ["subset", "init"], nested=True)) == asdict(found)
    assert variance_components(renamed, ["subset", "init"]).components[1].df == 3  # crossed


def test_the_innermost_of_nested_seeds_is_the_residual_where_each_has_one_run() -> None:
    table = [({"subset": s, "init": 10 * s + i}, float(s * i + i * i)) for s in range(3) for i in range(4)]
    found = variance_components(table, nested=True)
    assert [c.source for c in found.components] == ["subset", "residual"]
    assert found.residual_holds.startswith("init within subset, and what would differ")
    assert variance_components(crossing(TWO_WAY)).residual_holds.startswith("init x order, and")


def test_estimates_of_three_crossed_factors_are_right_on_average() -> None:
    """Unbiased before truncation; all components large enough to be truncated seldom."""
    draw = random.Random(1)
    sds = {"init": 3.0, "order": 2.0, "noise": 2.5, "init x order": 1.5, "init x noise": 1.5, "order x noise": 1.5}
    tables = [drawn(draw, {"init": 6, "order": 5, "noise": 4}, sds, repeats=2, noise=0.5) for _ in range(150)]
    found = [named(table, resamples=100) for table in tables]
    assert list(found[0]) == [*sds, "init x order x noise", "residual"]
    for source, sd in {**sds, "init x order x noise": 0.0, "residual": 0.5}.items():
        estimates = [f[source].variance for f in found]
        error = statistics.stdev(estimates) / 150**0.5
        assert statistics.fmean(estimates) == pytest.approx(sd**2, abs=4 * error + 0.01), source
    assert sum(f["init x order x noise"].truncated for f in found) > 30


def test_interactions_are_not_handed_to_the_factors() -> None:
    """Without variance of its own a factor gets little, however large its interactions with the others are."""
    draw = random.Random(2)
    tables = [drawn(draw, {"init": 4, "order": 4, "noise": 4}, {"init x order": 3.0}) for _ in range(60)]
    found = [named(table, resamples=100) for table in tables]
    assert statistics.median(f["init"].variance for f in found) < 1.0
    assert statistics.fmean(f["init x order"].variance for f in found) == pytest.approx(9, rel=0.2)


@pytest.mark.parametrize(("init", "order"), [(0.0, 1.0), (2.0, 1.0)])
def test_intervals_hold_the_true_components_and_shares_about_as_often_as_they_say(init: float, order: float) -> None:
    draw, hits = random.Random(3), {"init": 0, "order": 0, "residual": 0, "share": 0}
    for _ in range(250):
        found = named(drawn(draw, {"init": 5, "order": 4}, {"init": init, "order": order}), resamples=500)
        for source, variance in (("init", init**2), ("order", order**2), ("residual", 1.0)):
            hits[source] += found[source].low <= variance <= found[source].high
        share = init**2 / (init**2 + order**2 + 1)
        hits["share"] += found["init"].share_low <= share <= found["init"].share_high
    assert all(h / 250 > 0.9 for h in hits.values()), hits
    assert hits["residual"] < 250


def test_the_interval_of_the_residual_is_the_exact_one() -> None:
    """d MS / chi-squared quantiles: with 12 degrees of freedom these are 4.404 and 23.337."""
    found = named(drawn(random.Random(0), {"init": 5, "order": 4}, {"init": 1.0}), resamples=100_000)["residual"]
    assert found.low == pytest.approx(12 * found.mean_square / 23.337, rel=0.02)
    assert found.high == pytest.approx(12 * found.mean_square / 4.404, rel=0.02)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=12, max_size=12), st.randoms())
def test_units_means_names_and_order_do_not_matter(counts: list[int], draw: random.Random) -> None:
    cells = list(product(range(3), range(4)))
    plain = named(crossing({cell: c / 50 for cell, c in zip(cells, counts, strict=True)}), resamples=100)
    table = [({"init": f"i{9 - i}", "order": -j}, 2.0 * c + 7) for (i, j), c in zip(cells, counts, strict=True)]
    draw.shuffle(table)
    other = named(table, "init", "order", resamples=100)
    for source, found in plain.items():
        assert other[source].variance == pytest.approx(1e4 * found.variance, abs=1e-8)
        assert other[source].high == pytest.approx(1e4 * found.high, abs=1e-8)
        if found.share is not None:
            assert 0 <= found.share <= 1
            assert other[source].share == pytest.approx(found.share, abs=1e-9)
    if len(set(counts)) > 1:
        assert sum(c.share for c in plain.values()) == pytest.approx(1.0)
        assert all(c.share_low <= c.share_high for c in plain.values())


def test_scores_that_do_not_vary_have_no_shares() -> None:
    for component in named(crossing([[0.1] * 3] * 2)).values():
        assert (component.variance, component.low, component.high, component.truncated) == (0.0, 0.0, 0.0, False)
        assert (component.share, component.share_low, component.share_high) == (None, None, None)


def test_a_seed_gives_the_same_intervals() -> None:
    once, again, other = (variance_components(crossing(TWO_WAY), resamples=200, seed=s) for s in (0, 0, 1))
    assert once == again != other
    narrow = named(crossing(TWO_WAY), level=0.5)["residual"]
    wide = named(crossing(TWO_WAY))["residual"]
    assert wide.low < narrow.low < narrow.high < wide.high
    assert {type(v) for c in asdict(once)["components"] for v in c.values()} <= {str, float, int, bool}


# Tables that cannot be split


def test_missing_cells_are_named() -> None:
    table = crossing(TWO_WAY)
    with refused(DataError, "all 12 cells; 2 have none: (init 0, order 2), (init 3, order 1).", fix="Run them"):
        variance_components([row for row in table if row[0] not in ({"init": 0, "order": 2}, {"init": 3, "order": 1})])
    diagonal = [({"init": i, "order": i}, 0.5) for i in range(4)]
    named_ones = "(init 0, order 1), (init 0, order 2), (init 0, order 3), (init 1, order 0)"
    with refused(DataError, f"12 have none: {named_ones}", fix="fewer `factors`"):
        variance_components(diagonal[2:] + diagonal[:2])
    with refused(DataError, " and 6 more.", fix="Run them"):
        variance_components(diagonal)
    words = [({"init": i, "order": o}, 0.5) for i, o in ((10, "b"), (2, "a"), ("x", "a"))]
    with refused(DataError, "none: (init 2, order b), (init 10, order a), (init x, order b).", fix="Run them"):
        variance_components(words)


def test_unequal_numbers_of_runs_are_named() -> None:
    table = crossing(TWO_WAY)
    with refused(DataError, "some have 2, fewer have (init 0, order 1), (init 0, order 2),", fix="surplus"):
        variance_components([*table, table[0]])
    with refused(DataError, "some have 3, fewer have (init 2).", fix="Run the missing ones"):
        variance_components([({"init": i}, 0.5 * j) for i in range(3) for j in range(3) if (i, j) != (2, 2)])


def test_unbalanced_nestings_are_named() -> None:
    table = [({"subset": s, "init": 10 * s + i}, 0.1 * i) for s in range(3) for i in range(4)]
    with refused(DataError, "levels of init in each subset; some have 4, fewer have (subset 1).", fix="surplus"):
        variance_components([row for row in table if row[0]["init"] != 12], nested=True)
    with refused(DataError, "With one init in each subset nothing tells the two apart.", fix="Leave init out"):
        variance_components([({"subset": s, "init": s}, 0.1 * r) for s in range(3) for r in range(2)], nested=True)


def test_factors_that_show_nothing_are_refused() -> None:
    table = crossing(TWO_WAY)
    with refused(DataError, "At least one factor needed, got none.", fix="level of each factor"):
        variance_components([])
    with refused(DataError, "At least one factor needed", fix="level of each factor"):
        variance_components(table, [])
    with refused(DataError, "No run says its 'ordre'.", fix="Did you mean 'order'?"):
        variance_components(table, ["init", "ordre"])
    with refused(DataError, "Run 1 does not say its 'order', others do.", fix="name `factors`"):
        variance_components([table[0], ({"init": 1}, 0.5)])
    with refused(DataError, "All runs have the noise 13, so nothing shows how much it matters.", fix="further levels"):
        variance_components([({**levels, "noise": 13}, y) for levels, y in table])
    with refused(DataError, "With one run for each init nothing tells it from the rest.", fix="several times"):
        variance_components([({"init": i}, 0.1 * i) for i in range(5)])
    with refused(DataError, "finite number, got nan", fix="diverged"):
        variance_components([*table[1:], (table[0][0], float("nan"))])
    with refused(ConfigError, "at least 100 resamples", fix="10000"):
        variance_components(table, resamples=1)
