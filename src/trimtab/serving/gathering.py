"""The prompt table of a batch: prompts that differ in length, layers and parts, side by side.

A server may hold a thousand prompts; the table of a batch has those that its rows use, so a step costs what its rows
cost, however many are loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from trimtab.prompt_table import DeepPrompt, PromptTable, Routing


def joined(tables: Sequence[PromptTable]) -> PromptTable:
    """One table of prompts that may differ in everything; row i is the prompt of `tables[i]`, each a table of one.

    Shorter prompts are padded with zeros, layers that a prompt does not have are not visible for it. Heads are left
    out: readouts differ in what they need, see `trimtab.serving.readers`.
    """
    inputs = [t.inputs for t in tables]
    sites = dict.fromkeys(site for t in tables for site in t.deep)
    shifts = None
    if any(t.shifts is not None for t in tables):
        zero = torch.zeros(1, dtype=torch.long, device=inputs[0].device)
        shifts = torch.cat([zero if t.shifts is None else t.shifts for t in tables])
    offsets = None
    if any(t.offsets is not None for t in tables):
        empty = inputs[0].new_zeros(1, 0, inputs[0].shape[2])
        offsets = stacked([empty if t.offsets is None else t.offsets for t in tables])
    deep = {site: _deep([t.deep.get(site) for t in tables]) for site in sites}
    return PromptTable(stacked(inputs), deep, {}, shifts, offsets, _routing(tables))


def stacked(parts: Sequence[Tensor]) -> Tensor:
    """Tensors [1,...] along their first dimension, padded with zeros to the largest."""
    if len({p.shape for p in parts}) == 1:
        return torch.cat(list(parts))
    sizes = [max(its) for its in zip(*(p.shape[1:] for p in parts), strict=True)]
    found = parts[0].new_zeros(len(parts), *sizes)
    for row, part in zip(found, parts, strict=True):
        row[tuple(slice(n) for n in part.shape[1:])] = part[0]
    return found


def heads_of(tables: Sequence[PromptTable]) -> dict[str, Tensor]:
    """The heads of prompts whose heads have one shape."""
    return {name: torch.cat([t.heads[name] for t in tables]) for name in tables[0].heads} if tables else {}


def _deep(prompts: Sequence[DeepPrompt | None]) -> DeepPrompt:
    """Keys and values at one site; None for a prompt that has none there."""
    known = [d for d in prompts if d is not None]
    if len(known) == len(prompts) and all(_is_like(d, known[0]) for d in known):
        parts = [torch.cat([getattr(d, name) for d in known]) for name in ("keys_values", "visible")]
        return DeepPrompt(parts[0], known[0].layers, parts[1])
    layers = tuple(sorted({layer for d in known for layer in d.layers}))
    like = known[0].keys_values
    length = max(d.keys_values.shape[3] for d in known)
    keys_values = like.new_zeros(len(prompts), len(layers), 2, length, *like.shape[4:])
    visible = torch.zeros(len(prompts), len(layers), length, dtype=torch.bool, device=like.device)
    gates, gated = _gates(prompts, len(layers))
    for r, d in enumerate(prompts):
        if d is not None:
            at, own = [layers.index(layer) for layer in d.layers], d.keys_values.shape[3]
            keys_values[r, at, :, :own] = d.keys_values[0]
            visible[r, at, :own] = d.visible[0]
            if gates is not None and d.gates is not None:
                gates[r, at] = d.gates[0]
    return DeepPrompt(keys_values, layers, visible, gates, gated)


def _is_like(one: DeepPrompt, other: DeepPrompt) -> bool:
    """Whether two prompts without gates can stand side by side as they are."""
    same_sort = one.keys_values.shape == other.keys_values.shape and one.keys_values.dtype == other.keys_values.dtype
    return same_sort and one.layers == other.layers and one.gates is None and other.gates is None


def _gates(prompts: Sequence[DeepPrompt | None], layers: int) -> tuple[Tensor | None, Tensor | None]:
    """Zeros for the gates of all prompts, and which prompts are gated; None where none is."""
    like = next((d.gates for d in prompts if d is not None and d.gates is not None), None)
    if like is None:
        return None, None
    has = [d is not None and d.gates is not None for d in prompts]
    return like.new_zeros(len(prompts), layers, like.shape[2]), torch.tensor(has, device=like.device)


def _routing(tables: Sequence[PromptTable]) -> Routing | None:
    """Routers; a prompt without one is the only prompt that its rows may choose."""
    if all(t.routing is None for t in tables):
        return None
    weights, counts, lengths = [], [], []
    for t in tables:
        its: Mapping[str, Tensor] = {} if t.routing is None else vars(t.routing)
        weights.append(its.get("weights", t.inputs.new_zeros(1, 1, t.inputs.shape[2])))
        counts.append(its.get("counts", torch.ones(1, dtype=torch.long, device=t.inputs.device)))
        lengths.append(its.get("lengths", torch.zeros(1, dtype=torch.long, device=t.inputs.device)))
    return Routing(stacked(weights), torch.cat(counts), torch.cat(lengths))
