"""Sentences with a tag for every word, from files as in CoNLL or rows of JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, final

from pydantic import Field

from trimtab.chat import TemplateSource
from trimtab.errors import ConfigError, DataError, suggest
from trimtab.registry import tasks
from trimtab.seeding import stream
from trimtab.tasks import SPLITS, Task
from trimtab.tasks.bio import parts
from trimtab.tasks.reading import Places, resolve_path
from trimtab.tasks.splits import FromFiles, check_filled, draw, few, files_of
from trimtab.tasks.tagged import Sentence, Tagged, read_conll, read_rows
from trimtab.types import Example
from trimtab.verbalizers import Verbalizer

_MIN_DEV = 50
Column = Annotated[int | str | None, Field(union_mode="left_to_right")]


@final
@tasks.register("tagged")
class TaggedSentences(FromFiles):
    """Sentences with a tag for every word: give `path`, or `train` and where they exist `dev` and `test`.

    Files that end in .jsonl or .parquet hold a sentence a row, all others a word a line, see `trimtab.tasks.tagged`.
    The field `text` is the words, joined by single spaces. Tags of any scheme are read as BIO2.

    Splits that have no file are drawn from the training sentences with `split_seed`: `test_fraction` for test,
    `dev_fraction` (but at least 50 sentences where a third of them allows it) for dev.

    A tag that does not occur in train cannot be predicted. Where it occurs in dev or test it counts as an error, and
    the run says how often.

    Args:
        name: how the task is called in tables and run ids.
        path: one file for all splits.
        train: the training sentences.
        dev: those that select the checkpoint.
        test: those that are reported.
        token_column: the column of words: of a word a line its number from 0 (negative from the end; the first by
            default), of rows its name (`tokens`).
        tag_column: the column of tags, likewise (the last; `tags`).
        predicate_column: of rows, the column of the predicate whose arguments are tagged: the position of a word, from
            0, or a text. It becomes the field `predicate`.
        tags: the tags as BIO2, in the order of the scores; by default O and then those of the train file, sorted.
        template: see `trimtab.templates`; `auto` puts the prompt before the text, and behind it a separator and the
            predicate, where there is one.
        truncate: fields that may be cut, first to last; empty: the longest first.
        max_length: positions a row may take, slots included; 0 for what the backbone has.
        train_rows: how many training sentences are learned from, drawn with the `subset` seed; 0 for all. The tags
            remain those of all.
        dev_fraction: share of the training sentences, where there is no dev file.
        test_fraction: share of all sentences, where there is no test file.
        split_seed: of drawn splits.
    """

    def __init__(
        self,
        *,
        name: str = "tagged",
        path: str | None = None,
        train: str | None = None,
        dev: str | None = None,
        test: str | None = None,
        token_column: Column = None,
        tag_column: Column = None,
        predicate_column: str | None = None,
        tags: list[str] = [],  # noqa: B006  (a schema default, never mutated)
        template: TemplateSource = "auto",
        truncate: list[str] = [],  # noqa: B006  (likewise)
        max_length: Annotated[int, Field(ge=0)] = 0,
        train_rows: Annotated[int, Field(ge=0)] = 0,
        dev_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1,
        test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2,
        split_seed: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        self.files = files_of(path, train, dev, test, test_alone=True)
        self.name, self.token_column, self.tag_column = name, token_column, tag_column
        self.predicate_column, self.template = predicate_column, template
        self.tags = _checked(tags)
        self.truncate, self.max_length, self.train_rows = tuple(truncate), max_length or None, train_rows
        self.dev_fraction, self.test_fraction, self.split_seed = dev_fraction, test_fraction, split_seed

    def load(self, subset_seed: int, places: Places) -> Task:
        """Read the files, draw missing splits and the training sentences.

        Raises:
            DataError: see `trimtab.tasks.tagged`; also an empty split, no entity in train, a tag of train that is not
                among `tags`, or fewer training sentences than `train_rows`.
        """
        self.check_train()
        read = {split: self._read(split, given, places) for split, given in self.files.items()}
        notes = [f"{self.files[s]}: {t.remark}" for s, t in read.items() if t.remark]
        tags = self._tags(read["train"].sentences)
        splits = {split: [_example(s) for s in t.sentences] for split, t in read.items()}
        for split, share, least in (("test", self.test_fraction, 0), ("dev", self.dev_fraction, _MIN_DEV)):
            if split not in splits:
                rng = stream(self.split_seed, f"split:{split}")
                splits["train"], splits[split] = draw([splits["train"]], share, least, rng)
        if self.train_rows:
            rng = stream(subset_seed, "subset:train")
            splits["train"] = few(splits["train"], self.train_rows, rng, "sentences", "train", "task.train_rows")
        check_filled(splits)
        notes += _unlearned(splits, tags)
        ordered = {s: tuple(splits[s]) for s in SPLITS}
        verbalizer = Verbalizer.of({t: [t] for t in tags}, where="task.tags")
        template = self._auto_template() if self.template == "auto" else self.template
        return Task(
            self.name, ordered, template, self.truncate, verbalizer, self.max_length, "tags", notes=tuple(notes)
        )

    def examples(self, split: str, places: Places) -> tuple[Example, ...]:
        return tuple(_example(s) for s in self._read(split, self.file_of(split), places).sentences)

    def _read(self, split: str, given: str, places: Places) -> Tagged:
        path, shown = resolve_path(given, places), given if ":" in given else None
        stem = "sentence" if self.files.keys() == {"train"} else split
        words, tags = self.token_column, self.tag_column
        if Path(path).suffix.lower() in (".jsonl", ".parquet"):
            names = {
                "words": "tokens" if words is None else str(words),
                "tags": "tags" if tags is None else str(tags),
            }
            return read_rows(path, shown, **names, predicate=self.predicate_column, stem=stem)
        if self.predicate_column is not None:
            raise ConfigError(
                "a predicate needs a sentence a row.",
                where="task.predicate_column",
                fix='Write .jsonl: {"tokens": [...], "tags": [...], "predicate": 3}.',
            )
        for option, value in (("token_column", words), ("tag_column", tags)):
            if isinstance(value, str):
                raise ConfigError(
                    f"columns of a file with a word a line have no names, got {value!r}.",
                    where=f"task.{option}",
                    fix="Give the number of the column: 0 is the first, -1 the last.",
                )
        word_column, tag_column = 0 if words is None else int(words), -1 if tags is None else int(tags)
        return read_conll(path, shown, word_column=word_column, tag_column=tag_column, stem=stem)

    def _tags(self, sentences: Sequence[Sentence]) -> tuple[str, ...]:
        """The classes: as given, else O and the tags of the training sentences, sorted."""
        seen = {t: s for s in reversed(sentences) for t in s.tags}
        if seen.keys() <= {"O"}:
            raise DataError(
                "all tags of train are O, so there is nothing to learn.",
                where=self.files["train"],
                fix="Check task.tag_column.",
            )
        for tag in sorted(seen) if self.tags else ():
            if tag not in self.tags:
                raise DataError(
                    f"the sentence has the tag {tag!r}, which is not among task.tags.",
                    where=seen[tag].source,
                    fix=f"Add it. {suggest(tag, self.tags)}",
                )
        return self.tags or ("O", *sorted(seen.keys() - {"O"}))

    def _auto_template(self) -> str:
        return "{prompt} {text}" if self.predicate_column is None else "{prompt} {text} {sep} {predicate}"


def _checked(tags: Sequence[str]) -> tuple[str, ...]:
    for i, tag in enumerate(tags):
        letter, _ = parts(tag, f"task.tags.{i}")
        if letter not in ("O", "B", "I"):
            raise ConfigError(
                f"the tag {tag!r} is not BIO2.", where=f"task.tags.{i}", fix="Tags of any scheme are read as BIO2."
            )
        if tag in tags[:i]:
            raise ConfigError(f"the tag {tag!r} stands twice.", where=f"task.tags.{i}")
    if tags and "O" not in tags:
        raise ConfigError("the tag O is missing, which words outside of entities have.", where="task.tags")
    return tuple(tags)


def _example(sentence: Sentence) -> Example:
    fields = {**sentence.extra, "text": " ".join(sentence.words)}
    return Example(sentence.id, fields, None, sentence.source, sentence.words, sentence.tags)


def _unlearned(splits: Mapping[str, Sequence[Example]], tags: Sequence[str]) -> list[str]:
    """What is scored but was never seen in training, in sentences."""
    learned = {tag for e in splits["train"] for tag in e.tags}
    notes = []
    for split in ("dev", "test"):
        counts = Counter(tag for e in splits[split] for tag in e.tags if tag not in learned)
        if counts:
            words = "1 word has a tag" if counts.total() == 1 else f"{counts.total()} words have tags"
            notes.append(f"In {split} {words} that train lacks, which cannot be learned: {', '.join(sorted(counts))}.")
    idle = [tag for tag in tags if tag not in learned]
    if idle:
        notes.append(f"No training sentence has {', '.join(idle)}.")
    return notes
