"""Label words and answer slots under the tokenizers of the families: byte-level BPE, SentencePiece, WordPiece.

The tiny tokenizers have the classes of the published ones; those beside the repository are the real vocabularies of
GPT-2 (RoBERTa's, but for the special tokens) and T5 (a unigram model, as XLM-R, ALBERT and DeBERTa-v3 have).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken
from transformers import AlbertTokenizer, AutoTokenizer, DebertaV2Tokenizer, RobertaTokenizer, XLMRobertaTokenizer

from tests.contract.tiny_families import BUILDERS
from tests.unit.refusals import refused
from trimtab.errors import TemplateError
from trimtab.registry import families
from trimtab.templates import Template
from trimtab.text_encoder import TextEncoder
from trimtab.verbalizers import Verbalizer

WORDS = Verbalizer.of({"positive": "great", "negative": "terrible"})
TEMPLATE = "{prompt:2} {text} It was {answer}."


def shown(encoder: TextEncoder, template: str, length: int = 2, **fields: str) -> list[str]:
    """The tokens of a rendered example, slots as P."""
    encoded = Template.parse(template, length).render(fields, encoder, 512, "x")
    tokens = encoder.tokens(encoded.ids)
    return ["P" if i in encoded.slots else token for i, token in enumerate(tokens)]


def vocabulary_folder(shared: Path, name: str) -> Path:
    folder = shared / "models/tokenizers" / name
    if not folder.is_dir():
        pytest.skip(f"needs the {name} tokenizer in models/tokenizers of the data folder")
    return folder


@pytest.fixture
def roberta(shared: Path) -> TextEncoder:
    """RoBERTa's tokenizer: GPT-2's pieces between RoBERTa's special tokens."""
    folder = vocabulary_folder(shared, "gpt2")
    pieces = json.loads((folder / "vocab.json").read_text())
    pieces.pop("<|endoftext|>")
    table = {t: i for i, t in enumerate(["<s>", "<pad>", "</s>", "<unk>", *sorted(pieces, key=pieces.__getitem__)])}
    table["<mask>"] = len(table)
    lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    merges = [(a, b) for a, b in (line.split() for line in lines if line)]
    mask = AddedToken("<mask>", lstrip=True, special=True)
    return TextEncoder(RobertaTokenizer(vocab=table, merges=merges, mask_token=mask))


UNIGRAM: dict[str, tuple[Any, list[str]]] = {
    "xlm-roberta": (XLMRobertaTokenizer, ["<s>", "<pad>", "</s>", "<unk>"]),
    "albert": (AlbertTokenizer, ["<pad>", "<unk>", "[CLS]", "[SEP]"]),
    "deberta-v2": (DebertaV2Tokenizer, ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]),
}


@pytest.fixture(params=UNIGRAM)
def sentencepiece(shared: Path, request: pytest.FixtureRequest) -> TextEncoder:
    """T5's pieces under the tokenizer classes of the families."""
    folder = vocabulary_folder(shared, "t5")
    pieces = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    kind, specials = UNIGRAM[request.param]
    mask = "<mask>" if "<s>" in specials else "[MASK]"
    ordinary = [(t, score) for t, score in pieces if not (t.startswith("<") and t.endswith(">"))]
    return TextEncoder(kind(vocab=[*((s, 0.0) for s in specials), *ordinary, (mask, 0.0)]))


# Byte-level BPE


@pytest.mark.shared
def test_roberta_reads_the_word_after_a_space_where_the_answer_follows_one(roberta: TextEncoder) -> None:
    ids = WORDS.encode(roberta, spaced=Template.parse(TEMPLATE, 2).answer_is_spaced)
    assert roberta.tokens([i for ((i,),) in ids]) == ["Ġgreat", "Ġterrible"]
    unspaced = Verbalizer.of({"a": "great", "b": "bad"}).encode(roberta, spaced=False)
    assert roberta.tokens([i for ((i,),) in unspaced]) == ["great", "bad"]


@pytest.mark.shared
def test_roberta_sees_no_lone_space_before_the_answer_as_in_its_pretraining(roberta: TextEncoder) -> None:
    tokens = shown(roberta, TEMPLATE, text="A fine film.")
    assert tokens == ["<s>", "P", "P", "A", "Ġfine", "Ġfilm", ".", "ĠIt", "Ġwas", "<mask>", ".", "</s>"]
    own = roberta.tokenizer("A fine film. It was <mask>.")["input_ids"]
    assert [t for t in tokens if t != "P"] == roberta.tokens(own)


@pytest.mark.shared
def test_a_space_before_slots_or_the_end_is_no_piece_either(roberta: TextEncoder) -> None:
    tokens = shown(roberta, "{text} {prompt:1} It was {answer} ({prompt:1}) ", text="Fine.")
    assert tokens == ["<s>", "Fine", ".", "P", "ĠIt", "Ġwas", "<mask>", "Ġ(", "P", ")", "</s>"]
    newline = shown(roberta, "{prompt:2} {text}\n{answer}", text="Fine.")
    assert newline == ["<s>", "P", "P", "Fine", ".", "<mask>", "</s>"]


@pytest.mark.shared
def test_a_word_of_several_byte_level_pieces_follows_a_space_with_its_first(roberta: TextEncoder) -> None:
    ((great,), (word,)) = Verbalizer.of({"a": "great", "b": "lacklustre"}).encode(roberta, spaced=True)
    assert roberta.tokens(great) == ["Ġgreat"]
    assert roberta.tokens(word) == ["Ġlack", "lust", "re"]


# SentencePiece


@pytest.mark.shared
def test_a_sentencepiece_word_is_the_same_with_and_without_a_space(sentencepiece: TextEncoder) -> None:
    for spaced in (True, False):
        ids = WORDS.encode(sentencepiece, spaced=spaced)
        assert sentencepiece.tokens([i for ((i,),) in ids]) == ["▁great", "▁terrible"]


@pytest.mark.shared
def test_a_sentencepiece_sees_no_lone_space_before_the_answer(sentencepiece: TextEncoder) -> None:
    tokens = shown(sentencepiece, TEMPLATE, text="a fine film")
    at = tokens.index(sentencepiece.tokenizer.mask_token)
    assert tokens[at - 1] == "▁was"
    assert tokens[1:3] == ["P", "P"]
    assert "▁film" in tokens


@pytest.mark.shared
@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_a_tokenizer_without_a_mask_token_is_refused(name: str, shared: Path) -> None:
    encoder = TextEncoder(AutoTokenizer.from_pretrained(vocabulary_folder(shared, name)))
    with refused(TemplateError, "this tokenizer has no mask token for {answer}", where="task.template"):
        shown(encoder, TEMPLATE, text="a")


# The tiny tokenizers, which have the classes of the published ones


MASKED = [kind for kind in BUILDERS if "cloze" in families.get(kind).readouts]


@pytest.mark.parametrize("kind", MASKED)
def test_between_its_special_tokens_a_template_is_the_text_that_the_tokenizer_makes_of_it(
    kind: str, tmp_path: Path
) -> None:
    encoder = TextEncoder(AutoTokenizer.from_pretrained(BUILDERS[kind](tmp_path)))
    tokens = shown(encoder, "{prompt:2} {text} it was {answer}", text="the old film")
    mask, (start, *_, end) = encoder.tokenizer.mask_token, encoder.tokenizer("a").tokens()
    words = encoder.tokenizer("the old film it was", add_special_tokens=False).tokens()
    assert tokens == [start, "P", "P", *words, mask, end]


@pytest.mark.parametrize("kind", BUILDERS)
def test_label_words_are_single_pieces_after_a_space(kind: str, tmp_path: Path) -> None:
    encoder = TextEncoder(AutoTokenizer.from_pretrained(BUILDERS[kind](tmp_path)))
    ids = Verbalizer.of({"a": "yes", "b": "no"}).encode(encoder, spaced=True)
    assert [token.lstrip("Ġ▁") for token in encoder.tokens([i for ((i,),) in ids])] == ["yes", "no"]
