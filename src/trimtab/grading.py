"""From scores, or from what was written, to answers and metrics: the readout's own, and those that the task names.

The same code grades dev during training and any split after it, so the two cannot differ.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, mode
from typing import Any

from jaxtyping import Float
from torch import Tensor

from trimtab.benchmark_metrics import MEAN, Judged, benchmark
from trimtab.metrics import classification
from trimtab.predictions import Extracted, Prediction, Records, Tagged, Written
from trimtab.readouts import Reads, choosing, of_one_task
from trimtab.types import Example, Row
from trimtab.verbalizers import Verbalizer

_LETTERS = re.compile(r"[a-z]+")


@dataclass(frozen=True)
class Grader:
    """How the answers of one task are scored.

    Attributes:
        verbalizer: its classes and their label words.
        metrics: that the task names, see `trimtab.benchmark_metrics`.
        headline: the metric that stands for a run; None for the readout's.
        candidate: the field that what the model says is compared with, where classes say whether it is right.
        nothing_matches: whether an answer without words counts as the candidate, as in P-tuning's released code.
    """

    verbalizer: Verbalizer
    metrics: tuple[str, ...] = ()
    headline: str | None = None
    candidate: str | None = None
    nothing_matches: bool = False

    @property
    def parts(self) -> Mapping[str, Grader]:
        """Itself: there is one task."""
        return {"": self}

    def combined(self, found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """What stands for the run: the metrics of its task."""
        (its,) = found
        return dict(its)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of scores."""
        return self.verbalizer.classes

    def names(self, own: Sequence[str]) -> tuple[str, ...]:
        """The metrics that may select a checkpoint, the default first.

        Args:
            own: those of the readout.
        """
        first = () if self.headline is None else (self.headline,)
        basis = tuple(own) if self.candidate is None else ("accuracy", "macro_f1")
        mean = (MEAN,) if len(self.metrics) > 1 else ()
        return tuple(dict.fromkeys((*first, *basis, *self.metrics, *mean)))

    def measure(
        self, readout: Reads, scores: Float[Tensor, "N *C"], rows: Sequence[Row], **options: Any
    ) -> dict[str, Any]:
        """Metrics of scored rows whose right answers are known.

        Args:
            options: of the readout's `decide`.
        """
        classes = self.classes or [str(c) for c in range(scores.shape[-1])]
        chooser = choosing(readout)
        found = chooser.measure(rows, chooser.decide(scores, rows, **options), classes)
        if self.metrics:
            found |= self._benchmark([row.origin for row in rows], chooser.records(rows, scores, self.classes))
        return found

    def measure_texts(self, readout: Reads, rows: Sequence[Row], texts: Sequence[str]) -> dict[str, Any]:
        """Metrics of what was written for rows whose right answers are known."""
        examples = [row.origin for row in rows]
        records = self.named(examples, texts)
        found: dict[str, Any] = {}
        if self.classes:
            index: dict[str | None, int] = {None: -1, **{c: i for i, c in enumerate(self.classes)}}
            said = [index[r.label] for r in records if isinstance(r, Prediction)]
            found |= classification([index[e.label] for e in examples], said, self.classes)
        if self.candidate is None:
            found |= of_one_task(readout).measure(rows, texts, self.classes)
        return found | (self._benchmark(examples, records) if self.metrics else {})

    def named(self, examples: Sequence[Example], texts: Sequence[str]) -> Records:
        """What was written, and the class that it names where there are classes."""
        pairs = list(zip(examples, texts, strict=True))
        if self.verbalizer.is_free:
            return [Written(e.id, text, e.label) for e, text in pairs]
        return [Prediction(e.id, self._class_of(e, text), {}, e.label, text) for e, text in pairs]

    def _class_of(self, example: Example, text: str) -> str | None:
        if self.candidate is None:
            return self.verbalizer.class_of(text)
        return self.classes[int(means_the_same(text, example.fields[self.candidate], self.nothing_matches))]

    def _benchmark(self, examples: Sequence[Example], records: Records) -> dict[str, float]:
        return benchmark(self.metrics, judged(examples, records), self.classes)

    def constant(self, examples: Sequence[Example], metric: str) -> float | None:
        """What the best constant answer scores in a metric that the task names; None for other metrics."""
        if metric not in (*self.metrics, MEAN):
            return None
        if self.verbalizer.is_free:
            always = mode(str(e.label) for e in examples)
            tries = [[Judged(e, text=always) for e in examples]]
        else:
            tries = [[Judged(e, c, {c: 1.0}) for e in examples] for c in self.classes]
        return max(benchmark(self.metrics, its, self.classes)[metric] for its in tries)


@dataclass(frozen=True)
class Graders:
    """How the answers of several tasks are scored.

    Attributes:
        parts: by name; the headline of each is set.
    """

    parts: Mapping[str, Grader]

    def names(self, own: Sequence[Sequence[str]]) -> tuple[str, ...]:
        """The metrics that may select a checkpoint, the default first: the mean, and those of each task.

        Args:
            own: those of the readout of each task.
        """
        pairs = zip(self.parts.items(), own, strict=True)
        return (MEAN, *(f"{task}.{name}" for (task, part), theirs in pairs for name in part.names(theirs)))

    def combined(self, found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The mean over tasks of what stands for each, the mean loss, and each task's metrics under its name.

        Their rows are added up. Where no answers were asked for, there is no mean of them.
        """
        tasks = dict(zip(self.parts, found, strict=True))
        means: dict[str, Any] = {}
        if all("loss" in its for its in found):
            means["loss"] = fmean(its["loss"] for its in found)
        if all(part.headline in tasks[name] for name, part in self.parts.items()):
            means[MEAN] = fmean(tasks[name][str(part.headline)] for name, part in self.parts.items())
        if all("rows" in its for its in found):
            means["rows"] = sum(its["rows"] for its in found)
        flat = {
            f"{task}.{name}": value
            for task, its in tasks.items()
            for name, value in its.items()
            if isinstance(value, int | float) and name != "rows"
        }
        return {**means, **flat}


Grading = Grader | Graders
"""How a run is scored on its tasks."""

PLAIN = Grader(Verbalizer.free())
"""The metrics of the readout, and no others."""


def means_the_same(said: str, candidate: str, nothing_matches: bool = False) -> bool:
    """Whether one of two phrases has all words of the other: letters only, case aside (Raffel et al. 2020, appendix
    C.2.1 on WSC; P-tuning's code). Nothing means nothing.

    Args:
        nothing_matches: as in P-tuning's code, which takes an answer without words, all of which are in any phrase,
            for right.

    >>> means_the_same("the councilmen.", "The city councilmen"), means_the_same("", "The city councilmen")
    (True, False)
    """
    ours, theirs = (set(_LETTERS.findall(text.lower())) for text in (said, candidate))
    return (nothing_matches or bool(ours and theirs)) and (ours <= theirs or theirs <= ours)


def judged(examples: Sequence[Example], records: Records) -> list[Judged]:
    """Examples with what was said of them."""
    return [_judged(e, record) for e, record in zip(examples, list[Any](records), strict=True)]


def _judged(example: Example, record: Prediction | Written | Tagged | Extracted) -> Judged:
    if isinstance(record, Prediction):
        return Judged(example, record.label, record.scores, record.text)
    return Judged(example, text=record.text if isinstance(record, Written | Extracted) else None)
