"""What prompts are as tensors: a table with a row for each, and what of it an attention layer is given.

The letters of shapes are those of `trimtab.types`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from trimtab.lookup import look_up


@dataclass(frozen=True)
class Site:
    """One kind of attention in a backbone, where keys and values may be added in every layer.

    Attributes:
        layers: L, how many attention layers there are.
        heads: K, key/value heads (fewer than `queries` where query heads share them).
        queries: query heads.
        size: D, of one head.
    """

    layers: int
    heads: int
    queries: int
    size: int


@dataclass(frozen=True)
class DeepPrompt:
    """The keys and values that R prompts add at one site of the backbone.

    Attributes:
        keys_values: as attention receives them, keys first, for the N layers that have any.
        layers: which layers of the site these are, ascending.
        visible: which of them exist: prompts of one table may differ in length and layers.
        gates: for prompts that are gated, one number per query head; see `trimtab.injection`.
        gated: which prompts are; None for none.
    """

    keys_values: Float[Tensor, "R N 2 P K D"]
    layers: tuple[int, ...]
    visible: Bool[Tensor, "R N P"]
    gates: Float[Tensor, "R N Q"] | None = None
    gated: Bool[Tensor, "R"] | None = None


@dataclass(frozen=True)
class Routing:
    """How a text chooses among several prompts that lie in one entry of the table, one after the other. See `choose`
    in `trimtab.injection`.

    Attributes:
        weights: of each entry's router, zero-padded.
        counts: how many prompts an entry has; 1 where there is nothing to choose.
        lengths: rows of each of them.
        noise: standard deviation of the factors that shake a router's scores, 0 outside training.
    """

    weights: Float[Tensor, "R J E"]
    counts: Int[Tensor, "R"]
    lengths: Int[Tensor, "R"]
    noise: float = 0.0


@dataclass(frozen=True)
class PromptTable:
    """The materialized prompts of a pack or a server.

    Attributes:
        inputs: row r is the input prompt r, or those that its router chooses from; zero-padded to P. P = 0 where no
            prompt stands in the text.
        deep: keys and values by site, where there are any.
        heads: what trained readouts read with, name -> [R,...].
        shifts: added to the positions of the text in rows of each prompt; None for nothing.
        offsets: added to the embeddings of the text, token by token, zero-padded to O; None for nothing.
        routing: which of several prompts a row takes; None where each entry is one prompt.
    """

    inputs: Float[Tensor, "R P E"]
    deep: Mapping[str, DeepPrompt] = field(default_factory=dict)
    heads: Mapping[str, Tensor] = field(default_factory=dict)
    shifts: Int[Tensor, "R"] | None = None
    offsets: Float[Tensor, "R O E"] | None = None
    routing: Routing | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What is learned, by its name in a bundle: `inputs`, `deep.<site>`, `gate.<site>`, `text_offset`, `router`,
        `head.<name>`."""
        deep = {f"deep.{site}": d.keys_values for site, d in self.deep.items()}
        gates = {f"gate.{site}": d.gates for site, d in self.deep.items() if d.gates is not None}
        offset = {} if self.offsets is None else {"text_offset": self.offsets}
        router = {} if self.routing is None else {"router": self.routing.weights}
        heads = {f"head.{n}": v for n, v in self.heads.items()}
        return {"inputs": self.inputs, **deep, **gates, **offset, **router, **heads}

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> PromptTable:
        """The same table with other values."""
        deep = {
            site: replace(d, keys_values=tensors[f"deep.{site}"], gates=tensors.get(f"gate.{site}"))
            for site, d in self.deep.items()
        }
        heads = {name: tensors[f"head.{name}"] for name in self.heads}
        routing = None if self.routing is None else replace(self.routing, weights=tensors["router"])
        offsets = tensors.get("text_offset")
        return replace(self, inputs=tensors["inputs"], deep=deep, heads=heads, offsets=offsets, routing=routing)

    def rows(self, index: Int[Tensor, "X"]) -> PromptTable:
        """A table of these prompts, one after the other; gradients flow to this one."""
        deep = {
            site: replace(
                d,
                keys_values=look_up(d.keys_values, index),
                visible=look_up(d.visible, index),
                gates=None if d.gates is None else look_up(d.gates, index),
                gated=None if d.gated is None else look_up(d.gated, index),
            )
            for site, d in self.deep.items()
        }
        heads = {name: look_up(value, index) for name, value in self.heads.items()}
        shifts = None if self.shifts is None else look_up(self.shifts, index)
        offsets, routing = None if self.offsets is None else look_up(self.offsets, index), self.routing
        if routing is not None:
            weights, counts, lengths = (
                look_up(its, index) for its in (routing.weights, routing.counts, routing.lengths)
            )
            routing = replace(routing, weights=weights, counts=counts, lengths=lengths)
        return PromptTable(look_up(self.inputs, index), deep, heads, shifts, offsets, routing)

    def detached(self) -> PromptTable:
        """Leaves that collect gradients, cut off from the encoders."""
        return self.with_tensors({n: v.detach().requires_grad_() for n, v in self.tensors.items()})


def table_of(
    parts: Mapping[str, Tensor],
    layers: Mapping[str, tuple[int, ...]] = {},
    shift: int = 0,
    heads: Mapping[str, Tensor] = {},
    noise: float = 0.0,
) -> PromptTable:
    """A table of prompts that are alike.

    Args:
        parts: by the names of `PromptTable.tensors`, `head.` among them or given as `heads`.
        layers: by site, those that have keys and values.
        shift: positions that the text moves on.
        noise: of routers, see `Routing`.
    """
    inputs = parts["inputs"]
    deep = {}
    for site, its in layers.items():
        keys_values, gates = parts[f"deep.{site}"], parts.get(f"gate.{site}")
        rows, n, _, length = keys_values.shape[:4]
        visible = torch.ones(rows, n, length, dtype=torch.bool, device=keys_values.device)
        gated = None if gates is None else torch.ones(rows, dtype=torch.bool, device=keys_values.device)
        deep[site] = DeepPrompt(keys_values, its, visible, gates, gated)
    found = {name.removeprefix("head."): v for name, v in parts.items() if name.startswith("head.")}
    shifts = torch.full((len(inputs),), shift, device=inputs.device) if shift else None
    routing, router = None, parts.get("router")
    if router is not None:
        counts = torch.full((len(inputs),), router.shape[1], device=inputs.device)
        routing = Routing(router, counts, inputs.shape[1] // counts, noise)
    return PromptTable(inputs, deep, {**found, **heads}, shifts, parts.get("text_offset"), routing)


@runtime_checkable
class AttentionPrompts(Protocol):
    """What enters the attention layers of one forward pass. Backbones hand it through and know nothing of prompts."""

    def __call__(self, call: AttentionCall) -> Float[Tensor, "B T Q D"]:
        """The output of one attention layer."""
        ...


@dataclass(frozen=True)
class AttentionCall:
    """One attention layer at work.

    Attributes:
        site: `self` in models of one stack; `encoder`, `decoder` or `cross` in encoder-decoders.
        layer: from 0, within the site.
        query: [B,Q,T,D].
        key: [B,K,S,D], as attention receives it, rotated where the model rotates, cached keys included.
        value: likewise.
        mask: added to the scores, [B or 1, 1 or Q, T, S]; position biases included. None where everything is visible.
        scaling: what scores are multiplied with.
        attend: the model's own attention over the keys, values and mask that it is given; returns [B,T,Q,D].
        bare: what the layer does by itself, bit for bit; `attend` may differ in the last bits, another kernel's.
    """

    site: str
    layer: int
    query: Float[Tensor, "B Q T D"]
    key: Float[Tensor, "B K S D"]
    value: Float[Tensor, "B K S D"]
    mask: Float[Tensor, "N M T S"] | None
    scaling: float
    attend: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    bare: Callable[[], Tensor]
