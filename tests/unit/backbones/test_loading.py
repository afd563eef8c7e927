"""Loading and freezing a backbone, refusing what cannot be read, and telling models apart."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel, MPNetConfig, MPNetForMaskedLM
from transformers.utils import logging as transformers_logging

from tests.tiny import save_tiny_model, tiny_backbone, tiny_bert, tiny_tokenizer
from tests.unit.refusals import refused
from trimtab.backbones import Backbone, fingerprints, loading
from trimtab.backbones.family import HEADS
from trimtab.backbones.fingerprints import tokenizer_fingerprint, weight_files
from trimtab.backbones.loading import (
    embedded_models,
    load_backbone,
    load_encoder,
    locate,
    resolve_device,
    resolve_dtype,
)
from trimtab.errors import BackboneError
from trimtab.tunings.all import All

ADVICE = "Give an embedded model (nano-causal, nano-masked, nano-seq2seq)"


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may damage."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


# A loaded backbone


def test_a_loaded_backbone_is_frozen_and_in_evaluation_mode(backbone: Backbone) -> None:
    assert not backbone.model.training
    assert not any(p.requires_grad for p in backbone.model.parameters())
    assert backbone.family.__class__.__name__ == "Bert"


def test_a_loaded_backbone_states_its_sizes(backbone: Backbone, tiny_folder: Path) -> None:
    model = tiny_bert()
    weight = model.get_input_embeddings().weight.detach()
    assert (backbone.embedding_size, backbone.max_positions, backbone.pad_id) == (32, 64, 0)
    assert backbone.embedding_rms == pytest.approx(float(weight.square().mean().sqrt()))
    assert backbone.parameter_count == sum(p.numel() for p in model.parameters())
    assert (backbone.dtype, backbone.device.type, backbone.name) == (torch.float32, "cpu", str(tiny_folder))
    assert torch.equal(backbone.embedding_weight, weight)


def test_bfloat16_is_loaded_when_asked_for(folder: Path) -> None:
    assert load_backbone(str(folder), dtype="bfloat16", device="cpu").dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("dtype", "attention", "used"),
    [
        ("float32", "auto", "sdpa"),
        ("bfloat16", "auto", "eager"),
        ("float32", "eager", "eager"),
        ("bfloat16", "sdpa", "sdpa"),
    ],
)
def test_attention_auto_is_eager_for_bfloat16_on_a_cpu(folder: Path, dtype: Any, attention: Any, used: str) -> None:
    loaded = load_backbone(str(folder), dtype=dtype, attention=attention, device="cpu")
    assert loaded.model.config._attn_implementation == f"trimtab_{used}"


def test_the_text_encoder_can_be_had_without_the_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    side = load_encoder(str(folder), dtype="bfloat16", quantization=None)
    assert side.encoder.encode("cat").ids == tiny_tokenizer()("cat", add_special_tokens=False)["input_ids"]
    assert (side.positions, side.family.readouts) == (64, ("cloze", "word", *HEADS, "cloze_choice", "cloze_span"))


def test_loading_leaves_the_verbosity_of_transformers_as_it_was(folder: Path) -> None:
    level, hub = transformers_logging.get_verbosity(), logging.getLogger("huggingface_hub").level
    transformers_logging.set_verbosity_info()
    try:
        tiny_backbone(folder)
        assert transformers_logging.get_verbosity() == transformers_logging.INFO
        assert transformers_logging.is_progress_bar_enabled()
        assert logging.getLogger("huggingface_hub").level == hub
    finally:
        transformers_logging.set_verbosity(level)


def test_embedded_models_are_known_by_name() -> None:
    assert "nano-masked" in embedded_models()
    assert locate("nano-masked") == str(loading.ASSETS / "nano-masked")
    assert locate("nano-unknown") == "nano-unknown"
    assert locate("some/model") == "some/model"


# Devices and dtypes


def test_cuda_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto").type == "cpu"
    for device in ("cuda", "cuda:1"):
        with refused(BackboneError, "CUDA is not available here", where="device", fix="--device cpu"):
            resolve_device(device)


def test_auto_device_takes_cuda_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto").type == "cuda"
    assert resolve_device("cpu").type == "cpu"


def test_auto_dtype_follows_the_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    for fast, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda fast=fast: fast)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, fast=fast: fast)
        assert resolve_dtype("auto", cpu) == resolve_dtype("auto", cuda) == dtype
    assert resolve_dtype("bfloat16", cpu) == torch.bfloat16
    assert resolve_dtype("float32", cpu) == torch.float32


# What is refused


def test_an_unreachable_name_is_refused() -> None:
    with refused(
        BackboneError, "the model 'nobody/no-such-model' is unknown or unreachable", where="backbone.model", fix=ADVICE
    ):
        load_backbone("nobody/no-such-model")


@pytest.mark.parametrize("load", [load_backbone, load_encoder])
def test_a_missing_folder_is_refused(tmp_path: Path, load: Callable[[str], Any]) -> None:
    path = str(tmp_path / "none")
    with refused(BackboneError, f"there is no folder {path!r}", where="backbone.model", fix="nano-masked"):
        load(path)


def cannot_load(folder: Path, fix: str = ADVICE) -> Any:
    what = f"the model {str(folder)!r} in this folder cannot be loaded: "
    return refused(BackboneError, what, where="backbone.model", fix=fix)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with cannot_load(tmp_path):
        tiny_backbone(tmp_path)


@pytest.mark.parametrize("limit", ["x", {}, []])
def test_a_tokenizer_that_fails_once_it_is_used_is_refused(folder: Path, limit: Any) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_max_length": limit}))
    with cannot_load(folder):
        tiny_backbone(folder)


def test_a_broken_config_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    with cannot_load(folder):
        tiny_backbone(folder)


def test_a_model_without_its_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with cannot_load(folder):
        tiny_backbone(folder)


def test_pickled_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(tiny_bert().state_dict(), folder / "pytorch_model.bin")
    with cannot_load(folder):
        tiny_backbone(folder)


@pytest.mark.parametrize("size", [0, 4, 1000, -10])
def test_truncated_weights_are_refused(folder: Path, size: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with cannot_load(folder):
        tiny_backbone(folder)


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 64}))
    with cannot_load(folder):
        tiny_backbone(folder)


@pytest.mark.parametrize("load", [load_backbone, load_encoder])
def test_a_model_without_a_tokenizer_is_refused(folder: Path, load: Callable[[str], Any]) -> None:
    """Transformers would make one up that turns every word into the unknown token."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    what = f"{str(folder)!r} has no fast tokenizer (tokenizer.json)"
    with refused(BackboneError, what, where="backbone.model"):
        load(str(folder))


def test_a_broken_tokenizer_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")
    with cannot_load(folder):
        tiny_backbone(folder)


def test_an_unsupported_family_is_refused(tmp_path: Path) -> None:
    config = MPNetConfig(vocab_size=200, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    MPNetForMaskedLM(config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    what = f"{str(tmp_path)!r} is of the family 'mpnet', which is not supported"
    for load in (load_backbone, load_encoder):
        with refused(BackboneError, what, where="backbone.model", fix="bert"):
            load(str(tmp_path))


def test_a_checkpoint_without_its_vocabulary_head_is_refused(tmp_path: Path) -> None:
    BertModel(BertConfig.from_dict(tiny_bert().config.to_dict())).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    what = "has no vocabulary head (cls.predictions"
    with refused(BackboneError, what, where="backbone.model", fix="saved with its masked-LM head"):
        tiny_backbone(tmp_path)


def test_a_tokenizer_larger_than_the_model_is_refused(tmp_path: Path) -> None:
    save_tiny_model(tmp_path, vocab_size=50)
    what = f"the tokenizer of {str(tmp_path)!r} has {len(tiny_tokenizer())} tokens, the model 50"
    with refused(BackboneError, what, where="backbone.model"):
        tiny_backbone(tmp_path)


def test_a_slow_tokenizer_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    class Slow:
        is_fast = False

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *a, **k: Slow())
    with refused(BackboneError, "has no fast tokenizer (tokenizer.json)", where="backbone.model"):
        tiny_backbone(folder)


def test_an_error_without_a_message_is_still_explained(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    def fail(*args: Any, **options: Any) -> Any:
        raise RuntimeError

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", fail)
    with pytest.raises(BackboneError, match="cannot be loaded: RuntimeError"):
        tiny_backbone(folder)


# Fingerprints


def test_the_fingerprint_is_that_of_the_weights_not_of_the_place(
    tiny_folder: Path, folder: Path, backbone: Backbone
) -> None:
    assert tiny_backbone(folder).fingerprint == backbone.fingerprint
    raw = bytearray((folder / "model.safetensors").read_bytes())
    raw[-1] ^= 1
    (folder / "model.safetensors").write_bytes(raw)
    changed = tiny_backbone(folder)
    assert changed.fingerprint != backbone.fingerprint
    assert changed.tokenizer_fingerprint == backbone.tokenizer_fingerprint


def test_the_fingerprint_of_a_large_file_samples_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprints, "_WHOLE_FILE_BYTES", 1000)
    monkeypatch.setattr(fingerprints, "_SAMPLE_BYTES", 100)
    path = tmp_path / "a.safetensors"
    path.write_bytes(bytes(5000))
    prints = {fingerprints.fingerprint_of([path])}
    for at in (0, 2500, 4999):
        path.write_bytes(bytes(at) + b"x" + bytes(5000 - at - 1))
        prints.add(fingerprints.fingerprint_of([path]))
    path.write_bytes(bytes(5001))
    prints.add(fingerprints.fingerprint_of([path]))
    assert len(prints) == 5


def test_weight_files_of_a_sharded_model_are_those_of_its_index(tmp_path: Path) -> None:
    tiny_bert().save_pretrained(tmp_path, max_shard_size="20KB")
    (tmp_path / "stray.safetensors").write_bytes(b"")
    names = [p.name for p in weight_files(str(tmp_path))]
    assert len(names) > 1
    assert names == sorted(names)
    assert all(n.startswith("model-0") for n in names)


@pytest.mark.parametrize("stale", ["{", '{"weight_map": {"a": "gone.safetensors"}}'])
def test_an_index_beside_the_whole_file_is_not_asked(folder: Path, stale: str) -> None:
    """As transformers takes the whole file then."""
    before = tiny_backbone(folder).fingerprint
    (folder / "model.safetensors.index.json").write_text(stale)
    assert tiny_backbone(folder).fingerprint == before


def test_the_tokenizer_s_fingerprint_ignores_padding_and_truncation_state() -> None:
    used = tiny_tokenizer()
    before = tokenizer_fingerprint(used)
    used(["a", "a cat"], padding=True, truncation=True, max_length=3)
    assert tokenizer_fingerprint(used) == before == tokenizer_fingerprint(tiny_tokenizer())


@pytest.mark.parametrize("change", ["token", "special", "normalizer"])
def test_the_tokenizer_s_fingerprint_changes_with_its_definition(change: str) -> None:
    other = tiny_tokenizer()
    if change == "token":
        other.add_tokens(["zebra"])
    elif change == "special":
        other.add_special_tokens({"mask_token": "[UNK]"})
    else:
        other.backend_tokenizer.normalizer = None
    assert tokenizer_fingerprint(other) != tokenizer_fingerprint(tiny_tokenizer())


# Copies


def test_a_trainable_copy_has_weights_of_its_own_in_float32_and_keeps_ties(tiny_folder: Path) -> None:
    shared = load_backbone(str(tiny_folder), dtype="bfloat16", device="cpu")
    own = shared.trainable(All().open)
    assert (shared.dtype, own.dtype) == (torch.bfloat16, torch.float32)
    assert all(p.requires_grad for p in own.model.parameters())
    assert not any(p.requires_grad for p in shared.model.parameters())
    assert own.model.get_input_embeddings().weight is own.model.get_output_embeddings().weight
    assert not any(m.training for m in own.model.modules())
    before = shared.embedding_weight.clone()
    with torch.no_grad():
        own.embedding_weight.add_(1.0)
    assert torch.equal(shared.embedding_weight, before)
    assert own.fingerprint == shared.fingerprint


def test_other_weights_are_set_in_a_frozen_copy(backbone: Backbone) -> None:
    before = {n: p.clone() for n, p in backbone.model.named_parameters()}
    other = backbone.with_weights(All().open, {n: p + 1 for n, p in before.items()})
    for name, parameter in other.model.named_parameters():
        assert torch.equal(parameter, before[name] + 1), name
        assert not parameter.requires_grad
    assert all(torch.equal(p, before[n]) for n, p in backbone.model.named_parameters())
    assert other.embedding_rms != backbone.embedding_rms
