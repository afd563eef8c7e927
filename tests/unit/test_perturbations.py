"""Perturbations belong to examples: where they land in padded sequences, and what they leave alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from trimtab.batching import collate
from trimtab.perturbations import (
    add_to_prompts,
    add_to_text,
    directions,
    norms,
    prompt_names,
    replace_tokens,
    text_mask,
    text_of,
)
from trimtab.prompt_table import DeepPrompt, PromptTable
from trimtab.types import Batch, Encoded, Row


def encoded(ids: list[int], eligible: list[int]) -> Encoded:
    return Encoded(tuple(ids), slots=(), answer_at=(0,), eligible=tuple(eligible))


@pytest.fixture(params=["right", "left"])
def batch(request: pytest.FixtureRequest) -> Batch:
    """An example of two sequences, in which the text stands at other positions, and one of one sequence."""
    first = encoded([1, 50, 51, 2], [1, 2])
    second = encoded([1, 9, 50, 51, 52, 2], [2, 3, 4])
    other = encoded([1, 60, 2], [1])
    return collate([Row(first, 0, 0, others=(second,)), Row(other, 1, 1)], 0, request.param)


def test_the_mask_counts_the_longest_sequence_of_an_example(batch: Batch) -> None:
    assert text_mask(batch).tolist() == [[True, True, True], [True, False, False]]


def test_the_text_of_an_example_is_that_of_its_longest_sequence(batch: Batch) -> None:
    assert text_of(batch.ids, batch).tolist() == [[50, 51, 52], [60, 0, 0]]
    embeds = torch.randn(*batch.ids.shape, 2)
    found = text_of(embeds, batch)
    for x, row in ((0, 1), (1, 2)):
        expected = embeds[row][batch.eligible[row]]
        assert torch.equal(found[x, : len(expected)], expected)


def test_sequences_of_an_example_share_its_perturbation_token_by_token(batch: Batch) -> None:
    embeds = torch.randn(*batch.ids.shape, 2)
    delta = torch.tensor([[[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]], [[4.0, 40.0], [7.0, 7.0], [7.0, 7.0]]])
    moved = add_to_text(embeds, delta, batch) - embeds
    for row, expected in ((0, delta[0, :2]), (1, delta[0]), (2, delta[1, :1])):
        torch.testing.assert_close(moved[row][batch.eligible[row]], expected)
    assert not moved[~batch.eligible].any()


def test_gradients_of_sequences_add_up_and_padding_has_none(batch: Batch) -> None:
    delta = torch.zeros(2, 3, 2, requires_grad=True)
    add_to_text(torch.zeros(*batch.ids.shape, 2), delta, batch).sum().backward()
    assert delta.grad is not None
    assert delta.grad[..., 0].tolist() == [[2, 2, 1], [1, 0, 0]]


def test_noise_is_added_before_it_is_rounded(batch: Batch) -> None:
    embeds = torch.ones(*batch.ids.shape, 2, dtype=torch.bfloat16)
    moved = add_to_text(embeds, torch.full((2, 3, 2), 0.01), batch)
    assert moved.dtype == torch.bfloat16
    assert set(moved[batch.eligible].flatten().tolist()) == {float(torch.tensor(1.01, dtype=torch.bfloat16))}


def test_tokens_are_replaced_in_every_sequence(batch: Batch) -> None:
    found = replace_tokens(batch, torch.tensor([[-1, 99, 98], [97, 5, 5]]))
    assert [found.ids[b][batch.eligible[b]].tolist() for b in range(3)] == [[50, 99], [50, 99, 98], [97]]
    assert torch.equal(found.ids[~batch.eligible], batch.ids[~batch.eligible])
    assert 99 not in batch.ids.tolist(), "the batch itself stays"


def test_each_example_gets_a_prompt_of_its_own(batch: Batch) -> None:
    deep = DeepPrompt(torch.randn(2, 3, 2, 4, 1, 5), (0, 1, 2), torch.ones(2, 3, 4, dtype=torch.bool))
    inputs = torch.randn(2, 4, 3)
    table = PromptTable(inputs, {"self": deep}, {"weight": torch.randn(2, 3, 3)}, torch.tensor([4, 0]))
    assert prompt_names(table) == ("inputs", "deep.self")
    delta = {"inputs": torch.randn(2, 4, 3), "deep.self": torch.randn(2, 3, 2, 4, 1, 5)}
    batch = replace(batch, prompt_of=torch.tensor([1, 1, -1]))
    found, its = add_to_prompts(table, batch, delta)
    assert its.prompt_of.tolist() == [0, 0, -1]
    assert torch.equal(found.inputs[0], inputs[1] + delta["inputs"][0])
    assert torch.equal(found.deep["self"].keys_values[0], deep.keys_values[1] + delta["deep.self"][0])
    assert torch.equal(found.heads["weight"][0], table.heads["weight"][1])
    assert found.shifts is not None
    assert found.shifts[0] == 0


def test_norms_and_directions() -> None:
    values = torch.tensor([[[3.0, 0.0], [0.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]])
    assert norms(values).flatten().tolist() == [5.0, 0.0]
    assert norms(values, per_token=True).flatten().tolist() == [3.0, 4.0, 0.0, 0.0]
    assert torch.allclose(norms(directions(values)).flatten(), torch.tensor([1.0, 0.0]))
    assert torch.allclose(
        norms(directions(values, per_token=True), per_token=True).flatten(), torch.tensor([1.0, 1.0, 0.0, 0.0])
    )


def test_label_words_in_the_text_are_not_eligible() -> None:
    text = encoded([1, 50, 51, 52, 50, 2], [1, 2, 3, 4])
    assert text.without_words({50: [(50,)]}).eligible == (2, 3)
    assert text.without_words({51: [(51, 52)]}).eligible == (1, 4)
    assert text.without_words({52: [(52, 51)], 2: [(2,)]}) is text, "in this order only, and specials never were"
