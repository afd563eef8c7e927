"""Keys and values as files, one per layer, for whoever can put them before those of a text.

`layer_007.safetensors` (`encoder_003.safetensors` and so on for encoder-decoders) holds `key` and `value` [K,P,D],
float32, as attention receives them: behind rotary positions, before heads are repeated. Deep prompts are this by
nature. An input prompt at the beginning of a causal model's sequence becomes it, [BOS; prompt] computed once, since
nothing that follows changes what those positions hold.

The first token of the text stands at `text_position`. Caches count from their own length; where the positions are
rotary, keys are turned (see `trimtab.exporting.rotation`) until `text_position` is the prompt's length, so that any
program with a cache may just go on. Elsewhere give positions, or train with `shift_positions: true`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from trimtab.backbones import Backbone
from trimtab.backbones.attention import Recorder
from trimtab.batching import collate
from trimtab.errors import BundleError
from trimtab.exporting import Export, Source, Written
from trimtab.exporting.heads import write_head
from trimtab.exporting.refusals import EXPORTED_ALONE, refuse
from trimtab.exporting.rotation import is_rotary, turned_on
from trimtab.exporting.spelling import leading, spell
from trimtab.files import write_tensors
from trimtab.injection import prefix_attention, shift_positions
from trimtab.prompt_table import AttentionCall, AttentionPrompts
from trimtab.registry import exports
from trimtab.types import Encoded, Row

Layers = dict[tuple[str, int], Float[Tensor, "2 P K D"]]
"""Keys and values by site and layer."""


@final
@exports.register("kv")
class KeysValues(Export):
    """Keys and values of every layer, a safetensors file each.

    Args:
        turn: turn rotary keys so that the text stands right behind the prompt, as caches count.
    """

    def __init__(self, *, turn: bool = True) -> None:
        self.turn = turn

    def write(self, sources: Sequence[Source], folder: Path) -> Written:
        (source,) = sources
        refuse(source, "kv", *EXPORTED_ALONE)
        backbone = source.predictor.model.backbone
        position = int(source.bundle.metadata["prompt"].get("shift", 0))
        layers, begin = _deep(source), 0
        if source.bundle.slots:
            ahead, begin = computed(source)
            layers = {
                place: torch.cat([layers[place], its], 1) if place in layers else its for place, its in ahead.items()
            }
            position += begin
        length = max(its.shape[1] for its in layers.values())
        if self.turn and position < length and is_rotary(backbone):
            layers = _turned(layers, backbone, length - position)
            position = length
        for (site, layer), its in layers.items():
            name = f"{'layer' if site == 'self' else site}_{layer:03}.safetensors"
            key, value = its.transpose(1, 2).contiguous().numpy()
            write_tensors(folder / name, {"key": key, "value": value})
        spelled = spell(source.predictor, begin=begin)
        about = {"text_position": position, "length": length, **spelled.as_json()}
        notes = [*write_head(source, folder, "whoever reads keys and values"), *spelled.notes]
        if position < length:
            notes.append(f"the text begins at position {position}, not behind the prompt: give positions explicitly.")
        return Written((about,), tuple(notes))


def _deep(source: Source) -> Layers:
    """What was trained as keys and values."""
    found_layers: Layers = {}
    for site, its in source.bundle.metadata["prompt"].get("layers", {}).items():
        for layer, values in zip(its, torch.from_numpy(source.bundle.tensors[f"deep.{site}"]), strict=True):
            found_layers[site, int(layer)] = values
    return found_layers


class _Watched:
    """Prompts of a pass, and a record of the keys and values that the pass makes itself."""

    def __init__(self, prompts: AttentionPrompts | None) -> None:
        self.recorder, self._prompts = Recorder(), prompts

    def __call__(self, call: AttentionCall) -> Float[Tensor, "B T Q D"]:
        bare = self.recorder(call)
        return bare if self._prompts is None else self._prompts(call)


@torch.no_grad()
def computed(source: Source) -> tuple[Layers, int]:
    """The keys and values of all that stands before the text, and how many positions that is.

    Raises:
        BundleError: later text would change them, or something of the text stands before a virtual token.
    """
    predictor = source.predictor
    backbone, table = predictor.model.backbone, predictor.table
    if not backbone.family.is_causal:
        raise BundleError(
            "the prompt cannot be exported to kv: it stands in the text, and what its positions hold depends on all of "
            "the text in a model that is not causal.",
            where=str(source.path),
            fix="Export it to baked, or train a deep prompt (prompt.kind=deep).",
        )
    assert table is not None
    vectors = leading(source, "kv").vectors
    row = Row(Encoded((0,) * len(vectors), (), (0,)), prompt=0)
    batch = shift_positions(collate([row], backbone.pad_id).to(backbone.device), table)
    watched = _Watched(prefix_attention(table, batch))
    backbone.family.hidden(backbone.model, batch, vectors[None].to(backbone.device, backbone.dtype), None, watched)
    return {(place.site, place.layer): its for place, its in watched.recorder.kept.items()}, len(vectors)


def _turned(layers: Mapping[tuple[str, int], Tensor], backbone: Backbone, positions: int) -> Layers:
    """All keys turned on; where only some layers have a deep prompt, they differ in length."""
    return {
        (site, layer): turned_on(its[None], backbone, positions, (layer,))[0] for (site, layer), its in layers.items()
    }
