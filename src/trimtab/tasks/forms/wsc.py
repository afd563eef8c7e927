"""WSC (Levesque et al. 2012), as SuperGLUE writes it: a text, a noun phrase (`span1`) and a pronoun (`span2`); does the
pronoun mean the phrase?

The pronoun is marked with stars, as P-tuning's and T5's code do. Indices count words between white space; where another
word than the pronoun stands there (some lines of the official files are off by one), the nearest place of the pronoun
is taken, and that is remarked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, final

from trimtab.errors import DataError
from trimtab.tasks.forms import FlatRow, forms
from trimtab.tasks.reading import part

_WORD = re.compile(r"\S+")


@final
@forms.register("wsc")
class WSC:
    """Fields `text` with the starred pronoun, `plain` without stars, `referent`, `pronoun`; `idx` and the label."""

    expects: ClassVar[str] = (
        '{"idx": 0, "text": "...", "target": {"span1_text": "...", "span1_index": 0, "span2_text": "it", '
        '"span2_index": 4}, "label": true}'
    )

    def rows(self, line: Mapping[str, Any], source: str) -> list[FlatRow]:
        """The row of a line."""
        text, target = part(line, "text", str, source), part(line, "target", dict, source)
        pronoun, index = part(target, "span2_text", str, source).strip(), part(target, "span2_index", int, source)
        referent = part(target, "span1_text", str, source).strip()
        if not referent or not pronoun:
            raise DataError("span1_text and span2_text must not be empty.", where=source)
        start, is_moved = _place(text, pronoun, index, source)
        stop = start + len(pronoun)
        cells = {
            **{k: v for k, v in line.items() if k not in ("text", "target")},
            "text": f"{text[:start]}*{text[start:stop]}*{text[stop:]}",
            "plain": text,
            "referent": referent,
            "pronoun": pronoun,
        }
        remark = "the pronoun does not stand at its index, and the nearest place was taken" if is_moved else ""
        return [FlatRow(cells, source, remark=remark)]


def _place(text: str, pronoun: str, index: int, source: str) -> tuple[int, bool]:
    """Where the pronoun begins, and whether that is not at its index. A word may go on behind it, as in `it's`."""
    words = list(_WORD.finditer(text))
    phrase = re.compile(rf"\W*({re.escape(pronoun)})(?!\w)", re.IGNORECASE)
    found = [(i, match) for i, word in enumerate(words) if (match := phrase.match(text, word.start()))]
    if not found:
        stands = repr(words[index].group()) if 0 <= index < len(words) else "nothing"
        raise DataError(
            f"the pronoun {pronoun!r} is to be word {index} of the text, counted from 0, where {stands} stands, and it "
            "stands nowhere else.",
            where=source,
        )
    at, match = min(found, key=lambda place: abs(place[0] - index))
    return match.start(1), at != index
