"""Less memory for more time: layers are computed anew in the backward pass instead of kept (Chen et al. 2016)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch.utils.checkpoint import checkpoint

from trimtab.errors import BackboneError


def recomputed_layers(model: Any) -> list[Any]:
    """The modules that can be computed anew, each a layer of the transformer."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def check_recomputing(model: Any) -> None:
    """Refuse models that have no such layers.

    Raises:
        BackboneError: the layers are not independent of what ran before (ALBERT).
    """
    if not recomputed_layers(model):
        raise BackboneError(
            f"the layers of {type(model).__name__} cannot be computed anew in the backward pass.",
            where="training.recompute_layers",
            fix="Set training.recompute_layers: false.",
        )


@contextmanager
def recomputing(model: Any) -> Iterator[None]:
    """While this is open, passes keep only what enters each layer; gradients are the same, bit for bit.

    Transformers' own switch works in training mode alone, which would turn dropout on. Dropout that is on draws the
    same again.

    Raises:
        BackboneError: as `check_recomputing`.
    """
    check_recomputing(model)
    layers = recomputed_layers(model)
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
