"""Whether a bundle can be served beside others: it must fit the backbone in every part, and leave its weights alone.

A bundle may come from anybody. What is wrong with one must be found before its first row stands beside rows of others.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from trimtab.backbones import Backbone
from trimtab.errors import BackboneError, BundleError, DataError, TrimtabError
from trimtab.loading import from_bundle
from trimtab.model import PromptedBackbone, PromptedModel
from trimtab.predictor import MAX_TOKENS, Predictor
from trimtab.registry import readouts
from trimtab.storage import Bundle
from trimtab.types import Example


def fitted(bundle: Bundle, backbone: Backbone, where: str) -> Predictor:
    """A predictor for a bundle that may stand in mixed batches.

    Raises:
        BundleError: of another backbone, trained with its weights, of several tasks, of other sizes, or of no use on a
                first text.
    """
    if bundle.tuned:
        raise BundleError(
            "the backbone's own weights were trained with this prompt, so it cannot share a backbone with others.",
            where=where,
            fix="Use `trimtab predict`, or train with a frozen backbone (no training.learning_rates.backbone).",
        )
    if bundle.tasks:
        raise BundleError(
            f"the prompt is of several tasks: {', '.join(bundle.tasks)}.",
            where=where,
            fix="Take one of them: trimtab take RUN TASK -o DIR.",
        )
    try:
        _check_sizes(bundle, backbone, where)
        predictor = from_bundle(bundle, backbone, where)
        _try_out(predictor, where)
    except BundleError:
        raise
    except TrimtabError as error:
        raise BundleError(error.what, where=where, fix=error.fix) from None
    except Exception as error:
        raise BundleError(
            f"the prompt cannot be used with {backbone.name!r} ({type(error).__name__}: {_line(error)}).",
            where=where,
            fix="Copy it again or rerun the training.",
        ) from error
    return predictor


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _check_sizes(bundle: Bundle, backbone: Backbone, where: str) -> None:
    """Shapes and numbers that would break a forward pass, or let a row be longer than the model can read."""
    meta, tensors = bundle.metadata, bundle.tensors
    layers = meta["prompt"].get("layers", {})
    wanted: dict[str, tuple[int | None, ...]] = {"inputs": (None, backbone.embedding_size)}
    for name in tensors:
        kind, _, site = name.partition(".")
        if kind in ("deep", "gate"):
            wanted[name] = _site_shape(kind, site, layers, backbone, where)
        elif name in ("text_offset", "router"):
            wanted[name] = (None, backbone.embedding_size)
    for name, shape in wanted.items():
        got = tensors[name].shape
        if len(got) != len(shape) or any(w not in (None, g) for w, g in zip(shape, got, strict=True)):
            said = tuple("any" if n is None else n for n in shape)
            raise BundleError(f"{name!r} must have the shape {said} for {backbone.name!r}, got {got}.", where=where)
    if "router" in tensors and (not len(tensors["router"]) or len(bundle.prompt) % len(tensors["router"])):
        what = f"{len(tensors['router'])} prompts cannot share {len(bundle.prompt)} rows."
        raise BundleError(what, where=where, fix="Copy it again or rerun the training.")
    shift, length = meta["prompt"].get("shift", 0), meta["task"]["max_length"]
    if shift < 0 or length < 1 or length + shift > backbone.max_positions:
        raise BundleError(
            f"rows of {length} tokens, moved by {shift}, do not fit the {backbone.max_positions} positions of "
            f"{backbone.name!r}.",
            where=where,
            fix="Lower task.max_length.",
        )


def _site_shape(
    kind: str, site: str, layers: Mapping[str, list[int]], backbone: Backbone, where: str
) -> tuple[int | None, ...]:
    """What keys and values, or gates, must look like at a site."""
    known = backbone.sites.get(site)
    its = layers.get(site, [])
    if known is None or its != sorted({*its}) or not all(0 <= layer < known.layers for layer in its) or not its:
        raise BundleError(
            f"keys and values stand at {site!r} in the layers {its}; {backbone.name!r} has "
            f"{ {name: s.layers for name, s in backbone.sites.items()} }.",
            where=where,
        )
    return (len(its), 2, None, known.heads, known.size) if kind == "deep" else (len(its), known.queries)


@torch.no_grad()
def _try_out(predictor: Predictor, where: str) -> None:
    """One text through the model and the readout. A value that the task does not know says nothing of the prompt."""
    backbone = predictor.model.backbone
    wanted = predictor.rendering.wanted(backbone.encoder)
    example = Example(
        "first", {**dict.fromkeys(wanted, "a"), "relation": next(iter(predictor.rendering.allowed), "")}, None
    )
    try:
        rows = predictor.open_rows([example]) if predictor.model.readout.writes else predictor.rows([example])
    except DataError:
        return
    if predictor.model.readout.writes:
        model = PromptedBackbone(backbone)
        model.check_room(rows[0], predictor.table, predictor.model.readout.new_tokens)
        hidden, _, _ = model.at_reads(model.collate(rows), predictor.table)
        if not bool(hidden.isfinite().all()):
            raise BackboneError("what the model makes of the prompt is not finite.", where=where)
        return
    rendering = predictor.rendering  # a readout of its own keeps what it has fetched of the vocabulary for this once
    readout = readouts.build(rendering.readout, backbone, [rendering.plan(backbone.encoder)])
    scores = PromptedModel(backbone, readout).score_rows(rows, predictor.table, MAX_TOKENS)
    predictor.conclude([example], rows, scores)
