"""The loss of random prompts on tiny models and the toy task."""

from __future__ import annotations

import torch

from tests.contract.toy_runs import reader, rows_of, toy_rendering
from trimtab.backbones import Backbone
from trimtab.landscape.point import MAX_TOKENS, LossAt
from trimtab.model import PromptedModel
from trimtab.prompt_table import PromptTable, table_of


def random_prompt(backbone: Backbone, length: int = 5, deep: int = 0, seed: int = 0) -> PromptTable:
    """A prompt of `length` vectors, and of `deep` keys and values in every layer."""
    draw = torch.Generator().manual_seed(seed)
    scale = backbone.embedding_rms
    parts = {"inputs": scale * torch.randn(1, length, backbone.embedding_size, generator=draw)}
    layers = {}
    for name, site in backbone.sites.items() if deep else ():
        shape = (1, site.layers, 2, deep, site.heads, site.size)
        parts[f"deep.{name}"], layers[name] = torch.randn(shape, generator=draw), tuple(range(site.layers))
    return table_of(parts, layers)


def toy_loss(
    backbone: Backbone,
    n: int = 6,
    *,
    length: int = 5,
    deep: int = 0,
    max_tokens: int = MAX_TOKENS,
) -> LossAt:
    """The loss on `n` rows of the toy."""
    rendering = toy_rendering(backbone, length)
    model = PromptedModel(backbone, reader(backbone, rendering))
    return LossAt(model, random_prompt(backbone, length, deep), rows_of(backbone, rendering, n), max_tokens)
