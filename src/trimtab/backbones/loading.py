"""Loading a frozen backbone, or its tokenizer alone: where it lies, how it computes, and what makes it unfit."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from logging import ERROR, getLogger
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from trimtab.backbones.backbone import Backbone
from trimtab.backbones.family import Family
from trimtab.backbones.fingerprints import drawn_fingerprint, fingerprint_of, tokenizer_fingerprint, weight_files
from trimtab.backbones.sentencepiece import load_tokenizer
from trimtab.errors import BackboneError, suggest
from trimtab.registry import families
from trimtab.text_encoder import TextEncoder

ASSETS = Path(__file__).parent.parent / "assets"


def resolve_device(device: str) -> torch.device:
    """`auto` takes CUDA where there is one.

    Raises:
        BackboneError: `cuda` asked for and absent.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise BackboneError("CUDA is not available here.", where="device", fix="Use --device cpu or auto.")
    return torch.device(device)


def resolve_dtype(dtype: Literal["auto", "float32", "bfloat16"], device: torch.device) -> torch.dtype:
    """`auto`: bfloat16 where the hardware computes in it (recent GPUs, AVX512-BF16 processors), else float32."""
    if dtype != "auto":
        return torch.bfloat16 if dtype == "bfloat16" else torch.float32
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def resolve_attention(
    attention: Literal["auto", "eager", "sdpa"], family: Family, dtype: torch.dtype, device: torch.device
) -> Literal["eager", "sdpa"]:
    """The attention implementation: `auto` takes the faster one that the family has.

    Raises:
        BackboneError: `sdpa` asked for and absent.
    """
    if attention == "sdpa" and not family.fused_attention:
        raise BackboneError(
            "this family has eager attention only.", where="backbone.attention", fix="Use attention: auto or eager."
        )
    if attention == "auto":
        slow = device.type == "cpu" and dtype == torch.bfloat16
        return "eager" if slow or not family.fused_attention else "sdpa"
    return attention


def locate(name: str) -> str:
    """A folder for embedded models, else the name itself (a folder or a Hugging Face id)."""
    embedded = ASSETS / name
    return str(embedded) if name.startswith("nano-") and embedded.is_dir() else name


def embedded_models() -> list[str]:
    """Models that come with the package."""
    return sorted(p.name for p in ASSETS.glob("nano-*"))


def load_backbone(
    name: str,
    *,
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    device: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    attention: Literal["auto", "eager", "sdpa"] = "auto",
    quantization: dict[str, Any] | None = None,
    random_weights: int | None = None,
    embed_twice: bool = False,
) -> Backbone:
    """Load and freeze a model. Safetensors only.

    Args:
        name: `nano-masked`, a local folder, or a Hugging Face id.
        dtype: of the backbone's weights and arithmetic; the prompt is float32 always.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        revision: commit, tag or branch of a Hugging Face id.
        trust_remote_code: run model code that comes with the checkpoint.
        attention: `auto` is eager for bfloat16 on a CPU (measured faster for short sequences) and for families that
            have nothing else, else SDPA.
        quantization: options of a transformers quantization config, `quant_method` among them.
        random_weights: seed of random weights in the place of the checkpoint's, which are not read (Zhong et al. 2021,
            arXiv 2104.05240, section 4.1, their random model). The same seed gives the same weights with the same
            versions of torch and transformers; the fingerprint is that of the weights.
        embed_twice: text is embedded twice where a prompt is at the input, see `Backbone.embed`.

    Raises:
        BackboneError: unknown or unreachable model, no safetensors, an unsupported family, a checkpoint without the
            vocabulary head, a slow tokenizer, SDPA asked of a family that has eager attention only, random weights
            that shall be quantized, or `embed_twice` of a family whose embedding layer cannot be called alone.
    """
    import transformers

    where = "backbone.model"
    place = locate(name)
    if quantization and random_weights is not None:
        what = "random weights cannot be quantized."
        raise BackboneError(what, where="backbone.random_weights", fix="Leave one of them out.")
    source: dict[str, Any] = {"revision": revision} if revision else {}
    with _explained(name, where), quietly():
        config = transformers.AutoConfig.from_pretrained(place, trust_remote_code=trust_remote_code, **source)
        family = _family(name, config, embed_twice)
        on = resolve_device(device)
        kind = resolve_dtype(dtype, on)
        options = dict(source, trust_remote_code=trust_remote_code, dtype=kind, use_safetensors=True)
        options["attn_implementation"] = resolve_attention(attention, family, kind, on)
        if quantization:
            options["quantization_config"] = transformers.quantizers.AutoQuantizationConfig.from_dict(quantization)
        loader = getattr(transformers, family.auto_class)
        if random_weights is None:
            model, info = loader.from_pretrained(place, output_loading_info=True, **options)
        else:
            model, info = _random_model(loader, config, options, random_weights), {"missing_keys": ()}
        family.adopt(model, options["attn_implementation"])
        tokenizer = load_tokenizer(place, revision=revision, trust_remote_code=trust_remote_code)
        _check_loaded(name, model, tokenizer, info, family)
        if not quantization:
            model = model.to(on)
        model.requires_grad_(False).eval()
        if model.can_generate():  # a prompt must not depend on sampling or penalties that lie beside the weights
            model.generation_config = transformers.GenerationConfig()
        return Backbone(
            name=name,
            model=model,
            family=family,
            encoder=TextEncoder(tokenizer, family.decoder_start_id(config), family.is_causal),
            fingerprint=fingerprint_of(weight_files(place, revision))
            if random_weights is None
            else drawn_fingerprint(model),
            tokenizer_fingerprint=tokenizer_fingerprint(tokenizer),
            revision=getattr(config, "_commit_hash", None),
            embed_twice=embed_twice,
        )


class TextSide(NamedTuple):
    """What is known of a model without its weights: its tokenizer, its number of positions, its family and config."""

    encoder: TextEncoder
    positions: int
    family: Family
    config: Any

    @property
    def embedding_size(self) -> int:
        """E, see `Backbone.embedding_size`."""
        return self.family.embedding_size(self.config)


def load_encoder(
    name: str,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    embed_twice: bool = False,
    **ignored: Any,
) -> TextSide:
    """What renders text for a model, without its weights.

    Raises:
        BackboneError: as `load_backbone`.
    """
    import transformers

    options: dict[str, Any] = {"trust_remote_code": trust_remote_code} | ({"revision": revision} if revision else {})
    with _explained(name, "backbone.model"), quietly():
        config = transformers.AutoConfig.from_pretrained(locate(name), **options)
        family = _family(name, config, embed_twice)
        tokenizer = load_tokenizer(locate(name), **options)
        _check_tokenizer(name, tokenizer)
        encoder = TextEncoder(tokenizer, family.decoder_start_id(config), family.is_causal)
        return TextSide(encoder, family.max_positions(config), family, config)


def _family(name: str, config: Any, embed_twice: bool) -> Family:
    if config.model_type not in families.kinds():
        raise BackboneError(
            f"{name!r} is of the family {config.model_type!r}, which is not supported.",
            where="backbone.model",
            fix=suggest(config.model_type, families.kinds()),
        )
    family: Family = families.build({"kind": config.model_type})
    if embed_twice:
        family.check_embed_twice(name)
    return family


def _check_tokenizer(name: str, tokenizer: Any) -> None:
    """Without its files, transformers makes up a tokenizer that knows special tokens only."""
    if not getattr(tokenizer, "is_fast", False) or len(tokenizer) <= len(tokenizer.all_special_ids):
        raise BackboneError(f"{name!r} has no fast tokenizer (tokenizer.json).", where="backbone.model")


def _check_loaded(name: str, model: nn.Module, tokenizer: Any, info: Any, family: Family) -> None:
    """The head must come from the checkpoint, and the tokenizer must be a fast one that fits the embeddings."""
    where = "backbone.model"
    missing = sorted(k for k in info["missing_keys"] if k.startswith(family.head_prefix))
    if missing:
        absent = f"{missing[0]} {'and others are' if len(missing) > 1 else 'is'} missing"
        raise BackboneError(
            f"the checkpoint of {name!r} has no vocabulary head ({absent}), so an answer would be read by random "
            "weights.",
            where=where,
            fix=family.head_advice,
        )
    _check_tokenizer(name, tokenizer)
    rows = model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    if len(tokenizer) > rows:
        raise BackboneError(f"the tokenizer of {name!r} has {len(tokenizer)} tokens, the model {rows}.", where=where)


def _random_model(loader: Any, config: Any, options: Mapping[str, Any], seed: int) -> nn.Module:
    """A model with the weights that training from scratch would begin with, drawn on the CPU in float32."""
    kept = {k: options[k] for k in ("trust_remote_code", "attn_implementation")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = loader.from_config(config, dtype=torch.float32, **kept)
    return model.to(options["dtype"])


def _embedded() -> str:
    return ", ".join(embedded_models())


@contextmanager
def _explained(name: str, where: str) -> Iterator[None]:
    """Turn the many ways in which loading fails into one sentence."""
    is_path = name.startswith((".", "/", "~")) or name.count("/") > 1
    if is_path and not os.path.exists(name):
        raise BackboneError(f"there is no folder {name!r}.", where=where, fix=f"Embedded: {_embedded()}.")
    try:
        yield
    except BackboneError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        is_folder = os.path.exists(name)
        raise BackboneError(
            f"the model {name!r} {'in this folder cannot be loaded' if is_folder else 'is unknown or unreachable'}: "
            f"{reason}.",
            where=where,
            fix=f"Give an embedded model ({_embedded()}), a folder with config.json, tokenizer and *.safetensors, or a "
            "Hugging Face id.",
        ) from error


@contextmanager
def quietly() -> Iterator[None]:
    """Silence transformers' progress bars and reports; what matters is checked and raised."""
    from transformers.utils import logging

    hub = getLogger("huggingface_hub")
    level, bars, hub_level = logging.get_verbosity(), logging.is_progress_bar_enabled(), hub.level
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    hub.setLevel(ERROR)
    try:
        yield
    finally:
        hub.setLevel(hub_level)
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
