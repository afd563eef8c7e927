"""Backbones for checks beside the tiny BERT."""

from __future__ import annotations

import pytest

from tests.contract.tiny_families import BUILDERS
from trimtab.backbones import Backbone, load_backbone


@pytest.fixture(scope="session")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A tiny GPT-2, float32 on the CPU."""
    folder = BUILDERS["gpt2"](tmp_path_factory.mktemp("models") / "tiny-gpt2")
    return load_backbone(str(folder), dtype="float32", device="cpu")
