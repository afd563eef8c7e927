"""Forms: how the lines of a file become rows of a table, where a line holds several rows or needs a hand.

Benchmarks nest: a line of MultiRC is a passage with its questions and their answers. A form makes flat rows of it, of
training files and of files to be labeled alike, and each row keeps the numbers by which its benchmark scores it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

from trimtab.errors import ConfigError, DataError, suggest
from trimtab.registry import Registry
from trimtab.tasks.reading import Table

forms = Registry("form", "trimtab.tasks.forms")


@dataclass(frozen=True)
class FlatRow:
    """A row of a table.

    Attributes:
        cells: values by column; a label only where it is known.
        source: `file:line`.
        id: its numbers in the benchmark, which no other row of the file has; empty where its place is enough.
        group: see `Example.group`.
        answers: see `Example.answers`.
        remark: what was put right, in words that are the same for all such rows.
    """

    cells: Mapping[str, Any]
    source: str
    id: str = ""
    group: tuple[str, ...] = ()
    answers: tuple[tuple[str, int], ...] = ()
    remark: str = ""


@runtime_checkable
class Form(Protocol):
    """Makes rows of a line.

    Attributes:
        expects: what a line looks like, for errors.
    """

    expects: ClassVar[str]

    def rows(self, line: Mapping[str, Any], source: str) -> list[FlatRow]:
        """The rows of a line.

        Raises:
            DataError: it is of another form, or its numbers do not agree.
        """
        ...


@dataclass(frozen=True)
class Reading:
    """How a task's files are read; what `predict` needs to read others like them.

    Attributes:
        form: a form's kind; None where each line is a row.
        rename: what a column is called in the file -> what the task calls it.
    """

    form: str | None = None
    rename: Mapping[str, str] = field(default_factory=dict)

    def columns_and_rows(self, table: Table) -> tuple[tuple[str, ...], Iterable[FlatRow]]:
        """The columns that rows of a file have, in their order, and the rows; those of a form are held, as only they
        say what their columns are.

        Raises:
            DataError: as `rows`.
        """
        if self.form is None:
            return tuple(self._renamed(dict.fromkeys(table.columns), table.sources[0])), self.rows(table)
        rows = list(self.rows(table))
        return tuple(dict.fromkeys(column for row in rows for column in row.cells)), rows

    def rows(self, table: Table) -> Iterator[FlatRow]:
        """The rows of a file, one after the other.

        Raises:
            DataError: a line of another form, a passage that stands twice, or a column that is renamed and missing.
        """
        lines = zip(table.rows, table.sources, strict=True)
        if self.form is None:
            yield from (FlatRow(self._renamed(line, source), source) for line, source in lines)
            return
        form: Form = forms.get(self.form)()
        seen = dict[str, str]()
        for line, source in lines:
            try:
                its = form.rows(line, source)
            except DataError as error:
                expected = f"A line of the form {self.form!r} is {form.expects}."
                fix = " ".join(filter(None, [error.fix, expected]))
                raise DataError(error.what, where=error.where, fix=fix) from None
            for number in dict.fromkeys(row.group[0] for row in its if row.group):
                if number in seen:
                    raise DataError(
                        f"the number {number} stands at {seen[number]} too, so rows of two lines would be scored "
                        "together.",
                        where=source,
                        fix="Number the lines of a file differently (idx).",
                    )
                seen[number] = source
            yield from its

    def _renamed(self, line: Mapping[str, Any], source: str) -> dict[str, Any]:
        for column in self.rename:
            if column not in line:
                what = f"there is no column {column!r}."
                raise DataError(what, where=source, fix=suggest(column, map(str, line)) or None)
        return {self.rename.get(column, column): value for column, value in line.items()}


def check_form(form: str | None) -> None:
    """Refuse a form that does not exist.

    Raises:
        ConfigError: with the forms that there are.
    """
    if form is not None and form not in forms.kinds():
        raise ConfigError(f"there is no form {form!r}.", where="task.form", fix=suggest(form, forms.kinds()))


def number(holder: Mapping[str, Any], key: str, source: str) -> str:
    """A number that names something, as text; some files write it as text.

    Raises:
        DataError: there is none, or something else.
    """
    value = holder.get(key)
    if isinstance(value, bool) or not (isinstance(value, int) or (isinstance(value, str) and value.isdecimal())):
        got = "nothing" if value is None else repr(value)
        raise DataError(f"{key!r} must be a whole number, got {got}.", where=source)
    return str(int(value))
