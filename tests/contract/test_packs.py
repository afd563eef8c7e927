"""A pack trains each run exactly as it would train alone; broken loops show that the check can fail."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.contract.tiny_families import BUILDERS
from tests.contract.toy_runs import ENCODERS, RecordingLoop, model_of, name_of, others_slow, toy_run
from tests.tiny import tiny_backbone, written_task
from trimtab.backbones import Backbone
from trimtab.errors import ConfigError
from trimtab.model import NOTHING, PromptedModel
from trimtab.perturbations import Delta, TrainStep
from trimtab.prompt_table import PromptTable
from trimtab.registry import prompts
from trimtab.training import loop as loops
from trimtab.training import packs
from trimtab.training.encoder_pack import EncoderPack
from trimtab.training.encoders import build_encoder
from trimtab.training.objective import Part
from trimtab.training.optimization import StackedAdamW
from trimtab.training.packs import Trained, train_pack
from trimtab.training.preparing import Prepared
from trimtab.types import Batch

STEPS = 20
LOSS = {"rtol": 1e-5, "atol": 1e-6}
PROMPT = {"rtol": 1e-3, "atol": 1e-4}
"""Adam divides by the gradient's size, so elements with next to no gradient move by the sign of rounding errors."""

MEMBERS: list[dict[str, Any]] = [
    {"seed": 1, "rate": 0.01, "decay": 0.0, "initializer": "sampled_vocab", "weight": 0.5},
    {"seed": 2, "rate": 0.003, "decay": 0.1, "initializer": "uniform", "weight": 2.0},
    {"seed": 3, "rate": 0.02, "decay": 0.01, "initializer": {"kind": "text", "text": "the red sun"}, "weight": 0.0},
]


@pytest.fixture(autouse=True)
def _record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "Loop", RecordingLoop)


def has_network(spec: Mapping[str, Any]) -> bool:
    encoder: Any = prompts.get(spec["kind"])
    return bool(encoder.has_network(spec))


def member(
    folder: Path, backbone: Backbone, spec: Mapping[str, Any], values: Mapping[str, Any], **more: Any
) -> Prepared:
    """One run of a pack. `shots` with its own subset seed gives each member other rows."""
    recipe: dict[str, Any] = {
        "seed": values["seed"],
        "prompt": {**spec, "initializer": values.get("initializer", "sampled_vocab")},
        "training": {
            "learning_rate": values["rate"],
            "learning_rates": {"encoder": values["rate"] / 2} if has_network(spec) else {},
            "weight_decay": values.get("decay", 0.0),
            "max_steps": STEPS,
            "evaluations": 1,
            **more.pop("training", {}),
        },
    }
    if more.pop("noisy", False):
        recipe["regularizers"] = [{"kind": "gaussian", "weight": values["weight"], "sigma_relative": 0.3}]
    return toy_run(folder, backbone, {**recipe, **more}, shots=8, dev_shots=4)


def record(pack: Sequence[Prepared]) -> tuple[RecordingLoop, list[Trained]]:
    """Train and return what the loop went through."""
    trained = train_pack(pack)
    return RecordingLoop.latest, trained


def check_members_equal_alone(pack: Sequence[Prepared]) -> None:
    """Every member has the losses, prompts and results of the same run alone."""
    together, results = record(pack)
    assert len({tuple(losses) for losses in together.losses.values()}) == len(pack), "the members must differ"
    for r, prepared in enumerate(pack):
        alone, (result,) = record([prepared])
        assert len(alone.losses[0]) == STEPS
        torch.testing.assert_close(together.losses[r], alone.losses[0], **LOSS, msg=lambda m: f"losses: {m}")
        for step in (0, STEPS // 2, STEPS - 1):
            torch.testing.assert_close(
                together.prompts[step][r], alone.prompts[step][0], **PROMPT, msg=lambda m: f"prompts: {m}"
            )
        assert results[r].member.best_step == result.member.best_step
        torch.testing.assert_close(
            torch.from_numpy(results[r].prompt), torch.from_numpy(result.prompt), **PROMPT, msg=lambda m: f"kept: {m}"
        )
        assert results[r].parameters == result.parameters


@pytest.mark.parametrize("noisy", [False, True], ids=["clean", "gaussian"])
@pytest.mark.parametrize("spec", others_slow(ENCODERS), ids=name_of)
def test_each_member_equals_the_same_run_alone(
    spec: dict[str, Any], noisy: bool, backbone: Backbone, tmp_path: Path
) -> None:
    check_members_equal_alone([member(tmp_path, backbone, spec, values, noisy=noisy) for values in MEMBERS])


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_each_member_that_writes_equals_the_same_run_alone(kind: str, tmp_path: Path) -> None:
    backbone = tiny_backbone(BUILDERS[kind](tmp_path / kind))
    more: dict[str, Any] = {
        "task": written_task(tmp_path, shots=8, dev_shots=4),
        "readout": {"kind": "text", "max_new_tokens": 5},
    }
    spec = {"kind": "prompt_tuning"}
    check_members_equal_alone([member(tmp_path, backbone, spec, v, noisy=True, **more) for v in MEMBERS])


def test_members_of_a_pack_have_their_own_rows(backbone: Backbone, tmp_path: Path) -> None:
    pack = [member(tmp_path, backbone, {"kind": "prompt_tuning"}, values) for values in MEMBERS]
    ids = [[e.id for e in p.task.splits["train"]] for p in pack]
    assert ids[0] != ids[1] != ids[2]
    lengths = [[len(r.encoded) for r in p.rows["train"]] for p in pack]
    assert lengths[0] != lengths[1], "rows of other lengths make other micro-batches, which is what is tested"


def test_every_member_takes_all_its_steps(backbone: Backbone, tmp_path: Path) -> None:
    pack = [member(tmp_path, backbone, {"kind": "prompt_tuning"}, values) for values in MEMBERS]
    loop, results = record(pack)
    assert [t.member.step for t in results] == [STEPS] * 3
    assert loop.trained == [[0, 1, 2]] * STEPS


@pytest.mark.parametrize("spec", [{"kind": "prompt_tuning"}, {"kind": "p_tuning_lstm"}], ids=name_of)
def test_micro_batches_change_nothing(spec: dict[str, Any], backbone: Backbone, tmp_path: Path) -> None:
    def go(max_tokens: int) -> RecordingLoop:
        training = {"max_tokens": max_tokens, "batch_size": 16, "max_steps": 8, "evaluations": 1}
        pack = [member(tmp_path, backbone, spec, v, noisy=True, training=training) for v in MEMBERS]
        return record(pack)[0]

    batches = 0
    whole = go(8192)
    collate = PromptedModel.collate

    def counted(self: PromptedModel, rows: Any) -> Batch:
        nonlocal batches
        batches += 1
        return collate(self, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PromptedModel, "collate", counted)
        parts = go(40)
    assert batches > 5 * 8, "the small budget must split the batches"
    for r in range(len(MEMBERS)):
        torch.testing.assert_close(parts.losses[r], whole.losses[r], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(parts.prompts[-1], whole.prompts[-1], **PROMPT)


# Members that end early ----------------------------------------------------------------------------------------------


def three(folder: Path, backbone: Backbone, **of_second: Any) -> list[Prepared]:
    """Members 0 and 2 are ordinary; `of_second` changes member 1."""
    values = [MEMBERS[0], {**MEMBERS[1], "initializer": "sampled_vocab", **of_second}, MEMBERS[2]]
    training = {"evaluations": STEPS}
    return [member(folder, backbone, {"kind": "residual", "bottleneck": 8}, v, training=training) for v in values]


def assert_others_unaffected(loop: RecordingLoop, pack: Sequence[Prepared], others: Sequence[int]) -> None:
    for r in others:
        alone, _ = record([pack[r]])
        torch.testing.assert_close(loop.losses[r], alone.losses[0], **LOSS)
        torch.testing.assert_close(loop.prompts[-1][r], alone.prompts[-1][0], **PROMPT)


def test_member_with_an_absurd_rate_stops_alone_and_keeps_its_last_good_state(
    backbone: Backbone, tmp_path: Path
) -> None:
    pack = three(tmp_path, backbone, rate=1e30)
    loop, results = record(pack)
    assert [t.member.status for t in results] == ["done", "diverged", "done"]
    assert results[1].member.step < STEPS
    assert results[1].member.best_step == 0
    first = build_encoder(pack[1].config, pack[1].rendering, backbone).materialize()["inputs"]
    torch.testing.assert_close(torch.from_numpy(results[1].prompt), first, rtol=1e-6, atol=1e-6)
    assert math.isfinite(results[1].member.best_dev["loss"])
    assert loop.trained[-1] == [0, 2]
    assert_others_unaffected(loop, pack, (0, 2))


def test_member_with_a_loss_that_is_not_a_number_stops_alone_and_keeps_its_best_state(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = three(tmp_path, backbone)
    poisoned_from, scores = 7, PromptedModel.scores

    def poisoned(self: PromptedModel, batch: Batch, table: PromptTable | None, delta: Delta = NOTHING) -> Tensor:
        found = scores(self, batch, table, delta)
        if torch.is_grad_enabled() and len(RecordingLoop.latest.prompts) >= poisoned_from:
            return found * torch.where(batch.prompt_of == 1, torch.nan, 1.0)[:, None]
        return found

    with monkeypatch.context() as patch:
        patch.setattr(PromptedModel, "scores", poisoned)
        loop, results = record(pack)
    healthy, _ = record(pack)
    stopped = results[1].member
    assert [t.member.status for t in results] == ["done", "diverged", "done"]
    assert stopped.step == poisoned_from
    assert len(stopped.history) == poisoned_from + 1, "it was scored before the first step and after each good one"
    assert stopped.best_step <= poisoned_from
    if stopped.best_step:
        kept = healthy.prompts[stopped.best_step - 1][1]
        torch.testing.assert_close(torch.from_numpy(results[1].prompt), kept, **PROMPT)
    assert torch.isfinite(torch.from_numpy(results[1].prompt)).all()
    for r in (0, 2):
        torch.testing.assert_close(loop.losses[r], healthy.losses[r], **LOSS)
        torch.testing.assert_close(loop.prompts[-1][r], healthy.prompts[-1][r], **PROMPT)


def test_all_members_may_diverge_at_once(backbone: Backbone, tmp_path: Path) -> None:
    pack = [member(tmp_path, backbone, {"kind": "prompt_tuning"}, {**v, "rate": 1e30}) for v in MEMBERS]
    _, results = record(pack)
    assert [t.member.status for t in results] == ["diverged"] * 3
    assert all(torch.isfinite(torch.from_numpy(t.prompt)).all() for t in results)


def test_early_stopped_member_leaves_the_pack_and_keeps_its_best_checkpoint(backbone: Backbone, tmp_path: Path) -> None:
    def pack_with(patience: int) -> list[Prepared]:
        values = [MEMBERS[0], {**MEMBERS[1], "rate": 1e-12, "decay": 0.0}, MEMBERS[2]]
        training = {"evaluations": STEPS, "patience": patience}
        return [member(tmp_path, backbone, {"kind": "prompt_tuning"}, v, training=training) for v in values]

    pack = pack_with(4)
    loop, results = record(pack)
    stopped = results[1].member
    assert stopped.status == "done"
    assert stopped.step == 4, "a run that does not move has no gain at any evaluation"
    assert stopped.best_step == 0
    assert all(1 not in trained for trained in loop.trained[4:])
    first = build_encoder(pack[1].config, pack[1].rendering, backbone).materialize()["inputs"]
    assert torch.equal(torch.from_numpy(results[1].prompt), first)
    longest = max(t.member.step for t in results)
    assert longest > 4, "another member must go on"
    for r in (0, 2):
        alone, (result,) = record([pack[r]])
        assert result.member.step == results[r].member.step
        torch.testing.assert_close(loop.losses[r], alone.losses[0], **LOSS)


@pytest.mark.parametrize("kind", ["prompt_tuning", "residual"])
def test_the_kept_prompt_is_that_of_the_best_evaluation(kind: str, backbone: Backbone, tmp_path: Path) -> None:
    training = {"evaluations": STEPS}
    pack = [member(tmp_path, backbone, {"kind": kind}, {**v, "rate": 0.1}, training=training) for v in MEMBERS]
    loop, results = record(pack)
    assert any(0 < t.member.best_step < STEPS for t in results), "the last state must not always be the best"
    for r, trained in enumerate(results):
        best = max(trained.member.history, key=lambda h: (h["dev"]["accuracy"], -h["dev"]["loss"]))
        assert trained.member.best_step == best["step"]
        if best["step"]:
            assert torch.equal(torch.from_numpy(trained.prompt), loop.prompts[best["step"] - 1][r])
        model, dev = model_of(pack[r]), pack[r].rows["dev"]
        scores = model.score_rows(dev, PromptTable(torch.from_numpy(trained.prompt)[None]), 8192)
        labels = torch.tensor([row.label for row in dev])
        assert float((scores.argmax(1) == labels).double().mean()) == pytest.approx(best["dev"]["accuracy"])
        assert float(model.readout.loss(scores, labels).mean()) == pytest.approx(best["dev"]["loss"], rel=1e-5)


# What may not share a pack -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        {"prompt": {"length": 4}},
        {"prompt": {"kind": "p_tuning_mlp"}},
        {"prompt": {"dropout": 0.1}},
        {"prompt": {"bottleneck": 9}},
        {"training": {"batch_size": 4}},
        {"training": {"max_steps": 5}},
        {"training": {"clip": 0.5}},
        {"training": {"schedule": "constant"}},
        {"training": {"beta1": 0.5}},
        {"training": {"patience": 3}},
        {"training": {"max_tokens": 64}},
        {"readout": {"kind": "cloze", "combine": "max"}},
        {"regularizers": []},
        {"regularizers": [{"kind": "gaussian", "sigma": 0.5}]},
        {"backbone": {"dropout": True}},
        {"task": {"template": "{text} {prompt} {answer}."}},
        {"task": {"shots": 4}},
        {"task": {"label_words": {"positive": "good", "negative": "bad"}}},
    ],
    ids=lambda o: "-".join(f"{s}.{k}" for s, v in o.items() for k in (v if isinstance(v, dict) else [len(v)])),
)
def test_runs_that_differ_in_something_else_are_refused(
    other: dict[str, Any], backbone: Backbone, tmp_path: Path
) -> None:
    def run(change: Mapping[str, Any]) -> Prepared:
        recipe: dict[str, Any] = {
            "prompt": {"kind": "residual", "bottleneck": 8},
            "readout": {"kind": "cloze"},
            "regularizers": ["gaussian"],
        }
        task = change.get("task", {})
        for section, value in change.items():
            if section != "task":
                recipe[section] = {**recipe.get(section, {}), **value} if isinstance(value, dict) else value
        if "kind" in change.get("prompt", {}):
            recipe["prompt"].pop("bottleneck")
        return toy_run(tmp_path, backbone, recipe, **{"shots": 8, **task})

    with pytest.raises(ConfigError, match="may differ only in seeds, learning rates, weight decay, initializer"):
        train_pack([run({}), run(other)])


def test_runs_on_two_backbones_are_refused(backbone: Backbone, tiny_folder: Path, tmp_path: Path) -> None:
    again = tiny_backbone(tiny_folder)
    with pytest.raises(ConfigError, match="may differ only in"):
        train_pack([toy_run(tmp_path, b) for b in (backbone, again)])


def test_backbone_dropout_is_refused_in_a_pack_of_two(backbone: Backbone, tmp_path: Path) -> None:
    pack = [toy_run(tmp_path, backbone, {"seed": s, "backbone": {"dropout": True}}) for s in (1, 2)]
    with pytest.raises(ConfigError, match="backbone dropout needs a pack of one run"):
        train_pack(pack)


# Saboteurs -----------------------------------------------------------------------------------------------------------


def clips_the_whole_pack(self: StackedAdamW, largest: float) -> Tensor:
    gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
    norm = torch.sqrt(sum((g.square().sum() for g in gradients), torch.zeros(())))
    for gradient in gradients:
        gradient.mul_(min(1.0, largest / (float(norm) + 1e-6)))
    return norm.repeat(len(gradients[0]))


class SharesMoments(StackedAdamW):
    """One second moment for the whole pack."""

    @torch.no_grad()
    def step(self, factors: Sequence[float], active: Tensor) -> None:
        super().step(factors, active)
        for _, v in self.statistics.values():
            v.copy_(v.mean(0, keepdim=True).expand_as(v))


def noise_of_the_batch(self: TrainStep, name: str, purpose: str) -> Tensor:
    """Noise drawn for the batch at once, so that it depends on batch mates."""
    return torch.randn(self.original(name).shape, generator=torch.Generator().manual_seed(0))


def divides_by_the_micro_batch(batch: Batch, share: Tensor) -> Part:
    """Weighs rows by the size of the batch they happen to be computed in."""
    return Part(batch, torch.full_like(share, 1 / len(batch)))


class OneOrderForAll(RecordingLoop):
    """Every member sees its rows in the order of member 0."""

    def __init__(self, model: Any, pack: Any, members: Any, *args: Any) -> None:
        for m in members:
            m.seeds = members[0].seeds
        super().__init__(model, pack, members, *args)


class SharedDropout(EncoderPack):
    """Draws the dropout masks of all members from one stream."""

    def table(self, *, training: bool, step: int = 0) -> PromptTable:
        if not training:
            return super().table(training=False)
        encoder = self.encoder[0].train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(step)
            states = [{n: v[r] for n, v in self.stacked.items()} for r in range(self.size)]
            return PromptTable(torch.stack([torch.func.functional_call(encoder, s, ()) for s in states]))


def clipped_pack(folder: Path, backbone: Backbone) -> list[Prepared]:
    """Two runs in which everything is active that a saboteur could get wrong."""
    spec, training = {"kind": "residual", "bottleneck": 8, "dropout": 0.2}, {"clip": 0.05}
    return [member(folder, backbone, spec, v, noisy=True, training=training) for v in MEMBERS[:2]]


def test_the_pack_of_the_saboteurs_is_sound(backbone: Backbone, tmp_path: Path) -> None:
    check_members_equal_alone(clipped_pack(tmp_path, backbone))


@pytest.mark.parametrize(
    ("where", "name", "saboteur"),
    [
        (StackedAdamW, "clip", clips_the_whole_pack),
        ("trimtab.training.optimization", "StackedAdamW", SharesMoments),
        (TrainStep, "normal", noise_of_the_batch),
        (loops, "Part", divides_by_the_micro_batch),
        (packs, "Loop", OneOrderForAll),
        (packs, "EncoderPack", SharedDropout),
    ],
    ids=["clip", "moments", "noise", "micro-batch", "order", "dropout"],
)
def test_saboteur_that_lets_members_influence_each_other_is_caught(
    where: Any, name: str, saboteur: Any, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = clipped_pack(tmp_path, backbone)
    if isinstance(where, str):
        monkeypatch.setattr(f"{where}.{name}", saboteur)
    else:
        monkeypatch.setattr(where, name, saboteur)
    with pytest.raises(AssertionError, match=r"^(losses|prompts):"):
        check_members_equal_alone(pack)
