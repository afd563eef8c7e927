"""A genuine causal model reads its tokens rightly: it expects a story, and not the same words in another order."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch

from tests.tiny import toy_rows, toy_task
from trimtab import api
from trimtab.backbones import Backbone, load_backbone

PARAGRAPH = (
    "Once there was a small duck named Dot. Dot lived near a pond with her mom. One day, she saw a red kite in a tall "
    'tree. "Mom, can we get it?" she asked. Her mom said, "We need to ask the bird for help." The bird was kind and '
    "flew up to the top of the tree. It gave the kite to Dot, and she was so happy. They all played with the kite "
    "until the sun went down."
)
GOLDEN = json.loads((Path(__file__).parent / "numbers.json").read_text())["stories260k_paragraph_loss"]

pytestmark = pytest.mark.shared


@pytest.fixture(scope="module")
def folder(shared: Path) -> Path:
    folder = shared / "models/stories260k"
    if not folder.is_dir():
        pytest.skip("needs models/stories260k in the data folder beside the repository")
    return folder


def loss(backbone: Backbone, text: str) -> float:
    """Nats per token, BOS given."""
    ids = torch.tensor([[*backbone.encoder.prefix, *backbone.encoder.encode(text).ids]])
    with torch.no_grad():
        return float(backbone.model(input_ids=ids, labels=ids).loss)


def test_a_story_is_expected_and_its_shuffled_words_are_not(folder: Path) -> None:
    backbone = load_backbone(str(folder), dtype="float32", device="cpu")
    told = loss(backbone, PARAGRAPH)
    assert told == pytest.approx(GOLDEN["value"], abs=GOLDEN["tolerance"])
    words = PARAGRAPH.split()
    for seed in range(3):
        random.Random(seed).shuffle(words)
        assert loss(backbone, " ".join(words)) > 3 * told


def test_from_recipe_to_predictions(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a pad token, with label words of one and of several tokens."""
    monkeypatch.chdir(tmp_path)
    words = {"positive": ["happy", "good"], "negative": ["sad"]}
    task = toy_task(tmp_path, template="{prompt} {text} was {answer}.", label_words=words)
    recipe = {
        "backbone": {"model": str(folder), "dtype": "float32"},
        "task": task,
        "prompt": {"kind": "prompt_tuning", "length": 4},
        "training": {"max_steps": 60, "min_steps": 60, "evaluations": 3, "learning_rate": 0.05},
    }
    api.validate(recipe)
    record = api.run(recipe, runs_dir=tmp_path / "runs")
    assert record["metrics"]["test"]["accuracy"] > 0.8 > record["baselines"]["majority"]
    rows = toy_rows(12, seed=9)
    found = api.predict(record["run"], [{"text": row["text"]} for row in rows])
    assert sum(p.label == row["label"] for p, row in zip(found, rows, strict=True)) >= 10
