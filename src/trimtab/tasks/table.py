"""A user's own table: CSV, TSV, JSONL or Parquet, one column of labels or of answers in free text, one or more columns
of text.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, final

from pydantic import Field

from trimtab.chat import TemplateSource
from trimtab.errors import ConfigError, DataError, suggest
from trimtab.registry import tasks
from trimtab.seeding import stream
from trimtab.tasks import SPLITS, Task
from trimtab.tasks.choices import choices_of, right_choice
from trimtab.tasks.reading import Places, as_text, read_table, resolve_path, row_fields
from trimtab.tasks.reading import Table as RawTable
from trimtab.tasks.splits import check_filled, claim_id, draw, few, files_of
from trimtab.types import Example
from trimtab.verbalizers import Verbalizer

_MIN_DEV = 50


@final
@tasks.register("table")
class Table:
    """A table with a column of labels or free text: give `path`, or `train` and where they exist `dev` and `test`.

    Give `label_words` for classes, `target` for free text, or `choices` where every row has choices of its own. Free
    text counts as one class where rows are drawn, and so do choices.

    Splits that have no file are drawn from the training rows, class by class and with `split_seed`, so they stay the
    same under every training seed: `test_fraction` for test, `dev_fraction` (but at least 50 rows where a third of the
    rows allows it) for dev. In the few-shot setting a missing dev is drawn beside the `shots` from the same rows.

    Args:
        label_words: class -> label word or words; the classes of the task, in their order.
        template: see `trimtab.templates` and, for messages, `trimtab.chat`; `auto` puts the prompt before the only text
            column and the answer behind it.
        name: how the task is called in tables and run ids.
        path: one file for all splits.
        train: the training rows.
        dev: the rows that select the checkpoint.
        test: the rows that are reported.
        label: the label column.
        target: the column of answers in free text, which the model learns to write.
        choices: the columns of the choices, of which the last may be empty; `{choice}` in the template stands for each
            in turn. The label is the name of the right column, its text, or its number from 0.
        replace: column -> what stands in the data -> what the template shall have instead; every value must be named.
        split_column: a column of `path` that says train, dev or test.
        id_column: a column of ids, unique over all files; null takes `id` where it exists, else the position in the
            file; false always takes the position.
        truncate: fields that may be cut, first to last; empty: the longest first.
        max_length: positions a row may take, slots included; 0 for what the backbone has.
        shots: training rows per class, drawn with the `subset` seed; 0 for all.
        dev_shots: dev rows per class, drawn likewise; -1 for as many as `shots`, 0 for all.
        test_rows: at most so many test rows, drawn with `split_seed`, so the same in every run; 0 for all.
        dev_fraction: share of the training rows, where there is no dev file.
        test_fraction: share of all rows, where there is no test file.
        split_seed: of drawn splits.
    """

    def __init__(
        self,
        *,
        label_words: dict[str, list[str] | str] | None = None,
        template: TemplateSource = "auto",
        name: str = "table",
        path: str | None = None,
        train: str | None = None,
        dev: str | None = None,
        test: str | None = None,
        label: str = "label",
        target: str | None = None,
        choices: list[str] | None = None,
        replace: dict[str, dict[str, str]] = {},  # noqa: B006  (likewise)
        split_column: str | None = None,
        id_column: Annotated[str | Literal[False] | None, Field(union_mode="left_to_right")] = None,
        truncate: list[str] = [],  # noqa: B006  (a schema default, never mutated)
        max_length: Annotated[int, Field(ge=0)] = 0,
        shots: Annotated[int, Field(ge=0)] = 0,
        dev_shots: Annotated[int, Field(ge=-1)] = -1,
        test_rows: Annotated[int, Field(ge=0)] = 0,
        dev_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1,
        test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2,
        split_seed: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        self.files = files_of(path, train, dev, test)
        if sum(given is not None for given in (label_words, target, choices)) != 1:
            raise ConfigError(
                "give either label_words (classes and their words), target (a column of free text) or choices (columns "
                "of texts to choose from).",
                where="task",
            )
        self.choices, self.replace = tuple(choices or ()), replace
        if choices is not None:
            if len(set(choices)) < max(2, len(choices)):
                raise ConfigError(f"name at least two columns, each once, got {choices}.", where="task.choices")
            label_words = {c: c for c in choices}
        self.verbalizer = Verbalizer.free() if label_words is None else Verbalizer.of(label_words)
        self.template, self.name, self.label = template, name, target or label
        self.split_column, self.id_column = split_column, id_column
        self.truncate, self.max_length = tuple(truncate), max_length or None
        self.shots, self.dev_shots = shots, shots if dev_shots < 0 else dev_shots
        self.test_rows = test_rows
        self.dev_fraction, self.test_fraction, self.split_seed = dev_fraction, test_fraction, split_seed

    def load(self, subset_seed: int, places: Places) -> Task:
        """Read the files, draw missing splits and shots.

        Raises:
            DataError: see `trimtab.tasks.reading`; also a missing label column, a label that has no label words, a
                multi-label row, an empty split, a class missing from train, or fewer rows in a class than `shots`.
        """
        splits = self._read(places)
        splits.setdefault("train", [])
        if "test" not in splits:
            splits["train"], splits["test"] = self._draw(splits["train"], self.test_fraction, 0, "test")
        if "dev" not in splits and not (self.shots and self.dev_shots):
            splits["train"], splits["dev"] = self._draw(splits["train"], self.dev_fraction, _MIN_DEV, "dev")
        if self.shots:
            pool = splits["train"]
            splits["train"] = self._few(pool, self.shots, subset_seed, "train")
            taken = {e.id for e in splits["train"]}
            splits.setdefault("dev", [e for e in pool if e.id not in taken])
        if self.dev_shots:
            splits["dev"] = self._few(splits["dev"], self.dev_shots, subset_seed, "dev")
        if 0 < self.test_rows < len(splits["test"]):
            rng = stream(self.split_seed, "test_rows")
            splits["test"] = few(splits["test"], self.test_rows, rng, "rows", "test", "task.test_rows")
        self._check(splits)
        template = self._auto_template(splits["train"][0]) if self.template == "auto" else self.template
        ordered = {s: tuple(splits[s]) for s in SPLITS}
        answer: Literal["class", "text", "choice"] = "choice" if self.choices else "class"
        if self.verbalizer.is_free:
            answer = "text"
        options = (template, self.truncate, self.verbalizer, self.max_length, answer)
        return Task(self.name, ordered, *options, replace=self.replace)

    def _read(self, places: Places) -> dict[str, list[Example]]:
        splits: dict[str, list[Example]] = {}
        seen: dict[str, str] = {}
        for split, given in self.files.items():
            table = read_table(resolve_path(given, places), given if ":" in given else None)
            for column in (self.label, self.split_column, self.id_column, *self.choices, *self.replace):
                if column and column not in table.columns:
                    raise DataError(f"there is no column {column!r}.", where=given, fix=suggest(column, table.columns))
            if self.choices and "choice" in table.columns:
                what = "there is a column 'choice', and {choice} in the template stands for each choice in turn."
                raise DataError(what, where=given, fix="Rename the column.")
            for i, row in enumerate(table.rows):
                example = self._example(row, table, i, split)
                fix = "Make the ids unique over all files, or number the rows instead: task.id_column=false."
                claim_id(seen, example.id, example.source, fix)
                splits.setdefault(self._split_of(row, split, example.source), []).append(example)
        return splits

    def _example(self, row: Mapping[str, Any], table: RawTable, index: int, split: str) -> Example:
        source = table.sources[index]
        raw = row.get(self.label)
        if isinstance(raw, list | tuple):
            raise DataError(
                "the label is a list; tasks with several labels per row are not supported."
                if not self.verbalizer.is_free
                else "the answer is a list; a row has one answer, as text.",
                where=source,
                fix="Give one label per row, or one table per label with yes/no answers."
                if not self.verbalizer.is_free
                else "Choose one answer, or give a row for each.",
            )
        label = as_text(raw, self.label, source).strip()
        fields = row_fields({c: row.get(c) for c in table.columns}, skip=(self.label, self.split_column))
        if self.choices and label:
            label = right_choice(label, choices_of(fields, self.choices, source), source)
        elif not self._is_answer(label):
            parts = [p.strip() for d in "|;," for p in label.split(d)] if label else []
            several = len(parts) > 3 and sum(p in self.verbalizer.classes for p in parts) > 1
            raise DataError(
                f"the row has no {'answer' if self.verbalizer.is_free else 'label'} in the column {self.label!r}."
                if not label
                else f"the label {label!r} names several classes; tasks with several labels per row are not supported."
                if several
                else f"the label {label!r} has no label words.",
                where=source,
                fix=None
                if several or not label
                else f"Add it to task.label_words. {suggest(label, self.verbalizer.classes)}",
            )
        column = "id" if self.id_column is None and "id" in table.columns else self.id_column
        name = as_text(row.get(column), column, source) if column else ""
        return Example(name or f"{split}-{index + 1}", fields, label, source)

    @property
    def _classes(self) -> tuple[str, ...]:
        """What labels say; nothing where every row has answers of its own."""
        return () if self.choices else self.verbalizer.classes

    def _is_answer(self, label: str) -> bool:
        return bool(label) if self.verbalizer.is_free else label in self.verbalizer.classes

    def _groups(self, rows: Sequence[Example]) -> dict[str, list[Example]]:
        """Rows by class; free text is one group, and so are choices."""
        groups: dict[str, list[Example]] = defaultdict(list)
        for row in rows:
            groups[str(row.label) if self._classes else ""].append(row)
        return groups

    def _split_of(self, row: Mapping[str, Any], split: str, source: str) -> str:
        if self.split_column is None:
            return split
        value = as_text(row.get(self.split_column), self.split_column, source).strip().lower()
        value = {"validation": "dev", "valid": "dev", "val": "dev", "training": "train"}.get(value, value)
        if value not in SPLITS:
            raise DataError(f"the split must be train, dev or test, got {value!r}.", where=source)
        return value

    def _draw(
        self, rows: Sequence[Example], fraction: float, at_least: int, split: str
    ) -> tuple[list[Example], list[Example]]:
        """Split off a share of every class, never the whole class."""
        return draw(self._groups(rows).values(), fraction, at_least, stream(self.split_seed, f"split:{split}"))

    def _few(self, rows: Sequence[Example], shots: int, seed: int, split: str) -> list[Example]:
        rng = stream(seed, f"subset:{split}")
        groups = self._groups(rows)
        picked: list[Example] = []
        for label in self._classes or ("",):
            noun = f"rows of class {label!r}" if label else "rows"
            where = "task.shots" if split == "train" else "task.dev_shots"
            picked += few(groups.get(label, []), shots, rng, noun, split, where)
        return picked

    def _check(self, splits: Mapping[str, Sequence[Example]]) -> None:
        check_filled(splits)
        present = {e.label for e in splits["train"]}
        for label in self._classes:
            if label not in present:
                raise DataError(
                    f"the class {label!r} has label words but no row in train.",
                    where=f"task.label_words.{label}",
                    fix="Remove the class or add rows for it.",
                )

    def _auto_template(self, example: Example) -> str:
        texts = [c for c in example.fields if c not in ("id", self.id_column, *self.choices)]
        answer = "{choice}" if self.choices else "{answer}"
        if "text" in texts:
            texts = ["text"]
        if len(texts) != 1:
            raise ConfigError(
                f"a template is needed, as there are several columns ({', '.join(texts)}).",
                where="task.template",
                fix="Write, for example, {prompt} {" + (texts[0] if texts else "text") + "} " + f"{answer}.",
            )
        return f"{{prompt}} {{field:{texts[0]}}} {answer}"
