"""Where keys and values enter a model: one attention function, registered with transformers, for nearly all families.

Every backbone that can computes its attention by `trimtab_eager` or `trimtab_sdpa`. Without prompts these are the
model's own functions with the same numbers. A forward pass with prompts carries a `Passage` as the keyword
`attention_prompts`, which arrives at the function in every layer; there an `AttentionCall` is made and the prompts
answer it. Nothing of this is kept in modules or globals but where a module stands (its `Place`), so passes may run side
by side and be recomputed in the backward pass.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from trimtab.errors import BackboneError
from trimtab.prompt_table import AttentionCall, AttentionPrompts, Site

KEYWORD = "attention_prompts"
"""What forward passes and attention functions call the passage."""
_LAYER = re.compile(r"\.(\d+)\.")


class Place(NamedTuple):
    """Where an attention module stands."""

    site: str
    layer: int


class Passage:
    """The prompts of one forward pass on their way through it."""

    def __init__(self, prompts: AttentionPrompts) -> None:
        self.prompts = prompts

    def place(self, module: Any) -> Place:
        """Where the module that calls stands; asked once per attention layer."""
        place: Place = module.trimtab_place
        return place


class CountedPassage(Passage):
    """For models whose layers share one module: the n-th call is layer n."""

    def __init__(self, prompts: AttentionPrompts) -> None:
        super().__init__(prompts)
        self._calls = 0

    def place(self, module: Any) -> Place:
        self._calls += 1
        return Place(super().place(module).site, self._calls - 1)


def adopt(model: Any, kind: Literal["eager", "sdpa"], sites: Collection[str], site_of: Callable[[str], str]) -> None:
    """Let a model compute its attention by our function, and tell each attention module where it stands.

    The first number in a module's path is its layer. A model that has no attention interface, or other attention than
    its family, is left as it is.
    """
    if not getattr(model, "_can_set_attn_implementation", bool)():
        return
    found = {}
    for path, module in model.base_model.named_modules():
        if hasattr(module, "is_causal") and (layer := _LAYER.search(f".{path}.")):
            found[module] = Place(site_of(path), int(layer[1]))
    if {place.site for place in found.values()} == set(sites):
        _register()
        model.set_attn_implementation(f"trimtab_{kind}")
        for module, place in found.items():
            module.trimtab_place = place
        model.takes_passages = True


def check_adopted(model: Any) -> None:
    """Refuse deep prompts on a model that would ignore them.

    Raises:
        BackboneError: the model's attention is not ours.
    """
    if not getattr(model, "takes_passages", False):
        raise BackboneError(
            f"{type(model).__name__} does not use the attention interface of transformers, so no keys and values can "
            "enter its attention.",
            where="backbone.model",
            fix="Use an input prompt, or the implementation that comes with transformers (trust_remote_code: false).",
        )


@contextmanager
def prompted(modules: Sequence[Any], passage: Passage | None) -> Iterator[None]:
    """While this is open, forward passes of these modules carry the passage; those of other threads do not.

    For `generate`, which takes no keywords but its own.
    """
    thread = threading.get_ident()

    def carry(module: Any, positional: tuple[Any, ...], named: dict[str, Any]) -> Any:
        return (positional, {**named, KEYWORD: passage}) if threading.get_ident() == thread else None

    wanted = () if passage is None else modules
    handles = [module.register_forward_pre_hook(carry, with_kwargs=True) for module in wanted]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@cache
def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import eager_mask, sdpa_mask

    AttentionInterface.register("trimtab_eager", partial(_attention, _eager))
    AttentionInterface.register("trimtab_sdpa", partial(_attention, sdpa_attention_forward))
    AttentionMaskInterface.register("trimtab_eager", eager_mask)
    AttentionMaskInterface.register("trimtab_sdpa", sdpa_mask)


def _eager(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **rest: Any) -> Any:
    """The eager attention that the model's own file defines, be it with a cap on scores or in another order."""
    if getattr(module, "reorder_and_upcast_attn", False):  # an option of GPT-2
        return module._upcast_and_reordered_attn(query, key, value, mask)
    return sys.modules[type(module).__module__].eager_attention_forward(module, query, key, value, mask, **rest)


def _attention(
    base: Callable[..., Any],
    module: Any,
    query: Float[Tensor, "B Q T D"],
    key: Float[Tensor, "B K S D"],
    value: Float[Tensor, "B K S D"],
    attention_mask: Tensor | None,
    **rest: Any,
) -> tuple[Float[Tensor, "B T Q D"], Tensor | None]:
    """The attention function: what `base` computes, or what the prompts make of it."""
    passage: Passage | None = rest.pop(KEYWORD, None)
    if passage is None:
        own: tuple[Tensor, Tensor | None] = base(module, query, key, value, attention_mask, **rest)
        return own
    others = {name: value for name, value in rest.items() if name not in ("position_bias", "is_causal")}

    def attend(key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        output: Tensor = base(module, query, key, value, mask, is_causal=False, **others)[0]
        return output

    def bare() -> Tensor:
        output: Tensor = base(module, query, key, value, attention_mask, **rest)[0]
        return output

    is_causal = rest.get("is_causal")
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    scaling = rest.get("scaling")
    call = AttentionCall(
        *passage.place(module),
        query=query,
        key=key,
        value=value,
        mask=added(query, key.shape[2], attention_mask, rest.get("position_bias"), causal),
        scaling=query.shape[-1] ** -0.5 if scaling is None else float(scaling),
        attend=attend,
        bare=bare,
    )
    return passage.prompts(call), None


def added(
    query: Float[Tensor, "B Q T D"], keys: int, mask: Tensor | None, bias: Tensor | None, causal: bool
) -> Float[Tensor, "N M T S"] | None:
    """What is added to the scores: mask and position bias in one. None where everything is visible.

    Transformers' mask for SDPA is true where something is visible, and absent where nothing but the future is hidden:
    where as many keys are there as queries, or the first queries meet an empty static cache, whose keys behind them are
    yet to be written. In both, query i sees the keys up to i.
    """
    length = query.shape[2]
    if mask is None and causal and length > 1:
        mask = torch.ones(1, 1, length, keys, dtype=torch.bool, device=query.device).tril()
    if mask is not None and mask.dtype == torch.bool:
        hidden = torch.finfo(query.dtype).min
        mask = torch.zeros(mask.shape, dtype=query.dtype, device=query.device).masked_fill(~mask, hidden)
    if mask is None or bias is None:
        return bias if mask is None else mask
    return bias + mask


class Recorder:
    """Prompts that add nothing and keep the keys and values that each attention layer receives."""

    def __init__(self) -> None:
        self.kept: dict[Place, Float[Tensor, "2 P K D"]] = {}

    def __call__(self, call: AttentionCall) -> Float[Tensor, "B T Q D"]:
        both = torch.stack([call.key[0], call.value[0]]).transpose(1, 2)
        self.kept[Place(call.site, call.layer)] = both.detach().to("cpu", torch.float32)
        return call.bare()

    def by_site(self, sites: Mapping[str, Site]) -> dict[str, Float[Tensor, "L 2 P K D"]]:
        """All layers of each site, in their order."""
        return {n: torch.stack([self.kept[Place(n, layer)] for layer in range(s.layers)]) for n, s in sites.items()}
