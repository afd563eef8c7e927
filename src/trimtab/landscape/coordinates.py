"""A run's loss as a function of coordinates whose size means something: the prompt's, or those of the texts.

    prompt   f_1(z) = 1/X sum_x loss_x( s + u z )           one block: all virtual tokens, keys and values
    text     f_x(z_x) = loss_x( e_x + u z_x )               a block per example: its eligible tokens

Symbols: s the materialized prompt, e_x the embedded text of example x, u the unit. A coordinate of 1 is as much as an
element of what the backbone itself has at that place, at the root mean square: for text and virtual tokens of its word
embeddings, for keys and values of those that it computes for the first example, by site. So a unit depends on backbone
and batch, never on the run: runs are measured with one rule, and numbers of deep prompts may stand beside those of
others. In raw coordinates an eigenvalue would be that over u^2, a slope that over u.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from trimtab.backbones import Backbone
from trimtab.landscape.neighborhood import Neighborhood
from trimtab.landscape.point import LossAt, Space
from trimtab.perturbations import TEXT

DEEP = "deep."


def around_prompt(loss: LossAt) -> Neighborhood:
    """The mean loss around the prompt."""
    units = spread(loss.prompt, units_of(loss, loss.prompt), loss)

    def losses(z: Float[Tensor, "M"]) -> Float[Tensor, "X"]:
        return loss.at(loss.prompt, (units * z)[None])

    block = torch.zeros(loss.prompt.size, dtype=torch.long, device=units.device)
    return Neighborhood(losses, loss.original(loss.prompt) / units, block, 1)


def around_texts(loss: LossAt) -> Neighborhood:
    """The loss of each example around its own text."""
    units = spread(loss.text, units_of(loss, loss.text), loss)

    def losses(z: Float[Tensor, "M"]) -> Float[Tensor, "X"]:
        return loss.losses(loss.text.split((units * z)[None]))[0]

    return Neighborhood(losses, loss.original(loss.text) / units, examples(loss).to(units.device), len(loss.rows))


def examples(loss: LossAt) -> Int[Tensor, "M"]:
    """The example that each coordinate of the texts belongs to."""
    size = loss.text.shapes[TEXT][1]
    counts = torch.tensor(loss.tokens_of_text)
    return torch.arange(len(counts)).repeat_interleave(counts * size)


def units_of(loss: LossAt, space: Space) -> dict[str, float]:
    """What a coordinate of 1 is, by name of what is moved; see above. 1 where the backbone has nothing but zeros."""
    backbone = loss.model.backbone
    deep = keys_values_rms(backbone, loss) if any(n.startswith(DEEP) for n in space.shapes) else {}
    return {n: deep.get(n.removeprefix(DEEP), backbone.embedding_rms) or 1.0 for n in space.shapes}


def keys_values_rms(backbone: Backbone, loss: LossAt) -> dict[str, float]:
    """Root mean square of the keys and values that the bare backbone computes for the first example, by site."""
    encoded = loss.rows[0].encoded
    said = [token for place, token in enumerate(encoded.ids) if place not in encoded.slots]
    found = backbone.keys_values(torch.tensor(said))
    return {site: float(values.square().mean().sqrt()) for site, values in found.items()}


def spread(space: Space, units: Mapping[str, float], loss: LossAt) -> Float[Tensor, "M"]:
    """The unit of every coordinate of a space."""
    parts = {n: torch.full((1, *shape), units[n]) for n, shape in space.shapes.items()}
    return space.join(parts)[0].to(loss.table.inputs.device) if parts else loss.table.inputs.new_zeros(0)
