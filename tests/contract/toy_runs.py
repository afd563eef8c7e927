"""Small runs for contract tests: contexts, encoders, prepared runs and a loop that records what it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.tiny import toy_rows, toy_task
from trimtab.backbones import Backbone
from trimtab.config import resolve
from trimtab.initializers import PromptContext
from trimtab.model import PromptedModel
from trimtab.prompts import PromptEncoder
from trimtab.readouts import Readout
from trimtab.registry import prompts, readouts
from trimtab.rendering import Rendering
from trimtab.seeding import torch_stream
from trimtab.templates import Template
from trimtab.training.loop import Loop
from trimtab.training.preparing import Prepared, prepare
from trimtab.types import AnswerPlan, Batch, Example, Fill, Row, WordPlan
from trimtab.verbalizers import Verbalizer

LENGTH = 5

VARIANTS: dict[str, list[dict[str, Any]]] = {
    "dept": [{"rank": 3, "text_length": 4, "scale": "paper"}],
    "smop": [{"prompts": 2, "noise": 0.0, "router": "paper"}],
    "dpt": [{"rank": 2, "range": 0.5}, {"rank": 3, "initializer": "sampled_vocab"}],
    "superpos": [{"words": 40, "tune_words": True}],
    "p_tuning_lstm": [{"width": "full"}],
    "p_tuning_mlp": [{"width": 7}],
    "residual": [
        {"bottleneck": 16},
        {"bottleneck": 16, "shared": False},
        {"bottleneck": 16, "layer_norm": "on"},
        {"bottleneck": 16, "layer_norm": "off"},
        {"bottleneck": 16, "dropout": 0.2},
        {"bottleneck": 16, "shared": False, "layer_norm": "off", "dropout": 0.2},
    ],
}
"""Options worth testing beside the defaults; a new kind is tested with its defaults without an entry here."""

TINY: dict[str, dict[str, Any]] = {"superpos": {"words": 50}}
"""Options in the place of defaults that a vocabulary of a hundred words is too small for."""

ENCODERS: list[dict[str, Any]] = [
    {"kind": kind, **options}
    for kind in prompts.kinds()
    if "length" in prompts.options(kind) and not prompts.options(kind).keys() & {"layers"}
    for options in [TINY.get(kind, {}), *VARIANTS.get(kind, [])]
]
"""Encoders of input prompts."""


def firsts(specs: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The first of each kind: its defaults."""
    return list({s["kind"]: s for s in reversed(specs)}.values())[::-1]


def others_slow(specs: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Parameters of a test that takes seconds: variants of a kind are left to `make test-all`."""
    first = firsts(specs)
    return [s if s in first else pytest.param(s, marks=pytest.mark.slow) for s in specs]


def name_of(spec: Mapping[str, Any]) -> str:
    """A short test id for a component."""
    return "-".join([spec["kind"], *(f"{k}={v}" for k, v in spec.items() if k != "kind")])


def context(size: int = 32, seed: int = 0, vocabulary: int = 60) -> PromptContext:
    """What an encoder may know, without a backbone. The embeddings do not depend on the seed, the draws do."""
    embeddings = 0.3 * torch.randn(vocabulary, size, generator=torch.Generator().manual_seed(99))
    return PromptContext(
        embeddings=embeddings,
        embedding_rms=float(embeddings.square().mean().sqrt()),
        words=range(5, vocabulary),
        label_ids=[7, 8],
        encode=lambda text: [10 + len(word) for word in text.split()],
        generator=torch_stream(seed, "init"),
    )


def searches(kind: str) -> bool:
    """Whether prompts of a kind are words that are searched for."""
    return hasattr(prompts.get(kind), "alternatives")


def build(spec: Mapping[str, Any], seed: int = 0, size: int = 32, length: int = LENGTH) -> PromptEncoder:
    """An encoder of the registry, its random values from `seed` alone."""
    resolved = prompts.resolve({**spec, "length": length}, "prompt")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return prompts.build(resolved, context(size, seed))


def toy_rendering(backbone: Backbone, length: int = LENGTH, template: str = "{prompt} {text} {answer}.") -> Rendering:
    """The toy task's template and label words, read as the backbone's family is by default."""
    words = Verbalizer.of({"positive": ["yes", "good"], "negative": ["no"]})
    readout = readouts.resolve(backbone.family.readouts[0], "readout")
    return Rendering(Template.parse(template, length), words, backbone.max_positions, readout)


def toy_examples(n: int, seed: int = 0) -> list[Example]:
    """Examples of the toy task."""
    return [Example(r["id"], {"text": r["text"]}, r["label"]) for r in toy_rows(n, seed)]


def rows_of(backbone: Backbone, rendering: Rendering, n: int, seed: int = 0, prompt: int = 0) -> list[Row]:
    """Rendered toy rows, all for one prompt."""
    return [rendering.row(e, backbone.encoder, prompt) for e in toy_examples(n, seed)]


def reader(backbone: Backbone, rendering: Rendering, **options: Any) -> Readout:
    """The readout of a rendering."""
    return readouts.build({**rendering.readout, **options}, backbone, [rendering.plan(backbone.encoder)])


def one_mask(words: Sequence[Sequence[int]], mask_id: int = 4) -> AnswerPlan:
    """The plan of label words of one token each, read at one mask: `words[c]` holds the ids of class c."""
    plans = tuple(tuple(WordPlan(0, (i,)) for i in ids) for ids in words)
    return AnswerPlan((Fill((mask_id,), (0,)),), plans)


def batch_read_by(entries: Sequence[int]) -> Batch:
    """Examples of one row each, of which a readout needs to know no more than the entry that reads them."""
    n = len(entries)
    column, row = torch.zeros(n, 1, dtype=torch.long), torch.arange(n)
    return Batch(
        ids=column, attention_mask=column + 1, position_ids=column, slots=column - 1, answer_at=column,
        answers=row * 0 + 1, eligible=column > 0, prompt_of=row * 0 - 1, keys=row, example_of=row,
        readout_of=torch.tensor(entries), labels=row * 0,
    )  # fmt: skip


def toy_run(
    folder: Path, backbone: Backbone, recipe: Mapping[str, Any] | None = None, n: int = 32, **task: Any
) -> Prepared:
    """A prepared run on the toy; `recipe` holds sections over small defaults."""
    recipe = dict(recipe or {})
    prompt = {"kind": "prompt_tuning", "length": LENGTH, **recipe.pop("prompt", {})}
    training = {
        "learning_rate": 0.01, "max_steps": 20, "epochs": 20, "batch_size": 8, "evaluations": 2,
        **recipe.pop("training", {}),
    }  # fmt: skip
    sections = {"task": toy_task(folder, n, **task), "seed": 1, **recipe, "prompt": prompt, "training": training}
    return prepare(resolve(sections).config, backbone)


class RecordingLoop(Loop):
    """The loop, keeping every member's prompt after each update and which runs each step trained."""

    latest: RecordingLoop

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        RecordingLoop.latest = self
        self.prompts: list[Tensor] = []
        self.trained: list[list[int]] = []
        self.losses: dict[int, list[float]] = {r: [] for r in range(len(self.members))}

    def _step(self, batches: Mapping[int, Sequence[int]]) -> None:
        super()._step(batches)
        self.trained.append(list(batches))
        with torch.no_grad():
            self.prompts.append(self.pack.table(training=False).inputs.clone())

    def _update(self, batches: Mapping[int, Sequence[int]], losses: Tensor, norms: Tensor) -> None:
        for r in batches:
            self.losses[r].append(float(losses[r]))
        super()._update(batches, losses, norms)


def model_of(prepared: Prepared) -> PromptedModel:
    """Backbone and readout of a prepared run."""
    return PromptedModel(prepared.backbone, reader(prepared.backbone, prepared.rendering))
