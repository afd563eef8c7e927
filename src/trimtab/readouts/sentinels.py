"""T5's first sentinel in the answer slot: what `ranking` and `text` share."""

from __future__ import annotations

from trimtab.errors import TemplateError
from trimtab.text_encoder import TextEncoder


def sentinel_of(encoder: TextEncoder, wanted: str) -> tuple[int, ...]:
    """The sentinel as token ids: none if it is not wanted (`no`) or, for `auto`, where the vocabulary has none.

    Raises:
        TemplateError: it is wanted (`yes`) and does not exist.
    """
    if wanted == "yes" and encoder.sentinel_id is None:
        raise TemplateError(
            "this tokenizer has no sentinel <extra_id_0>.", where="readout.sentinel", fix="Set readout.sentinel=no."
        )
    return (encoder.sentinel_id,) if wanted != "no" and encoder.sentinel_id is not None else ()
