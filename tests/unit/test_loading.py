"""From a bundle to a predictor: what comes back, and refusals of bundles for another model."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny import save_tiny_model, tiny_backbone
from tests.unit.made_bundles import WORDS, bundle
from tests.unit.refusals import refused
from trimtab import loading as module
from trimtab.backbones import Backbone
from trimtab.errors import BackboneError, BundleError, ConfigError
from trimtab.loading import from_bundle, load
from trimtab.prompt_table import PromptTable
from trimtab.storage import read_bundle, write_bundle


def test_a_saved_bundle_gives_identical_scores(tmp_path: Path, backbone: Backbone) -> None:
    write_bundle(tmp_path / "b", bundle(backbone))
    texts = ["good film", "the old sea is bad"]
    loaded = load(tmp_path / "b", device="cpu")
    again = load(str(tmp_path / "b"), backbone=backbone)
    expected = [p.scores for p in from_bundle(bundle(backbone), backbone).predict(texts)]
    assert [p.scores for p in loaded.predict(texts)] == expected
    assert [p.scores for p in again.predict(texts)] == expected


def test_a_moved_model_can_be_named(tmp_path: Path, tiny_folder: Path, backbone: Backbone) -> None:
    lost = bundle(backbone)
    lost.metadata["backbone"]["model"] = "/no/such/model"
    write_bundle(tmp_path / "b", lost)
    with refused(BackboneError, "there is no folder '/no/such/model'", where="backbone.model", fix="nano-masked"):
        load(tmp_path / "b", device="cpu")
    moved = shutil.copytree(tiny_folder, tmp_path / "moved")
    assert load(tmp_path / "b", backbone=str(moved), device="cpu").predict(["good"])


def test_the_dtype_is_that_of_training_unless_asked(tmp_path: Path, backbone: Backbone) -> None:
    write_bundle(tmp_path / "b", bundle(backbone))
    assert load(tmp_path / "b", device="cpu").model.backbone.dtype == torch.float32
    low = load(tmp_path / "b", device="cpu", dtype="bfloat16")
    assert low.model.backbone.dtype == torch.bfloat16
    assert low.table is not None
    assert low.table.inputs.dtype == torch.float32


def test_a_bundle_for_another_backbone_is_refused(tmp_path: Path, backbone: Backbone) -> None:
    other = tiny_backbone(save_tiny_model(tmp_path / "other", seed=1))
    write_bundle(tmp_path / "b", bundle(backbone))
    what = (
        f"the prompt was trained on another backbone than {other.name!r} (fingerprint {backbone.fingerprint[:12]}, got "
    )
    with refused(BundleError, what, where=str(tmp_path / "b"), fix=f"Use the backbone of {backbone.name!r}"):
        load(tmp_path / "b", backbone=other)


def test_a_bundle_for_another_tokenizer_is_refused(tmp_path: Path, tiny_folder: Path, backbone: Backbone) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "other"))
    definition = json.loads((folder / "tokenizer.json").read_text())
    definition["normalizer"]["lowercase"] = False
    (folder / "tokenizer.json").write_text(json.dumps(definition))
    other = tiny_backbone(folder)
    assert other.fingerprint == backbone.fingerprint
    what = f"the prompt was trained on another tokenizer than {other.name!r}"
    with refused(BundleError, what, where="bundle", fix="Use the tokenizer of"):
        from_bundle(bundle(backbone), other)


@pytest.mark.parametrize("damage", ["truncated", "flipped header"])
def test_a_damaged_prompt_is_refused_before_the_backbone_is_loaded(
    tmp_path: Path, backbone: Backbone, damage: str
) -> None:
    lost = bundle(backbone)
    lost.metadata["backbone"]["model"] = "/no/such/model"
    write_bundle(tmp_path, lost)
    path = tmp_path / "prompt.safetensors"
    raw = path.read_bytes()
    path.write_bytes(raw[:-4] if damage == "truncated" else raw[:12] + b"\xff" + raw[13:])
    with refused(BundleError, "truncated or corrupted", where=str(path), fix="Copy it again"):
        load(tmp_path)


def test_a_missing_bundle_is_refused(tmp_path: Path) -> None:
    with refused(BundleError, "there is no such folder", where=str(tmp_path / "b"), fix="trimtab ls runs"):
        load(tmp_path / "b")


def test_a_loaded_prompt_is_that_of_the_bundle(tmp_path: Path, backbone: Backbone) -> None:
    write_bundle(tmp_path, bundle(backbone))
    loaded = load(tmp_path, backbone=backbone)
    assert isinstance(loaded.table, PromptTable)
    assert np.array_equal(loaded.table.inputs[0].numpy(), read_bundle(tmp_path).prompt)
    assert loaded.metadata["task"]["label_words"] == WORDS


def test_a_part_of_a_prompt_that_nobody_knows_is_refused(backbone: Backbone) -> None:
    known = bundle(backbone)
    strange = replace(known, tensors={**known.tensors, "sidecar": np.zeros((3, 32), np.float32)})
    what = "a part 'sidecar', which this version of trimtab knows no use for"
    with refused(BundleError, what, where="bundle.json", fix="provenance.environment"):
        from_bundle(strange, backbone)


def test_a_readout_that_does_not_exist_or_lacks_an_option_is_refused(backbone: Backbone) -> None:
    with refused(ConfigError, "there is no such key", where="readout.zzz", fix="combine"):
        from_bundle(bundle(backbone, readout={"kind": "cloze", "zzz": 1}), backbone)
    with refused(ConfigError, "there is no readout 'x'", where="readout.kind", fix="cloze"):
        from_bundle(bundle(backbone, readout={"kind": "x"}), backbone)


def test_a_bundle_that_asks_to_run_code_does_so_only_if_the_user_says_so(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking = bundle(backbone)
    asking.metadata["backbone"]["options"]["trust_remote_code"] = True
    asking.metadata["backbone"]["model"] = "somebody/model"
    write_bundle(tmp_path / "b", asking)
    loaded: list[Any] = []
    monkeypatch.setattr(module, "load_backbone", lambda name, **options: loaded.append(options) or backbone)
    monkeypatch.delenv("TRIMTAB_TRUST_REMOTE_CODE", raising=False)
    what, fix = "code that comes with 'somebody/model', and asks to run it", "--trust-remote-code"
    for place in (None, "elsewhere"):
        with refused(BundleError, what, where="backbone.options.trust_remote_code", fix=fix):
            load(tmp_path / "b", backbone=place)
    assert not loaded
    load(tmp_path / "b", trust_remote_code=True)
    monkeypatch.setenv("TRIMTAB_TRUST_REMOTE_CODE", "0")
    with refused(BundleError, what, where="backbone.options.trust_remote_code", fix=fix):
        load(tmp_path / "b")
    monkeypatch.setenv("TRIMTAB_TRUST_REMOTE_CODE", "1")
    load(tmp_path / "b")
    assert [options["trust_remote_code"] for options in loaded] == [True, True]
    load(tmp_path / "b", backbone=backbone)
    assert len(loaded) == 2, "a backbone that is loaded already runs nothing"
