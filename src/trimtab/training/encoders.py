"""The prompt encoder of a run: what it may know of task and backbone, its first values, how many numbers it trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch

from trimtab.backbones import Backbone
from trimtab.backbones.loading import TextSide
from trimtab.config import RunConfig
from trimtab.errors import TemplateError
from trimtab.initializers import PromptContext
from trimtab.prompt_table import Site
from trimtab.prompts import PromptEncoder
from trimtab.readouts import first_head
from trimtab.registry import prompts
from trimtab.rendering import Rendering
from trimtab.seeding import torch_seed, torch_stream
from trimtab.tasks import Task
from trimtab.text_encoder import TextEncoder


def count_parameters(
    config: RunConfig,
    task: Task,
    rendering: Rendering,
    side: TextSide,
    others: Sequence[tuple[RunConfig, Task]] = (),
) -> dict[str, int]:
    """How many parameters a run trains and keeps, by the methods' formulas; a trained backbone's own aside.

    Args:
        others: further tasks, whose readouts may have a head.

    Raises:
        ConfigError: the prompt asks for layers or sites that the backbone does not have.
    """
    family, model = side.family, side.config
    there = _read_sites(family.sites(model), rendering, side.encoder)
    options = {**config.prompt, "there": there, "hidden_size": family.hidden_size(model)}
    encoder: Any = prompts.get(config.prompt["kind"])
    head = 0
    for own, of in ((config, task), *others):
        classes = len(of.verbalizer.classes)
        first = first_head(own.readout["kind"], family.hidden_size(model), classes, torch.Generator())
        head += sum(value.numel() for value in first.values())
    size = side.embedding_size
    return {"trained": encoder.count(size=size, **options) + head, "kept": encoder.kept(size=size, **options) + head}


def prompt_context(
    rendering: Rendering, backbone: Backbone, seed: int, others: Sequence[Rendering] = ()
) -> PromptContext:
    """What the encoders of a run may know.

    Args:
        others: of further tasks, whose label words are to be known too.
    """
    encoder = backbone.encoder
    return PromptContext(
        embeddings=backbone.embedding_rows,
        embedding_rms=backbone.embedding_rms,
        words=backbone.ordinary_words,
        label_ids=[i for its in (rendering, *others) for i in label_ids(its, encoder)],
        encode=lambda text: encoder.encode(text).ids,
        generator=torch_stream(seed, "init"),
        backbone=backbone.name,
        fingerprint=backbone.fingerprint,
        hidden_size=backbone.hidden_size,
        sites=lambda: _read_sites(backbone.sites, rendering, encoder),
        takes_positions=backbone.family.takes_positions,
        keys_values=backbone.keys_values,
    )


def _read_sites(sites: Mapping[str, Site], rendering: Rendering, encoder: TextEncoder) -> dict[str, Site]:
    """The kinds of attention that the readout depends on: of an encoder-decoder that is read in its encoder, one."""
    reads_encoder = not rendering.plan(encoder).fills[0].decoder
    return {n: s for n, s in sites.items() if n not in ("decoder", "cross") or not reads_encoder}


def label_ids(rendering: Rendering, encoder: TextEncoder) -> list[int]:
    """Token ids of the label words; none where the answer is read by a head and has no words in the vocabulary."""
    with suppress(*([TemplateError] if rendering.plan(encoder).words == () else [])):
        return [i for its in rendering.label_ids(encoder) for ids in its for i in ids]
    return []


def build_encoder(
    config: RunConfig, rendering: Rendering, backbone: Backbone, others: Sequence[Rendering] = ()
) -> PromptEncoder:
    """The prompt encoder of a run on one task, or on `others` too, its random values from the `init` stream."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(config.seeds.init, "init:encoder"))
        context = prompt_context(rendering, backbone, config.seeds.init, others)
        encoder: PromptEncoder = prompts.build(config.prompt, context)
    return encoder.to(backbone.device)
