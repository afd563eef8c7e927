"""Small changes to texts before a template is filled with them, as PET and P-tuning make in their code.

    no_final_punctuation    "It rained."  ->  "It rained"      hypotheses of RTE, premises and choices of COPA
    lower_first             "It rained."  ->  "it rained."     choices of COPA

Both are for replication: by themselves, texts stand in a template as the files have them.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

Rewrite = Literal["no_final_punctuation", "lower_first"]

_HOW: Mapping[str, Callable[[str], str]] = {
    "no_final_punctuation": lambda text: text.rstrip().rstrip(string.punctuation),
    "lower_first": lambda text: text[:1].lower() + text[1:],
}


def rewritten(fields: Mapping[str, str], rewrite: Mapping[str, Sequence[str]]) -> Mapping[str, str]:
    """Fields with the changes made that each is to have, one after the other.

    >>> rewritten({"choice1": "It rained.", "n": "1."}, {"choice1": ["lower_first", "no_final_punctuation"]})
    {'choice1': 'it rained', 'n': '1.'}
    """
    if not rewrite:
        return fields
    changed = dict(fields)
    for field, names in rewrite.items():
        for name in names if field in changed else ():
            changed[field] = _HOW[name](changed[field])
    return changed
