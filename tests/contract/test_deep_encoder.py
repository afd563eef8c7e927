"""Deep prompts as an encoder: what is trained and kept, where it starts, and a run from recipe to reloaded bundle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.contract.test_backbone_families import DIFFERENT, family_folder, frozen
from tests.contract.toy_runs import context
from tests.tiny import toy_task
from tests.unit.refusals import refused
from trimtab import api
from trimtab.backbones import Backbone, load_backbone
from trimtab.config import resolve
from trimtab.documents import dump_yaml
from trimtab.errors import BackboneError, ConfigError
from trimtab.initializers import PromptContext
from trimtab.loading import load
from trimtab.prompt_table import Site
from trimtab.prompts.deep import Deep
from trimtab.registry import prompts
from trimtab.storage import read_bundle
from trimtab.training.encoder_pack import EncoderPack
from trimtab.training.encoders import build_encoder
from trimtab.training.packs import train_pack
from trimtab.training.preparing import Prepared, prepare
from trimtab.training.runs import run_pack

__all__ = ["family_folder"]

BERT_LARGE = {"there": {"self": Site(24, 16, 16, 64)}, "hidden_size": 1024}
T5_SITES = {"encoder": Site(2, 2, 2, 8), "decoder": Site(2, 2, 2, 8), "cross": Site(2, 2, 2, 8)}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"layers": "top:1"},
    {"layers": [0, -1]},
    {"gate": "zero"},
    {"reparameterization": "mlp", "width": 7},
    {"reparameterization": "residual", "width": 7, "bottleneck": 3},
    {"input": {"kind": "prompt_tuning", "length": 3}},
    {"input": {"kind": "residual", "length": 3}, "reparameterization": "mlp", "gate": "zero"},
]


def of_sites(sites: dict[str, Site], size: int = 32) -> PromptContext:
    return replace(context(size), sites=lambda: sites, hidden_size=size)


def toy(folder: Path, backbone: Backbone, *overrides: str, **prompt: Any) -> Prepared:
    recipe = {
        "task": toy_task(folder, 64), "seed": 1, "prompt": {"kind": "deep", "length": 4, **prompt},
        "training": {"max_steps": 20, "learning_rate": 0.03, "batch_size": 8, "evaluations": 2},
    }  # fmt: skip
    return prepare(resolve(recipe, overrides).config, backbone)


# What is trained and kept


@pytest.mark.parametrize(
    ("options", "trained", "kept"),
    [  # methods.md, A.4.2
        ({"length": 1}, 49_152, 49_152),
        ({"length": 8}, 393_216, 393_216),
        ({"length": 20}, 983_040, 983_040),
        ({"length": 128}, 6_291_456, 6_291_456),
        ({"length": 20, "reparameterization": "mlp"}, 25_760_256, 983_040),
    ],
)
def test_counts_are_the_published_ones(options: dict[str, Any], trained: int, kept: int) -> None:
    resolved = prompts.resolve({"kind": "deep", **options}, "prompt")
    assert Deep.count(size=1024, **resolved, **BERT_LARGE) == trained
    assert Deep.kept(size=1024, **resolved, **BERT_LARGE) == kept


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("sites", [{"self": Site(3, 2, 4, 8)}, T5_SITES], ids=["self", "t5"])
def test_the_stated_counts_are_the_real_ones(options: dict[str, Any], sites: dict[str, Site]) -> None:
    resolved = prompts.resolve({"kind": "deep", "length": 5, **options}, "prompt")
    encoder = prompts.build(resolved, of_sites(sites))
    there = {"there": sites, "hidden_size": 32}
    assert Deep.count(size=32, **resolved, **there) == sum(p.numel() for p in encoder.parameters())
    kept = encoder.materialize()
    assert Deep.kept(size=32, **resolved, **there) == sum(v.numel() for v in kept.values())
    assert set(kept) == {"inputs", *(f"deep.{n}" for n in encoder.layers), *(f"gate.{n}" for n in encoder.gates)}
    assert "cross" not in encoder.layers, "cross attention has a prompt where asked for only"


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_parameter_gets_a_gradient_and_a_pack_gives_what_each_gives_alone(options: dict[str, Any]) -> None:
    resolved = prompts.resolve({"kind": "deep", "length": 5, **options}, "prompt")
    encoders = [prompts.build(resolved, of_sites({"self": Site(3, 2, 4, 8)})) for _ in range(2)]
    pack = EncoderPack(encoders, [0, 1])
    table = pack.table(training=True)
    leaf = table.detached()
    for value in leaf.tensors.values():
        value.grad = torch.randn_like(value)
    pack.backward(table, leaf)
    for name, value in pack.stacked.items():
        assert value.grad is not None, name
        assert bool((value.grad.flatten(1).abs().sum(1) > 0).all()), name
        is_raw = {"rows", "gates"}.intersection(name.split("."))
        assert pack.group(name) == ("prompt" if is_raw else "encoder")
    for r, encoder in enumerate(encoders):
        for name, part in encoder.parts().items():
            torch.testing.assert_close(table.tensors[name][r], part)


def test_a_reparameterization_lays_its_output_out_as_the_formula_says() -> None:
    resolved = prompts.resolve({"kind": "deep", "length": 5, "reparameterization": "mlp", "width": 7}, "prompt")
    encoder = prompts.build(resolved, of_sites({"self": Site(3, 2, 4, 8)}))
    first, _, last = encoder.network
    hidden = torch.tanh(encoder.rows["raw"] @ first.weight.T + first.bias)
    whole = (hidden @ last.weight.T + last.bias).view(5, 3, 2, 2, 8)  # token, layer, key or value, head, number
    found: Tensor = encoder()["deep.self"]
    for token in range(5):
        for layer in range(3):
            torch.testing.assert_close(found[layer, :, token], whole[token, layer])


# Where it starts


@pytest.mark.parametrize("name", ["bert", "llama", "t5"])
def test_text_starts_as_what_the_backbone_makes_of_it(
    name: str, family_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    backbone = load_backbone(str(family_folder(name)), dtype="float32", device="cpu")
    sites = list(backbone.sites)
    p = toy(tmp_path, backbone, init="text", text="good", length=6, sites=sites, layers=[1])
    encoder = build_encoder(p.config, p.rendering, backbone)
    ids = backbone.encoder.encode("good").ids
    known = backbone.keys_values(torch.tensor([ids[i % len(ids)] for i in range(6)]))
    for site in sites:
        assert torch.equal(encoder.materialize()[f"deep.{site}"], known[site][[1]])
    assert encoder.text_shift == (6 if backbone.family.takes_positions else 0)
    assert p.rendering.max_length == backbone.max_positions - encoder.text_shift


def test_words_differ_by_seed_and_normal_values_have_the_scale(tmp_path: Path, backbone: Backbone) -> None:
    def first(**options: Any) -> Tensor:
        p = toy(tmp_path, backbone, f"seed={options.pop('seed', 1)}", **options)
        return build_encoder(p.config, p.rendering, backbone).materialize()["deep.self"]

    assert torch.equal(first(init="vocabulary"), first(init="vocabulary"))
    assert not torch.equal(first(init="vocabulary"), first(init="vocabulary", seed=2))
    assert float(first(scale=3.0, length=40).std()) == pytest.approx(3.0, rel=0.1)


# A run


@pytest.mark.parametrize("name", DIFFERENT)
@pytest.mark.parametrize("readout", ["auto", "head"])
def test_a_run_leaves_the_backbone_alone_and_a_bundle_that_scores_the_same(
    name: str, readout: str, family_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    backbone = load_backbone(str(family_folder(name)), dtype="float32", device="cpu")
    p = toy(
        tmp_path,
        backbone,
        f"readout.kind={readout}",
        "training.max_steps=3",
        input={"kind": "prompt_tuning", "length": 2},
    )
    with frozen(backbone):
        record = run_pack([p], tmp_path / "runs")[0]
    again = load(record["run"], backbone=backbone)
    found = again.evaluate(p.task.splits["test"])
    assert found.metrics["accuracy"] == record["metrics"]["test"]["accuracy"]
    assert again.table is not None
    before = build_encoder(p.config, p.rendering, backbone).materialize()
    for part, value in before.items():
        assert not torch.equal(again.table.tensors[part][0], value), f"{part} has not moved"


LEARNERS = [o if "layers" not in o and len(o) < 3 else pytest.param(o, marks=pytest.mark.slow) for o in OPTIONS]


@pytest.mark.parametrize("options", LEARNERS, ids=str)
def test_it_learns_the_toy(options: dict[str, Any], tmp_path: Path, family_folder: Callable[[str], Path]) -> None:
    backbone = load_backbone(str(family_folder("gpt2")), dtype="float32", device="cpu")
    p = toy(tmp_path, backbone, "training.max_steps=100", **options)
    assert run_pack([p], tmp_path / "runs")[0]["metrics"]["test"]["accuracy"] >= 0.8


def test_runs_packed_together_equal_each_alone(tmp_path: Path, backbone: Backbone) -> None:
    inner = {"kind": "prompt_tuning", "length": 2}
    pack = [toy(tmp_path, backbone, f"seed={s}", "readout.kind=head", gate="zero", input=inner) for s in (1, 2)]
    for together, p in zip(train_pack(pack), pack, strict=True):
        alone = train_pack([p])[0]
        for name, value in together.tensors.items():
            torch.testing.assert_close(
                torch.from_numpy(value), torch.from_numpy(alone.tensors[name]), rtol=1e-4, atol=1e-5
            )


def test_recomputed_layers_change_no_bit(tmp_path: Path, backbone: Backbone) -> None:
    plain, anew = (
        train_pack([toy(tmp_path, backbone, f"training.recompute_layers={on}", "backbone.attention=eager")])[0]
        for on in ("false", "true")
    )
    assert all((plain.tensors[n] == anew.tensors[n]).all() for n in plain.tensors)


def test_layers_that_share_a_module_cannot_be_recomputed(tmp_path: Path, family_folder: Callable[[str], Path]) -> None:
    backbone = load_backbone(str(family_folder("albert")), dtype="float32", device="cpu")
    with refused(BackboneError, "cannot be computed anew", where="training.recompute_layers", fix="false"):
        toy(tmp_path, backbone, "training.recompute_layers=true")


def test_a_closed_gate_scores_as_the_bare_model(tmp_path: Path, backbone: Backbone) -> None:
    p = toy(tmp_path, backbone, "training.learning_rate=1e-12", "training.max_steps=1", gate="zero")
    record = run_pack([p], tmp_path / "runs")[0]
    assert record["metrics"]["test"]["accuracy"] == record["baselines"]["no_prompt"]


def test_show_and_the_run_folder_state_the_same_counts(tmp_path: Path, backbone: Backbone) -> None:
    for options in OPTIONS:
        p = toy(tmp_path, backbone, "readout.kind=head", "training.max_steps=1", **options)
        record = run_pack([p], tmp_path / "runs")[0]
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(dump_yaml(p.config.as_dict()))
        shown = api.show(recipe, [f"backbone.model={backbone.name}"])
        assert shown.parameters == record["parameters"]


def test_the_bundle_says_which_layers_and_sites_it_has(tmp_path: Path, family_folder: Callable[[str], Path]) -> None:
    backbone = load_backbone(str(family_folder("t5")), dtype="float32", device="cpu")
    p = toy(tmp_path, backbone, "training.max_steps=1", sites=["cross", "encoder"], layers="top:1")
    bundle = read_bundle(Path(run_pack([p], tmp_path / "runs")[0]["run"]))
    assert bundle.metadata["prompt"]["layers"] == {"encoder": [1], "cross": [1]}
    assert bundle.tensors["deep.cross"].shape == (1, 2, 4, *bundle.tensors["deep.encoder"].shape[3:])
    assert bundle.prompt.shape == (0, backbone.embedding_size)


# What is refused


@pytest.mark.parametrize(
    ("options", "what", "where", "fix"),
    [
        ({"layers": [2]}, "there is no layer 2 at the site 'self', which has 2", "prompt.layers", "0 to 1"),
        ({"layers": [-3]}, "there is no layer -3", "prompt.layers", "-1 is the top"),
        ({"layers": "top:3"}, "there are 2 layers at the site 'self', got top:3", "prompt.layers", None),
        ({"layers": []}, "at least one layer", "prompt.layers", "top:4"),
        ({"sites": ["decoder"]}, "nothing is read from the site 'decoder'", "prompt.sites", "There are: self"),
        ({"sites": []}, "at least one site", "prompt.sites", "self"),
        ({"init": "text", "text": ""}, "the text must give 1 to 4 tokens", "prompt.text", "Write some text"),
        ({"init": "text", "text": "good " * 9}, "the text must give 1 to 4 tokens", "prompt.text", "prompt.length="),
        ({"init": "text", "text": "a", "reparameterization": "mlp"}, "init must be normal", "prompt.init", "none"),
        ({"length": 64, "shift_positions": True}, "moves the text 64 on", "prompt.length", "shift_positions: false"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(
    options: dict[str, Any], what: str, where: str, fix: str | None, tmp_path: Path, backbone: Backbone
) -> None:
    with refused(ConfigError, what, where=where, fix=fix):
        toy(tmp_path, backbone, **options)


def test_a_decoder_that_nobody_reads_has_no_prompt(tmp_path: Path, family_folder: Callable[[str], Path]) -> None:
    backbone = load_backbone(str(family_folder("bart")), dtype="float32", device="cpu")
    assert set(toy(tmp_path, backbone).backbone.sites) == {"encoder", "decoder", "cross"}
    with refused(
        ConfigError, "nothing is read from the site 'decoder'", where="prompt.sites", fix="There are: encoder."
    ):
        toy(tmp_path, backbone, "readout.kind=head", sites=["decoder"])


def test_positions_that_the_model_counts_by_itself_cannot_be_shifted(
    tmp_path: Path, family_folder: Callable[[str], Path]
) -> None:
    backbone = load_backbone(str(family_folder("t5")), dtype="float32", device="cpu")
    with refused(BackboneError, "count positions by themselves", where="prompt.shift_positions", fix="false"):
        toy(tmp_path, backbone, shift_positions=True)


def test_validation_refuses_a_layer_that_does_not_exist(tmp_path: Path, backbone: Backbone, tiny_folder: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump_yaml({"task": toy_task(tmp_path, 8), "backbone": {"model": str(tiny_folder)}}))
    with refused(ConfigError, "there is no layer 5", where="prompt.layers", fix="from the bottom"):
        api.validate(recipe, ["prompt.kind=deep", "prompt.layers=[5]"])
