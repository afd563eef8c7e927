"""The embedded models: small enough to ship, trained enough to know English, with cards that say what was measured."""

from __future__ import annotations

import json

import pytest
import torch

from trimtab.backbones import load_backbone
from trimtab.backbones.loading import ASSETS, embedded_models

MODELS = {"nano-masked": "cloze", "nano-causal": "ranking", "nano-seq2seq": "ranking"}


def test_there_is_one_of_a_kind() -> None:
    assert set(embedded_models()) == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_an_embedded_model_is_small_and_its_card_says_how_good_it_is(name: str) -> None:
    folder = ASSETS / name
    assert (folder / "model.safetensors").stat().st_size <= 12_000_000
    measured = json.loads((folder / "training.json").read_text())
    card = " ".join((folder / "README.md").read_text().split())
    assert measured["tokens_seen"] >= 30e6 - measured["settings"]["batch_tokens"]
    assert f"{measured['heldout_loss']:.3f} nats" in card
    assert measured["heldout_loss"] < 0.6 * measured["unigram_entropy"]
    for word in ("CC BY-SA", "Apache-2.0", f"seed {measured['settings']['seed']}", "scripts/pretrain_nano.py"):
        assert word in card, word


def test_all_share_one_vocabulary() -> None:
    vocabularies = [load_backbone(name, device="cpu").encoder.tokenizer.get_vocab() for name in MODELS]
    assert all(v == vocabularies[0] for v in vocabularies)


@pytest.mark.parametrize("name", MODELS)
def test_it_is_read_as_its_family_is(name: str) -> None:
    backbone = load_backbone(name, device="cpu")
    assert backbone.family.readouts[0] == MODELS[name]
    assert backbone.dtype in (torch.bfloat16, torch.float32)
    assert backbone.max_positions == 256
