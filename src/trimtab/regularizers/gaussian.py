"""Gaussian noise on embeddings (PTP-RN in embedding space; Chen et al., EMNLP 2023, arXiv 2305.02423).

    penalty = 1/K sum over k of loss( M(s, e + delta_k), y ),     delta_k ~ N(0, sigma^2 I) on field text only

Symbols: s prompt, e embedded text, M frozen backbone, K `samples`. The noise enters before position embeddings and
LayerNorm, is fresh at every step, and never touches slots, the answer slot, literals, specials, pads or label words.
`target: prompt` moves the prompt of each example instead (the keys and values of a deep one), `both` moves both.
Cost per step: K more passes.

Deviations: the paper's equation, sigma and weight were not available to us in full text; this is a reconstruction from
its abstract. The additive label-supervised form and every default here are ours, and so is what is perturbed: the
abstract speaks of changes of the input, a summary by others of noise on prompt embeddings. In bfloat16 noise under
about 0.4 % of an embedding is rounded away.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, final

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from trimtab.perturbations import Target, TrainStep
from trimtab.registry import regularizers
from trimtab.regularizers import Needs
from trimtab.regularizers.comparison import Loss, check_sizes, compared


@final
@regularizers.register("gaussian")
class Gaussian:
    """Random noise on the embeddings of the input text (PTP-RN).

    Args:
        weight: of the penalty beside the clean loss.
        sigma: standard deviation per element, in embedding units; give this or `sigma_relative`.
        sigma_relative: the same in multiples of the embeddings' root mean square; 0.1 if neither is given.
        samples: draws of noise per step.
        loss: what the noisy scores are held against: the label, or the clean scores.
        target: what the noise is added to.
    """

    def __init__(
        self,
        *,
        weight: Annotated[float, Field(ge=0)] = 1.0,
        sigma: Annotated[float, Field(ge=0)] | None = None,
        sigma_relative: Annotated[float, Field(ge=0)] | None = None,
        samples: Annotated[int, Field(ge=1)] = 1,
        loss: Loss = "ce",
        target: Target = "text",
    ) -> None:
        check_sizes(sigma=sigma, sigma_relative=sigma_relative)
        self.weight, self._sigma, self._samples, self._loss, self._target = weight, sigma, samples, loss, target
        self._sigma_relative = 0.1 if sigma_relative is None else sigma_relative
        compares = loss != "ce"
        self.needs = Needs(graph=compares, distribution=compares, text=target == "text", prompt=target == "prompt")

    def penalties(self, step: TrainStep) -> Iterator[Float[Tensor, "X"]]:
        """One part per draw."""
        for k in range(self._samples):
            delta = {name: self._size(step, name) * step.normal(name, str(k)) for name in step.names(self._target)}
            yield compared(self._loss, step.rescore(delta), step) / self._samples

    def _size(self, step: TrainStep, name: str) -> float | Tensor:
        return self._sigma if self._sigma is not None else self._sigma_relative * step.rms[name]
