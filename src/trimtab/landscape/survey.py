"""From run folders to landscapes: the same examples for all runs, one backbone for all, and files in each folder."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trimtab.backbones import Backbone
from trimtab.documents import read_yaml
from trimtab.errors import ConfigError, DataError, suggest
from trimtab.landscape.point import MAX_TOKENS, loss_at, opened
from trimtab.landscape.surface import Landscape, write_landscape
from trimtab.landscape.views import VIEWS, Settings, Subject, Tell
from trimtab.predictor import Predictor
from trimtab.seeding import stream
from trimtab.storage import read_bundle
from trimtab.training.encoders import label_ids
from trimtab.training.records import environment
from trimtab.types import Example


@dataclass(frozen=True)
class Sample:
    """The examples on which the loss of all runs is taken.

    Attributes:
        split: that they are drawn from.
        seed: of the draw.
    """

    split: str
    seed: int
    examples: tuple[Example, ...]

    def as_json(self) -> dict[str, Any]:
        """Ids, and a digest of texts and labels."""
        told = json.dumps([[e.id, dict(e.fields), e.label] for e in self.examples], sort_keys=True)
        ids, digest = [e.id for e in self.examples], hashlib.sha256(told.encode()).hexdigest()
        return {"split": self.split, "seed": self.seed, "examples": ids, "sha256": digest}


def sampled(splits: Sequence[Sequence[Example]], split: str, count: int, seed: int) -> Sample:
    """Examples that all runs have in a split, in the order of the first.

    Args:
        splits: of each run, the examples of the split.
        count: how many are drawn; all, if there are fewer.

    Raises:
        DataError: the runs have none in common.
        ConfigError: fewer than one is asked for.
    """
    if count < 1:
        raise ConfigError(f"the loss is taken on one example at least, got {count}.", where="--examples")
    known = [{_told(e) for e in its} for its in splits[1:]]
    common = [e for e in splits[0] if all(_told(e) in its for its in known)]
    if not common:
        raise DataError(
            f"runs are compared on the same examples, and these have none of {split!r} in common.",
            where="landscape",
            fix="Compare runs of one task with the same data.",
        )
    order = stream(seed, "landscape:examples").permutation(len(common))[:count]
    return Sample(split, seed, tuple(common[i] for i in sorted(order)))


def open_subjects(
    folders: Sequence[Path],
    sample: Sample,
    *,
    task: str | None = None,
    device: str = "auto",
    max_tokens: int = MAX_TOKENS,
) -> list[Subject]:
    """The runs, ready to be looked at; those with the same backbone share it.

    Args:
        task: which one, if the runs are on several.

    Raises:
        ConfigError: a run is named twice, or they have different backbones.
        BundleError, BackboneError, DataError, TemplateError: see `trimtab.load` and the task.
    """
    if len(set(map(str, folders))) < len(folders):
        raise ConfigError("each run is named once.", where=", ".join(map(str, folders)), fix="Leave the second out.")
    opened_runs: list[Predictor] = []
    shared: dict[str, Backbone] = {}
    for folder in folders:
        stated = read_bundle(folder).metadata["backbone"]
        told = json.dumps([stated["model"], stated["options"]], sort_keys=True)
        own = None if stated.get("tuned") else shared.get(told)
        opened_runs.append(opened(folder, task=task, backbone=own, device=device))
        if not stated.get("tuned"):
            shared[told] = opened_runs[-1].model.backbone
    prints = {str(f): p.metadata["backbone"]["fingerprint"] for f, p in zip(folders, opened_runs, strict=True)}
    if len(set(prints.values())) > 1:
        raise ConfigError(
            f"runs are compared on one backbone, got {len(set(prints.values()))}: directions and units would not be "
            "the same.",
            where=", ".join(prints),
            fix="Call trimtab landscape for each backbone.",
        )
    labels = labels_of(folders)
    return [
        Subject(
            folder,
            label,
            loss_at(run, sample.examples, max_tokens),
            bool(run.metadata["backbone"].get("tuned")),
            _facts(run, sample),
            tuple(label_ids(run.rendering, run.model.backbone.encoder)),
        )
        for folder, label, run in zip(folders, labels, opened_runs, strict=True)
    ]


def survey(
    subjects: Sequence[Subject], views: Sequence[str], settings: Settings, tell: Tell = lambda event: None
) -> list[tuple[Subject, Landscape]]:
    """Compute views and write each into the folder of its run.

    Args:
        views: of `trimtab.landscape.views.VIEWS`.
        tell: receives an event after every pass, and one when a view of a run is written.

    Raises:
        ConfigError: there is no such view, or the runs do not suit it; see the views.
    """
    check_views(views)
    found: list[tuple[Subject, Landscape]] = []
    for view in views:
        begun = time.monotonic()
        for subject, its in VIEWS[view](subjects, settings, tell):
            seconds = round(time.monotonic() - begun, 3)  # of all runs of the view up to this one
            whole = replace(its, facts={**its.facts, "settings": asdict(settings), "seconds": seconds})
            files = write_landscape(subject.folder, whole)
            found.append((subject, whole))
            tell({"event": "written", "run": subject.label, "view": view, "files": files})
    return found


def check_views(views: Sequence[str]) -> None:
    """Refuse views that there are not.

    Raises:
        ConfigError: such.
    """
    for view in views:
        if view not in VIEWS:
            raise ConfigError(f"there is no view {view!r}.", where="--view", fix=suggest(view, VIEWS))


def labels_of(folders: Sequence[Path]) -> list[str]:
    """What tells runs apart, in few words: prompt, regularizers, and where these are the same their seeds, or the end
    of their ids."""
    configs = [_config(folder) for folder in folders]
    names = [_method(c) if c else f.name for f, c in zip(folders, configs, strict=True)]
    for extra in (_seeds(configs), [folder.name.rpartition("-")[2] for folder in folders]):
        names = [f"{n}, {x}" if names.count(n) > 1 and x else n for n, x in zip(names, extra, strict=True)]
    return names


def _config(folder: Path) -> Mapping[str, Any]:
    """The config of a run; nothing for a bundle."""
    path = folder / "config.yaml"
    found: Mapping[str, Any] = read_yaml(path) if path.exists() else {}
    return found


def _method(config: Mapping[str, Any]) -> str:
    """The prompt and what regularizes it."""
    extra = [r["kind"] for r in config.get("regularizers", ()) if r.get("weight", 1)]
    return " + ".join([config["prompt"]["kind"], *extra])


def _seeds(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The seeds that differ among runs; one, where it stands for all of them."""
    each = [config.get("seeds", {}) for config in configs]
    differ = [k for k in each[0] if len({its.get(k) for its in each}) > 1]
    found = []
    for its in each:
        values = {its.get(k) for k in differ}
        is_one = len(values) == 1 and len(differ) == len(each[0])
        told = [str(*values)] if is_one else [f"{k.replace('_', ' ')} {its.get(k)}" for k in differ]
        found.append("seed " + ", ".join(told) if differ else "")
    return found


def _facts(run: Predictor, sample: Sample) -> dict[str, Any]:
    """What is recorded of a run and of how it was looked at."""
    return {
        "batch": sample.as_json(),
        "loss": "mean over the examples, nats",
        "backbone": run.metadata["backbone"]["model"],
        "prompt": run.metadata["prompt"]["kind"],
        "task": run.metadata["task"]["name"],
        "data_fingerprint": run.metadata.get("provenance", {}).get("data_fingerprint"),
        "environment": environment(run.model.backbone),
        "computed": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _told(example: Example) -> str:
    """What an example says, to be compared."""
    return json.dumps(
        [dict(example.fields), example.label, example.words, example.tags, example.answers], sort_keys=True
    )
