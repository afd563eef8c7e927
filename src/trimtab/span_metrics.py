"""Scores of spans: entities in tagged sentences, and answers that are taken from a context. Pure functions.

Apart from `trimtab.metrics` because published numbers of these tasks come from fixed programs, seqeval and the scripts
of SQuAD, whose rules must be followed to the letter. So there are two normalizations of answers: `metrics.normalized`
is fair to text that a model wrote through any tokenizer, in any script; `_normalized` here is SQuAD's.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

from seqeval.metrics.sequence_labeling import get_entities

from trimtab.errors import DataError

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def tagging(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Precision, recall and F1 of entities, micro-averaged (Tjong Kim Sang & De Meulder 2003), in [0, 1].

    An entity counts where first word, last word and type are right. Entities are those that seqeval finds: a tag that
    continues no entity begins one. Where there is nothing to divide by, a score is 0 as in seqeval, with one exception:
    where neither side has an entity, nothing is missed and nothing invented, and all scores are 1.

    Args:
        gold: the right tags of each word, sentence by sentence; O, B-type or I-type.
        predicted: likewise, as many tags in each sentence.

    Returns:
        `{"entity_f1", "precision", "recall", "token_accuracy", "rows", "per_type"}`; `rows` counts sentences,
        `per_type` holds `{"f1", "precision", "recall", "entities"}` of each type that either side has, `entities` being
        how many are right ones. Without words `token_accuracy` is 1.

    Raises:
        DataError: a tag that is none.

    >>> found = tagging([["B-person", "I-person", "O", "B-group"]], [["B-person", "I-person", "B-group", "O"]])
    >>> found["entity_f1"], found["token_accuracy"], found["per_type"]["person"]["f1"]
    (0.5, 0.5, 1.0)
    """
    for tag in {t for side in (gold, predicted) for tags in side for t in tags}:
        if tag != "O" and (len(tag) < 3 or tag[:2] not in ("B-", "I-", "E-", "S-")):
            raise DataError(f"{tag!r} is no tag of an entity.", fix="Tags are O, B-type and I-type.")
    sides = [
        {(row, *entity) for row, tags in enumerate(side) for entity in get_entities(list(tags))}
        for side in (gold, predicted)
    ]
    pairs = [(g, p) for one, other in zip(gold, predicted, strict=True) for g, p in zip(one, other, strict=True)]
    types = sorted({kind for side in sides for _, kind, _, _ in side})
    overall = _scores(*sides)
    return {
        "entity_f1": overall["f1"],
        "precision": overall["precision"],
        "recall": overall["recall"],
        "token_accuracy": _mean([float(g == p) for g, p in pairs]) if pairs else 1.0,
        "rows": len(gold),
        "per_type": {
            kind: {**_scores(*of_type), "entities": len(of_type[0])}
            for kind in types
            for of_type in ([{e for e in side if e[1] == kind} for side in sides],)
        },
    }


def entities(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """The entities that the tags of a sentence say, as `tagging` counts them: type, first word, behind the last word.

    >>> entities(["B-person", "I-person", "O", "I-group"])
    [('person', 0, 2), ('group', 3, 4)]
    """
    return [(kind, first, last + 1) for kind, first, last in get_entities(list(tags))]


def _scores(gold: set[Any], predicted: set[Any]) -> dict[str, float]:
    if not gold and not predicted:
        return {"f1": 1.0, "precision": 1.0, "recall": 1.0}
    hits = len(gold & predicted)
    return {
        "f1": 2 * hits / (len(gold) + len(predicted)),
        "precision": hits / len(predicted) if predicted else 0.0,
        "recall": hits / len(gold) if gold else 0.0,
    }


def extraction(gold: Sequence[Sequence[str]], predicted: Sequence[str]) -> dict[str, Any]:
    """Exact match and word F1 of answers, by the evaluation script of SQuAD 2.0, as means over questions in [0, 1].

    Lower case, ASCII punctuation removed, articles removed, white space unified; the best of the right answers counts.
    A question without an answer is right where nothing is predicted. The script of SQuAD 1.1 differs only for answers
    of which nothing is left, such as "the": it gives them no F1.

    Args:
        gold: the right answers of each question; none where it has no answer. Not empty.
        predicted: the answers; empty for "there is none".

    Returns:
        `{"exact_match", "f1", "rows"}`. Where some questions have no answer also `no_answer` and, if some have one,
        `has_answer`, with the same scores of these questions alone.

    >>> extraction([["the Danube", "Danube river"], []], ["Danube.", "Vienna"])["f1"]
    0.5
    """
    pairs = list(zip(map(_usable, gold), predicted, strict=True))
    scores = [(_best(_exact, answers, p), _best(_f1, answers, p)) for answers, p in pairs]
    groups = {
        "has_answer": [s for s, (answers, _) in zip(scores, pairs, strict=True) if answers],
        "no_answer": [s for s, (answers, _) in zip(scores, pairs, strict=True) if not answers],
    }
    parts = {name: _summary(group) for name, group in groups.items() if group and groups["no_answer"]}
    return {**_summary(scores), **parts}


def best_threshold(
    gold: Sequence[Sequence[str]], predicted: Sequence[str], null_odds: Sequence[float]
) -> tuple[float, dict[str, Any]]:
    """The no-answer threshold that maximizes F1, and the scores it gives; chosen on dev, then used on test.

    As in the evaluation script of SQuAD 2.0 thresholds are tried from "no question has an answer" upward, at each of
    the odds, and the first of the best is kept. Two deviations: questions of equal odds pass together, so the scores
    are those that the threshold really gives; and where odds can be negative, "no question has an answer" is a
    threshold below all of them instead of 0.

    Args:
        gold: see `extraction`.
        predicted: the best answer to each question, even where "no answer" seems better.
        null_odds: how far "no answer" is preferred to it, on any scale; finite.
    """
    answers = [_usable(g) for g in gold]
    lowest = min(null_odds)
    best = 0.0 if lowest > 0 else lowest - 1.0
    score = most = float(sum(not a for a in answers))
    order = sorted(zip(null_odds, answers, predicted, strict=True), key=lambda row: row[0])
    for i, (odds, its_answers, its_predicted) in enumerate(order):
        score += _best(_f1, its_answers, its_predicted) - (not its_answers)
        is_last_of_equals = i + 1 == len(order) or order[i + 1][0] > odds
        if is_last_of_equals and score > most:
            best, most = odds, score
    return best, extraction(gold, with_threshold(predicted, null_odds, best))


def with_threshold(predicted: Sequence[str], null_odds: Sequence[float], threshold: float) -> list[str]:
    """Answers, emptied where the odds of "no answer" exceed the threshold.

    >>> with_threshold(["Danube", "Vienna"], [-1.0, 2.5], 0.0)
    ['Danube', '']
    """
    return ["" if odds > threshold else p for p, odds in zip(predicted, null_odds, strict=True)]


def _normalized(text: str) -> str:
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def _usable(answers: Sequence[str]) -> list[str]:
    """Answers of which something is left."""
    return [a for a in answers if _normalized(a)]


def _best(score: Any, answers: Sequence[str], predicted: str) -> float:
    return max(score(_normalized(a), _normalized(predicted)) for a in answers or [""])


def _exact(gold: str, predicted: str) -> float:
    return float(gold == predicted)


def _f1(gold: str, predicted: str) -> float:
    """Over words as multisets; where one side is empty both must be."""
    ours, theirs = gold.split(), predicted.split()
    if not ours or not theirs:
        return float(ours == theirs)
    return 2 * sum((Counter(ours) & Counter(theirs)).values()) / (len(ours) + len(theirs))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _summary(scores: Sequence[tuple[float, float]]) -> dict[str, Any]:
    return {"exact_match": _mean([e for e, _ in scores]), "f1": _mean([f for _, f in scores]), "rows": len(scores)}
