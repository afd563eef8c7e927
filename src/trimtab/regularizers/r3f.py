"""R3F: the same answer in spite of noise (Aghajanyan et al. 2020, "Better Fine-Tuning by Reducing Representational
Collapse", arXiv 2008.03156).

    penalty = KL( p || p~ ) + KL( p~ || p ),      p = M(s, e),   p~ = M(s, e + z)
    z ~ N(0, sigma^2 I)  or  z ~ U(-sigma, sigma), element by element, on field text only

Symbols: s prompt, e embedded text, M frozen backbone with its readout as a distribution over answers. Gradient flows
into both passes. The noise is fresh at every step. Cost per step: one more pass.

The paper's sigma of 1e-5 is the default, and it is very little: bfloat16 has 8 bits, so noise below about 0.4 % of an
element is rounded away, nearly all of it. In float32 the penalty is of the order of sigma^2, which
rounding exceeds. Where it is to do something, set `sigma_relative`, 0.1 say: noise in units of the embeddings' root
mean square.

Deviations: the paper tunes a whole model, here the prompt alone is trained. Its code (fairseq, examples/rxf) draws
uniform noise unless told otherwise, on every token of the padded sequence; here normal noise is the default, on field
text, and `target` may name the prompt instead, or both. Its code cuts the noisy embeddings off from the embedding
table, which is frozen here anyway, unless the backbone is tuned: then gradient flows into it from both passes. R4F,
which adds spectral normalization of the head, is not offered.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, final

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from trimtab.perturbations import Target, TrainStep
from trimtab.registry import regularizers
from trimtab.regularizers import Needs
from trimtab.regularizers.comparison import check_sizes, compared


@final
@regularizers.register("r3f")
class R3F:
    """The same answer in spite of noise: symmetric divergence from a noisy pass (R3F).

    Args:
        weight: of the penalty beside the clean loss, lambda in the paper.
        sigma: standard deviation of normal noise, or half-width of uniform noise, per element in embedding units; 1e-5
            if neither is given.
        sigma_relative: the same in multiples of the embeddings' root mean square.
        noise: its distribution.
        target: what the noise is added to.
    """

    def __init__(
        self,
        *,
        weight: Annotated[float, Field(ge=0)] = 1.0,
        sigma: Annotated[float, Field(ge=0)] | None = None,
        sigma_relative: Annotated[float, Field(ge=0)] | None = None,
        noise: Literal["normal", "uniform"] = "normal",
        target: Target = "text",
    ) -> None:
        check_sizes(sigma=sigma, sigma_relative=sigma_relative)
        self.weight, self._noise, self._target = weight, noise, target
        self._sigma, self._sigma_relative = 1e-5 if sigma is None else sigma, sigma_relative
        self.needs = Needs(graph=True, distribution=True, text=target == "text", prompt=target == "prompt")

    def penalties(self, step: TrainStep) -> Iterator[Float[Tensor, "X"]]:
        """The divergence between the clean and a noisy pass."""
        draw = step.normal if self._noise == "normal" else step.uniform
        delta = {name: self._size(step, name) * draw(name, "noise") for name in step.names(self._target)}
        yield compared("sym_kl", step.rescore(delta), step)

    def _size(self, step: TrainStep, name: str) -> float | Tensor:
        return self._sigma if self._sigma_relative is None else self._sigma_relative * step.rms[name]
