"""A row's prompt replaces its slots, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from trimtab.batching import collate
from trimtab.injection import choose, offset_text, place_decoder_prompt, place_prompt, prefix_attention, shift_positions
from trimtab.prompt_table import AttentionCall, DeepPrompt, PromptTable, Routing
from trimtab.types import Batch, Encoded, Row

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


# Deep prompts


def deep(prompts: int, gated: list[bool] | None = None) -> PromptTable:
    """Prompts of two columns in layer 1 of 3, one head of four numbers."""
    values = torch.randn(prompts, 1, 2, 2, 1, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    gates = None if gated is None else torch.full((prompts, 1, 1), 0.5)
    flags = None if gated is None else torch.tensor(gated)
    prompt = DeepPrompt(values, (1,), torch.ones(prompts, 1, 2, dtype=torch.bool), gates, flags)
    return PromptTable(torch.zeros(prompts, 0, 3), {"self": prompt})


def call(rows: int, layer: int = 1, mask: Tensor | None = None) -> tuple[AttentionCall, list[tuple[Tensor, ...]]]:
    """A call of three tokens, and what it asks the model's attention to do."""
    asked: list[tuple[Tensor, ...]] = []

    def attend(*given: Tensor) -> Tensor:
        asked.append(given)
        return torch.zeros(rows, 3, 1, 4)

    q, k, v = torch.randn(3, rows, 1, 3, 4, generator=torch.Generator().manual_seed(1))
    return AttentionCall("self", layer, q, k, v, mask, 0.5, attend, lambda: torch.ones(rows, 3, 1, 4)), asked


def prompted(*prompts: int) -> list[Row]:
    return [Row(Encoded((1, 1, 1), (), (0,)), prompt=prompt) for prompt in prompts]


def test_each_row_s_keys_and_values_stand_before_its_own() -> None:
    table = deep(3)
    prefix = prefix_attention(table, collate(prompted(2, -1, 0), 0))
    assert prefix is not None
    one, asked = call(3)
    assert torch.equal(prefix(one), torch.zeros(3, 3, 1, 4))
    ((key, value, mask),) = asked
    own = table.deep["self"].keys_values[:, 0]  # [R,2,P,K,D]
    assert torch.equal(key[:, :, 2:], one.key)
    assert torch.equal(value[:, :, 2:], one.value)
    for b, prompt in ((0, 2), (2, 0)):
        assert torch.equal(key[b, :, :2], own[prompt, 0].transpose(0, 1))
        assert torch.equal(value[b, :, :2], own[prompt, 1].transpose(0, 1))
    assert key[1, :, :2].abs().max() == 0
    hidden = torch.finfo(torch.float32).min
    expected = torch.tensor([[0.0, 0, 0, 0, 0], [hidden, hidden, 0, 0, 0], [0, 0, 0, 0, 0]])
    assert torch.equal(mask, expected[:, None, None].expand(3, 1, 3, 5))


def test_where_all_rows_have_the_only_prompt_and_nothing_is_hidden_there_is_no_mask() -> None:
    prefix = prefix_attention(deep(1), collate(prompted(0, 0), 0))
    assert prefix is not None
    one, asked = call(2)
    prefix(one)
    assert asked[0][2] is None
    masked, asked = call(2, mask=torch.zeros(1, 1, 3, 3))
    prefix(masked)
    assert asked[0][2].shape == (2, 1, 3, 5)


def test_other_layers_and_gated_rows_are_left_to_the_model() -> None:
    rows = collate(prompted(0, -1), 0)
    plain, gated = prefix_attention(deep(1), rows), prefix_attention(deep(1, [True]), rows)
    assert plain is not None
    assert gated is not None
    other, asked = call(2, layer=0)
    assert torch.equal(plain(other), torch.ones(2, 3, 1, 4))
    one, asked_too = call(2)
    output = gated(one)
    assert not asked
    assert not asked_too
    assert torch.equal(output[1], torch.ones(3, 1, 4))
    assert not torch.isclose(output[0], torch.ones(())).any()


def test_a_bfloat16_call_gets_bfloat16_and_the_table_float32_gradients() -> None:
    table = deep(2)
    prefix = prefix_attention(table, collate(prompted(0, 1), 0))
    assert prefix is not None
    one, asked = call(2)
    lower = {n: getattr(one, n).bfloat16() for n in ("query", "key", "value")}
    prefix(replace(one, **lower))
    ((key, value, _),) = asked
    assert (key.dtype, value.dtype) == (torch.bfloat16, torch.bfloat16)
    (key.float().sum() + value.float().sum()).backward()
    gradient = table.deep["self"].keys_values.grad
    assert gradient is not None
    assert gradient.dtype == torch.float32
    assert torch.equal(gradient, torch.ones_like(gradient))


@pytest.mark.parametrize(("table", "prompts"), [(PromptTable(torch.zeros(1, 2, 3)), (0, 0)), (deep(2), (-1, -1))])
def test_nothing_enters_attention_where_no_row_has_a_deep_prompt(table: PromptTable, prompts: tuple[int, ...]) -> None:
    assert prefix_attention(table, collate(prompted(*prompts), 0)) is None


def test_positions_are_shifted_in_rows_of_prompts_that_ask_for_it_but_for_pads() -> None:
    batch = collate([*prompted(0, 1, -1), Row(Encoded((1, 1), (), (0,)), prompt=0)], 0, "left")
    shifted = shift_positions(batch, PromptTable(torch.zeros(2, 0, 3), shifts=torch.tensor([4, 0])))
    assert shifted.position_ids.tolist() == [[4, 5, 6], [0, 1, 2], [0, 1, 2], [0, 4, 5]]
    assert shift_positions(batch, TABLE) is batch


# Prompts that look at the text


def read(*rows: Row, side: str = "right") -> Batch:
    return collate(list(rows), 0, side)  # type: ignore[arg-type]


TEXTS = [
    Row(Encoded((1, 5, 6, 1, 7, 8, 2), (0, 3), (6,), text=(1, 2, 4, 5)), prompt=1),
    Row(Encoded((5, 6), (), (0,), text=(0, 1)), prompt=-1),
    Row(Encoded((1, 5, 1), (0, 2), (1,), text=(1,)), prompt=1),
    Row(Encoded((1, 5, 6, 1), (0, 3), (1,), text=(1, 2)), prompt=0),  # its prompt moves nothing
]


def moving(dtype: torch.dtype = torch.float32) -> PromptTable:
    """Prompt 1 adds 10 to the first token of a text, 20 to the second and 30 to the third."""
    steps = torch.tensor([[0.0, 0, 0], [10, 20, 30]])
    return PromptTable(torch.zeros(2, 2, 4, dtype=dtype), offsets=steps[..., None].expand(2, 3, 4).clone())


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_nth_token_of_a_text_is_moved_by_the_nth_offset_whatever_stands_between(side: str) -> None:
    batch = read(*TEXTS, side=side)
    moved = offset_text(torch.zeros(4, 7, 4), moving(), batch)[..., 0]
    shift = [0, 5, 4, 3] if side == "left" else [0, 0, 0, 0]
    expected = torch.zeros(4, 7)
    expected[0, [1, 2, 4]] = torch.tensor([10.0, 20, 30])  # the fourth token has none
    expected[2, 1 + shift[2]] = 10
    assert torch.equal(moved, expected)


def test_offsets_are_added_in_float32_and_rounded_once() -> None:
    batch, table = read(TEXTS[2]), moving()
    assert table.offsets is not None
    table.offsets[1, 0] = torch.tensor([0.041, 0.08, 0.119, 0.15])  # rounded first, the sums would differ
    embeds = torch.full((1, 3, 4), 0.7531, dtype=torch.bfloat16)
    moved = offset_text(embeds, table, batch)
    assert moved.dtype == torch.bfloat16
    expected = (embeds[0, 1].float() + table.offsets[1, 0]).bfloat16()
    assert not torch.equal(expected, embeds[0, 1] + table.offsets[1, 0].bfloat16())
    assert torch.equal(moved[0, 1], expected)
    assert torch.equal(moved[0, ::2], embeds[0, ::2])


def test_gradients_reach_offsets_that_a_text_has_and_the_text() -> None:
    assert moving().offsets is not None
    offsets = moving().offsets.clone().requires_grad_()  # type: ignore[union-attr]
    embeds = torch.zeros(4, 7, 4, requires_grad=True)
    offset_text(embeds, replace(moving(), offsets=offsets), read(*TEXTS)).sum().backward()
    assert offsets.grad is not None
    assert embeds.grad is not None
    assert offsets.grad[..., 0].tolist() == [[1.0, 1.0, 0.0], [2.0, 1.0, 1.0]]
    assert embeds.grad.min() == 1.0


def test_without_offsets_or_text_nothing_is_added() -> None:
    embeds = torch.randn(5, 4, 3)
    assert offset_text(embeds, TABLE, collate(ROWS, 0)) is embeds
    embeds = torch.randn(5, 4, 4)
    assert offset_text(embeds, moving(), collate(ROWS, 0)) is embeds


def routed() -> PromptTable:
    """Entry 0 is one prompt of two rows; entry 1 is three of one row, for texts along the axes 0, 1 and 2."""
    weights = torch.zeros(2, 3, 4)
    weights[1, :, :3] = 5 * torch.eye(3)
    inputs = torch.arange(24.0).reshape(2, 3, 4) + 1
    return PromptTable(inputs, routing=Routing(weights, torch.tensor([1, 3]), torch.tensor([2, 1])))


def test_each_text_chooses_its_prompt_and_a_lone_prompt_is_taken_as_it_is() -> None:
    rows = [
        Row(Encoded((1, 5, 5), (0,), (0,), text=(1, 2)), prompt=1),
        Row(Encoded((1, 5), (0,), (0,), text=(1,)), prompt=1),
        Row(Encoded((1, 1, 5), (0, 1), (0,), text=(2,)), prompt=0),
        Row(Encoded((1, 5), (0,), (0,), text=(1,)), prompt=-1),
    ]
    embeds = torch.zeros(4, 3, 4)
    embeds[0, 1, 2], embeds[0, 2, 2], embeds[0, 0, 0] = 1.0, 3.0, 100.0  # the slot's filler is not read
    embeds[1, 1, 1], embeds[1, 2, 0] = 1.0, 100.0  # nor is a pad
    embeds[2, 2, 3] = 7.0
    batch, table = read(*rows), routed()
    route = choose(embeds, table, batch)
    assert route is not None
    share = torch.tensor([0.0, 0, 5 * 2]).softmax(0)[2], torch.tensor([0.0, 5, 0]).softmax(0)[1]
    assert route.first[:3].tolist() == [2, 1, 0]
    torch.testing.assert_close(route.share[:3], torch.tensor([*share, 1.0]))
    assert float(route.share[2]) == 1.0
    placed = place_prompt(embeds, table, batch, route)
    torch.testing.assert_close(placed[0, 0], share[0] * table.inputs[1, 2])
    torch.testing.assert_close(placed[1, 0], share[1] * table.inputs[1, 1])
    assert torch.equal(placed[2, :2], table.inputs[0, :2])
    assert torch.equal(placed[3], embeds[3])


def test_noise_belongs_to_the_example_and_multiplies_the_scores() -> None:
    """Two rows of one example, and one of another; a factor of -1 turns the scores round."""
    row = Encoded((1, 5), (0,), (0,), text=(1,))
    batch = collate([Row(row, prompt=1, others=(row,)), Row(row, prompt=1)], 0)
    embeds = torch.zeros(3, 2, 4)
    embeds[:, 1, 0] = 1.0
    table = routed()
    assert table.routing is not None
    noisy = replace(table, routing=replace(table.routing, noise=2.0))
    shaken = replace(batch, jitter=torch.tensor([[-1.0, 9.0, 9.0], [0.0, 0.0, 0.0]]))
    route = choose(embeds, noisy, shaken)
    assert route is not None
    torch.testing.assert_close(route.share, torch.tensor([[-5.0, 0, 0], [-5.0, 0, 0], [5.0, 0, 0]]).softmax(1).amax(1))
    still = choose(embeds, table, shaken)
    assert still is not None
    assert still.first.tolist() == [0, 0, 0], "noise of size zero changes nothing"


def test_where_no_entry_has_several_prompts_nobody_chooses() -> None:
    assert choose(torch.zeros(5, 4, 3), TABLE, collate(ROWS, 0)) is None
