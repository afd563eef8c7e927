"""Scores of predictions: classes by index, written answers by their text. Pure functions."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence
from typing import Any
from unicodedata import category

import numpy as np
from sklearn.metrics import confusion_matrix, f1_score


def classification(gold: Sequence[int], predicted: Sequence[int], classes: Sequence[str]) -> dict[str, Any]:
    """Accuracy, macro-F1 and the confusion matrix.

    Macro-F1 averages over all classes of the task; a class that occurs neither in `gold` nor in `predicted` counts as
    0, so a split that lacks a class cannot reach 1.

    Args:
        gold: class indices in [0, C).
        predicted: class indices in [0, C), as many as `gold`; -1 where no class was predicted, which is wrong.
        classes: the C class names.

    Returns:
        `{"accuracy", "macro_f1", "rows", "confusion": {"classes", "counts"}}`; `counts[i][j]` rows of gold class i were
        predicted as class j. Where some have no class, `unanswered` counts them.

    >>> classification([0, 1, 1], [0, 1, 0], ["no", "yes"])["accuracy"]
    0.6666666666666666
    """
    indices = list(range(len(classes)))
    unanswered = sum(p < 0 for p in predicted)
    return {
        "accuracy": float(np.mean(np.asarray(gold) == np.asarray(predicted))),
        "macro_f1": float(f1_score(gold, predicted, labels=indices, average="macro", zero_division=0.0)),
        "rows": len(gold),
        "confusion": {
            "classes": list(classes),
            "counts": confusion_matrix(gold, predicted, labels=indices).tolist(),
        },
        **({"unanswered": unanswered} if unanswered else {}),
    }


def majority_baseline(gold: Sequence[int] | Sequence[str]) -> float:
    """Accuracy of the best constant answer: the share of the most frequent answer among the scored rows.

    Counted on the scored rows and not on the training rows, whose counts are all equal in the few-shot setting.

    >>> majority_baseline([1, 0, 0, 0])
    0.75
    """
    return max(Counter(gold).values()) / len(gold)


_ARTICLES = {"a", "an", "the"}


def normalized(text: str) -> str:
    """Text as answers are compared: lower case, no punctuation, no English articles, single spaces (after Rajpurkar et
    al. 2016, the evaluation script of SQuAD).

    Deviations: punctuation of any script counts, and it separates words instead of joining them, as many tokenizers
    cannot say whether there was a space beside it ("e-mail" is "e mail"); Chinese and Japanese characters are words
    each; what would leave nothing is not removed, so the answers "A" and "?" remain different.

    >>> normalized("The  Eiffel tower!"), normalized("A"), normalized("don ' t")
    ('eiffel tower', 'a', 'don t')
    """
    words = _words(text)
    return " ".join([w for w in words if w not in _ARTICLES] or words)


def _words(text: str) -> list[str]:
    lower = text.lower()
    return "".join(map(_spaced, lower)).split() or lower.split()


def _spaced(c: str) -> str:
    if c in string.punctuation or category(c).startswith("P"):
        return " "
    return f" {c} " if "\u3040" <= c <= "\u30ff" or "\u3400" <= c <= "\u9fff" else c


def written_answers(gold: Sequence[str], written: Sequence[str]) -> dict[str, Any]:
    """How well written answers match the right ones, as means over rows in [0, 1].

    * `exact_match`: equal after `normalized`.
    * `token_f1`: harmonic mean of precision and recall over the normalized words, as a multiset (SQuAD).
    * `rouge_l`: the same over the longest common subsequence of words, articles included (Lin 2004, section 3.1, with
      beta = 1), without stemming.

    >>> written_answers(["a big red fox"], ["the red big fox"])
    {'exact_match': 0.0, 'token_f1': 1.0, 'rouge_l': 0.5, 'rows': 1}
    """
    pairs = list(zip(gold, written, strict=True))
    return {
        "exact_match": float(np.mean([normalized(g) == normalized(w) for g, w in pairs])),
        "token_f1": float(np.mean([_token_f1(normalized(g).split(), normalized(w).split()) for g, w in pairs])),
        "rouge_l": float(np.mean([_rouge_l(_words(g), _words(w)) for g, w in pairs])),
        "rows": len(pairs),
    }


def _token_f1(gold: Sequence[str], written: Sequence[str]) -> float:
    common = sum((Counter(gold) & Counter(written)).values())
    return _harmonic(common, len(gold), len(written))


def _rouge_l(gold: Sequence[str], written: Sequence[str]) -> float:
    lengths = [0] * (len(written) + 1)  # of the longest common subsequence with each beginning of `written`
    for g in gold:
        before = 0
        for j, w in enumerate(written, 1):
            before, lengths[j] = lengths[j], before + 1 if g == w else max(lengths[j], lengths[j - 1])
    return _harmonic(lengths[-1], len(gold), len(written))


def _harmonic(common: int, n_gold: int, n_written: int) -> float:
    """F1 from counts; two empty answers agree."""
    return 2 * common / (n_gold + n_written) if n_gold + n_written else 1.0
