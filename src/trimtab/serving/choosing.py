"""The next token from its logits: the likeliest one, or one that is drawn.

    p(w) = softmax( logit(w) / temperature ),    drawn among the likeliest w that together have at least top_p

(nucleus sampling, Holtzman et al. 2020, arXiv 1904.09751, section 3.1). A temperature of 0 takes the likeliest.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Choice:
    """How tokens are chosen.

    Attributes:
        temperature: 0 for the likeliest.
        top_p: the share of probability that is drawn from.
        seed: the same seed draws the same text on the same machine, whatever its batch mates; None for another each
            time.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None

    @property
    def is_greedy(self) -> bool:
        """Nothing is drawn."""
        return self.temperature == 0.0

    def begin(self) -> Chooser:
        """What chooses the tokens of one text."""
        return Chooser(self)


@final
class Chooser:
    """Chooses the tokens of one text, one after the other."""

    def __init__(self, choice: Choice) -> None:
        self._choice = choice
        self._generator = torch.Generator()
        self._generator.manual_seed(secrets.randbits(63) if choice.seed is None else choice.seed % 2**63)

    @property
    def is_greedy(self) -> bool:
        """As `Choice.is_greedy`."""
        return self._choice.is_greedy

    def draw(self, logits: Float[Tensor, "V"]) -> int:
        """The next token."""
        if self.is_greedy:
            return int(logits.argmax())
        shares = (logits.cpu().double() / self._choice.temperature).softmax(0)
        values, ids = shares.sort(descending=True, stable=True)
        before = values.cumsum(0) - values
        values = values.masked_fill(before >= self._choice.top_p, 0.0)  # the likeliest always stays
        return int(ids[torch.multinomial(values, 1, generator=self._generator)])
