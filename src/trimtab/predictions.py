"""What is said of examples: one record each, by the sort of answer, and the metrics of a split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Prediction:
    """One classified example.

    Attributes:
        label: the class; None where the written `text` is no label word of any class.
        scores: a probability per class; none where the answer was written.
        text: what the model wrote, if it did; of a choice, its text.
    """

    id: str
    label: str | None
    scores: Mapping[str, float]
    gold: str | None = None
    text: str | None = None

    def as_json(self) -> dict[str, Any]:
        """`{id, label[, text][, scores][, gold]}`, scores as probabilities rounded to 6 places."""
        record: dict[str, Any] = {"id": self.id, "label": self.label}
        if self.text is not None:
            record["text"] = self.text
        if self.scores:
            record["scores"] = {c: round(s, 6) for c, s in self.scores.items()}
        return record if self.gold is None else record | {"gold": self.gold}


@dataclass(frozen=True)
class Written:
    """The free text that the model wrote for one example."""

    id: str
    text: str
    gold: str | None = None

    def as_json(self) -> dict[str, Any]:
        """`{id, text[, gold]}`."""
        record = {"id": self.id, "text": self.text}
        return record if self.gold is None else record | {"gold": self.gold}


@dataclass(frozen=True)
class Entity:
    """What several words of a sentence name together: `tokens[start:end]`, joined by spaces in `text`."""

    type: str
    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Tagged:
    """One sentence with a tag for every word.

    Attributes:
        tokens: its words.
        tags: as many as words, just as they were predicted; O for words that were not read.
        entities: what the tags say, where a tag that continues no entity begins one.
        gold: the right tags, if known.
    """

    id: str
    tokens: tuple[str, ...]
    tags: tuple[str, ...]
    entities: tuple[Entity, ...]
    gold: tuple[str, ...] | None = None

    def as_json(self) -> dict[str, Any]:
        """`{id, tokens, tags, entities[, gold]}`."""
        entities = [vars(e).copy() for e in self.entities]
        record = {"id": self.id, "tokens": list(self.tokens), "tags": list(self.tags), "entities": entities}
        return record if self.gold is None else record | {"gold": list(self.gold)}


@dataclass(frozen=True)
class Extracted:
    """The answer to one question, `context[start:end]`.

    Attributes:
        text: the answer; empty where there is none, then `start` and `end` are None.
        score: its share in the softmax over the best answers ("none" among them, where that is an answer).
        gold: the right answers, if known; none for a question without an answer.
    """

    id: str
    text: str
    start: int | None
    end: int | None
    score: float
    gold: tuple[str, ...] | None = None

    def as_json(self) -> dict[str, Any]:
        """`{id, text, start, end, score[, gold]}`, the score rounded to 6 places."""
        record = {"id": self.id, "text": self.text, "start": self.start, "end": self.end, "score": round(self.score, 6)}
        return record if self.gold is None else record | {"gold": list(self.gold)}


@dataclass(frozen=True)
class Ranked:
    """The words that fit best into one text.

    Attributes:
        text: the first of them.
        top: the best words with their probabilities, best first.
        gold: the right word, if known.
        rank: its place among all words that may be answers, from 1; None where it is not known or is none of them.
    """

    id: str
    text: str
    top: tuple[tuple[str, float], ...]
    gold: str | None = None
    rank: int | None = None
    relation: str = ""

    def as_json(self) -> dict[str, Any]:
        """`{id, text, top: [{text, score}][, relation][, gold, rank]}`, scores rounded to 6 places."""
        top = [{"text": text, "score": round(score, 6)} for text, score in self.top]
        record = {
            "id": self.id,
            "text": self.text,
            "top": top,
            **({"relation": self.relation} if self.relation else {}),
        }
        return record if self.gold is None else record | {"gold": self.gold, "rank": self.rank}


Record = Prediction | Written | Tagged | Extracted | Ranked


@dataclass(frozen=True)
class OfTask:
    """What is said of an example of one of several tasks."""

    task: str
    record: Record

    @property
    def id(self) -> str:
        """The example's."""
        return self.record.id

    def as_json(self) -> dict[str, Any]:
        """`{id, task, ...}`, the rest as of the task alone."""
        its = self.record.as_json()
        return {"id": its.pop("id"), "task": self.task, **its}


Records = list[Prediction] | list[Written] | list[Tagged] | list[Extracted] | list[Ranked]
"""What a user sees, one per example; all of one sort."""


@dataclass(frozen=True)
class Evaluation:
    """Metrics and predictions of one prompt on one split."""

    metrics: Mapping[str, Any]
    predictions: tuple[Record | OfTask, ...] = field(default=(), repr=False)
