"""A recipe (YAML) plus dotted overrides -> a frozen, fully resolved RunConfig.

Everything that changes a result is in the config and nothing else is: no paths of outputs, no device. Sections that
name a `kind` are checked against the constructor of that component (see `trimtab.registry`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trimtab.documents import read_yaml
from trimtab.errors import ConfigError, suggest
from trimtab.overrides import DEFAULT_KINDS, SECTIONS, apply_overrides, parse_overrides
from trimtab.registry import Registry, prompts, readouts, regularizers, tunings, validated


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True, allow_inf_nan=False)
    controls: ClassVar[tuple[str, ...]] = ()
    """Keys that are left out where they are at their defaults, as those of components are (`Registry.resolve`)."""


Group = Literal["prompt", "encoder", "head", "backbone"]
_RATES = "training.learning_rates"


class BackboneConfig(_Section):
    """Which model, frozen unless `training.learning_rates.backbone` says otherwise. See `trimtab.backbones`.

    Attributes:
        dtype: of weights and arithmetic; of a trained backbone `auto` is float32, and nothing else is possible.
        dropout: keep the backbone's own dropout in training passes; off by default, as the model is frozen.
        tuning: how it is trained, if it is: `all` its weights, its `biases`, or by `lora`; see `trimtab.tunings`.
        random_weights: seed of random weights in the place of the checkpoint's, by the model's own rule of
            initialization: the control for what is learned without any knowledge in the model.
        embed_twice: embed the text of prompts at the input by the whole embedding layer, and then again with the
            prompt, as P-tuning v2's released code does; see `trimtab.backbones.Backbone.embed`.
        compile: run its layers by torch.compile, which needs a C++ compiler (on a GPU Triton) and takes a while at the
            first step; other last bits. See `trimtab.backbones.compiling`.
    """

    controls: ClassVar[tuple[str, ...]] = ("random_weights", "embed_twice", "compile")

    model: str = "nano-masked"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    revision: str | None = None
    trust_remote_code: bool = False
    attention: Literal["auto", "eager", "sdpa"] = "auto"
    quantization: dict[str, Any] | None = None
    dropout: bool = False
    tuning: dict[str, Any] = {"kind": "all"}
    random_weights: int | None = Field(None, ge=0)
    embed_twice: bool = False
    compile: bool = False


class Seeds(_Section):
    """One seed per random stream, all at least 0."""

    init: int = Field(ge=0)
    data_order: int = Field(ge=0)
    subset: int = Field(ge=0)
    noise: int = Field(ge=0)


class TrainingConfig(_Section):
    """The training loop.

    Attributes:
        optimizer: `beta1`, `beta2` and `epsilon` are AdamW's; Adafactor has none of them.
        learning_rate: of prompt and encoder; where absent, the prompt encoder's default.
        learning_rates: per group, over `learning_rate`: `prompt` (the raw rows), `encoder` (its network), `head` (of a
            readout that has one) and `backbone`. The backbone is trained only if it has a positive rate
            here; then the run has a copy of its own, which is kept beside the prompt, and packs with no other run.
        schedule: of the rate after warm-up.
        warmup: share of the steps with a linearly rising rate.
        weight_decay: decoupled (AdamW), on every trained parameter but the backbone's biases and norms.
        clip: largest gradient norm, per run; 0 turns clipping off.
        epochs: passes over the training rows.
        min_steps: train at least this many optimizer steps, whatever the epochs.
        max_steps: and at most this many.
        batch_size: rows per optimizer step.
        max_tokens: tokens, padding included, per forward pass; larger batches are accumulated. 0 for 2,048 on a CPU,
            whose caches larger ones leave, and 8,192 on a GPU.
        recompute_layers: save memory by computing each layer anew in the backward pass; results are the same, bit for
            bit, and a step takes about a third longer.
        buckets: batches sorted by length together, 1 for none; off in epochs of no more batches than this.
        shuffle: the rows before `every_epoch`, or `once`: then all epochs have the batches of the first, in its order.
        evaluations: how often the dev split is scored, evenly over the run.
        patience: stop after this many evaluations without gain; 0 never stops early.
        select: dev metric that picks the checkpoint: `loss`, or one of the readout's; `auto` is the readout's first.
            Ties go to the lower dev loss. With `loss`, readouts that write need not do so at every evaluation.
        keep_encoder: also save the encoder's parameters of the best checkpoint.
    """

    controls: ClassVar[tuple[str, ...]] = ("shuffle",)

    optimizer: Literal["adamw", "adafactor"] = "adamw"
    learning_rate: float | None = Field(None, gt=0)
    learning_rates: dict[Group, Annotated[float, Field(ge=0)]] = {}
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    warmup: float = Field(0.05, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.999, ge=0, lt=1)
    epsilon: float = Field(1e-8, gt=0)
    clip: float = Field(1.0, ge=0)
    epochs: int = Field(30, ge=1)
    min_steps: int = Field(300, ge=0)
    max_steps: int | None = Field(None, ge=1)
    batch_size: int = Field(16, ge=1)
    max_tokens: int = Field(0, ge=0)
    recompute_layers: bool = False
    buckets: int = Field(8, ge=1)
    shuffle: Literal["once", "every_epoch"] = "every_epoch"
    evaluations: int = Field(25, ge=1)
    patience: int = Field(0, ge=0)
    select: str = "auto"
    keep_encoder: bool = False

    def tokens_per_pass(self, device: str) -> int:
        """`max_tokens` on a sort of device, such as `cpu`."""
        return self.max_tokens or (2048 if device == "cpu" else 8192)

    @property
    def tunes_backbone(self) -> bool:
        """Whether the backbone is trained with the prompt."""
        return self.learning_rates.get("backbone", 0.0) > 0


class RunConfig(_Section):
    """One run, fully resolved: every option of every component has its value."""

    seeds: Seeds
    backbone: BackboneConfig = BackboneConfig()
    task: dict[str, Any]
    prompt: dict[str, Any]
    readout: dict[str, Any]
    regularizers: tuple[dict[str, Any], ...] = ()
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="before")
    @classmethod
    def _spread_seed(cls, raw: Any) -> Any:
        """`seed: 13` sets all four streams; `seeds` overrides single ones."""
        raw = dict(raw)
        seed, seeds = raw.pop("seed", None), raw.get("seeds") or {}
        if not isinstance(seeds, Mapping):
            return raw
        base = 13 if seed is None else seed
        raw["seeds"] = {**dict.fromkeys(Seeds.model_fields, base), **seeds}
        return raw

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as it is saved with the run. A switch that is off is left out, so ids are those of before it."""
        raw = self.model_dump(mode="json")
        for name, section in (("backbone", self.backbone), ("training", self.training)):
            for switch in section.controls:
                if raw[name][switch] == type(section).model_fields[switch].default:
                    del raw[name][switch]
        return raw

    def digest(self, *fingerprints: str) -> str:
        """Ten hexadecimal digits over this config and what else decides the result."""
        return _digest([self.as_dict(), fingerprints])

    @property
    def mixes_examples(self) -> bool:
        """Whether the loss of an example depends on those beside it in a batch (`batch_hinge`)."""
        its = (self.readout, *self.readout.get("readouts", {}).values())
        return any(isinstance(readout, Mapping) and readout.get("batch_hinge") for readout in its)

    @property
    def pack_key(self) -> str:
        """Equal for runs that may train in one pack: those that differ only in seeds, learning rates, weight decay,
        initializer and regularizer weights, on a frozen backbone without dropout, each example with a loss of its own.
        """
        raw = self.as_dict()
        if self.backbone.dropout or self.training.tunes_backbone or self.mixes_examples:
            return _digest(raw)
        raw.pop("seeds")
        raw["prompt"].pop("initializer", None)
        for key in ("learning_rate", "learning_rates", "weight_decay"):
            raw["training"].pop(key)
        for spec in raw["regularizers"]:
            spec.pop("weight", None)
        return _digest(raw)


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


@dataclass(frozen=True)
class Resolution:
    """A resolved config, and the options that a changed `kind` made meaningless."""

    config: RunConfig
    dropped: tuple[str, ...] = ()


def resolve(recipe: Mapping[str, Any], overrides: Sequence[str] | Mapping[str, Any] = ()) -> Resolution:
    """Apply overrides to a recipe and resolve every component.

    Args:
        recipe: plain data, as read from YAML.
        overrides: `key=value` texts (value in YAML), or a mapping dotted key -> value; see `trimtab.overrides`.

    Raises:
        ConfigError: an unknown or misspelt key or kind, a value that does not fit, a required key left out, a learning
            rate for what the run does not have, a trained backbone that is not float32.
    """
    if not isinstance(recipe, Mapping):
        raise ConfigError(f"a recipe is a mapping of sections, got {type(recipe).__name__}.", where="recipe")
    given = parse_overrides(overrides)
    raw, dropped = apply_overrides(recipe, given)
    for section in raw:
        if section not in (*RunConfig.model_fields, "seed"):
            raise ConfigError("there is no such section.", where=section, fix=suggest(section, RunConfig.model_fields))
    for section, registry in SECTIONS.items():
        raw[section] = _resolved(raw.get(section), section, registry)
    raw["regularizers"] = [
        regularizers.resolve(_mapped(spec, f"regularizers.{i}"), f"regularizers.{i}")
        for i, spec in enumerate(_listed(raw.get("regularizers")))
    ]
    training = raw.get("training") or {}
    if not isinstance(training, Mapping):
        raise ConfigError(f"this must be a mapping, got {training!r}.", where="training")
    training = dict(training)
    if training.get("learning_rate") is None:
        training["learning_rate"] = prompts.get(raw["prompt"]["kind"]).default_learning_rate  # type: ignore[attr-defined]
    raw["training"] = training
    raw["backbone"] = _backbone(raw.get("backbone"))
    is_new = "prompt.kind" in given or "readout.kind" in given
    if is_new and not any(key == "training" or key.startswith(_RATES) for key in given):
        dropped += _drop_rates(raw)
    config = validated(RunConfig, raw, "")
    if config.training.tunes_backbone and config.backbone.dtype == "auto":
        config = config.model_copy(update={"backbone": config.backbone.model_copy(update={"dtype": "float32"})})
    check_groups(config)
    return Resolution(config, tuple(dropped))


def _backbone(given: Any) -> Any:
    """The section with its nested component; a lone text is the model."""
    if isinstance(given, str):
        return {"model": given}
    if not isinstance(given, Mapping) or "tuning" not in given:
        return given or {}
    return {**given, "tuning": tunings.resolve(_mapped(given["tuning"], "backbone.tuning"), "backbone.tuning")}


def _groups(prompt: Mapping[str, Any], has_head: bool | None) -> tuple[Group, ...]:
    """The groups of parameters that a run can train, where that of the head is not settled yet: may train.

    Args:
        prompt: the resolved section.
    """
    encoder: Any = prompts.get(prompt["kind"])
    there: dict[Group, bool] = {
        "prompt": encoder.has_rows(prompt), "encoder": encoder.has_network(prompt), "head": has_head is not False,
        "backbone": True,
    }  # fmt: skip
    return tuple(group for group, exists in there.items() if exists)


def has_head(readout: Mapping[str, Any]) -> bool | None:
    """Whether a readout is trained; None where that is settled later, with the backbone and the task."""
    if readout["kind"] == "auto":
        return None
    found: bool | None = readouts.get(readout["kind"]).trains  # type: ignore[attr-defined]
    return found


def _drop_rates(raw: dict[str, Any]) -> list[str]:
    """Where the prompt's or the readout's kind changes, drop the recipe's rates for what the new one lacks."""
    rates = raw["training"].get("learning_rates")
    if not isinstance(rates, Mapping):
        return []
    there = _groups(raw["prompt"], has_head(raw["readout"]))
    gone = [g for g in ("prompt", "encoder", "head") if g in rates and g not in there]
    raw["training"]["learning_rates"] = {group: rate for group, rate in rates.items() if group not in gone}
    return [f"{_RATES}.{group}" for group in gone]


def check_groups(config: RunConfig, heads: Sequence[bool | None] = ()) -> None:
    """Refuse a rate for a group of parameters that a run does not have, a run that trains nothing, and a trained
    backbone that is not float32.

    Args:
        heads: of several tasks, whether the readout of each has a head.

    Raises:
        ConfigError: with the groups that there are.
    """
    trains = any(heads) if heads else has_head(config.readout)
    groups = _groups(config.prompt, trains)
    for group in config.training.learning_rates:
        if group not in groups:
            raise ConfigError(
                f"a run with the prompt {config.prompt['kind']!r} and the readout {config.readout['kind']!r} has no "
                f"parameters of the group {group!r}.",
                where=f"{_RATES}.{group}",
                fix=f"Its groups: {', '.join(groups)}.",
            )
    is_fixed = bool(prompts.get(config.prompt["kind"]).is_fixed)  # type: ignore[attr-defined]
    if is_fixed and (config.training.tunes_backbone or trains):
        raise ConfigError(
            f"with the prompt {config.prompt['kind']!r} nothing is trained, neither a head nor the backbone.",
            where="prompt.kind",
            fix="Use prompt.kind=none, or a readout without a head and a frozen backbone.",
        )
    if not config.training.tunes_backbone:
        if config.backbone.tuning["kind"] != "all":
            raise ConfigError(
                f"the backbone is frozen, so there is nothing to train by {config.backbone.tuning['kind']!r}.",
                where="backbone.tuning",
                fix=f"Give the rate {_RATES}.backbone, or leave the tuning out.",
            )
        if groups == ("backbone",) and not is_fixed:
            raise ConfigError(
                f"the prompt {config.prompt['kind']!r} with the readout {config.readout['kind']!r} trains nothing.",
                where="prompt.kind",
                fix="Use a prompt, readout.kind=head, or a rate for training.learning_rates.backbone; "
                "prompt.kind=manual scores the template as it is.",
            )
        return
    fix = f"Leave it out, or freeze the backbone: {_RATES}.backbone=0."
    if config.backbone.quantization:
        raise ConfigError("quantized weights cannot be trained.", where="backbone.quantization", fix=fix)
    if config.backbone.dtype != "float32":
        raise ConfigError(
            f"a trained backbone is float32, got {config.backbone.dtype}: small updates are lost in its rounding.",
            where="backbone.dtype",
            fix=fix,
        )


def read_recipe(path: Path) -> dict[str, Any]:
    """The plain data of a recipe file."""
    recipe = read_yaml(path)
    if not isinstance(recipe, dict):
        raise ConfigError("a recipe is a mapping of sections such as task, prompt and training.", where=str(path))
    if "recipe" in recipe:
        fix = f"Look at its plan, or run it: trimtab study {path} --dry-run."
        raise ConfigError("this is a study, which has a recipe in it.", where=str(path), fix=fix)
    return recipe


def _resolved(spec: Any, section: str, registry: Registry) -> dict[str, Any]:
    """A section that is a component, with all its options; one without a kind has the default kind."""
    default = DEFAULT_KINDS.get(section)
    if spec is None and default is None:
        raise ConfigError(f"a recipe needs a {section}.", where=section, fix=f"Known: {', '.join(registry.kinds())}.")
    if isinstance(spec, str) or spec is None:
        spec = {"kind": spec or default}
    elif isinstance(spec, Mapping) and default is not None:
        spec = {"kind": default, **spec}
    spec = _mapped(spec, section)
    if section != "readout" or spec.get("kind") != "auto":
        return registry.resolve(spec, section)
    if len(spec) > 1:
        raise ConfigError("the kind auto takes no options.", where="readout", fix="Name the kind: cloze.")
    return dict(spec)


def _mapped(spec: Any, where: str) -> Any:
    if not isinstance(spec, Mapping | str):
        raise ConfigError(f"this must be a kind or a mapping, got {spec!r}.", where=where)
    return spec


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list | tuple):
        raise ConfigError(f"this must be a list such as [{{kind: gaussian}}], got {value!r}.", where="regularizers")
    return list(value)
