"""Tokenizers from a lone tokenizer.model: the ids of SentencePiece itself, on models trained here in a second."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tests.contract.tiny_families import GROUPED, build, sentencepiece_bpe
from tests.tiny import WORDS
from tests.unit.refusals import refused
from trimtab.backbones import load_backbone
from trimtab.backbones.loading import load_encoder
from trimtab.backbones.sentencepiece import SentencePieceModel, load_tokenizer
from trimtab.errors import BackboneError
from trimtab.text_encoder import TextEncoder

spm = pytest.importorskip("sentencepiece", reason="compares with the package sentencepiece, which is not installed")

LIKE_LLAMA = {
    "byte_fallback": True, "normalization_rule_name": "identity", "remove_extra_whitespaces": False,
    "allow_whitespace_only_pieces": True, "split_digits": True,
}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "like Llama": LIKE_LLAMA,
    "like OpenLLaMA": {"byte_fallback": True},
    "stripped": {**LIKE_LLAMA, "remove_extra_whitespaces": True},
    "without bytes": {"character_coverage": 0.99},
    "like Gemma": {**LIKE_LLAMA, "add_dummy_prefix": False, "user_defined_symbols": ["<sep>", "\n\n", "[a.b]", "[a"]},
    "symbols of its own": {**LIKE_LLAMA, "user_defined_symbols": ["<sep>", "▁▁"], "control_symbols": ["[INST]"]},
}


def trained(**options: Any) -> bytes:
    """A SentencePiece model of a few hundred pieces."""
    draw = random.Random(0)
    words = [*WORDS, "banana", "lolol", "aaaa", "naïve", "ﬁne", "日本語", "1234", "  ", "Ⅳ"]
    lines = [" ".join(draw.choices(words, k=12)) for _ in range(300)]
    model = io.BytesIO()
    settled = {"model_type": "bpe", "vocab_size": 420, "hard_vocab_limit": False, "num_threads": 1, "minloglevel": 2}
    spm.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=model, **{**settled, **options})
    return model.getvalue()


def written(folder: Path, model: bytes, name: str = "tokenizer.model", **config: Any) -> str:
    """A checkpoint's folder, without weights."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(model)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return str(folder)


class Pair:
    """SentencePiece and our tokenizer of the same file."""

    def __init__(self, folder: str) -> None:
        self.theirs = spm.SentencePieceProcessor(str(Path(folder) / "tokenizer.model"))
        self.tokenizer = load_tokenizer(folder)
        self.ours = TextEncoder(self.tokenizer)

    def check(self, text: str) -> None:
        """The same ids for a text, and spans that lie in it, in order."""
        expected = self.theirs.encode(text)
        plain = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
        assert self.tokenizer(text, **plain)["input_ids"] == expected
        pieces = self.ours.encode(text)
        if not text.startswith(" "):
            assert pieces.ids == expected
        assert len(pieces.spans) == len(pieces.ids)
        assert all(0 <= start <= stop <= len(text) for start, stop in pieces.spans)
        assert [a for a, _ in pieces.spans] == sorted(a for a, _ in pieces.spans)
        read = {i for start, stop in pieces.spans for i in range(start, stop)}
        assert all(text[i] in " ▁" for i in set(range(len(text))) - read if not self.normalizes)

    @property
    def normalizes(self) -> bool:
        """Characters may vanish."""
        return self.tokenizer.backend_tokenizer.normalizer[0].__class__.__name__ == "Precompiled"


@pytest.fixture(scope="module", params=MODELS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(written(tmp_path_factory.mktemp("spm"), trained(**MODELS[request.param])))


STRETCHES = st.one_of(
    st.sampled_from(
        [*WORDS, "banana", "lolol", "ﬁne", "<sep>", "\n\n", "[a.b]", "[ab", "[INST]", "<s>", "<0x41>", "日本"]
    ),
    st.text(alphabet="aabno 'é\n\t1▁€", min_size=1, max_size=8),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=4),
)
TEXTS = st.builds(str.join, st.sampled_from(["", " ", "  "]), st.lists(STRETCHES, max_size=8))


@settings(max_examples=150, deadline=None)
@given(text=TEXTS)
@example(text="")
@example(text=" ")
@example(text="   the  cat   ")
@example(text="the\n cat \n")
@example(text="aaaaaaa banananana lololol")
@example(text="[a.b][ab [a.b]")
@example(text="<s>[INST]<sep><0x41></s>")
def test_ids_are_those_of_sentencepiece(pair: Pair, text: str) -> None:
    pair.check(text)


def test_behind_other_text_a_text_has_the_pieces_that_it_has_there(pair: Pair) -> None:
    """SentencePiece would put a second space before one that begins with a space."""
    before, whole = pair.theirs.encode("the"), pair.theirs.encode("the good cat")
    pieces = pair.ours.encode(" good cat")
    assert [*before, *pieces.ids] == whole
    assert pieces.spans[-1][1] == len(" good cat")


def test_a_text_of_one_space_is_no_piece_where_the_space_is_put_anyway(tmp_path: Path) -> None:
    assert Pair(written(tmp_path, trained(**LIKE_LLAMA))).ours.encode(" ").ids == []


def test_text_comes_back(pair: Pair) -> None:
    text = "the old cat, 12 birds"
    assert pair.tokenizer.decode(pair.tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    assert pair.tokenizer.decode(pair.tokenizer("naïve")["input_ids"], skip_special_tokens=True) in (
        "naïve",
        "na<unk>ve",
    )


# Special tokens


def test_a_text_begins_with_bos_where_nothing_else_is_said(pair: Pair) -> None:
    assert (pair.ours.prefix, pair.ours.suffix, pair.ours.mask_id, pair.ours.unk_id) == ((1,), (), None, 0)
    assert pair.tokenizer.convert_ids_to_tokens([0, 1, 2]) == ["<unk>", "<s>", "</s>"]
    assert set(pair.tokenizer.all_special_ids) >= {0, 1, 2}
    assert pair.tokenizer.pad_token is None
    assert len(pair.tokenizer) == pair.theirs.vocab_size()


def test_tokenizer_config_has_the_last_word(tmp_path: Path) -> None:
    folder = written(tmp_path, trained(**LIKE_LLAMA), add_bos_token=False, add_eos_token=True, pad_token="</s>")
    encoder = TextEncoder(load_tokenizer(folder))
    assert (encoder.prefix, encoder.suffix, encoder.tokenizer.pad_token_id) == ((), (2,), 2)


def test_a_model_without_bos_begins_with_nothing(tmp_path: Path) -> None:
    encoder = TextEncoder(load_tokenizer(written(tmp_path, trained(**LIKE_LLAMA, bos_id=-1))))
    assert (encoder.prefix, encoder.tokenizer.bos_token) == ((), None)


def test_a_pad_of_the_model_is_the_tokenizer_s(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(written(tmp_path, trained(**LIKE_LLAMA, pad_id=3)))
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("<pad>", 3)


def test_control_tokens_are_read_as_such_only_where_asked(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(written(tmp_path, trained(**MODELS["symbols of its own"])))
    inst = tokenizer.convert_tokens_to_ids("[INST]")
    assert inst in tokenizer("[INST] the cat")["input_ids"]
    assert inst not in TextEncoder(tokenizer).encode("[INST] the cat").ids


# Which file is read


def test_a_tokenizer_json_is_preferred(tmp_path: Path) -> None:
    folder = written(tmp_path, trained(**LIKE_LLAMA))
    other = sentencepiece_bpe("LlamaTokenizer", ["<unk>", "<s>", "</s>"])
    other.save_pretrained(folder)
    assert len(load_tokenizer(folder)) == len(other)


def test_the_saved_tokenizer_is_the_same_one(pair: Pair, tmp_path: Path) -> None:
    pair.tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(again, PreTrainedTokenizerFast)
    assert again("the cat  é 12")["input_ids"] == pair.tokenizer("the cat  é 12")["input_ids"]


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    whole = trained(**LIKE_LLAMA)
    for damaged in (whole[:-3], whole[:100], b"\n\x03\n\x7fx", b"\n\x02\x08\x01", b"\n\x80"):
        folder = written(tmp_path, damaged)
        what = f"tokenizer.model in {folder!r} is no complete SentencePiece model"
        with refused(BackboneError, what, where="backbone.model", fix="Fetch the file again"):
            load_encoder(folder)


OTHERS = {"unigram": {"model_type": "unigram", "vocab_size": 150}, "suffixes": {"treat_whitespace_as_suffix": True}}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("name", ["tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "spm.model"])
def test_other_models_need_transformers_own_conversion(
    name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = written(tmp_path, trained(**OTHERS[kind]), name)
    monkeypatch.setattr("transformers.utils.is_protobuf_available", lambda: False)
    with refused(BackboneError, f"vocabulary as {name} only", where="backbone.model", fix="Install sentencepiece and"):
        load_encoder(folder)
    monkeypatch.setattr("transformers.utils.is_protobuf_available", lambda: True)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda place, **options: (place, options))
    assert load_tokenizer(folder) == (folder, {"trust_remote_code": False})


def test_a_file_of_tiktoken_with_the_same_name_is_not_read_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = written(tmp_path, b"IQ== 0\nIg== 1\n")
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda place, **options: place)
    assert load_tokenizer(folder) == folder


def test_fields_of_every_wire_type_are_read(tmp_path: Path) -> None:
    piece = b"\n\x01a" + b"\x15\x00\x00\x80\xbf" + b"\x18\x01" + b"\x21" + bytes(8)
    spec = b"\x18\x02" + b"\xd8\x02" + b"\xff" * 9 + b"\x01"
    path = tmp_path / "tokenizer.model"
    path.write_bytes(b"\n" + bytes([len(piece)]) + piece + b"\x12" + bytes([len(spec)]) + spec)
    model = SentencePieceModel.read(path)
    assert model.pieces == (("a", -1.0, 1),)
    assert model.trainer == {3: 2, 43: -1}
    assert model.special == {"unk_token": "a"}


# A backbone with such a tokenizer


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("llama")
    encoder = load_tokenizer(written(folder, trained(**LIKE_LLAMA)))
    build("Llama", encoder, "ForCausalLM", **GROUPED).save_pretrained(folder)
    return str(folder)


def test_a_backbone_is_loaded_with_it(llama: str) -> None:
    backbone = load_backbone(llama, dtype="float32", device="cpu")
    assert backbone.encoder.encode("the cat").ids == load_encoder(llama).encoder.encode("the cat").ids
    assert backbone.pad_id == 0
    again = load_backbone(llama, dtype="float32", device="cpu")
    assert backbone.tokenizer_fingerprint == again.tokenizer_fingerprint


def test_single_bytes_are_no_words(llama: str) -> None:
    backbone = load_backbone(llama, dtype="float32", device="cpu")
    words = backbone.encoder.tokens(backbone.ordinary_words)
    assert "▁cat" in words
    assert not any(w.startswith("<") for w in words)


# The genuine model


@pytest.fixture(scope="module")
def stories(shared: Path) -> Pair:
    folder = shared / "models/stories260k"
    if not folder.is_dir():
        pytest.skip("needs models/stories260k in the data folder beside the repository")
    return Pair(str(folder))


@pytest.mark.shared
@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
@example(text="Once upon a time, there was a little girl named Lily.")
def test_ids_of_stories260k_are_those_of_sentencepiece(stories: Pair, text: str) -> None:
    stories.check(text)


@pytest.mark.shared
def test_special_tokens_of_stories260k(stories: Pair) -> None:
    assert (stories.ours.prefix, stories.ours.suffix, len(stories.tokenizer)) == ((1,), (), 512)
    assert stories.tokenizer.pad_token is None
