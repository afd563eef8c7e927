"""Jumps of the loss under one-word changes, against texts that are written with another word."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.contract import tiny_families
from tests.contract.toy_runs import toy_examples, toy_rendering
from tests.unit.landscape.toy_losses import toy_loss
from trimtab.backbones import Backbone, load_backbone
from trimtab.backbones.substitutes import substitutes
from trimtab.landscape.point import LossAt
from trimtab.landscape.word_jumps import WordJumps, rules, word_jumps
from trimtab.regularizers.swap_candidates import Rules
from trimtab.types import Batch

ANYTHING = Rules(500, 256, -1.0)
SWAPS = {"film": "book", "song": "cat", "old": "big", "big": "red", "the": "a", "good": "fine"}
"""`good` is a label word, so it stays."""


class Told:
    """A lexicon whose words and substitutes are given."""

    def __init__(self, backbone: Backbone, swaps: dict[str, str], others: tuple[str, ...] = ()) -> None:
        self._encoder = backbone.encoder
        self._new = {self._id(old): self._id(new) for old, new in swaps.items()}
        self._words = {*self._new, *map(self._id, others)}

    def _id(self, word: str) -> int:
        (found,) = self._encoder.encode(word, is_first=False).ids
        return found

    def whole(self, ids: Tensor) -> Tensor:
        return torch.isin(ids, torch.tensor(sorted(self._words)))

    def word(self, token: int) -> str:
        return self._encoder.decode([token])

    def neighbours(self, token: int, count: int, similarity: float) -> tuple[int, ...]:
        return (self._new[token], 1) if token in self._new else ()

    def proposals(self, batch: Batch, row: int, position: int, count: int) -> list[int]:
        return [5, *self._new.values(), 1]  # other words are likelier, but not near

    def _unasked(self, *given: Any) -> Any:
        raise AssertionError("nothing else is asked for")

    begins = sentence = decode = embed = _unasked


def losses(loss: LossAt) -> list[float]:
    return loss.losses(loss.prompt.split(torch.zeros(1, loss.prompt.size)))[0].tolist()


def written_anew(backbone: Backbone, swaps: dict[str, str]) -> list[float]:
    """Jumps of the toy's texts with one word after the other written anew, each example alone."""
    loss, rendering, jumps = toy_loss(backbone), toy_rendering(backbone), []
    for example, before in zip(toy_examples(6), losses(loss), strict=True):
        words = example.fields["text"].split()
        for i, word in enumerate(words):
            if word in swaps and word != "good":
                text = " ".join([*words[:i], swaps[word], *words[i + 1 :]])
                row = rendering.row(replace(example, fields={"text": text}), backbone.encoder)
                jumps.append(losses(LossAt(loss.model, loss.table, [row]))[0] - before)
    return jumps


@pytest.mark.parametrize("max_tokens", [8192, 24])
def test_jumps_are_those_of_texts_with_another_word(backbone: Backbone, max_tokens: int) -> None:
    expected = written_anew(backbone, SWAPS)
    found = word_jumps(toy_loss(backbone, max_tokens=max_tokens), Told(backbone, SWAPS), ANYTHING)
    assert found is not None
    assert found.swaps == found.words == len(expected) > 8
    assert found.mean == pytest.approx(fmean(expected), abs=1e-5)
    assert found.mean_absolute == pytest.approx(fmean(map(abs, expected)), abs=1e-5)
    assert found.largest == pytest.approx(max(map(abs, expected)), abs=1e-5)
    assert found.mean_absolute > abs(found.mean) + 1e-3


def test_words_without_a_substitute_are_counted_and_stay(backbone: Backbone) -> None:
    found = word_jumps(toy_loss(backbone), Told(backbone, {"the": "a"}, ("film", "song", "old")), ANYTHING)
    assert found is not None
    assert found.swaps == 6
    assert found.words > 8
    assert found.mean == pytest.approx(fmean(written_anew(backbone, {"the": "a"})), abs=1e-5)


def test_where_nothing_can_be_swapped_there_is_no_number(backbone: Backbone) -> None:
    assert word_jumps(toy_loss(backbone), Told(backbone, {}, ("film",)), ANYTHING) is None


@pytest.mark.parametrize("name", ["bert", "gpt2", "t5"])
def test_all_prompts_meet_the_same_swaps(tmp_path: Path, name: str) -> None:
    """Also where label words take several sequences, with the words of the backbone itself."""
    model = load_backbone(str(tiny_families.BUILDERS[name](tmp_path)), dtype="float32", device="cpu", attention="eager")
    one = toy_loss(model, 4)
    other = LossAt(one.model, one.table.with_tensors({"inputs": -2 * one.table.inputs}), one.rows)
    lexicon = substitutes(model).lexicon
    assert lexicon is not None
    first, second = (word_jumps(its, lexicon, ANYTHING) for its in (one, other))
    assert isinstance(first, WordJumps)
    assert isinstance(second, WordJumps)
    assert first.swaps == second.swaps > 0
    assert first.mean_absolute != second.mean_absolute


def test_rules_are_those_of_word_swap() -> None:
    from trimtab.regularizers.word_swap import WordSwap

    assert replace(WordSwap()._rules, tagger=None) == rules()
