"""What every regularizer promises, checked over the registry; broken ones show that each check can fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.contract.toy_runs import reader, rows_of, toy_rendering, toy_run
from trimtab.backbones import Backbone
from trimtab.batching import collate
from trimtab.errors import ConfigError
from trimtab.model import PromptedModel
from trimtab.registry import regularizers
from trimtab.regularizers import Regularizer
from trimtab.training.packs import train_pack
from trimtab.types import Batch, PromptTable, Row, TrainStep

STRENGTHS = ("sigma", "epsilon", "rate")
"""The options that set the size of a perturbation have these names everywhere (architecture.md, section 6)."""


def of_kind(kind: str, **options: Any) -> Regularizer:
    return regularizers.build(regularizers.resolve({"kind": kind, **options}, "regularizers.0"))


def strength_of(kind: str) -> str:
    names = [n for n in STRENGTHS if n in regularizers.options(kind)]
    assert names, f"{kind!r} has none of the options {STRENGTHS}, so no zero perturbation can be asked for"
    return names[0]


@dataclass
class Scene:
    """One micro-batch of two runs, as a regularizer sees it, and what it did."""

    step: TrainStep
    leaf: PromptTable
    backbone: Backbone
    rows: list[Row]
    deltas: list[Tensor] = field(default_factory=list)


@pytest.fixture(params=["right", "left"])
def scene(backbone: Backbone, request: pytest.FixtureRequest) -> Scene:
    rendering = toy_rendering(backbone, template="{prompt:2} about {text} {prompt:3} it was {answer}.")
    model = PromptedModel(backbone, reader(backbone, rendering))
    rows = [replace(row, prompt=i % 2, key=i) for i, row in enumerate(rows_of(backbone, rendering, 6))]
    batch: Batch = collate(rows, backbone.pad_id, request.param)
    values = torch.randn(2, 5, backbone.embedding_size, generator=torch.Generator().manual_seed(1))
    leaf = PromptTable(values * backbone.embedding_rms).detached()
    scores = model.scores(batch, leaf)
    deltas: list[Tensor] = []

    def rescore(delta: Tensor) -> Tensor:
        deltas.append(delta.detach().clone())
        return model.scores(batch, leaf, delta)

    def noise(name: str) -> Tensor:
        return torch.randn(*batch.ids.shape, backbone.embedding_size, generator=torch.Generator().manual_seed(2))

    step = TrainStep(
        batch=batch, embeds=model.embed(batch), scores=scores.detach(), embedding_rms=backbone.embedding_rms,
        rescore=rescore, loss=model.readout.loss, noise=noise,
    )  # fmt: skip
    return Scene(step, leaf, backbone, rows, deltas)


# The promises --------------------------------------------------------------------------------------------------------


def check_values(regularizer: Regularizer, scene: Scene) -> None:
    """One finite value per row."""
    penalty = regularizer.penalty(scene.step)
    assert penalty.shape == (len(scene.step.batch),)
    assert bool(penalty.isfinite().all())
    assert regularizer.weight >= 0


def check_zero(regularizer: Regularizer, scene: Scene) -> None:
    """A perturbation of size zero gives the clean loss."""
    clean = scene.step.loss(scene.step.scores, scene.step.batch.labels)
    torch.testing.assert_close(regularizer.penalty(scene.step).detach(), clean, rtol=1e-6, atol=1e-6)


def check_does_something(regularizer: Regularizer, scene: Scene) -> None:
    """With its default size, the perturbation changes the loss of every row."""
    clean = scene.step.loss(scene.step.scores, scene.step.batch.labels)
    assert bool(((regularizer.penalty(scene.step) - clean).abs() > 0).all())


def check_gradient(regularizer: Regularizer, scene: Scene) -> None:
    """The penalty reaches every row of every prompt in use, and no weight of the backbone."""
    scene.leaf.inputs.grad = None
    penalty = regularizer.penalty(scene.step)
    assert penalty.requires_grad, "no gradient reaches the prompt"
    penalty.sum().backward()
    grad = scene.leaf.inputs.grad
    assert grad is not None, "no gradient reaches the prompt"
    assert bool(grad.isfinite().all())
    assert bool((grad.abs().sum(-1) > 0).all())
    assert not any(p.requires_grad or p.grad is not None for p in scene.backbone.model.parameters())


def check_rows_are_apart(regularizer: Regularizer, scene: Scene) -> None:
    """The penalty of a row of run 0 has no gradient on the prompt of run 1."""
    scene.leaf.inputs.grad = None
    penalty = regularizer.penalty(scene.step)
    penalty[scene.step.batch.prompt_of == 0].sum().backward()
    assert scene.leaf.inputs.grad is not None
    assert float(scene.leaf.inputs.grad[0].abs().sum()) > 0
    assert float(scene.leaf.inputs.grad[1].abs().sum()) == 0, "a run's penalty reaches the prompt of another"


def check_ineligible_untouched(regularizer: Regularizer, scene: Scene) -> None:
    """Slots, the answer slot, literals, special tokens and pads are never perturbed; field text is."""
    regularizer.penalty(scene.step)
    assert scene.deltas, "nothing was perturbed"
    eligible = scene.step.batch.eligible
    for delta in scene.deltas:
        moved = delta.abs().sum(-1) > 0
        assert not bool(moved[~eligible].any()), f"touched: {(moved & ~eligible).nonzero().tolist()}"
        assert bool(moved[eligible].all())


def check_inputs_kept(regularizer: Regularizer, scene: Scene) -> None:
    """What the regularizer is shown is not changed in place."""
    before = {k: v.clone() for k, v in vars(scene.step).items() if isinstance(v, Tensor)}
    prompt = scene.leaf.inputs.detach().clone()
    regularizer.penalty(scene.step)
    for name, value in before.items():
        assert torch.equal(getattr(scene.step, name), value), f"{name} was changed"
    assert torch.equal(scene.leaf.inputs, prompt), "the prompt was changed"


# The promises, kept by every regularizer of the registry -------------------------------------------------------------

every_kind = pytest.mark.parametrize("kind", regularizers.kinds())


def test_the_scene_has_every_sort_of_position(scene: Scene) -> None:
    batch = scene.step.batch
    inside = batch.attention_mask.bool()
    assert not inside.all(), "there must be pads"
    for row, ids, eligible in zip(scene.rows, batch.ids, batch.eligible, strict=True):
        assert ids[eligible].tolist() == [row.encoded.ids[i] for i in row.encoded.eligible] != []
    slots = batch.slots
    assert not bool(batch.eligible.gather(1, slots).any())
    assert not bool(batch.eligible.gather(1, batch.answer_at).any())
    assert int((inside & ~batch.eligible).sum(1).min()) >= 5 + 1 + 2 + 4, "slots, answer, specials, literals"


@every_kind
def test_gives_one_finite_value_per_row(kind: str, scene: Scene) -> None:
    check_values(of_kind(kind), scene)


@every_kind
def test_zero_perturbation_gives_the_clean_loss(kind: str, scene: Scene) -> None:
    check_zero(of_kind(kind, **{strength_of(kind): 0.0}), scene)


@every_kind
def test_default_perturbation_changes_the_loss(kind: str, scene: Scene) -> None:
    check_does_something(of_kind(kind), scene)


@every_kind
def test_gradient_is_on_the_prompt_and_not_on_the_backbone(kind: str, scene: Scene) -> None:
    check_gradient(of_kind(kind), scene)


@every_kind
def test_runs_of_a_pack_are_kept_apart(kind: str, scene: Scene) -> None:
    check_rows_are_apart(of_kind(kind), scene)


@every_kind
def test_only_field_text_is_perturbed(kind: str, scene: Scene) -> None:
    check_ineligible_untouched(of_kind(kind), scene)


@every_kind
def test_inputs_are_not_changed(kind: str, scene: Scene) -> None:
    check_inputs_kept(of_kind(kind), scene)


@every_kind
def test_weight_zero_is_bit_identical_to_no_regularizer(kind: str, backbone: Backbone, tmp_path: Path) -> None:
    training = {"max_steps": 5, "evaluations": 5}
    prompts, histories = [], []
    for specs in ([], [{"kind": kind, "weight": 0.0}], [{"kind": kind, "weight": 1.0}]):
        trained = train_pack([toy_run(tmp_path, backbone, {"regularizers": specs, "training": training}, n=16)])[0]
        prompts.append(trained.member.best | {"prompt": torch.from_numpy(trained.prompt)})
        histories.append(trained.member.history)
    assert histories[0] == histories[1]
    assert all(torch.equal(prompts[0][k], prompts[1][k]) for k in prompts[0])
    assert histories[0] != histories[2], "with weight 1 the run must differ"


@every_kind
def test_every_option_has_a_default(kind: str) -> None:
    assert isinstance(of_kind(kind), Regularizer)


def test_gaussian_noise_has_the_stated_size(scene: Scene) -> None:
    for options, sigma in (({"sigma": 0.7}, 0.7), ({"sigma_relative": 0.5}, 0.5 * scene.step.embedding_rms)):
        scene.deltas.clear()
        of_kind("gaussian", **options).penalty(scene.step)
        values = scene.deltas[0][scene.step.batch.eligible]
        assert float(values.std()) == pytest.approx(sigma, rel=0.1)
        torch.testing.assert_close(values, sigma * scene.step.noise("gaussian")[scene.step.batch.eligible])


def test_gaussian_refuses_two_sizes() -> None:
    with pytest.raises(ConfigError, match="give sigma or sigma_relative, not both"):
        of_kind("gaussian", sigma=0.1, sigma_relative=0.1)


# Saboteurs -----------------------------------------------------------------------------------------------------------


@dataclass
class Noise:
    """Correct noise, the base of the broken regularizers."""

    sigma: float = 0.1
    weight: float = 1.0

    def delta(self, step: TrainStep) -> Tensor:
        return self.sigma * step.noise("x") * step.batch.eligible[..., None]

    def penalty(self, step: TrainStep) -> Tensor:
        return step.loss(step.rescore(self.delta(step)), step.batch.labels)


class ScalarPerBatch(Noise):
    def penalty(self, step: TrainStep) -> Tensor:
        return super().penalty(step).mean()


class NotFinite(Noise):
    def penalty(self, step: TrainStep) -> Tensor:
        return super().penalty(step) / torch.zeros(len(step.batch))


class AddsAConstant(Noise):
    def penalty(self, step: TrainStep) -> Tensor:
        return super().penalty(step) + 0.01


class DoesNothing(Noise):
    def delta(self, step: TrainStep) -> Tensor:
        return torch.zeros_like(step.embeds)


class Detached(Noise):
    def penalty(self, step: TrainStep) -> Tensor:
        with torch.no_grad():
            return super().penalty(step)


class PromptFree(Noise):
    """Reads the clean scores, which the prompt cannot be reached from."""

    def penalty(self, step: TrainStep) -> Tensor:
        return step.loss(step.scores.requires_grad_(), step.batch.labels)


class AveragesRows(Noise):
    def penalty(self, step: TrainStep) -> Tensor:
        values = super().penalty(step)
        return values.mean().expand_as(values)


class TouchesEverything(Noise):
    def delta(self, step: TrainStep) -> Tensor:
        return self.sigma * step.noise("x")


class TouchesPads(Noise):
    def delta(self, step: TrainStep) -> Tensor:
        return super().delta(step) + self.sigma * step.noise("x") * (1 - step.batch.attention_mask)[..., None]


class TouchesTheAnswer(Noise):
    def delta(self, step: TrainStep) -> Tensor:
        return (
            super().delta(step).index_put((torch.arange(len(step.batch)), step.batch.answer_at[:, 0]), torch.ones(()))
        )


class SkipsTheEnd(Noise):
    """Forgets the last position of the text."""

    def delta(self, step: TrainStep) -> Tensor:
        last = step.batch.eligible.cumsum(1).argmax(1)
        return super().delta(step).index_put((torch.arange(len(last)), last), torch.zeros(()))


class WritesInPlace(Noise):
    def penalty(self, step: TrainStep) -> Tensor:
        step.embeds.add_(self.delta(step))
        return super().penalty(step)


class LearnsSomethingElse(Noise):
    """Differentiable, but not in the prompt."""

    def penalty(self, step: TrainStep) -> Tensor:
        values = super().penalty(step)
        weight = torch.ones((), requires_grad=True)
        return values.detach() * weight


def test_the_base_of_the_saboteurs_keeps_every_promise(scene: Scene) -> None:
    for check in (
        check_values, check_does_something, check_gradient, check_rows_are_apart, check_ineligible_untouched,
        check_inputs_kept,
    ):  # fmt: skip
        check(Noise(), scene)
    check_zero(Noise(sigma=0.0), scene)


@pytest.mark.parametrize(
    ("saboteur", "check"),
    [
        (ScalarPerBatch, check_values),
        (NotFinite, check_values),
        (DoesNothing, check_does_something),
        (DoesNothing, check_ineligible_untouched),
        (Detached, check_gradient),
        (PromptFree, check_gradient),
        (LearnsSomethingElse, check_gradient),
        (AveragesRows, check_rows_are_apart),
        (TouchesEverything, check_ineligible_untouched),
        (TouchesPads, check_ineligible_untouched),
        (TouchesTheAnswer, check_ineligible_untouched),
        (SkipsTheEnd, check_ineligible_untouched),
        (WritesInPlace, check_inputs_kept),
    ],
    ids=lambda value: value.__name__,
)
def test_saboteur_is_caught(saboteur: type[Noise], check: Callable[[Regularizer, Scene], None], scene: Scene) -> None:
    with pytest.raises(AssertionError):
        check(saboteur(), scene)


def test_saboteur_that_adds_a_constant_is_caught(scene: Scene) -> None:
    with pytest.raises(AssertionError):
        check_zero(AddsAConstant(sigma=0.0), scene)


def test_saboteur_that_thaws_the_backbone_is_caught(scene: Scene) -> None:
    parameter = next(scene.backbone.model.parameters())
    parameter.requires_grad_()
    try:
        with pytest.raises(AssertionError):
            check_gradient(Noise(), scene)
    finally:
        parameter.requires_grad_(False)
        parameter.grad = None
