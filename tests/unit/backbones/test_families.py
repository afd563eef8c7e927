"""What is particular to each family: positions, sizes, heads, and what its checkpoints are refused for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.contract.tiny_families import BUILDERS, VARIANTS, deberta_v2_own_head, electra, modernbert_tokenizer
from tests.tiny import save_tiny_model, tiny_bert
from tests.unit.refusals import refused
from trimtab.backbones import load_backbone
from trimtab.backbones.encoder_decoder import begun_with
from trimtab.backbones.loading import load_encoder
from trimtab.batching import collate
from trimtab.errors import BackboneError, TemplateError
from trimtab.registry import families
from trimtab.templates import Template
from trimtab.types import Encoded, Row


def load(folder: Path, **options: Any) -> Any:
    return load_backbone(str(folder), dtype="float32", device="cpu", **options)


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# Positions


def rows(*lengths: int) -> list[Row]:
    return [Row(Encoded((9,) * n, (), (0,))) for n in lengths]


@pytest.mark.parametrize(
    ("side", "expected"),
    [("right", [[2, 3, 4], [2, 1, 1], [2, 3, 1]]), ("left", [[2, 3, 4], [1, 1, 2], [1, 2, 3]])],
)
def test_roberta_numbers_tokens_from_behind_the_pad_on_both_sides(
    side: Any, expected: list[list[int]], tmp_path: Path
) -> None:
    backbone = load(BUILDERS["roberta"](tmp_path))
    batch = collate(rows(3, 1, 2), backbone.pad_id, side)
    assert backbone.pad_id == 1
    assert backbone.family.positions(backbone.model, batch).tolist() == expected
    real = batch.attention_mask.bool()
    own = backbone.model.roberta.embeddings.create_position_ids_from_input_ids(batch.ids, padding_idx=1)
    assert torch.equal(own[real], torch.tensor(expected)[real])


@pytest.mark.parametrize(
    ("kind", "options", "positions"),
    [
        ("bert", {}, 512),
        ("roberta", {"max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ("xlm-roberta", {"max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ("camembert", {"max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ("albert", {}, 512),
        ("electra", {}, 512),
        ("distilbert", {}, 512),
        ("modernbert", {}, 8192),
        ("deberta-v2", {}, 512),
        ("gpt2", {}, 1024),
        ("gpt_neox", {}, 2048),
        ("opt", {}, 2048),
        ("llama", {}, 2048),
        ("t5", {"n_positions": 1024}, 1024),
        ("t5", {}, 512),
        ("mt5", {}, 512),
        ("bart", {}, 1024),
    ],
)
def test_positions_of_the_published_configs(kind: str, options: dict[str, int], positions: int) -> None:
    config = transformers.AutoConfig.for_model(kind, **options)
    assert families.build({"kind": kind}).max_positions(config) == positions


# Sizes


@pytest.mark.parametrize(("kind", "embedding"), [("albert", 24), ("electra", 16), ("roberta", 32)])
def test_prompts_live_in_the_size_of_the_embeddings(kind: str, embedding: int, tmp_path: Path) -> None:
    backbone = load(BUILDERS[kind](tmp_path))
    assert backbone.embedding_size == embedding
    assert backbone.model.config.hidden_size == 32
    ids = torch.tensor([[5, 6]])
    assert backbone.family.embed(backbone.model, ids).shape == (1, 2, embedding)
    hidden = torch.zeros(1, 1, 32)
    assert backbone.family.vocabulary_features(backbone.model, hidden).shape == (1, 1, embedding)


# Vocabulary


def test_entries_that_only_fill_up_the_vocabulary_are_no_words(tmp_path: Path) -> None:
    folder = BUILDERS["roberta"](tmp_path)
    before = load(folder)
    before.encoder.tokenizer.add_tokens(["madeupword0000", "[unused1]", "blimey"])
    tokens = before.encoder.tokens(before.ordinary_words)
    assert "blimey" in tokens
    assert not {"madeupword0000", "[unused1]", "<s>", "<pad>", "<mask>"} & set(tokens)


# Attention


@pytest.mark.parametrize(("attention", "used"), [("auto", "eager"), ("eager", "eager")])
def test_deberta_takes_the_only_attention_that_it_has(attention: Any, used: str, tmp_path: Path) -> None:
    backbone = load(BUILDERS["deberta-v2"](tmp_path), attention=attention)
    assert backbone.model.config._attn_implementation == used


def test_sdpa_is_refused_where_there_is_none(tmp_path: Path) -> None:
    folder = BUILDERS["deberta-v2"](tmp_path)
    with refused(BackboneError, "eager attention only", where="backbone.attention", fix="auto or eager"):
        load(folder, attention="sdpa")


# Checkpoints without a vocabulary head


TIED = ("gpt2", "opt", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "t5", "bart", "mbart")
TIED_IF_ABSENT = ("mt5", "t5:own_head")
"""Transformers puts the embeddings in place of a head that these lack."""
OWN_HEAD = [n for n in (*BUILDERS, *VARIANTS) if n not in (*TIED, *TIED_IF_ABSENT)]
"""Models whose checkpoints hold a head; the others use their embeddings, so none can be missing."""


@pytest.mark.parametrize("name", TIED)
def test_a_head_that_is_the_embeddings_needs_no_weights_of_its_own(name: str, tmp_path: Path) -> None:
    folder = (BUILDERS | VARIANTS)[name](tmp_path)
    backbone = load(folder)
    assert not any(k.startswith(backbone.family.head_prefix) for k in load_file(folder / "model.safetensors"))
    assert backbone.model.get_output_embeddings().weight is backbone.embedding_weight


@pytest.mark.parametrize("name", TIED_IF_ABSENT)
def test_t5_reads_answers_by_the_head_of_its_checkpoint(name: str, tmp_path: Path) -> None:
    folder = (BUILDERS | VARIANTS)[name](tmp_path)
    backbone = load(folder)
    head = load_file(folder / "model.safetensors")["lm_head.weight"]
    assert not torch.equal(head, backbone.embedding_weight)
    rows, _ = backbone.family.vocabulary_rows(backbone.model, torch.arange(len(head)))
    assert torch.equal(rows, head)
    hidden = torch.ones(1, 1, 32)
    assert torch.equal(backbone.family.vocabulary_features(backbone.model, hidden), hidden)


@pytest.mark.parametrize("name", BUILDERS | VARIANTS)
def test_the_whole_vocabulary_is_the_model_s_own_matrix(name: str, tmp_path: Path) -> None:
    backbone = load((BUILDERS | VARIANTS)[name](tmp_path))
    weight, bias = backbone.family.vocabulary_rows(backbone.model, slice(None))
    by_ids = backbone.family.vocabulary_rows(backbone.model, torch.arange(len(weight)))
    assert torch.equal(weight, by_ids[0])
    assert torch.equal(bias, by_ids[1])
    assert weight.data_ptr() in {p.data_ptr() for p in backbone.model.parameters()}


@pytest.mark.parametrize("name", OWN_HEAD)
def test_a_checkpoint_without_its_head_is_refused(name: str, tmp_path: Path) -> None:
    folder = (BUILDERS | VARIANTS)[name](tmp_path)
    family = families.build({"kind": name.partition(":")[0]})
    path = folder / "model.safetensors"
    weights = load_file(path)
    on_disk = "embed_out" if name == "gpt_neox" else family.head_prefix
    kept = {k: v for k, v in weights.items() if not k.startswith(on_disk)}
    assert 0 < len(kept) < len(weights)
    save_file(kept, path, metadata={"format": "pt"})
    with refused(BackboneError, "has no vocabulary head", where="backbone.model", fix=family.head_advice):
        load(folder)


@pytest.mark.parametrize("name", [n for n in OWN_HEAD if families.get(n.partition(":")[0]).readouts[0] == "cloze"])
def test_every_part_of_the_head_is_missed(name: str, tmp_path: Path) -> None:
    """Whichever weight outside the base model is absent, the others do not make up for it."""
    folder = (BUILDERS | VARIANTS)[name](tmp_path)
    backbone = load(folder)
    family, base = backbone.family, f"{backbone.model.base_model_prefix}."
    path = folder / "model.safetensors"
    weights = load_file(path)
    parts = [k for k in weights if not k.startswith(base)]
    assert len(parts) >= 4
    for part in parts:
        save_file({k: v for k, v in weights.items() if k != part}, path, metadata={"format": "pt"})
        with refused(BackboneError, f"has no vocabulary head ({part} ", where="backbone.model", fix=family.head_advice):
            load(folder)


def test_an_electra_discriminator_is_refused_and_the_generator_is_named(tmp_path: Path) -> None:
    folder = electra(tmp_path, head="ForPreTraining")
    with refused(BackboneError, "has no vocabulary head (gener", where="backbone.model", fix="Use the generator"):
        load(folder)


def test_microsofts_head_under_a_config_that_does_not_know_it_is_refused_until_the_config_says_so(
    tmp_path: Path,
) -> None:
    folder = deberta_v2_own_head(tmp_path)
    change_config(folder, legacy=True)
    with refused(BackboneError, "has no vocabulary head (cls.pred", where="backbone.model", fix='"legacy": false'):
        load(folder)
    change_config(folder, legacy=False)
    assert load(folder).model.config.legacy is False


# Encoder-decoders


@pytest.mark.parametrize("opener", [load_backbone, load_encoder])
@pytest.mark.parametrize("kind", ["t5", "mbart"])
def test_a_checkpoint_that_does_not_say_how_its_decoder_begins_is_refused(
    kind: str, opener: Callable[[str], Any], tmp_path: Path
) -> None:
    folder = BUILDERS[kind](tmp_path)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"decoder_start_token_id": None}))
    what = "does not say what its decoder begins with"
    with refused(BackboneError, what, where="backbone.model", fix='"decoder_start_token_id"'):
        opener(str(folder))


@pytest.mark.parametrize(("attention", "used"), [("auto", "eager"), ("eager", "eager")])
def test_gemma_2_caps_its_attention_and_so_is_eager(attention: Any, used: str, tmp_path: Path) -> None:
    used = f"trimtab_{used}"
    assert load(BUILDERS["gemma2"](tmp_path), attention=attention).model.config._attn_implementation == used


# Families that are not supported


def test_the_first_deberta_is_refused(tmp_path: Path) -> None:
    tokenizer = modernbert_tokenizer()
    config = transformers.DebertaConfig(
        vocab_size=len(tokenizer), hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    transformers.DebertaForMaskedLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaders: list[Callable[[str], Any]] = [load_backbone, load_encoder]
    for loader in loaders:
        what = "is of the family 'deberta', which is not supported"
        with refused(BackboneError, what, where="backbone.model", fix="deberta-v2"):
            loader(str(tmp_path))


def test_a_tokenizer_without_a_mask_token_is_refused_when_a_cloze_is_rendered(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in config.items() if k != "mask_token"}))
    backbone = load(folder)
    assert tiny_bert().config.vocab_size == len(backbone.encoder.tokenizer)
    with refused(TemplateError, "this tokenizer has no mask token for {answer}", where="task.template"):
        Template.parse("{prompt} {text} {answer}", 2).render({"text": "a"}, backbone.encoder, 64, "x")


# Writing


def test_a_backbone_has_no_wishes_for_its_texts(tmp_path: Path) -> None:
    folder = BUILDERS["bart"](tmp_path)
    wishes = {"forced_bos_token_id": 0, "num_beams": 4, "max_length": 142, "no_repeat_ngram_size": 3}
    (folder / "generation_config.json").write_text(json.dumps(wishes))
    kept = load(folder).model.generation_config.to_diff_dict()
    assert not {k: v for k, v in kept.items() if k != "transformers_version"}


@torch.no_grad()
def test_a_decoder_begins_with_vectors_until_its_cache_is_filled(tmp_path: Path) -> None:
    model = load(BUILDERS["t5"](tmp_path)).model
    decoder, ids = model.get_decoder(), torch.tensor([[0, 7, 8, 9]])
    given = torch.randn(1, 2, 32)
    read: list[torch.Tensor] = []
    look = decoder.block[0].register_forward_pre_hook(lambda module, inputs: read.append(inputs[0]))
    states = torch.randn(1, 3, 32)
    with begun_with(decoder, given):
        cache = decoder(input_ids=ids[:, :2], encoder_hidden_states=states, use_cache=True).past_key_values
        decoder(input_ids=ids[:, 2:3], encoder_hidden_states=states, past_key_values=cache, use_cache=True)
        decoder(input_ids=ids, encoder_hidden_states=states, use_cache=False)
    decoder(input_ids=ids, encoder_hidden_states=states, use_cache=False)
    with begun_with(decoder, None):
        decoder(input_ids=ids, encoder_hidden_states=states, use_cache=False)
    look.remove()
    own = decoder.embed_tokens(ids)
    expected = [given, own[:, 2:3], torch.cat([given, own[:, 2:]], 1), own, own]
    assert len(read) == len(expected)
    for found, wanted in zip(read, expected, strict=True):
        assert torch.equal(found, wanted)
    with pytest.raises(ZeroDivisionError), begun_with(decoder, given):
        raise ZeroDivisionError
    assert not decoder._forward_pre_hooks
