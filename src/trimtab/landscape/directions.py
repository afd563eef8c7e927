"""Directions in which a landscape is seen, and their lengths.

Filter normalization (Li et al. 2018, "Visualizing the Loss Landscape of Neural Nets", arXiv 1712.09913, section 4)
gives every filter of a random direction the norm of the network's own filter, so that landscapes of different networks
can be compared. A prompt has no filters: here a token has the part of a filter, be it a virtual token of the input
prompt, the keys or the values of one in a layer, or a token of a text.

    random      d_t = u_t r_t / ||r_t||                        r ~ N(0, I), for every token t
    gradient    d = U g / ||g||                                g = grad f at the run, U^2 = sum_t u_t^2
    aside       r_t <- r_t - <r_t, d_t> d_t / ||d_t||^2        before a direction beside d is normalized

u_t is a unit: with `common` the root mean square of the norms of all tokens of one name (text, inputs, deep.<site>)
over all runs that are compared, so a step of 1 is equally long in all of them; with `own` the norm of the token itself,
as in the paper. Either way a step of 1 along either axis has the length U. For a text U is the norm of its embeddings,
so 0.1 is a change of a tenth of the text: the scale of PTP's figure (Chen et al. 2023, arXiv 2305.02423), whose axes
are the gradient and a random direction orthogonal to it.

Deviations: the paper's random directions are not orthogonal to each other; in many dimensions they nearly are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from trimtab.errors import BackboneError, ConfigError
from trimtab.landscape.point import LossAt, Space
from trimtab.perturbations import TEXT, purpose_number
from trimtab.seeding import stream

UNITS = ("common", "own")
_TINY = 1e-12


def gradient(loss: LossAt, space: Space) -> Float[Tensor, "M"]:
    """The gradient of the mean loss at the run itself.

    Raises:
        ConfigError: it is zero, so it names no direction.
        BackboneError: it is not finite.
    """
    values = torch.zeros(1, space.size, device=loss.table.inputs.device, requires_grad=True)
    (total,) = torch.autograd.grad(loss.at(space, values)[0], values, allow_unused=True, materialize_grads=True)
    names = " and ".join(space.shapes)
    if not total.isfinite().all():
        raise BackboneError(
            f"the gradient of the loss with respect to {names} is not finite.",
            where=loss.model.backbone.name,
            fix="The run has diverged; train it again with a lower training.learning_rate.",
        )
    if not total.any():
        raise ConfigError(
            f"the gradient of the loss with respect to {names} is zero, so it names no direction.",
            where="landscape",
            fix="Use --directions random; or more --examples, if the loss is 0 on these.",
        )
    return total[0].detach()


def drawn(loss: LossAt, space: Space, seed: int, purpose: str) -> Float[Tensor, "M"]:
    """Standard normal numbers that depend on (seed, purpose) and on what they are for: runs with prompts of the same
    shape, or with the same texts, get the same. A text that is longer in one run begins as the others do.
    """
    found = {}
    for name, shape in space.shapes.items():
        number = purpose_number(f"{purpose}:{name}")
        if name == TEXT:
            counts, size = loss.tokens_of_text, shape[1]
            draws = [stream(seed, "landscape", number, x) for x in range(len(counts))]
            rows = [d.standard_normal((n, size), dtype=np.float32) for d, n in zip(draws, counts, strict=True)]
            value = np.concatenate(rows)
        else:
            value = stream(seed, "landscape", number).standard_normal(shape, dtype=np.float32)
        found[name] = torch.from_numpy(value)[None]
    return space.join(found)[0].to(loss.table.inputs.device)


def token_norms(values: Float[Tensor, "M"], space: Space) -> Float[Tensor, "T"]:
    """The norm of each token's part of a vector."""
    return _per_token(values.square(), space).sqrt()


def units(losses: Sequence[LossAt], space: Space, own: LossAt, unit: str) -> Float[Tensor, "T"]:
    """How long a step of 1 is for each token of a run's space.

    Args:
        losses: of all runs that are compared, this one among them.
        unit: one of `UNITS`.

    Raises:
        ConfigError: what would be the unit is zero.
    """
    found = token_norms(own.original(space), space)
    if unit == "common":
        for name, places in _tokens_by_name(space).items():
            alone = [(loss, Space({name: shape})) for loss in losses if (shape := _shape(loss, name)) is not None]
            squares = torch.cat([token_norms(loss.original(its), its).square() for loss, its in alone])
            found[places] = squares.mean().sqrt()
    if not found.any():
        raise ConfigError(
            f"{' and '.join(space.shapes)} is zero, so it gives no unit of length.",
            where="landscape",
            fix="Train the run, or compare it with one that is not zero.",
        )
    return found


def random_direction(
    drawn_values: Float[Tensor, "M"], space: Space, unit: Float[Tensor, "T"], beside: Float[Tensor, "M"] | None = None
) -> Float[Tensor, "M"]:
    """A random direction of the length of a step, token by token.

    Args:
        beside: another direction, that this one is orthogonal to, token by token.
    """
    values, tokens = drawn_values, space.tokens.to(drawn_values.device)
    if beside is not None:
        share = _per_token(values * beside, space) / _per_token(beside.square(), space).clamp(min=_TINY)
        values = values - share[tokens] * beside
    return values * (unit / token_norms(values, space).clamp(min=_TINY))[tokens]


def gradient_direction(values: Float[Tensor, "M"], unit: Float[Tensor, "T"]) -> Float[Tensor, "M"]:
    """The gradient's direction, of the length of a step."""
    return values * (unit.norm() / values.norm())


def through(
    first: Float[Tensor, "M"], second: Float[Tensor, "M"]
) -> tuple[Float[Tensor, "M"], Float[Tensor, "M"], tuple[float, float]]:
    """Axes of the plane through 0, `first` and `second`, and where `second` lies on them; `first` lies at (1, 0). Both
    axes have the length of `first` (Garipov et al. 2018, arXiv 1802.10026, section 3, whose axes have the length 1).

    Raises:
        ConfigError: the three are one or two points, or lie on a line.
    """
    length = first.norm()
    along = (second @ first) / length.square().clamp(min=_TINY)
    rest = second - along * first
    if not length > 0 or rest.norm() < 1e-6 * second.norm().clamp(min=_TINY):
        raise ConfigError(
            "three prompts make a plane only if they are not on one line, and these are.",
            where="landscape",
            fix="Name three runs of different seeds.",
        )
    y = rest * (length / rest.norm())
    return first, y, (float(along), float(rest.norm() / length))


def _shape(loss: LossAt, name: str) -> tuple[int, ...] | None:
    """Of what a run has under a name; None where it has nothing of the sort."""
    return {**loss.trained.shapes, **loss.text.shapes}.get(name)


def _tokens_by_name(space: Space) -> Mapping[str, slice]:
    """Which tokens of a space are of which name."""
    found, begun = {}, 0
    for name, shape in space.shapes.items():
        count = int(Space({name: shape}).tokens.max()) + 1
        found[name] = slice(begun, begun + count)
        begun += count
    return found


def _per_token(values: Float[Tensor, "M"], space: Space) -> Float[Tensor, "T"]:
    """Sums over each token's numbers."""
    tokens = space.tokens.to(values.device)
    return values.new_zeros(int(tokens.max()) + 1 if len(tokens) else 0).index_add(0, tokens, values)
