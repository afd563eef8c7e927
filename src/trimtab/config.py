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
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trimtab.documents import parse_yaml, read_yaml
from trimtab.errors import ConfigError, suggest
from trimtab.registry import Registry, prompts, readouts, regularizers, tasks, validated


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True, allow_inf_nan=False)


class BackboneConfig(_Section):
    """Which frozen model. See `trimtab.backbones.load_backbone`.

    Attributes:
        dropout: keep the backbone's own dropout in training passes; off by default, as the model is frozen.
    """

    model: str = "nano-masked"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    revision: str | None = None
    trust_remote_code: bool = False
    attention: Literal["auto", "eager", "sdpa"] = "auto"
    quantization: dict[str, Any] | None = None
    dropout: bool = False


class Seeds(_Section):
    """One seed per random stream, all at least 0."""

    init: int = Field(ge=0)
    data_order: int = Field(ge=0)
    subset: int = Field(ge=0)
    noise: int = Field(ge=0)


class TrainingConfig(_Section):
    """The training loop.

    Attributes:
        learning_rate: of all groups; where absent, the prompt encoder's default.
        learning_rates: per group, over `learning_rate`: `prompt` (the raw rows) and `encoder` (its network).
        schedule: of the rate after warm-up.
        warmup: share of the steps with a linearly rising rate.
        weight_decay: decoupled (AdamW), on every trained parameter.
        clip: largest gradient norm, per run; 0 turns clipping off.
        epochs: passes over the training rows.
        min_steps: train at least this many optimizer steps, whatever the epochs.
        max_steps: and at most this many.
        batch_size: rows per optimizer step.
        max_tokens: tokens, padding included, per forward pass; larger batches are accumulated.
        buckets: batches sorted by length together, 1 for none; off in epochs of no more batches than this.
        evaluations: how often the dev split is scored, evenly over the run.
        patience: stop after this many evaluations without gain; 0 never stops early.
        select: dev metric that picks the checkpoint; ties go to the lower dev loss.
        keep_encoder: also save the encoder's parameters of the best checkpoint.
    """

    optimizer: Literal["adamw"] = "adamw"
    learning_rate: float | None = Field(None, gt=0)
    learning_rates: dict[Literal["prompt", "encoder"], Annotated[float, Field(ge=0)]] = {}
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
    max_tokens: int = Field(8192, ge=1)
    buckets: int = Field(8, ge=1)
    evaluations: int = Field(25, ge=1)
    patience: int = Field(0, ge=0)
    select: Literal["accuracy", "macro_f1"] = "accuracy"
    keep_encoder: bool = False


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
        """Plain data, as it is saved with the run."""
        return self.model_dump(mode="json")

    def digest(self, *fingerprints: str) -> str:
        """Ten hexadecimal digits over this config and what else decides the result."""
        text = json.dumps([self.as_dict(), fingerprints], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:10]


@dataclass(frozen=True)
class Resolution:
    """A resolved config, and the options that a changed `kind` made meaningless."""

    config: RunConfig
    dropped: tuple[str, ...] = ()


_COMPONENTS: dict[str, Registry] = {"task": tasks, "prompt": prompts, "readout": readouts}


def resolve(recipe: Mapping[str, Any], overrides: Sequence[str] | Mapping[str, Any] = ()) -> Resolution:
    """Apply overrides to a recipe and resolve every component.

    Args:
        recipe: plain data, as read from YAML.
        overrides: `key=value` texts (value in YAML), or a mapping dotted key -> value.

    Raises:
        ConfigError: an unknown or misspelt key or kind, a value that does not fit, a required key left out.
    """
    if not isinstance(recipe, Mapping):
        raise ConfigError(f"a recipe is a mapping of sections, got {type(recipe).__name__}.", where="recipe")
    raw, dropped = _apply(recipe, _parse_overrides(overrides))
    for section in raw:
        if section not in (*RunConfig.model_fields, "seed"):
            raise ConfigError("there is no such section.", where=section, fix=suggest(section, RunConfig.model_fields))
    for section, registry in _COMPONENTS.items():
        default = {"task": None, "prompt": "prompt_tuning", "readout": "auto"}[section]
        spec = raw.get(section) if raw.get(section) is not None else default
        if spec is None:
            raise ConfigError("a recipe needs a task.", where="task", fix=f"Known: {', '.join(tasks.kinds())}.")
        auto = spec == "auto" or (isinstance(spec, Mapping) and spec.get("kind") == "auto")
        if section == "readout" and auto and spec not in ("auto", {"kind": "auto"}):
            raise ConfigError("the kind auto takes no options.", where="readout", fix="Name the kind: cloze.")
        raw[section] = (
            {"kind": "auto"} if section == "readout" and auto else registry.resolve(_mapped(spec, section), section)
        )
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
    raw["backbone"] = {"model": raw["backbone"]} if isinstance(raw.get("backbone"), str) else raw.get("backbone") or {}
    return Resolution(validated(RunConfig, raw, ""), tuple(dropped))


def read_recipe(path: Path) -> dict[str, Any]:
    """The plain data of a recipe file."""
    recipe = read_yaml(path)
    if not isinstance(recipe, dict):
        raise ConfigError("a recipe is a mapping of sections such as task, prompt and training.", where=str(path))
    return recipe


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


def _parse_overrides(overrides: Sequence[str] | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(overrides, Mapping):
        return dict(overrides)
    parsed: dict[str, Any] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"an override is written key=value, got {text!r}.", where="command line")
        is_template = key.strip().endswith(".template") and value[:1] not in "\"'"
        parsed[key.strip()] = value if is_template else parse_yaml(value, key.strip())
    return parsed


def _apply(recipe: Mapping[str, Any], overrides: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Set dotted keys in a copy. Where a `kind` changes, drop the old options that the new constructor lacks."""
    raw = json.loads(json.dumps(recipe))
    dropped: list[str] = []
    given = {key: value for key, value in overrides.items() if not key.endswith(".kind")}
    for key, kind in overrides.items():
        if key.endswith(".kind"):
            dropped += _change_kind(raw, key.removesuffix(".kind"), kind)
    for key, value in given.items():
        *path, last = key.split(".")
        node: Any = raw
        for i, step in enumerate(path):
            node = _child(node, step, ".".join(path[: i + 1]))
        if isinstance(node, list):
            node[_index(node, last, key)] = value
        else:
            node[last] = value
    return raw, dropped


def _child(node: Any, step: str, where: str) -> Any:
    """Descend one step; a section that is only a kind becomes a mapping, a missing one is made."""
    key: Any = _index(node, step, where) if isinstance(node, list) else step
    child = node[key] if isinstance(node, list) else node.get(key)
    if isinstance(child, str):
        child = {"model" if where == "backbone" else "kind": child}
    elif child is None:
        child = {}
    if not isinstance(child, dict | list):
        raise ConfigError(f"this is a value ({child!r}), so it has no keys below it.", where=where)
    node[key] = child
    return child


def _index(node: list[Any], step: str, where: str) -> int:
    if not step.isdecimal() or int(step) >= len(node):
        raise ConfigError(f"the list has {len(node)} entries; write a position from 0, got {step!r}.", where=where)
    return int(step)


def _change_kind(raw: dict[str, Any], section: str, kind: Any) -> list[str]:
    """Set `section.kind`, keeping the options that the new component also has."""
    *path, last = section.split(".")
    node: Any = raw
    for i, step in enumerate(path):
        node = _child(node, step, ".".join(path[: i + 1]))
    registry = _COMPONENTS.get(section) or (regularizers if path == ["regularizers"] else None)
    if isinstance(node, list):
        last = _index(node, last, section)  # type: ignore[assignment]
        old = node[last]  # type: ignore[call-overload]
    else:
        old = node.get(last)
    old = {"kind": old} if isinstance(old, str) else dict(old) if isinstance(old, dict) else {}
    kept = {k: v for k, v in old.items() if k != "kind"}
    dropped = []
    if registry is not None and old.get("kind") != kind and kind != "auto":
        known = registry.options(str(kind)) if str(kind) in registry.kinds() else registry.get(str(kind), section)
        for option in [k for k in kept if k not in known]:  # type: ignore[operator]
            dropped.append(f"{section}.{option}")
            del kept[option]
    node[last] = {"kind": kind, **kept}
    return dropped
