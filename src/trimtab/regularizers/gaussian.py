"""Gaussian noise on the text embeddings (PTP-RN in embedding space; Chen et al., EMNLP 2023, arXiv 2305.02423).

    penalty = loss( M(s, e + delta), y ),     delta ~ N(0, sigma^2 I) on field text only

Symbols: s prompt, e embedded text, M frozen backbone. The noise enters before position embeddings and LayerNorm, is
fresh at every step, and never touches slots, the answer slot, literals, specials or pads. Cost per step: one more pass.

Deviations: the paper's equation, sigma and weight were not available to us in full text; this is a reconstruction from
its abstract. The additive label-supervised form and every default here are ours.
"""

from __future__ import annotations

from typing import Annotated, final

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from trimtab.errors import ConfigError
from trimtab.registry import regularizers
from trimtab.types import TrainStep


@final
@regularizers.register("gaussian")
class Gaussian:
    """Random noise on the embeddings of the input text (PTP-RN).

    Args:
        weight: of the penalty beside the clean loss.
        sigma: standard deviation per element, in embedding units; give this or `sigma_relative`.
        sigma_relative: the same in multiples of the embeddings' root mean square; 0.1 if neither is given.
    """

    def __init__(
        self,
        *,
        weight: Annotated[float, Field(ge=0)] = 1.0,
        sigma: Annotated[float, Field(ge=0)] | None = None,
        sigma_relative: Annotated[float, Field(ge=0)] | None = None,
    ) -> None:
        if sigma is not None and sigma_relative is not None:
            raise ConfigError("give sigma or sigma_relative, not both.", where="regularizers")
        self.weight, self._sigma = weight, sigma
        self._sigma_relative = 0.1 if sigma is None and sigma_relative is None else sigma_relative

    def penalty(self, step: TrainStep) -> Float[Tensor, "B"]:
        """Loss per row under one draw of noise."""
        sigma = self._sigma if self._sigma is not None else (self._sigma_relative or 0.0) * step.embedding_rms
        delta = sigma * step.noise("gaussian") * step.batch.eligible[..., None]
        return step.loss(step.rescore(delta), step.batch.labels)
