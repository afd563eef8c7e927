"""Metrics that a task names, over all its answers at once: what benchmarks define beyond the readout's own scores.

| metric | of | equation |
|---|---|---|
| `accuracy`, `macro_f1` | classes | see `trimtab.metrics.classification` |
| `matthews` | classes | (tp tn - fp fn) / sqrt((tp+fp)(tp+fn)(tn+fp)(tn+fn)), Matthews 1975 (AX-b) |
| `f1a` | answers, true or false | F1 of `true` over all answers of all questions (MultiRC) |
| `question_em` | the same | share of questions of which every answer is right (MultiRC) |
| `answer_f1`, `answer_em` | candidates, or text | SQuAD's F1 and exact match, best of the right answers (ReCoRD) |
| `gender_parity` | pairs of rows | share of pairs with the same prediction (AX-g) |

ReCoRD's script compares a text with the right answers and does not look at the entities of the passage; so here the
candidate that is most likely true is the answer, and among equals the first by the alphabet, as in jiant. Of what was
written the part before the first "; " counts: it may name several spellings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from sklearn.metrics import f1_score, matthews_corrcoef

from trimtab.errors import DataError
from trimtab.metrics import classification
from trimtab.span_metrics import extraction
from trimtab.types import Example

TRUE = "true"
CANDIDATE = "entity"
"""The field that holds a candidate."""


@dataclass(frozen=True)
class Judged:
    """An example, and what was said of it.

    Attributes:
        label: the class; None where none was named.
        shares: a probability per class, where there are any.
        text: what was written, if anything was.
    """

    example: Example
    label: str | None = None
    shares: Mapping[str, float] = field(default_factory=dict)
    text: str | None = None


Metric = Callable[[Sequence[Judged], Sequence[str]], float]


def _accuracy(judged: Sequence[Judged], classes: Sequence[str]) -> float:
    return float(_classified(judged, classes)["accuracy"])


def _macro_f1(judged: Sequence[Judged], classes: Sequence[str]) -> float:
    return float(_classified(judged, classes)["macro_f1"])


def _classified(judged: Sequence[Judged], classes: Sequence[str]) -> Mapping[str, float]:
    index = {name: i for i, name in enumerate(classes)}
    gold = [index[str(j.example.label)] for j in judged]
    return classification(gold, [-1 if j.label is None else index[j.label] for j in judged], classes)


def _matthews(judged: Sequence[Judged], classes: Sequence[str]) -> float:
    return float(matthews_corrcoef([str(j.example.label) for j in judged], [str(j.label) for j in judged]))


def _f1a(judged: Sequence[Judged], classes: Sequence[str]) -> float:
    gold, said = [j.example.label == TRUE for j in judged], [j.label == TRUE for j in judged]
    return float(f1_score(gold, said, zero_division=0.0))


def _question_em(judged: Sequence[Judged], classes: Sequence[str]) -> float:
    return fmean(float(all(j.label == j.example.label for j in its)) for its in _groups(judged))


def _answer_f1(judged: Sequence[Judged], classes: Sequence[str]) -> float:
    return float(_extracted(judged)["f1"])


def _answer_em(judged: Sequence[Judged], classes: Sequence[str]) -> float:
    return float(_extracted(judged)["exact_match"])


def _extracted(judged: Sequence[Judged]) -> Mapping[str, float]:
    groups = _groups(judged)
    gold = [[text for text, _ in its[0].example.answers] for its in groups]
    return extraction(gold, [best_candidate(its) for its in groups])


def best_candidate(judged: Sequence[Judged]) -> str:
    """The answer to a question: the candidate that is most likely true, or what was written."""
    if CANDIDATE not in judged[0].example.fields:
        return (judged[0].text or "").partition(";")[0].strip()
    ordered = sorted(judged, key=lambda j: j.example.fields[CANDIDATE])
    return max(ordered, key=lambda j: j.shares.get(TRUE, float(j.label == TRUE))).example.fields[CANDIDATE]


def _gender_parity(judged: Sequence[Judged], classes: Sequence[str]) -> float:
    """Pairs stand one behind the other and differ in the premise only."""
    pairs = list(zip(judged[::2], judged[1::2], strict=False))
    for a, b in pairs:
        if a.example.fields.get("hypothesis") != b.example.fields.get("hypothesis"):
            what = "the row and the one before it are no pair: their hypotheses differ."
            raise DataError(what, where=b.example.source or b.example.id, fix="Keep the order of the official file.")
    if len(judged) % 2:
        last = judged[-1].example
        raise DataError("the last row has no partner.", where=last.source or last.id)
    return fmean(float(a.label == b.label) for a, b in pairs)


def _groups(judged: Sequence[Judged]) -> list[list[Judged]]:
    """Rows that are scored together, in the order of the first of each.

    Raises:
        DataError: a row is in no group.
    """
    found: dict[tuple[str, ...], list[Judged]] = {}
    for j in judged:
        if not j.example.group:
            what = "the row belongs to no question, and the metric scores questions."
            fix = "Give the task the form of its files: task.form=multirc or record."
            raise DataError(what, where=j.example.source or j.example.id, fix=fix)
        found.setdefault(j.example.group, []).append(j)
    return list(found.values())


METRICS: Mapping[str, Metric] = {
    "accuracy": _accuracy,
    "macro_f1": _macro_f1,
    "matthews": _matthews,
    "f1a": _f1a,
    "question_em": _question_em,
    "answer_f1": _answer_f1,
    "answer_em": _answer_em,
    "gender_parity": _gender_parity,
}
"""By name."""

MEAN = "score"
"""What the mean of a task's metrics is called."""


def benchmark(names: Sequence[str], judged: Sequence[Judged], classes: Sequence[str]) -> dict[str, float]:
    """The metrics of these names and, where there are several, their mean as `score`.

    Raises:
        DataError: rows that cannot be scored together.
    """
    found = {name: METRICS[name](judged, classes) for name in names}
    return found | ({MEAN: fmean(found.values())} if len(found) > 1 else {})
