"""The four views on runs whose loss is a quadratic, so that every number has a closed form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.landscape.quadratic import quadratic_loss
from tests.unit.refusals import refused
from trimtab.backbones import Backbone
from trimtab.errors import ConfigError
from trimtab.landscape.directions import drawn, gradient
from trimtab.landscape.point import LossAt
from trimtab.landscape.surface import Paths, Surface
from trimtab.landscape.views import VIEWS, Settings, Subject, barrier
from trimtab.prompt_table import PromptTable

FIVE = Settings(points=5)


def run(loss: LossAt, name: str = "a", **options: Any) -> Subject:
    return Subject(Path(name), name, loss, **options)


@pytest.fixture(scope="module")
def base(backbone: Backbone) -> LossAt:
    return quadratic_loss(backbone, "prompt")


def elsewhere(loss: LossAt, seed: int) -> LossAt:
    """The same loss with another prompt."""
    inputs = torch.randn(loss.table.inputs.shape, generator=torch.Generator().manual_seed(seed))
    return LossAt(loss.model, PromptTable(inputs), loss.rows)


def quiet(event: Mapping[str, Any]) -> None:
    pass


def view(name: str, *losses: LossAt, settings: Settings = FIVE) -> list[Any]:
    subjects = [run(loss, "abc"[i]) for i, loss in enumerate(losses)]
    return [found for _, found in VIEWS[name](subjects, settings, quiet)]


def value(loss: LossAt, moved: torch.Tensor) -> float:
    """The closed form at a prompt."""
    matrix = loss.model.readout.matrix.double()  # type: ignore[attr-defined]
    h = moved.double()
    return float(0.5 * h @ matrix @ h)


def test_around_the_prompt_are_two_random_directions_of_one_step(base: LossAt) -> None:
    (found,) = view("prompt", base)
    assert isinstance(found, Surface)
    assert found.x.tolist() == found.y.tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]
    assert found.losses.shape == (5, 5, 3)
    assert found.mean[2, 2] == pytest.approx(value(base, base.original(base.prompt)), rel=1e-5)
    assert found.facts["marks"] == [{"name": "a", "x": 0.0, "y": 0.0, "loss": found.mean[2, 2]}]
    assert found.facts["scale"]["step"] == pytest.approx(float(base.original(base.prompt).norm()), rel=1e-5)
    # along a line a quadratic is a parabola, and both axes have the length of the step
    for line in (found.mean[2], found.mean[:, 2]):
        second = line[:-2] - 2 * line[1:-1] + line[2:]
        np.testing.assert_allclose(second, second[0], rtol=1e-3)
    assert found.mean[2, 4] != pytest.approx(found.mean[4, 2], rel=1e-3)


@pytest.mark.parametrize("read", ["prompt", "text"])
def test_along_the_gradient_the_loss_rises_as_the_gradient_says(backbone: Backbone, read: str) -> None:
    loss = quadratic_loss(backbone, read)
    settings = Settings(points=3, radius=1e-2, directions="gradient")
    (found,) = view(read, loss, settings=settings)
    scale = found.facts["scale"]
    slope = gradient(loss, getattr(loss, read)).norm()
    assert scale["gradient_norm"] == pytest.approx(float(slope), rel=1e-5)
    assert (found.mean[1, 2] - found.mean[1, 0]) / 2e-2 == pytest.approx(float(slope) * scale["step"], rel=1e-2)
    assert (found.mean[2, 1] - found.mean[0, 1]) / 2e-2 == pytest.approx(0.0, abs=0.02 * float(slope) * scale["step"])
    assert found.facts["axes"]["x"]["name"] == "along the gradient"


def test_texts_move_along_their_gradient_and_prompts_at_random_unless_asked(backbone: Backbone) -> None:
    loss = quadratic_loss(backbone, "text")
    names = {d: view("text", loss, settings=Settings(3, directions=d))[0].facts["axes"]["x"]["name"]
             for d in ("auto", "gradient", "random")}  # fmt: skip
    assert names == {"auto": names["gradient"], "gradient": "along the gradient", "random": "along a random direction"}
    (prompt,) = view("prompt", quadratic_loss(backbone, "prompt"), settings=Settings(3))
    assert prompt.facts["axes"]["x"]["name"] == "along a random direction"
    assert prompt.facts["scale"]["gradient_norm"] is None


def test_runs_that_are_compared_share_directions_and_scale(base: LossAt) -> None:
    other = LossAt(base.model, PromptTable(3 * base.table.inputs), base.rows)
    first, second = view("prompt", base, other)
    assert first.facts["scale"]["step"] == second.facts["scale"]["step"]
    assert first.x.tolist() == second.x.tolist()
    assert first.facts["compared"] == ["a", "b"]
    assert first.facts["axes"]["x"]["unit"] == "mean norm of the prompts"
    step = first.facts["scale"]["step"] / 2**0.5  # of each of two vectors
    values = drawn(base, base.prompt, 0, "x").view(2, -1)
    moved = base.original(base.prompt) + (step * values / values.norm(dim=1, keepdim=True)).flatten()
    assert first.mean[2, 4] == pytest.approx(value(base, moved), rel=1e-4)
    own = view("prompt", base, other, settings=replace(FIVE, unit="own"))
    assert own[1].facts["scale"]["step"] == pytest.approx(3 * own[0].facts["scale"]["step"], rel=1e-5)


def test_a_plane_goes_through_three_prompts(base: LossAt) -> None:
    runs = [base, elsewhere(base, 1), elsewhere(base, 2)]
    (found,) = view("plane", *runs)
    marks = found.facts["marks"]
    assert [m["name"] for m in marks] == ["A: a", "B: b", "C: c"]
    assert [(m["x"], m["y"]) for m in marks[:2]] == [(0.0, 0.0), (1.0, 0.0)]
    for mark, loss in zip(marks, runs, strict=True):
        assert mark["loss"] == pytest.approx(value(loss, loss.original(loss.prompt)), rel=1e-4)
        assert found.x[0] < mark["x"] < found.x[-1]
        assert found.y[0] < mark["y"] < found.y[-1]
    a, b, c = (loss.original(loss.prompt) for loss in runs)
    x = b - a
    up = c - a - ((c - a) @ x) / x.square().sum() * x
    y = up * x.norm() / up.norm()
    moved = a + float(found.x[1]) * x + float(found.y[3]) * y
    assert found.mean[3, 1] == pytest.approx(value(base, moved), rel=1e-4)


def test_a_path_leads_from_prompt_to_prompt(base: LossAt) -> None:
    runs = [base, elsewhere(base, 1), elsewhere(base, 2)]
    (found,) = view("path", *runs)
    assert isinstance(found, Paths)
    assert [(p["from"], p["to"]) for p in found.facts["pairs"]] == [("a", "b"), ("a", "c"), ("b", "c")]
    x = found.x.tolist()
    assert (x[0], x[-1]) == (-0.25, 1.25)
    b, c = (loss.original(loss.prompt) for loss in runs[1:])
    assert found.facts["pairs"][2]["distance"] == pytest.approx(float((c - b).norm()), rel=1e-5)
    for share in (0.0, 0.5, 1.0):
        assert found.mean[2, x.index(share)] == pytest.approx(value(base, (1 - share) * b + share * c), rel=1e-4)
    assert found.facts["pairs"][2]["barrier"] == pytest.approx(0.0, abs=1e-4)  # a convex function has none


def test_a_barrier_is_above_the_line_between_the_ends_and_not_beyond_them() -> None:
    shares = np.array([-0.5, 0.0, 0.5, 1.0, 1.5], dtype=np.float32)
    assert barrier(shares, np.array([9.0, 1.0, 1.5, 2.0, 9.0])) == 0.0
    assert barrier(shares, np.array([9.0, 1.0, 4.0, 2.0, 9.0])) == pytest.approx(2.5)
    assert barrier(shares, np.array([9.0, 1.0, 0.0, 2.0, 9.0])) == 0.0


def test_points_are_told_of_every_run(base: LossAt) -> None:
    told: list[Mapping[str, Any]] = []
    VIEWS["prompt"]([run(base, "a"), run(base, "b")], FIVE, told.append)
    for name in ("a", "b"):
        its = [e for e in told if e["run"] == name]
        assert sum(e["count"] for e in its) == its[0]["of"] == 25
        assert {e["view"] for e in its} == {"prompt"}


def test_the_grid_changes_nothing_but_how_much_is_seen(base: LossAt) -> None:
    coarse, fine = (view("prompt", base, settings=Settings(n))[0] for n in (3, 5))
    np.testing.assert_allclose(coarse.mean, fine.mean[::2, ::2], rtol=1e-5)


@pytest.mark.parametrize(("name", "count", "what"), [("plane", 2, "three runs, got 2"), ("path", 1, "got one run")])
def test_views_of_several_runs_need_them(base: LossAt, name: str, count: int, what: str) -> None:
    with refused(ConfigError, what, where=f"--view {name}", fix="different seeds"):
        view(name, *[base] * count)


@pytest.mark.parametrize("name", ["plane", "path"])
def test_prompts_that_do_not_fit_together_are_refused(base: LossAt, backbone: Backbone, name: str) -> None:
    others = {
        "have the same parts": quadratic_loss(backbone, "prompt", vectors=3),
        "stand in the same template": LossAt(base.model, base.table, base.rows[:2]),
    }
    for what, other in others.items():
        with refused(ConfigError, what, where="a, b", fix="differ in their seeds"):
            view(name, base, other, base)
    subjects = [run(elsewhere(base, i), "abc"[i], is_tuned=i == 1) for i in range(3)]
    with refused(ConfigError, "the backbone was trained with the prompt", where="b", fix="frozen backbone"):
        VIEWS[name](subjects, FIVE, quiet)


def test_the_same_run_three_times_is_no_plane(base: LossAt) -> None:
    with refused(ConfigError, "not on one line", where="landscape", fix="different seeds"):
        view("plane", base, base, base)


def test_where_there_is_nothing_to_move_is_refused(base: LossAt) -> None:
    bare = LossAt(base.model, PromptTable(torch.zeros(1, 0, 32)), base.rows)
    with refused(ConfigError, "there is no prompt", where="a", fix="another --view"):
        view("prompt", bare)
    mute = LossAt(base.model, base.table, [replace(r, encoded=replace(r.encoded, eligible=())) for r in base.rows])
    with refused(ConfigError, "there is no text to perturb", where="a", fix="another --view"):
        view("text", mute)


@pytest.mark.parametrize(
    ("options", "what", "where", "fix"),
    [
        ({"points": 4}, "odd number of points, 3 at least, and the run in its middle; got 4", "--points", "Use 5"),
        ({"points": 1}, "got 1", "--points", "Use 3"),
        ({"radius": 0.0}, "a radius is positive, got 0", "--radius", None),
        ({"directions": "gradent"}, "nothing called 'gradent'", "--directions", "'gradient'"),
        ({"unit": "owned"}, "nothing called 'owned'", "--unit", "'own'"),
        ({"max_tokens": 0}, "one token at least, got 0", "--max-tokens", None),
    ],
)
def test_settings_that_mean_nothing_are_refused(options: Any, what: str, where: str, fix: str | None) -> None:
    with refused(ConfigError, what, where=where, fix=fix):
        Settings(**options)
