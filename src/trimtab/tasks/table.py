"""A user's own table: CSV, TSV, JSONL or Parquet, one column of labels or of answers in free text, one or more columns
of text.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, final

from pydantic import Field

from trimtab.benchmark_metrics import MEAN, METRICS
from trimtab.chat import TemplateSource
from trimtab.errors import ConfigError, DataError, suggest
from trimtab.registry import tasks
from trimtab.rewriting import Rewrite
from trimtab.seeding import stream
from trimtab.stored import FieldStore
from trimtab.tasks import SPLITS, Answer, Task
from trimtab.tasks.forms import Reading, check_form
from trimtab.tasks.labeled import Columns
from trimtab.tasks.reading import Places, as_text, read_table, resolve_path
from trimtab.tasks.splits import FromFiles, check_filled, claim_id, draw, few, files_of, whole_groups
from trimtab.template_pieces import read_pieces
from trimtab.types import Example
from trimtab.verbalizers import Verbalizer

_MIN_DEV = 50


@final
@tasks.register("table")
class Table(FromFiles):
    """A table with a column of labels or free text: give `path`, or `train` and where they exist `dev` and `test`.

    Give `label_words` for classes, `target` for free text, `choices` where every row has choices of its own, or
    `candidate` for a text that may be the answer. Free text counts as one class where rows are drawn, and so do
    choices.

    Splits that have no file are drawn from the training rows, class by class and with `split_seed`, so they stay the
    same under every training seed: `test_fraction` for test, `dev_fraction` (but at least 50 rows where a third of the
    rows allows it) for dev. In the few-shot setting a missing dev is drawn beside the `shots` from the same rows. Where
    a form groups rows, whole passages are drawn, so that no passage is in two splits; dev and test shots are whole
    questions, until there are enough rows.

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
            in turn, or `{answer}` for the slot into which each is written. The label is the name of the right column,
            its text, or its number from 0.
        candidate: the column of a text that may be the answer. The model says its own, and the label, true or false, is
            whether that means the same.
        nothing_matches: whether an answer without words means the same as any, as in P-tuning's released code.
        replace: column -> what stands in the data -> what the template shall have instead; every value must be named.
        rewrite: column -> how its texts are changed, see `trimtab.rewriting`.
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
        form: how lines of the files become rows, where a line is not a row; see `trimtab.tasks.forms`.
        rename: what a column is called in the files -> what the template calls it.
        only: split -> labels; its other rows are left out.
        metrics: that are reported beside the readout's, see `trimtab.benchmark_metrics`.
        headline: the metric that stands for a run and selects the checkpoint; `score` is the mean of `metrics`.
        submission: what SuperGLUE calls the task, for `trimtab predict --format superglue`.
    """

    controls: ClassVar[tuple[str, ...]] = ("rewrite", "nothing_matches")

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
        rewrite: dict[str, list[Rewrite]] = {},  # noqa: B006  (likewise)
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
        candidate: str | None = None,
        nothing_matches: bool = False,
        form: str | None = None,
        rename: dict[str, str] = {},  # noqa: B006  (likewise)
        only: dict[Literal["train", "dev", "test"], list[str]] = {},  # noqa: B006  (likewise)
        metrics: list[str] = [],  # noqa: B006  (likewise)
        headline: str | None = None,
        submission: str | None = None,
    ) -> None:
        self.files = files_of(path, train, dev, test, test_alone=True)
        if sum(given is not None for given in (label_words, target, choices, candidate)) != 1:
            raise ConfigError(
                "give either label_words (classes and their words), target (a column of free text), choices (columns "
                "of texts to choose from) or candidate (a column of texts that may be the answer).",
                where="task",
            )
        self.choices, self.replace, self.candidate = tuple(choices or ()), replace, candidate
        self.rewrite, self.nothing_matches = rewrite, nothing_matches
        if choices is not None:
            if len(set(choices)) < max(2, len(choices)):
                raise ConfigError(f"name at least two columns, each once, got {choices}.", where="task.choices")
            label_words = {c: c for c in choices}
        if candidate is not None:
            label_words = {c: c for c in ("false", "true")}
        elif nothing_matches:
            raise ConfigError(
                "only what is compared with a candidate can match.",
                where="task.nothing_matches",
                fix="Leave it out, or give task.candidate.",
            )
        self.verbalizer = Verbalizer.free() if label_words is None else Verbalizer.of(label_words)
        self.columns = Columns(target or label, self.verbalizer, self.choices, split_column, id_column)
        check_form(form)
        _check_metrics(metrics, headline)
        self.reading, self.metrics = Reading(form, rename), tuple(metrics)
        self.only: dict[str, list[str]] = {str(split): labels for split, labels in only.items()}
        self.headline, self.submission = headline, submission
        self._check_only()
        self.template, self.name = template, name
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
        self.check_train()
        splits, notes = self._read(self.files, places)
        splits.setdefault("train", [])
        if "test" not in splits:
            splits["train"], splits["test"] = self._draw(splits["train"], self.test_fraction, 0, "test")
        if "dev" not in splits and not (self.shots and self.dev_shots):
            splits["train"], splits["dev"] = self._draw(splits["train"], self.dev_fraction, _MIN_DEV, "dev")
        if self.shots:
            pool = splits["train"]
            splits["train"] = self._few(pool, self.shots, subset_seed, "train")
            taken = {_unit(e) for e in splits["train"]}
            splits.setdefault("dev", [e for e in pool if _unit(e) not in taken])
        if self.dev_shots:
            splits["dev"] = self._few(splits["dev"], self.dev_shots, subset_seed, "dev")
        splits = {s: self._kept(its, s) for s, its in splits.items()}
        if 0 < self.test_rows < len(splits["test"]):
            rng = stream(self.split_seed, "test_rows")
            picked = whole_groups if splits["test"][0].group else few
            splits["test"] = picked(splits["test"], self.test_rows, rng, "rows", "test", "task.test_rows")
        self._check(splits)
        template = self._auto_template(splits["train"][0]) if self.template == "auto" else self.template
        ordered = {s: tuple(splits[s]) for s in SPLITS}
        options = (template, self.truncate, self.verbalizer, self.max_length, self._answer)
        return Task(
            self.name, ordered, *options, notes, replace=self.replace, candidate=self.candidate, metrics=self.metrics,
            headline=self.headline, reading=self.reading, submission=self.submission, rewrite=self.rewrite,
            nothing_matches=self.nothing_matches,
        )  # fmt: skip

    def examples(self, split: str, places: Places) -> tuple[Example, ...]:
        found, _ = self._read({split: self.file_of(split)}, places)
        return tuple(self._kept(found.get(split, []), split))

    @property
    def _answer(self) -> Answer:
        if self.candidate is not None:
            return "match"
        if self.choices:
            source = str(self.template)
            return "infill" if "{answer}" in source and "{choice}" not in source else "choice"
        return "text" if self.verbalizer.is_free else "class"

    def _read(self, files: Mapping[str, str], places: Places) -> tuple[dict[str, list[Example]], tuple[str, ...]]:
        """Rows by split, and what was put right in them."""
        splits: dict[str, list[Example]] = {}
        seen: dict[str, str] = {}
        notes: list[str] = []
        store = FieldStore()
        for split, given in files.items():
            table = read_table(resolve_path(given, places), given if ":" in given else None)
            columns, rows = self.reading.columns_and_rows(table)
            self._check_columns(columns, given)
            remarks = Counter[str]()
            for i, row in enumerate(rows, 1):
                example = self.columns.example(row, columns, split, i)
                example = replace(example, fields=store.keep(example.fields))
                remarks.update([row.remark] if row.remark else [])
                fix = "Make the ids unique over all files, or number the rows instead: task.id_column=false."
                claim_id(seen, example.id, example.source, fix)
                splits.setdefault(self._split_of(row.cells, split, example.source), []).append(example)
            notes += [f"{given}: in {n} row{'s' if n > 1 else ''} {remark}." for remark, n in remarks.items()]
            self._check_fields(splits, split, columns)
        return splits, tuple(notes)

    def _check_columns(self, columns: Sequence[str], given: str) -> None:
        its = self.columns
        for column in (its.label, its.split, its.id, self.candidate, *self.choices, *self.replace, *self.rewrite):
            if column and column not in columns:
                raise DataError(f"there is no column {column!r}.", where=given, fix=suggest(column, columns))
        if self.choices and "choice" in columns:
            what = "there is a column 'choice', and {choice} in the template stands for each choice in turn."
            raise DataError(what, where=given, fix="Rename the column.")

    def _check_fields(self, splits: Mapping[str, Sequence[Example]], split: str, columns: Sequence[str]) -> None:
        """A file of another task may have the same labels; what the training file has and the template reads, all files
        must have."""
        if split == "train" or not splits.get("train") or not isinstance(self.template, str) or not splits.get(split):
            return
        pieces = read_pieces(self.template, "task.template")
        read = [p.value for p in pieces if p.kind == "field" and p.value in splits["train"][0].fields]
        for column in read:
            if column not in columns:
                raise DataError(
                    f"there is no column {column!r}, which the template reads and the training file has.",
                    where=splits[split][0].source,
                    fix=f"This file has {', '.join(columns)}; is it of another task?",
                )

    @property
    def _classes(self) -> tuple[str, ...]:
        """What labels say; nothing where every row has answers of its own."""
        return () if self.choices else self.verbalizer.classes

    def _labels(self, split: str) -> Sequence[str]:
        """The classes that a split has."""
        return self.only.get(split) or self._classes

    def _kept(self, rows: Iterable[Example], split: str) -> list[Example]:
        """The rows that `only` leaves of a split."""
        labels = self.only.get(split)
        return [e for e in rows if labels is None or e.label in labels]

    def _groups(self, rows: Sequence[Example]) -> dict[str, list[Example]]:
        """Rows by class; free text is one group, and so are choices."""
        groups: dict[str, list[Example]] = defaultdict(list)
        for row in rows:
            groups[str(row.label) if self._classes else ""].append(row)
        return groups

    def _split_of(self, row: Mapping[str, Any], split: str, source: str) -> str:
        if self.columns.split is None:
            return split
        value = as_text(row.get(self.columns.split), self.columns.split, source).strip().lower()
        value = {"validation": "dev", "valid": "dev", "val": "dev", "training": "train"}.get(value, value)
        if value not in SPLITS:
            raise DataError(f"the split must be train, dev or test, got {value!r}.", where=source)
        return value

    def _draw(
        self, rows: Sequence[Example], fraction: float, at_least: int, split: str
    ) -> tuple[list[Example], list[Example]]:
        """Split off a share of every class, never the whole class; where rows are grouped, of the passages."""
        if rows and rows[0].group:
            units = list(dict.fromkeys(map(_unit, rows)))
            its = set(draw([units], fraction, at_least, stream(self.split_seed, f"split:{split}"))[1])
            return [e for e in rows if _unit(e) not in its], [e for e in rows if _unit(e) in its]
        return draw(self._groups(rows).values(), fraction, at_least, stream(self.split_seed, f"split:{split}"))

    def _few(self, rows: Sequence[Example], shots: int, seed: int, split: str) -> list[Example]:
        rng, where = stream(seed, f"subset:{split}"), "task.shots" if split == "train" else "task.dev_shots"
        if split != "train" and rows and rows[0].group:
            return whole_groups(rows, shots * max(1, len(self._classes)), rng, "rows", split, where)
        groups = self._groups(rows)
        picked: list[Example] = []
        for label in self._labels(split) or ("",):
            noun = f"rows of class {label!r}" if label else "rows"
            picked += few(groups.get(label, []), shots, rng, noun, split, where)
        return picked

    def _check(self, splits: Mapping[str, Sequence[Example]]) -> None:
        check_filled(splits)
        present = {e.label for e in splits["train"]}
        for label in self._labels("train"):
            if label not in present:
                raise DataError(
                    f"the class {label!r} has label words but no row in train.",
                    where=f"task.label_words.{label}",
                    fix="Remove the class or add rows for it.",
                )

    def _auto_template(self, example: Example) -> str:
        texts = [c for c in example.fields if c not in ("id", self.columns.id, *self.choices)]
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

    def _check_only(self) -> None:
        for split, labels in self.only.items():
            for label in labels:
                if label not in self._classes:
                    known = suggest(label, self._classes) or None
                    raise ConfigError(f"there is no class {label!r}.", where=f"task.only.{split}", fix=known)


def _unit(example: Example) -> str:
    """What must not be divided among splits: the passage where rows are grouped, else the row."""
    return example.group[0] if example.group else example.id


def _check_metrics(metrics: Sequence[str], headline: str | None) -> None:
    for name in metrics:
        if name not in METRICS:
            raise ConfigError(f"there is no metric {name!r}.", where="task.metrics", fix=suggest(name, METRICS))
    known = (*metrics, *([MEAN] if len(metrics) > 1 else []))
    if headline is not None and headline not in known:
        fix = f"Named: {', '.join(known)}." if known else "Name it in task.metrics."
        raise ConfigError(f"the task names no metric {headline!r}.", where="task.headline", fix=fix)
