"""The verbs, as Python functions. The command line prints what these return."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from trimtab.backbones.loading import embedded_models, load_encoder
from trimtab.backbones.substitutes import hiding_token
from trimtab.config import Resolution, RunConfig, read_recipe, resolve
from trimtab.documents import read_yaml
from trimtab.errors import ConfigError, DataError, suggest
from trimtab.exporting import Source
from trimtab.exporting import export as write_export
from trimtab.exporting.from_peft import Task as ImportedTask
from trimtab.exporting.from_peft import import_peft
from trimtab.fetching import fetch
from trimtab.fetching.manifests import manifest_of, manifests
from trimtab.fetching.records import check as check_records
from trimtab.fetching.records import recorded, refuse_changes
from trimtab.grading import judged
from trimtab.landscape.measuring import measure_all
from trimtab.landscape.point import MAX_TOKENS
from trimtab.landscape.sharpness import Protocol
from trimtab.landscape.survey import check_views, open_subjects, sampled, survey
from trimtab.landscape.views import Settings
from trimtab.predictor import Rendering, load, load_tasks
from trimtab.registry import Registry, exports, families, prompts, readouts, regularizers, tasks, trackers, validated
from trimtab.storage import RunFolder, find_run, list_runs, read_bundle, write_bundle, write_text
from trimtab.studies.analysis.sharpness import runs_to_measure
from trimtab.studies.definition import name_of, read_study
from trimtab.studies.driver import Course, Driver, executor_of
from trimtab.studies.folder import StudyFolder
from trimtab.submission import check_task, file_name, submission
from trimtab.tasks import SPLITS, Task
from trimtab.tasks.forms import Reading
from trimtab.tasks.reading import Places, resolve_path
from trimtab.text_encoder import TextEncoder
from trimtab.trackers import Spec, check_trackers
from trimtab.training.loop import Report
from trimtab.training.objective import check_regularizers
from trimtab.training.parallel import joined
from trimtab.training.preparing import (
    Asked,
    Prepared,
    ask,
    check_components,
    count_parameters,
    notes_on,
    open_backbone,
    prepare,
)
from trimtab.training.runs import run_pack
from trimtab.types import Encoded, Evaluation, Example, Label, OfTask, Records, Row

if TYPE_CHECKING:
    from trimtab.drafting import Draft

Recipe = str | Path | Mapping[str, Any]
Overrides = Sequence[str] | Mapping[str, Any]
REGISTRIES: dict[str, Registry] = {
    "tasks": tasks,
    "prompts": prompts,
    "readouts": readouts,
    "regularizers": regularizers,
    "backbones": families,
    "trackers": trackers,
    "exports": exports,
}
LISTS = ("runs", *REGISTRIES, "recipes")


def run(
    recipe: Recipe,
    overrides: Overrides = (),
    *,
    runs_dir: str | Path = "runs",
    device: str = "auto",
    data_dir: str | Path | None = None,
    again: bool = False,
    track: Sequence[Spec] = (),
    report: Report | None = None,
) -> dict[str, Any]:
    """Train a soft prompt and score it.

    Everything that can be wrong with the input is checked before anything is written. A run that is finished already is
    not repeated: its record is returned with `"reused": True`.

    Processes started by torchrun or `accelerate launch` train the run together: the batch is divided among them,
    process 0 writes and reports, and all return the same record.

    Args:
        recipe: a file, or its content as a mapping.
        overrides: `"key=value"` texts or a mapping dotted key -> value.
        runs_dir: where run folders go.
        device: `auto`, `cpu` or `cuda`; of several processes each takes a GPU of its own.
        data_dir: where `data:` paths start.
        again: repeat a finished run.
        track: trackers beside metrics.jsonl: `"tensorboard"`, `"wandb: {project: mine}"`, `{"wandb": {...}}`; they
            change no result. One that fails on the way is left out, with a note.
        report: receives progress events, see `trimtab.training.runs.run_pack`.

    Returns:
        The content of run.json and `run`, the folder. `status` is `done`, or `diverged` when the loss was not finite;
        then the last good state is kept, and where there was none, `metrics` is empty and the folder holds no bundle.

    Raises:
        TrimtabError: something in the recipe, the data or the model must be changed.
    """
    specs, notes = check_trackers(track), list[str]()

    def told(event: Mapping[str, Any]) -> None:
        if event["event"] == "note":
            notes.append(event["text"])
        if report is not None:
            report(event)

    with joined() as processes:

        def ready() -> tuple[Resolution, Prepared]:
            found = _resolve(recipe, overrides)
            backbone = open_backbone(found.config.backbone, processes.take_device(device))
            return found, prepare(found.config, backbone, _places(data_dir))

        resolution, prepared = processes.together(ready)
        folder = RunFolder(Path(runs_dir) / prepared.id)
        finished = processes.on_main(lambda: folder.status == "done" and not again)
        record = run_pack([prepared], Path(runs_dir), again=again, report=told, track=specs, processes=processes)[0]
    extras: dict[str, Any] = {"reused": finished, "backbone": prepared.backbone.name}
    if notes:
        extras["notes"] = list(dict.fromkeys([*record.get("notes", ()), *notes]))
    return {**record, **extras} | ({"dropped_options": list(resolution.dropped)} if resolution.dropped else {})


def study(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    studies_dir: str | Path = "studies",
    name: str | None = None,
    on: str = "local",
    address: str | None = None,
    workers: int | None = None,
    device: str = "auto",
    data_dir: str | Path | None = None,
    extend: bool = False,
    retry: bool = False,
    results: str | Path | None = None,
    track: Sequence[Spec] = (),
    report: Report | None = None,
) -> dict[str, Any]:
    """Train every run of a study that has not ended yet, and write its report.

    A study that was killed goes on where it stopped: with the same packs, from their last checkpoints.

    Args:
        path: a study file, see `trimtab.studies.definition`.
        overrides: `"key=value"`, of the study (`seeds=3`) or of its recipe.
        studies_dir: where study folders go.
        name: of the folder; by default the file's, and of a `study.yaml` that of the folder it lies in.
        on: `local`, or `ray` for a cluster.
        address: of the cluster; none for one of this machine alone.
        workers: processes on this machine; by default one, or one per GPU.
        device: `auto`, `cpu` or `cuda`.
        data_dir: where `data:` paths start.
        extend: take the new plan where the folder holds another; its finished runs that the new one has too are kept.
        retry: train failed runs again.
        results: the `results.jsonl.gz` of a study of the same plan, from which this one goes on.
        track: as of `run`; the workers make the trackers, and services that have groups put the study's runs in one.
        report: receives progress events, see `trimtab.studies.driver.Driver`.

    Returns:
        The content of study.json and `folder`.

    Raises:
        TrimtabError: something in the study, its recipe, the data or the model must be changed, or the disk is full.
    """
    config, folder = read_study(Path(path), overrides), _study_folder(path, studies_dir, name)
    course = _course(device, data_dir, retry, check_trackers(track))
    events = report or (lambda event: None)
    with executor_of(on, course, events, address=address, workers=workers, limits=config.pack) as executor:
        driver = Driver(config, folder, executor, course, events)
        driver.run(extend=extend, results=None if results is None else Path(results))
    return _written(folder)


def plan(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    studies_dir: str | Path = "studies",
    name: str | None = None,
    on: str = "local",
    address: str | None = None,
    workers: int | None = None,
    device: str = "auto",
    data_dir: str | Path | None = None,
    report: Report | None = None,
) -> dict[str, Any]:
    """What a study would do: its runs, packs, memory and time. Nothing is written but to a scratch folder.

    Arguments, errors: as `study`. A few steps of every group of runs are taken to see what they need.

    Returns:
        `name`, `digest`, `lines`, `expected` runs by stage, and `groups`: for each its `cells`, `runs`, runs of a
        `pack`, `packs`, `bytes` of a pack and `seconds` in all. With a search, the groups are of one batch of trials.
    """
    config, folder = read_study(Path(path), overrides), _study_folder(path, studies_dir, name)
    course = _course(device, data_dir)
    events = report or (lambda event: None)
    with (
        TemporaryDirectory() as scratch,
        executor_of(on, course, events, address=address, workers=workers, limits=config.pack) as executor,
    ):
        driver = Driver(config, StudyFolder(Path(scratch)), executor, course, events)
        return {"folder": str(folder.path), **driver.plan(folder.path.name)}


def report(study: str | Path) -> dict[str, Any]:
    """Write the report of a study from its files, whether it has ended or not: nothing is trained.

    Args:
        study: the folder of a study.

    Returns:
        The content of study.json, `folder`, and `files` by name.

    Raises:
        TrimtabError: not a study folder, one of another schema version, a run folder that was changed by hand, or a
            disk that refuses.
    """
    return _written(StudyFolder(Path(study)))


def evaluate(
    run: str | Path,
    split: str = "test",
    *,
    task: str | Mapping[str, Any] | None = None,
    runs_dir: str | Path = "runs",
    device: str = "auto",
    data_dir: str | Path | None = None,
) -> Evaluation:
    """Score the prompt of a finished run on one split of its own task, or of another one with the same classes.

    Args:
        run: a run folder, or an id under `runs_dir`.
        split: train, dev or test.
        task: another table, whose rows and metrics are taken: a preset such as `superglue/ax_b`, or its options. The
            template and the label words are those of the run. Of a run on several tasks, the name of one of them; all
            by default.

    Raises:
        BundleError, DataError, BackboneError: see `load` and the task.
    """
    _check_split(split)
    folder = find_run(str(run), Path(runs_dir))
    if names := tasks_of(folder):
        return _evaluate_tasks(folder, split, _named(task, names), device, data_dir)
    if task is not None:
        other = _other_task(task)
        examples = other.examples(split, _places(data_dir))
        predictor = load(folder, device=device)
        rendering = replace(predictor.rendering, metrics=other.metrics, headline=other.headline)
        return replace(predictor, rendering=rendering).evaluate(examples)
    return load(folder, device=device).evaluate(_split_again(folder, split, data_dir))


def _evaluate_tasks(folder: Path, split: str, task: str | None, device: str, data_dir: str | Path | None) -> Evaluation:
    """Score a run on several tasks on all of them, or on one."""
    of, parts = load_tasks(folder, device=device), _task_again(_config_of(folder), folder, data_dir).parts
    if task is not None:
        return of.parts[task].evaluate(parts[task].splits[split])
    return of.evaluate({name: part.splits[split] for name, part in parts.items()})


def landscape(
    runs: Sequence[str | Path],
    views: Sequence[str] | None = None,
    *,
    study: str | Path | None = None,
    sharpness: bool = True,
    points: int = 21,
    radius: float | None = None,
    directions: str = "auto",
    unit: str = "common",
    split: str = "test",
    examples: int = 24,
    seed: int = 0,
    log: bool = False,
    redraw: bool = False,
    out: str | Path | None = None,
    max_tokens: int = MAX_TOKENS,
    runs_dir: str | Path = "runs",
    device: str = "auto",
    data_dir: str | Path | None = None,
    report: Report | None = None,
) -> dict[str, Any]:
    """The loss around finished runs, written to RUN/landscape/ as arrays, pictures and a page.

    Runs that are given together are compared: the same examples, grid, random directions, units and colors.

    Args:
        runs: run folders, or ids under `runs_dir`.
        views: `text`, `prompt`, `path` and `plane`, see `trimtab.landscape.views`; text and prompt by default, of a
            study none.
        study: a study folder, whose reported runs are taken in the place of `runs`, those of one task and backbone at
            a time; its report then has a section on stability.
        sharpness: measure how sharp the loss is, too, see `trimtab.landscape.sharpness`.
        points, radius, directions, unit, seed, max_tokens: see `trimtab.landscape.views.Settings`.
        split: where the examples come from.
        examples: on how many the loss is taken; they are drawn with `seed`.
        log: logarithmic colors and heights in pictures.
        redraw: draw again what was computed before; nothing is computed, and all views are drawn that there are.
        out: where pictures and pages of several runs go; by default to the first run's folder.
        report: receives events, see `trimtab.landscape.survey.survey`.

    Returns:
        `surfaces` and `pairs`: what was computed, in numbers; `sharpness`: of each run that has been measured, the
        content of its sharpness.json; `files` that were written; `notes`.

    Raises:
        BundleError, DataError: a run, or its data, is not there or not what it was.
        ConfigError: options or runs that do not go together, a gradient that is zero, or not enough memory.
    """
    from trimtab.reports.landscapes import write_pictures
    from trimtab.reports.sharpness import read_sharpness

    groups = _groups(runs, study, Path(runs_dir))
    chosen = list(views or (() if redraw or study is not None else ("text", "prompt")))
    check_views(chosen)
    _check_split(split)
    if not redraw:
        settings, tell = Settings(points, radius, directions, unit, seed, max_tokens), report or (lambda event: None)
        for folders in groups:
            splits = [_split_again(folder, split, data_dir) for folder in folders]
            sample = sampled(splits, split, examples, seed)
            subjects = open_subjects(folders, sample, device=device, max_tokens=max_tokens)
            survey(subjects, chosen, settings, tell)
            if sharpness:
                measure_all(subjects, Protocol(seed=seed), tell)
    found: dict[str, Any] = {"surfaces": [], "pairs": [], "files": [], "notes": [], "sharpness": []}
    for folders in groups:
        if chosen or study is None:
            its = write_pictures(folders, chosen or None, log=log, out=None if out is None else Path(out))
            found |= {key: [*found[key], *(i for i in value if i not in found[key])] for key, value in its.items()}
        found["sharpness"] += read_sharpness(folders)
    return found


def predict(
    run_or_bundle: str | Path,
    inputs: Sequence[Example | Mapping[str, Any] | str],
    *,
    task: str | None = None,
    runs_dir: str | Path = "runs",
    device: str = "auto",
) -> Records | list[OfTask]:
    """Label texts with a trained prompt, or let it write, where it was trained on free text.

    Args:
        run_or_bundle: a folder, or a run id under `runs_dir`.
        inputs: examples, mappings field -> text (with an optional `id`), or plain texts if the template has one field.
        task: of a prompt for several tasks, which one all inputs are of; without it each says so in its field `task`,
            and so do the predictions.

    Returns:
        One prediction per input, in order.
    """
    folder = find_run(str(run_or_bundle), Path(runs_dir))
    if task is None and tasks_of(folder):
        return load_tasks(folder, device=device).predict(inputs)
    return load(folder, task=task, device=device).predict(inputs)


def take_task(
    run_or_bundle: str | Path, task: str, output: str | Path, *, runs_dir: str | Path = "runs"
) -> dict[str, Any]:
    """Write the bundle of one task, taken out of that of several: the shared prompt with what belongs to the task.

    Args:
        output: the folder of the new bundle.

    Returns:
        The content of its bundle.json.

    Raises:
        BundleError: there is no such task.
        ConfigError: the folder holds a bundle already.
    """
    bundle = read_bundle(find_run(str(run_or_bundle), Path(runs_dir))).of_task(task)
    if (Path(output) / "bundle.json").exists():
        raise ConfigError("the folder holds a bundle already.", where=str(output), fix="Give another -o.")
    return write_bundle(Path(output), bundle)


def export(
    runs: Sequence[str | Path],
    to: str | Mapping[str, Any],
    out: str | Path,
    *,
    names: Sequence[str] = (),
    model: str | None = None,
    runs_dir: str | Path = "runs",
    again: bool = False,
) -> dict[str, Any]:
    """Write trained prompts in another program's format.

    Args:
        runs: folders of runs or bundles, or run ids under `runs_dir`; one, where the format holds no more.
        to: `peft`, `vllm`, `baked`, `kv` or `card`, or a mapping with options: `"baked: {dtype: bfloat16}"`.
        out: the folder to be written; whole or not at all.
        names: of the prompts, in their order; by default those of their tasks.
        model: where the backbone lies now; by default the one the bundle names.
        again: replace an earlier export.

    Returns:
        `folder`, `export`, `files` and `notes`: what to know before it is used.

    Raises:
        BundleError: the format cannot express the prompt; the message says why and what to do.
        TrimtabError: an unknown format, a folder in the way, a backbone that cannot be loaded, or a disk that refuses.
    """
    if names and len(names) != len(runs):
        what = f"every run needs a name, got {len(names)} for {len(runs)} runs."
        raise ConfigError(what, where="--name", fix="Give as many, or none.")
    folders = [find_run(str(run), Path(runs_dir)) for run in runs]
    named: Sequence[str | None] = names or [None] * len(runs)
    sources = [Source.read(folder, name, model) for folder, name in zip(folders, named, strict=True)]
    return write_export(sources, to, Path(out), again=again)


def import_prompt(
    folder: str | Path,
    out: str | Path,
    *,
    template: str | None = None,
    label_words: Any = None,
    readout: str | Mapping[str, Any] | None = None,
    name: str = "imported",
    model: str | None = None,
    again: bool = False,
) -> dict[str, Any]:
    """Make a bundle of a prompt that PEFT has trained, or that was exported to it.

    Args:
        folder: that PEFT has written; one that trimtab exported knows its task.
        out: where the bundle goes.
        template: how the prompt is used, beginning with `{prompt}`; of folders that trimtab did not write.
        label_words: a mapping class -> word or words, where it classifies; else the model writes.
        readout: how answers are read; by default as the backbone's family does.
        name: of the task.
        model: the backbone; by default the one that the folder names.
        again: replace an earlier bundle.

    Returns:
        `folder`, `prompt` (its kind) and `notes`.

    Raises:
        TrimtabError: see `trimtab.exporting.from_peft.import_peft`.
    """
    if template is None and (label_words or readout):
        raise ConfigError("label words and a readout belong to a template.", where="import", fix="Give --template.")
    if label_words is not None and not (isinstance(label_words, Mapping) and label_words):
        fix = "Write {class: word, class: [word, word]}."
        raise ConfigError(f"label words are words for each class, got {label_words!r}.", where="--label-words", fix=fix)
    task = None if template is None else ImportedTask(template, label_words, readout, name)
    return import_peft(Path(folder), Path(out), task, model=model, again=again)


def reading_of(
    run_or_bundle: str | Path, *, task: str | Mapping[str, Any] | None = None, runs_dir: str | Path = "runs"
) -> Reading:
    """How files of the task that a prompt was trained on are read, or those of another task. Where it was trained on
    several and none is named, a line is a row."""
    if task is not None and not tasks_of(find_run(str(run_or_bundle), Path(runs_dir))):
        found: Reading = _other_task(task).reading
        return found
    bundle = read_bundle(find_run(str(run_or_bundle), Path(runs_dir)))
    if bundle.tasks and task is None:
        return Reading()
    if bundle.tasks:
        bundle = bundle.of_task(str(_named(task, bundle.tasks)))
    stated = bundle.metadata["task"]
    return Reading(stated.get("form"), stated.get("rename", {}))


def submit(
    run_or_bundle: str | Path,
    examples: Sequence[Example],
    *,
    task: str | Mapping[str, Any] | None = None,
    runs_dir: str | Path = "runs",
    device: str = "auto",
) -> tuple[str, str, int]:
    """Predictions in the format of SuperGLUE's server.

    Args:
        run_or_bundle: as `predict`.
        examples: all rows of the official file, read as `reading_of` says.
        task: another task than that of the run, such as `superglue/ax_b` with a run of RTE; or which one of several.

    Returns:
        The name of the file, its content, and how many rows got the first class because what was written names none.

    Raises:
        ConfigError: the task is none of SuperGLUE's.
        DataError: a row without its number.
    """
    folder = find_run(str(run_or_bundle), Path(runs_dir))
    own = _named(task, names) if (names := tasks_of(folder)) else None
    predictor = load(folder, task=own, device=device)
    is_other = task is not None and own is None
    name = _other_task(task).submission if is_other else predictor.metadata["task"].get("submission")  # type: ignore[arg-type]
    check_task(name)
    records = predictor.predict(list(examples))
    content, unnamed = submission(name, judged(examples, records), predictor.classes)
    return file_name(name), content, unnamed


@dataclass(frozen=True)
class Shown:
    """An example as the backbone will see it; `decoder_tokens` are what the decoder of an encoder-decoder reads.

    `special` holds the positions of special tokens, slots and answer aside. `tags` are those of the words that are
    read, one for each of `encoded.answer_at`; none where no words are tagged. `label_words` is empty where no answer
    stands in the template. `part` says which of its
    sequences this is, where an example has several: which choice, which window of a long text. `task` is the name of
    its task, where a run has several.
    """

    example: Example
    encoded: Encoded
    tokens: tuple[str, ...]
    decoder_tokens: tuple[str, ...]
    label_words: tuple[str, ...]
    answer_tokens: int
    special: tuple[int, ...]
    tags: tuple[str, ...]
    part: str = ""
    task: str = ""


@dataclass(frozen=True)
class Preview:
    """What `show` shows. `parameters`: how many are `trained` and `kept`, a trained backbone's own aside."""

    examples: tuple[Shown, ...]
    parameters: dict[str, int]


@dataclass(frozen=True)
class Validation:
    """What a recipe amounts to, found without loading weights or training. `parts` are its tasks, mostly one."""

    config: RunConfig
    task: Task
    parts: tuple[Asked, ...]
    encoder: TextEncoder
    lengths: dict[str, list[int]]
    truncated: dict[str, int]
    dropped_options: tuple[str, ...]
    parameters: dict[str, int]
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Rows, lengths and truncation per split, classes (of several tasks by name), parameters, and the config."""
        classes = {its.task.name: list(its.task.verbalizer.classes) for its in self.parts}
        return {
            "task": self.task.name,
            "classes": classes if self.task.parts else classes[self.task.name],
            "rows": {s: len(n) for s, n in self.lengths.items()},
            "longest": {s: max(n) for s, n in self.lengths.items()},
            "truncated": self.truncated,
            "notes": list(self.notes),
            "positions": max(its.rendering.max_length for its in self.parts),
            "dropped_options": list(self.dropped_options),
            "parameters": self.parameters,
            "config": self.config.as_dict(),
        }


def validate(recipe: Recipe, overrides: Overrides = (), *, data_dir: str | Path | None = None) -> Validation:
    """Check a recipe, its data, template, label words and tokenizer; nothing is trained or written.

    Raises:
        TrimtabError: the first thing that `run` would refuse.
    """
    resolution = _resolve(recipe, overrides)
    config = resolution.config
    check_components(config)
    side = load_encoder(config.backbone.model, **config.backbone.model_dump(include={"revision", "trust_remote_code"}))
    encoder = side.encoder
    task: Task = tasks.build(config.task).load(config.seeds.subset, _places(data_dir))
    config, asked = ask(config, task, side.family, encoder, side.positions)
    first, *others = asked
    further = [(its.config, its.task) for its in others]
    parameters = count_parameters(first.config, first.task, first.rendering, side, further)
    rendered = [{s: [its.rendering.rows(e, encoder) for e in its.task.splits[s]] for s in SPLITS} for its in asked]
    longest = {s: [_longest(rows) for part in rendered for rows in part[s]] for s in SPLITS}
    flat = [{s: [row for rows in part[s] for row in rows] for s in SPLITS} for part in rendered]
    built = [regularizers.build(spec) for spec in config.regularizers]
    kinds = [its.config.readout["kind"] for its in asked]
    check_regularizers(built, kinds, [r for part in flat for r in part["train"]], hiding_token(encoder) is not None)
    lengths = {s: [len(e) for e in encoded] for s, encoded in longest.items()}
    truncated = {s: sum(e.dropped > 0 for e in encoded) for s, encoded in longest.items()}
    notes = list(task.notes)
    for its, part in zip(asked, flat, strict=True):
        found = notes_on(part, its.rendering, encoder)
        notes += [f"{its.task.name}: {note}" if others else note for note in found]
    told = (resolution.dropped, parameters, tuple(notes))
    return Validation(config, task, tuple(asked), encoder, lengths, truncated, *told)


def show(recipe: Recipe, overrides: Overrides = (), *, n: int = 2, data_dir: str | Path | None = None) -> Preview:
    """The first `n` training examples of each task as the backbone will see them, and how many parameters there are."""
    v = validate(recipe, overrides, data_dir=data_dir)
    return Preview(tuple(s for its in v.parts for s in _shown(v, its, n)), v.parameters)


def _shown(v: Validation, asked: Asked, n: int) -> Iterator[Shown]:
    """The first examples of a task."""
    task, rendering = asked.task, asked.rendering
    plan = rendering.plan(v.encoder)
    answer_tokens = len(plan.fills[0].ids)
    has_slot = plan.needs_slot and any(piece.kind == "answer" for piece in rendering.template.pieces)
    names, specials = task.verbalizer.classes, v.encoder.special_ids.values()
    classes = dict(zip(names, task.verbalizer.words, strict=True))
    of = task.name if v.task.parts else ""
    for example in task.splits["train"][:n]:
        words = classes.get(str(example.label), (str(example.label),)) if has_slot else ()
        if task.answer in ("infill", "match"):
            words = tuple(filter(None, [rendering.gold(example)]))
        for part, label, encoded in _parts(rendering, v.encoder, replace(example, label=None)):
            tags = tuple(names[i] for i in label) if task.answer == "tags" and isinstance(label, tuple) else ()
            tokens, decoder_tokens = (tuple(v.encoder.tokens(ids)) for ids in (encoded.ids, encoded.decoder))
            slot = range(encoded.answer_slot, encoded.answer_slot + answer_tokens)
            other = {*encoded.slots, *encoded.eligible, *slot}
            special = tuple(i for i, t in enumerate(encoded.ids) if t in specials and i not in other)
            yield Shown(example, encoded, tokens, decoder_tokens, words, answer_tokens, special, tags, part, of)


def _parts(rendering: Rendering, encoder: TextEncoder, example: Example) -> list[tuple[str, Label, Encoded]]:
    """The sequences of an example that differ in what they read, what to call them, and their labels."""
    rows = rendering.rows(example, encoder)
    if rendering.plan(encoder).each is not None:
        named = zip(rendering.verbalizer.classes, rows[0].variants, strict=False)
        return [(name, rows[0].label, encoded) for name, encoded in named]
    many = len(rows) > 1
    return [(f"window {i} of {len(rows)}" if many else "", row.label, row.encoded) for i, row in enumerate(rows, 1)]


def _longest(rows: Sequence[Row]) -> Encoded:
    """The longest sequence of an example."""
    return max((variant for row in rows for variant in row.variants), key=len)


def init(
    table: str | Path,
    label: str | None = None,
    text: Sequence[str] = (),
    *,
    target: str | None = None,
    output: str | Path | None = None,
    backbone: str | None = None,
    prompt: str = "residual",
    force: bool = False,
) -> Draft:
    """Look at a table and write a complete, commented recipe for it.

    Args:
        table: CSV, TSV, JSONL or Parquet.
        label: the column of classes; or give `target`.
        text: text columns; found by themselves if none are given.
        target: a column of free text, which the model shall learn to write.
        output: where the recipe goes; nothing is written if absent.
        force: overwrite an existing file.

    Raises:
        DataError: the table cannot be read, or its labels are no classes.
        ConfigError: the output exists, or neither or both of label and target are given.
    """
    from trimtab.drafting import draft_recipe

    if (label is None) == (target is None):
        raise ConfigError("name one column: either of classes (--label) or of free text (--target).", where="init")
    place = None if output is None else Path(output)
    if place is not None and place.exists() and not force:
        raise ConfigError("the file exists already.", where=str(place), fix="Give another -o, or --force.")
    column = str(label if target is None else target)
    draft = draft_recipe(
        Path(table), column, text, is_free=target is not None, backbone=backbone, prompt=prompt, output=place
    )
    if place is not None:
        write_text(place, draft.recipe)
    return draft


def fetch_data(
    names: Sequence[str],
    *,
    data_dir: str | Path | None = None,
    accept_unverified: bool = False,
    again: bool = False,
    copies: str | Path | None = None,
    report: Report | None = None,
) -> list[dict[str, Any]]:
    """Download official data into the data directory, each file with the right SHA-256.

    Args:
        names: of manifests, see `list_data`; or files of one's own of that form.
        accept_unverified: also what no SHA-256 is known of.
        again: fetch what is there, too.
        copies: a folder where archives may lie already.
        report: receives events, see `trimtab.fetching.fetch`.

    Raises:
        TrimtabError: an unknown name, an unknown hash, a mismatch, a server or a disk that refuses.
    """
    data, wanted = _data_folder(data_dir), [manifest_of(name) for name in names]
    if not wanted:
        raise ConfigError("name what shall be fetched.", where="data fetch", fix=suggest("", manifests()))
    folder = None if copies is None else Path(copies)
    options: dict[str, Any] = {
        "accept_unverified": accept_unverified,
        "again": again,
        "copies": folder,
        "report": report,
    }
    return [{"name": m.name, **its.as_json()} for m in wanted for its in fetch(m, data, **options)]


def list_data(*, data_dir: str | Path | None = None) -> list[dict[str, Any]]:
    """What can be fetched: name, size, license, whether every SHA-256 is known, and whether it is recorded here."""
    data = _places(data_dir).data
    there = [] if data is None else recorded(data)
    return [
        {"name": m.name, "about": m.about, "bytes": m.bytes, "license": m.license, "verified": m.is_verified,
         "recorded": m.name in there, "homepage": m.homepage}
        for m in manifests().values()
    ]  # fmt: skip


def check_data(
    names: Sequence[str] = (), *, data_dir: str | Path | None = None, write: bool = False
) -> list[dict[str, Any]]:
    """Compare the data directory with its records; write one for what has none.

    Raises:
        DataError: a file has changed or is gone; the message names it.
    """
    data = _data_folder(data_dir)
    found = check_records(data, names, write=write)
    refuse_changes(found, data)
    return [its.as_json() for its in found]


def ls(
    what: str = "runs", *, runs_dir: str | Path = "runs", recipes_dir: str | Path = "recipes"
) -> list[dict[str, Any]]:
    """What there is: `runs`, `tasks`, `prompts`, `readouts`, `regularizers`, `backbones`, `trackers`, `exports` or
    `recipes`."""
    if what not in LISTS:
        raise ConfigError(f"{what!r} cannot be listed.", where="ls", fix=suggest(what, LISTS))
    if what == "runs":
        return [_run_line(folder) for folder in list_runs(Path(runs_dir))]
    if what == "recipes":
        files = sorted(Path(recipes_dir).rglob("*.yaml"))
        return [{"recipe": str(f), "about": _first_comment(f)} for f in files]
    registry = REGISTRIES[what]
    lines = [
        {"kind": kind, "about": registry.summary(kind), "options": list(registry.options(kind))}
        for kind in registry.kinds()
    ]
    if what == "backbones":
        lines += [{"kind": m, "about": "embedded model, ready to use", "options": []} for m in embedded_models()]
    return lines


def _resolve(recipe: Recipe, overrides: Overrides) -> Resolution:
    return resolve(recipe if isinstance(recipe, Mapping) else read_recipe(Path(recipe)), overrides)


def _study_folder(path: str | Path, studies_dir: str | Path, name: str | None) -> StudyFolder:
    return StudyFolder(Path(studies_dir) / (name or name_of(Path(path))))


def _written(folder: StudyFolder) -> dict[str, Any]:
    from trimtab.reports.study import paths, write_report

    return {**write_report(folder), "folder": str(folder.path), "files": paths(folder.path)}


def _course(
    device: str, data_dir: str | Path | None, retry: bool = False, track: tuple[dict[str, Any], ...] = ()
) -> Course:
    data = _places(data_dir).data
    return Course(None if data is None else str(data), device, retry, track)


def _places(data_dir: str | Path | None) -> Places:
    given = data_dir or os.environ.get("TRIMTAB_DATA")
    return Places(Path(given) if given else None)


def _other_task(task: str | Mapping[str, Any]) -> Any:
    """A table, built."""
    built = tasks.build(tasks.resolve(task, "task"))
    if not hasattr(built, "examples"):
        raise ConfigError(
            "rows of another task come from a table.", where="task", fix="Name one, as in `trimtab ls tasks`."
        )
    return built


def _groups(runs: Sequence[str | Path], study: str | Path | None, runs_dir: Path) -> list[list[Path]]:
    """Folders of runs that are looked at together."""
    if (study is None) == (not runs):
        raise ConfigError(
            f"name runs or a study, {'not both' if runs else 'got neither'}.",
            where="runs",
            fix="trimtab landscape RUN [RUN ...], or trimtab landscape --study DIR.",
        )
    if study is not None:
        return runs_to_measure(StudyFolder(Path(study)))
    return [[find_run(str(run), runs_dir) for run in runs]]


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise ConfigError(f"there is no split {split!r}.", where="split", fix=f"Known: {', '.join(SPLITS)}.")


def _split_again(folder: Path, split: str, data_dir: str | Path | None) -> Sequence[Example]:
    """The examples of a finished run."""
    return _task_again(_config_of(folder), folder, data_dir).splits[split]


def _task_again(config: RunConfig, folder: Path, data_dir: str | Path | None) -> Task:
    """The task of a finished run; relative paths are tried here, then from where the run was started."""
    task = tasks.build(config.task)
    places = _places(data_dir)
    record = RunFolder(folder).record
    if not all(resolve_path(f, places).exists() for f in task.files.values() if not f.startswith("data:")):
        places = Places(places.data, Path(record["working_directory"]))
    loaded: Task = task.load(config.seeds.subset, places)
    if loaded.fingerprint != record["fingerprints"]["data"]:
        raise DataError(
            "the data has changed since the run, so its splits are other rows now.",
            where=str(folder),
            fix="Restore the data, or use `trimtab predict` on the rows you want scored.",
        )
    return loaded


def tasks_of(folder: Path) -> tuple[str, ...]:
    """The names of a bundle's tasks, where it has several; an unfinished run has none."""
    return read_bundle(folder).tasks if (folder / "bundle.json").exists() else ()


def _named(task: str | Mapping[str, Any] | None, names: Sequence[str]) -> str | None:
    """The task of several that is meant.

    Raises:
        ConfigError: it is none of them.
    """
    if task is None or (isinstance(task, str) and task in names):
        return task
    raise ConfigError(
        f"the run is on several tasks ({', '.join(names)}), and this is none of them: {task!r}.",
        where="task",
        fix="Name one. To score rows of another table, take its bundle out first: trimtab take RUN TASK -o FOLDER.",
    )


def _config_of(folder: Path) -> RunConfig:
    return validated(RunConfig, read_yaml(folder / "config.yaml"), str(folder / "config.yaml"))


def _data_folder(data_dir: str | Path | None) -> Path:
    data = _places(data_dir).data
    if data is None:
        raise ConfigError("no data directory is set.", where="data", fix="Give --data-dir or set TRIMTAB_DATA.")
    return data


def _run_line(folder: RunFolder) -> dict[str, Any]:
    record = folder.record
    metrics, headline = record.get("metrics", {}), record.get("metric", "accuracy")
    return {
        "run": folder.path.name,
        "status": record.get("status"),
        "task": record.get("task"),
        "prompt": record.get("prompt"),
        "backbone": record.get("backbone"),
        "metric": headline,
        "dev": metrics.get("dev", {}).get(headline),
        "test": metrics.get("test", {}).get(headline),
        "started": record.get("started"),
    }


def _first_comment(path: Path) -> str:
    first = path.read_text(encoding="utf-8").split("\n", 1)[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""
