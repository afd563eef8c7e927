"""What the perturbed pass is held against: the label (`ce`), or the scores of the clean pass (`kl`, `sym_kl`).

    ce:      loss( M(s, x~), y )
    kl:      KL( p || p~ )                   p  = distribution of the clean pass, p~ of the perturbed one
    sym_kl:  KL( p || p~ ) + KL( p~ || p )

With a divergence gradient flows into both passes, as in SMART and R3F.
"""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from trimtab.errors import ConfigError
from trimtab.perturbations import TrainStep

Loss = Literal["ce", "kl", "sym_kl"]


def compared(loss: Loss, scores: Float[Tensor, "X *C"], step: TrainStep) -> Float[Tensor, "X"]:
    """The penalty per example, from the scores of the perturbed pass."""
    if loss == "ce":
        return step.loss(scores, step.batch.labels)
    there = step.divergence(step.scores, scores)
    return there if loss == "kl" else there + step.divergence(scores, step.scores)


def check_sizes(**sizes: float | None) -> None:
    """Refuse two ways to say how large a perturbation is."""
    if None not in sizes.values():
        raise ConfigError(f"give {' or '.join(sizes)}, not both.", where="regularizers")
