"""What readouts promise, checked against computations by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.contract.tiny_families import BUILDERS
from tests.contract.toy_runs import batch_read_by, one_mask, reader, rows_of, toy_rendering
from trimtab.backbones import Backbone, load_backbone
from trimtab.model import PromptedModel
from trimtab.prompt_table import PromptTable
from trimtab.readouts import Readout
from trimtab.registry import readouts
from trimtab.types import Example
from trimtab.verbalizers import Verbalizer

TABLE = [
    [[10, 11, 12], [13], [14, 15]],  # three classes with three, one and two words
    [[15], [16]],  # two classes; the third is absent
    [[17, 10], [18, 19], [20], [21]],  # four classes
]


def build(backbone: Backbone, table: Sequence[Sequence[Sequence[int]]] = TABLE, **options: Any) -> Readout:
    return readouts.build({"kind": "cloze", **options}, backbone, [one_mask(entry) for entry in table])


def hidden_states(backbone: Backbone, rows: int, answers: int = 1, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, answers, backbone.model.config.hidden_size, generator=generator)


def logit(backbone: Backbone, hidden: Tensor, word: int) -> float:
    """The model's own head on one hidden state, one word."""
    with torch.no_grad():
        return float(backbone.model.cls(hidden[None, None])[0, 0, word])


def combine(how: str, values: Sequence[float]) -> float:
    if how == "mean":
        return sum(values) / len(values)
    return max(values) if how == "max" else math.log(sum(math.exp(v) for v in values))


@pytest.mark.parametrize("how", ["mean", "max", "logsumexp"])
def test_cloze_combines_label_words_as_computed_by_hand(how: str, backbone: Backbone) -> None:
    hidden, entries = hidden_states(backbone, 6), [0, 1, 2, 2, 1, 0]
    scores = build(backbone, combine=how).scores(hidden, batch_read_by(entries))
    assert scores.dtype == torch.float32
    assert scores.shape == (6, 4)
    for b, r in enumerate(entries):
        for c in range(4):
            words = TABLE[r][c] if c < len(TABLE[r]) else []
            expected = combine(how, [logit(backbone, hidden[b, 0], w) for w in words]) if words else -math.inf
            assert float(scores[b, c]) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_the_three_ways_of_combining_differ_where_a_class_has_several_words(backbone: Backbone) -> None:
    hidden, zero = hidden_states(backbone, 1), batch_read_by([0])
    mean, top, log = (build(backbone, combine=h).scores(hidden, zero)[0] for h in ("mean", "max", "logsumexp"))
    assert float(mean[0]) < float(top[0]) < float(log[0])
    assert float(mean[1]) == float(top[1]) == pytest.approx(float(log[1]), rel=1e-6)


def test_absent_classes_score_minus_infinity_and_never_win(backbone: Backbone) -> None:
    hidden = hidden_states(backbone, 50)
    for how in ("mean", "max", "logsumexp"):
        scores = build(backbone, combine=how).scores(hidden, batch_read_by([1] * 50))
        assert bool((scores[:, 2:] == -torch.inf).all())
        assert bool(scores[:, :2].isfinite().all())
        assert float(scores.softmax(1)[:, 2:].sum()) == 0.0
        assert torch.allclose(scores.softmax(1).sum(1), torch.ones(50))


@pytest.mark.parametrize("how", ["mean", "max", "logsumexp"])
def test_gradient_reaches_hidden_and_is_finite_beside_absent_classes(how: str, backbone: Backbone) -> None:
    readout = build(backbone, combine=how)
    hidden = hidden_states(backbone, 3).requires_grad_()
    loss = readout.loss(readout.scores(hidden, batch_read_by([0, 1, 2])), torch.tensor([2, 1, 3]))
    assert loss.shape == (3,)
    loss.sum().backward()
    assert hidden.grad is not None
    assert bool(hidden.grad.isfinite().all())
    assert bool((hidden.grad.abs().sum(-1) > 0).all())
    assert not any(p.requires_grad or p.grad is not None for p in backbone.model.parameters())


def test_gradient_in_hidden_equals_finite_differences(backbone: Backbone) -> None:
    readout, labels = build(backbone), torch.tensor([1])
    hidden = hidden_states(backbone, 1).requires_grad_()
    zero = batch_read_by([0])
    readout.loss(readout.scores(hidden, zero), labels).sum().backward()
    direction = hidden_states(backbone, 1, seed=9)
    direction /= direction.norm()
    step = 1e-2
    with torch.no_grad():
        up, down = (readout.loss(readout.scores(hidden + s * direction, zero), labels) for s in (step, -step))
    assert hidden.grad is not None
    slope = float((hidden.grad * direction).sum())
    assert float((up - down) / (2 * step)) == pytest.approx(slope, rel=2e-2, abs=1e-3)


def test_loss_is_the_cross_entropy_per_row(backbone: Backbone) -> None:
    scores = torch.tensor([[1.0, 2.0, -torch.inf], [0.5, -1.0, 3.0]])
    loss = build(backbone).loss(scores, torch.tensor([0, 2]))
    by_hand = [math.log(math.e + math.e**2) - 1, math.log(math.e**0.5 + math.e**-1 + math.e**3) - 3]
    assert loss.tolist() == pytest.approx(by_hand, rel=1e-6)


def test_each_row_is_read_by_its_own_entry(backbone: Backbone) -> None:
    hidden = hidden_states(backbone, 1).expand(3, -1, -1)
    together = build(backbone).scores(hidden, batch_read_by([0, 1, 2]))
    for r, entry in enumerate(TABLE):
        alone = build(backbone, [entry]).scores(hidden[:1], batch_read_by([0]))
        torch.testing.assert_close(together[r, : len(entry)], alone[0], rtol=1e-5, atol=1e-6)


def test_only_the_first_answer_slot_is_read(backbone: Backbone) -> None:
    hidden = hidden_states(backbone, 2, answers=3)
    changed = hidden.clone()
    changed[:, 1:] = 7.0
    zero = batch_read_by([0, 0])
    assert torch.equal(build(backbone).scores(hidden, zero), build(backbone).scores(changed, zero))


def test_rows_of_one_batch_may_use_different_readouts_and_prompts(backbone: Backbone) -> None:
    rendering = toy_rendering(backbone)
    first = reader(backbone, rendering)
    plans = [rendering.plan(backbone.encoder), one_mask([[20], [21], [22]])]
    both = readouts.build({"kind": "cloze"}, backbone, plans)
    rows = rows_of(backbone, rendering, 4)
    mixed = [replace(row, readout=i % 2, prompt=i % 2) for i, row in enumerate(rows)]
    values = torch.randn(2, 5, backbone.embedding_size, generator=torch.Generator().manual_seed(0))
    table = PromptTable(values)
    found = PromptedModel(backbone, both).score_rows(mixed, table, 8192)
    alone = PromptedModel(backbone, first).score_rows([mixed[0], mixed[2]], table, 8192)
    torch.testing.assert_close(found[::2, :2], alone, rtol=1e-4, atol=1e-5)
    assert bool((found[::2, 2] == -torch.inf).all())
    assert bool(found[1::2].isfinite().all())


def test_examples_of_short_words_are_read_beside_a_table_of_long_ones(backbone: Backbone) -> None:
    """No row of the batch has as many answer slots as the longest words of the table."""
    rendering = toy_rendering(backbone)
    long_words = replace(rendering, verbalizer=Verbalizer.of({"a": "very good", "b": ["bad", "not very bad"]}))
    plans = [rendering.plan(backbone.encoder), long_words.plan(backbone.encoder)]
    both = PromptedModel(backbone, readouts.build({"kind": "cloze"}, backbone, plans))
    short, long = rows_of(backbone, rendering, 3), rows_of(backbone, long_words, 2)
    alone = PromptedModel(backbone, reader(backbone, rendering)).scores(both.collate(short), None)
    found = both.scores(both.collate(short), None)
    torch.testing.assert_close(found.softmax(1), alone.softmax(1), rtol=1e-4, atol=1e-5)
    mixed = [short[0], replace(long[0], readout=1), short[1], replace(long[1], readout=1), short[2]]
    together = both.scores(both.collate(mixed), None)
    torch.testing.assert_close(together[::2], found, rtol=1e-4, atol=1e-4)
    own = PromptedModel(backbone, reader(backbone, long_words))
    torch.testing.assert_close(together[1::2], own.scores(own.collate(long), None), rtol=1e-4, atol=1e-4)


def test_all_sequences_of_an_example_are_cut_to_the_same_text(backbone: Backbone) -> None:
    words = Verbalizer.of({"a": ["good", "very good"], "b": "not very bad"})
    rendering = replace(toy_rendering(backbone), verbalizer=words, max_length=16)
    text = " ".join(["cat"] * 40)
    variants = rendering.row(Example("1", {"text": text}, None), backbone.encoder).variants
    assert [len(e) for e in variants] == [14, 15, 16]
    assert len({len(e.eligible) for e in variants}) == 1


def test_a_rendering_plans_anew_for_another_tokenizer(backbone: Backbone, tmp_path: Path) -> None:
    other = load_backbone(str(BUILDERS["roberta"](tmp_path)), device="cpu")
    rendering = toy_rendering(backbone)
    first, second = rendering.plan(backbone.encoder), rendering.plan(other.encoder)
    assert first.fills[0].ids == (backbone.encoder.mask_id,)
    assert second.fills[0].ids == (other.encoder.mask_id,)
    assert rendering.plan(backbone.encoder) is first
