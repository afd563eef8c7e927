"""Names of metrics as people write them. Imports nothing."""

from __future__ import annotations

METRIC_NAMES = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "exact_match": "exact match",
    "f1": "F1",
    "token_f1": "token F1",
    "rouge_l": "ROUGE-L",
    "entity_f1": "entity F1",
    "precision": "precision",
    "recall": "recall",
    "token_accuracy": "token accuracy",
    "score": "mean score",
    "f1a": "F1a",
    "question_em": "exact match over questions",
    "answer_f1": "answer F1",
    "answer_em": "answer exact match",
    "matthews": "Matthews correlation",
    "gender_parity": "gender parity",
    "superglue_average": "SuperGLUE average",
    "fewglue_average": "FewGLUE average",
    "p_at_1": "P@1",
    "p_at_10": "P@10",
    "mrr": "MRR",
    "p_at_1_all": "P@1 of all facts",
    "p_at_1_not_majority": "P@1 off the majority object",
    "p_at_1_new_objects": "P@1 of new objects",
}
"""Metrics as people write them, in the order in which they are shown."""


def metric_name(key: str) -> str:
    """A metric for people.

    >>> metric_name("macro_f1"), metric_name("my_own_score")
    ('macro-F1', 'my own score')
    """
    return METRIC_NAMES.get(key, key.replace("_", " "))
