"""SAM: the gradient from a step uphill of the prompt (Foret et al. 2021, "Sharpness-Aware Minimization for Efficiently
Improving Generalization", arXiv 2010.01412, equations 2 and 3).

    penalty = loss( M(s + rho g / ||g||, e), y ),      g = grad_s of the run's mean clean loss, held constant

Symbols: s prompt, e embedded text, M frozen backbone, rho `epsilon`. g is that of the run's whole logical batch, and so
is the step: all its examples see the same prompt. ||.|| is one norm over all tensors of a run's prompt together: input
vectors, deep keys and values. Heads and gates do not move; they get their gradient at the moved prompt.

The penalty stands in the place of the clean loss, as in the paper: with weight w the objective is (1 - w) loss + w
penalty. Cost per step: 2 passes in all; with a weight below 1 one more backward pass through the clean one.

Deviations: the paper moves all weights of a model. Here the materialized prompt moves, not the parameters of the
encoder that it comes from: a ball around the prompt is another one than a ball around the weights of an LSTM.
`epsilon_relative` (rho in units of the norm of the run's own prompt) and a `weight` below 1 are ours. rho = 0.05 is the
paper's default for image models; a prompt is far smaller, so 0.05 may be much or nothing, which depends on its scale.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, final

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from trimtab.perturbations import TrainStep
from trimtab.registry import regularizers
from trimtab.regularizers import Needs
from trimtab.regularizers.comparison import check_sizes


@final
@regularizers.register("sam")
class SAM:
    """The loss a step uphill of the prompt, in the place of the clean loss (SAM).

    Args:
        weight: share of the clean loss that the penalty stands in for.
        epsilon: length of the step, rho, in units of the prompt; 0.05 if neither is given.
        epsilon_relative: the same in multiples of the norm of the run's own prompt.
    """

    needs = Needs(table_gradient=True, replaces_loss=True, prompt=True)

    def __init__(
        self,
        *,
        weight: Annotated[float, Field(ge=0, le=1)] = 1.0,
        epsilon: Annotated[float, Field(ge=0)] | None = None,
        epsilon_relative: Annotated[float, Field(ge=0)] | None = None,
    ) -> None:
        check_sizes(epsilon=epsilon, epsilon_relative=epsilon_relative)
        self.weight, self._epsilon_relative = weight, epsilon_relative
        self._epsilon = 0.05 if epsilon is None else epsilon

    def penalties(self, step: TrainStep) -> Iterator[Float[Tensor, "X"]]:
        """The loss with the moved prompt."""
        own = step.batch.prompt_of_example
        gradient = {name: step.table_gradient[name][own].float() for name in step.prompts}
        scale = self._rho(step) / _norm(gradient).clamp(min=1e-12)
        delta = {name: scale.view(-1, *[1] * (g.ndim - 1)) * g for name, g in gradient.items()}
        yield step.loss(step.rescore(delta), step.batch.labels)

    def _rho(self, step: TrainStep) -> float | Tensor:
        """The length of the step, of each example's run."""
        if self._epsilon_relative is None:
            return self._epsilon
        return self._epsilon_relative * _norm({name: step.original(name).float() for name in step.prompts})


def _norm(values: Mapping[str, Tensor]) -> Float[Tensor, "X"]:
    """One norm over all tensors, per example."""
    return torch.stack([torch.linalg.vector_norm(v.flatten(1), dim=1) for v in values.values()]).norm(dim=0)
