"""Which positions scores depend on, by their gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def positions_read(network: Any, score: Callable[[], Tensor]) -> tuple[set[int], int]:
    """The positions of the last layer's output, of one row, that the scores depend on; and how many there are.

    Args:
        network: whose layers are meant: a model, or the encoder of one.
        score: a forward pass whose prompt has a gradient.
    """
    kept: list[Tensor] = []
    layers = max((m for m in network.modules() if isinstance(m, nn.ModuleList)), key=len)
    hook = layers[-1].register_forward_hook(lambda m, i, out: kept.append(out if isinstance(out, Tensor) else out[0]))
    try:
        scores = score()
    finally:
        hook.remove()
    (gradient,) = torch.autograd.grad(scores.square().sum(), kept[-1])
    return set(gradient[0].norm(dim=1).nonzero()[:, 0].tolist()), gradient.shape[1]
