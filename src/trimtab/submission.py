"""Predictions as SuperGLUE's server takes them: one JSONL file per task, named `BoolQ.jsonl` ... `AX-b.jsonl`.

| task | a line |
|---|---|
| BoolQ, WiC | `{"idx": 0, "label": "true"}` |
| CB, RTE, AX-b, AX-g | `{"idx": 0, "label": "entailment"}` |
| COPA | `{"idx": 0, "label": 1}` |
| WSC | `{"idx": 0, "label": "True"}` |
| MultiRC | `{"idx": 0, "passage": {"questions": [{"idx": 0, "answers": [{"idx": 0, "label": 1}]}]}}` |
| ReCoRD | `{"idx": 0, "label": "an entity"}`, a line per query |
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from trimtab.benchmark_metrics import TRUE, Judged, best_candidate
from trimtab.errors import ConfigError, DataError

Lines = list[dict[str, Any]]
Writer = Callable[[Sequence[Judged], Sequence[str]], Lines]


def file_name(task: str) -> str:
    """What the server calls the file of a task.

    >>> file_name("AX-b")
    'AX-b.jsonl'
    """
    return f"{task}.jsonl"


def submission(task: str | None, judged: Sequence[Judged], classes: Sequence[str]) -> tuple[str, int]:
    """The content of a task's file, and how many rows got the first class because what was written names none.

    Raises:
        ConfigError: no task of SuperGLUE.
        DataError: a row without its number, or two rows with the same.
    """
    writer = check_task(task)
    is_named = [j.label is not None or not classes for j in judged]
    filled = [j if named else replace(j, label=classes[0]) for j, named in zip(judged, is_named, strict=True)]
    _check(filled)
    lines = writer(filled, classes)
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), is_named.count(False)


def check_task(task: str | None) -> Writer:
    """What writes the file of a task; see `submission`."""
    if task is None or task not in WRITERS:
        raise ConfigError(
            f"{'the task' if task is None else repr(task)} is none of SuperGLUE's, so there is no format to write.",
            where="--format",
            fix=f"Name it with --task superglue/..., or train with task.submission, one of {', '.join(WRITERS)}.",
        )
    return WRITERS[task]


def _check(judged: Sequence[Judged]) -> None:
    seen: dict[tuple[str, ...], str] = {}
    for j in judged:
        e = j.example
        place = e.source or e.id
        if not e.fields.get("idx", "").isdecimal():
            raise DataError("the row has no number 'idx', by which the server knows it.", where=place)
        name = (*e.group, e.fields["idx"], e.fields.get("entity", ""))
        if name in seen:
            raise DataError(f"the number {e.fields['idx']} stands at {seen[name]} too.", where=place)
        seen[name] = place


def _number(j: Judged) -> int:
    return int(j.example.fields["idx"])


def _labels(judged: Sequence[Judged], classes: Sequence[str]) -> Lines:
    return [{"idx": _number(j), "label": j.label} for j in judged]


def _capitalized(judged: Sequence[Judged], classes: Sequence[str]) -> Lines:
    return [{"idx": _number(j), "label": str(j.label).capitalize()} for j in judged]


def _positions(judged: Sequence[Judged], classes: Sequence[str]) -> Lines:
    return [{"idx": _number(j), "label": list(classes).index(str(j.label))} for j in judged]


def _nested(judged: Sequence[Judged], classes: Sequence[str]) -> Lines:
    found: dict[str, dict[str, Lines]] = {}
    for j in judged:
        passage, question = j.example.group
        answers = found.setdefault(passage, {}).setdefault(question, [])
        answers.append({"idx": _number(j), "label": int(j.label == TRUE)})
    return [
        {"idx": int(p), "passage": {"questions": [{"idx": int(q), "answers": its} for q, its in questions.items()]}}
        for p, questions in found.items()
    ]


def _entities(judged: Sequence[Judged], classes: Sequence[str]) -> Lines:
    groups: dict[tuple[str, ...], list[Judged]] = {}
    for j in judged:
        groups.setdefault(j.example.group, []).append(j)
    return [{"idx": _number(its[0]), "label": best_candidate(its)} for its in groups.values()]


WRITERS: Mapping[str, Writer] = {
    "BoolQ": _labels,
    "CB": _labels,
    "COPA": _positions,
    "MultiRC": _nested,
    "ReCoRD": _entities,
    "RTE": _labels,
    "WiC": _labels,
    "WSC": _capitalized,
    "AX-b": _labels,
    "AX-g": _labels,
}
"""By the name of the task."""
