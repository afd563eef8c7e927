"""A folder that `peft.PeftModel.from_pretrained` loads (tried with peft 0.21): adapter_config.json and safetensors.

Prompt-tuning form, of input prompts on causal models and encoder-decoders: PEFT puts its vectors before everything that
the (first) encoder or decoder reads, so the folder holds all that stands there, [BOS; prompt], and text is tokenized
with `add_special_tokens=False`. Prefix-tuning form, of deep prompts: `prompt_embeddings` [P, L 2 K D], layer by layer
keys before values, which PEFT puts into the cache. The cache moves the text to positions P, P+1, ..., as do runs with
`shift_positions: true`; of other runs the keys are turned on by P positions where the model has rotary ones,

    (R_{t+P} q)^T (R_P k)  =  (R_t q)^T k

and refused elsewhere. A trained head lies beside, in head.safetensors: PEFT knows nothing of it.

Where PEFT itself goes wrong: rows padded on the left. It puts the prompt before the pads, and for the prompt-tuning
form the positions are numbered through them; only rows without pads, or padded on the right, give what was trained.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import torch

from trimtab.backbones import Backbone
from trimtab.errors import BundleError
from trimtab.exporting import Export, Source, Written
from trimtab.exporting.heads import write_head
from trimtab.exporting.refusals import EXPORTED_ALONE, found, refuse
from trimtab.exporting.rotation import is_rotary, turned_on
from trimtab.exporting.spelling import leading, spell
from trimtab.files import write_json, write_tensors
from trimtab.registry import exports

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_LEFT = (
    "PEFT is wrong about rows that are padded on the left (it puts the prompt before the pads and numbers positions "
    "through them): pad on the right, or generate row by row."
)


@final
@exports.register("peft")
class Peft(Export):
    """A PEFT adapter: prompt tuning for input prompts, prefix tuning for deep ones.

    Args:
        base_model: what the folder names as its base model; that of the run by default.
    """

    def __init__(self, *, base_model: str | None = None) -> None:
        self.base_model = base_model

    def write(self, sources: Sequence[Source], folder: Path) -> Written:
        (source,) = sources
        refuse(source, "PEFT", *EXPORTED_ALONE)
        return self._prefix(source, folder) if "deep" in found(source.bundle) else self._prompt(source, folder)

    def _prompt(self, source: Source, folder: Path) -> Written:
        refuse(source, "PEFT's prompt tuning", "head")
        backbone = source.predictor.model.backbone
        is_seq2seq = backbone.encoder.decoder_start_id is not None
        if not (backbone.family.is_causal or is_seq2seq):
            raise BundleError(
                "the prompt cannot be exported to PEFT: it stands after [CLS], PEFT puts a prompt before it and has no "
                "task of masked language models that would read the answer.",
                where=str(source.path),
                fix="Export it to baked, which keeps its place.",
            )
        ahead = leading(source, "PEFT")
        rows, size = ahead.vectors.shape
        config = self._config(source, "PROMPT_TUNING", rows, size) | {"prompt_tuning_init": "RANDOM"}
        config["task_type"] = "SEQ_2_SEQ_LM" if is_seq2seq else "CAUSAL_LM"
        write_tensors(folder / WEIGHTS, {"prompt_embeddings": ahead.vectors.numpy()})
        write_json(folder / CONFIG, config)
        spelled = spell(source.predictor, begin=rows)
        notes = [_LEFT, *spelled.notes]
        return Written(({"form": "prompt", "leading": list(ahead.ids), **spelled.as_json()},), tuple(notes))

    def _prefix(self, source: Source, folder: Path) -> Written:
        backbone, shift = source.predictor.model.backbone, int(source.bundle.metadata["prompt"].get("shift", 0))
        _check_prefix(source, backbone)
        values = torch.from_numpy(source.bundle.tensors["deep.self"])
        layers, _, length, heads, size = values.shape
        turned = not shift
        if turned:
            _check_rotary(source, backbone, length)
            values = turned_on(values, backbone, length)
        rows = values.permute(2, 0, 1, 3, 4).reshape(length, -1).contiguous()
        config = self._config(source, "PREFIX_TUNING", length, heads * size)
        config |= {"num_attention_heads": heads, "num_layers": layers, "prefix_projection": False}
        config["task_type"] = "CAUSAL_LM" if backbone.family.is_causal else "FEATURE_EXTRACTION"
        write_tensors(folder / WEIGHTS, {"prompt_embeddings": rows.numpy()})
        write_json(folder / CONFIG, config)
        spelled = spell(source.predictor)
        notes = [*write_head(source, folder, "PEFT"), *spelled.notes, *_window(backbone, length)]
        return Written(({"form": "prefix", "turned": turned, **spelled.as_json()},), tuple(notes))

    def _config(self, source: Source, kind: str, rows: int, size: int) -> dict[str, Any]:
        stated = source.bundle.metadata["backbone"]
        return {
            "peft_type": kind,
            "base_model_name_or_path": self.base_model or stated["model"],
            "revision": stated.get("revision"),
            "inference_mode": True,
            "num_virtual_tokens": rows,
            "token_dim": size,
            "num_transformer_submodules": 1,
        }


def _window(backbone: Backbone, length: int) -> list[str]:
    """A cache holds a prefix in the window that layers with sliding attention see; trimtab shows it to all tokens."""
    config = backbone.model.config
    window = getattr(config, "sliding_window", None)
    if not window or not getattr(config, "use_sliding_window", True):
        return []
    return [
        f"the model sees {window} tokens back: exact for texts of up to {max(0, window - length)} tokens, behind which "
        "PEFT's prefix leaves the window."
    ]


def _check_prefix(source: Source, backbone: Backbone) -> None:
    """Refuse what PEFT's cache cannot hold as it was trained."""
    stated, why, fix = source.bundle.metadata["prompt"], None, "Export it to kv."
    sites = {site: list(its) for site, its in stated.get("layers", {}).items()}
    if source.bundle.slots:
        why, fix = "it has an input prompt beside its keys and values, and PEFT loads one or the other", "Train either."
    elif set(sites) != {"self"}:
        why = "PEFT's prefix reaches the decoder only, at other positions and with other position biases"
    elif sites["self"] != list(range(backbone.sites["self"].layers)):
        why, fix = "it has keys and values in some layers, and PEFT needs them in all", "Train with prompt.layers=all."
    elif "past_key_values" not in inspect.signature(type(backbone.model.base_model).forward).parameters:
        why = f"{type(backbone.model).__name__} has no cache, which is where PEFT puts a prefix"
    if why is not None:
        raise BundleError(f"the prompt cannot be exported to PEFT: {why}.", where=str(source.path), fix=fix)


def _check_rotary(source: Source, backbone: Backbone, length: int) -> None:
    if not is_rotary(backbone):
        raise BundleError(
            "the prompt cannot be exported to PEFT: it was trained with the text at its own positions, PEFT's cache "
            f"moves the text {length} on, and the positions of {type(backbone.model).__name__} are not rotary, so keys "
            "cannot be turned to fit.",
            where=str(source.path),
            fix="Train with prompt.shift_positions=true, or export it to kv.",
        )
