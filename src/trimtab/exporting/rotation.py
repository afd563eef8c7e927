"""Keys that are turned, so that the text may stand elsewhere.

Rotary positions (Su et al. 2021, arXiv 2104.09864) turn a query at position t by R_t. What it makes of a prompt's key k
is the same when the text stands P positions further on and the key is turned as far:

    (R_{t+P} q)^T (R_P k)  =  (R_t q)^T k

Queries and keys of the text move together, so nothing else changes.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from trimtab.backbones import Backbone


def is_rotary(backbone: Backbone) -> bool:
    """Whether keys can be turned for this backbone."""
    return _rotation(backbone) is not None


def _rotation(backbone: Backbone) -> tuple[Any, Callable[..., Any]] | None:
    """The module that knows the angles, and the function that turns by them; None where there are none."""
    base = backbone.model.base_model
    rotary = getattr(base, "rotary_emb", None)
    apply = getattr(sys.modules[type(base).__module__], "apply_rotary_pos_emb", None)
    return None if rotary is None or apply is None else (rotary, apply)


def turned_on(
    values: Float[Tensor, "N 2 P K D"], backbone: Backbone, positions: int, layers: tuple[int, ...] | None = None
) -> Float[Tensor, "N 2 P K D"]:
    """Keys and values for a text that stands `positions` further on, float32.

    Args:
        layers: which layers these are; all by default.
    """
    rotation = _rotation(backbone)
    assert rotation is not None, "check is_rotary first"
    rotary, apply = rotation
    at = torch.full((1, values.shape[2]), positions)
    turned = values.clone()
    for n, layer in enumerate(layers or range(len(values))):
        cos, sin = rotary(values.new_zeros(1), at, **_sort_of_layer(backbone.model.config, rotary, layer))
        width = cos.shape[-1]  # of heads that are rotated in part, the first numbers
        keys = values[n, 0].transpose(0, 1)[None]
        moved = apply(keys[..., :width], keys[..., :width], cos.float(), sin.float())[1]
        turned[n, 0] = torch.cat([moved, keys[..., width:]], -1)[0].transpose(0, 1)
    return turned


def _sort_of_layer(config: Any, rotary: Any, layer: int) -> Mapping[str, Any]:
    """Models with several bases of rotation (Gemma 3) want to know the sort of a layer."""
    if "layer_type" not in inspect.signature(rotary.forward).parameters:
        return {}
    return {"layer_type": config.layer_types[layer]}
