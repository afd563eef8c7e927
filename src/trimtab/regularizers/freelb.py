"""FreeLB: every point of an ascent trains (Zhu et al. 2020, "FreeLB: Enhanced Adversarial Training for Natural Language
Understanding", arXiv 1909.11764, algorithm 1).

    penalty     = 1/K sum over t = 0 .. K-1 of loss( M(s, e + delta_t), y )
    delta_0     ~ U(-1, 1) eps / sqrt(d)
    delta_(t+1) = Proj_eps( delta_t + alpha g_t / ||g_t||_F ),      g_t = grad_delta loss( M(s, e + delta_t), y )

Symbols: s prompt, e embedded text, M frozen backbone, K `steps`, alpha = `step_size` eps, d the number of elements of
delta that belong to a token; every delta_t is held constant where the prompt is concerned. The backward pass that gives
the prompt its gradient gives delta its own, so the ascent is free. With K = 1 nothing is climbed: random noise.

The penalty stands in the place of the clean loss, as in the paper: with weight w the objective is (1 - w) loss + w
penalty. Cost per step: K passes in all; with a weight below 1 one more, the clean one.

Deviations: the paper's radius, step size and K are tuned by task; every default here is ours, and so are relative
radii, norms other than l2 (its code has linf, too), a `weight` below 1 and the `target` prompt or both. Its code moves
all tokens that are no padding, [CLS] and [SEP] too, and d counts those; here field text moves. It repeats dropout masks
over the K passes; here backbone dropout, if asked for, is drawn anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, final

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from trimtab.perturbations import Target, TrainStep
from trimtab.registry import regularizers
from trimtab.regularizers import Needs
from trimtab.regularizers.ascent import Ball, Norm, Start, climb
from trimtab.regularizers.comparison import check_sizes


@final
@regularizers.register("freelb")
class FreeLB:
    """The mean loss over the points of an ascent, in the place of the clean loss (FreeLB).

    Args:
        weight: share of the clean loss that the penalty stands in for.
        norm: how size is measured: over an example's text, over each token, or the largest element.
        epsilon: radius in embedding units; give this or `epsilon_relative`.
        epsilon_relative: radius relative to what is perturbed (norm, or for linf root mean square); 0.1 if neither is
            given.
        steps: K.
        step_size: length of a step in radii; by default 2.5 / K.
        start: where the ascent begins.
        target: what is perturbed.
    """

    def __init__(
        self,
        *,
        weight: Annotated[float, Field(ge=0, le=1)] = 1.0,
        norm: Norm = "l2",
        epsilon: Annotated[float, Field(ge=0)] | None = None,
        epsilon_relative: Annotated[float, Field(ge=0)] | None = None,
        steps: Annotated[int, Field(ge=1)] = 3,
        step_size: Annotated[float, Field(gt=0)] | None = None,
        start: Start = "uniform",
        target: Target = "text",
    ) -> None:
        check_sizes(epsilon=epsilon, epsilon_relative=epsilon_relative)
        self.weight, self._steps, self._start, self._target = weight, steps, start, target
        self._ball = Ball(norm, epsilon, 0.1 if epsilon_relative is None else epsilon_relative)
        self._step_size = 2.5 / steps if step_size is None else step_size
        self.needs = Needs(replaces_loss=True, text=target == "text", prompt=target == "prompt")

    def penalties(self, step: TrainStep) -> Iterator[Float[Tensor, "X"]]:
        """One part per point; its backward pass leaves the next direction at delta, zero where it weighs nothing."""
        delta = {name: self._ball.start(step, name, self._start) for name in step.names(self._target)}
        for t in range(self._steps):
            leaves = {name: value.detach().requires_grad_() for name, value in delta.items()}
            yield step.loss(step.rescore(leaves), step.batch.labels) / self._steps
            if t < self._steps - 1:
                delta = climb(step, self._ball, leaves, _collected(leaves), self._step_size)


def _collected(leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    """The gradients that the backward pass of a part has left."""
    found = {name: value.grad for name, value in leaves.items()}
    assert not found or any(g is not None for g in found.values()), "a part is backpropagated before the next"
    return {name: torch.zeros_like(leaves[name]) if g is None else g for name, g in found.items()}
