"""Splits: which files hold them, drawing those that have none, drawing a few rows. What task kinds have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Any, TypeVar

import numpy as np

from trimtab.errors import ConfigError, DataError
from trimtab.tasks import SPLITS
from trimtab.tasks.forms import Reading
from trimtab.tasks.reading import Places
from trimtab.types import Example

T = TypeVar("T")


class FromFiles(ABC):
    """A task whose splits are files, so that runs of another task can be scored on the rows of one.

    Attributes:
        files: split -> file, as `files_of` gives them; a test file alone is for scoring.
        metrics, headline, reading, submission: see `trimtab.tasks.Task`.
    """

    name: str
    files: Mapping[str, str]
    metrics: tuple[str, ...] = ()
    headline: str | None = None
    reading: Reading = Reading()
    submission: str | None = None

    @abstractmethod
    def examples(self, split: str, places: Places) -> tuple[Example, ...]:
        """The rows of one file, as they stand in it.

        Raises:
            DataError: the split has no file of its own; else as `load`.
        """

    def file_of(self, split: str) -> str:
        """The file of a split.

        Raises:
            DataError: it has none of its own.
        """
        if split not in self.files:
            known = f"Splits with a file: {', '.join(self.files)}."
            raise DataError(f"the task {self.name!r} has no file of the {split} split.", where="split", fix=known)
        return self.files[split]

    def check_train(self) -> None:
        """Refuse to be learned from without a training file.

        Raises:
            DataError: there is a test file alone.
        """
        if "train" not in self.files:
            raise DataError(
                "the task has a test file only, to score prompts that were trained on another task.",
                where="task",
                fix="Use trimtab evaluate RUN --task, or give task.train.",
            )


def files_of(
    path: str | None, train: str | None, dev: str | None, test: str | None, *, test_alone: bool = False
) -> dict[str, str]:
    """The file of each split that has one; `path` stands for train, as the others are drawn from it.

    Args:
        test_alone: whether there may be a test file only, to score prompts of another task on.

    Raises:
        ConfigError: both `path` and `train`, or neither; or `path` beside other files.
    """
    if test_alone and test and not (path or train or dev):
        return {"test": test}
    if (path is None) == (train is None):
        raise ConfigError("give either path (one file) or train (and dev, test).", where="task")
    if path is not None and (dev or test):
        raise ConfigError("path holds all splits; dev and test go with train.", where="task")
    return {"train": path or train or "", **{k: v for k, v in (("dev", dev), ("test", test)) if v}}


def claim_id(seen: MutableMapping[str, str], name: str, source: str, fix: str) -> None:
    """Remember where an id stands.

    Raises:
        DataError: it stands elsewhere, too.
    """
    if name in seen:
        raise DataError(f"the id {name!r} stands at {seen[name]} too.", where=source, fix=fix)
    seen[name] = source


def draw(
    groups: Iterable[Sequence[T]], fraction: float, at_least: int, rng: np.random.Generator
) -> tuple[list[T], list[T]]:
    """Split off a share of every group, never the whole group; the rest first.

    Args:
        fraction: of all rows.
        at_least: rows in all, where a third of them allows it.
    """
    members = list(groups)
    total = sum(map(len, members))
    share = max(fraction, min(at_least, total // 3) / max(1, total))
    kept: list[T] = []
    drawn: list[T] = []
    for its in members:
        order = rng.permutation(len(its))
        n = min(max(1, round(share * len(its))), len(its) - 1)
        drawn += [its[i] for i in sorted(order[:n])]
        kept += [its[i] for i in sorted(order[n:])]
    return kept, drawn


def few(rows: Sequence[T], wanted: int, rng: np.random.Generator, noun: str, split: str, where: str) -> list[T]:
    """So many of the rows, in their order.

    Raises:
        DataError: there are fewer; `noun` says what they are, `where` is the option that asks for them.
    """
    if len(rows) < wanted:
        raise DataError(f"{wanted} {noun} are asked for in {split}, there are {len(rows)}.", where=where)
    return [rows[i] for i in sorted(rng.choice(len(rows), wanted, replace=False))]


def whole_groups(
    rows: Sequence[Example], wanted: int, rng: np.random.Generator, noun: str, split: str, where: str
) -> list[Example]:
    """Groups in a random order until they have so many rows; the rows in their order.

    Raises:
        DataError: as `few`.
    """
    sizes = Counter(row.group for row in rows)
    if len(rows) < wanted:
        raise DataError(f"{wanted} {noun} are asked for in {split}, there are {len(rows)}.", where=where)
    names, taken, count = list(sizes), set[tuple[str, ...]](), 0
    for i in rng.permutation(len(names)):
        if count >= wanted:
            break
        taken.add(names[i])
        count += sizes[names[i]]
    return [row for row in rows if row.group in taken]


def check_filled(splits: Mapping[str, Sequence[Any]], fix: str = "Give more rows, or files per split.") -> None:
    """Every split has rows.

    Raises:
        DataError: one has none.
    """
    for split in SPLITS:
        if not splits.get(split):
            raise DataError(f"the {split} split is empty.", where="task", fix=fix)
