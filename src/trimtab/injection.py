"""How a prompt enters the backbone.

Input prompts: their vectors replace the slots of the embedded sequence (`place_prompt`). Some look at the text before
they do: an offset is added to the embeddings of its tokens (`offset_text`), or a router reads them and chooses one of
several prompts (`choose`):

    s = softmax( W mean_t e_t ),  j = argmax s,  slots of the row <- s_j P_j

e_t are the embeddings of the row's text, as perturbed but without the offset. Text is what literals and fields say;
special tokens, slots, the answer and pads are neither read nor moved.

Deep prompts (Li and Liang 2021; Liu et al. 2022): in each layer their keys PK and values PV stand before those of the
text, Attn(q, [PK; K], [PV; V]), and every query of the row sees them, whatever its mask or window (`prefix_attention`).
The prompt has no queries, takes no positions, and enters no cache.

Gated, after the zero-initialized attention of LLaMA-Adapter (Zhang et al. 2023), they have a softmax of their own:

    Attn(q, K, V) + tanh(g) softmax(scaling q PK^T) PV        g: one number per query head, 0 at first

so that a gate of 0 is the bare model. Caps on scores (Gemma 2) do not apply to that second softmax.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from trimtab.lookup import look_up
from trimtab.prompt_table import AttentionCall, AttentionPrompts, DeepPrompt, PromptTable
from trimtab.types import Batch


@dataclass(frozen=True)
class Route:
    """The prompts that rows have chosen.

    Attributes:
        first: the row of `PromptTable.inputs` that the prompt begins with.
        share: what its vectors are multiplied with.
    """

    first: Int[Tensor, "B"]
    share: Float[Tensor, "B"]


def choose(embeds: Float[Tensor, "B T E"], table: PromptTable, batch: Batch) -> Route | None:
    """Let the text of each row choose its prompt, see above; None where no entry of the table has several.

    In training each score is multiplied with 1 + noise, noise drawn per example (`Batch.jitter`) and held constant. A
    row without text has scores of zero. Entries of one prompt are taken as they are.
    """
    routing = table.routing
    if routing is None:
        return None
    own = batch.prompt_of.clamp(min=0)
    scores = torch.einsum("bje,be->bj", look_up(routing.weights, own), _mean_text(embeds, batch))
    if batch.jitter is not None:
        scores = scores + routing.noise * batch.jitter[batch.example_of] * scores.detach()
    there = torch.arange(scores.shape[1], device=scores.device) < routing.counts[own][:, None]
    share, chosen = scores.masked_fill(~there, -torch.inf).softmax(1).max(1)
    return Route(chosen * routing.lengths[own], share)


def _mean_text(embeds: Float[Tensor, "B T E"], batch: Batch) -> Float[Tensor, "B E"]:
    """Mean embedding of each row's text, float32; zero where there is none."""
    if batch.text is None:
        return embeds.new_zeros(len(embeds), embeds.shape[2], dtype=torch.float32)
    total = embeds.float().masked_fill(~batch.text[..., None], 0.0).sum(1)
    return total / batch.text.sum(1, keepdim=True).clamp(min=1)


def offset_text(embeds: Float[Tensor, "B T E"], table: PromptTable, batch: Batch) -> Float[Tensor, "B T E"]:
    """Add the offset of each row's prompt to its text: its n-th entry to the n-th token, whatever stands between.

    Tokens behind the last entry stay as they are, and so do rows without a prompt. Added in float32, rounded once.
    """
    if table.offsets is None or batch.text is None:
        return embeds
    number = batch.text.cumsum(1) - 1
    moved = batch.text & (number < table.offsets.shape[1]) & (batch.prompt_of >= 0)[:, None]
    row, position = moved.nonzero(as_tuple=True)
    offset = look_up(table.offsets, batch.prompt_of[row], number[row, position])
    return embeds.index_put((row, position), (embeds[row, position].float() + offset).to(embeds.dtype))


def place_prompt(
    embeds: Float[Tensor, "B T E"], table: PromptTable, batch: Batch, route: Route | None = None
) -> Float[Tensor, "B T E"]:
    """Put each row's prompt into its slots; rows with `prompt_of` -1 stay as they are.

    One gather, so one batch may mix prompts. The result has the dtype of `embeds` (a float32 prompt is rounded once,
    where it enters a bfloat16 backbone); gradients flow to the table in float32, and to `embeds` outside the slots.
    """
    return _place(embeds, table, batch.prompt_of, batch.slots, route)


def place_decoder_prompt(
    embeds: Float[Tensor, "B U E"], table: PromptTable, batch: Batch, route: Route | None = None
) -> Float[Tensor, "B U E"]:
    """The same for what the decoder of an encoder-decoder reads; the rows of a prompt that stand there."""
    if batch.decoder_slots is None:
        return embeds
    return _place(embeds, table, batch.prompt_of, batch.decoder_slots, route)


def _place(
    embeds: Float[Tensor, "B T E"],
    table: PromptTable,
    prompt_of: Int[Tensor, "B"],
    slots: Int[Tensor, "B P"],
    route: Route | None,
) -> Float[Tensor, "B T E"]:
    row, slot = ((slots >= 0) & (prompt_of >= 0)[:, None]).nonzero(as_tuple=True)
    if route is None:
        vectors = look_up(table.inputs, prompt_of[row], slot)
    else:
        vectors = look_up(table.inputs, prompt_of[row], route.first[row] + slot) * look_up(route.share, row)[:, None]
    return embeds.index_put((row, slots[row, slot]), vectors.to(embeds.dtype))


def shift_positions(batch: Batch, table: PromptTable) -> Batch:
    """The batch with the text of each row moved to the positions behind its prompt (`table.shifts`); pads stay."""
    if table.shifts is None:
        return batch
    shifts = table.shifts[batch.prompt_of.clamp(min=0)].masked_fill(batch.prompt_of < 0, 0)
    return replace(batch, position_ids=batch.position_ids + shifts[:, None] * batch.attention_mask)


def prefix_attention(table: PromptTable, batch: Batch) -> AttentionPrompts | None:
    """What puts each row's deep prompt into attention, in the layers where a row of the batch has any.

    None where no row has any in any layer, so that the model takes its own path. Prompts are gathered in float32, layer
    by layer, and rounded once, where they enter a bfloat16 backbone; gradients flow to the table in float32.
    """
    return attention_of(table, batch.prompt_of)


def attention_of(table: PromptTable, prompt_of: Int[Tensor, "B"]) -> AttentionPrompts | None:
    """The same for rows of which no more is known than the prompt that each uses."""
    layers = {}
    for site, deep in table.deep.items():
        for layer, prefix in zip(deep.layers, _prefixes(deep, prompt_of), strict=True):
            if prefix is not None:
                layers[site, layer] = prefix
    return PrefixAttention(layers) if layers else None


@final
class PrefixAttention:
    """Prompts of a batch, by site and layer. Stateless: a layer that is computed anew gets the same."""

    def __init__(self, layers: Mapping[tuple[str, int], Prefix]) -> None:
        self._layers = layers

    def __call__(self, call: AttentionCall) -> Float[Tensor, "B T Q D"]:
        """Attention over the row's prompt and its text."""
        prefix = self._layers.get((call.site, call.layer))
        if prefix is None:
            return call.bare()
        prefix = prefix.repeated(call.query.shape[0])
        key, value = prefix.gathered(call.key.dtype)
        output = _before(call, key, value, prefix) if prefix.any_shown else call.bare()
        return output if prefix.gates is None else output + _beside(call, key, value, prefix)


@dataclass(frozen=True)
class Prefix:
    """The prompts of one layer, and who has which.

    Attributes:
        keys_values: of all prompts.
        prompt_of: the prompt of each row, -1 for none.
        used: which of its prompt's columns a row has.
        gated: rows whose prompt has a softmax of its own.
        gates: of all prompts; None where no row's prompt is gated.
        any_shown: a row has columns that stand before its own keys.
        all_shown: every row has all of them there.
    """

    keys_values: Float[Tensor, "R 2 P K D"]
    prompt_of: Int[Tensor, "B"]
    used: Bool[Tensor, "B P"]
    gated: Bool[Tensor, "B"]
    gates: Float[Tensor, "R Q"] | None
    any_shown: bool
    all_shown: bool

    def repeated(self, rows: int) -> Prefix:
        """The same for a batch in which each row stands several times in a row, as with beams."""
        times = rows // len(self.prompt_of)
        if times == 1:
            return self
        of_rows = {name: getattr(self, name).repeat_interleave(times, 0) for name in ("prompt_of", "used", "gated")}
        return replace(self, **of_rows)

    def gathered(self, dtype: torch.dtype) -> tuple[Float[Tensor, "B K P D"], Float[Tensor, "B K P D"]]:
        """Each row's keys and values, zero where it has none: what the table holds there could be anything."""
        values = self.keys_values
        if not values.requires_grad:  # rounded before they are copied to rows; a gradient is gathered in float32
            values = values.to(dtype)
        if self.all_shown and len(values) == 1:
            rows = values.expand(len(self.prompt_of), -1, -1, -1, -1)
        else:
            rows = look_up(values, self.prompt_of.clamp(min=0))
            rows = rows if self.all_shown else rows.masked_fill(~self.used[:, None, :, None, None], 0.0)
        key, value = rows.to(dtype).transpose(2, 3).unbind(1)
        return key, value


def _prefixes(deep: DeepPrompt, prompt_of: Int[Tensor, "B"]) -> list[Prefix | None]:
    """One per layer of the deep prompt, None where no row has anything."""
    own = prompt_of.clamp(min=0)
    used = deep.visible[own] & (prompt_of >= 0)[:, None, None]
    gated = torch.zeros_like(prompt_of, dtype=torch.bool) if deep.gated is None else deep.gated[own]
    shown = used & ~gated[:, None, None]
    known = torch.stack([a.flatten(1).any(1) for a in (used.transpose(0, 1), shown.transpose(0, 1))])
    has_any, any_shown = known.tolist()
    all_shown = shown.all(2).all(0).tolist()
    any_gated = deep.gates is not None and bool(gated.any())
    gates = deep.gates.unbind(1) if deep.gates is not None and any_gated else [None] * len(deep.layers)
    return [
        Prefix(values, prompt_of, used[:, n], gated, gates[n], any_shown[n], all_shown[n]) if has_any[n] else None
        for n, values in enumerate(deep.keys_values.unbind(1))
    ]


def _before(
    call: AttentionCall, key: Float[Tensor, "B K P D"], value: Float[Tensor, "B K P D"], prefix: Prefix
) -> Float[Tensor, "B T Q D"]:
    """One softmax over the prompt and the text."""
    keys, values = torch.cat([key, call.key], 2), torch.cat([value, call.value], 2)
    if call.mask is None and prefix.all_shown:
        return call.attend(keys, values, None)
    rows, _, length, _ = call.query.shape
    own = call.mask if call.mask is not None else call.query.new_zeros(1, 1, length, call.key.shape[2])
    hidden = ~(prefix.used & ~prefix.gated[:, None])
    columns = own.new_zeros(hidden.shape).masked_fill(hidden, torch.finfo(call.query.dtype).min)
    wide = columns[:, None, None].expand(-1, own.shape[1], length, -1)
    return call.attend(keys, values, torch.cat([wide, own.expand(rows, -1, -1, -1)], 3))


def _beside(
    call: AttentionCall, key: Float[Tensor, "B K P D"], value: Float[Tensor, "B K P D"], prefix: Prefix
) -> Float[Tensor, "B T Q D"]:
    """What gated prompts add: a softmax over the prompt alone, times tanh of the gate; nothing in other rows."""
    assert prefix.gates is not None
    shared = call.query.shape[1] // key.shape[1]  # query heads per key head
    key, value = key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1)
    scores = (call.query @ key.transpose(2, 3)).float() * call.scaling
    hidden = ~prefix.used[:, None, None]
    weights = scores.masked_fill(hidden, torch.finfo(scores.dtype).min).softmax(-1).masked_fill(hidden, 0.0)
    gate = look_up(prefix.gates, prefix.prompt_of.clamp(min=0)).tanh().masked_fill(~prefix.gated[:, None], 0.0)
    beside = (weights.to(value.dtype) @ value) * gate[:, :, None, None].to(value.dtype)
    return beside.transpose(1, 2)
