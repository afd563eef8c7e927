"""Less memory for more time: layers are computed anew in the backward pass instead of kept (Chen et al. 2016)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    with _anew(recomputed_layers(model), preserve_rng_state=True):
        yield


def composed_activations(model: Any) -> list[Any]:
    """The activation functions that are written as several operations, each of which keeps a tensor as large as a
    feed-forward layer; none of a model whose layers are compiled, as compilers see to that themselves."""
    from transformers import activations

    if any(layer._compiled_call_impl is not None for layer in recomputed_layers(model)):
        return []
    kinds = (
        activations.NewGELUActivation,
        activations.FastGELUActivation,
        activations.QuickGELUActivation,
        activations.AccurateGELUActivation,
    )
    return [module for module in model.modules() if isinstance(module, kinds)]


@contextmanager
def recomputing_activations(model: Any) -> Iterator[None]:
    """While this is open, such activation functions keep what enters them, and nothing else; gradients are the same,
    bit for bit."""
    with _anew(composed_activations(model), preserve_rng_state=False):
        yield


@contextmanager
def _anew(modules: Sequence[Any], **options: Any) -> Iterator[None]:
    """While this is open, these modules are computed anew in the backward pass."""
    for module in modules:
        module.forward = partial(checkpoint, module.forward, use_reentrant=False, **options)
    try:
        yield
    finally:
        for module in modules:
            del module.forward
