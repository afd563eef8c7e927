"""Tables of scores along an axis: rates, lengths, steps. They are the data of curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.reports.numbers import DASH, bounds_if_any, mean_sd, score, share
from trimtab.reports.table import Cell, Column, Table, table

Facts = Mapping[str, Any]


def rates(grid: Facts) -> Table:
    """Best, area and worst of every curve over learning rates."""
    columns = [
        Column("Line", numeric=False),
        Column("Chosen on dev"),
        Column("Best", about="highest mean test score of the grid"),
        Column("Area", about="average over the logarithmic grid, with a 95 % interval"),
        Column("Worst", about="lowest mean test score of the grid"),
        Column("Lost by a blind pick", about="best less area, with a 95 % interval"),
        Column("Good rates", about="share of rates whose mean is as good as the best, or nearly"),
        Column("Area on dev"),
    ]
    rows: list[list[Cell | str]] = []
    for c in grid["curves"]:
        t, d = c["test"], c["dev"]
        rows.append(
            [
                Cell(c["label"], c["label"]),
                Cell(f"{c['chosen']:g}", c["chosen"]),
                Cell(score(t["best_mean"]), t["best_mean"], f"at {t['best_rate']:g}"),
                Cell(score(t["area"]), t["area"], bounds_if_any(t["area_low"], t["area_high"])),
                Cell(score(t["worst_mean"]), t["worst_mean"]),
                Cell(score(t["loss"]), t["loss"], bounds_if_any(t["loss_low"], t["loss_high"])),
                Cell(share(t["within"]), t["within"]),
                Cell(score(d["area"] if d else None), d["area"] if d else None),
            ]
            if t
            else [Cell(c["label"], c["label"]), *[DASH] * 7]
        )
    return table(f"Sensitivity to {grid['axis']}", columns, rows)


def points(caption: str, axis: str, curves: Sequence[Facts]) -> Table:
    """Every point of curves along an axis: the data of a figure."""
    columns = [
        Column("Line", numeric=False),
        Column(axis),
        Column("Runs"),
        Column("Dev mean"),
        Column("Test mean ± sd"),
        Column("Worst seed"),
        Column("Best seed"),
        Column("Collapsed"),
    ]
    rows = [
        [
            Cell(c["label"], c["label"], p["setting"]),
            Cell(f"{p['value']:g}", p["value"]),
            Cell(str(p["n"]), p["n"], f"{p['missing']} missing" if p["missing"] else ""),
            Cell(score(p["dev_mean"]), p["dev_mean"]),
            Cell(mean_sd(p["mean"], p["sd"]), p["mean"]),
            Cell(score(p["worst"]), p["worst"]),
            Cell(score(p["best"]), p["best"]),
            Cell(str(p["collapsed"]), p["collapsed"]),
        ]
        for c in curves
        for p in c["points"]
    ]
    return table(caption, columns, rows)


def curve_ends(curve: Facts) -> Table:
    """Best and last evaluation of every seed of a line: the data of its learning curves."""
    names = ("Seed", "Best step", "Best dev score", "Last step", "Last dev score")
    columns = [Column(name, numeric=name != "Seed") for name in names]
    rows = []
    for s in curve["seeds"]:
        best = next((d for step, d in zip(s["steps"], s["dev"], strict=True) if step == s["best_step"]), None)
        best_step = DASH if s["best_step"] is None else str(s["best_step"])
        rows.append([s["seed"], Cell(best_step, s["best_step"]), Cell(score(best), best),
                     Cell(str(s["steps"][-1]), s["steps"][-1]), Cell(score(s["dev"][-1]), s["dev"][-1])])  # fmt: skip
    return table(f"Learning of {curve['label']}", columns, rows)
