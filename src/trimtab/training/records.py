"""What a trained run leaves: its record (run.json), its bundle, its predictions and its history."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from trimtab.backbones import Backbone
from trimtab.benchmark_metrics import MEAN
from trimtab.errors import TrimtabError
from trimtab.files import write_json, write_tensors
from trimtab.loading import table_from
from trimtab.model import PromptedModel
from trimtab.predictor import MAX_TOKENS, Predictor, evaluation_of
from trimtab.prompt_table import PromptTable, table_of
from trimtab.readouts import chosen
from trimtab.registry import readouts, regularizers
from trimtab.regularizers import notes_of
from trimtab.rendering import Rendering
from trimtab.storage import Bundle, RunFolder, write_bundle
from trimtab.training.packs import Trained
from trimtab.training.parallel import current_size
from trimtab.training.preparing import Prepared, bare_rendering
from trimtab.training.settling import headline
from trimtab.training.tuning import PREFIX


def opening(p: Prepared) -> dict[str, Any]:
    b = p.backbone
    fingerprints = {"data": p.task.fingerprint, "backbone": b.fingerprint, "tokenizer": b.tokenizer_fingerprint}
    if p.initializer_fingerprint:
        fingerprints["initializer"] = p.initializer_fingerprint
    built = [regularizers.build(spec) for spec in p.config.regularizers]
    notes = [*p.task.notes, *p.notes, *notes_of([r for r in built if r.weight])]
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
        **({"notes": notes} if notes else {}),
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


def write_run(folder: RunFolder, trained: Trained, bare: float | None) -> None:
    """Bundle first, then history and predictions, run.json last. `bare`: the score without a prompt.

    A run that was not finite from the start has no good state, so it leaves its record only.
    """
    p, member = trained.prepared, trained.member
    if not member.is_good:
        folder.clear()
        folder.write_findings(member.findings)
        folder.finish(_record(folder, trained, {}, bare), member.status)
        return
    bundle = make_bundle(trained)
    written = write_bundle(folder.path, bundle)
    if p.config.training.keep_encoder:
        kept = {n: v for n, v in member.best.items() if not n.startswith(PREFIX)}
        trained_part = {k: v.float().cpu().numpy() for k, v in kept.items()}
        write_tensors(folder.path / "encoder.safetensors", {**trained_part, **trained.constants})
    metrics: dict[str, Any] = {}
    predictors = [
        _predictor(trained.backbone, part.rendering, table_from(own, p.backbone.device), own.metadata["readout"])
        for part, own in zip(p.each, _bundles(bundle), strict=True)
    ]
    for split in ("dev", "test"):
        pairs = zip(predictors, p.each, strict=True)
        evaluation = evaluation_of(p.grader, [its.evaluate(part.task.splits[split]) for its, part in pairs])
        metrics[split] = dict(evaluation.metrics)
        folder.write_predictions(split, [x.as_json() for x in evaluation.predictions])
    metrics["dev"] |= {name: value for name, value in member.best_dev.items() if name.rpartition(".")[2] == "loss"}
    folder.write_history(member.history)
    folder.write_findings(member.findings)
    write_json(folder.path / "bundle.json", {**written, "metrics": metrics})
    folder.finish(_record(folder, trained, metrics, bare), member.status)


def _bundles(bundle: Bundle) -> list[Bundle]:
    """That of each task."""
    return [bundle.of_task(name) for name in bundle.tasks] or [bundle]


def rescue(trained: Trained, error: TrimtabError) -> TrimtabError:
    """The run folder could not be written (a full disk, say): keep the trained prompt among the temporary files."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=f"{trained.prepared.id}-"))
        write_bundle(folder, make_bundle(trained))
    except (TrimtabError, OSError):
        return error
    return type(error)(error.what, where=error.where, fix=f"The trained prompt is safe in the bundle {folder}.")


def _record(folder: RunFolder, trained: Trained, metrics: dict[str, Any], bare: float | None) -> dict[str, Any]:
    p, member = trained.prepared, trained.member
    tuned = sum(parameter.numel() for parameter in trained.backbone.trained.values())
    parameters = {"trained": trained.parameters, "kept": sum(v.size for v in trained.tensors.values()) + tuned}
    return {
        **opening(p),
        "started": folder.record["started"],
        "parameters": parameters | ({"backbone": tuned} if tuned else {}),
        "metrics": metrics,
        "metric": headline(p.config, p.task),
        **({"task_metrics": {x.task.name: headline(x.config, x.task) for x in p.parts}} if p.parts else {}),
        "baselines": {"majority": _mean([constant_score(part) for part in p.each]), "no_prompt": bare},
        "best_step": member.best_step if member.is_good else None,
        "steps": member.step,
        "seconds": round(trained.seconds, 3),
        "seconds_per_step": round(trained.seconds_per_step, 6),
    }


def make_bundle(trained: Trained) -> Bundle:
    """The prompt of a trained run with all that is needed to use it elsewhere."""
    p = trained.prepared
    b = p.backbone
    is_verbatim = any(part.rendering.template.is_verbatim for part in p.each)
    asked = [{"task": _asked(part), "readout": {**part.config.readout, **_chosen(trained, k)}}
             for k, part in enumerate(p.each)]  # fmt: skip
    of_tasks = [{"name": part.task.name, "metric": headline(part.config, part.task), **its}
                for part, its in zip(p.parts, asked, strict=False)]  # fmt: skip
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
            "options": p.config.backbone.model_dump(exclude={"model", "compile"}),
        },
        "tokenizer": {"fingerprint": b.tokenizer_fingerprint, "add_special_tokens": not is_verbatim},
        **({"tasks": of_tasks} if of_tasks else asked[0]),
        "provenance": {
            "run": p.id,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "seeds": p.config.seeds.model_dump(),
            "data_fingerprint": p.task.fingerprint,
            "environment": environment(b),
        },
    }
    tuned = {n: v.detach().cpu().numpy() for n, v in trained.backbone.trained.items()}
    tensors = {n: np.ascontiguousarray(v, dtype=np.float32) for n, v in trained.tensors.items()}
    return Bundle(metadata, tensors, tuned)


def _asked(p: Prepared) -> dict[str, Any]:
    """How one task is asked."""
    template = p.rendering.template
    words = {c: list(w) for c, w in zip(p.task.verbalizer.classes, p.task.verbalizer.words, strict=True)}
    return {
        "name": p.task.name,
        "template": p.task.template_for(p.backbone.encoder.is_causal),
        "rendered": template.source if template.is_verbatim else None,
        "truncate": list(p.task.truncate),
        "max_length": p.rendering.max_length,
        "label_words": words,
        "answer": p.task.answer,
        "replace": {column: dict(texts) for column, texts in p.task.replace.items()},
        "candidate": p.task.candidate,
        "metrics": list(p.task.metrics),
        "headline": p.task.headline,
        "form": p.task.reading.form,
        "rename": dict(p.task.reading.rename),
        "submission": p.task.submission,
        **({"rewrite": {field: list(how) for field, how in p.task.rewrite.items()}} if p.task.rewrite else {}),
        **({"nothing_matches": True} if p.task.nothing_matches else {}),
        **({"allowed": {g: list(w) for g, w in p.task.allowed.items()}} if p.task.allowed else {}),
    }


def _chosen(trained: Trained, task: int) -> dict[str, Any]:
    """Options of the readout of a task that are chosen on dev with the trained prompt; none for most readouts."""
    p = trained.prepared.each[task]
    if not hasattr(readouts.get(p.config.readout["kind"]), "chosen"):
        return {}
    parts = {n: torch.from_numpy(v)[None].to(p.backbone.device) for n, v in trained.tensors.items()}
    table = table_of(parts, trained.layers, trained.shift)
    first = trained.prepared
    plans = [part.rendering.plan(p.backbone.encoder) for part in first.each]
    whole = PromptedModel(trained.backbone, readouts.build(first.config.readout, trained.backbone, plans))
    model, own = whole.parts(table)[task]
    rows = [replace(row, prompt=0) for row in p.rows["dev"]]
    return chosen(model.readout, model.score_rows(rows, own, MAX_TOKENS), rows)


def _predictor(
    backbone: Backbone, rendering: Rendering, table: PromptTable | None, spec: Mapping[str, Any]
) -> Predictor:
    readout = readouts.build(spec, backbone, [rendering.plan(backbone.encoder)])
    return Predictor(PromptedModel(backbone, readout), rendering, table, {})


def constant_score(p: Prepared, split: str = "test") -> float | None:
    """Score of the most frequent answer of a split, given to each of its rows; None where that says nothing."""
    metric = headline(p.config, p.task)
    if metric in (*p.task.metrics, MEAN):
        return p.rendering.grader.constant(p.task.splits[split], metric)
    readout = readouts.build(p.config.readout, p.backbone, [p.rendering.plan(p.backbone.encoder)])
    found: float | None = readout.constant(p.rows[split], metric)
    return found


def bare_score(p: Prepared) -> float | None:
    """Test score of the bare model with the same label words, and the same template or the task's manual one; the same
    for all runs of a pack. None where the readout has a head, without which it reads nothing, or the model cannot be
    asked so. Of several tasks the mean."""
    return _mean([_bare_score(part) for part in p.each])


def _bare_score(p: Prepared) -> float | None:
    rendering = bare_rendering(p)
    if rendering is None or readouts.get(p.config.readout["kind"]).trains:  # type: ignore[attr-defined]
        return None
    predictor = _predictor(p.backbone, rendering, None, p.config.readout)
    return float(predictor.evaluate(p.task.splits["test"]).metrics[headline(p.config, p.task)])


def _mean(scores: Sequence[float | None]) -> float | None:
    """Over tasks; None where one has none."""
    known = [score for score in scores if score is not None]
    return fmean(known) if len(known) == len(scores) else None
