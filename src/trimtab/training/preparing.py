"""From a config to a run that is ready to train: everything that can be wrong with its input is checked here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from trimtab import initializers
from trimtab.backbones import Backbone, Family, load_backbone
from trimtab.backbones.checkpointing import check_recomputing
from trimtab.backbones.loading import TextSide
from trimtab.backbones.substitutes import hiding_token
from trimtab.chat import read_template
from trimtab.config import BackboneConfig, RunConfig, check_groups
from trimtab.errors import ConfigError, TemplateError
from trimtab.grading import Grader
from trimtab.initializers import PromptContext
from trimtab.predictor import Rendering
from trimtab.prompts import PromptEncoder
from trimtab.readouts import first_head
from trimtab.registry import prompts, readouts, regularizers, tasks, tunings
from trimtab.seeding import torch_seed, torch_stream
from trimtab.storage import SCHEMA_VERSION
from trimtab.tasks import Task
from trimtab.tasks.reading import Places
from trimtab.templates import Template
from trimtab.text_encoder import TextEncoder
from trimtab.training.objective import check_regularizers
from trimtab.types import Row, Site


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to train: everything that can be wrong with its input has been checked.

    Attributes:
        config: resolved further: concrete readout and dtype.
        rows: rendered examples by split.
    """

    config: RunConfig
    backbone: Backbone
    task: Task
    rendering: Rendering
    rows: dict[str, list[Row]]

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What the backbone makes of the data, where a user should know it, in sentences."""
        return notes_on(self.rows, self.rendering, self.backbone.encoder)

    @cached_property
    def initializer_fingerprint(self) -> str | None:
        """Of what initializers read from disk, such as the prompt of another run."""
        return initializers.fingerprint(self.config.prompt)

    @cached_property
    def id(self) -> str:
        """`<task>-<prompt>-<hash>` over config, data, backbone, tokenizer, schema version, a prompt begun from, and
        what the tokenizer's chat template makes of a chat.
        """
        b = self.backbone
        parts = [self.task.fingerprint, b.fingerprint, b.tokenizer_fingerprint, str(SCHEMA_VERSION)]
        parts += [self.initializer_fingerprint] if self.initializer_fingerprint else []
        parts += [self.rendering.template.source] if self.rendering.template.is_verbatim else []
        name = "".join(c if c.isalnum() or c in "-_." else "_" for c in self.task.name)
        return f"{name}-{self.config.prompt['kind']}-{self.config.digest(*parts)}"


def open_backbone(config: BackboneConfig, device: str = "auto") -> Backbone:
    """Load the backbone of a config's section."""
    return load_backbone(config.model, device=device, **config.model_dump(exclude={"model", "dropout", "tuning"}))


def prepare(config: RunConfig, backbone: Backbone, places: Places | None = None) -> Prepared:
    """Load and render the task for a backbone.

    Raises:
        DataError, TemplateError, ConfigError: see the stages; nothing has been written.
    """
    return Preparer(backbone, places).prepare(config)


class Preparer:
    """Prepares many runs on one backbone; what they share is loaded and rendered once.

    Args:
        places: where paths start.
    """

    def __init__(self, backbone: Backbone, places: Places | None = None) -> None:
        self.backbone, self.places = backbone, places or Places()
        self._tasks: dict[str, Task] = {}
        self._rows: dict[str, dict[str, list[Row]]] = {}

    def prepare(self, config: RunConfig) -> Prepared:
        """As the function `prepare`, which see."""
        backbone = self.backbone
        dtype = str(backbone.dtype).removeprefix("torch.")
        tokens = config.training.tokens_per_pass(backbone.device.type)
        settled = {
            "backbone": config.backbone.model_copy(update={"dtype": dtype}),
            "training": config.training.model_copy(update={"max_tokens": tokens}),
        }
        config = config.model_copy(update=settled)
        task = self._task(config)
        config = concrete(config, task, backbone.family.readouts)
        positions = backbone.max_positions - shift_of(config, backbone.family, backbone.max_positions)
        slots = slots_of(config)
        rendering = render_task(task, slots, backbone.encoder, positions, config.readout)
        if config.training.recompute_layers:
            check_recomputing(backbone.model)
        told = json.dumps([config.task, task.fingerprint, config.readout, slots, positions], sort_keys=True)
        if told not in self._rows:
            self._rows[told] = {
                s: [row for e in task.splits[s] for row in rendering.rows(e, backbone.encoder)] for s in task.splits
            }
        check_components(config)
        check_regularizers(
            [regularizers.build(spec) for spec in config.regularizers],
            config.readout["kind"],
            self._rows[told]["train"],
            hiding_token(backbone.encoder) is not None,
        )
        build_encoder(config, rendering, backbone)  # refuses an initializer that does not fit
        return Prepared(config, backbone, task, rendering, self._rows[told])

    def _task(self, config: RunConfig) -> Task:
        told = json.dumps([config.task, config.seeds.subset], sort_keys=True)
        if told not in self._tasks:
            self._tasks[told] = tasks.build(config.task).load(config.seeds.subset, self.places)
        return self._tasks[told]


def slots_of(config: RunConfig) -> int:
    """Virtual tokens that the prompt of a config has in the text."""
    return int(prompts.get(config.prompt["kind"]).slots(config.prompt))  # type: ignore[attr-defined]


def shift_of(config: RunConfig, family: Family, positions: int) -> int:
    """Positions that the prompt of a config moves the text on.

    Raises:
        BackboneError: the backbone cannot move it.
        ConfigError: no positions are left for the text.
    """
    shift = int(prompts.get(config.prompt["kind"]).position_shift(config.prompt, family.takes_positions))  # type: ignore[attr-defined]
    if shift:
        family.check_shifts(config.backbone.model)
    if shift >= positions:
        raise ConfigError(
            f"the backbone has {positions} positions, and the prompt moves the text {shift} on.",
            where="prompt.length",
            fix="Shorten the prompt, or set prompt.shift_positions: false.",
        )
    return shift


def check_components(config: RunConfig) -> None:
    """Let constructors refuse combinations of options that a signature cannot express, and check what is trained."""
    check_groups(config)
    encoder: Any = prompts.get(config.prompt["kind"])
    has_prompt = encoder.has_rows(config.prompt) or encoder.has_network(config.prompt)
    for i, spec in enumerate(config.regularizers):
        if regularizers.build(spec).needs.prompt and not has_prompt:
            raise ConfigError(
                f"there is no prompt that {spec['kind']!r} could perturb.",
                where=f"regularizers.{i}",
                fix="Perturb the text instead, or train a prompt.",
            )


def concrete(config: RunConfig, task: Task, possible: Sequence[str]) -> RunConfig:
    """A config whose readout, and what selects the checkpoint, are no longer `auto`.

    Args:
        possible: the readouts of the backbone's family, the default first. A task of free text needs one that writes.

    Raises:
        ConfigError: the family or the task cannot be read so, none of the family's readouts writes, or the readout has
            no such metric.
    """
    spec, model = config.readout, config.backbone.model
    fitting = [k for k in possible if task.answer in readouts.get(k).kinds]  # type: ignore[attr-defined]
    if not fitting and task.answer != "text":
        raise ConfigError(f"{model!r} has no readout for answers of the sort {task.answer!r}.", where="backbone.model")
    if not fitting:
        raise ConfigError(
            f"the task's answers are free text, and {model!r} cannot write.",
            where="backbone.model",
            fix="Use a causal or encoder-decoder model, such as nano-causal, or give label words.",
        )
    if spec["kind"] == "auto":
        spec = readouts.resolve({**spec, "kind": fitting[0]}, "readout")
    if spec["kind"] not in possible:
        raise ConfigError(
            f"{model!r} cannot be read by {spec['kind']!r}.",
            where="readout.kind",
            fix=f"Use {' or '.join(fitting)}, or leave it out.",
        )
    if spec["kind"] not in fitting:
        raise ConfigError(
            f"the readout {spec['kind']!r} gives no answers of the sort that the task {task.name!r} has "
            f"({task.answer}).",
            where="readout.kind",
            fix=f"Use {' or '.join(fitting)}, or leave it out.",
        )
    grader = Grader(task.verbalizer, task.metrics, task.headline, task.candidate)
    select, known = config.training.select, grader.names(readouts.get(spec["kind"]).metrics)  # type: ignore[attr-defined]
    if select not in ("auto", "loss", *known):
        raise ConfigError(
            f"the readout {spec['kind']!r} has no metric {select!r}.",
            where="training.select",
            fix=f"Use auto, {', '.join(known)} or loss.",
        )
    training = config.training.model_copy(update={"select": known[0] if select == "auto" else select})
    return config.model_copy(update={"readout": spec, "training": training})


def render_task(
    task: Task, length: int, encoder: TextEncoder, positions: int, readout: Mapping[str, Any] | str = "cloze"
) -> Rendering:
    """Parse a task's template for a number of slots and check fields and label words."""
    template = read_template(task.template_for(encoder.is_causal), length, task.truncate, encoder)
    template.check_fields(task.columns)
    template.check_decoder(encoder)
    if task.max_length is not None and task.max_length > positions:
        raise ConfigError(f"the backbone has {positions} positions, got {task.max_length}.", where="task.max_length")
    spec = readouts.resolve(readout, "readout")
    room = task.max_length or min(positions, task.most or positions)
    own = (task.answer, task.candidate, task.metrics, task.headline, task.allowed)
    rendering = Rendering(template, task.verbalizer, room, spec, task.replace, *own)
    plan = rendering.plan(encoder)
    decoder_room = plan.decoder_room + len(template.decoder_rows)
    for room, there in ((plan.room, rendering.max_length), (decoder_room, positions)):
        if room > there:
            raise ConfigError(
                f"what the model may write needs {room} positions, there are {there}.",
                where="readout.max_new_tokens",
                fix="Lower it, or use a backbone with more positions.",
            )
    return rendering


def bare_rendering(p: Prepared) -> Rendering | None:
    """What the bare model reads for the baseline without a prompt; None where it cannot be asked."""
    if p.task.manual is None:
        return replace(p.rendering, template=p.rendering.template.without_prompt())
    source = p.task.manual[p.backbone.encoder.is_causal]
    return None if source is None else replace(p.rendering, template=Template.parse(source, 0))


def notes_on(rows: Mapping[str, Sequence[Row]], rendering: Rendering, encoder: TextEncoder) -> tuple[str, ...]:
    """What the tokenizer makes of the right answers and of the words that may be answers, in sentences."""
    told = getattr(readouts.get(rendering.readout["kind"]), "notes", None)
    return () if told is None else tuple(told(rows, rendering.allowed, rendering.allowed_ids(encoder)))


def count_parameters(config: RunConfig, task: Task, rendering: Rendering, side: TextSide) -> dict[str, int]:
    """How many parameters a run trains and keeps, by the methods' formulas; a trained backbone's own aside.

    Raises:
        ConfigError: the prompt asks for layers or sites that the backbone does not have.
    """
    family, model = side.family, side.config
    there = _read_sites(family.sites(model), rendering, side.encoder)
    options = {**config.prompt, "there": there, "hidden_size": family.hidden_size(model)}
    encoder: Any = prompts.get(config.prompt["kind"])
    classes = len(task.verbalizer.classes)
    first = first_head(config.readout["kind"], family.hidden_size(model), classes, torch.Generator())
    head = sum(value.numel() for value in first.values())
    size = side.embedding_size
    return {"trained": encoder.count(size=size, **options) + head, "kept": encoder.kept(size=size, **options) + head}


def prompt_context(rendering: Rendering, backbone: Backbone, seed: int) -> PromptContext:
    """What the encoders of a run may know."""
    encoder = backbone.encoder
    return PromptContext(
        embeddings=backbone.embedding_rows,
        embedding_rms=backbone.embedding_rms,
        words=backbone.ordinary_words,
        label_ids=label_ids(rendering, encoder),
        encode=lambda text: encoder.encode(text).ids,
        generator=torch_stream(seed, "init"),
        backbone=backbone.name,
        fingerprint=backbone.fingerprint,
        hidden_size=backbone.hidden_size,
        sites=lambda: _read_sites(backbone.sites, rendering, encoder),
        takes_positions=backbone.family.takes_positions,
        keys_values=backbone.keys_values,
    )


def _read_sites(sites: Mapping[str, Site], rendering: Rendering, encoder: TextEncoder) -> dict[str, Site]:
    """The kinds of attention that the readout depends on: of an encoder-decoder that is read in its encoder, one."""
    reads_encoder = not rendering.plan(encoder).fills[0].decoder
    return {n: s for n, s in sites.items() if n not in ("decoder", "cross") or not reads_encoder}


def label_ids(rendering: Rendering, encoder: TextEncoder) -> list[int]:
    """Token ids of the label words; none where the answer is read by a head and has no words in the vocabulary."""
    with suppress(*([TemplateError] if rendering.plan(encoder).words == () else [])):
        return [i for its in rendering.label_ids(encoder) for ids in its for i in ids]
    return []


def build_encoder(config: RunConfig, rendering: Rendering, backbone: Backbone) -> PromptEncoder:
    """The prompt encoder of a run, its random values from the `init` stream."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(config.seeds.init, "init:encoder"))
        context = prompt_context(rendering, backbone, config.seeds.init)
        encoder: PromptEncoder = prompts.build(config.prompt, context)
    return encoder.to(backbone.device)


def tuned_backbone(p: Prepared) -> Backbone:
    """A copy of the backbone for a run that trains it; new weights have values from the `init` stream."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(p.config.seeds.init, "init:backbone"))
        return p.backbone.trainable(tunings.build(p.config.backbone.tuning).open)


def build_head(p: Prepared) -> dict[str, torch.Tensor]:
    """First values of the head of a run's readout, from the `init` stream; none where it has no head."""
    generator = torch_stream(p.config.seeds.init, "init:head")
    return first_head(p.config.readout["kind"], p.backbone.hidden_size, len(p.task.verbalizer.classes), generator)
