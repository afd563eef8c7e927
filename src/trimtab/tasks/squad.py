"""Reading questions whose answers are spans of a context, in the format of SQuAD.

* SQuAD 1.1 (Rajpurkar et al. 2016) and 2.0 (Rajpurkar et al. 2018, where some questions have no answer): one JSON file
  of `data`, `paragraphs` (`context`) and `qas` (`id`, `question`, `answers`, `is_impossible`); the readings of
  `plausible_answers` are left out.
* the flat form: a JSONL (or Parquet) row for each question, `answers` being `{"text": [...], "answer_start": [...]}`,
  both empty where there is no answer.

Offsets count characters (Unicode code points), as Python does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.errors import DataError
from trimtab.tasks.reading import parse_json, part, read_lines, read_table

_SHOWN = 60


@dataclass(frozen=True)
class Question:
    """A question about a context.

    Attributes:
        answers: right answers, each with the offset of its first character in `context`; annotators often agree, so
            some stand twice. None where `is_impossible`.
        source: `file:line`, or `file:id` where the file is one JSON value.
    """

    id: str
    question: str
    context: str
    answers: tuple[tuple[str, int], ...]
    is_impossible: bool
    source: str


def read_squad(path: Path, name: str | None = None, *, repair_offsets: bool = False) -> tuple[Question, ...]:
    """Read a `.json` file of SQuAD, or `.jsonl` / `.parquet` in the flat form.

    Args:
        path: the file.
        name: how errors call it; the path by default.
        repair_offsets: an answer that does not stand at its offset is sought in the context, and the place nearest to
            the offset is taken.

    Raises:
        DataError: a missing or malformed file, a missing part, an empty question or context, an id that stands twice,
            an answer that does not stand where it should, answers to an impossible question or none to another.
    """
    shown = name or str(path)
    flat = path.suffix.lower() in (".jsonl", ".parquet")
    seen: dict[str, str] = {}
    questions = []
    for question in _flat(path, shown) if flat else _nested(path, shown):
        if question.id in seen:
            other = f" at {seen[question.id]} too" if flat else " twice"
            raise DataError(f"the id {question.id!r} stands{other}.", where=question.source, fix="Make the ids unique.")
        seen[question.id] = question.source
        questions.append(_checked(question, repair_offsets))
    if not questions:
        raise DataError("the file has no questions.", where=shown)
    return tuple(questions)


def _nested(path: Path, shown: str) -> Iterator[Question]:
    data = part(parse_json("\n".join(read_lines(path, shown)), shown), "data", list, shown)
    for i, article in enumerate(data):
        for j, paragraph in enumerate(part(article, "paragraphs", list, f"{shown}:data[{i}]")):
            at = f"{shown}:data[{i}].paragraphs[{j}]"
            context = part(paragraph, "context", str, at)
            for k, qa in enumerate(part(paragraph, "qas", list, at)):
                own = _id(qa, f"{at}.qas[{k}]")
                source = f"{shown}:{own}"
                given = part(qa, "answers", list, source)
                answers = [(part(a, "text", str, source), part(a, "answer_start", int, source)) for a in given]
                impossible = _impossible(qa, False, source)
                yield Question(own, part(qa, "question", str, source), context, tuple(answers), impossible, source)


def _flat(path: Path, shown: str) -> Iterator[Question]:
    table = read_table(path, shown)
    for row, at in zip(table.rows, table.sources, strict=True):
        question, context = part(row, "question", str, at), part(row, "context", str, at)
        answers = part(row, "answers", dict, at)
        texts, starts = part(answers, "text", list, at), part(answers, "answer_start", list, at)
        if len(texts) != len(starts):
            raise DataError(f"there are {len(texts)} answers and {len(starts)} offsets.", where=at)
        cells = [{"text": t, "answer_start": s} for t, s in zip(texts, starts, strict=True)]
        pairs = tuple((part(c, "text", str, at), part(c, "answer_start", int, at)) for c in cells)
        yield Question(_id(row, at), question, context, pairs, _impossible(row, not pairs, at), at)


def _id(holder: Any, at: str) -> str:
    if isinstance(holder, dict) and isinstance(number := holder.get("id"), int) and not isinstance(number, bool):
        return str(number)
    if not (own := part(holder, "id", str, at)):
        raise DataError("the id is empty.", where=at)
    return str(own)


def _impossible(holder: Mapping[str, Any], default: bool, at: str) -> bool:
    said = holder.get("is_impossible")
    if said is not None and not isinstance(said, bool):
        raise DataError(f"'is_impossible' must be true or false, got {said!r}.", where=at)
    return default if said is None else said


def _checked(question: Question, repair: bool) -> Question:
    """The same question, with offsets that are right."""
    at = question.source
    for what, text in (("question", question.question), ("context", question.context)):
        if not text.strip():
            raise DataError(f"the {what} is empty.", where=at)
    if question.is_impossible and question.answers:
        raise DataError("the question is impossible and has answers.", where=at, fix="Remove one of them.")
    if not question.is_impossible and not question.answers:
        raise DataError("the question has no answer.", where=at, fix="If none exists, write is_impossible: true.")
    answers = tuple((text, _offset(question, text, start, repair)) for text, start in question.answers)
    return Question(question.id, question.question, question.context, answers, question.is_impossible, at)


def _offset(question: Question, text: str, start: int, repair: bool) -> int:
    if not text.strip():
        raise DataError(f"an answer of question {question.id!r} is empty.", where=question.source)
    if start >= 0 and question.context.startswith(text, start):
        return start
    places = _places(question.context, text)
    if places and repair:
        return min(places, key=lambda place: abs(place - start))
    shown = text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
    wrong = f"does not stand at character {start} of its context"
    right = f"it stands at {_listed(places)}" if places else "it stands nowhere in it"
    raise DataError(
        f"the answer {shown!r} of question {question.id!r} {wrong}; {right}.",
        where=question.source,
        fix="Correct answer_start, counted in characters from 0, or repair offsets while reading."
        if places
        else "An answer must be a literal part of the context.",
    )


def _places(context: str, text: str) -> list[int]:
    places, at = [], context.find(text)
    while at >= 0:
        places.append(at)
        at = context.find(text, at + 1)
    return places


def _listed(places: Sequence[int]) -> str:
    return ", ".join(map(str, places[:3])) + (f" and {len(places) - 3} more" if len(places) > 3 else "")
