"""Randomly hidden words (PTP-RN in text space; Chen et al., EMNLP 2023, arXiv 2305.02423).

    penalty = loss( M(s, E(x')), y ),      x'_i = [MASK] with probability `rate`, else x_i, on field text only

Symbols: s prompt, x the token ids of the text, E the embedding, M frozen backbone. What hides a token is the mask
token; of T5 a sentinel that stands for nothing else; else the unknown token; where the vocabulary has none of these,
and with `replacement: random`, a random word. One token of an example is always left, the answer slot is known by its
position and never by its token, and slots, literals, specials, answers and label words stay. Fresh at every step, by
the token, not by the word. Cost per step: one more pass.

Deviations: the paper's rate, and what its masked words are replaced by, were not available to us in full text; this is
a reconstruction from its abstract, and every default here is ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, final

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from trimtab.perturbations import TrainStep
from trimtab.registry import regularizers
from trimtab.regularizers import Needs
from trimtab.regularizers.comparison import Loss, compared


@final
@regularizers.register("random_mask")
class RandomMask:
    """Random tokens of the input text hidden (PTP-RN).

    Args:
        weight: of the penalty beside the clean loss.
        rate: probability that a token is hidden.
        replacement: what hides it: the vocabulary's mask, random words, or the mask where there is one.
        at_least_one: hide one token of an example where chance hides none; then more than `rate` of short texts.
        loss: what the scores are held against: the label, or the clean scores.
    """

    def __init__(
        self,
        *,
        weight: Annotated[float, Field(ge=0)] = 1.0,
        rate: Annotated[float, Field(ge=0, lt=1)] = 0.15,
        replacement: Literal["auto", "mask", "random"] = "auto",
        at_least_one: bool = False,
        loss: Loss = "ce",
    ) -> None:
        self.weight, self._rate, self._replacement = weight, rate, replacement
        self._at_least_one, self._loss = at_least_one, loss
        compares = loss != "ce"
        self.needs = Needs(graph=compares, distribution=compares, text=True, mask=replacement == "mask")

    def penalties(self, step: TrainStep) -> Iterator[Float[Tensor, "X"]]:
        """The loss with some tokens hidden."""
        mask_id, words = step.substitutes.mask_id, np.array(step.substitutes.words)
        new = torch.full(step.mask.shape, -1)
        for x, (draw, n) in enumerate(zip(step.streams("mask"), step.mask.sum(1).tolist(), strict=True)):
            chance = draw.random(n)
            hidden = chance < self._rate
            if self._at_least_one and n > 1 and self._rate > 0:
                hidden[chance.argmin()] = True
            if n:
                hidden[chance.argmax()] = False  # one is left
            is_random = mask_id is None or self._replacement == "random"
            instead = words[draw.integers(len(words), size=n)] if is_random else np.full(n, mask_id)
            new[x, :n] = torch.from_numpy(np.where(hidden, instead, -1))
        yield compared(self._loss, step.rescore_text(new.to(step.mask.device)), step)
