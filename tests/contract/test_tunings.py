"""Ways to train a backbone: what moves, what is kept, and what a bundle gives back; over the registry."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.contract.tiny_families import BUILDERS
from tests.contract.toy_runs import toy_run
from tests.ordered_sums import OrderedSums
from tests.tiny import tiny_backbone
from tests.unit.refusals import refused
from trimtab.backbones import Backbone
from trimtab.config import resolve
from trimtab.errors import BundleError, ConfigError
from trimtab.files import read_json, write_tensors
from trimtab.loading import from_bundle
from trimtab.registry import tunings
from trimtab.storage import read_bundle
from trimtab.training.packs import train_pack
from trimtab.training.preparing import Prepared, tuned_backbone
from trimtab.training.runs import run_pack

KINDS = tunings.kinds()


def tuned(folder: Path, backbone: Backbone, kind: str, **more: Any) -> Prepared:
    training = {"learning_rates": {"backbone": 0.01}, "max_steps": 6, "evaluations": 3, **more.pop("training", {})}
    recipe = {"training": training, "backbone": {"tuning": kind}, **more}
    return toy_run(folder, backbone, recipe, n=16)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_trained_moves_is_kept_and_comes_back(kind: str, backbone: Backbone, tmp_path: Path) -> None:
    before = {n: p.clone() for n, p in backbone.model.named_parameters()}
    with OrderedSums():
        (trained,) = train_pack([tuned(tmp_path, backbone, kind)])
    own = trained.backbone.trained
    assert own
    for name, value in trained.backbone.model.named_parameters():
        old = before.get(name.replace(".base_layer", ""))
        if name in own:
            assert old is None or not torch.equal(value, old), f"{name} did not move"
        else:
            assert old is not None
            assert torch.equal(value, old), f"{name} is frozen"
    assert all(torch.equal(p, before[n]) for n, p in backbone.model.named_parameters()), "the shared one is frozen"
    (record,) = run_pack([tuned(tmp_path, backbone, kind)], tmp_path / "runs")
    bundle = read_bundle(Path(record["run"]))
    assert bundle.tuned.keys() == own.keys()
    count = sum(v.size for v in bundle.tuned.values())
    assert record["parameters"]["backbone"] == count
    assert record["parameters"]["kept"] == count + bundle.prompt.size
    again = from_bundle(bundle, backbone)
    task = tuned(tmp_path, backbone, kind).task
    assert again.evaluate(task.splits["test"]).metrics == record["metrics"]["test"]
    assert not any(p.requires_grad for p in again.model.backbone.model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_first_step_starts_from_the_bare_backbone(kind: str, backbone: Backbone, tmp_path: Path) -> None:
    ids = torch.arange(5, 15)[None]
    own = tuned_backbone(tuned(tmp_path, backbone, kind))
    with torch.no_grad():
        torch.testing.assert_close(own.model(input_ids=ids).logits, backbone.model(input_ids=ids).logits)


def test_new_weights_come_from_the_init_stream(backbone: Backbone, tmp_path: Path) -> None:
    first, same, other = (
        {n: p.detach() for n, p in tuned_backbone(tuned(tmp_path, backbone, "lora", seed=s)).trained.items()}
        for s in (1, 1, 2)
    )
    assert all(torch.equal(first[n], same[n]) for n in first)
    assert any(not torch.equal(first[n], other[n]) for n in first)


def test_they_do_not_pack(backbone: Backbone, tmp_path: Path) -> None:
    pack = [tuned(tmp_path, backbone, "biases", seed=s) for s in (1, 2)]
    with refused(
        ConfigError, "a trained backbone belongs to one run", where="training.learning_rates.backbone", fix="one"
    ):
        train_pack(pack)


# The papers ----------------------------------------------------------------------------------------------------------


def test_biases_are_all_of_them_and_nothing_else(backbone: Backbone, tmp_path: Path) -> None:
    own = tuned_backbone(tuned(tmp_path, backbone, "biases")).trained
    stated = {n for n, _ in backbone.model.named_parameters() if n.endswith("bias")}
    assert own.keys() == stated
    assert any("LayerNorm" in n for n in own)


def test_lora_adds_a_low_rank_product(backbone: Backbone, tmp_path: Path) -> None:
    """h = W x + b + alpha / r B A x, of queries and values."""
    own = tuned_backbone(tuned(tmp_path, backbone, {"kind": "lora", "rank": 3, "alpha": 6}))  # type: ignore[arg-type]
    values = {n: p for n, p in own.trained.items() if ".0." in n and "query" in n}
    (a_name, a), (b_name, b) = sorted(values.items())
    assert ("lora_A" in a_name, "lora_B" in b_name) == (True, True)
    assert (a.shape, b.shape) == ((3, 32), (32, 3))
    assert {n.split(".lora_")[0].rsplit(".", 1)[-1] for n in own.trained} == {"query", "value"}
    with torch.no_grad():
        b.copy_(torch.randn(b.shape, generator=torch.Generator().manual_seed(1)))
        layer = own.model.get_submodule(a_name.split(".lora_")[0])
        x = torch.randn(5, 32, generator=torch.Generator().manual_seed(2))
        plain = backbone.model.get_submodule(a_name.split(".lora_")[0])
        expected = x @ plain.weight.T + plain.bias + 6 / 3 * (x @ a.T) @ b.T
        torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("kind", ["roberta", "gpt2", "t5"])
def test_lora_on_other_families(kind: str, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    other = tiny_backbone(BUILDERS[kind](tmp_path_factory.mktemp("model") / kind))
    (trained,) = train_pack([tuned(tmp_path, other, "lora", prompt={"kind": "prompt_tuning", "length": 3})])
    assert trained.member.status == "done"
    assert any("lora_B" in n and bool(p.any()) for n, p in trained.backbone.trained.items())


# Refusals ------------------------------------------------------------------------------------------------------------


def test_a_tuning_of_a_frozen_backbone_is_refused() -> None:
    with refused(
        ConfigError, "the backbone is frozen", where="backbone.tuning", fix="training.learning_rates.backbone"
    ):
        resolve({"task": "support_desk", "backbone": {"tuning": "biases"}})
    with refused(ConfigError, "'bias'", where="backbone.tuning.kind", fix="biases"):
        resolve({"task": "support_desk", "backbone": {"tuning": "bias"}})


def test_a_model_without_biases_is_refused(tmp_path: Path) -> None:
    other = tiny_backbone(BUILDERS["llama"](tmp_path / "llama"))
    with refused(ConfigError, "'llama' has no biases", where="backbone.tuning.kind", fix="lora"):
        tuned_backbone(tuned(tmp_path, other, "biases"))


def test_layers_that_are_not_there_are_refused(backbone: Backbone, tmp_path: Path) -> None:
    run = tuned(tmp_path, backbone, {"kind": "lora", "layers": ["q_proj"]})  # type: ignore[arg-type]
    with refused(ConfigError, "q_proj", where="backbone.tuning.layers", fix="query"):
        tuned_backbone(run)


def test_lora_without_peft_says_what_to_install(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with refused(ConfigError, "needs the library peft", where="backbone.tuning.kind", fix="trimtab[lora]"):
        tuned_backbone(tuned(tmp_path, backbone, "lora"))


def test_weights_of_another_tuning_are_refused(backbone: Backbone, tmp_path: Path) -> None:
    (record,) = run_pack([tuned(tmp_path, backbone, "biases")], tmp_path / "runs")
    folder = Path(record["run"])
    bundle = read_bundle(folder)
    name = sorted(bundle.tuned)[0]
    bundle.tuned[name] = np.zeros(3, dtype=np.float32)  # type: ignore[index]
    with pytest.raises(BundleError, match="must have the shape") as caught:
        from_bundle(bundle, backbone, "here")
    assert caught.value.where == "here"
    write_tensors(folder / "backbone.safetensors", {name: np.zeros(3, dtype=np.float32)})
    assert read_json(folder / "bundle.json")["backbone"]["options"]["tuning"] == {"kind": "biases"}
    with pytest.raises(BundleError, match="SHA-256"):
        read_bundle(folder)
