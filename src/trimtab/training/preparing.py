"""From a config to a run that is ready to train: everything that can be wrong with its input is checked here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from trimtab import initializers
from trimtab.backbones import Backbone, Family, load_backbone
from trimtab.backbones.checkpointing import check_recomputing
from trimtab.backbones.compiling import check_compiled, compile_layers
from trimtab.backbones.substitutes import hiding_token
from trimtab.chat import read_template
from trimtab.config import BackboneConfig, RunConfig, check_groups, has_head
from trimtab.errors import ConfigError
from trimtab.grading import Grading
from trimtab.prompts import PromptEncoder
from trimtab.readouts import first_head
from trimtab.readouts.by_task import check_one_pass, of_task
from trimtab.registry import prompts, readouts, regularizers, tasks, tunings
from trimtab.rendering import Rendering
from trimtab.seeding import torch_seed, torch_stream
from trimtab.storage import SCHEMA_VERSION
from trimtab.stored import HELD
from trimtab.tasks import SPLITS, Task
from trimtab.tasks.reading import Places
from trimtab.templates import Template
from trimtab.text_encoder import TextEncoder
from trimtab.training.encoders import build_encoder
from trimtab.training.objective import check_regularizers
from trimtab.training.rendered import Rerendered
from trimtab.training.settling import graders_of, naming, settled
from trimtab.types import Example, Row


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to train: everything that can be wrong with its input has been checked.

    Attributes:
        config: resolved further: concrete readout and dtype.
        asked: how the examples of its one task are rendered; None where it has several.
        rows: rendered examples by split; many training rows are rendered when they are read, see `Rerendered`.
        parts: of several tasks each alone, in their order.
    """

    config: RunConfig
    backbone: Backbone
    task: Task
    asked: Rendering | None
    rows: Mapping[str, Sequence[Row]]
    parts: tuple[Prepared, ...] = ()

    @property
    def each(self) -> tuple[Prepared, ...]:
        """The tasks of the run, each alone: itself where there is one."""
        return self.parts or (self,)

    @property
    def rendering(self) -> Rendering:
        """How its one task is asked."""
        assert self.asked is not None, "a run on several tasks has a rendering for each, see `each`"
        return self.asked

    @property
    def grader(self) -> Grading:
        """How answers are scored."""
        if not self.parts:
            return self.rendering.grader
        return graders_of([part.config for part in self.parts], self.task)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What the backbone makes of the data, where a user should know it, in sentences."""
        if self.parts:
            return tuple(f"{part.task.name}: {note}" for part in self.parts for note in part.notes)
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
        templates = [part.rendering.template for part in self.each]
        parts += [template.source for template in templates if template.is_verbatim]
        name = "".join(c if c.isalnum() or c in "-_." else "_" for c in self.task.name)
        return f"{name}-{self.config.prompt['kind']}-{self.config.digest(*parts)}"


def open_backbone(config: BackboneConfig, device: str = "auto") -> Backbone:
    """Load the backbone of a config's section."""
    others = {"model", "dropout", "tuning", "compile"}
    backbone = load_backbone(config.model, device=device, **config.model_dump(exclude=others))
    if config.compile:
        compile_layers(backbone.model)
    return backbone


def prepare(config: RunConfig, backbone: Backbone, places: Places | None = None) -> Prepared:
    """Load and render the task for a backbone.

    Raises:
        DataError, TemplateError, ConfigError: see the stages; nothing has been written.
    """
    return Preparer(backbone, places).prepare(config)


def _check_embedding(config: BackboneConfig, backbone: Backbone) -> None:
    """Refuse a backbone that was opened for another way of embedding than the config's."""
    if config.embed_twice != backbone.embed_twice:
        raise ConfigError(
            f"the config says {str(config.embed_twice).lower()}, and {backbone.name!r} was opened with the opposite.",
            where="backbone.embed_twice",
            fix=f"Open it with load_backbone(..., embed_twice={config.embed_twice}).",
        )


class Preparer:
    """Prepares many runs on one backbone; what they share is loaded and rendered once.

    Args:
        places: where paths start.
    """

    def __init__(self, backbone: Backbone, places: Places | None = None) -> None:
        self.backbone, self.places = backbone, places or Places()
        self._tasks: dict[str, Task] = {}
        self._rows: dict[str, dict[str, Sequence[Row]]] = {}

    def prepare(self, config: RunConfig) -> Prepared:
        """As the function `prepare`, which see."""
        backbone = self.backbone
        _check_embedding(config.backbone, backbone)
        dtype = str(backbone.dtype).removeprefix("torch.")
        tokens = config.training.tokens_per_pass(backbone.device.type)
        known = {
            "backbone": config.backbone.model_copy(update={"dtype": dtype}),
            "training": config.training.model_copy(update={"max_tokens": tokens}),
        }
        config = config.model_copy(update=known)
        task = self._task(config)
        config, asked = ask(config, task, backbone.family, backbone.encoder, backbone.max_positions)
        parts = [Prepared(its.config, backbone, its.task, its.rendering, self._rendered(its)) for its in asked]
        if config.backbone.compile:
            check_compiled(recomputes=config.training.recompute_layers, tunes=config.training.tunes_backbone)
        if config.training.recompute_layers:
            check_recomputing(backbone.model)
        prepared = self._joined(config, task, parts) if task.parts else parts[0]
        check_regularizers(
            [regularizers.build(spec) for spec in config.regularizers],
            [its.config.readout["kind"] for its in asked],
            prepared.rows["train"],
            hiding_token(backbone.encoder) is not None,
        )
        encoder_of(prepared)  # refuses an initializer that does not fit
        return prepared

    def _rendered(self, its: Asked) -> dict[str, Sequence[Row]]:
        """The rows of a task by split. Those of dev are scored again and again, and held."""
        facts = [its.config.task, its.task.fingerprint, its.config.readout, slots_of(its.config)]
        told = json.dumps([*facts, its.positions], sort_keys=True)
        if told not in self._rows:

            def render(example: Example) -> list[Row]:
                return its.rendering.rows(example, self.backbone.encoder)

            self._rows[told] = {
                split: Rerendered(examples, render)
                if len(examples) > HELD and split != "dev"
                else [row for e in examples for row in render(e)]
                for split, examples in its.task.splits.items()
            }
        return self._rows[told]

    def _joined(self, config: RunConfig, task: Task, parts: Sequence[Prepared]) -> Prepared:
        """A run on several tasks."""
        told = json.dumps([config.task, *(id(part.rows) for part in parts)], sort_keys=True)
        if told not in self._rows:
            rows = {s: [(row, k) for k, part in enumerate(parts) for row in part.rows[s]] for s in SPLITS}
            self._rows[told] = {
                "train": [of_task(row, k) for row, k in rows.pop("train")],
                **{s: [replace(row, readout=k) for row, k in its] for s, its in rows.items()},
            }
        return Prepared(config, self.backbone, task, None, self._rows[told], tuple(parts))

    def _task(self, config: RunConfig) -> Task:
        told = json.dumps([config.task, config.seeds.subset], sort_keys=True)
        if told not in self._tasks:
            self._tasks[told] = tasks.build(config.task).load(config.seeds.subset, self.places)
        return self._tasks[told]


@dataclass(frozen=True)
class Asked:
    """A task of a run as it is asked, before its examples are rendered.

    Attributes:
        config: of a run on this task alone.
        positions: that the text has.
    """

    config: RunConfig
    task: Task
    rendering: Rendering
    positions: int


def ask(
    config: RunConfig, task: Task, family: Family, encoder: TextEncoder, positions: int
) -> tuple[RunConfig, list[Asked]]:
    """The config made concrete, and how each of its tasks is asked.

    Args:
        positions: of the backbone.

    Raises:
        TemplateError, ConfigError: see `settled`, `check_components`, `render_task` and `check_one_pass`.
    """
    config, alone = settled(config, task, family.readouts)
    check_components(config, [has_head(own.readout) for own in alone])
    left = positions - shift_of(config, family, positions)
    asked = []
    for own, part in zip(alone, task.each, strict=True):
        with naming(part.name) if task.parts else nullcontext():
            asked.append(Asked(own, part, render_task(part, slots_of(config), encoder, left, own.readout), left))
    plans = {its.task.name: its.rendering.plan(encoder) for its in asked}
    check_one_pass(plans, [its.config.readout["kind"] for its in asked])
    return config, asked


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


def check_components(config: RunConfig, heads: Sequence[bool | None] = ()) -> None:
    """Let constructors refuse combinations of options that a signature cannot express, and check what is trained.

    Args:
        heads: whether the readout of each task has a head, where that is settled.
    """
    check_groups(config, heads)
    encoder: Any = prompts.get(config.prompt["kind"])
    has_prompt = encoder.has_rows(config.prompt) or encoder.has_network(config.prompt)
    for i, spec in enumerate(config.regularizers):
        if regularizers.build(spec).needs.prompt and not has_prompt:
            raise ConfigError(
                f"there is no prompt that {spec['kind']!r} could perturb.",
                where=f"regularizers.{i}",
                fix="Perturb the text instead, or train a prompt.",
            )


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
    asked = (task.answer, task.candidate, task.metrics, task.headline, task.allowed)
    own = (*asked, task.rewrite, task.nothing_matches)
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


def encoder_of(p: Prepared) -> PromptEncoder:
    """The prompt encoder of a run."""
    first, *others = (part.rendering for part in p.each)
    return build_encoder(p.config, first, p.backbone, others)


def tuned_backbone(p: Prepared) -> Backbone:
    """A copy of the backbone for a run that trains it; new weights have values from the `init` stream."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(p.config.seeds.init, "init:backbone"))
        return p.backbone.trainable(tunings.build(p.config.backbone.tuning).open)


def build_head(p: Prepared) -> dict[str, torch.Tensor]:
    """First values of the head of a run's readout, from the `init` stream; none where it has no head. Of several tasks
    each head under the number of its task."""
    if not p.parts:
        return _head(p, torch_stream(p.config.seeds.init, "init:head"))
    streams = [torch_stream(p.config.seeds.init, "init:head", k) for k in range(len(p.parts))]
    heads = [_head(part, stream) for part, stream in zip(p.parts, streams, strict=True)]
    return {f"{k}.{name}": value for k, head in enumerate(heads) for name, value in head.items()}


def _head(p: Prepared, generator: torch.Generator) -> dict[str, torch.Tensor]:
    return first_head(p.config.readout["kind"], p.backbone.hidden_size, len(p.task.verbalizer.classes), generator)
