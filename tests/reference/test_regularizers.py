"""The gradient that one optimizer step puts on the prompt, against the equations of `regularizer_equations`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import scipy.stats
import torch
from torch import Tensor
from torch.nn.functional import kl_div

from tests.contract.toy_runs import reader, toy_examples, toy_rendering
from tests.reference.regularizer_equations import REPLACING, Member, Named, One, World, exact_copy, gradient, objective
from trimtab.backbones import Backbone
from trimtab.backbones.substitutes import substitutes
from trimtab.config import Seeds
from trimtab.model import PromptedModel
from trimtab.perturbations import TrainStep
from trimtab.prompt_table import PromptTable, table_of
from trimtab.readouts import divergence
from trimtab.registry import readouts, regularizers
from trimtab.regularizers import Needs, Regularizer
from trimtab.rendering import Rendering
from trimtab.templates import Template
from trimtab.training.encoders import label_ids
from trimtab.training.objective import Objective, Part
from trimtab.training.parallel import ALONE
from trimtab.tunings.all import All
from trimtab.types import Row
from trimtab.verbalizers import Verbalizer

Spec = Mapping[str, Any]

TEMPLATE = "{prompt:2} about {text} {prompt:3} it was {answer}."
SIZES = (2, 3)
"""Examples in the logical batches of two runs."""


@dataclass(frozen=True)
class Scene:
    """Two runs in the middle of training: their rows, their prompts, and which step is theirs."""

    world: World
    rows: list[list[Row]]
    tensors: Named
    members: list[Member]

    def leaf(self, runs: Sequence[int]) -> PromptTable:
        return table_of({n: v[list(runs)] for n, v in self.tensors.items()}, self.world.layers).detached()

    def ones(self, run: int) -> list[One]:
        dtype = torch.float32 if self.world.layers else torch.float64
        prompt = {n: v[run].to(dtype).requires_grad_() for n, v in self.tensors.items()}
        return [One(self.world, row, prompt, self.members[run]) for row in self.rows[run]]

    def objective(self, built: Sequence[Sequence[Regularizer]], runs: Sequence[int]) -> Objective:
        members = [replace(self.members[r], regularizers=its) for r, its in zip(runs, built, strict=True)]
        model, rendering = self.world.model, self.world.rendering
        found = substitutes(model.backbone, label_ids(rendering, model.backbone.encoder))
        return Objective(model, members, ALONE, found)

    def parts(self, runs: Sequence[int], n: int) -> list[Part]:
        """The logical batches of these runs in n micro-batches that mix them."""
        rows = [replace(row, prompt=at) for at, r in enumerate(runs) for row in self.rows[r]]
        sizes = [len(self.rows[r]) for r in runs]
        groups = [rows[i::n] for i in range(n)]
        return [
            Part(self.world.model.collate(g), torch.tensor([1 / sizes[row.prompt] for row in g])) for g in groups if g
        ]

    def step(self, specs: Sequence[Spec], runs: Sequence[int] = (0, 1), parts: int = 1) -> tuple[list[Named], Tensor]:
        """One step of these runs together: each one's gradients and loss."""
        built = [[regularizers.build(regularizers.resolve(s, "regularizers")) for s in specs] for _ in runs]
        return self.step_of(built, runs, parts)

    def step_of(
        self, built: Sequence[Sequence[Regularizer]], runs: Sequence[int] = (0, 1), parts: int = 1
    ) -> tuple[list[Named], Tensor]:
        leaf = self.leaf(runs)
        losses = self.objective(built, runs).backward(self.parts(runs, parts), leaf)
        grads = {n: v.grad for n, v in leaf.tensors.items()}
        return [{n: g[at] for n, g in grads.items() if g is not None} for at in range(len(runs))], losses


def world_of(backbone: Backbone, rendering: Rendering, layers: Mapping[str, tuple[int, ...]] = {}) -> World:
    found = substitutes(backbone, label_ids(rendering, backbone.encoder))
    assert found.mask_id is not None
    model = PromptedModel(backbone, reader(backbone, rendering))
    return World(model, rendering, exact_copy(backbone.model), found.mask_id, found.words, layers)


def scene_of(backbone: Backbone, world: World) -> Scene:
    generator = torch.Generator().manual_seed(1)
    examples = iter(toy_examples(sum(SIZES), seed=5))
    rows = [
        [replace(world.rendering.row(next(examples), backbone.encoder), key=10 * r + i) for i in range(n)]
        for r, n in enumerate(SIZES)
    ]
    tensors = {"inputs": torch.randn(2, 5, backbone.embedding_size, generator=generator) * backbone.embedding_rms}
    if world.layers:
        tensors["deep.self"] = torch.randn(2, len(world.layers["self"]), 2, 3, 2, 16, generator=generator)
    members = [Member(Seeds(init=0, data_order=0, subset=0, noise=noise), step) for noise, step in ((3, 2), (5, 7))]
    return Scene(world, rows, tensors, members)


@pytest.fixture(scope="module")
def scene(backbone: Backbone) -> Scene:
    """Label words of one token."""
    return scene_of(backbone, world_of(backbone, toy_rendering(backbone, template=TEMPLATE)))


@pytest.fixture(scope="module")
def deep_scene(backbone: Backbone) -> Scene:
    """Keys and values in both layers, beside the input prompt."""
    return scene_of(backbone, world_of(backbone, toy_rendering(backbone, template=TEMPLATE), {"self": (0, 1)}))


@pytest.fixture(scope="module")
def long_scene(backbone: Backbone) -> Scene:
    """A label word of two tokens beside those of one: an example is two sequences."""
    words = Verbalizer.of({"positive": ["yes", "good"], "negative": ["not old", "no"]})
    rendering = toy_rendering(backbone, template=TEMPLATE)
    rendering = Rendering(Template.parse(TEMPLATE, 5), words, rendering.max_length, rendering.readout)
    scene = scene_of(backbone, world_of(backbone, rendering))
    assert all(len(row.variants) == 2 for its in scene.rows for row in its)
    return scene


def assert_close(found: Named, wanted: Named) -> None:
    """To 1e-4 of the whole gradient and of its largest element: the backbone computes in float32."""
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        off = found[name].double() - value
        assert float(off.norm()) <= 1e-4 * float(value.norm()), name
        assert float(off.abs().max()) <= 1e-4 * float(value.abs().max()), name


def check(scene: Scene, specs: Sequence[Spec]) -> None:
    """Both runs, alone and together, in one micro-batch and in several, get the gradient that was derived."""
    wanted = [gradient(scene.ones(r), specs) for r in range(2)]
    for r in range(2):
        clean = gradient(scene.ones(r), [])
        moved = max(float((clean[n] - g).norm() / g.norm()) for n, g in wanted[r].items())
        assert moved > 1e-4, "the penalty does nothing that could be seen"
        assert_close(scene.step(specs, [r])[0][0], wanted[r])
    for found, its in zip(scene.step(specs, parts=3)[0], wanted, strict=True):
        assert_close(found, its)


def name_of(specs: Spec | Sequence[Spec]) -> str:
    specs = [specs] if isinstance(specs, Mapping) else specs
    return "+".join("-".join(str(v) for v in s.values()) for s in specs)


PGD = [
    pytest.param(
        {"kind": "pgd", "norm": norm, "steps": steps, "start": start, "loss": loss, "target": target},
        marks=[pytest.mark.slow] if norm != "l2" and (target != "text" or loss != "ce") else [],
    )
    for norm in ("l2", "l2_token", "linf")
    for steps in (1, 3)
    for start, loss in (("zero", "ce"), ("uniform", "ce"), ("uniform", "sym_kl"))
    for target in ("text", "prompt", "both")
]

TEXT: list[dict[str, Any]] = [
    {"kind": "gaussian"},
    {"kind": "gaussian", "weight": 0.5, "sigma": 0.2},
    {"kind": "gaussian", "samples": 2, "loss": "kl", "sigma_relative": 0.4},
    {"kind": "gaussian", "loss": "sym_kl", "target": "prompt", "sigma_relative": 0.4},
    {"kind": "gaussian", "target": "both"},
    {"kind": "random_mask", "rate": 0.4},
    {"kind": "random_mask", "rate": 0.4, "replacement": "random"},
    {"kind": "random_mask", "rate": 0.1, "at_least_one": True, "loss": "kl"},
    {"kind": "duplicate", "weight": 0.3},
    {"kind": "pgd", "epsilon": 0.3, "steps": 3, "step_size": 1.0, "weight": 2.0},
    {"kind": "pgd", "epsilon": 0.05, "norm": "linf", "start": "normal", "loss": "kl"},
    {"kind": "r3f", "sigma_relative": 0.5},
    {"kind": "r3f", "sigma": 0.1, "noise": "uniform", "target": "both", "weight": 0.5},
    {"kind": "smart", "epsilon_relative": 0.3},
    {"kind": "smart", "epsilon": 0.05, "steps": 3, "step_size": 0.5, "target": "both", "weight": 2.0},
    {"kind": "freelb"},
    {"kind": "freelb", "steps": 1, "target": "prompt"},
    {"kind": "freelb", "norm": "l2_token", "epsilon": 0.2, "target": "both", "weight": 0.4},
    {"kind": "freelb", "norm": "linf", "start": "zero", "steps": 2, "step_size": 0.7},
    {"kind": "neftune", "alpha": 1.0},
    {"kind": "neftune", "weight": 0.25},
    {"kind": "sam"},
    {"kind": "sam", "epsilon_relative": 0.1, "weight": 0.5},
]

DEEP: list[dict[str, Any]] = [
    {"kind": "gaussian", "target": "prompt"},
    {"kind": "pgd", "target": "prompt"},
    {"kind": "pgd", "target": "prompt", "steps": 3, "start": "uniform", "loss": "sym_kl"},
    {"kind": "pgd", "target": "prompt", "norm": "linf"},
    {"kind": "r3f", "target": "prompt", "sigma_relative": 0.5},
    {"kind": "smart", "target": "prompt", "epsilon_relative": 0.3},
    {"kind": "freelb", "target": "prompt"},
    {"kind": "sam", "epsilon": 1.0},
    {"kind": "sam", "epsilon_relative": 0.1},
]

LONG: list[dict[str, Any]] = [
    {"kind": "gaussian", "target": "both", "loss": "kl"},
    {"kind": "random_mask", "rate": 0.5},
    {"kind": "pgd", "steps": 3},
    {"kind": "pgd", "target": "both", "start": "uniform"},
    {"kind": "smart", "epsilon_relative": 0.3},
    {"kind": "freelb"},
    {"kind": "neftune"},
    {"kind": "sam"},
]

TOGETHER: list[list[dict[str, Any]]] = [
    [{"kind": "gaussian"}, {"kind": "gaussian"}],
    [{"kind": "pgd", "target": "prompt"}, {"kind": "sam", "weight": 0.5}],
    [{"kind": "gaussian", "samples": 2, "loss": "kl"}, {"kind": "neftune", "weight": 0.5}],
    [{"kind": "r3f", "sigma_relative": 0.5}, {"kind": "pgd"}],
    [{"kind": "freelb", "weight": 0.3}, {"kind": "neftune", "weight": 0.3}, {"kind": "sam", "weight": 0.4}],
    [{"kind": "pgd", "target": "both"}, {"kind": "smart", "epsilon_relative": 0.3}, {"kind": "freelb", "weight": 1.0}],
    [{"kind": "gaussian", "weight": 0.0}, {"kind": "gaussian"}, {"kind": "random_mask", "rate": 0.4}],
]


@pytest.mark.parametrize("spec", [*TEXT, *PGD], ids=name_of)
def test_gradient_is_that_of_the_equation(spec: Spec, scene: Scene) -> None:
    check(scene, [spec])


@pytest.mark.parametrize("spec", DEEP, ids=name_of)
def test_gradient_with_keys_and_values_is_that_of_the_equation(spec: Spec, deep_scene: Scene) -> None:
    check(deep_scene, [spec])


@pytest.mark.parametrize("spec", LONG, ids=name_of)
def test_sequences_of_one_example_share_its_perturbation(spec: Spec, long_scene: Scene) -> None:
    check(long_scene, [spec])


@pytest.mark.parametrize("specs", TOGETHER, ids=name_of)
def test_penalties_add_up(specs: list[Spec], scene: Scene) -> None:
    check(scene, specs)


KINDS: list[dict[str, Any]] = [
    {"kind": "gaussian"}, {"kind": "random_mask"}, {"kind": "pgd", "steps": 3}, {"kind": "duplicate"},
    {"kind": "r3f", "sigma_relative": 0.5}, {"kind": "smart", "epsilon_relative": 0.3}, {"kind": "freelb"},
    {"kind": "neftune"}, {"kind": "sam"},
]  # fmt: skip

every_kind = pytest.mark.parametrize("spec", KINDS, ids=lambda s: s["kind"])


def test_what_stands_in_for_the_clean_loss_is_known_here() -> None:
    kinds = [s["kind"] for s in KINDS]
    assert [k for k in kinds if of_kind(k).needs.replaces_loss] == list(REPLACING)
    assert {s["kind"] for s in TEXT} == set(kinds), "all of them are derived"


def of_kind(kind: str, **options: Any) -> Regularizer:
    return regularizers.build(regularizers.resolve({"kind": kind, **options}, "regularizers"))


@every_kind
def test_a_run_gets_the_same_in_any_micro_batches_and_beside_any_other(spec: Spec, scene: Scene) -> None:
    """The order of sums is all that may differ; the other run has a noise of its own."""
    together, both = scene.step([spec])
    for parts in (2, 5):
        found, losses = scene.step([spec], parts=parts)
        torch.testing.assert_close(losses, both, rtol=1e-5, atol=1e-6)
        for r in range(2):
            torch.testing.assert_close(found[r]["inputs"], together[r]["inputs"], rtol=1e-4, atol=1e-5)
    for r in range(2):
        (alone,), losses = scene.step([spec], [r])
        torch.testing.assert_close(losses[0], both[r], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(alone["inputs"], together[r]["inputs"], rtol=1e-4, atol=1e-5)


@every_kind
def test_weights_of_a_pack_may_differ(spec: Spec, scene: Scene) -> None:
    """Weights of 1, 0.5 and 0 beside each other: each run gets what it would get alone, its loss included."""
    for weights in ((1.0, 0.5), (0.0, 1.0), (1.0, 0.0)):
        specs = [{**spec, "weight": w} for w in weights]
        together, both = scene.step_of([[regularizers.build(regularizers.resolve(s, "r"))] for s in specs])
        for r, own in enumerate(specs):
            (alone,), losses = scene.step([own], [r])
            assert bool(together[r]["inputs"].isfinite().all())
            torch.testing.assert_close(together[r]["inputs"], alone["inputs"], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(both[r], losses[0], rtol=1e-5, atol=1e-6)


@every_kind
def test_what_weighs_nothing_leaves_those_behind_it_as_they_are(spec: Spec, scene: Scene) -> None:
    """To the last bit, their noise included; and in a pack in which it weighs nothing in one run."""
    later = {"kind": "gaussian", "sigma_relative": 0.4}
    off = {**spec, "weight": 0.0}
    (without, _), (beside, _) = scene.step([later]), scene.step([off, later])
    assert all(torch.equal(beside[r][n], g) for r in range(2) for n, g in without[r].items())
    pack = [[of_kind(**own), of_kind(**later)] for own in (off, spec)]
    together, _ = scene.step_of(pack)
    for r, specs in enumerate(([later], [spec, later])):
        (alone,), _ = scene.step(specs, [r])
        torch.testing.assert_close(together[r]["inputs"], alone["inputs"], rtol=1e-4, atol=1e-5)


@every_kind
def test_an_example_without_text_is_left_as_it_is(spec: Spec, scene: Scene) -> None:
    """Alone in its micro-batch, and beside one that has some. What moves text moves nothing there."""
    backbone = scene.world.model.backbone
    example = replace(toy_examples(1)[0], fields={"text": "good yes"})
    bare = replace(scene.world.rendering.row(example, backbone.encoder), key=99)
    assert not any(v.eligible for v in bare.variants)
    for rows, parts in (([bare], 1), ([bare, scene.rows[0][0]], 1), ([bare, scene.rows[0][0]], 2)):
        (found,), losses = replace(scene, rows=[rows, []]).step([spec], [0], parts)
        assert bool(losses.isfinite().all())
        assert bool(found["inputs"].isfinite().all())
    (alone,), _ = replace(scene, rows=[[bare], []]).step([spec], [0])
    times = {"r3f": 1, "smart": 1, "freelb": 1, "neftune": 1}.get(spec["kind"], 2)
    if spec["kind"] != "sam":
        (clean,), _ = replace(scene, rows=[[bare], []]).step([], [0])
        torch.testing.assert_close(alone["inputs"], times * clean["inputs"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weight", [1.0, 0.5])
@every_kind
def test_the_loss_of_a_step_is_the_clean_one_unless_nobody_looks_at_it(spec: Spec, weight: float, scene: Scene) -> None:
    specs = [{**spec, "weight": weight}]
    is_blind = spec["kind"] in ("freelb", "neftune") and weight == 1.0
    _, losses = scene.step(specs)
    for r in range(2):
        wanted = objective(scene.ones(r), specs if is_blind else []).detach()
        assert float(losses[r]) == pytest.approx(float(wanted), rel=1e-5)


# What happens inside -------------------------------------------------------------------------------------------------


@dataclass
class Watched:
    """A regularizer that is looked at from outside: its perturbations and values."""

    inner: Regularizer
    parameters: Sequence[Tensor] = ()
    deltas: list[Named] = field(default_factory=list)
    replaced: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    steps: list[TrainStep] = field(default_factory=list)
    leaked: list[int] = field(default_factory=list)

    @property
    def weight(self) -> float:
        return self.inner.weight

    @property
    def needs(self) -> Needs:
        return self.inner.needs

    def penalties(self, step: TrainStep) -> Iterator[Tensor]:
        def rescore(delta: Mapping[str, Tensor]) -> Tensor:
            self.deltas.append({n: v.detach().clone() for n, v in delta.items()})
            return step.rescore(delta)

        def rescore_text(new: Tensor) -> Tensor:
            self.replaced.append(new.clone())
            return step.rescore_text(new)

        self.steps.append(step)
        before = self._grads()
        for value in self.inner.penalties(replace(step, rescore=rescore, rescore_text=rescore_text)):
            after = self._grads()
            self.leaked += [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if not same(a, b)]
            self.values.append(value.detach())
            yield value
            before = self._grads()

    def _grads(self) -> list[Tensor | None]:
        return [None if p.grad is None else p.grad.clone() for p in self.parameters]


def same(a: Tensor | None, b: Tensor | None) -> bool:
    return (a is None and b is None) or (a is not None and b is not None and torch.equal(a, b))


@pytest.mark.parametrize(
    "spec",
    [
        {"kind": "pgd", "steps": 3, "target": "both"},
        {"kind": "pgd", "steps": 2, "start": "uniform", "loss": "sym_kl"},
        {"kind": "smart", "epsilon_relative": 0.3, "steps": 2},
        {"kind": "freelb", "target": "both"},
        {"kind": "sam"},
    ],
    ids=name_of,
)
def test_an_ascent_leaves_no_gradient_behind(spec: Spec, scene: Scene) -> None:
    """Neither on the prompt nor on a backbone whose weights ask for some, and none at all on a frozen one."""
    backbone = scene.world.model.backbone.trainable(All().open)
    world = replace(scene.world, model=PromptedModel(backbone, reader(backbone, scene.world.rendering)))
    tuned, leaf = replace(scene, world=world), scene.leaf([0, 1])
    watched = Watched(of_kind(**spec), [*leaf.tensors.values(), *backbone.model.parameters()])
    tuned.objective([[watched], [watched]], [0, 1]).backward(tuned.parts([0, 1], 2), leaf)
    assert len(watched.values) == 2 * (3 if spec["kind"] == "freelb" else 1)
    assert watched.leaked == []
    assert any(p.grad is not None for p in backbone.model.parameters()), "the penalty itself reaches a tuned backbone"
    scene.step([spec])
    assert all(p.grad is None and not p.requires_grad for p in scene.world.model.backbone.model.parameters())


SPHERES = [
    {"norm": norm, "start": start, **size}
    for norm in ("l2", "l2_token", "linf")
    for start in ("zero", "uniform", "normal")
    for size in ({"epsilon": 0.1}, {"epsilon_relative": 0.2})
]


@pytest.mark.parametrize("kind", ["pgd", "freelb"])
@pytest.mark.parametrize("ball", SPHERES, ids=name_of)
def test_an_ascent_stays_in_its_ball(ball: dict[str, Any], kind: str, scene: Scene) -> None:
    watched = Watched(of_kind(kind, **ball, steps=4, step_size=0.9, target="both"))
    scene.step_of([[watched], [watched]])
    (step,), per_token = watched.steps, ball["norm"] == "l2_token"
    assert {frozenset(d) for d in watched.deltas} == {frozenset(("text", "inputs"))}
    outermost = 0.0
    for name in ("text", "inputs"):
        original = step.original(name).double()
        for x in range(len(original)):
            n = int(step.mask[x].sum()) if name == "text" else 5
            for delta in (d[name][x].double() for d in watched.deltas):
                assert not bool(delta[n:].any()), "entries that are no token"
                if ball["norm"] == "linf":
                    sizes, limits = delta.abs().max()[None], torch.tensor([step.rms[name]])
                else:
                    dims = (-1,) if per_token else (-2, -1)
                    sizes = torch.linalg.vector_norm(delta[:n], dim=dims).reshape(-1)
                    limits = torch.linalg.vector_norm(original[x, :n], dim=dims).reshape(-1)
                limits = (
                    ball["epsilon_relative"] * limits if "epsilon_relative" in ball else torch.full_like(sizes, 0.1)
                )
                assert bool((sizes <= limits * (1 + 1e-5)).all())
                outermost = max(outermost, float((sizes / limits).max()))
    assert outermost == pytest.approx(1, rel=1e-5), "four steps of 0.9 radii should reach the border"


@pytest.mark.parametrize("norm", ["l2", "l2_token", "linf"])
@pytest.mark.parametrize("steps", [1, 3])
def test_an_attack_raises_the_loss(norm: str, steps: int, backbone: Backbone, scene: Scene) -> None:
    examples = toy_examples(200, seed=9)
    rows = [[replace(scene.world.rendering.row(e, backbone.encoder), key=i) for i, e in enumerate(examples)], []]
    crowd = replace(scene, rows=rows)
    watched = Watched(of_kind("pgd", norm=norm, steps=steps, epsilon_relative=0.05))
    crowd.step_of([[watched]], [0])
    (step,), (value,) = watched.steps, watched.values
    raised = value > step.loss(step.scores, step.batch.labels)
    assert len(raised) == 200
    assert float(raised.float().mean()) > 0.95


@pytest.mark.parametrize("rate", [0.15, 0.5])
@pytest.mark.parametrize("replacement", ["mask", "random"])
def test_tokens_are_hidden_at_the_stated_rate(rate: float, replacement: str, scene: Scene) -> None:
    """Of 200 examples, long ones, so that the one token that is always left makes no difference."""
    backbone = scene.world.model.backbone
    texts = ["the old red book was in the big sea", "a dog and a bird in the sun of the moon it is very new"]
    examples = [replace(e, fields={"text": texts[i % 2]}) for i, e in enumerate(toy_examples(200))]
    rows = [replace(scene.world.rendering.row(e, backbone.encoder), key=i) for i, e in enumerate(examples)]
    watched = Watched(of_kind("random_mask", rate=rate, replacement=replacement))
    replace(scene, rows=[rows, []]).step_of([[watched]], [0])
    (new,), mask = watched.replaced, watched.steps[0].mask
    assert bool((new[~mask] == -1).all())
    allowed = {scene.world.mask_id} if replacement == "mask" else set(scene.world.words)
    assert set(new[new >= 0].tolist()) <= allowed
    hidden, tokens = int((new >= 0).sum()), int(mask.sum())
    assert tokens > 2000
    assert scipy.stats.binomtest(hidden, tokens, rate).pvalue > 1e-4
    for n in (0, 8):
        assert scipy.stats.binomtest(int((new[:, n] >= 0).sum()), 200, rate).pvalue > 1e-4, "no place is special"


@pytest.mark.parametrize("options", [{"rate": 0.9}, {"rate": 0.01, "at_least_one": True}], ids=str)
def test_one_token_is_left_and_what_is_no_text_stays(
    options: dict[str, Any], scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    scores = PromptedModel.scores
    monkeypatch.setattr(
        PromptedModel, "scores", lambda self, batch, *rest: seen.append(batch) or scores(self, batch, *rest)
    )
    ones = 0
    for step in range(30):
        seen.clear()
        members = [replace(m, step=step) for m in scene.members]
        replace(scene, members=members).step([{"kind": "random_mask", **options}])
        clean, noisy = seen
        changed = clean.ids != noisy.ids
        assert not bool((changed & ~clean.eligible).any())
        counts, eligible = changed.sum(1), clean.eligible.sum(1)
        assert bool((eligible - counts >= 1).all())
        if options.get("at_least_one"):
            assert bool((counts >= 1)[eligible > 1].all())
        ones += int((counts == eligible - 1).sum())
    assert ones > 0, "nothing ever came down to one"


@pytest.mark.parametrize(
    ("spec", "passes"),
    [
        ({"kind": "gaussian"}, 2),
        ({"kind": "gaussian", "samples": 3}, 4),
        ({"kind": "gaussian", "loss": "kl"}, 2),
        ({"kind": "random_mask"}, 2),
        ({"kind": "pgd"}, 2),
        ({"kind": "pgd", "steps": 3}, 4),
        ({"kind": "pgd", "steps": 3, "target": "both"}, 4),
        ({"kind": "pgd", "start": "uniform"}, 3),
        ({"kind": "pgd", "start": "uniform", "loss": "sym_kl"}, 3),
        ({"kind": "duplicate"}, 1),
        ({"kind": "r3f"}, 2),
        ({"kind": "smart"}, 3),
        ({"kind": "smart", "steps": 2}, 4),
        ({"kind": "freelb"}, 3),
        ({"kind": "freelb", "steps": 1}, 1),
        ({"kind": "freelb", "weight": 0.5}, 4),
        ({"kind": "neftune"}, 1),
        ({"kind": "neftune", "weight": 0.5}, 2),
        ({"kind": "sam"}, 2),
        ({"kind": "gaussian", "weight": 0.0}, 1),
    ],
    ids=str,
)
def test_a_step_costs_what_is_stated(spec: Spec, passes: int, scene: Scene) -> None:
    calls: list[None] = []
    network = scene.world.model.backbone.model.base_model
    hook = network.register_forward_hook(lambda *_: calls.append(None))
    try:
        scene.step([spec])
    finally:
        hook.remove()
    assert len(calls) == passes


# Divergences ---------------------------------------------------------------------------------------------------------


def drawn(*shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(6)
    p, q = torch.randn(2, *shape, generator=generator)
    return 2 * p, 2 * q


def entropies(p: Tensor, q: Tensor) -> float:
    """KL(p || q) of two rows of scores, by scipy and by torch."""
    real = p > -torch.inf
    theirs = float(scipy.stats.entropy(p[real].double().softmax(0).numpy(), q[real].double().softmax(0).numpy()))
    torches = kl_div(q[real].log_softmax(0), p[real].log_softmax(0), log_target=True, reduction="sum")
    assert float(torches) == pytest.approx(theirs, rel=1e-4)
    return theirs


def check_divergence(found: Tensor, wanted: Sequence[float], *scores: Tensor) -> None:
    assert found.tolist() == pytest.approx(list(wanted), rel=1e-5, abs=1e-7)
    grads = torch.autograd.grad(found.sum(), list(scores))
    assert all(bool(g.isfinite().all()) and float(g.abs().sum()) > 0 for g in grads)


def test_divergence_of_classes_leaves_out_those_that_an_example_does_not_have(scene: Scene) -> None:
    p, q = drawn(4, 3)
    p[1, 2] = q[1, 2] = p[3, 0] = q[3, 0] = -torch.inf
    wanted = [entropies(a, b) for a, b in zip(p, q, strict=True)]
    p, q = p.requires_grad_(), q.requires_grad_()
    check_divergence(divergence(scene.world.model.readout, p, q, torch.zeros(4, dtype=torch.long)), wanted, p, q)


@pytest.mark.parametrize("padding", [0.5, -torch.inf])
def test_divergence_of_tags_is_the_mean_over_words(padding: float, backbone: Backbone) -> None:
    readout = readouts.build(readouts.resolve("tokens", "readout"), backbone, [])
    p, q = drawn(3, 4, 5)
    labels = torch.tensor([[0, 1, 4, 2], [3, -1, 0, -1], [-1, -1, -1, -1]])
    wanted = []
    for x, its in enumerate(labels.tolist()):
        each = [entropies(p[x, w], q[x, w]) for w, tag in enumerate(its) if tag >= 0]
        wanted.append(sum(each) / max(1, len(each)))
    assert wanted[2] == 0
    p[labels < 0] = q[labels < 0] = padding
    p, q = p.requires_grad_(), q.requires_grad_()
    check_divergence(divergence(readout, p, q, labels), wanted, p, q)


def test_divergence_of_spans_is_the_mean_of_start_and_end(backbone: Backbone) -> None:
    readout = readouts.build(readouts.resolve("span", "readout"), backbone, [])
    p, q = drawn(3, 6, 2)
    p[1, 4:] = q[1, 4:] = -torch.inf
    labels = torch.tensor([[0, 3], [2, 2], [-1, -1]])
    wanted = [(entropies(p[x, :, 0], q[x, :, 0]) + entropies(p[x, :, 1], q[x, :, 1])) / 2 for x in range(2)] + [0.0]
    p, q = p.requires_grad_(), q.requires_grad_()
    check_divergence(divergence(readout, p, q, labels), wanted, p, q)
