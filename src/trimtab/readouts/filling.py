"""Several masks, filled one after the other, the most confident first; what `cloze_choice` and `cloze_span` share.

Until no mask is left: predict all masks that are left, take the one whose token is likeliest, put the token there. Each
token is therefore read with those before it in place (Schick and Schutze 2021b, "It's not just size", section 3.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from trimtab.errors import TemplateError
from trimtab.readouts import Look
from trimtab.text_encoder import TextEncoder
from trimtab.types import Row

Filled = list[tuple[int, float]]
"""The tokens of a slot, each with its log-probability when it was put there."""


def fill(rows: Sequence[Row], wanted: Sequence[Sequence[int | None]], look: Look, mask_id: int) -> list[Filled]:
    """Fill the slots of rows, as many masks each as there are tokens wanted.

    Args:
        wanted: by row, the token of each mask; None where the likeliest is.
        look: reads rows.
    """
    slots = [[mask_id] * len(tokens) for tokens in wanted]
    scores = [[0.0] * len(tokens) for tokens in wanted]
    left = [list(range(len(tokens))) for tokens in wanted]
    while open_rows := [i for i, places in enumerate(left) if places]:
        seen = look([_opened(rows[i], slots[i], {place: wanted[i][place] for place in left[i]}) for i in open_rows])
        for i, its in zip(open_rows, seen, strict=True):
            pairs = its[: len(left[i])].tolist()
            best = max(range(len(pairs)), key=lambda a: pairs[a][1])
            place = left[i].pop(best)
            slots[i][place], scores[i][place] = int(pairs[best][0]), pairs[best][1]
    return [list(zip(tokens, its, strict=True)) for tokens, its in zip(slots, scores, strict=True)]


def _opened(row: Row, slot: Sequence[int], left: dict[int, int | None]) -> Row:
    return replace(row, encoded=row.encoded.refilled(tuple(slot), left), others=(), label=-1)


def mask_of(encoder: TextEncoder, kind: str) -> int:
    """The mask token.

    Raises:
        TemplateError: there is none.
    """
    if encoder.mask_id is None:
        raise TemplateError(
            f"the readout {kind!r} needs a mask token, this tokenizer has none.",
            where="readout.kind",
            fix="Use a masked language model.",
        )
    return encoder.mask_id
