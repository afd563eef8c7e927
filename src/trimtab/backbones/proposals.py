"""What a bare model would write in the place of a word.

Masked language models, and BART, read the text with the word hidden by the mask. T5 reads a sentinel in its place and
is asked for the first token behind the sentinel. Causal models tell what would follow the text on the left of the word.
BART's decoder reads that text, too. Slots of a prompt are left out, and T5's other sentinels. A first word of a text
that nothing stands before is unknown to a causal model.

Every word is asked for in a pass of its own. In bfloat16 what a model thinks of one row depends, in the last bits, on
the rows beside it; alone, the answer depends on the text only, so it may be remembered or asked for anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from trimtab.backbones.backbone import Backbone
from trimtab.batching import collate
from trimtab.types import Batch, Encoded, Row


@torch.no_grad()
def propose(backbone: Backbone, asked: Encoded) -> Float[Tensor, "V"]:
    """Logits over the vocabulary at the hidden word of what `ask` returned."""
    family, model = backbone.family, backbone.model
    batch = collate([Row(asked)], backbone.pad_id, family.padding_side).to(backbone.device)
    with _evaluating(backbone):
        hidden = family.hidden(model, batch, None)
        features = family.vocabulary_features(model, hidden[:, asked.answer_at[0]][:, None])[:, 0]
    weight, bias = family.vocabulary_rows(model, slice(None))
    return family.squash(model, features.float() @ weight.T + bias)[0]


def ask(backbone: Backbone, batch: Batch, row: int, position: int) -> Encoded | None:
    """The text of a row with one word hidden, and where its model answers; None where it cannot tell."""
    encoder = backbone.encoder
    kept = batch.is_said(row)
    if encoder.sentinel_id is not None:
        sentinels = (encoder.sentinel_id, encoder.second_sentinel_id, encoder.third_sentinel_id)
        for i in sentinels:
            kept &= batch.ids[row] != i if i is not None else True
    at = int(kept[:position].sum())
    ids = batch.ids[row][kept].tolist()
    before, after = tuple(ids[:at]), tuple(ids[at + 1 :])
    if encoder.is_causal:
        return Encoded(before, (), (at - 1,)) if before else None
    hiding = encoder.sentinel_id if encoder.sentinel_id is not None else encoder.mask_id
    if hiding is None:
        return None
    start = encoder.decoder_start_id
    if start is None:
        return Encoded((*before, hiding, *after), (), (at,))
    decoder = (start, hiding) if encoder.sentinel_id is not None else (start, *before)
    return Encoded((*before, hiding, *after), (), (len(decoder) - 1,), decoder=decoder)


@contextmanager
def _evaluating(backbone: Backbone) -> Iterator[None]:
    """The model without its dropout, whatever the mode of training."""
    was = backbone.model.training
    backbone.model.eval()
    try:
        yield
    finally:
        backbone.model.train(was)
