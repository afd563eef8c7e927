"""What a table shows: its classes, its columns of text, its splits and ids; what is wrong with it."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from trimtab.errors import DataError, suggest
from trimtab.tasks.reading import Table, as_text

MOST_CLASSES = 50
LEAST_ROWS = 3

_FEW_ROWS = 5
_IMBALANCE = 5
_MOST_TEXTS = 3
_LONGEST_LABEL = 100
_LEAST_REPEATS = 5

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("dev", "validation", "valid", "val"), "dev"),
    "test": "test",
}
_MISSING = {"nan", "na", "n/a", "none", "null", "nil", "-", "?", "unknown"}
_NUMBER = re.compile(r"\W{0,2}[-+]?\d[\d.,' ]*([eE][-+]?\d+)?\s*\D{0,3}")
_DATE = re.compile(
    r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([T ,].*)?|\d{1,2}:\d{2}.*"
    r"|([a-z]{3,9},? )?(\d{1,2}\.? [a-z]{3,9}|[a-z]{3,9}\.? \d{1,2}),? \d{4}.*",
    re.IGNORECASE,
)
_UNSPACED = re.compile(r"[\x21-\x7e]+")
_METADATA = re.compile(
    r"\b(e?-?mail|url|link|uri|phone|address|street|city|country|name|author|user|customer|agent|date|time|timestamp)s?\b"
)
_ONE_WORD = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]|[^\s\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]+")


class Survey:
    """A table and its label column. What a recipe cannot repair is raised; everything else goes to `notes`.

    Args:
        is_free: the column holds answers in free text, not classes.

    Attributes:
        shown: how errors call the file.
        labels: the label, or the answer, of every row.
        classes: numbers by value, else the largest class first; none of free text.
        sizes: rows per class, in that order.

    Raises:
        DataError: no such column, empty or several labels in a row, one class only, too many, or too few rows in one.
    """

    def __init__(self, table: Table, label: str, shown: str, is_free: bool = False) -> None:
        self.table, self.label, self.shown, self.is_free = table, label, shown, is_free
        self._role = "answer" if is_free else "label"
        self.notes: list[str] = []
        self._need(label)
        self.labels = self._labels()
        counts = Counter([] if is_free else self.labels)
        self.classes = _ordered(counts)
        self.sizes = {name: counts[name] for name in self.classes}
        if not is_free:
            self._check_classes()
        elif len(set(self.labels)) <= MOST_CLASSES and len(self.labels) >= _LEAST_REPEATS * len(set(self.labels)):
            n = len(set(self.labels))
            self.notes.append(
                f"the column {label!r} has only {n} different answers; --label {label} would treat them as classes, "
                "which the model then chooses among instead of writing."
            )

    def _need(self, column: str) -> None:
        if column not in self.table.columns:
            raise DataError(
                f"there is no column {column!r}.", where=self.shown, fix=suggest(column, self.table.columns)
            )

    def cells(self, column: str) -> list[str]:
        """A column as text without white space at the ends.

        Raises:
            DataError: it holds lists or objects.
        """
        pairs = zip(self.table.rows, self.table.sources, strict=True)
        return [as_text(row.get(column), column, source).strip() for row, source in pairs]

    def _plain_cells(self, column: str) -> list[str]:
        """The same; nothing for a column of lists or objects."""
        if any(isinstance(row.get(column), list | tuple | dict) for row in self.table.rows):
            return []
        return self.cells(column)

    def _sources(self, at: Sequence[int]) -> str:
        shown = ", ".join(self.table.sources[i] for i in at[:3])
        return shown if len(at) <= 3 else f"{shown} and {len(at) - 3} more"

    def _labels(self) -> list[str]:
        raw = [row.get(self.label) for row in self.table.rows]
        for value, source in zip(raw, self.table.sources, strict=True):
            if isinstance(value, list | tuple):
                raise _several("the label is a list", source)
        labels = self.cells(self.label)
        missing = [i for i, value in enumerate(raw) if not labels[i] or value != value]
        if missing:
            raise DataError(
                f"{_rows(len(missing))} no {self._role} in the column {self.label!r}: {self._sources(missing)}.",
                where=self.shown,
                fix=f"Fill in the {self._role}s or remove the rows.",
            )
        return labels

    def _check_classes(self) -> None:
        sizes, n = self.sizes, len(self.labels)
        self._check_several()
        if len(sizes) == 1:
            raise DataError(f"every row has the label {self.labels[0]!r}; at least two are needed.", where=self.shown)
        longest = max(self.classes, key=len)
        if len(longest) > _LONGEST_LABEL:
            raise DataError(
                f"the column {self.label!r} looks like free text, not like classes: a value has {len(longest)} "
                f"characters (at most {_LONGEST_LABEL}).",
                where=self.table.sources[self.labels.index(longest)],
                fix="Name the column of classes with --label, or let the model write: --target.",
            )
        if len(sizes) > MOST_CLASSES or (n >= 8 and len(sizes) > 0.6 * n):
            are_numbers = all(_NUMBER.fullmatch(name) for name in sizes)
            raise DataError(
                f"the column {self.label!r} has {len(sizes)} different values in {n} rows, so it looks like "
                f"{'a number to predict' if are_numbers else 'free text or ids'}, not like classes (at most "
                f"{MOST_CLASSES}).",
                where=self.shown,
                fix="Group the values into a few classes."
                if are_numbers
                else "Name the column of classes with --label, or let the model write: --target.",
            )
        small = [f"{name!r} {sizes[name]}" for name in self.classes if sizes[name] < LEAST_ROWS]
        if small:
            raise DataError(
                f"a class needs {LEAST_ROWS} rows or more: one each to learn from, to select and to report; too few: "
                f"{_few(small)}.",
                where=self.shown,
                fix="Add rows, join classes, or remove these rows.",
            )

    def _check_several(self) -> None:
        """`a|b` is two labels where each part is a label too, or recurs in other combinations."""
        for mark in "|;,":
            parts = {name: {p.strip() for p in name.split(mark)} for name in self.classes}
            owners = Counter(p for its in parts.values() for p in its)
            for name, its in parts.items():
                if len(its) > 1 and all(p and owners[p] > 1 for p in its):
                    source = self.table.sources[self.labels.index(name)]
                    raise _several(f"the label {name!r} names several classes", source)

    def note_classes(self) -> bool:
        """Notes on odd and small classes; whether sizes are so uneven that accuracy misleads."""
        few = [f"{name!r} has {n}" for name, n in self.sizes.items() if n < _FEW_ROWS]
        if few:
            self.notes.append(f"few rows: {_few(few)}; what a run says about such a class means little.")
        odd = [repr(name) for name in self.classes if name.lower() in _MISSING]
        if odd:
            self.notes.append(f"{_few(odd)} counts as a class; if it means that the label is missing, remove its rows.")
        largest, smallest = max(self.sizes.values()), min(self.sizes.values())
        uneven = largest >= _IMBALANCE * smallest
        if uneven:
            self.notes.append(
                f"the classes are uneven ({largest} rows in the largest, {smallest} in the smallest), so macro-F1, "
                "which counts every class alike, picks the checkpoint (training.select: macro_f1)."
            )
        return uneven

    def split_column(self) -> str | None:
        """A column called split that says train, dev or test in every row."""
        column = next((c for c in self.table.columns if c.lower() == "split" and c != self.label), None)
        if column is None:
            return None
        values = {v.lower() for v in self._plain_cells(column)}
        if values <= _SPLITS.keys() and "train" in self.splits_of(column):
            self.notes.append(f"the column {column!r} says which rows are for training.")
            return column
        self.notes.append(f"the column {column!r} does not make splits, as it says more than train, dev and test.")
        return None

    def splits_of(self, column: str | None) -> set[str]:
        """The splits that a column names; none for no column."""
        return (
            set() if column is None else {_SPLITS[v] for c in self._plain_cells(column) if (v := c.lower()) in _SPLITS}
        )

    def id_column(self) -> str | None:
        """A column of ids, unique and filled.

        Raises:
            DataError: a column `id`, which tasks always read, repeats a value, and no other column has ids.
        """
        named = [
            c for c in self.table.columns if c.lower() in ("id", "uid", "uuid", "guid") or re.search("_id$|Id$", c)
        ]
        for column in sorted(named, key=lambda c: (c != "id", c.lower() != "id")):
            cells = self._plain_cells(column)
            if column != self.label and cells and all(cells) and len(set(cells)) == len(cells):
                return column
        seen: dict[str, str] = {}
        for cell, source in zip(self._plain_cells("id"), self.table.sources, strict=False):
            if cell and cell in seen:
                raise DataError(
                    f"the column 'id' must name rows, and {cell!r} stands at {seen[cell]} too.",
                    where=source,
                    fix="Rename the column if its values are no ids of rows.",
                )
            seen[cell] = source
        return None

    def given_texts(self, columns: Sequence[str]) -> list[str]:
        """The text columns that the user named.

        Raises:
            DataError: no such column, or the label column.
        """
        for column in columns:
            self._need(column)
            if column == self.label:
                raise DataError(f"{column!r} is the label; as text it would give the answer away.", where=self.shown)
        return list(dict.fromkeys(columns))

    def guess_texts(self, split: str | None) -> list[str]:
        """Columns of running text, the longest few in the table's order; without any, the longest column of words.

        Raises:
            DataError: there are only numbers, dates, ids and the like.
        """
        lengths: dict[str, float] = {}
        doubts: dict[str, str] = {}
        refused: dict[str, str] = {}
        for column in self.table.columns:
            if column in (self.label, split):
                continue
            cells = self._plain_cells(column)
            if reason := _why_no_text(cells):
                refused[column] = reason
                continue
            lengths[column] = sum(map(len, cells)) / len(cells)
            if doubt := _why_no_running_text(column, cells):
                doubts[column] = doubt
        running = [c for c in lengths if c not in doubts]
        plain = [c for c in lengths if not _METADATA.search(_spaced(c))] or list(lengths)
        longest = sorted(running or plain, key=lambda c: -lengths[c])[: _MOST_TEXTS if running else 1]
        chosen = [c for c in self.table.columns if c in longest]
        if not chosen:
            shown = _few(f"{c!r} holds {why}" for c, why in refused.items())
            raise DataError(
                f"no column looks like text{f': {shown}' if shown else ''}.",
                where=self.shown,
                fix="Name the text columns: --text COLUMN.",
            )
        self.notes.append(f"text is read from {_few(map(repr, chosen))}; name other columns with --text.")
        why = {**refused, **doubts}
        left = [f"{c!r} ({why.get(c, 'shorter text')})" for c in (*refused, *lengths) if c not in chosen]
        if left:
            self.notes.append(f"columns not read: {_few(left)}.")
        return chosen

    def check_texts(self, columns: Sequence[str]) -> None:
        """Repeated texts are noted.

        Raises:
            DataError: rows without any text, as nothing can be learned or predicted from them.
        """
        rows = list(zip(*(self.cells(c) for c in columns), strict=True))
        empty = [i for i, row in enumerate(rows) if not any(row)]
        if empty:
            raise DataError(
                f"{_rows(len(empty))} no text in {_few(map(repr, columns))}: {self._sources(empty)}.",
                where=self.shown,
                fix="Remove the rows, or name other columns with --text.",
            )
        labels = defaultdict(set)
        for row, name in zip(rows, self.labels, strict=True):
            labels[row].add(name)
        repeats = len(rows) - len(labels)
        if repeats:
            torn = sum(len(names) > 1 for names in labels.values())
            what = "different answers" if self.is_free else "contradicting labels"
            doubt = f"; {torn} of these texts have {what}" if torn else ""
            self.notes.append(
                f"{repeats} of {len(rows)} rows repeat the text of an earlier row{doubt}. Repeats that fall into both "
                "train and test make the score look better than it is."
            )


def _rows(n: int) -> str:
    return "1 row has" if n == 1 else f"{n} rows have"


def _few(items: Iterable[str]) -> str:
    """The first ten of a list."""
    its = list(items)
    return ", ".join(its[:10]) + (f" and {len(its) - 10} more" if len(its) > 10 else "")


def _several(what: str, source: str) -> DataError:
    return DataError(
        f"{what}; tasks with several labels per row are not supported.",
        where=source,
        fix="Give one label per row, or one table per label with yes/no answers.",
    )


def _ordered(sizes: Mapping[str, int]) -> list[str]:
    try:
        return sorted(sizes, key=float)
    except ValueError:
        return sorted(sizes, key=lambda name: (-sizes[name], name))


def _why_no_text(cells: Sequence[str]) -> str | None:
    """Why a column is certainly not text."""
    filled = [c for c in cells if c]
    if not cells:
        return "lists or objects"
    if len(filled) < 0.5 * len(cells):
        return "mostly empty"
    if len(set(filled)) == 1:
        return "the same everywhere"
    for pattern, what in ((_NUMBER, "numbers"), (_DATE, "dates or times")):
        if sum(bool(pattern.fullmatch(c)) for c in filled) > 0.9 * len(filled):
            return what
    coded = sum(bool(_UNSPACED.fullmatch(c)) and not c.isalpha() for c in filled)
    if coded > 0.9 * len(filled) and len(set(filled)) > 0.9 * len(filled):
        return "ids, addresses or links"
    return None


def _why_no_running_text(column: str, cells: Sequence[str]) -> str | None:
    """Why a column of words is probably not what a person would classify by."""
    filled = [c for c in cells if c]
    if _METADATA.search(_spaced(column)):
        return "details about the row, by its name"
    words = sum(len(_ONE_WORD.findall(c)) for c in filled) / len(filled)
    if len(set(filled)) < (0.3 if words < 3 else 0.1) * len(filled):
        return "few different values"
    if words < 2.5:
        return "single words"
    return None


def _spaced(column: str) -> str:
    """`customerName` and `customer_name` as words."""
    return re.sub(r"[\W_]+", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", column)).lower()
