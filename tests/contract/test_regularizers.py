"""What every regularizer promises, checked over the registry; broken ones show that each check can fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.contract.tiny_families import BUILDERS
from tests.contract.toy_runs import reader, rows_of, toy_rendering, toy_run
from tests.unit.refusals import refused
from trimtab.backbones import Backbone, load_backbone
from trimtab.backbones.substitutes import hiding_token, substitutes
from trimtab.batching import collate
from trimtab.config import Seeds
from trimtab.errors import ConfigError
from trimtab.model import NOTHING, PromptedBackbone, PromptedModel
from trimtab.perturbations import Delta, TrainStep
from trimtab.prompt_table import PromptTable
from trimtab.registry import regularizers
from trimtab.regularizers import Needs, Regularizer
from trimtab.training.objective import Objective, Part, check_regularizers
from trimtab.training.packs import train_pack
from trimtab.training.parallel import ALONE
from trimtab.types import Batch, Row

STRENGTHS = ("sigma", "epsilon", "rate", "alpha")
"""The options that set the size of a perturbation have these names everywhere (architecture.md, section 6)."""

CONTROLS = ("duplicate",)
"""Kinds that perturb nothing."""

VISIBLE: dict[str, dict[str, Any]] = {
    "random_mask": {"at_least_one": True},
    "r3f": {"sigma_relative": 0.3},
    "smart": {"epsilon_relative": 0.3},
    "word_swap": {
        "rate": 0.9,
        "similarity": -1.0,
        "proposals": 200,
        "neighbours": 200,
        "stop_words": "none",
        "opposites": "none",
    },
}
"""Options with which a kind shows on short texts in float32 what its default is too rare or too small for."""

PERTURBING = [kind for kind in regularizers.kinds() if kind not in CONTROLS]


def of_kind(kind: str, **options: Any) -> Regularizer:
    spec = {"kind": kind, **VISIBLE.get(kind, {}), **options}
    built: Regularizer = regularizers.build(regularizers.resolve(spec, "regularizers.0"))
    return built


def strength_of(kind: str) -> str:
    names = [n for n in STRENGTHS if n in regularizers.options(kind)]
    assert names, f"{kind!r} has none of the options {STRENGTHS}, so no zero perturbation can be asked for"
    return names[0]


def without_strength(kind: str) -> Regularizer:
    size = strength_of(kind)
    options = {k: v for k, v in VISIBLE.get(kind, {}).items() if not k.startswith(size)}
    return regularizers.build(regularizers.resolve({"kind": kind, **options, size: 0.0}, "regularizers.0"))


@dataclass
class Watched:
    """A regularizer whose penalties are written down."""

    inner: Regularizer
    weight: float
    parts: list[Tensor] = field(default_factory=list)
    steps: list[TrainStep] = field(default_factory=list)

    @property
    def needs(self) -> Needs:
        return self.inner.needs

    def penalties(self, step: TrainStep) -> Iterator[Tensor]:
        self.steps.append(step)
        for value in self.inner.penalties(step):
            self.parts.append(value)
            yield value


@dataclass
class Run:
    """What the objective wants to know of a member of a pack."""

    seeds: Seeds
    step: int
    regularizers: Sequence[Regularizer]
    train: Sequence[Row]
    epoch: int = 0
    findings: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


@dataclass
class Seen:
    """What the backbone was given in one pass."""

    batch: Batch
    embeds: Tensor


@dataclass
class Scene:
    """One micro-batch of two runs, and the objective at work on it."""

    model: PromptedModel
    rows: list[Row]
    batch: Batch
    values: Tensor
    seen: list[Seen] = field(default_factory=list)

    @property
    def clean(self) -> Tensor:
        """The loss of each example without penalty."""
        return self.model.readout.loss(self.model.scores(self.batch, PromptTable(self.values)), self.batch.labels)

    def backward(self, *its: Regularizer, weights: tuple[float, float] = (1.0, 1.0)) -> tuple[Tensor, list[Watched]]:
        """The gradient of one step on the prompts, and what the penalties of run 0 were."""
        watched = [Watched(r, weights[0]) for r in its]
        seeds = [Seeds(init=s, data_order=s, subset=s, noise=s) for s in (1, 2)]
        runs = [Run(s, 3, watched, self.rows) for s in seeds]
        runs[1].regularizers = [Watched(r, weights[1]) for r in its]
        leaf = PromptTable(self.values).detached()
        self.seen.clear()
        share = torch.full((len(self.batch.labels),), 1 / 3)
        found = substitutes(self.model.backbone)
        Objective(self.model, runs, ALONE, found).backward([Part(self.batch, share)], leaf)
        assert leaf.inputs.grad is not None
        return leaf.inputs.grad, watched

    def penalty(self, regularizer: Regularizer) -> Tensor:
        """The penalty of each example."""
        _, (watched,) = self.backward(regularizer)
        return torch.stack([p.detach() for p in watched.parts]).sum(0)


@pytest.fixture(params=["right", "left"])
def scene(backbone: Backbone, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Scene:
    rendering = toy_rendering(backbone, template="{prompt:2} about {text} {prompt:3} it was {answer}.")
    model = PromptedModel(backbone, reader(backbone, rendering))
    rows = [replace(row, prompt=i % 2, key=i) for i, row in enumerate(rows_of(backbone, rendering, 6))]
    batch: Batch = collate(rows, backbone.pad_id, request.param)
    values = torch.randn(2, 5, backbone.embedding_size, generator=torch.Generator().manual_seed(1))
    made = Scene(model, rows, batch, values * backbone.embedding_rms)
    read = PromptedBackbone._read

    def watched(self: PromptedBackbone, batch: Batch, table: PromptTable | None, delta: Delta = NOTHING) -> Any:
        embeds, decoder = read(self, batch, table, delta)
        assert embeds is not None
        made.seen.append(Seen(batch, embeds.detach().clone()))
        return embeds, decoder

    monkeypatch.setattr(PromptedBackbone, "_read", watched)
    return made


# The promises --------------------------------------------------------------------------------------------------------


def check_values(regularizer: Regularizer, scene: Scene) -> None:
    """Parts with one finite value per example."""
    _, (watched,) = scene.backward(regularizer)
    assert watched.parts, "no penalty"
    for part in watched.parts:
        assert part.shape == (len(scene.batch.labels),)
        assert bool(part.isfinite().all())
    assert regularizer.weight >= 0


def check_zero(regularizer: Regularizer, scene: Scene) -> None:
    """A perturbation of size zero gives the clean loss, or no divergence from the clean scores."""
    expected = torch.zeros_like(scene.clean) if regularizer.needs.distribution else scene.clean
    torch.testing.assert_close(scene.penalty(regularizer), expected, rtol=1e-6, atol=1e-6)


def check_does_something(regularizer: Regularizer, scene: Scene) -> None:
    """With its default size, the perturbation changes the loss of every example."""
    expected = torch.zeros_like(scene.clean) if regularizer.needs.distribution else scene.clean
    assert bool(((scene.penalty(regularizer) - expected).abs() > 0).all())


def check_gradient(regularizer: Regularizer, scene: Scene) -> None:
    """The penalty reaches every row of every prompt in use, and no weight of the backbone."""
    plain, _ = scene.backward()
    grad, _ = scene.backward(regularizer)
    assert bool(grad.isfinite().all())
    assert bool(((grad - plain).abs().sum(-1) > 0).all()), "no gradient reaches the prompt"
    assert not any(p.requires_grad or p.grad is not None for p in scene.model.backbone.model.parameters())


def check_runs_are_apart(regularizer: Regularizer, scene: Scene) -> None:
    """The penalty of run 0 has no gradient on the prompt of run 1."""
    plain, _ = scene.backward()
    grad, _ = scene.backward(regularizer, weights=(1.0, 0.0))
    assert float((grad - plain)[0].abs().sum()) > 0
    torch.testing.assert_close(grad[1], plain[1], rtol=1e-5, atol=1e-7, msg="a penalty reaches another run's prompt")


def check_ineligible_untouched(regularizer: Regularizer, scene: Scene) -> None:
    """The answer slot, literals, special tokens and pads are never perturbed; field text is, in every example."""
    clean, moved = scene.model.embed(scene.batch), torch.zeros_like(scene.batch.eligible)
    eligible = scene.batch.eligible.clone()
    scene.backward(regularizer)
    slots = torch.zeros_like(scene.batch.eligible).scatter(1, scene.batch.slots, True)
    for seen in scene.seen:
        moved |= ((seen.embeds - clean).abs().sum(-1) > 0) & ~slots
        assert torch.equal(seen.batch.attention_mask, scene.batch.attention_mask)
    assert not bool(moved[~eligible].any()), f"touched: {(moved & ~eligible).nonzero().tolist()}"
    assert bool(moved.any(1).all()), "nothing was perturbed"


def check_slots_untouched(regularizer: Regularizer, scene: Scene) -> None:
    """The prompt stays where it is."""
    scene.backward(regularizer)
    its = scene.batch.slots[..., None].expand(-1, -1, scene.values.shape[-1])
    for seen in scene.seen:
        assert torch.equal(seen.embeds.gather(1, its), scene.values[scene.batch.prompt_of])


def check_inputs_kept(regularizer: Regularizer, scene: Scene) -> None:
    """What the regularizer is shown is not changed in place."""
    before = {k: v.clone() for k, v in vars(scene.batch).items() if isinstance(v, Tensor)}
    prompt, weights = scene.values.clone(), scene.model.backbone.embedding_weight.clone()
    scene.backward(regularizer)
    for name, value in before.items():
        assert torch.equal(getattr(scene.batch, name), value), f"{name} was changed"
    assert torch.equal(scene.values, prompt), "the prompt was changed"
    assert torch.equal(scene.model.backbone.embedding_weight, weights), "the backbone was changed"


# The promises, kept by every regularizer of the registry -------------------------------------------------------------

every_kind = pytest.mark.parametrize("kind", regularizers.kinds())
every_perturbation = pytest.mark.parametrize("kind", PERTURBING)


def test_the_scene_has_every_sort_of_position(scene: Scene) -> None:
    batch = scene.batch
    inside = batch.attention_mask.bool()
    assert not inside.all(), "there must be pads"
    for row, ids, eligible in zip(scene.rows, batch.ids, batch.eligible, strict=True):
        assert ids[eligible].tolist() == [row.encoded.ids[i] for i in row.encoded.eligible] != []
    slots = batch.slots
    assert not bool(batch.eligible.gather(1, slots).any())
    assert not bool(batch.eligible.gather(1, batch.answer_at).any())
    assert int((inside & ~batch.eligible).sum(1).min()) >= 5 + 1 + 2 + 4, "slots, answer, specials, literals"


@every_kind
def test_gives_finite_values_per_example(kind: str, scene: Scene) -> None:
    check_values(of_kind(kind), scene)


@every_perturbation
def test_zero_perturbation_gives_the_clean_loss(kind: str, scene: Scene) -> None:
    check_zero(without_strength(kind), scene)


@every_perturbation
def test_default_perturbation_changes_the_loss(kind: str, scene: Scene) -> None:
    check_does_something(of_kind(kind), scene)


@every_kind
def test_gradient_is_on_the_prompt_and_not_on_the_backbone(kind: str, scene: Scene) -> None:
    check_gradient(of_kind(kind), scene)


@every_kind
def test_runs_of_a_pack_are_kept_apart(kind: str, scene: Scene) -> None:
    check_runs_are_apart(of_kind(kind), scene)


@every_perturbation
def test_only_field_text_is_perturbed(kind: str, scene: Scene) -> None:
    if of_kind(kind).needs.table_gradient:
        pytest.skip("perturbs the prompt alone")
    check_ineligible_untouched(of_kind(kind), scene)
    check_slots_untouched(of_kind(kind), scene)


@every_kind
def test_inputs_are_not_changed(kind: str, scene: Scene) -> None:
    check_inputs_kept(of_kind(kind), scene)


def noisy_run(folder: Path, backbone: Backbone, specs: list[dict[str, Any]], seed: int = 1, **training: Any) -> Any:
    its = {"max_steps": 5, "evaluations": 5, **training}
    return toy_run(folder, backbone, {"regularizers": specs, "training": its, "seed": seed}, n=16)


@every_kind
def test_weight_zero_is_bit_identical_to_no_regularizer(kind: str, backbone: Backbone, tmp_path: Path) -> None:
    prompts, histories = [], []
    spec = {"kind": kind, **VISIBLE.get(kind, {})}
    for specs in ([], [{**spec, "weight": 0.0}], [{**spec, "weight": 1.0}]):
        # clipping undoes what AdamW leaves of a multiplied gradient
        trained = train_pack([noisy_run(tmp_path, backbone, specs, clip=0.01, optimizer="adamw")])[0]
        prompts.append(trained.member.best | {"prompt": torch.from_numpy(trained.prompt)})
        histories.append(trained.member.history)
    assert histories[0] == histories[1]
    assert all(torch.equal(prompts[0][k], prompts[1][k]) for k in prompts[0])
    if kind not in CONTROLS:
        assert histories[0] != histories[2], "with weight 1 the run must differ"


@every_kind
def test_a_member_of_a_pack_equals_the_same_run_alone(kind: str, backbone: Backbone, tmp_path: Path) -> None:
    spec = {"kind": kind, **VISIBLE.get(kind, {})}
    runs = [noisy_run(tmp_path, backbone, [{**spec, "weight": w}], seed) for seed, w in ((1, 1.0), (2, 0.5))]
    together, alone = train_pack(runs), [train_pack([run])[0] for run in runs]
    for one, other in zip(together, alone, strict=True):
        for a, b in zip(one.member.history, other.member.history, strict=True):
            assert a["dev"]["loss"] == pytest.approx(b["dev"]["loss"], rel=1e-4, abs=1e-5)


@every_kind
def test_does_not_depend_on_micro_batches(kind: str, backbone: Backbone, tmp_path: Path) -> None:
    spec = {"kind": kind, **VISIBLE.get(kind, {})}
    whole, parts = (train_pack([noisy_run(tmp_path, backbone, [spec], max_tokens=budget)])[0] for budget in (8192, 40))
    for a, b in zip(whole.member.history, parts.member.history, strict=True):
        assert a["dev"]["loss"] == pytest.approx(b["dev"]["loss"], rel=1e-4, abs=1e-5)


@every_kind
def test_works_with_deep_prompts_and_others_beside_it(kind: str, backbone: Backbone, tmp_path: Path) -> None:
    spec = {"kind": kind, "weight": 0.5, **VISIBLE.get(kind, {})}
    recipe = {
        "prompt": {"kind": "deep"}, "training": {"max_steps": 3},
        "regularizers": [spec, {"kind": "gaussian", "loss": "sym_kl"}, {"kind": "pgd", "target": "both"}],
    }  # fmt: skip
    trained = train_pack([toy_run(tmp_path, backbone, recipe, n=16)])[0]
    assert trained.member.status == "done"
    assert torch.isfinite(torch.tensor([h["dev"]["loss"] for h in trained.member.history])).all()


@every_kind
def test_every_option_has_a_default(kind: str) -> None:
    assert isinstance(regularizers.build(regularizers.resolve({"kind": kind}, "regularizers.0")), Regularizer)


# Bad input -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "where", "what"),
    [
        ({"kind": "gaussian", "sigma": -1}, "regularizers.0.sigma", "greater than or equal to 0"),
        ({"kind": "gaussian", "samples": 0}, "regularizers.0.samples", "greater than or equal to 1"),
        ({"kind": "pgd", "epsilon": -0.1}, "regularizers.0.epsilon", "greater than or equal to 0"),
        ({"kind": "pgd", "steps": 0}, "regularizers.0.steps", "greater than or equal to 1"),
        ({"kind": "random_mask", "rate": 1.0}, "regularizers.0.rate", "less than 1"),
        ({"kind": "random_mask", "rate": -0.1}, "regularizers.0.rate", "greater than or equal to 0"),
        ({"kind": "gaussian", "weight": -1}, "regularizers.0.weight", "greater than or equal to 0"),
    ],
)
def test_sizes_out_of_range_are_refused(
    spec: dict[str, Any], where: str, what: str, backbone: Backbone, tmp_path: Path
) -> None:
    with refused(ConfigError, what, where=where):
        toy_run(tmp_path, backbone, {"regularizers": [spec]})


SIZES = (*STRENGTHS, *(f"{name}_relative" for name in STRENGTHS), "weight", "steps", "samples", "step_size")


@pytest.mark.parametrize(
    ("kind", "option"), [(k, o) for k in regularizers.kinds() for o in regularizers.options(k) if o in SIZES]
)
def test_no_size_of_any_kind_is_negative_or_no_number(kind: str, option: str) -> None:
    for value in (-1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match=rf"regularizers\.0\.{option}"):
            regularizers.resolve({"kind": kind, option: value}, "regularizers.0")


@pytest.mark.parametrize(("kind", "size"), [("gaussian", "sigma"), ("pgd", "epsilon")])
def test_two_sizes_are_refused(kind: str, size: str) -> None:
    with pytest.raises(ConfigError, match=f"give {size} or {size}_relative, not both"):
        of_kind(kind, **{size: 0.1, f"{size}_relative": 0.1})


def test_divergence_from_a_zero_start_is_refused() -> None:
    with pytest.raises(ConfigError, match="no gradient at the clean embeddings"):
        of_kind("pgd", loss="kl")


def test_divergence_of_a_readout_that_writes_is_refused(tmp_path: Path) -> None:
    causal = load_backbone(str(BUILDERS["gpt2"](tmp_path / "gpt2")), dtype="float32", device="cpu")
    recipe = {"readout": {"kind": "text"}, "regularizers": [{"kind": "gaussian", "loss": "kl"}]}
    what, fix = "gives no distribution over answers", "Use a readout with classes; or leave out"
    with refused(ConfigError, what, where="regularizers.0", fix=fix):
        toy_run(tmp_path, causal, recipe)


def test_a_mask_that_the_vocabulary_lacks_is_refused(tmp_path: Path) -> None:
    causal = load_backbone(str(BUILDERS["gpt2"](tmp_path / "gpt2")), dtype="float32", device="cpu")
    assert hiding_token(causal.encoder) is None
    recipe = {"regularizers": [{"kind": "random_mask", "replacement": "mask"}]}
    what, fix = "no mask token, sentinel or unknown token", "Use replacement: random"
    with refused(ConfigError, what, where="regularizers.0.replacement", fix=fix):
        toy_run(tmp_path, causal, recipe)
    assert toy_run(tmp_path, causal, {"regularizers": ["random_mask"]}).config.regularizers


def test_more_than_all_of_the_loss_cannot_be_replaced(backbone: Backbone, tmp_path: Path) -> None:
    kinds = [k for k in regularizers.kinds() if of_kind(k).needs.replaces_loss]
    if not kinds:
        pytest.skip("no kind stands in the place of the clean loss")
    recipe = {"regularizers": [{"kind": kinds[0], "weight": 0.7}, {"kind": kinds[-1], "weight": 0.7}]}
    with refused(ConfigError, "may weigh 1 together, got 1.4", where="regularizers", fix="Lower their weights"):
        toy_run(tmp_path, backbone, recipe)


def test_text_without_a_token_to_perturb_is_refused(backbone: Backbone, tmp_path: Path) -> None:
    words = {"positive": "the film book song cat dog tree".split(), "negative": "old new big small good bad".split()}
    what, fix = "there is no text to perturb", "target: prompt"
    with refused(ConfigError, what, where="regularizers.0", fix=fix):
        toy_run(tmp_path, backbone, {"regularizers": ["pgd"]}, label_words=words)
    run = toy_run(tmp_path, backbone, {"regularizers": [{"kind": "pgd", "target": "prompt"}]}, label_words=words)
    for kind in set(PERTURBING) - {"sam"}:
        with refused(ConfigError, what, where="regularizers.0", fix=fix):
            check_regularizers([of_kind(kind)], ["cloze"], run.rows["train"], has_mask=True)


# Saboteurs -----------------------------------------------------------------------------------------------------------


@dataclass
class Noise:
    """Correct noise, the base of the broken regularizers."""

    sigma: float = 0.1
    weight: float = 1.0
    needs: Needs = field(default_factory=lambda: Needs(text=True))

    def delta(self, step: TrainStep) -> Tensor:
        return self.sigma * step.normal("text", "x")

    def value(self, step: TrainStep) -> Tensor:
        return step.loss(step.rescore({"text": self.delta(step)}), step.batch.labels)

    def penalties(self, step: TrainStep) -> Iterator[Tensor]:
        yield self.value(step)


class ScalarPerBatch(Noise):
    def value(self, step: TrainStep) -> Tensor:
        return super().value(step).mean()


class NotFinite(Noise):
    def value(self, step: TrainStep) -> Tensor:
        return super().value(step) / torch.zeros(len(step.batch))


class AddsAConstant(Noise):
    def value(self, step: TrainStep) -> Tensor:
        return super().value(step) + 0.01


class DoesNothing(Noise):
    def delta(self, step: TrainStep) -> Tensor:
        return torch.zeros_like(step.original("text"))


class Detached(Noise):
    def value(self, step: TrainStep) -> Tensor:
        with torch.no_grad():
            return super().value(step)


class PromptFree(Noise):
    """Reads the clean scores, which the prompt cannot be reached from."""

    def value(self, step: TrainStep) -> Tensor:
        return step.loss(step.scores.requires_grad_(), step.batch.labels)


class AveragesRows(Noise):
    def value(self, step: TrainStep) -> Tensor:
        values = super().value(step)
        return values.mean().expand_as(values)


class HidesTheAnswer(Noise):
    """Perturbs what is not in its hands."""

    def value(self, step: TrainStep) -> Tensor:
        step.batch.eligible.logical_or_(torch.zeros_like(step.batch.eligible).scatter(1, step.batch.answer_at, True))
        delta = torch.ones(len(step.batch), int(step.batch.eligible.sum(1).max()), step.original("text").shape[-1])
        return step.loss(step.rescore({"text": delta}), step.batch.labels)


class MovesThePrompt(Noise):
    def value(self, step: TrainStep) -> Tensor:
        return step.loss(step.rescore({"inputs": self.sigma * step.normal("inputs", "x")}), step.batch.labels)


class LearnsSomethingElse(Noise):
    """Differentiable, but not in the prompt."""

    def value(self, step: TrainStep) -> Tensor:
        weight = torch.ones((), requires_grad=True)
        return super().value(step).detach() * weight


def test_the_base_of_the_saboteurs_keeps_every_promise(scene: Scene) -> None:
    for check in (
        check_values, check_does_something, check_gradient, check_runs_are_apart, check_ineligible_untouched,
        check_slots_untouched, check_inputs_kept,
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
        (PromptFree, check_gradient),
        (LearnsSomethingElse, check_gradient),
        (AveragesRows, check_runs_are_apart),
        (HidesTheAnswer, check_ineligible_untouched),
        (MovesThePrompt, check_slots_untouched),
        (HidesTheAnswer, check_inputs_kept),
    ],
    ids=lambda value: value.__name__,
)
def test_saboteur_is_caught(saboteur: type[Noise], check: Callable[[Regularizer, Scene], None], scene: Scene) -> None:
    with pytest.raises(AssertionError):
        check(saboteur(), scene)


def test_penalty_without_a_gradient_is_an_error(scene: Scene) -> None:
    with pytest.raises(RuntimeError, match="does not require grad"):
        scene.backward(Detached())


def test_saboteur_that_adds_a_constant_is_caught(scene: Scene) -> None:
    with pytest.raises(AssertionError):
        check_zero(AddsAConstant(sigma=0.0), scene)


def test_saboteur_that_thaws_the_backbone_is_caught(scene: Scene) -> None:
    named = scene.model.backbone.model.named_parameters()
    parameter = next(p for name, p in named if "LayerNorm" in name)
    parameter.requires_grad_()
    try:
        with pytest.raises(AssertionError):
            check_gradient(Noise(), scene)
    finally:
        parameter.requires_grad_(False)
        parameter.grad = None
