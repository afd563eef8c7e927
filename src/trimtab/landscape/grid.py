"""Losses at many points of a plane or a line, in passes over several points at once, and the memory that they take."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from trimtab.errors import ConfigError
from trimtab.landscape.point import MAX_TOKENS, LossAt, Space
from trimtab.sizes import of_memory
from trimtab.training.memory import free_memory

Told = Callable[[int], None]
"""Receives how many points have been computed since it was last called."""

_BYTES = 4


@torch.no_grad()
def losses_over(
    loss: LossAt,
    space: Space,
    axes: Float[Tensor, "D M"],
    at: Float[np.ndarray, "G D"],
    tell: Told = lambda count: None,
    max_tokens: int = MAX_TOKENS,
) -> Float[np.ndarray, "G X"]:
    """The loss of every example at every point.

    Args:
        axes: of a space; the run itself is the point 0.
        at: coordinates of the points on the axes.
        max_tokens: tokens per pass. How points are packed changes nothing but the last bits.

    Raises:
        ConfigError: the points, or a pass, do not fit into memory; nothing has been computed.
    """
    many = points_of_pass(loss, max_tokens)
    check_memory(loss, space, len(at), max_tokens)
    found = np.empty((len(at), len(loss.rows)), dtype=np.float32)
    for begin in range(0, len(at), many):
        some = torch.from_numpy(at[begin : begin + many]).to(axes)
        found[begin : begin + many] = loss.losses(space.split(some @ axes)).cpu().numpy()
        tell(len(some))
    return found


def points_of_pass(loss: LossAt, max_tokens: int = MAX_TOKENS) -> int:
    """How many points are computed at once: as many as the tokens of a pass allow, one at least."""
    return max(1, max_tokens // loss.tokens_of_pass)


def check_memory(loss: LossAt, space: Space, points: int, max_tokens: int = MAX_TOKENS) -> None:
    """Refuse what would not fit.

    Args:
        points: in all.
        max_tokens: tokens per pass.

    Raises:
        ConfigError: it would not.
    """
    many = points_of_pass(loss, max_tokens)
    needed, free = bytes_needed(loss, space, points, many), free_memory(loss.model.backbone.device)
    if free is not None and needed > free:
        raise ConfigError(
            f"{points:,} points with {len(loss.rows)} examples, {many} points at a time, need about "
            f"{of_memory(needed)} of memory, {of_memory(free)} are free.",
            where="landscape",
            fix="Lower --points, --examples or --max-tokens.",
        )


def bytes_needed(loss: LossAt, space: Space, points: int, many: int) -> int:
    """About how much memory a landscape takes beside the model: the points, their losses, and one pass.

    Counted are what a layer keeps at once (inputs and outputs, queries, keys, values, the four times wider layer
    between, attention scores three times over), the moved texts and prompts, and logits of all words where the readout
    looks at them. A gradient keeps that of all layers and of all examples, for a single point.
    """
    backbone, config = loss.model.backbone, loss.model.backbone.model.config
    hidden, sites = backbone.hidden_size, backbone.family.sites(config).values()
    queries, layers = max(s.queries for s in sites), sum(s.layers for s in sites)
    prompt = max((shape[-3] for shape in loss.prompt.shapes.values() if len(shape) > 3), default=0)
    vocabulary = 0 if loss.model.readout.trains else len(backbone.embedding_weight)
    each = []
    for rows, length, reads in loss.passes:
        layer = rows * length * (3 * backbone.embedding_size + 16 * hidden)
        layer += 3 * rows * queries * length * (length + prompt)
        each.append((layer, 2 * rows * reads * vocabulary))
    moved = 3 * space.size + 2 * loss.trained.size
    forward = many * (sum(each[0]) + moved)
    backward = sum(layers * layer + words for layer, words in each) + moved
    return _BYTES * (points * (2 * len(loss.rows) + 8) + 4 * space.size + max(forward, backward))
