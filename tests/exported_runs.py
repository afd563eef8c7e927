"""Short runs on tiny models of many families, and what they say of a text, to hold exports against."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from tests.contract.tiny_families import BUILDERS, VARIANTS
from tests.contract.toy_runs import toy_run
from tests.tiny import tiny_backbone
from trimtab.exporting import Source
from trimtab.predictor import Predictor
from trimtab.training.runs import run_pack
from trimtab.types import Row

TEXTS = ("the old cat was big", "a dog", "the big red book is good, and the sun was not")


def model_folder(folder: Path, name: str) -> Path:
    """The tiny model of a family, written once."""
    place = folder / name.replace(":", "-")
    return place if place.exists() else {**BUILDERS, **VARIANTS}[name](place)


def trained(folder: Path, model: Path, recipe: Mapping[str, Any], **task: Any) -> Path:
    """The folder of a run of one step. The step is large, so that its prompt is far from all words."""
    sections = {"training": {"max_steps": 1, "evaluations": 1, "learning_rate": 0.3}, **recipe}
    return Path(run_pack([toy_run(folder, tiny_backbone(model), sections, n=8, **task)], folder / "runs")[0]["run"])


def bundle_folder(run: Path, folder: Path, change: Any = None, **tensors: Any) -> Path:
    """A copy of a run's bundle; `change` edits its bundle.json, `tensors` are put beside or in the place of its own."""
    from safetensors.numpy import load_file, save_file

    folder.mkdir(parents=True, exist_ok=True)
    its = {**load_file(run / "prompt.safetensors"), **tensors}
    metadata = json.loads((run / "bundle.json").read_text())
    metadata["prompt"] |= {"tensors": {n: list(v.shape) for n, v in its.items()}, "shape": list(its["inputs"].shape)}
    metadata["prompt"].pop("sha256")
    if change is not None:
        change(metadata)
    save_file(its, folder / "prompt.safetensors")
    (folder / "bundle.json").write_text(json.dumps(metadata))
    return folder


def about(folder: Path, task: int = 0) -> dict[str, Any]:
    """What trimtab.json says of a task."""
    found: dict[str, Any] = json.loads((folder / "trimtab.json").read_text())["tasks"][task]
    return found


def row_of(predictor: Predictor, text: str, **fields: str) -> Row:
    """A text as the run reads it."""
    given = {"text": text, **fields}
    return predictor.rendering.row(predictor.examples([given])[0], predictor.model.backbone.encoder, 0)


@torch.no_grad()
def hidden(predictor: Predictor, row: Row) -> Tensor:
    """The hidden state at the first position that the run reads."""
    prompted = predictor.model.prompted
    return prompted.at_reads(prompted.collate([row]), predictor.table)[0][0, 0]


@torch.no_grad()
def logits(predictor: Predictor, row: Row) -> Tensor:
    """The scores of all words at the first position that the run reads."""
    backbone = predictor.model.backbone
    family, model = backbone.family, backbone.model
    features = family.vocabulary_features(model, hidden(predictor, row)[None, None])
    weight, bias = family.vocabulary_rows(model, slice(None))
    return family.squash(model, features @ weight.T + bias)[0, 0]


def written(predictor: Predictor, text: str, count: int = 6) -> list[int]:
    """What the run writes after a text, greedily."""
    return list(predictor.model.prompted.generate_rows([row_of(predictor, text)], predictor.table, 512, count)[0])


def until_end(tokens: list[int], predictor: Predictor) -> list[int]:
    """Tokens before the end."""
    end = predictor.model.backbone.encoder.end_id
    return tokens[: tokens.index(end)] if end in tokens else tokens


def plain(folder: Path, source: Source) -> Any:
    """A model as transformers loads it, with its head."""
    family = source.predictor.model.backbone.family
    return getattr(transformers, family.auto_class).from_pretrained(folder).eval()
