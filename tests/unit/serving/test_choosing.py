"""Tokens that are drawn: from the nucleus, by their shares, the same again with the same seed."""

from __future__ import annotations

import torch

from trimtab.serving.choosing import Choice

LOGITS = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))


def drawn(choice: Choice, n: int = 2000) -> list[float]:
    chooser = choice.begin()
    found = torch.bincount(torch.tensor([chooser.draw(LOGITS) for _ in range(n)]), minlength=4)
    return (found / n).tolist()


def test_without_heat_the_likeliest_is_taken() -> None:
    assert Choice().is_greedy
    assert drawn(Choice(), 5) == [1.0, 0.0, 0.0, 0.0]


def test_shares_are_those_of_the_softmax_at_the_temperature() -> None:
    for temperature in (1.0, 0.5, 2.0):
        expected = (LOGITS / temperature).softmax(0).tolist()
        got = drawn(Choice(temperature, seed=1))
        assert max(abs(a - b) for a, b in zip(got, expected, strict=True)) < 0.04


def test_only_the_nucleus_is_drawn_from() -> None:
    assert drawn(Choice(1.0, top_p=0.5, seed=1), 50) == [1.0, 0.0, 0.0, 0.0]
    one, two, three, four = drawn(Choice(1.0, top_p=0.79, seed=1))
    assert (three, four) == (0.0, 0.0)
    assert abs(one - 0.625) < 0.04
    assert abs(two - 0.375) < 0.04
    assert drawn(Choice(1.0, top_p=1e-9, seed=1), 5)[0] == 1.0


def test_a_seed_draws_the_same_and_another_or_none_another_text() -> None:
    def text(seed: int | None) -> list[int]:
        chooser = Choice(1.0, seed=seed).begin()
        return [chooser.draw(LOGITS) for _ in range(40)]

    assert text(3) == text(3)
    assert text(3) != text(4)
    assert text(None) != text(None)
    assert text(-5) == text(-5)
