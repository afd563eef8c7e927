"""Prompts that look at the text (offsets of its embeddings, routers) keep what others promise, in tables of both sorts.

The checks are those of all families, on a table whose prompt 0 is chosen by a router and whose prompt 1 moves the text;
the reference works both out token by token, for one row at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.contract import test_backbone_families as matrix
from tests.contract import test_generation as writing
from tests.contract.test_decoder_prompts import BOTH
from tests.contract.toy_runs import LENGTH, rows_of, toy_rendering
from trimtab import injection, model
from trimtab.backbones import Backbone, load_backbone
from trimtab.batching import collate
from trimtab.injection import Route, choose
from trimtab.prompt_table import PromptTable, Routing
from trimtab.types import Batch, Encoded, Row

family_folder = matrix.family_folder
own_logits = matrix.own_logits

QUICK = ("bert", "deberta-v2", "gpt2", "llama", "t5", "bart")
PROMPTS = 3
"""That the router of prompt 0 chooses from."""
MOVED = 3
"""Tokens of a text that prompt 1 moves: fewer than some have."""
CHECKS = (
    matrix.check_padding_and_mates,
    matrix.check_sides_agree,
    matrix.check_bare_rows,
    matrix.check_scores,
    matrix.check_long_words,
)


def mixed_table(backbone: Backbone, prompts: int = 2) -> PromptTable:
    """Prompt 0 is one of three, by a router; prompt 1 has an offset; zero-padded to each other's size. Each behind
    these is one of two. Each prompt of 0 is for one of the toy's texts."""
    generator = torch.Generator().manual_seed(5)
    size, rms = backbone.embedding_size, backbone.embedding_rms
    counts = torch.tensor([PROMPTS, 1, *[2] * (prompts - 2)])
    inputs = torch.randn(prompts, PROMPTS * LENGTH, size, generator=generator) * rms
    means = [mean_text(backbone, row.encoded) for row in rows_of(backbone, toy_rendering(backbone), 6)]
    apart = torch.stack(means)[0::2] - torch.stack(means).mean(0)  # of the rows that prompt 0 has
    weights = 3 * torch.randn(prompts, PROMPTS, size, generator=generator) / rms
    weights[0] = 2 * apart / apart.square().sum(1, keepdim=True)
    offsets = torch.randn(prompts, MOVED, size, generator=generator) * rms
    for r, count in enumerate(counts.tolist()):
        inputs[r, count * LENGTH :] = 0.0
        weights[r, count if count > 1 else 0 :] = 0.0
        offsets[r] *= count == 1
    return PromptTable(inputs, offsets=offsets, routing=Routing(weights, counts, torch.full((prompts,), LENGTH)))


def text_of(backbone: Backbone, encoded: Encoded) -> list[int]:
    """Positions of the text: what is no slot, special token or answer."""
    special, end = set(backbone.encoder.tokenizer.all_special_ids), len(encoded)
    if backbone.family.is_causal:
        end = encoded.answer_slot
    return [i for i in range(end) if encoded.ids[i] not in special and i not in encoded.slots]


@torch.no_grad()
def mean_text(backbone: Backbone, encoded: Encoded) -> Tensor:
    """The mean embedding of a text."""
    words = backbone.model.get_input_embeddings()(torch.tensor([encoded.ids]))[0]
    return torch.stack([words[i] for i in text_of(backbone, encoded)]).mean(0)


def chosen(backbone: Backbone, encoded: Encoded, prompt: int, table: PromptTable) -> tuple[int, float]:
    """The prompt that a text chooses, and its share."""
    assert table.routing is not None
    mean = mean_text(backbone, encoded)
    scores = [float(table.routing.weights[prompt, j] @ mean) for j in range(int(table.routing.counts[prompt]))]
    shares = torch.tensor(scores).softmax(0).tolist()
    return max(enumerate(shares), key=lambda pair: pair[1])


@torch.no_grad()
def reference_logits(backbone: Backbone, encoded: Encoded, prompt: int, table: PromptTable) -> Tensor:
    """Logits of one sequence from a call of the model that trimtab has no part in: token by token."""
    assert table.offsets is not None
    words = backbone.model.get_input_embeddings()
    vectors, decoder_vectors = (words(torch.tensor([ids], dtype=torch.long)) for ids in (encoded.ids, encoded.decoder))
    if prompt >= 0:
        which, share = chosen(backbone, encoded, prompt, table)
        for n, at in enumerate(text_of(backbone, encoded)[:MOVED]):
            vectors[0, at] += table.offsets[prompt, n]
        for into, slots in ((vectors, encoded.slots), (decoder_vectors, encoded.decoder_slots)):
            for p, slot in enumerate(slots):
                if slot >= 0:
                    into[0, slot] = share * table.inputs[prompt, which * LENGTH + p]
    decoder: dict[str, Any] = {"decoder_input_ids": torch.tensor([encoded.decoder])} if encoded.decoder else {}
    if encoded.decoder_slots:
        decoder = {"decoder_inputs_embeds": decoder_vectors}
    return backbone.model(inputs_embeds=vectors, **decoder).logits[0]


@pytest.fixture(autouse=True)
def _tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "table_of", mixed_table)
    monkeypatch.setattr(matrix, "own_logits", reference_logits)
    monkeypatch.setattr(writing, "table_of", mixed_table)


def named(names: tuple[str, ...]) -> list[Any]:
    return [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in names]


@pytest.fixture
def loaded(family_folder: Callable[[str], Path], name: str) -> Backbone:
    return load_backbone(str(family_folder(name)), dtype="float32", device="cpu")


@pytest.mark.parametrize("name", named(tuple(matrix.MODELS)))
@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
def test_prompts_that_look_at_the_text_keep_the_promises_of_all(
    loaded: Backbone, check: Callable[[Backbone], None]
) -> None:
    rows, table = matrix.mixed_rows(loaded), mixed_table(loaded)
    texts = [text_of(loaded, row.encoded) for row in rows]
    assert [row.encoded.text for row in rows] == [tuple(text) for text in texts]
    assert max(map(len, texts)) > MOVED, "a text must have more tokens than are moved"
    choices = {chosen(loaded, row.encoded, 0, table)[0] for row in rows if row.prompt == 0}
    assert len(choices) > 1, "texts must choose differently"
    check(loaded)


@pytest.mark.parametrize("name", ["t5", "bart"])
@pytest.mark.parametrize("check", [matrix.check_scores, matrix.check_padding_and_mates], ids=lambda c: c.__name__)
def test_slots_in_the_decoder_hold_what_the_encoders_text_chose(
    loaded: Backbone, check: Callable[[Backbone], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrix, "toy_rendering", partial(toy_rendering, template=BOTH))
    assert any(slot >= 0 for row in matrix.mixed_rows(loaded)[:2] for slot in row.encoded.decoder_slots)
    check(loaded)


@pytest.mark.parametrize("name", ["gpt2", "llama", "t5"])
def test_texts_are_written_as_whole_passes_would(name: str, family_folder: Callable[[str], Path]) -> None:
    backbone = writing.writer(family_folder(name))
    writing.check_words(backbone)


@pytest.mark.parametrize("name", ["bert", "t5"])
def test_gradient_reaches_what_a_row_used_and_no_weight(loaded: Backbone) -> None:
    """The chosen prompts, all scores of their router, offsets of tokens that are there; nothing of a prompt that no row
    uses, and nothing of what pads."""
    leaf, rows = mixed_table(loaded, 3).detached(), matrix.mixed_rows(loaded)
    batch = matrix.on_side(loaded, rows, loaded.family.padding_side)
    scores = model.PromptedModel(loaded, matrix.HiddenReadout()).scores(batch, leaf)
    scores.square().sum().backward()
    reached = {n: v.grad.abs().sum(-1) > 0 for n, v in leaf.tensors.items() if v.grad is not None}
    used = {chosen(loaded, row.encoded, 0, mixed_table(loaded, 3))[0] for row in rows if row.prompt == 0}
    expected = torch.zeros(3, PROMPTS * LENGTH, dtype=torch.bool)
    for which in used:
        expected[0, which * LENGTH : (which + 1) * LENGTH] = True
    expected[1, :LENGTH] = True
    assert torch.equal(reached["inputs"], expected)
    assert reached["router"].tolist() == [[True] * PROMPTS, [False] * PROMPTS, [False] * PROMPTS]
    assert reached["text_offset"][1].all()
    assert not reached["text_offset"][2].any()
    assert all(p.grad is None for p in loaded.model.parameters())


# Saboteurs -----------------------------------------------------------------------------------------------------------


def counts_columns(embeds: Tensor, table: PromptTable, batch: Batch) -> Tensor:
    """Adds entry n to column n, whatever stands there."""
    assert table.offsets is not None
    at = batch.prompt_of.clamp(min=0)
    moved = torch.zeros_like(embeds)
    moved[:, :MOVED] = table.offsets[at] * (batch.prompt_of >= 0)[:, None, None]
    return embeds + moved


def moves_bare_rows(embeds: Tensor, table: PromptTable, batch: Batch) -> Tensor:
    return injection.offset_text(embeds, table, replace(batch, prompt_of=batch.prompt_of.abs()))


def averages_the_pads(embeds: Tensor, table: PromptTable, batch: Batch) -> Route | None:
    return choose(embeds, table, replace(batch, text=torch.ones_like(batch.attention_mask).bool()))


def forgets_the_share(embeds: Tensor, table: PromptTable, batch: Batch) -> Route | None:
    found = choose(embeds, table, batch)
    return None if found is None else replace(found, share=torch.ones_like(found.share))


def takes_the_first(embeds: Tensor, table: PromptTable, batch: Batch) -> Route | None:
    found = choose(embeds, table, batch)
    return None if found is None else replace(found, first=torch.zeros_like(found.first))


@pytest.mark.parametrize("name", ["bert"])
@pytest.mark.parametrize(
    ("where", "saboteur", "check"),
    [
        ("offset_text", counts_columns, matrix.check_scores),
        ("offset_text", counts_columns, matrix.check_sides_agree),
        ("offset_text", moves_bare_rows, matrix.check_bare_rows),
        ("choose", averages_the_pads, matrix.check_padding_and_mates),
        ("choose", forgets_the_share, matrix.check_scores),
        ("choose", takes_the_first, matrix.check_scores),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_saboteur_is_caught(
    loaded: Backbone, where: str, saboteur: Any, check: Callable[[Backbone], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, where, saboteur)
    with pytest.raises(matrix.BROKEN):
        check(loaded)


def test_a_row_without_text_chooses_too(backbone: Backbone) -> None:
    """Made by hand, as templates have a field: its scores are zero."""
    batch = collate([Row(Encoded((2, 1, 4), (1,), (2,)), prompt=0)], 0)
    found = choose(backbone.family.embed(backbone.model, batch.ids), mixed_table(backbone), batch)
    assert found is not None
    torch.testing.assert_close(found.share, torch.tensor([1 / PROMPTS]))
    assert rows_of(backbone, toy_rendering(backbone), 1)[0].encoded.text
