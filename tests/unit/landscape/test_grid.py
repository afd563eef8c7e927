"""Losses over many points: the closed form of a quadratic, however points are packed; and memory that is not there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.contract.toy_runs import reader, rows_of, toy_rendering
from tests.unit.landscape.quadratic import quadratic_loss
from tests.unit.refusals import refused
from trimtab.backbones import Backbone
from trimtab.errors import ConfigError
from trimtab.landscape import grid
from trimtab.landscape.grid import bytes_needed, losses_over, points_of_pass
from trimtab.landscape.point import LossAt
from trimtab.model import PromptedModel
from trimtab.prompt_table import PromptTable


def corners(n: int = 5) -> np.ndarray:
    line = np.linspace(-1, 1, n, dtype=np.float32)
    return np.stack([a.ravel() for a in np.meshgrid(line, line)], axis=1)


@pytest.mark.parametrize("read", ["prompt", "text"])
def test_the_surface_of_a_quadratic_is_its_closed_form(backbone: Backbone, read: str) -> None:
    loss = quadratic_loss(backbone, read)
    space = loss.prompt if read == "prompt" else loss.text
    axes = torch.randn(2, space.size, generator=torch.Generator().manual_seed(3))
    at = corners()
    found = losses_over(loss, space, axes, at)
    matrix = loss.model.readout.matrix.double().numpy()  # type: ignore[attr-defined]
    counts, size = loss.tokens_of_text, backbone.embedding_size
    firsts = np.cumsum([0, *counts[:-1]]) * size
    origin, axes_ = loss.original(space).double().numpy(), axes.double().numpy()
    for point, its in zip(at, found, strict=True):
        moved = origin + point.astype(np.float64) @ axes_
        for x in range(3):
            begin = 0 if read == "prompt" else firsts[x]
            h = moved[begin : begin + len(matrix)]
            assert its[x] == pytest.approx(0.5 * h @ matrix @ h, rel=2e-5)


def toy_loss(backbone: Backbone, max_tokens: int = 8192) -> LossAt:
    rendering = toy_rendering(backbone)
    model = PromptedModel(backbone, reader(backbone, rendering))
    inputs = torch.randn(1, 5, backbone.embedding_size, generator=torch.Generator().manual_seed(0))
    return LossAt(model, PromptTable(inputs), rows_of(backbone, rendering, 6), max_tokens)


@pytest.mark.parametrize("name", ["text", "prompt"])
def test_how_points_are_packed_changes_nothing(backbone: Backbone, name: str) -> None:
    loss = toy_loss(backbone)
    space = getattr(loss, name)
    axes = 0.3 * torch.randn(2, space.size, generator=torch.Generator().manual_seed(3))
    each = loss.tokens_of_pass
    packs = {many: losses_over(loss, space, axes, corners(), max_tokens=many * each) for many in (1, 4, 100)}
    assert [points_of_pass(loss, many * each) for many in packs] == [1, 4, 100]
    assert packs[1].std(0).min() > 1e-3
    for found in packs.values():
        np.testing.assert_allclose(found, packs[1], rtol=1e-5, atol=1e-5)
    small = toy_loss(backbone, max_tokens=20)  # examples in several passes
    assert small.tokens_of_pass < each
    np.testing.assert_allclose(losses_over(small, space, axes, corners()), packs[1], rtol=1e-5, atol=1e-5)


def test_a_pass_holds_one_point_at_least(backbone: Backbone) -> None:
    assert points_of_pass(toy_loss(backbone), 1) == 1


def test_every_pass_is_told(backbone: Backbone) -> None:
    loss, told = toy_loss(backbone), list[int]()
    axes = torch.zeros(2, loss.prompt.size)
    losses_over(loss, loss.prompt, axes, corners(), told.append, max_tokens=10 * loss.tokens_of_pass)
    assert told == [10, 10, 5]


def test_what_does_not_fit_into_memory_is_refused_before_it_begins(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = toy_loss(backbone)
    axes = torch.zeros(2, loss.prompt.size)
    needed = bytes_needed(loss, loss.prompt, 25, points_of_pass(loss))
    monkeypatch.setattr(grid, "free_memory", lambda device: needed)
    told: list[int] = []
    losses_over(loss, loss.prompt, axes, corners(), told.append)
    monkeypatch.setattr(grid, "free_memory", lambda device: needed - 1)
    told.clear()
    with refused(ConfigError, "25 points with 6 examples, ", where="landscape", fix="Lower --points, --examples"):
        losses_over(loss, loss.prompt, axes, corners(), told.append)
    assert told == []
    monkeypatch.setattr(grid, "free_memory", lambda device: None)  # the system does not tell
    losses_over(loss, loss.prompt, axes, corners(), told.append)


def test_memory_grows_with_points_examples_and_passes(backbone: Backbone) -> None:
    loss = toy_loss(backbone)
    base = bytes_needed(loss, loss.prompt, 100, 1)
    assert bytes_needed(loss, loss.prompt, 10**9, 1) > 8 * 10**9 * 6
    assert bytes_needed(loss, loss.prompt, 100, 50) > 5 * base
    assert bytes_needed(loss, loss.text, 100, 1) > base
    several = toy_loss(backbone, max_tokens=20)
    assert len(several.passes) > 2
    assert bytes_needed(several, several.prompt, 1, 1) > 0.6 * bytes_needed(loss, loss.prompt, 1, 1)  # of the gradient
