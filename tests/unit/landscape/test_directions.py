"""Directions: their lengths, right angles, and what makes runs comparable."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.unit.landscape.quadratic import quadratic_loss
from tests.unit.refusals import refused
from trimtab.backbones import Backbone
from trimtab.errors import BackboneError, ConfigError
from trimtab.landscape.directions import (
    drawn,
    gradient,
    gradient_direction,
    random_direction,
    through,
    token_norms,
    units,
)
from trimtab.landscape.point import LossAt, Space
from trimtab.perturbations import TEXT


@pytest.fixture(scope="module")
def loss(backbone: Backbone) -> LossAt:
    return quadratic_loss(backbone, "prompt")


def scaled(loss: LossAt, factor: float) -> LossAt:
    return LossAt(loss.model, loss.table.with_tensors({"inputs": factor * loss.table.inputs}), loss.rows)


def test_the_gradient_of_a_quadratic_is_its_matrix_times_the_point(loss: LossAt) -> None:
    matrix = loss.model.readout.matrix  # type: ignore[attr-defined]
    torch.testing.assert_close(gradient(loss, loss.prompt), matrix @ loss.original(loss.prompt), rtol=1e-4, atol=1e-5)


def test_a_gradient_of_zero_is_no_direction(loss: LossAt) -> None:
    with refused(ConfigError, "with respect to inputs is zero", where="landscape", fix="--directions random"):
        gradient(scaled(loss, 0.0), loss.prompt)
    with refused(ConfigError, "with respect to text is zero", where="landscape", fix="--directions random"):
        gradient(loss, loss.text)  # the prompt alone is read


def test_a_gradient_that_is_no_number_is_refused(loss: LossAt) -> None:
    with refused(BackboneError, "inputs is not finite", where=loss.model.backbone.name, fix="has diverged"):
        gradient(scaled(loss, torch.inf), loss.prompt)


def test_every_token_of_a_random_direction_has_its_unit() -> None:
    space = Space({"inputs": (3, 8), "deep.self": (2, 2, 3, 2, 4)})
    unit = torch.arange(1.0, 1 + 3 + 12)
    values = torch.randn(space.size, generator=torch.Generator().manual_seed(0))
    x = random_direction(values, space, unit)
    torch.testing.assert_close(token_norms(x, space), unit)
    other = torch.randn(space.size, generator=torch.Generator().manual_seed(1))
    y = random_direction(other, space, unit, beside=x)
    torch.testing.assert_close(token_norms(y, space), unit)
    for token in range(len(unit)):
        its = space.tokens == token
        assert abs(float(x[its] @ y[its])) < 1e-4 * float(unit[token]) ** 2
    assert abs(float(random_direction(other, space, unit) @ x)) > 1e-2


def test_the_gradient_has_the_length_of_a_random_direction() -> None:
    unit = torch.tensor([3.0, 4.0])
    found = gradient_direction(torch.tensor([0.0, 2.0, 0.0]), unit)
    assert found.tolist() == [0.0, 5.0, 0.0]


def test_draws_depend_on_seed_purpose_and_shape_alone(loss: LossAt, backbone: Backbone) -> None:
    other = quadratic_loss(backbone, "prompt", seed=1)
    assert torch.equal(drawn(loss, loss.prompt, 0, "x"), drawn(other, other.prompt, 0, "x"))
    assert not torch.equal(drawn(loss, loss.prompt, 0, "x"), drawn(loss, loss.prompt, 1, "x"))
    assert not torch.equal(drawn(loss, loss.prompt, 0, "x"), drawn(loss, loss.prompt, 0, "y"))


def test_texts_share_the_noise_of_the_tokens_that_they_share(loss: LossAt, backbone: Backbone) -> None:
    cut = [
        replace(r, encoded=replace(r.encoded, eligible=r.encoded.eligible[: 1 + (i > 0)]))
        for i, r in enumerate(loss.rows)
    ]
    other = LossAt(loss.model, loss.table, cut)
    assert loss.tokens_of_text == (2, 3, 4)
    assert other.tokens_of_text == (1, 2, 2)
    whole = drawn(loss, loss.text, 0, "x").view(-1, backbone.embedding_size)
    found = drawn(other, other.text, 0, "x").view(-1, backbone.embedding_size)
    assert torch.equal(found, whole[[0, 2, 3, 5, 6]])


def test_common_units_are_the_same_for_all_runs_and_own_ones_are_not(loss: LossAt) -> None:
    big = scaled(loss, 3.0)
    norms = token_norms(loss.original(loss.prompt), loss.prompt)
    for one in (loss, big):
        torch.testing.assert_close(
            units([loss, big], loss.prompt, one, "common"), (5 * norms.square()).mean().sqrt().expand(2)
        )
    torch.testing.assert_close(units([loss, big], loss.prompt, big, "own"), 3 * norms)


def test_a_step_of_1_in_the_text_is_as_long_as_the_text(loss: LossAt) -> None:
    unit = units([loss], loss.text, loss, "common")
    torch.testing.assert_close(unit.norm(), loss.original(loss.text).norm())
    torch.testing.assert_close(unit, unit.mean().expand(len(unit)))
    assert loss.text.shapes[TEXT][0] == len(unit)


def test_names_have_units_of_their_own(loss: LossAt) -> None:
    space = Space({"inputs": loss.prompt.shapes["inputs"], "text": loss.text.shapes["text"]})
    assert len(units([loss], space, loss, "common").unique()) == 2


def test_a_prompt_of_zeros_gives_no_unit(loss: LossAt) -> None:
    nothing = scaled(loss, 0.0)
    with refused(ConfigError, "inputs is zero, so it gives no unit", where="landscape", fix="Train the run"):
        units([nothing], loss.prompt, nothing, "common")


def test_three_points_make_a_plane_with_axes_of_one_length() -> None:
    first, second = torch.tensor([2.0, 0.0, 0.0]), torch.tensor([1.0, 3.0, 0.0])
    x, y, (along, up) = through(first, second)
    assert x.tolist() == [2.0, 0.0, 0.0]
    torch.testing.assert_close(y, torch.tensor([0.0, 2.0, 0.0]))
    torch.testing.assert_close(along * x + up * y, second)


@pytest.mark.parametrize(
    ("first", "second"), [([2.0, 0.0], [1.0, 0.0]), ([0.0, 0.0], [1.0, 0.0]), ([1.0, 0.0], [0.0, 0.0])]
)
def test_three_points_on_a_line_make_none(first: list[float], second: list[float]) -> None:
    with refused(ConfigError, "not on one line", where="landscape", fix="different seeds"):
        through(torch.tensor(first), torch.tensor(second))
