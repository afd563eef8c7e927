"""A prompt of every kind begins where the trained prompt of another run ended, or says why it cannot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.contract.test_backbone_families import family_folder
from tests.contract.toy_runs import ENCODERS, LENGTH, TINY, searches, toy_run
from tests.unit.refusals import refused
from trimtab.backbones import Backbone, load_backbone
from trimtab.errors import ConfigError
from trimtab.storage import read_bundle
from trimtab.training.encoders import build_encoder
from trimtab.training.preparing import Prepared
from trimtab.training.runs import run_pack

__all__ = ["family_folder"]

KINDS = sorted({spec["kind"] for spec in ENCODERS if not searches(spec["kind"])})
"""Kinds of vectors: those of words begin at the nearest ones."""
SELF = ("prompt_tuning", "dpt", "dept", "smop")
"""Kinds that can begin exactly at a prompt of their own kind, for short prompts."""


def read(prompt: Mapping[str, Any]) -> dict[str, Any]:
    """Deep prompts are read by a head here, which is not carried over."""
    return {"readout": "head"} if prompt["kind"] == "deep" else {}


def trained(folder: Path, backbone: Backbone, steps: int = 2, **prompt: Any) -> str:
    """A short run; where it lies."""
    recipe = {"prompt": {**TINY.get(prompt["kind"], {}), **prompt}, "training": {"max_steps": steps}, **read(prompt)}
    (record,) = run_pack([toy_run(folder, backbone, recipe, n=8)], folder / "runs")
    return str(record["run"])


def begun(folder: Path, backbone: Backbone, run: str, **prompt: Any) -> Prepared:
    spec = {**TINY.get(prompt["kind"], {}), "initializer": {"kind": "from_run", "run": run}, **prompt}
    return toy_run(folder, backbone, {"prompt": spec, "seed": 2, **read(prompt)}, n=8)


def first(p: Prepared) -> dict[str, Tensor]:
    return build_encoder(p.config, p.rendering, p.backbone).materialize()


def end(run: str) -> dict[str, Tensor]:
    return {name: torch.from_numpy(value) for name, value in read_bundle(Path(run)).tensors.items()}


def check_equal(found: dict[str, Tensor], run: str) -> None:
    wanted = {name: value for name, value in end(run).items() if not name.startswith("head.")}
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("kind", SELF)
def test_a_prompt_begins_where_one_of_its_kind_ended(kind: str, backbone: Backbone, tmp_path: Path) -> None:
    run = trained(tmp_path, backbone, kind=kind)
    fresh = first(toy_run(tmp_path, backbone, {"prompt": {"kind": kind, "length": LENGTH}, "seed": 2}, n=8))
    assert any(not torch.allclose(fresh[name], value, atol=1e-3) for name, value in end(run).items())
    p = begun(tmp_path, backbone, run, kind=kind)
    check_equal(first(p), run)
    assert p.id != begun(tmp_path, backbone, trained(tmp_path, backbone, 3, kind=kind), kind=kind).id


@pytest.mark.parametrize("kind", KINDS)
def test_the_rows_of_another_kind_are_what_a_prompt_begins_with(kind: str, backbone: Backbone, tmp_path: Path) -> None:
    """Exactly, where the encoder is no more than rows, or a product of full rank; else its raw rows are."""
    run = trained(tmp_path, backbone, kind="p_tuning_mlp")
    given = {"words": LENGTH} if kind == "superpos" else {}
    p = begun(tmp_path, backbone, run, kind=kind, **given)
    encoder, rows = build_encoder(p.config, p.rendering, backbone), end(run)["inputs"]
    if kind == "dpt":
        torch.testing.assert_close(encoder.materialize()["inputs"], rows, rtol=1e-4, atol=1e-5)
        return
    raw = encoder.state_dict()["rows"]
    assert torch.equal(raw, rows.repeat(len(raw) // LENGTH, 1))
    if kind == "dept":
        assert float(encoder.materialize()["text_offset"].abs().max()) == 0.0


def test_a_router_s_prompts_are_no_start_for_one(backbone: Backbone, tmp_path: Path) -> None:
    run = trained(tmp_path, backbone, kind="smop", prompts=3)
    with refused(ConfigError, "is 3 prompts that a router chooses from", where="prompt.initializer.run", fix="smop"):
        begun(tmp_path, backbone, run, kind="residual")
    with refused(ConfigError, "the router of", where="prompt.initializer.run", fix="Set prompt.prompts to fit"):
        begun(tmp_path, backbone, run, kind="smop", prompts=2)
    with refused(ConfigError, "the prompt of", where="prompt.initializer.run", fix="Set prompt.length to fit"):
        begun(tmp_path, backbone, run, kind="smop", prompts=3, length=4)


def test_the_words_of_superpos_must_be_as_many_as_the_rows(backbone: Backbone, tmp_path: Path) -> None:
    run = trained(tmp_path, backbone, kind="prompt_tuning")
    with refused(ConfigError, f"has shape ({LENGTH}, 32)", where="prompt.initializer.run", fix="Set prompt.words"):
        begun(tmp_path, backbone, run, kind="superpos")


# Deep prompts


@pytest.mark.parametrize("name", ["bert", "t5"])
@pytest.mark.parametrize(
    "options",
    [{}, {"gate": "zero"}, {"layers": "top:1"}, {"input": {"kind": "smop", "length": 2}}],
    ids=["all", "gated", "top", "input"],
)
def test_keys_values_and_gates_begin_where_another_run_ended(
    name: str, options: dict[str, Any], family_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    backbone = load_backbone(str(family_folder(name)), dtype="float32", device="cpu")
    run = trained(tmp_path, backbone, kind="deep", **options)
    given = dict(options)
    if "input" in options:
        given["input"] = {**options["input"], "initializer": {"kind": "from_run", "run": run}}
    p = begun(tmp_path, backbone, run, kind="deep", **given)
    check_equal(first(p), run)
    assert p.initializer_fingerprint


def test_a_deep_prompt_begun_from_another_trains(backbone: Backbone, tmp_path: Path) -> None:
    run = trained(tmp_path, backbone, kind="deep")
    (record,) = run_pack([begun(tmp_path, backbone, run, kind="deep")], tmp_path / "runs")
    assert record["status"] == "done"
    assert not torch.equal(end(record["run"])["deep.self"], end(run)["deep.self"])


@pytest.mark.parametrize(
    ("source", "options", "what", "where", "fix"),
    [
        ({"kind": "deep", "layers": [0]}, {"layers": [1]}, "has layers [0] at the site 'self', this run [1]",
         "prompt.initializer.run", "Set prompt.layers=[0]"),
        ({"kind": "deep"}, {"length": 3}, "the deep.self of", "prompt.initializer.run", "Set prompt.length to fit"),
        ({"kind": "deep", "shift_positions": True}, {}, "the text moved 5 positions on, this run moves it 0",
         "prompt.initializer.run", "Set prompt.shift_positions=true"),
        ({"kind": "prompt_tuning"}, {}, "no keys and values for the site 'self'", "prompt.initializer", "prompt.init"),
        ({"kind": "deep"}, {"initializer": "sampled_vocab"}, "no keys and values for the site 'self'",
         "prompt.initializer", "Name a run with a deep prompt, or use"),
        ({"kind": "deep"}, {"init": "vocabulary"}, "got both (init=vocabulary)", "prompt.init", "Leave one of"),
        ({"kind": "deep"}, {"reparameterization": "mlp"}, "init must be normal, got prompt.initializer",
         "prompt.init", "prompt.initializer out"),
    ],
)  # fmt: skip
def test_a_deep_prompt_that_cannot_begin_so_says_why(
    source: dict[str, Any], options: dict[str, Any], what: str, where: str, fix: str, backbone: Backbone, tmp_path: Path
) -> None:
    run = trained(tmp_path, backbone, **source)
    with refused(ConfigError, what, where=where, fix=fix):
        begun(tmp_path, backbone, run, kind="deep", **options)


def test_sites_that_another_run_has_not_are_named(family_folder: Callable[[str], Path], tmp_path: Path) -> None:
    backbone = load_backbone(str(family_folder("t5")), dtype="float32", device="cpu")
    run = trained(tmp_path, backbone, kind="deep")  # read in the encoder
    start = {"kind": "deep", "initializer": {"kind": "from_run", "run": run}}
    with refused(ConfigError, "for the site 'decoder'", where="prompt.initializer", fix="Set prompt.sites=[encoder]"):
        toy_run(tmp_path, backbone, {"prompt": start}, n=8)


@pytest.mark.parametrize("kind", ["prompt_tuning", "dept"])
def test_a_deep_prompt_has_no_rows_for_others(kind: str, backbone: Backbone, tmp_path: Path) -> None:
    run = trained(tmp_path, backbone, kind="deep")
    with refused(ConfigError, "has no rows that stand in the text", where="prompt.initializer.run", fix="deep"):
        begun(tmp_path, backbone, run, kind=kind)
