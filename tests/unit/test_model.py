"""What a model is asked to write, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.contract.test_backbone_families import table_of
from tests.contract.tiny_families import BUILDERS
from tests.contract.toy_runs import reader, rows_of, toy_rendering
from tests.unit.refusals import refused
from trimtab.backbones import Backbone, load_backbone
from trimtab.errors import BackboneError
from trimtab.model import PromptedModel
from trimtab.types import Batch, Row


def asked(folder: Path, kind: str, words: list[list[int]]) -> tuple[PromptedModel, list[Row], list[Batch]]:
    """A model whose family says `words`, whatever it reads, its rows, and the batches that it will be given."""
    backbone = load_backbone(str(BUILDERS[kind](folder)), dtype="float32", device="cpu")
    batches: list[Batch] = []

    class Says(type(backbone.family)):  # type: ignore[misc]
        def generate(self, model: Any, batch: Batch, *rest: Any) -> torch.Tensor:
            batches.append(batch)
            return torch.tensor([words[key] for key in batch.keys.tolist()])

    rendering = toy_rendering(backbone)
    rows = [replace(row, key=i) for i, row in enumerate(rows_of(backbone, rendering, len(words)))]
    return PromptedModel(replace(backbone, family=Says()), reader(backbone, rendering)), rows, batches


def test_a_text_goes_up_to_the_first_end_token_and_comes_without_pads(tmp_path: Path) -> None:
    model, rows, _ = asked(tmp_path, "llama", [[5, 6, 2, 0], [2, 0, 0, 0], [5, 6, 7, 8], [0, 5, 2, 2]])
    assert (model.backbone.encoder.end_id, model.backbone.pad_id) == (2, 0)
    assert model.generate_rows(rows, None, 1000, 4) == [(5, 6), (), (5, 6, 7, 8), (0, 5)]


def test_a_backbone_without_an_end_token_writes_on_to_the_last(tmp_path: Path) -> None:
    model, rows, _ = asked(tmp_path, "llama", [[5, 2], [2, 0]])
    model.backbone.encoder.end_id = None
    assert model.generate_rows(rows, None, 1000, 2) == [(5, 2), (2, 0)]


def test_nothing_is_recorded_for_gradients(tmp_path: Path) -> None:
    model, rows, _ = asked(tmp_path, "llama", [[5], [6]])
    recorded: list[bool] = []

    class Watches(type(model.backbone.family)):  # type: ignore[misc]
        def generate(self, inner: Any, batch: Batch, embeds: torch.Tensor | None, *rest: Any) -> torch.Tensor:
            assert embeds is not None
            recorded.extend((torch.is_grad_enabled(), embeds.requires_grad))
            return super().generate(inner, batch, embeds, *rest)

    watched = replace(model, backbone=replace(model.backbone, family=Watches()))
    watched.generate_rows(rows, table_of(model.backbone).detached(), 1000, 1)
    assert recorded == [False, False]


def test_the_budget_counts_new_tokens_too(tmp_path: Path) -> None:
    model, rows, batches = asked(tmp_path, "llama", [[5]] * 6)
    longest = max(len(row.encoded.opened()) for row in rows)
    assert model.generate_rows(rows, None, 6 * (longest + 9), 9) == [(5,)] * 6
    assert len(batches) == 1
    model.generate_rows(rows, None, 6 * (longest + 9) - 1, 9)
    assert len(batches) == 3


def test_decoders_of_different_lengths_are_not_written_on_together(tmp_path: Path) -> None:
    model, rows, batches = asked(tmp_path, "bart", [[5], [6], [7]])
    longer = replace(rows[1].encoded, decoder=(*rows[1].encoded.decoder[:1], 3, 3, 0), answer_at=(3,))
    assert model.generate_rows([rows[0], replace(rows[1], encoded=longer), rows[2]], None, 1000, 1) == [
        (5,),
        (6,),
        (7,),
    ]
    assert sorted(len(batch) for batch in batches) == [1, 2]


def test_no_rows_no_texts(backbone: Backbone) -> None:
    assert PromptedModel(backbone, reader(backbone, toy_rendering(backbone))).generate_rows([], None, 100, 5) == []


@pytest.mark.parametrize(("kind", "what"), [("llama", "tokens and 60 new ones need"), ("bart", "2 tokens and 63 new")])
def test_a_row_without_room_for_new_tokens_is_refused(kind: str, what: str, tmp_path: Path) -> None:
    model, rows, batches = asked(tmp_path, kind, [[5], [6]])
    with refused(BackboneError, what, where="backbone.model", fix="task.max_length"):
        model.generate_rows(rows, None, 1000, 60 if kind == "llama" else 63)
    assert not batches


def test_a_masked_language_model_does_not_write(backbone: Backbone) -> None:
    rendering = toy_rendering(backbone)
    model = PromptedModel(backbone, reader(backbone, rendering))
    with refused(BackboneError, "cannot write text", where="backbone.model", fix="Use a causal model"):
        model.generate_rows(rows_of(backbone, rendering, 2), None, 1000, 4)
