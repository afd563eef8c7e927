"""Bundles and run folders as plain data: schema, hashes, the steps of a run's life. No torch here.

A **bundle** is a folder with `bundle.json` (what the prompt needs to know of its backbone, template and label words)
and `prompt.safetensors` (the materialized vectors, float32, see `Bundle`). If the backbone was trained with the
prompt, `backbone.safetensors` holds its parameters, float32, and `bundle.json` the hash of that file. A **run folder**
is a bundle with its history:

    config.yaml  run.json  metrics.jsonl  predictions.<split>.jsonl  bundle.json  prompt.safetensors

`run.json` is written first with status `running` and last with its final status, so a reader knows what it looks at.
`metrics.jsonl` grows by a line with every evaluation and is written once more, whole, at the end. Regularizers may
leave files of their own beside it, such as `swaps.jsonl`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.bundle_schema import check_metadata
from trimtab.documents import dump_yaml
from trimtab.errors import BundleError, StorageError, TrimtabError, suggest
from trimtab.files import (
    read_json,
    read_tensors,
    settle,
    sha256_of,
    sweep,
    told,
    write_json,
    write_jsonl,
    write_tensors,
    write_text,
)

SCHEMA_VERSION = 1
TUNED_FILE = "backbone.safetensors"
_ROOM_BYTES = 16 << 20


@dataclass(frozen=True)
class Bundle:
    """A trained prompt and what it needs to know: backbone, tokenizer, task, readout, metrics, provenance.

    `tensors` are float32: the input prompt `inputs` [P,E], keys and values `deep.<site>` [N,2,P,K,D] with their gates
    `gate.<site>` [N,Q], the `text_offset` [O,E], a `router` [J,E] over the J prompts that `inputs` then holds one after
    the other, a readout's `head.<name>`, of several tasks `head.<number of the task>.<name>`. `tuned` holds all
    parameters of the backbone by name if they were trained with the prompt; else it is empty.
    """

    metadata: Mapping[str, Any]
    tensors: Mapping[str, np.ndarray]
    tuned: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def prompt(self) -> np.ndarray:
        """The input prompt [P,E]."""
        return self.tensors["inputs"]

    @property
    def slots(self) -> int:
        """Virtual tokens in the text: rows of the input prompt, or of each of those that a router chooses from."""
        return len(self.prompt) // (len(self.tensors["router"]) if "router" in self.tensors else 1)

    @property
    def embed_twice(self) -> bool:
        """Whether text is embedded twice with it, see `trimtab.backbones.Backbone.embed`."""
        return bool(self.metadata["backbone"]["options"].get("embed_twice", False))

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of its tasks, where it has several."""
        return tuple(its["name"] for its in self.metadata.get("tasks", ()))

    def of_task(self, name: str) -> Bundle:
        """The bundle of one of several tasks: the prompt, and what belongs to that task.

        Raises:
            BundleError: it has no such task.
        """
        if name not in self.tasks:
            what = f"the bundle has no task {name!r}." if self.tasks else "the bundle is of one task only."
            raise BundleError(what, where="task", fix=suggest(name, self.tasks) or "Leave the task out.")
        number = self.tasks.index(name)
        own = f"head.{number}."
        tensors = {n.replace(own, "head.", 1) if n.startswith(own) else n: v for n, v in self.tensors.items()
                   if n.startswith(own) or not n.startswith("head.")}  # fmt: skip
        stated = self.metadata["tasks"][number]
        prompt = {**self.metadata["prompt"], "tensors": {n: list(v.shape) for n, v in tensors.items()}}
        rest = {k: v for k, v in self.metadata.items() if k not in ("tasks", "metrics")}
        metadata = {**rest, "prompt": prompt, "task": stated["task"], "readout": stated["readout"]}
        return Bundle(metadata, tensors, self.tuned)


def write_bundle(folder: Path, bundle: Bundle) -> dict[str, Any]:
    """Write `prompt.safetensors`, `backbone.safetensors` if it was trained, then `bundle.json`; returns its content.

    An older bundle.json is removed first, and the new one has the hashes of the others, so that no two writings mix.

    Raises:
        TrimtabError: as `write_atomically`.
    """
    with told("file", folder / "bundle.json"):
        (folder / "bundle.json").unlink(missing_ok=True)
    prompt = write_tensors(folder / "prompt.safetensors", bundle.tensors)
    metadata = {"schema": SCHEMA_VERSION, **bundle.metadata}
    metadata["prompt"] = {**metadata["prompt"], "sha256": prompt}
    if bundle.tuned:
        stated = {"tuned": True, "tuned_sha256": write_tensors(folder / TUNED_FILE, bundle.tuned)}
        metadata["backbone"] = {**metadata["backbone"], **stated}
    write_json(folder / "bundle.json", metadata)
    return metadata


def read_bundle(folder: Path) -> Bundle:
    """Read and check a bundle or run folder.

    Raises:
        BundleError: not a bundle, a newer schema, an unfinished run, a missing key, a prompt that is missing,
            corrupted, of another shape than stated, or not finite, or a trained backbone that is missing or not the
            one that is stated.
    """
    if not os.path.isdir(folder):
        raise BundleError("there is no such folder.", where=str(folder), fix="`trimtab ls runs` lists finished runs.")
    if not (folder / "bundle.json").exists():
        status = read_json(folder / "run.json").get("status") if (folder / "run.json").exists() else None
        what = f"the run has the status {status!r} and no bundle" if status else "there is no bundle.json"
        raise BundleError(f"{what}.", where=str(folder), fix="Run `trimtab run` on its recipe again.")
    metadata = read_json(folder / "bundle.json")
    if metadata.get("schema") != SCHEMA_VERSION:
        raise BundleError(
            f"the bundle has schema {metadata.get('schema')!r}, this version of trimtab reads {SCHEMA_VERSION}.",
            where=str(folder / "bundle.json"),
        )
    check_metadata(metadata, str(folder / "bundle.json"))
    path = folder / "prompt.safetensors"
    tensors = read_tensors(path)
    stated = {"inputs": metadata["prompt"]["shape"], **metadata["prompt"].get("tensors", {})}
    for name in sorted({*stated, *tensors}):
        its, got = stated.get(name), tensors.get(name)
        if its is None:
            raise BundleError(f"bundle.json knows of no tensor {name!r}.", where=str(path))
        if got is None or got.shape != tuple(its):
            found = f"no tensor `{name}`" if got is None else f"shape {got.shape}"
            what = "the prompt" if name == "inputs" else f"the tensor {name!r}"
            raise BundleError(f"{what} must have shape {tuple(its)}, got {found}.", where=str(path))
        if got.dtype != np.float32:
            raise BundleError(f"the tensor {name!r} must be float32, got {got.dtype}.", where=str(path))
        if not np.isfinite(got).all():
            raise BundleError("the prompt holds values that are not finite.", where=str(path))
    _check_hash(path, "prompt", metadata["prompt"].get("sha256"))
    return Bundle(metadata, tensors, _read_tuned(folder, metadata["backbone"]))


def _check_hash(path: Path, what: str, stated: str | None) -> None:
    """Compare a file with what bundle.json states of it; bundles of the first days state nothing of their prompt."""
    if stated is None or (got := sha256_of(path)) == stated:
        return
    raise BundleError(
        f"the {what} is not what bundle.json states (SHA-256 {stated[:12]}, got {got[:12]}): the file is damaged or of "
        "another run.",
        where=str(path),
        fix="Copy it again or rerun the training.",
    )


def _read_tuned(folder: Path, stated: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The trained parameters of the backbone; none where it was frozen."""
    path = folder / TUNED_FILE
    if not stated.get("tuned"):
        if path.exists():
            raise BundleError(
                "bundle.json knows of no trained backbone, but here lies one.",
                where=str(path),
                fix="Remove it, or copy the bundle.json that it belongs to.",
            )
        return {}
    if not path.exists():
        raise BundleError(
            "the backbone was trained with the prompt, and its weights are missing.",
            where=str(path),
            fix=f"Copy {TUNED_FILE} along with the prompt.",
        )
    _check_hash(path, "backbone", str(stated.get("tuned_sha256")))
    return read_tensors(path)


class RunFolder:
    """One run on disk.

    Args:
        path: the folder; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def record(self) -> dict[str, Any]:
        """The content of run.json."""
        return read_json(self.path / "run.json")

    @property
    def status(self) -> str | None:
        """`running`, `done`, `diverged`; None where there is no run."""
        return str(self.record.get("status")) if (self.path / "run.json").exists() else None

    def begin(self, config: Mapping[str, Any], record: Mapping[str, Any], size: int = 0) -> None:
        """Create the folder and say that the run has started; whoever calls it holds the folder.

        Args:
            size: bytes that the run will need beyond what every run does, for a trained backbone.

        Raises:
            StorageError: the folder cannot be made, or the disk is nearly full.
        """
        is_new = self.status is None
        sweep(self.path)
        free = shutil.disk_usage(next(p for p in (self.path, *self.path.absolute().parents) if p.exists())).free
        needed = _ROOM_BYTES + size
        if free < needed:
            raise StorageError(
                f"there are {free >> 20} MiB left on the disk, a run needs {needed >> 20}.", where=str(self.path)
            )
        try:
            write_text(self.path / "config.yaml", dump_yaml(dict(config)))
            write_json(self.path / "run.json", {"schema": SCHEMA_VERSION, **record, "status": "running"})
        except TrimtabError:
            if is_new:
                shutil.rmtree(self.path, ignore_errors=True)
            raise

    def clear(self) -> None:
        """Remove what an earlier try left; only config and record stay."""
        with told("folder", self.path):
            for file in (self.path / "bundle.json", *self.path.glob("*.safetensors"), *self.path.glob("*.jsonl")):
                file.unlink(missing_ok=True)

    def write_history(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Write metrics.jsonl: one line per evaluation on the dev split."""
        write_jsonl(self.path / "metrics.jsonl", events)

    def write_predictions(self, split: str, records: Iterable[Mapping[str, Any]]) -> None:
        """Write predictions.<split>.jsonl."""
        write_jsonl(self.path / f"predictions.{split}.jsonl", records)

    def write_findings(self, findings: Mapping[str, Iterable[Mapping[str, Any]]]) -> None:
        """Write what regularizers have kept to be read, a JSONL file for each."""
        for name, records in findings.items():
            write_jsonl(self.path / f"{name}.jsonl", records)

    def finish(self, record: Mapping[str, Any], status: str) -> dict[str, Any]:
        """Write the final run.json and return its content; from then on the folder survives a power cut."""
        final = {"schema": SCHEMA_VERSION, **record, "status": status}
        write_json(self.path / "run.json", final)
        settle(self.path)
        return final


def list_runs(runs_dir: Path) -> list[RunFolder]:
    """Run folders under a directory, by name."""
    return [RunFolder(p.parent) for p in sorted(runs_dir.glob("*/run.json"))]


def prompt_sha256(folder: Path) -> str | None:
    """SHA-256 of the prompt of a bundle or run folder; None where it has none."""
    path = folder / "prompt.safetensors"
    return sha256_of(path) if path.exists() else None


def find_run(name: str, runs_dir: Path) -> Path:
    """A run folder or bundle by path, or a run under `runs_dir` by its id or the unique beginning or end of it.

    Raises:
        BundleError: nothing, or more than one, is so called.
    """
    if os.path.isdir(name):  # False also of what no file can be called
        return Path(name)
    ids = [r.path.name for r in list_runs(runs_dir)]
    matches = [name] if name in ids else [i for i in ids if i.startswith(name) or i.endswith(name)]
    if len(matches) == 1:
        return runs_dir / matches[0]
    if matches:
        raise BundleError(f"{name!r} fits {len(matches)} runs: {', '.join(matches[:5])}.", where=str(runs_dir))
    raise BundleError(f"there is no run or bundle {name!r}.", where=str(runs_dir), fix=suggest(name, ids) or None)


def read_prompt(folder: Path) -> np.ndarray:
    """The trained prompt [P,E] of a run or bundle."""
    return read_bundle(folder).prompt
