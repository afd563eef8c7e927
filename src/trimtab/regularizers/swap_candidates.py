"""Which words may stand in for a word of a text, and which of them promises the most; half of `swap_attack`.

A candidate is proposed by the bare model in the place of the word in the clean text, is among the word's neighbours in
the input embeddings, and is neither a stop word nor an opposite. The first in the order of g . (E(w') - E(w)) that is
of the same part of speech is taken, if that is above 0; g is the gradient of the clean loss at E(w).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from trimtab.perturbations import TEXT, Lexicon, TrainStep, text_of
from trimtab.regularizers.english import are_opposed
from trimtab.types import Batch

Tagger = Callable[[Sequence[str]], Sequence[str]]
"""From the words of a sentence to their parts of speech."""


@dataclass(frozen=True)
class Rules:
    """What may stand in for what; see the options of `trimtab.regularizers.word_swap.WordSwap`.

    Attributes:
        knows_opposites: those listed in `trimtab.regularizers.english` are no candidates.
        tagger: None to ask for no part of speech.
    """

    proposals: int
    neighbours: int
    similarity: float
    stop_words: Collection[str] = ()
    knows_opposites: bool = True
    tagger: Tagger | None = None

    def near(self, token: int, lexicon: Lexicon) -> set[int]:
        """The neighbours of a word that may stand in for it; none for a stop word."""
        word = lexicon.word(token)
        if word.lower() in self.stop_words:
            return set()
        near = {i: lexicon.word(i) for i in lexicon.neighbours(token, self.neighbours, self.similarity)}
        return {i for i, its in near.items() if its.lower() not in self.stop_words and not self._clash(word, its)}

    def _clash(self, one: str, other: str) -> bool:
        return self.knows_opposites and are_opposed(one, other)


class Swap(NamedTuple):
    """A word of an example's text, the entry at which it stands among the eligible tokens, and what it became."""

    entry: int
    old: int
    new: int


def choose(step: TrainStep, x: int, n: int, row: int, position: int, rules: Rules, lexicon: Lexicon) -> Swap | None:
    """The best swap of one entry of an example, in its clean text; None where no candidate promises anything.

    Args:
        x: the example.
        n: the entry.
        row: where the entry stands, see `text_places`.
        position: likewise.
    """
    batch = step.batch
    old = int(batch.ids[row, position])
    words = candidates(batch, row, position, rules, lexicon)
    if not words:
        return None
    embeds = lexicon.embed(torch.tensor([old, *words], device=batch.ids.device), batch, row, position)
    gains = ((embeds[1:] - embeds[0]) @ step.gradient[TEXT][x, n].float()).tolist()
    best = sorted((-gain, i) for gain, i in zip(gains, words, strict=True) if gain > 0)
    place = (row, position)
    fits = (i for _, i in best if rules.tagger is None or _same_part(batch, place, i, rules.tagger, lexicon))
    chosen = next(fits, None)
    return None if chosen is None else Swap(n, old, chosen)


def candidates(batch: Batch, row: int, position: int, rules: Rules, lexicon: Lexicon) -> list[int]:
    """What may stand in for a word of a text, the likeliest first, whatever its part of speech."""
    near = rules.near(int(batch.ids[row, position]), lexicon)
    return [i for i in lexicon.proposals(batch, row, position, rules.proposals) if i in near] if near else []


def _same_part(batch: Batch, place: tuple[int, int], new: int, tagger: Tagger, lexicon: Lexicon) -> bool:
    """Whether a word keeps its part of speech in the sentence."""
    row, position = place
    words, number = lexicon.sentence(read_ids(batch, row))
    i = number[int(batch.is_said(row)[:position].sum())]
    return tagger(words)[i] == tagger([*words[:i], lexicon.word(new), *words[i + 1 :]])[i]


def text_places(batch: Batch) -> tuple[Int[Tensor, "X N"], Int[Tensor, "X N"]]:
    """Row and position of the entries of each example's text, in the sequence with most of them."""
    size, device = batch.ids.shape, batch.ids.device
    rows = torch.arange(size[0], device=device)[:, None].expand(size)
    columns = torch.arange(size[1], device=device).expand(size)
    return text_of(rows, batch), text_of(columns, batch)


def read_ids(batch: Batch, row: int) -> list[int]:
    """What a sequence says: its tokens without slots and pads."""
    return batch.ids[row][batch.is_said(row)].tolist()
