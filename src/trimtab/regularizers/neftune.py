"""NEFTune: noise on the text, and no clean loss (Jain et al. 2023, "NEFTune: Noisy Embeddings Improve Instruction
Finetuning", arXiv 2310.05914, algorithm 1).

    penalty = loss( M(s, e + delta), y ),      delta = alpha / sqrt(L d) U(-1, 1)

Symbols: s prompt, e embedded text, M frozen backbone, L tokens of the example that noise is added to, d the embedding
size. The length of delta is about alpha / sqrt(3), whatever L and d: shorter texts get more noise per element. How much
that is depends on how large a backbone's embeddings are, so alpha does not carry over from one backbone to another. The
noise is fresh at every step.

The penalty stands in the place of the clean loss, as in the paper: with weight w the objective is (1 - w) loss + w
penalty. Cost per step: one pass, as without; with a weight below 1 one more, the clean one.

Deviations: the paper counts the whole sequence as L (its code the padded one) and adds noise to all of it; here both L
and the noise are of field text, so that they depend neither on batch mates nor on the template. The paper tunes
language models on instructions and answers, and its alpha is 5, 10 or 15; a `weight` below 1 is ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, final

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from trimtab.perturbations import TEXT, TrainStep
from trimtab.registry import regularizers
from trimtab.regularizers import Needs


@final
@regularizers.register("neftune")
class NEFTune:
    """Uniform noise on the embeddings of the input text, in the place of the clean loss (NEFTune).

    Args:
        weight: share of the clean loss that the noisy one stands in for.
        alpha: size of the noise: about sqrt(3) times its norm over the text of an example, in embedding units.
    """

    needs = Needs(replaces_loss=True, text=True)

    def __init__(
        self, *, weight: Annotated[float, Field(ge=0, le=1)] = 1.0, alpha: Annotated[float, Field(ge=0)] = 5.0
    ) -> None:
        self.weight, self._alpha = weight, alpha

    def penalties(self, step: TrainStep) -> Iterator[Float[Tensor, "X"]]:
        """The loss with noise."""
        noise = step.uniform(TEXT, "noise")
        elements = step.mask.sum(1).clamp(min=1)[:, None, None] * noise.shape[2]
        yield step.loss(step.rescore({TEXT: self._alpha / elements.sqrt() * noise}), step.batch.labels)
