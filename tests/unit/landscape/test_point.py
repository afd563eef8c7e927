"""The loss at points around a run: the same alone, in one batch, in several passes; and differentiable twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.contract import tiny_families
from tests.contract.toy_runs import reader, rows_of, toy_examples, toy_rendering, toy_run
from tests.unit.refusals import refused
from trimtab.backbones import Backbone, load_backbone
from trimtab.errors import DataError
from trimtab.landscape.point import LossAt, Space, loss_at, opened, repeated
from trimtab.model import PromptedModel
from trimtab.perturbations import TEXT
from trimtab.prompt_table import PromptTable, table_of
from trimtab.training.runs import run_pack
from trimtab.types import Example


@pytest.fixture(scope="module")
def eager(tiny_folder: Path) -> Backbone:
    return load_backbone(str(tiny_folder), dtype="float32", device="cpu", attention="eager")


def prompt_of(backbone: Backbone, deep: bool = False, seed: int = 0) -> PromptTable:
    """A random prompt of five vectors, deep keys and values beside them if asked for."""
    draw = torch.Generator().manual_seed(seed)
    parts = {"inputs": torch.randn(1, 5, backbone.embedding_size, generator=draw)}
    layers = {}
    if deep:
        for name, site in backbone.sites.items():
            shape = (1, site.layers, 2, 3, site.heads, site.size)
            parts[f"deep.{name}"], layers[name] = torch.randn(shape, generator=draw), tuple(range(site.layers))
    return table_of(parts, layers)


def toy_loss(backbone: Backbone, deep: bool = False, max_tokens: int = 8192, n: int = 6) -> LossAt:
    rendering = toy_rendering(backbone)
    model = PromptedModel(backbone, reader(backbone, rendering))
    return LossAt(model, prompt_of(backbone, deep), rows_of(backbone, rendering, n), max_tokens)


def points(space: Space, count: int, scale: float = 0.3, seed: int = 1) -> Tensor:
    return scale * torch.randn(count, space.size, generator=torch.Generator().manual_seed(seed))


def test_a_space_is_split_and_joined() -> None:
    space = Space({"text": (2, 3), "deep.self": (1, 2, 2, 2, 2)})
    values = points(space, 3)
    assert space.size == 6 + 16
    parts = space.split(values)
    assert parts["text"].shape == (3, 2, 3)
    assert parts["deep.self"].shape == (3, 1, 2, 2, 2, 2)
    assert torch.equal(space.join(parts), values)
    assert torch.equal(space.join(dict(reversed(parts.items()))), values)
    assert space.tokens.tolist() == [0] * 3 + [1] * 3 + [2] * 4 + [3] * 4 + [4] * 4 + [5] * 4


def test_repeated_examples_keep_apart(eager: Backbone) -> None:
    batch = toy_loss(eager)._groups[0].batch
    twice = repeated(batch, 2)
    assert len(twice) == 2 * len(batch)
    assert twice.example_of.tolist() == [*batch.example_of.tolist(), *(batch.example_of + len(batch.labels)).tolist()]
    assert torch.equal(twice.ids[len(batch) :], batch.ids)
    assert len(twice.labels) == 2 * len(batch.labels)


@pytest.mark.parametrize("deep", [False, True])
def test_without_a_change_it_is_the_loss_of_the_run(eager: Backbone, deep: bool) -> None:
    loss = toy_loss(eager, deep)
    batch = loss.model.collate(loss.rows)
    expected = loss.model.readout.loss(loss.model.scores(batch, loss.table), batch.labels)
    for space in (loss.text, loss.prompt, loss.trained):
        found = loss.losses(space.split(torch.zeros(2, space.size)))
        torch.testing.assert_close(found, expected.expand(2, -1), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(loss.at(space, torch.zeros(1, space.size))[0], expected.mean())


@pytest.mark.parametrize("deep", [False, True])
def test_points_are_the_same_alone_together_and_in_several_passes(eager: Backbone, deep: bool) -> None:
    whole, parts = toy_loss(eager, deep), toy_loss(eager, deep, max_tokens=24)
    assert len(parts._groups) > 2
    for space in (whole.text, whole.prompt):
        values = points(space, 3)
        together = whole.losses(space.split(values))
        assert together.std(0).min() > 1e-3  # the points differ
        torch.testing.assert_close(parts.losses(space.split(values)), together, rtol=1e-5, atol=1e-5)
        for g in range(3):
            alone = whole.losses(space.split(values[g : g + 1]))
            torch.testing.assert_close(alone[0], together[g], rtol=1e-5, atol=1e-5)


def test_a_changed_prompt_is_another_prompt(eager: Backbone) -> None:
    loss = toy_loss(eager, deep=True)
    values = points(loss.prompt, 1)
    moved = loss.table.with_tensors({n: v + d for (n, v), d in zip(
        loss.table.tensors.items(), loss.prompt.split(values).values(), strict=True)})  # fmt: skip
    assert set(loss.prompt.shapes) == {"inputs", "deep.self"}
    elsewhere = LossAt(loss.model, moved, loss.rows)
    torch.testing.assert_close(
        loss.losses(loss.prompt.split(values))[0],
        elsewhere.losses(elsewhere.prompt.split(torch.zeros(1, loss.prompt.size)))[0],
    )


def test_a_changed_text_is_another_text(eager: Backbone) -> None:
    loss = toy_loss(eager)
    row = loss.rows[0]
    single = LossAt(loss.model, loss.table, [row])
    embedded = eager.embedding_rows.detach()
    own = embedded[[row.encoded.ids[i] for i in row.encoded.eligible]]
    assert torch.equal(single.original(single.text).view(own.shape), own)
    swapped = [(i % 20) + 60 for i in range(len(own))]
    ids = list(row.encoded.ids)
    for place, token in zip(row.encoded.eligible, swapped, strict=True):
        ids[place] = token
    told = LossAt(loss.model, loss.table, [replace(row, encoded=replace(row.encoded, ids=tuple(ids)))])
    moved = single.at(single.text, (embedded[swapped] - own).reshape(1, -1))
    torch.testing.assert_close(moved, told.at(told.text, torch.zeros(1, told.text.size)), rtol=1e-5, atol=1e-5)


def test_padding_of_texts_has_no_numbers(eager: Backbone) -> None:
    loss = toy_loss(eager)
    assert len(set(loss.tokens_of_text)) > 1
    assert loss.text.shapes[TEXT] == (sum(loss.tokens_of_text), eager.embedding_size)
    values = torch.zeros(1, loss.text.size, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss.at(loss.text, values)[0], values)
    each = gradient.view(-1, eager.embedding_size).norm(dim=1)
    assert (each > 0).all()
    first = sum(loss.tokens_of_text[:2])
    (own,) = torch.autograd.grad(loss.losses(loss.text.split(values))[0, 2], values)
    touched = own.view(-1, eager.embedding_size).norm(dim=1).nonzero().flatten().tolist()
    assert touched == list(range(first, first + loss.tokens_of_text[2]))


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "deberta-v2", "t5"])
def test_it_can_be_differentiated_twice(tmp_path: Path, name: str) -> None:
    folder = tiny_families.BUILDERS[name](tmp_path)
    backbone = load_backbone(str(folder), dtype="float32", device="cpu", attention="eager")
    loss = toy_loss(backbone, deep=True, n=3)
    for space in (loss.text, loss.prompt):
        along = points(space, 1, scale=1.0)
        values = torch.zeros(1, space.size, requires_grad=True)
        (gradient,) = torch.autograd.grad(loss.at(space, values)[0], values, create_graph=True)
        (product,) = torch.autograd.grad((gradient * along).sum(), values)
        step = 1e-2
        ends = []
        for sign in (1, -1):
            there = (sign * step * along / along.norm()).requires_grad_()
            ends.append(torch.autograd.grad(loss.at(space, there)[0], there)[0])
        numeric = (ends[0] - ends[1]) / (2 * step) * along.norm()
        assert product.norm() > 0
        torch.testing.assert_close(product, numeric, rtol=0.1, atol=float(0.05 * product.abs().max()))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, backbone: Backbone) -> Path:
    folder = tmp_path_factory.mktemp("point")
    prepared = toy_run(folder, backbone, {"prompt": {"kind": "residual", "bottleneck": 8}})
    return Path(run_pack([prepared], folder / "runs")[0]["run"])


def test_a_run_is_opened_in_float32_with_eager_attention(finished: Path) -> None:
    predictor = opened(finished, device="cpu")
    assert predictor.model.backbone.dtype == torch.float32
    assert predictor.model.backbone.model.config._attn_implementation == "trimtab_eager"


def test_the_centre_is_what_evaluate_finds(finished: Path) -> None:
    predictor, examples = opened(finished, device="cpu"), toy_examples(9, seed=3)
    loss = loss_at(predictor, examples, max_tokens=40)
    told = [-torch.tensor(p.scores[p.gold]).log() for p in predictor.evaluate(examples).predictions]
    found = loss.losses(loss.prompt.split(torch.zeros(1, loss.prompt.size)))[0]
    torch.testing.assert_close(found, torch.stack(told), rtol=1e-5, atol=1e-6)


def test_examples_without_a_label_are_refused(finished: Path) -> None:
    with refused(DataError, "the example has no label", where="input 2", fix="Give its label"):
        loss_at(opened(finished, device="cpu"), [*toy_examples(1), Example("x", {"text": "the cat"}, None)])
