"""From configs to run folders: prepare, train a pack, score, write."""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trimtab import initializers
from trimtab.backbones import Backbone, Family, load_backbone
from trimtab.backbones.checkpointing import check_recomputing
from trimtab.backbones.loading import TextSide
from trimtab.chat import read_template
from trimtab.config import RunConfig, check_groups
from trimtab.errors import ConfigError, TemplateError, TrimtabError
from trimtab.initializers import PromptContext
from trimtab.model import PromptedModel
from trimtab.predictor import MAX_TOKENS, Predictor, Rendering, table_from
from trimtab.prompts import PromptEncoder
from trimtab.readouts import chosen, first_head
from trimtab.registry import prompts, readouts, regularizers, tasks
from trimtab.seeding import torch_seed, torch_stream
from trimtab.storage import SCHEMA_VERSION, Bundle, RunFolder, write_bundle, write_json, write_tensors
from trimtab.tasks import Task
from trimtab.tasks.reading import Places
from trimtab.text_encoder import TextEncoder
from trimtab.training.loop import Loop, LoopState, Member, Report
from trimtab.training.packing import EncoderPack
from trimtab.training.parallel import ALONE, Processes, current_size
from trimtab.training.resume import (
    Checkpoint,
    read_checkpoint,
    remove_checkpoint,
    sole_trainer,
    write_checkpoint,
)
from trimtab.training.tuning import PREFIX, TunedPack
from trimtab.types import PromptTable, Row, Site, table_of


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
    def initializer_fingerprint(self) -> str | None:
        """Of what the initializer reads from disk, such as the prompt of another run."""
        spec = self.config.prompt.get("initializer")
        return None if spec is None else initializers.fingerprint(spec)

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


def open_backbone(config: RunConfig, device: str = "auto") -> Backbone:
    """Load the backbone of a config."""
    options = config.backbone.model_dump(exclude={"model", "dropout"})
    return load_backbone(config.backbone.model, device=device, **options)


def prepare(config: RunConfig, backbone: Backbone, places: Places | None = None) -> Prepared:
    """Load and render the task for a backbone.

    Raises:
        DataError, TemplateError, ConfigError: see the stages; nothing has been written.
    """
    dtype = str(backbone.dtype).removeprefix("torch.")
    config = config.model_copy(update={"backbone": config.backbone.model_copy(update={"dtype": dtype})})
    task: Task = tasks.build(config.task).load(config.seeds.subset, places or Places())
    config = concrete(config, task, backbone.family.readouts)
    positions = backbone.max_positions - shift_of(config, backbone.family, backbone.max_positions)
    rendering = render_task(task, slots_of(config), backbone.encoder, positions, config.readout)
    if config.training.recompute_layers:
        check_recomputing(backbone.model)
    rows = {s: [row for e in task.splits[s] for row in rendering.rows(e, backbone.encoder)] for s in task.splits}
    check_components(config)
    build_encoder(config, rendering, backbone)  # refuses an initializer that does not fit
    return Prepared(config, backbone, task, rendering, rows)


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
    for spec in config.regularizers:
        regularizers.build(spec)


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
    select, known = config.training.select, readouts.get(spec["kind"]).metrics  # type: ignore[attr-defined]
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
    template = read_template(task.template, length, task.truncate, encoder)
    template.check_fields(task.columns)
    template.check_decoder(encoder)
    if task.max_length is not None and task.max_length > positions:
        raise ConfigError(f"the backbone has {positions} positions, got {task.max_length}.", where="task.max_length")
    spec = readouts.resolve(readout, "readout")
    room = task.max_length or min(positions, task.most or positions)
    rendering = Rendering(template, task.verbalizer, room, spec, task.replace)
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


def prompt_context(rendering: Rendering, backbone: Backbone, seed: int) -> PromptContext:
    """What the encoders of a run may know."""
    encoder = backbone.encoder
    return PromptContext(
        embeddings=backbone.embedding_rows,
        embedding_rms=backbone.embedding_rms,
        words=backbone.ordinary_words,
        label_ids=_label_ids(rendering, encoder),
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


def _label_ids(rendering: Rendering, encoder: TextEncoder) -> list[int]:
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


def build_head(p: Prepared) -> dict[str, torch.Tensor]:
    """First values of the head of a run's readout, from the `init` stream; none where it has no head."""
    generator = torch_stream(p.config.seeds.init, "init:head")
    return first_head(p.config.readout["kind"], p.backbone.hidden_size, len(p.task.verbalizer.classes), generator)


@dataclass(frozen=True)
class Trained:
    """The outcome of one member of a pack. `backbone` is its own if that was trained, else the shared one."""

    prepared: Prepared
    member: Member
    backbone: Backbone
    tensors: dict[str, np.ndarray]
    parameters: int
    seconds: float
    seconds_per_step: float
    layers: Mapping[str, tuple[int, ...]]
    shift: int

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
    _check_pack(pack, processes)
    first = pack[0]
    is_tuned = first.config.training.tunes_backbone
    backbone = first.backbone.trainable() if is_tuned else first.backbone
    readout = readouts.build(first.config.readout, backbone, [first.rendering.plan(backbone.encoder)])
    encoders = [build_encoder(p.config, p.rendering, p.backbone) for p in pack]
    members = [
        Member(p.config.seeds, p.config.training, p.rows["train"], p.rows["dev"],
               [regularizers.build(spec) for spec in p.config.regularizers], p.task.verbalizer.classes)
        for p in pack
    ]  # fmt: skip
    heads = [build_head(p) for p in pack]
    stacked = EncoderPack(encoders, [p.config.seeds.noise for p in pack], heads).to(backbone.device)
    model = PromptedModel(backbone, readout)
    begun = time.perf_counter()
    ids = tuple(p.id for p in pack)

    def save(state: LoopState) -> None:
        if checkpoint_folder is not None and processes.is_main:
            with suppress(TrimtabError):  # a full disk must not end a training that can still be rescued
                write_checkpoint(checkpoint_folder, Checkpoint(ids, state))

    trained = TunedPack(stacked, backbone) if is_tuned else stacked
    report = report if processes.is_main else None
    loop = Loop(model, trained, members, report, first.config.backbone.dropout, save, processes)
    found = None
    if checkpoint_folder is not None:
        found = processes.on_main(lambda: read_checkpoint(checkpoint_folder))
    if found is not None and found.runs == ids:
        loop.load(found.state)
    loop.run()
    seconds = time.perf_counter() - begun
    count = sum(p[0].numel() for p in trained.stacked.values())
    return [
        Trained(
            p,
            m,
            backbone,
            {name: value.numpy() for name, value in stacked.materialize(r).items()},
            count,
            seconds / len(pack),
            loop.seconds_per_step / len(pack),
            encoders[r].layers,
            encoders[r].text_shift,
        )
        for r, (p, m) in enumerate(zip(pack, members, strict=True))
    ]


def _check_pack(pack: Sequence[Prepared], processes: Processes = ALONE) -> None:
    def shared(p: Prepared) -> Any:
        raw = p.config.as_dict()
        raw.pop("seeds")
        raw["prompt"].pop("initializer", None)
        for key in ("learning_rate", "learning_rates", "weight_decay"):
            raw["training"].pop(key)
        for spec in raw["regularizers"]:
            spec.pop("weight", None)
        return raw

    if any(shared(p) != shared(pack[0]) or p.backbone is not pack[0].backbone for p in pack):
        raise ConfigError(
            "runs of one pack may differ only in seeds, learning rates, weight decay, initializer and regularizer "
            "weights.",
            where="pack",
        )
    if len(pack) > 1 and pack[0].config.backbone.dropout:
        raise ConfigError("backbone dropout needs a pack of one run.", where="backbone.dropout")
    if len(pack) > 1 and any(p.config.training.tunes_backbone for p in pack):
        raise ConfigError(
            "a trained backbone belongs to one run, so it needs a pack of one.",
            where="training.learning_rates.backbone",
            fix="Train the runs one after the other.",
        )
    if processes.size > 1 and pack[0].config.backbone.dropout:
        raise ConfigError(
            f"backbone dropout needs a single process, got {processes.size}: its masks belong to a whole batch and "
            "would depend on how it is divided.",
            where="backbone.dropout",
            fix="Start without torchrun, or leave the dropout off.",
        )
    if len(set(processes.gather(tuple(p.id for p in pack)))) > 1:
        raise ConfigError(
            "the processes have prepared different runs.",
            where="pack",
            fix="Give all of them the same recipe, data, model and library versions.",
        )


def run_pack(
    pack: Sequence[Prepared],
    runs_dir: Path,
    *,
    again: bool = False,
    report: Report | None = None,
    processes: Processes = ALONE,
) -> list[dict[str, Any]]:
    """Train what is not finished yet, write run folders, return the records (run.json) in the order given.

    A run whose loss was not finite has the status `diverged`: it keeps its last good state or, where there was none,
    has no metrics and no bundle.

    Several processes that are given the same runs train them together. Process 0 does all reading and writing of run
    folders; what it refuses, all refuse.

    Raises:
        BackboneError: the backbone alone gives scores that are not numbers; nothing was written.
        TrimtabError: a run folder could not be written; the trained prompt was saved elsewhere, the message says where.
    """
    _check_pack(pack, processes)
    folders = [RunFolder(runs_dir / p.id) for p in pack]
    todo = processes.on_main(lambda: [i for i, f in enumerate(folders) if again or f.status != "done"])
    if todo:
        with ExitStack() as held:
            bare, place, ids = processes.on_main(lambda: _begin(pack, folders, todo, again, held))
            trained_together = [[p.id for p in pack].index(run) for run in ids]
            results = train_pack([pack[i] for i in trained_together], report, place, processes)
            trained = [(folders[i], t) for i, t in zip(trained_together, results, strict=True) if i in todo]
            processes.on_main(lambda: _write_all(trained, bare, place))
    return processes.on_main(lambda: [{"run": str(f.path), **f.record} for f in folders])


def _begin(
    pack: Sequence[Prepared], folders: Sequence[RunFolder], todo: Sequence[int], again: bool, held: ExitStack
) -> tuple[float | None, Path, tuple[str, ...]]:
    """Lock and open the folders of `todo`. Returns the bare score, the folder of the checkpoint, and the ids of the
    runs to train together: those of `todo`, or of the pack that was killed, if all its runs are in `pack`."""
    bare = _bare_score(pack[todo[0]])
    held.enter_context(sole_trainer([folders[i].path for i in todo]))
    if again:
        remove_checkpoint(folders[0].path)
    for i in todo:
        size = 4 * pack[i].backbone.parameter_count if pack[i].config.training.tunes_backbone else 0
        folders[i].begin(pack[i].config.as_dict(), _opening(pack[i]), size)
    ids = [p.id for p in pack]
    for folder in (f.path for f in folders):
        found = read_checkpoint(folder)
        if found is not None and {ids[i] for i in todo} <= set(found.runs) <= set(ids):
            return bare, folder, found.runs
    return bare, folders[todo[0]].path, tuple(ids[i] for i in todo)


def _write_all(results: Sequence[tuple[RunFolder, Trained]], bare: float | None, place: Path) -> None:
    """Write run folders; a prompt whose folder cannot be written is saved elsewhere."""
    failed: list[TrimtabError] = []
    for folder, trained in results:
        try:
            _write(folder, trained, bare)
        except TrimtabError as error:
            failed.append(_rescue(trained, error))
    if failed:
        raise failed[0]
    remove_checkpoint(place)


def _opening(p: Prepared) -> dict[str, Any]:
    b = p.backbone
    fingerprints = {"data": p.task.fingerprint, "backbone": b.fingerprint, "tokenizer": b.tokenizer_fingerprint}
    if p.initializer_fingerprint:
        fingerprints["initializer"] = p.initializer_fingerprint
    return {
        "id": p.id,
        "task": p.task.name,
        "prompt": p.config.prompt["kind"],
        "backbone": b.name,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "working_directory": str(Path.cwd()),
        "fingerprints": fingerprints,
        "environment": environment(b),
        "rows": {s: len(p.task.splits[s]) for s in p.rows},
        "truncated": {s: sum(any(v.dropped for v in r.variants) for r in rows) for s, rows in p.rows.items()},
        **({"notes": list(p.task.notes)} if p.task.notes else {}),
    }


def environment(backbone: Backbone) -> dict[str, Any]:
    """Versions and hardware, as recorded with every run."""
    on_gpu = backbone.device.type == "cuda"
    return {
        "trimtab": version("trimtab"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "device": torch.cuda.get_device_name(backbone.device) if on_gpu else f"cpu ({platform.machine()})",
        "threads": torch.get_num_threads(),
        "processes": current_size(),
        "dtype": str(backbone.dtype).removeprefix("torch."),
    }


def _write(folder: RunFolder, trained: Trained, bare: float | None) -> None:
    """Bundle first, then history and predictions, run.json last. `bare`: the score without a prompt.

    A run that was not finite from the start has no good state, so it leaves its record only.
    """
    p, member = trained.prepared, trained.member
    if not member.best:
        folder.clear()
        folder.finish(_record(folder, trained, {}, bare), member.status)
        return
    bundle = make_bundle(trained)
    written = write_bundle(folder.path, bundle)
    if p.config.training.keep_encoder:
        kept = {n: v for n, v in member.best.items() if not n.startswith(PREFIX)}
        write_tensors(folder.path / "encoder.safetensors", {k: v.float().cpu().numpy() for k, v in kept.items()})
    metrics: dict[str, Any] = {}
    table, spec = table_from(bundle, p.backbone.device), bundle.metadata["readout"]
    predictor = _predictor(p, trained.backbone, table, spec)
    for split in ("dev", "test"):
        evaluation = predictor.evaluate(p.task.splits[split])
        metrics[split] = dict(evaluation.metrics)
        folder.write_predictions(split, [x.as_json() for x in evaluation.predictions])
    metrics["dev"]["loss"] = member.best_dev["loss"]
    folder.write_history(member.history)
    write_json(folder.path / "bundle.json", {**written, "metrics": metrics})
    folder.finish(_record(folder, trained, metrics, bare), member.status)


def _record(folder: RunFolder, trained: Trained, metrics: dict[str, Any], bare: float | None) -> dict[str, Any]:
    p, member = trained.prepared, trained.member
    tuned = trained.backbone.parameter_count if p.config.training.tunes_backbone else 0
    parameters = {"trained": trained.parameters, "kept": sum(v.size for v in trained.tensors.values()) + tuned}
    return {
        **_opening(p),
        "started": folder.record["started"],
        "parameters": parameters | ({"backbone": tuned} if tuned else {}),
        "metrics": metrics,
        "metric": _headline(p),
        "baselines": {"majority": _constant_baseline(p), "no_prompt": bare},
        "best_step": member.best_step if member.best else None,
        "steps": member.step,
        "seconds": round(trained.seconds, 3),
        "seconds_per_step": round(trained.seconds_per_step, 6),
    }


def _rescue(trained: Trained, error: TrimtabError) -> TrimtabError:
    """The run folder could not be written (a full disk, say): keep the trained prompt among the temporary files."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=f"{trained.prepared.id}-"))
        write_bundle(folder, make_bundle(trained))
    except (TrimtabError, OSError):
        return error
    return TrimtabError(error.what, where=error.where, fix=f"The trained prompt is safe in the bundle {folder}.")


def make_bundle(trained: Trained) -> Bundle:
    """The prompt of a trained run with all that is needed to use it elsewhere."""
    p = trained.prepared
    b, template = p.backbone, p.rendering.template
    words = {c: list(w) for c, w in zip(p.task.verbalizer.classes, p.task.verbalizer.words, strict=True)}
    metadata = {
        "prompt": {
            "kind": p.config.prompt["kind"],
            "shape": list(trained.tensors["inputs"].shape),
            "tensor": "inputs",
            "tensors": {n: list(v.shape) for n, v in trained.tensors.items()},
            "layers": {site: list(its) for site, its in trained.layers.items()},
            "shift": trained.shift,
        },
        "backbone": {
            "model": b.name,
            "revision": b.revision,
            "model_type": b.model.config.model_type,
            "fingerprint": b.fingerprint,
            "embedding_size": b.embedding_size,
            "embedding_rms": b.embedding_rms,
            "embedding_convention": "vectors are passed as inputs_embeds, before position and segment embeddings",
            "options": p.config.backbone.model_dump(exclude={"model"}),
        },
        "tokenizer": {"fingerprint": b.tokenizer_fingerprint, "add_special_tokens": not template.is_verbatim},
        "task": {
            "name": p.task.name,
            "template": p.task.template,
            "rendered": template.source if template.is_verbatim else None,
            "truncate": list(p.task.truncate),
            "max_length": p.rendering.max_length,
            "label_words": words,
            "answer": p.task.answer,
            "replace": {column: dict(texts) for column, texts in p.task.replace.items()},
        },
        "readout": {**p.config.readout, **_chosen(trained)},
        "provenance": {
            "run": p.id,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "seeds": p.config.seeds.model_dump(),
            "data_fingerprint": p.task.fingerprint,
            "environment": environment(b),
        },
    }
    own = trained.backbone.model.named_parameters() if p.config.training.tunes_backbone else ()
    tuned = {n: v.detach().cpu().numpy() for n, v in own}
    tensors = {n: np.ascontiguousarray(v, dtype=np.float32) for n, v in trained.tensors.items()}
    return Bundle(metadata, tensors, tuned)


def _chosen(trained: Trained) -> dict[str, Any]:
    """Options of the readout that are chosen on dev with the trained prompt; none for most readouts."""
    p = trained.prepared
    if not hasattr(readouts.get(p.config.readout["kind"]), "chosen"):
        return {}
    parts = {n: torch.from_numpy(v)[None].to(p.backbone.device) for n, v in trained.tensors.items()}
    table = table_of(parts, trained.layers, trained.shift)
    model = _predictor(p, trained.backbone, table).model
    rows = [replace(row, prompt=0) for row in p.rows["dev"]]
    return chosen(model.readout, model.score_rows(rows, table, MAX_TOKENS), rows)


def _predictor(
    p: Prepared, backbone: Backbone, table: PromptTable | None, spec: Mapping[str, Any] | None = None
) -> Predictor:
    rendering = p.rendering
    if table is None:
        rendering = replace(rendering, template=rendering.template.without_prompt())
    readout = readouts.build(spec or p.config.readout, backbone, [rendering.plan(backbone.encoder)])
    return Predictor(PromptedModel(backbone, readout), rendering, table, {})


def _headline(p: Prepared) -> str:
    """The metric that stands for a run: accuracy where there are classes, else the one that selects the checkpoint."""
    select, readout = p.config.training.select, readouts.get(p.config.readout["kind"])
    if p.task.answer in ("class", "choice"):
        return "accuracy"
    return str(readout.metrics[0]) if select == "loss" else select  # type: ignore[attr-defined]


def _constant_baseline(p: Prepared) -> float | None:
    """Test score of the most frequent answer, given to every row."""
    readout = readouts.build(p.config.readout, p.backbone, [p.rendering.plan(p.backbone.encoder)])
    found: float | None = readout.constant(p.rows["test"], _headline(p))
    return found


def _bare_score(p: Prepared) -> float | None:
    """Test score of the bare model with the same template and label words; the same for all runs of a pack. None where
    the readout has a head, without which it reads nothing."""
    if readouts.get(p.config.readout["kind"]).trains:  # type: ignore[attr-defined]
        return None
    return float(_predictor(p, p.backbone, None).evaluate(p.task.splits["test"]).metrics[_headline(p)])
