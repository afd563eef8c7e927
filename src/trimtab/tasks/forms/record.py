"""ReCoRD (Zhang et al. 2018), as SuperGLUE writes it: a line is a passage whose entities are marked, with queries in
which an entity stands as `@placeholder`. Several spellings of it may be right.

* `record`: a row per entity of the passage, true or false, the entity in the place of the placeholder (P-tuning v2's
  and jiant's way). The entities of a query are scored together: the likeliest is the answer.
* `record_query`: a row per query, whose answer is written. The spellings to learn from are joined by "; ", as in the
  released code of Residual Prompt Tuning.

Entities that are spelled alike are one. Offsets count characters, the last one included. The passage is left as it is,
its marks `@highlight` too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

from trimtab.errors import DataError
from trimtab.tasks.forms import FlatRow, forms, number
from trimtab.tasks.reading import part

PLACEHOLDER = "@placeholder"
SEVERAL = "; "
"""What stands between several spellings of an answer that is written."""

_EXPECTS = (
    '{"idx": 0, "passage": {"text": "...", "entities": [{"start": 0, "end": 4}]}, "qas": [{"idx": 0, "query": "... '
    '@placeholder ...", "answers": [{"start": 0, "end": 4, "text": "..."}]}]}'
)


@dataclass(frozen=True)
class _Query:
    """`answers` is None where they are not known."""

    passage: str
    entities: tuple[str, ...]
    query: str
    answers: tuple[tuple[str, int], ...] | None
    group: tuple[str, str]


@final
@forms.register("record")
class Record:
    """Fields `passage`, `query` with the entity in place, `entity`, and the query's number `idx`."""

    expects: ClassVar[str] = _EXPECTS

    def rows(self, line: Mapping[str, Any], source: str) -> list[FlatRow]:
        """A row per query and entity, in the order of the passage."""
        found = []
        for q in _queries(line, source):
            right = {text for text, _ in q.answers or ()}
            for k, entity in enumerate(q.entities):
                cells: dict[str, Any] = {
                    "passage": q.passage, "query": q.query.replace(PLACEHOLDER, entity), "entity": entity,
                    "idx": q.group[1],
                }  # fmt: skip
                if q.answers is not None:
                    cells["label"] = entity in right
                found.append(FlatRow(cells, source, "-".join((*q.group, str(k))), q.group, q.answers or ()))
        return found


@final
@forms.register("record_query")
class RecordQuery:
    """Fields `passage`, `query`, `entities` (by commas), the query's number `idx`, and the text to write, `answer`."""

    expects: ClassVar[str] = _EXPECTS

    def rows(self, line: Mapping[str, Any], source: str) -> list[FlatRow]:
        """A row per query."""
        found = []
        for q in _queries(line, source):
            cells = {"passage": q.passage, "query": q.query, "entities": ", ".join(q.entities), "idx": q.group[1]}
            if q.answers is not None:
                cells["answer"] = SEVERAL.join(dict.fromkeys(text for text, _ in q.answers))
            found.append(FlatRow(cells, source, "-".join(q.group), q.group, q.answers or ()))
        return found


def _queries(line: Mapping[str, Any], source: str) -> Iterator[_Query]:
    of, passage = number(line, "idx", source), part(line, "passage", dict, source)
    text, seen = part(passage, "text", str, source), set[str]()
    entities = tuple(dict.fromkeys(_marked(text, e, source) for e in part(passage, "entities", list, source)))
    if not entities:
        raise DataError("the passage has no entities, so no query can be answered.", where=source)
    for given in part(line, "qas", list, source):
        query, name = part(given, "query", str, source), number(given, "idx", source)
        if name in seen:
            raise DataError(f"the query with the number {name} stands twice.", where=source, fix="Number them anew.")
        seen.add(name)
        if PLACEHOLDER not in query:
            raise DataError(f"there is no {PLACEHOLDER} in query {name}.", where=source)
        answers = None
        if "answers" in given:
            its = part(given, "answers", list, source)
            answers = tuple((part(a, "text", str, source), part(a, "start", int, source)) for a in its)
            if not answers:
                raise DataError(f"query {name} has no answers.", where=source, fix="Leave 'answers' out to predict.")
        yield _Query(text, entities, query, answers, (of, name))


def _marked(text: str, entity: Any, source: str) -> str:
    start, end = part(entity, "start", int, source), part(entity, "end", int, source)
    if not 0 <= start <= end < len(text):
        what = f"an entity goes from character {start} to {end}, and the passage has {len(text)} characters."
        raise DataError(what, where=source)
    return text[start : end + 1]
