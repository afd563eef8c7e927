"""The figures of a study report: each with a caption, a name and a description, and its data as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.metric_names import metric_name
from trimtab.reports import charts, curve_tables, tables
from trimtab.reports.charts import Axis, Bar, Dots, Series
from trimtab.reports.html_tables import confusion_table, html_table
from trimtab.reports.markup import Html, el
from trimtab.reports.numbers import Real, mean_sd, score

Facts = Mapping[str, Any]

OVERLAID = 6
"""More curves than these get a panel each, the others faint behind."""
BESIDE = 6
"""More panels than these are folded away."""


def figure(
    slug: str, caption: str, about: str, body: Any, data: Any = None, named: str = "Data of this figure"
) -> Html:
    """A figure with its data behind a summary."""
    head = el("figcaption", caption, el("span", about), id=f"{slug}-caption")
    more = el("details", el("summary", named), data) if data else None
    return el("figure", head, body, more, id=slug, aria_labelledby=f"{slug}-caption")


def seed_dots(facts: Facts) -> Html:
    """Every run of the chosen settings as a dot."""
    lines = [line for line in tables.ranked(facts) if line["n"]]
    values = [s["test"] for line in lines for s in line["scores"]]
    values += [line[k] for line in lines for k in ("majority", "no_prompt") if line[k] is not None]
    axis = charts.linear(values)
    rows, sorts = [], set()
    for line in lines:
        dots = [(s["test"], _dot_words(s), _sort(s)) for s in line["scores"]]
        sorts |= {sort for _, _, sort in dots}
        its = line["mean_interval"] or {"low": None, "high": None}
        rows.append(Dots(line["label"], line["setting"], mean_sd(line["mean"], line["sd"]), dots, line["mean"],
                         its["low"], its["high"], {k: line[k] for k in ("majority", "no_prompt")}))  # fmt: skip
    names = {
        "plain": "a run",
        "collapsed": "a collapsed run",
        "imputed": "a run without result, as the constant answer",
    }
    key = {k: v for k, v in names.items() if k in sorts}
    key["mean"] = "mean with 95 % interval"
    key |= {k: v for k, v in (("no_prompt", "no prompt"), ("majority", "majority class"))
            if any(line[k] is not None for line in lines)}  # fmt: skip
    body = [charts.key_of_dots(key), charts.dot_rows("dots", rows, axis)]
    about = f"Test {tables.metric(facts)}, a dot for each seed. Intervals are bootstrapped over seeds."
    return figure("dots", "Every seed", about, body, html_table("seeds-data", tables.seeds(facts)))


def _sort(s: Facts) -> str:
    return "imputed" if s["imputed"] else "collapsed" if s["collapsed"] else "plain"


def _dot_words(s: Facts) -> str:
    extra = {"plain": "", "collapsed": ", collapsed", "imputed": f", {s['status']}: the constant answer"}[_sort(s)]
    return f"seed {s['seed']}: {score(s['test'])}{extra}"


def rate_curves(facts: Facts, index: int) -> Html:
    """Scores over the learning rates of the grid."""
    grid = facts["rates"][index]
    slug = f"rates-{index}"
    data = [
        html_table(f"{slug}-data", curve_tables.points(f"Scores over {grid['axis']}", "Rate", grid["curves"])),
    ]
    about = (
        "Mean test score over seeds at each rate; the thin lines reach from the worst seed to the best, a ring marks "
        "the rate that was chosen on dev."
    )
    name = grid["axis"].removeprefix("training.").replace("_", " ")
    return _along(slug, f"Scores over {name}", about, grid["curves"], True, data, name)


def length_curves(facts: Facts) -> Html:
    """Scores over prompt lengths."""
    curves = facts["lengths"]
    values = [p["value"] for c in curves for p in c["points"]]
    log = min(values) > 0 and max(values) / min(values) >= 8
    about = "Mean test score over seeds; the thin lines reach from the worst seed to the best."
    data = [html_table("lengths-data", curve_tables.points("Scores over prompt length", "Length", curves))]
    return _along("lengths", "Scores over prompt length", about, curves, log, data, "prompt length")


def _along(slug: str, caption: str, about: str, curves: Sequence[Facts], log: bool, data: Any, x_name: str) -> Html:
    series = [
        Series(
            c["label"],
            i,
            [(p["value"], p["mean"]) for p in c["points"]],
            [(p["value"], p["worst"], p["best"]) for p in c["points"] if p["n"] > 1],
            c.get("chosen"),
        )
        for i, c in enumerate(curves)
    ]
    xs = [x for s in series for x, _ in s.points]
    x = charts.logarithmic(xs) if log else _around(xs)
    y = charts.linear(
        [v for s in series for _, low, high in s.whiskers for v in (low, high)]
        + [v for s in series for _, v in s.points]
    )
    if len(series) <= OVERLAID:
        body: Any = [
            charts.legend(series) if len(series) > 1 else None,
            charts.panel(f"{slug}-chart", caption, _told(series), series, x, y, 280, x_name),
        ]
    else:
        body = _multiples(slug, [
            (s.label, charts.panel(f"{slug}-{i}", f"{caption}: {s.label}", _told([s]),
                                   [*(_faint(o) for o in series if o is not s), s], x, y, 150))
            for i, s in enumerate(series)
        ])  # fmt: skip
    return figure(slug, caption, about, body, data)


def _around(xs: Sequence[Real]) -> Axis:
    room = (max(xs) - min(xs)) * 0.04 or 1.0
    return Axis(min(xs) - room, max(xs) + room, tuple(sorted(set(xs))))


def _faint(s: Series) -> Series:
    return Series(s.label, s.color, s.points, marks=False, faint=True)


def _told(series: Sequence[Series]) -> str:
    return ". ".join(f"{s.label}: " + ", ".join(f"{score(y)} at {x:g}" for x, y in s.points) for s in series)


def _multiples(slug: str, panels: Sequence[tuple[str, Any]]) -> Any:
    """Panels side by side, those beyond a dozen folded away."""
    cells = [el("div", el("h3", label, class_="panel-name"), its) for label, its in panels]
    first, rest = cells[: 2 * BESIDE], cells[2 * BESIDE :]
    more = None
    if rest:
        more = el("details", el("summary", f"{len(rest)} more"), el("div", rest, class_="small-multiples"))
    return [el("div", first, class_="small-multiples"), more]


def learning(facts: Facts) -> Html:
    """Dev scores over steps, a thin curve for each seed and a panel for each line."""
    score_of = [_curves(facts, "dev"), _curves(facts, "dev_loss")]
    about = "Dev score at every evaluation, a curve for each seed; dots mark the checkpoint that was kept."
    data = [html_table(f"learning-data-{i}", curve_tables.curve_ends(c)) for i, c in enumerate(_with_curves(facts))]
    loss = el("details", el("summary", "Dev loss"), score_of[1]) if score_of[1] else None
    return figure("learning", "Learning of every seed", about, [score_of[0], loss], data)


def _with_curves(facts: Facts) -> list[Facts]:
    return [c for c in facts["curves"] if c["seeds"]]


def _curves(facts: Facts, of: str) -> Any:
    lines = _with_curves(facts)
    found = {
        id(c): [[(a, b) for a, b in zip(s["steps"], s[of], strict=True) if b is not None] for s in c["seeds"]]
        for c in lines
    }
    points = [p for its in found.values() for curve in its for p in curve]
    if not points:
        return None
    last = max(a for a, _ in points)
    x = Axis(0.0, last or 1.0, (0, last / 2, last) if last % 2 == 0 else (0, last))
    ys = [b for _, b in points]
    if of == "dev_loss":  # a run that went astray must not flatten the others
        ys = [v for v in ys if v <= 4 * sorted(ys)[len(ys) // 2]]
    y = charts.linear(ys, many=4)
    slug, panels = f"learning-{of.replace('_', '-')}", []
    for i, c in enumerate(lines):
        series = []
        for s, curve in zip(c["seeds"], found[id(c)], strict=True):
            inside = [(a, min(b, y.high)) for a, b in curve]
            if inside:
                series.append(Series(f"seed {s['seed']}", 0, inside, marks=False))
        what = metric_name(c["metric"]) if of == "dev" else "loss"
        ends = ", ".join(
            f"seed {s['seed']} best at step {s['best_step']}" for s in c["seeds"] if s["best_step"] is not None
        )
        best = [
            (s["best_step"], dict(curve)[s["best_step"]])
            for s, curve in zip(c["seeds"], found[id(c)], strict=True)
            if s["best_step"] in dict(curve)
        ]
        chart = charts.panel(f"{slug}-{i}", f"Dev {what} of {c['label']} over steps", ends or "no checkpoint was kept",
                             series, x, y, 150, dots=[(a, min(b, y.high)) for a, b in best])  # fmt: skip
        panels.append((c["label"], el("div", chart, class_="thin")))
    return _multiples(slug, panels)


def variance(facts: Facts) -> Html:
    """Shares of the variance over seeds, with intervals."""
    body: list[Any] = []
    sources = list(
        dict.fromkeys(c["source"] for line in facts["components"] if line["found"] for c in line["found"]["components"])
    )
    for i, line in enumerate(facts["components"]):
        body.append(el("h3", line["label"], class_="panel-name group"))
        if not line["found"]:
            body.append(el("p", f"Cannot be told apart: {line['reason']}"))
            continue
        its = line["found"]["components"]
        if all(c["share"] is None for c in its):
            body.append(el("p", "The scores do not vary."))
            continue
        bars = [
            Bar(
                tables.source(c["source"]),
                f"sd {c['sd']:.4f}",
                c["share"],
                c["share_low"],
                c["share_high"],
                sources.index(c["source"]),
            )
            for c in its
        ]
        body.append(charts.bar_rows(f"variance-{i}", bars))
    about = "Share of the variance of test scores that each source of randomness accounts for, with 95 % intervals."
    return figure("variance", "Where the spread over seeds comes from", about, body,
                  html_table("variance-data", tables.components(facts)))  # fmt: skip


def confusions(facts: Facts) -> Html:
    """Confusion matrices of the chosen settings, summed over seeds."""
    cells = [confusion_table(f"confusion-{i}", c) for i, c in enumerate(facts["confusion"])]
    first, rest = cells[:BESIDE], cells[BESIDE:]
    body = [el("div", first, class_="confusions")]
    if rest:
        body.append(el("details", el("summary", f"{len(rest)} more"), el("div", rest, class_="confusions")))
    about = (
        "Test split, summed over seeds. Rows are the true class, columns the predicted one; a stronger color is a "
        "larger share of the row."
    )
    return figure("confusions", "What is taken for what", about, body)
