"""How far the loss jumps when a single word of a text is another one: the instability that PTP starts from (Chen et al.
2023, arXiv 2305.02423: "a slight change of the input"), in words instead of embeddings.

    jump_xw = f_x( text of x with the word w swapped ) - f_x( text of x )                                    in nats
    mean |jump|,  mean jump,  max |jump|        over all words w of all examples x that have a substitute

Each word is swapped once and alone. Its substitute is what the bare model finds likeliest in its place among the words
that may stand in for it by the rules of `trimtab.regularizers.word_swap`: near in the input embeddings, no stop word,
no opposite. So the text still means about the same, and since neither the prompt nor the label chooses, all prompts on
a backbone meet the same swaps. `word_swap` chooses among the same candidates the one that hurts.

Words are pieces of the vocabulary that are a word by themselves; those of several pieces and label words stay. Parts of
speech are not asked for, as the tagger is not installed everywhere and numbers must not depend on it.

Cost: a pass of the bare model over each word, and as many passes over the examples as the longest of them has words.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from trimtab.batching import micro_batches
from trimtab.landscape.point import LossAt
from trimtab.perturbations import Lexicon, in_all_rows, replace_tokens, text_mask
from trimtab.regularizers.english import english_stop_words
from trimtab.regularizers.swap_candidates import Rules, candidates, text_places
from trimtab.types import Batch


@dataclass(frozen=True)
class WordJumps:
    """Jumps of the loss, in nats, over `swaps` of `words` whole words; the others have no substitute."""

    mean_absolute: float
    mean: float
    largest: float
    swaps: int
    words: int


def rules() -> Rules:
    """What may stand in for what: as `word_swap` by default, but for parts of speech."""
    return Rules(proposals=50, neighbours=20, similarity=0.5, stop_words=english_stop_words())


@torch.no_grad()
def word_jumps(loss: LossAt, lexicon: Lexicon, rules: Rules) -> WordJumps | None:
    """The jumps of the loss of a run on its examples; None where no word has a substitute.

    Args:
        loss: of the run; its examples are computed in passes of its tokens.
        lexicon: the words of the run's backbone, label words left out.
    """
    jumps: list[float] = []
    words = 0
    for group in micro_batches([row.cost for row in loss.rows], loss.max_tokens):
        batch = loss.model.collate([loss.rows[i] for i in group])
        clean = _losses(loss, batch)
        whole = in_all_rows(lexicon.whole(batch.ids), batch) & text_mask(batch)
        words += int(whole.sum())
        for new in _rounds(batch, whole.tolist(), lexicon, rules):
            swapped = (new >= 0).any(1)
            jumps += (_losses(loss, replace_tokens(batch, new)) - clean)[swapped].double().tolist()
    if not jumps:
        return None
    each = torch.tensor(jumps, dtype=torch.float64)
    return WordJumps(float(each.abs().mean()), float(each.mean()), float(each.abs().max()), len(jumps), words)


def _losses(loss: LossAt, batch: Batch) -> Float[Tensor, "X"]:
    return loss.model.readout.loss(loss.model.scores(batch, loss.table), batch.labels)


def _rounds(batch: Batch, whole: list[list[bool]], lexicon: Lexicon, rules: Rules) -> Iterator[Int[Tensor, "X N"]]:
    """New tokens of the n-th word that can be swapped, for n = 1, 2, ..: one word of every example that has so many."""
    rows, columns = (places.tolist() for places in text_places(batch))
    swaps: list[list[tuple[int, int]]] = []
    for x, its in enumerate(whole):
        found = ((n, candidates(batch, rows[x][n], columns[x][n], rules, lexicon)) for n, is_ in enumerate(its) if is_)
        swaps.append([(n, likely[0]) for n, likely in found if likely])
    for i in range(max(map(len, swaps), default=0)):
        new = torch.full((len(swaps), len(whole[0])), -1, device=batch.ids.device)
        for x, own in enumerate(swaps):
            if i < len(own):
                entry, token = own[i]
                new[x, entry] = token
        yield new
