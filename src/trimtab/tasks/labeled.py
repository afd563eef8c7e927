"""Labeled rows of a table as examples: what the columns mean, and what is wrong with a label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from trimtab.errors import DataError, suggest
from trimtab.tasks.choices import choices_of, right_choice
from trimtab.tasks.forms import FlatRow
from trimtab.tasks.reading import as_text, row_fields
from trimtab.types import Example
from trimtab.verbalizers import Verbalizer


@dataclass(frozen=True)
class Columns:
    """What the columns of a table mean.

    Attributes:
        label: the column of labels or answers.
        verbalizer: the classes; free where answers are texts.
        choices: the columns of the choices, where labels name one of them.
        split: a column that says train, dev or test.
        id: the column of ids; None for `id` where it exists, else what the form numbers rows with; False for neither.
    """

    label: str
    verbalizer: Verbalizer
    choices: tuple[str, ...] = ()
    split: str | None = None
    id: str | Literal[False] | None = None

    def example(self, row: FlatRow, columns: Sequence[str], split: str, position: int) -> Example:
        """A row as an example.

        Args:
            columns: those of its file.
            split: the file's, of which the row is named where nothing else names it.
            position: of the row in the file, from 1.

        Raises:
            DataError: no label, one that has no label words, or a list of labels.
        """
        label = self._label(row)
        fields = row_fields({c: row.cells.get(c) for c in columns}, skip=(self.label, self.split))
        if self.choices and label:
            label = right_choice(label, choices_of(fields, self.choices, row.source), row.source)
        elif not self._is_answer(label):
            raise self._wrong(label, row.source)
        return Example(self._name(row, columns, split, position), fields, label, row.source, answers=row.answers,
                       group=row.group)  # fmt: skip

    def _label(self, row: FlatRow) -> str:
        raw = row.cells.get(self.label)
        if isinstance(raw, list | tuple):
            is_free = self.verbalizer.is_free
            raise DataError(
                "the answer is a list; a row has one answer, as text."
                if is_free
                else "the label is a list; tasks with several labels per row are not supported.",
                where=row.source,
                fix="Choose one answer, or give a row for each."
                if is_free
                else "Give one label per row, or one table per label with yes/no answers.",
            )
        return as_text(raw, self.label, row.source).strip()

    def _is_answer(self, label: str) -> bool:
        return bool(label) if self.verbalizer.is_free else label in self.verbalizer.classes

    def _wrong(self, label: str, source: str) -> DataError:
        noun = "answer" if self.verbalizer.is_free else "label"
        if not label:
            return DataError(f"the row has no {noun} in the column {self.label!r}.", where=source)
        parts = [p.strip() for d in "|;," for p in label.split(d)]
        if len(parts) > 3 and sum(p in self.verbalizer.classes for p in parts) > 1:
            what = f"the label {label!r} names several classes; tasks with several labels per row are not supported."
            return DataError(what, where=source)
        fix = f"Add it to task.label_words. {suggest(label, self.verbalizer.classes)}"
        return DataError(f"the label {label!r} has no label words.", where=source, fix=fix)

    def _name(self, row: FlatRow, columns: Sequence[str], split: str, position: int) -> str:
        column = "id" if self.id is None and "id" in columns else self.id
        if column:
            name = as_text(row.cells.get(column), column, row.source)
            return name or f"{split}-{position}"
        return f"{split}-{row.id}" if row.id and self.id is None else f"{split}-{position}"
