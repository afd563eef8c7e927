"""SMART: the same answer at the worst point of a small ball (Jiang et al. 2020, "SMART: Robust and Efficient
Fine-Tuning", arXiv 1911.03437, smoothness-inducing adversarial regularization).

    penalty     = D( p, M(s, e + delta_K) ),      D(p, q) = KL( p || q ) + KL( q || p ),      p = M(s, e)
    delta_0     ~ normal, in the ball
    delta_(t+1) = Proj_eps( delta_t + eta sign( grad_delta D( p, M(s, e + delta_t) ) ) ),     t = 0 .. K-1

Symbols: s prompt, e embedded text, M frozen backbone with its readout as a distribution over answers, K `steps`, eta =
`step_size` eps; Proj clamps each element to [-eps, eps]. In the penalty gradient flows into both passes; delta_K is
held constant, and no step leaves a gradient on the prompt or the backbone. Cost per step: K + 2 passes in all.

The paper has eps = 1e-5, eta = 1e-3 and K = 1. A step that long leads out of the ball from everywhere in it, so what
comes out is the corner eps sign(g), as with any `step_size` of two radii or more; hence the default of 2. As for R3F, a
radius of 1e-5 is rounded away by bfloat16, and in float32 the divergence and its gradient at so small a delta are
mostly rounding; set `epsilon_relative`, 0.1 say.

Deviations: the paper's other half, Bregman proximal point optimization (a penalty on the distance from the model of an
earlier step), is not part of this. The start has standard deviation eps / 2 and is projected; in the paper it is 1e-5,
the radius itself. The step is the sign of the gradient, steepest ascent in the maximum norm. Versions of its code
(mt-dnn) differ: they climb KL( p || q ) alone, divide gradients by their largest element per token, and do not project;
one of them takes its step from e and not from e + delta_0. Only field text moves; `target` names the prompt instead, or
both.
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
from trimtab.regularizers.ascent import Ball, climb, slopes
from trimtab.regularizers.comparison import check_sizes, compared


@final
@regularizers.register("smart")
class SMART:
    """The same answer at the worst point of a small ball: adversarial symmetric divergence (SMART).

    Args:
        weight: of the penalty beside the clean loss, lambda_s in the paper.
        epsilon: the largest change of an element in embedding units; 1e-5 if neither is given.
        epsilon_relative: the same in multiples of the root mean square of what is perturbed.
        steps: K.
        step_size: length of a step in radii.
        target: what is perturbed.
    """

    def __init__(
        self,
        *,
        weight: Annotated[float, Field(ge=0)] = 1.0,
        epsilon: Annotated[float, Field(ge=0)] | None = None,
        epsilon_relative: Annotated[float, Field(ge=0)] | None = None,
        steps: Annotated[int, Field(ge=1)] = 1,
        step_size: Annotated[float, Field(gt=0)] = 2.0,
        target: Target = "text",
    ) -> None:
        check_sizes(epsilon=epsilon, epsilon_relative=epsilon_relative)
        self.weight, self._steps, self._step_size, self._target = weight, steps, step_size, target
        if epsilon_relative is None:
            self._ball = Ball("linf", 1e-5 if epsilon is None else epsilon, 0.0)
        else:
            self._ball = Ball("linf", None, epsilon_relative)
        self.needs = Needs(graph=True, distribution=True, text=target == "text", prompt=target == "prompt")

    def penalties(self, step: TrainStep) -> Iterator[Float[Tensor, "X"]]:
        """The divergence at the end of the ascent."""
        delta = {name: self._ball.start(step, name, "normal") for name in step.names(self._target)}
        for _ in range(self._steps):
            delta = climb(step, self._ball, delta, slopes(step, delta, "sym_kl"), self._step_size)
        yield compared("sym_kl", step.rescore(delta), step)
