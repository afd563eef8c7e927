"""A row's prompt replaces its slots, and nothing else."""

from __future__ import annotations

import torch

from trimtab.batching import collate
from trimtab.injection import place_decoder_prompt, place_prompt
from trimtab.types import Encoded, PromptTable, Row

ROWS = [
    Row(Encoded((1, 1, 1, 1), (1, 3), (0,)), prompt=1),
    Row(Encoded((1, 1, 1), (), (0,)), prompt=-1),
    Row(Encoded((1, 1, 1), (0, 1), (2,)), prompt=0),
    Row(Encoded((1, 1, 1), (2,), (0,)), prompt=1),  # shorter than P: the prompt's first row only
    Row(Encoded((1, 1, 1), (0, 1), (2,)), prompt=-1),  # slots, but no prompt
]
TABLE = PromptTable(torch.arange(12.0).reshape(2, 2, 3) + 100)


def test_each_slot_gets_its_row_of_its_prompt_and_all_else_is_kept() -> None:
    for side in ("right", "left"):
        batch = collate(ROWS, 0, side)
        embeds = torch.randn(5, 4, 3)
        expected = embeds.clone()
        shift = [0, 1, 1, 1, 1] if side == "left" else [0] * 5
        for b, row in enumerate(ROWS):
            for i, at in enumerate(row.encoded.slots if row.prompt >= 0 else ()):
                expected[b, at + shift[b]] = TABLE.inputs[row.prompt, i]
        assert torch.equal(place_prompt(embeds, TABLE, batch), expected)


def test_the_embeddings_given_are_not_changed() -> None:
    embeds = torch.zeros(5, 4, 3)
    place_prompt(embeds, TABLE, collate(ROWS, 0))
    assert embeds.abs().max() == 0


def test_gradients_reach_used_prompts_and_text_outside_slots_only() -> None:
    inputs = TABLE.inputs.clone().requires_grad_()
    embeds = torch.randn(5, 4, 3, requires_grad=True)
    place_prompt(embeds, PromptTable(inputs), collate(ROWS, 0)).sum().backward()
    assert inputs.grad is not None
    assert embeds.grad is not None
    assert inputs.grad[:, :, 0].tolist() == [[1.0, 1.0], [2.0, 1.0]]  # how many slots each vector fills
    assert embeds.grad[0, :, 0].tolist() == [1.0, 0.0, 1.0, 0.0]
    assert embeds.grad[1].min() == 1.0


def test_a_float32_prompt_is_rounded_once_into_a_bfloat16_backbone() -> None:
    inputs = (TABLE.inputs / 7).requires_grad_()
    batch = collate(ROWS[:1], 0)
    placed = place_prompt(torch.zeros(1, 4, 3, dtype=torch.bfloat16), PromptTable(inputs), batch)
    assert placed.dtype == torch.bfloat16
    assert torch.equal(placed[0, 1], inputs[1, 0].bfloat16())
    (gradient,) = torch.autograd.grad(placed.float().sum(), inputs)
    assert gradient.dtype == torch.float32


def test_a_prompt_is_split_between_text_and_decoder() -> None:
    rows = [
        Row(Encoded((1, 1), (1, -1), (2,), decoder=(7, 8, 9), decoder_slots=(-1, 1)), prompt=1),
        Row(Encoded((1, 1, 1), (), (0,), decoder=(7,)), prompt=-1),
        Row(Encoded((1, 1), (1, -1), (2,), decoder=(7, 8, 9), decoder_slots=(-1, 1)), prompt=-1),
    ]
    batch, inputs = collate(rows, 0), TABLE.inputs.clone().requires_grad_()
    text = place_prompt(torch.zeros(3, 3, 3), PromptTable(inputs), batch)
    decoder = place_decoder_prompt(torch.zeros(3, 3, 3), PromptTable(inputs), batch)
    assert text.nonzero()[:, :2].unique(dim=0).tolist() == [[0, 1]]
    assert decoder.nonzero()[:, :2].unique(dim=0).tolist() == [[0, 1]]
    assert torch.equal(text[0, 1], inputs[1, 0])
    assert torch.equal(decoder[0, 1], inputs[1, 1])
    (gradient,) = torch.autograd.grad(decoder.sum(), inputs)
    assert gradient[:, :, 0].tolist() == [[0.0, 0.0], [0.0, 1.0]]


def test_a_decoder_without_slots_is_left_as_it_is() -> None:
    embeds = torch.randn(5, 2, 3)
    assert place_decoder_prompt(embeds, TABLE, collate(ROWS, 0)) is embeds
