"""Runs of prompts that look at the text: what they learn, leave behind and share with others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from tests.contract.tiny_families import BUILDERS
from tests.contract.toy_runs import LENGTH, model_of, toy_run
from tests.tiny import tiny_backbone
from trimtab import api
from trimtab.backbones import Backbone
from trimtab.documents import dump_yaml
from trimtab.loading import load
from trimtab.model import NOTHING, PromptedModel
from trimtab.perturbations import TEXT, Delta
from trimtab.prompt_table import PromptTable
from trimtab.registry import regularizers
from trimtab.storage import read_bundle
from trimtab.training.encoder_pack import EncoderPack
from trimtab.training.encoders import build_encoder
from trimtab.training.packs import train_pack
from trimtab.training.preparing import Prepared
from trimtab.training.runs import run_pack
from trimtab.types import Batch

SPECS: dict[str, dict[str, Any]] = {
    "dept": {"kind": "dept", "text_length": 3},
    "smop": {"kind": "smop", "prompts": 3},
    "deep-smop": {"kind": "deep", "input": {"kind": "smop", "length": LENGTH}},
    "deep-dept": {"kind": "deep", "input": {"kind": "dept", "length": LENGTH}},
}
every = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)


def run_of(folder: Path, backbone: Backbone, spec: Mapping[str, Any], **recipe: Any) -> Prepared:
    training = {"max_steps": 6, "evaluations": 3, "learning_rate": 0.03, **recipe.pop("training", {})}
    return toy_run(folder, backbone, {"prompt": dict(spec), "training": training, **recipe}, n=16)


@every
@pytest.mark.parametrize("family", ["bert", "llama", "t5"])
def test_a_bundle_scores_and_predicts_as_the_run_did(spec: dict[str, Any], family: str, tmp_path: Path) -> None:
    backbone = tiny_backbone(BUILDERS[family](tmp_path / "model"))
    p = run_of(tmp_path, backbone, spec)
    (record,) = run_pack([p], tmp_path / "runs")
    bundle = read_bundle(Path(record["run"]))
    assert {"text_offset", "router"} & bundle.tensors.keys()
    assert bundle.slots == LENGTH
    again = load(record["run"], backbone=tiny_backbone(tmp_path / "model"))
    examples = p.task.splits["test"]
    assert again.evaluate(examples).metrics == {
        k: v for k, v in record["metrics"]["test"].items() if k in again.evaluate(examples).metrics
    }
    trained = train_pack([p])[0]
    parts = {n: torch.from_numpy(v)[None] for n, v in trained.tensors.items()}
    assert parts.keys() == bundle.tensors.keys()
    rows = [replace(row, prompt=0) for row in p.rows["test"]]
    scores = model_of(p).score_rows(rows, again.table, 8192)
    torch.testing.assert_close(again.score(examples), scores)
    saved = (Path(record["run"]) / "predictions.test.jsonl").read_text().splitlines()
    assert [str(x.as_json()["label"]) in line for x, line in zip(again.predict(examples), saved, strict=True)] == [
        True
    ] * len(saved)


@every
def test_show_and_the_run_folder_state_the_same_counts(
    spec: dict[str, Any], backbone: Backbone, tmp_path: Path
) -> None:
    p = run_of(tmp_path, backbone, spec)
    record = run_pack([p], tmp_path / "runs")[0]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump_yaml(p.config.as_dict()))
    assert api.show(recipe, [f"backbone.model={backbone.name}"]).parameters == record["parameters"]


@pytest.mark.parametrize("kind", ["dept", "smop"])
def test_prompt_and_encoder_are_learned_at_rates_of_their_own(kind: str, backbone: Backbone, tmp_path: Path) -> None:
    for group in ("prompt", "encoder"):
        other = {"prompt": "encoder", "encoder": "prompt"}[group]
        p = run_of(tmp_path, backbone, SPECS[kind], training={"learning_rates": {group: 0.03, other: 0.0}})
        before = EncoderPack([build_encoder(p.config, p.rendering, backbone)], [1])
        trained = train_pack([p])[0].member
        assert trained.best_step > 0 or trained.best
        state = before.state(0)
        loop_end = _state_after(p)
        moved = {name for name in state if not torch.equal(state[name], loop_end[name])}
        assert {before.group(name) for name in moved} == {group}


def _state_after(p: Prepared) -> dict[str, Tensor]:
    """Parameters at the last step, whichever checkpoint was best."""
    kept: list[dict[str, Tensor]] = []

    with pytest.MonkeyPatch.context() as patch:
        restore = EncoderPack.restore
        patch.setattr(
            EncoderPack, "restore", lambda self, r, state: kept.append(self.state(r)) or restore(self, r, state)
        )
        train_pack([p])
    return kept[0]


@pytest.mark.parametrize("kind", [k for k in regularizers.kinds() if k != "duplicate"])
@pytest.mark.parametrize("spec", [SPECS["dept"], SPECS["smop"]], ids=["dept", "smop"])
def test_every_regularizer_works_with_it(kind: str, spec: dict[str, Any], backbone: Backbone, tmp_path: Path) -> None:
    its = {"target": "both"} if "target" in regularizers.options(kind) else {}
    p = run_of(tmp_path, backbone, spec, regularizers=[{"kind": kind, "weight": 0.5, **its}], training={"max_steps": 3})
    trained = train_pack([p])[0]
    assert trained.member.status == "done"
    assert all(torch.isfinite(torch.tensor(h["dev"]["loss"])) for h in trained.member.history)


class Watching(PromptedModel):
    """Keeps the noise of every pass in which gradients flow."""

    seen: ClassVar[list[tuple[list[int], Tensor | None, frozenset[str]]]] = []

    def scores(self, batch: Batch, table: PromptTable | None, delta: Delta = NOTHING) -> Tensor:
        if torch.is_grad_enabled():
            self.seen.append((batch.keys.tolist(), batch.jitter, frozenset(delta)))
        return super().scores(batch, table, delta)


def test_noise_on_a_router_is_that_of_the_step_and_example_in_all_passes(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drawn(noise: float, max_tokens: int) -> list[dict[int, Tensor]]:
        """The noise by example, step by step."""
        Watching.seen = []
        spec = {**SPECS["smop"], "noise": noise}
        training = {"max_steps": 3, "evaluations": 1, "max_tokens": max_tokens, "batch_size": 16}
        train_pack([run_of(tmp_path, backbone, spec, regularizers=["gaussian"], training=training)])
        steps: list[dict[int, Tensor]] = []
        is_clean = False
        for keys, jitter, delta in Watching.seen:
            assert (jitter is not None) == (noise > 0)
            if TEXT not in delta and not is_clean:
                steps.append({})
            is_clean = TEXT not in delta
            for key, its in zip(keys, jitter if jitter is not None else [], strict=noise > 0):
                assert torch.equal(steps[-1].setdefault(key, its), its), "a pass has noise of its own"
        return steps

    monkeypatch.setattr("trimtab.training.packs.PromptedModel", Watching)
    whole, parts = drawn(1.0, 8192), drawn(1.0, 40)
    assert len(whole) == len(parts) == 3
    for one, other in zip(whole, parts, strict=True):
        assert one.keys() == other.keys() == set(range(16))
        assert all(torch.equal(one[key], other[key]) for key in one), "noise depends on the micro-batch"
    flat = torch.stack([its for step in whole for its in step.values()])
    assert len({tuple(row) for row in flat.tolist()}) == 3 * 16, "every step and example has its own"
    assert 0.7 < float(flat.std()) < 1.3
    drawn(0.0, 8192)


def test_a_perturbation_of_zero_changes_nothing_in_spite_of_noise(backbone: Backbone, tmp_path: Path) -> None:
    specs = [{"kind": "r3f", "sigma": 0.0, "weight": 5.0}]
    plain, held = (
        train_pack([run_of(tmp_path, backbone, SPECS["smop"], regularizers=its)])[0].member.history
        for its in ([], specs)
    )
    for a, b in zip(plain, held, strict=True):
        assert a["dev"]["loss"] == pytest.approx(b["dev"]["loss"], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "beside a deep prompt"])
def test_noise_makes_a_difference_and_the_seed_decides_it(inside: bool, backbone: Backbone, tmp_path: Path) -> None:
    def losses(noise: float, seed: int) -> list[float]:
        spec, seeds = {**SPECS["smop"], "noise": noise}, {"init": 1, "data_order": 1, "subset": 1, "noise": seed}
        spec = {"kind": "deep", "input": {**spec, "length": LENGTH}} if inside else spec
        p = run_of(tmp_path, backbone, spec, seeds=seeds, seed=1)
        return [h["dev"]["loss"] for h in train_pack([p])[0].member.history]

    assert losses(1.0, 3) == losses(1.0, 3) != losses(1.0, 4)
    assert losses(0.0, 3) == losses(0.0, 4) != losses(1.0, 3)
