"""Tables as HTML: sortable by buttons in their heads, in a box of their own that scrolls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trimtab.reports.markup import Html, el
from trimtab.reports.table import Cell, Table

TALL, LONG = 16, 28
"""Tables with more rows scroll inside their box; longer names take a wider column."""
_WORDS = {"better": "good", "worse": "bad"}


def html_table(slug: str, its: Table, *, sortable: bool = True, sorted_by: int | None = None) -> Html:
    """A table in a box that scrolls and that the keyboard reaches.

    Args:
        sorted_by: the column that rows are in descending order of already.
    """
    heads = []
    for i, column in enumerate(its.columns):
        state = ("descending" if i == sorted_by else "none") if sortable else None
        inside = el("button", column.name, type="button") if sortable else column.name
        heads.append(el("th", inside, scope="col", class_="num" if column.numeric else None, aria_sort=state,
                        title=column.about or None))  # fmt: skip
    rows = [el("tr", [_cell(cell, i == 0, its.columns[i].numeric) for i, cell in enumerate(row)]) for row in its.rows]
    body = el("table", el("caption", its.caption, id=f"{slug}-name"), el("thead", el("tr", heads)), el("tbody", rows))
    tall = " tall" if len(rows) > TALL else ""
    return el("div", body, class_=f"scroll{tall}", id=slug, role="region", aria_labelledby=f"{slug}-name", tabindex=0)


def _cell(cell: Cell, is_first: bool, numeric: bool) -> Html:
    inside = [el("span", cell.text, class_=_WORDS.get(str(cell.key))), el("small", cell.note) if cell.note else None]
    key = None if cell.key is None else repr(cell.key) if isinstance(cell.key, float) else str(cell.key)
    if is_first:
        return el("th", inside, scope="row", data_key=key, class_="long" if len(cell.text) > LONG else None)
    return el("td", inside, class_="num" if numeric else "text", data_key=key)


def confusion_table(slug: str, its: Mapping[str, Any]) -> Html:
    """A confusion matrix; the shade of a cell is its share of the row."""
    heads = [
        el("th", "true ↓ taken for →", class_="corner", scope="col"),
        *(el("th", a, scope="col") for a in its["answers"]),
    ]
    rows = []
    for gold, counts in zip(its["classes"], its["counts"], strict=True):
        total = sum(counts) or 1
        cells = []
        for answer, n in zip(its["answers"], counts, strict=True):
            shade = f"--a:{0.42 * n / total:.3f}"
            cells.append(el("td", f"{n:,}", style=shade, class_="right" if answer == gold else None))
        rows.append(el("tr", el("th", gold, scope="row"), cells))
    runs = f"{its['runs']} runs" if its["runs"] > 1 else "one run"
    caption = el("caption", el("b", its["label"]), f", {runs}", id=f"{slug}-name")
    body = el("table", caption, el("thead", el("tr", heads)), el("tbody", rows), class_="confusion")
    return el("div", body, class_="scroll", id=slug, role="region", aria_labelledby=f"{slug}-name", tabindex=0)
