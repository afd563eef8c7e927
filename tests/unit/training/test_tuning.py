"""A backbone trained with the prompt: private to its run, kept with it, and nothing else changes."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.tiny import save_tiny_model, tiny_backbone, toy_task
from tests.unit.refusals import refused
from tests.unit.training.test_resume import Killed, killer, outcome
from trimtab import api
from trimtab.backbones import Backbone, load_backbone
from trimtab.config import resolve
from trimtab.errors import BundleError, ConfigError, StorageError
from trimtab.files import read_json, read_tensors, write_json, write_tensors
from trimtab.loading import from_bundle, load
from trimtab.storage import TUNED_FILE, Bundle, read_bundle
from trimtab.training import judging, records, runs
from trimtab.training.encoder_pack import EncoderPack
from trimtab.training.encoders import build_encoder
from trimtab.training.objective import Objective
from trimtab.training.optimization import StackedAdamW
from trimtab.training.packs import train_pack
from trimtab.training.preparing import Prepared, prepare
from trimtab.training.resume import FILE, read_checkpoint
from trimtab.training.runs import run_pack
from trimtab.training.tuning import TunedPack
from trimtab.tunings.all import All

TRAINING = {
    "learning_rate": 0.01, "learning_rates": {"backbone": 2e-3}, "max_steps": 6, "batch_size": 6, "evaluations": 6,
}  # fmt: skip
CONSTANT = ("training.schedule=constant", "training.warmup=0")


def sections(folder: Path) -> dict[str, Any]:
    prompt = {"kind": "p_tuning_mlp", "length": 3}
    return {"task": toy_task(folder, 16), "prompt": prompt, "training": TRAINING, "seed": 1}


def prepared(folder: Path, backbone: Backbone, *overrides: str) -> Prepared:
    """A run on the toy that trains prompt, encoder and backbone."""
    return prepare(resolve(sections(folder), overrides).config, backbone)


def weights(backbone: Backbone) -> dict[str, Tensor]:
    return {n: p.detach().clone() for n, p in backbone.model.named_parameters()}


def staged(monkeypatch: pytest.MonkeyPatch, accuracies: Sequence[float]) -> None:
    """Evaluations say these accuracies one after the other."""
    said = iter(accuracies)
    monkeypatch.setattr(judging, "dev_metrics", lambda *args: {"accuracy": next(said), "macro_f1": 0.0, "loss": 1.0})


# Whom it may train


def test_runs_that_train_the_backbone_do_not_pack(tmp_path: Path, backbone: Backbone) -> None:
    tuned, frozen = prepared(tmp_path, backbone), prepared(tmp_path, backbone, "training.learning_rates={}")
    for pack in ([tuned, prepared(tmp_path, backbone, "seed=2")], [frozen, tuned]):
        for train in (train_pack, lambda p: run_pack(p, tmp_path / "runs")):
            where = "training.learning_rates.backbone"
            with refused(ConfigError, "a trained backbone belongs to one run", where=where, fix="one after the other"):
                train(pack)
    assert not (tmp_path / "runs").exists()
    encoders = [build_encoder(p.config, p.rendering, backbone) for p in (tuned, frozen)]
    with pytest.raises(ValueError, match="a trained backbone needs a pack of one run"):
        TunedPack(EncoderPack(encoders, [1, 2]), backbone.trainable(All().open))


def test_a_rate_of_zero_leaves_it_frozen(tmp_path: Path, backbone: Backbone) -> None:
    pack = [prepared(tmp_path, backbone, "training.learning_rates.backbone=0", f"seed={s}") for s in (1, 2)]
    records = run_pack(pack, tmp_path / "runs")
    assert [set(r["parameters"]) for r in records] == [{"trained", "kept"}] * 2
    assert not list((tmp_path / "runs").rglob(TUNED_FILE))
    assert "tuned" not in read_json(Path(records[0]["run"]) / "bundle.json")["backbone"]


def test_a_backbone_that_was_loaded_in_bfloat16_is_refused(tmp_path: Path, tiny_folder: Path) -> None:
    low = load_backbone(str(tiny_folder), dtype="bfloat16", device="cpu")
    with refused(ConfigError, "float32, got bfloat16", where="backbone.dtype", fix="learning_rates.backbone=0"):
        prepared(tmp_path, low)


@pytest.mark.parametrize(
    ("override", "what", "where"),
    [
        ("training.learning_rates.head=1", "has no parameters of the group 'head'", "training.learning_rates.head"),
        ("backbone.dtype=bfloat16", "a trained backbone is float32", "backbone.dtype"),
    ],
)
def test_validation_refuses_what_a_run_would(tmp_path: Path, override: str, what: str, where: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        api.validate(sections(tmp_path), [override])
    assert caught.value.where == where


# What a step does


def gradients(p: Prepared, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Tensor], float]:
    """Gradients of the first step, before clipping, and their norm as the loop found it."""
    found: list[tuple[dict[str, Tensor], float]] = []
    clip = StackedAdamW.clip

    def spy(self: StackedAdamW, largest: float) -> Tensor:
        before = {n: w.grad.clone() for n, w in self.parameters.items() if w.grad is not None}
        norms = clip(self, largest)
        found.append((before, float(norms[0])))
        return norms

    with monkeypatch.context() as patch:
        patch.setattr(StackedAdamW, "clip", spy)
        train_pack([p])
    return found[0]


def test_one_norm_covers_prompt_encoder_and_backbone(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, norm = gradients(prepared(tmp_path, backbone), monkeypatch)
    names = {"backbone." + n for n in weights(backbone)}
    assert names < found.keys()
    assert {"rows"} < found.keys() - names
    assert norm == pytest.approx(float(torch.cat([g.flatten() for g in found.values()]).norm()), rel=1e-5)


def test_the_penalty_of_a_regularizer_trains_the_backbone(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noise of size zero, weight 2: three times the clean loss."""
    clean, _ = gradients(prepared(tmp_path, backbone), monkeypatch)
    noisy = "regularizers=[{kind: gaussian, sigma: 0, weight: 2}]"
    both, _ = gradients(prepared(tmp_path, backbone, noisy), monkeypatch)
    for name, value in clean.items():
        torch.testing.assert_close(both[name], 3 * value, rtol=1e-4, atol=1e-6, msg=lambda m, at=name: f"{at}: {m}")


def test_noise_stays_in_units_of_the_embeddings_that_training_began_with(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    units = []
    step = Objective._step

    def spy(self: Objective, *args: Any) -> Any:
        found = step(self, *args)
        units.append(found.rms["text"])
        assert not found.original("text").requires_grad, "a regularizer may ask for a gradient of its own"
        return found

    monkeypatch.setattr(Objective, "_step", spy)
    train_pack([prepared(tmp_path, backbone, "regularizers=[gaussian]")])
    assert set(units) == {backbone.embedding_rms}


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_every_optimizer_trains_it_and_dropout_is_its_own(tmp_path: Path, backbone: Backbone, optimizer: str) -> None:
    before = weights(backbone)
    plain, dropped = (
        train_pack([prepared(tmp_path, backbone, f"training.optimizer={optimizer}", f"backbone.dropout={d}")])[0]
        for d in ("false", "true")
    )
    assert plain.member.status == dropped.member.status == "done"
    assert not np.array_equal(plain.prompt, dropped.prompt)
    assert all(torch.equal(before[n], v) for n, v in weights(backbone).items())
    assert not any(m.training for b in (backbone, dropped.backbone) for m in b.model.modules())


# Which state is kept


def test_the_weights_kept_are_those_of_the_best_evaluation(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged(monkeypatch, [0.1, 0.2, 0.9, 0.3, 0.9, 0.3, 0.1])
    best = train_pack([prepared(tmp_path, backbone, *CONSTANT)])[0]
    assert (best.member.best_step, best.member.step) == (2, 6)
    staged(monkeypatch, [0.1, 0.2, 0.9])
    short = ("training.max_steps=2", "training.evaluations=2")
    until = train_pack([prepared(tmp_path, backbone, *CONSTANT, *short)])[0]
    assert np.array_equal(best.prompt, until.prompt)
    for name, value in weights(until.backbone).items():
        assert torch.equal(weights(best.backbone)[name], value), name


def test_a_loss_that_is_not_a_number_leaves_the_last_good_weights(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned = iter([False] * 3 + [True] * 9)
    backward = EncoderPack.backward

    def poison(self: EncoderPack, table: Any, leaf: Any) -> None:
        if next(poisoned):
            leaf.inputs.grad.fill_(torch.nan)
        backward(self, table, leaf)

    monkeypatch.setattr(EncoderPack, "backward", poison)
    staged(monkeypatch, [0.1 * i for i in range(1, 8)])
    record = run_pack([prepared(tmp_path, backbone)], tmp_path / "runs")[0]
    assert (record["status"], record["steps"], record["best_step"]) == ("diverged", 3, 3)
    kept = read_bundle(Path(record["run"])).tuned
    assert all(np.isfinite(v).all() for v in kept.values())
    assert not np.array_equal(kept["cls.predictions.bias"], weights(backbone)["cls.predictions.bias"].numpy())


def test_a_run_killed_again_and_again_ends_as_if_undisturbed(tmp_path: Path, backbone: Backbone) -> None:
    noisy = ("regularizers=[gaussian]", "training.max_steps=12", "backbone.dropout=true")
    pack = [prepared(tmp_path, backbone, *noisy)]
    undisturbed = run_pack(pack, tmp_path / "undisturbed")
    kills = 0
    for after in (4, 7, 9, 5, 8, 6):
        try:
            run_pack(pack, tmp_path / "killed", report=killer(after))
            break
        except Killed:
            kills += 1
    assert kills >= 3, "it must be killed in the middle"
    killed = run_pack(pack, tmp_path / "killed")
    assert outcome(killed) == outcome(undisturbed)
    files = [(Path(r[0]["run"]) / TUNED_FILE).read_bytes() for r in (killed, undisturbed)]
    assert files[0] == files[1]
    assert not list((tmp_path / "killed").rglob(FILE))


def test_a_checkpoint_holds_the_weights_and_what_a_kill_leaves_of_one_is_removed(
    tmp_path: Path, backbone: Backbone
) -> None:
    pack = [prepared(tmp_path, backbone)]
    folder = tmp_path / "runs" / pack[0].id
    with pytest.raises(Killed):
        run_pack(pack, tmp_path / "runs", report=killer(5))
    found = read_checkpoint(folder)
    assert found is not None
    for start in ("prompt.", "best.0."):
        assert {start + "backbone." + n for n in weights(backbone)} < found.state.tensors.keys()
    (folder / f".{FILE}.half.part").write_bytes(b"x")
    run_pack(pack, tmp_path / "runs")
    assert not [p.name for p in folder.iterdir() if FILE in p.name]


# What is written, and read again


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, backbone: Backbone) -> dict[str, Any]:
    """A run of six steps that keeps its encoder."""
    folder = tmp_path_factory.mktemp("tuned")
    with pytest.MonkeyPatch.context() as patch:
        staged(patch, [0.1 * i for i in range(1, 8)])
        record = run_pack([prepared(folder, backbone, "training.keep_encoder=true")], folder / "runs")[0]
    return {"record": record, "path": Path(record["run"])}


@pytest.fixture
def copied(finished: dict[str, Any], tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished["path"], tmp_path / "copied"))


def test_the_run_folder_holds_the_weights_and_says_so(finished: dict[str, Any], backbone: Backbone) -> None:
    names = sorted(p.name for p in finished["path"].iterdir())
    assert names == [
        TUNED_FILE, "bundle.json", "config.yaml", "encoder.safetensors", "metrics.jsonl", "predictions.dev.jsonl",
        "predictions.test.jsonl", "prompt.safetensors", "run.json",
    ]  # fmt: skip
    stated = read_json(finished["path"] / "bundle.json")
    assert stated["backbone"]["tuned"] is True
    assert len(stated["backbone"]["tuned_sha256"]) == 64
    assert stated["backbone"]["fingerprint"] == backbone.fingerprint
    assert stated["metrics"] == finished["record"]["metrics"]
    kept = read_tensors(finished["path"] / TUNED_FILE)
    assert {n: v.shape for n, v in kept.items()} == {n: tuple(p.shape) for n, p in weights(backbone).items()}
    assert {str(v.dtype) for v in kept.values()} == {"float32"}
    encoder = read_tensors(finished["path"] / "encoder.safetensors")
    assert "rows" in encoder
    assert not [n for n in encoder if n.startswith("backbone")]


def test_the_counts_include_the_backbone(finished: dict[str, Any], backbone: Backbone) -> None:
    encoder = sum(v.size for v in read_tensors(finished["path"] / "encoder.safetensors").values())
    n = backbone.parameter_count
    assert finished["record"]["parameters"] == {"trained": n + encoder, "kept": n + 3 * 32, "backbone": n}


def test_a_loaded_run_gives_the_predictions_that_were_recorded(finished: dict[str, Any], backbone: Backbone) -> None:
    path, before = finished["path"], weights(backbone)
    recorded = [json.loads(line) for line in (path / "predictions.test.jsonl").read_text().splitlines()]
    for split in ("dev", "test"):
        evaluation = api.evaluate(path, split)
        assert evaluation.metrics["accuracy"] == finished["record"]["metrics"][split]["accuracy"]
    assert [p.as_json() for p in evaluation.predictions] == recorded
    shared = load(path, backbone=backbone)
    texts = ["the film is good", "the old cat"]
    assert shared.predict(texts) == load(path, device="cpu").predict(texts)
    assert all(torch.equal(before[n], v) for n, v in weights(backbone).items()), "the shared backbone is untouched"
    low = load(path, device="cpu", dtype="bfloat16")
    assert low.model.backbone.dtype == torch.bfloat16
    assert low.predict(texts)[0].scores == pytest.approx(shared.predict(texts)[0].scores, abs=0.1)


def test_missing_weights_are_refused(copied: Path) -> None:
    (copied / TUNED_FILE).unlink()
    with refused(BundleError, "its weights are missing", where=str(copied / TUNED_FILE), fix=f"Copy {TUNED_FILE}"):
        load(copied, device="cpu")


@pytest.mark.parametrize("damage", ["half", "bit", "foreign"])
def test_weights_that_are_not_those_of_the_run_are_refused(copied: Path, damage: str) -> None:
    path = copied / TUNED_FILE
    raw = path.read_bytes()
    if damage == "foreign":
        write_tensors(path, {n: v + 1 for n, v in read_tensors(path).items()})
    else:
        path.write_bytes(raw[: len(raw) // 2] if damage == "half" else raw[:-1] + bytes([raw[-1] ^ 1]))
    with refused(BundleError, "the backbone is not what bundle.json states", where=str(path), fix="Copy it"):
        load(copied, device="cpu")


def test_weights_that_the_bundle_does_not_know_are_refused(copied: Path) -> None:
    metadata = read_json(copied / "bundle.json")
    del metadata["backbone"]["tuned"]
    write_json(copied / "bundle.json", metadata)
    with refused(BundleError, "knows of no trained backbone", where=str(copied / TUNED_FILE), fix="Remove it"):
        load(copied, device="cpu")


def test_weights_that_do_not_fit_the_model_are_refused(copied: Path, backbone: Backbone) -> None:
    kept = read_tensors(copied / TUNED_FILE)
    bundle = read_bundle(copied)
    for tuned, got in (
        ({**kept, "cls.predictions.bias": np.zeros(3, np.float32)}, "(3,)"),
        ({n: v for n, v in kept.items() if n != "cls.predictions.bias"}, "None"),
    ):
        shape = tuple(kept["cls.predictions.bias"].shape)
        what = f"cls.predictions.bias must have the shape {shape}, got {got}"
        with refused(BundleError, what, where="bundle", fix="version of transformers"):
            from_bundle(Bundle(bundle.metadata, bundle.tensors, tuned), backbone)


def test_another_backbone_is_refused_still(copied: Path, tmp_path: Path) -> None:
    other = tiny_backbone(save_tiny_model(tmp_path / "other", seed=1))
    with pytest.raises(BundleError, match="trained on another backbone"):
        load(copied, backbone=other)


def test_a_full_disk_is_noticed_before_training(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    begin = runs.RunFolder.begin

    def spy(self: Any, config: Any, record: Any, size: int) -> None:
        sizes.append(size)
        begin(self, config, record, size)

    monkeypatch.setattr(runs.RunFolder, "begin", spy)
    for overrides in ((), ("training.learning_rates={}",)):
        run_pack([prepared(tmp_path, backbone, *overrides, "training.max_steps=1")], tmp_path / "runs")
    assert sizes == [4 * backbone.parameter_count, 0]


def test_weights_that_cannot_be_written_are_rescued_with_the_prompt(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, saved = os.replace, tmp_path / "saved"
    saved.mkdir()

    def full(scratch: Any, path: Path) -> None:
        if path.name == TUNED_FILE and saved not in path.parents:
            raise OSError(errno.ENOSPC, "full")
        replace(scratch, path)

    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr(records.tempfile, "mkdtemp", lambda prefix: str(saved))
    p = prepared(tmp_path, backbone)
    where = str(tmp_path / "runs" / p.id / TUNED_FILE)
    with refused(StorageError, "no space left", where=where, fix=f"safe in the bundle {saved}"):
        run_pack([p], tmp_path / "runs")
    assert load(saved, device="cpu").predict(["good"])
