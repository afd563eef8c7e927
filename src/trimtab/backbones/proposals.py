"""What a bare model would write in the place of a word.

Masked language models, and BART, read the text with the word hidden by the mask. T5 reads a sentinel in its place and
is asked for the first token behind the sentinel. Causal models tell what would follow the text on the left of the word.
BART's decoder reads that text, too. Slots of a prompt are left out, and T5's other sentinels. A first word of a text
that nothing stands before is unknown to a causal model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from trimtab.backbones.loading import Backbone
from trimtab.batching import collate, micro_batches
from trimtab.types import Batch, Encoded, Row


@torch.no_grad()
def propose(backbone: Backbone, batch: Batch, places: Sequence[tuple[int, int]]) -> list[Float[Tensor, "V"] | None]:
    """Logits over the vocabulary at words of a batch, (row, position) each; None where the model cannot tell.

    Passes are as large as that of the batch.
    """
    asked = [_asked(backbone, batch, *place) for place in places]
    known = [i for i, its in enumerate(asked) if its is not None]
    rows = [Row(its) for its in asked if its is not None]
    found: list[Tensor | None] = [None] * len(places)
    with _evaluating(backbone):
        for group in micro_batches([r.cost for r in rows], batch.ids.numel()):
            for j, its in zip(group, _logits(backbone, [rows[j] for j in group]), strict=True):
                found[known[j]] = its
    return found


def _logits(backbone: Backbone, rows: Sequence[Row]) -> Float[Tensor, "B V"]:
    family, model = backbone.family, backbone.model
    batch = collate(rows, backbone.pad_id, family.padding_side).to(backbone.device)
    hidden = family.hidden(model, batch, None)
    read = hidden[torch.arange(len(batch), device=hidden.device), batch.answer_at[:, 0]]
    features = family.vocabulary_features(model, read[:, None])[:, 0]
    weight, bias = family.vocabulary_rows(model, slice(None))
    return family.squash(model, features.float() @ weight.T + bias)


def _asked(backbone: Backbone, batch: Batch, row: int, position: int) -> Encoded | None:
    """The text of a row with one word hidden, and where its model answers."""
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
