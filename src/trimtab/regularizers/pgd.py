"""Adversarial embeddings (PTP-ADV in embedding space; Chen et al., EMNLP 2023, arXiv 2305.02423) by projected gradient
ascent (Madry et al. 2018, arXiv 1706.06083).

    penalty     = loss( M(s, e + delta_K), y )                               delta_K held constant
    delta_(t+1) = Proj_eps( delta_t + alpha dir( grad_delta loss( M(s, e + delta_t), y ) ) ),    t = 0 .. K-1

Symbols: s prompt, e embedded text, M frozen backbone, K `steps`, alpha `step_size` eps; dir and Proj depend on `norm`,
see `trimtab.regularizers.ascent`. Only field text moves; `target` names the prompt instead, or both. No step leaves a
gradient on the prompt or the backbone.

Cost per step: K + 1 passes in all instead of 1 from a zero start: the first gradient is that of the clean loss, which
the backward pass through the frozen backbone has for nothing. From a random start, or with another loss, K + 2.

Deviations: norm, radius, K, step size and start of the paper were not available to us in full text; this is a
reconstruction from its abstract. The additive form and every default here are ours; the radius was chosen on dev
(docs/LOG.md, "How strong a perturbation may be").
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, final

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from trimtab.errors import ConfigError
from trimtab.perturbations import Target, TrainStep
from trimtab.registry import regularizers
from trimtab.regularizers import Needs
from trimtab.regularizers.ascent import Ball, Norm, Start, climb, slopes
from trimtab.regularizers.comparison import Loss, check_sizes, compared


@final
@regularizers.register("pgd")
class PGD:
    """The worst small change of the embeddings, by gradient ascent (PTP-ADV).

    Args:
        weight: of the penalty beside the clean loss.
        norm: how size is measured: over an example's text, over each token, or the largest element.
        epsilon: radius in embedding units; give this or `epsilon_relative`.
        epsilon_relative: radius relative to what is perturbed (norm, or for linf root mean square); 0.01 if neither is
            given.
        steps: K.
        step_size: length of a step in radii; by default 1 for K = 1 and 2.5 / K for more.
        start: where the ascent begins.
        loss: what is raised, and what the scores are held against: the label, or the clean scores.
        target: what is perturbed.
    """

    def __init__(
        self,
        *,
        weight: Annotated[float, Field(ge=0)] = 1.0,
        norm: Norm = "l2",
        epsilon: Annotated[float, Field(ge=0)] | None = None,
        epsilon_relative: Annotated[float, Field(ge=0)] | None = None,
        steps: Annotated[int, Field(ge=1)] = 1,
        step_size: Annotated[float, Field(gt=0)] | None = None,
        start: Start = "zero",
        loss: Loss = "ce",
        target: Target = "text",
    ) -> None:
        check_sizes(epsilon=epsilon, epsilon_relative=epsilon_relative)
        if loss != "ce" and start == "zero":
            raise ConfigError(
                f"a divergence has no gradient at the clean embeddings, so {loss} cannot begin there.",
                where="regularizers",
                fix="Set start: uniform, or loss: ce.",
            )
        self.weight, self._steps, self._start, self._loss, self._target = weight, steps, start, loss, target
        self._ball = Ball(norm, epsilon, 0.01 if epsilon_relative is None else epsilon_relative)
        self._step_size = step_size if step_size is not None else (1.0 if steps == 1 else 2.5 / steps)
        compares = loss != "ce"
        self._reuses = start == "zero"
        self.needs = Needs(
            graph=compares,
            distribution=compares,
            gradient=target if self._reuses else None,
            text=target == "text",
            prompt=target == "prompt",
        )

    def penalties(self, step: TrainStep) -> Iterator[Float[Tensor, "X"]]:
        """The loss at the end of the ascent."""
        delta = {name: self._ball.start(step, name, self._start) for name in step.names(self._target)}
        for t in range(self._steps):
            gradient = step.gradient if t == 0 and self._reuses else slopes(step, delta, self._loss)
            delta = climb(step, self._ball, delta, gradient, self._step_size)
        yield compared(self._loss, step.rescore(delta), step)
