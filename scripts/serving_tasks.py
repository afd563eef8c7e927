"""Prompts and questions for the benchmarks of serving: one prompt is trained briefly, the others are made from it.

What a prompt holds does not change what it costs, but answers must tell prompts apart. So each has values of its own
(those of the trained one, and noise as large as they are) and label words of its own, drawn from the vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from trimtab import api
from trimtab.backbones import Backbone
from trimtab.storage import Bundle, read_bundle

CLASSES = 4
CAUSAL = "{prompt} {text} topic: {answer}"


@dataclass(frozen=True)
class Kind:
    """What is served: a prompt on a model, and how its answers are read."""

    model: str
    prompt: Mapping[str, Any]
    readout: Mapping[str, Any]
    template: str | None = None

    @property
    def length(self) -> int:
        return int(self.prompt["length"])


def trained(kind: Kind, dtype: str) -> Bundle:
    """The bundle of a run of two steps on the support desk's texts."""
    task = {"kind": "support_desk", "shots": 2, "test_rows": 6} | ({"template": kind.template} if kind.template else {})
    recipe = {
        "seed": 0,
        "backbone": {"model": kind.model, "dtype": dtype},
        "task": task,
        "prompt": dict(kind.prompt),
        "readout": dict(kind.readout),
        "training": {"max_steps": 2, "min_steps": 1, "epochs": 1, "batch_size": 8},
    }
    with TemporaryDirectory() as folder:
        return read_bundle(Path(api.run(recipe, runs_dir=folder)["run"]))


def variants(bundle: Bundle, backbone: Backbone, count: int) -> list[Bundle]:
    """As many prompts of its shape, with values and label words of their own; bundles with a head keep the classes."""
    words = _single_words(bundle, backbone)
    found = []
    for i in range(count):
        generator = np.random.default_rng(i)
        tensors = {n: _moved(v, generator, 5.0 if n.startswith("head.") else 1.0) for n, v in bundle.tensors.items()}
        task = dict(bundle.metadata["task"])
        if not any(name.startswith("head.") for name in tensors):
            chosen = generator.choice(len(words), CLASSES, replace=False)
            task["label_words"] = {f"class {k}": [words[j]] for k, j in enumerate(chosen)}
        found.append(replace(bundle, metadata={**bundle.metadata, "task": task}, tensors=tensors))
    return found


def _moved(values: np.ndarray, generator: np.random.Generator, times: float) -> np.ndarray:
    scale = times * float(values.std()) if values.size else 0.0
    return (values + scale * generator.standard_normal(values.shape)).astype(np.float32)


def _single_words(bundle: Bundle, backbone: Backbone) -> list[str]:
    """Words of plain letters that are one token where an answer stands."""
    encoder = backbone.encoder
    spaced = encoder.is_causal or "{answer}" in bundle.metadata["task"]["template"]
    found = []
    for token in sorted(encoder.tokenizer.get_vocab()):
        word = token.lstrip("Ġ▁")
        if len(word) > 3 and word.isascii() and word.isalpha() and len(encoder.answer(word, spaced=spaced)) == 1:
            found.append(word.lower())
    return sorted({*found})


def texts() -> list[str]:
    """What is asked: the held-out messages of the support desk, 7 to 54 tokens of nano's."""
    path = files("trimtab") / "assets" / "support_desk" / "test.jsonl"
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]


@dataclass(frozen=True)
class Job:
    """One question: which task, and which text. `bare`: without the prompt."""

    task: str
    text: str
    bare: bool = False


def jobs(names: Sequence[str], count: int, seed: int = 0) -> list[Job]:
    """Questions to these tasks in a random order, each task as likely as another."""
    generator, known = np.random.default_rng(seed), texts()
    tasks, asked = generator.integers(len(names), size=count), generator.integers(len(known), size=count)
    return [Job(names[t], known[a]) for t, a in zip(tasks, asked, strict=True)]
