"""Training a pack: runs of one backbone, trained together, each as it would be alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trimtab.backbones import Backbone
from trimtab.backbones.substitutes import substitutes
from trimtab.errors import ConfigError, TrimtabError
from trimtab.model import PromptedModel
from trimtab.perturbations import NO_SUBSTITUTES
from trimtab.registry import readouts, regularizers
from trimtab.training.encoder_pack import EncoderPack
from trimtab.training.encoders import label_ids
from trimtab.training.loop import Loop, LoopState, Member, Report
from trimtab.training.memory import peak_memory
from trimtab.training.mixing import mixture
from trimtab.training.parallel import ALONE, Processes
from trimtab.training.preparing import Prepared, build_head, encoder_of, tuned_backbone
from trimtab.training.resume import Checkpoint, read_checkpoint, write_checkpoint
from trimtab.training.tuning import TunedPack


@dataclass(frozen=True)
class Trained:
    """The outcome of one member of a pack. `backbone` is its own if that was trained, else the shared one; `constants`
    are what its encoder has beside parameters."""

    prepared: Prepared
    member: Member
    backbone: Backbone
    tensors: dict[str, np.ndarray]
    parameters: int
    seconds: float
    seconds_per_step: float
    layers: Mapping[str, tuple[int, ...]]
    shift: int
    constants: Mapping[str, np.ndarray]

    @property
    def prompt(self) -> np.ndarray:
        """The input prompt [P,E]."""
        return self.tensors["inputs"]


def train_pack(
    pack: Sequence[Prepared],
    report: Report | None = None,
    checkpoint_folder: Path | None = None,
    processes: Processes = ALONE,
) -> list[Trained]:
    """Train runs together that differ only in seeds, rates, weight decay, initializer or regularizer weights.

    Args:
        checkpoint_folder: where the state of the pack is kept after every evaluation; one of the same runs that lies
            there is continued.
        processes: that train the pack together; process 0 reports and keeps the state.

    Raises:
        ConfigError: they differ in something else; a pack of several has backbone dropout or trains the backbone; or
            several processes have backbone dropout.
    """
    ids = tuple(p.id for p in pack)

    def save(state: LoopState) -> None:
        if checkpoint_folder is not None and processes.is_main:
            with suppress(TrimtabError):  # a full disk must not end a training that can still be rescued
                write_checkpoint(checkpoint_folder, Checkpoint(ids, state))

    loop, stacked = assembled(pack, report, save, processes)
    found, begun = None, time.perf_counter()
    if checkpoint_folder is not None:
        found = processes.on_main(lambda: read_checkpoint(checkpoint_folder))
    if found is not None and found.runs == ids:
        loop.load(found.state)
    loop.run()
    return outcome(pack, loop, stacked, time.perf_counter() - begun)


def outcome(pack: Sequence[Prepared], loop: Loop, stacked: EncoderPack, seconds: float = 0.0) -> list[Trained]:
    """What a loop has made of its members by now.

    Args:
        stacked: the encoders in it.
        seconds: that it took.
    """
    kept = stacked.encoder[0].state_dict().keys() & stacked.constants.keys()
    count = sum(p[0].numel() for p in loop.pack.stacked.values())
    return [
        Trained(
            p,
            m,
            loop.model.backbone,
            {name: value.numpy() for name, value in stacked.materialize(r).items()},
            count,
            seconds / len(pack),
            loop.seconds_per_step / len(pack),
            stacked.layers,
            stacked.text_shift,
            {name: stacked.constants[name][r].cpu().numpy() for name in kept},
        )
        for r, (p, m) in enumerate(zip(pack, loop.members, strict=True))
    ]


def assembled(
    pack: Sequence[Prepared],
    report: Report | None = None,
    save: Callable[[LoopState], None] | None = None,
    processes: Processes = ALONE,
) -> tuple[Loop, EncoderPack]:
    """The loop of a pack at its first step, and the encoders in it."""
    check_pack(pack, processes)
    first = pack[0]
    is_tuned = first.config.training.tunes_backbone
    backbone = tuned_backbone(first) if is_tuned else first.backbone
    plans = [part.rendering.plan(backbone.encoder) for part in first.each]
    readout = readouts.build(first.config.readout, backbone, plans)
    encoders = [encoder_of(p) for p in pack]
    members = [
        Member(p.config.seeds, p.config.training, p.rows["train"], p.rows["dev"],
               [regularizers.build(spec) for spec in p.config.regularizers], p.grader, not encoders[0].is_fixed,
               mixture([len(part.rows["train"]) for part in p.each], p.task.shares))
        for p in pack
    ]  # fmt: skip
    heads = [build_head(p) for p in pack]
    stacked = EncoderPack(encoders, [p.config.seeds.noise for p in pack], heads).to(backbone.device)
    trained = TunedPack(stacked, backbone) if is_tuned else stacked
    report = report if processes.is_main else None
    model = PromptedModel(backbone, readout)
    found = NO_SUBSTITUTES
    if first.config.regularizers:
        words = [i for part in first.each for i in label_ids(part.rendering, backbone.encoder)]
        found = substitutes(backbone, words)
    dropout = first.config.backbone.dropout
    return Loop(model, trained, members, report, dropout, save, processes, found), stacked


@dataclass(frozen=True)
class Rehearsal:
    """What a pack will need.

    Attributes:
        bytes: at the peak of a step and an evaluation, above what was there before: of a GPU's memory, or of the
            process's. None where the system does not tell.
        seconds: for all its steps and evaluations, as a few of them took. A guess.
    """

    bytes: int | None
    seconds: float


def rehearse(pack: Sequence[Prepared]) -> Rehearsal:
    """Take a step on the longest rows of every member, one on ordinary rows, and score some of dev; keep nothing."""
    with peak_memory(pack[0].backbone.device) as peak:
        loop, _ = assembled(pack)
        per_step, per_row = loop.rehearse()
    steps = max(m.steps for m in loop.members)
    rows = sum(len(m.evaluation_steps) * len(m.dev) for m in loop.members)
    scored = sum(len(p.rows["dev"]) + len(p.rows["test"]) for p in pack) + len(pack[0].rows["test"])
    return Rehearsal(peak(), steps * per_step + (rows + scored) * per_row)


def check_pack(pack: Sequence[Prepared], processes: Processes = ALONE) -> None:
    """Refuse runs that cannot train together.

    Raises:
        ConfigError: see `train_pack`.
    """
    if len(pack) > 1 and pack[0].config.backbone.dropout:
        raise ConfigError("backbone dropout needs a pack of one run.", where="backbone.dropout")
    if len(pack) > 1 and any(p.config.training.tunes_backbone for p in pack):
        raise ConfigError(
            "a trained backbone belongs to one run, so it needs a pack of one.",
            where="training.learning_rates.backbone",
            fix="Train the runs one after the other.",
        )
    if max(len(pack), processes.size) > 1 and pack[0].config.mixes_examples:
        raise ConfigError(
            "a hinge of whole batches needs a run of its own, in one process.",
            where="readout.batch_hinge",
            fix="Train the runs one after the other, without torchrun; or leave it off.",
        )
    key = pack[0].config.pack_key
    if any(p.config.pack_key != key or p.backbone is not pack[0].backbone for p in pack):
        raise ConfigError(
            "runs of one pack may differ only in seeds, learning rates, weight decay, initializer and regularizer "
            "weights.",
            where="pack",
        )
    if processes.size > 1 and pack[0].config.backbone.dropout:
        raise ConfigError(
            f"backbone dropout needs a single process, got {processes.size}: its masks belong to a whole batch and "
            "would depend on how it is divided.",
            where="backbone.dropout",
            fix="Start without torchrun, or leave the dropout off.",
        )
    several = pack[0].config.regularizers if processes.size > 1 else ()
    for i, needs in enumerate(regularizers.build(spec).needs for spec in several):
        if needs.one_process:
            raise ConfigError(
                f"this regularizer keeps what it found to one process, got {processes.size}.",
                where=f"regularizers.{i}",
                fix="Start without torchrun.",
            )
    if len(set(processes.gather(tuple(p.id for p in pack)))) > 1:
        raise ConfigError(
            "the processes have prepared different runs.",
            where="pack",
            fix="Give all of them the same recipe, data, model and library versions.",
        )
