"""Verbalizers: label words and their token ids."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny import tiny_tokenizer
from tests.unit.refusals import refused
from trimtab.errors import ConfigError, TemplateError
from trimtab.text_encoder import TextEncoder
from trimtab.verbalizers import Verbalizer

ENCODER = TextEncoder(tiny_tokenizer())


def ids(*words: str) -> list[tuple[int, ...]]:
    """The tokens of each word, its pieces joined by spaces."""
    return [tuple(ENCODER.tokenizer.convert_tokens_to_ids(word.split())) for word in words]


def test_one_word_or_several_per_class_in_the_given_order() -> None:
    v = Verbalizer.of({"b": ["good", "great"], "a": "bad"})
    assert (v.classes, v.words) == (("b", "a"), (("good", "great"), ("bad",)))
    assert v.encode(ENCODER, spaced=True) == [ids("good", "great"), ids("bad")]


@pytest.mark.parametrize("words", [{}, {"a": "good"}])
def test_fewer_than_two_classes_are_refused(words: dict[str, str]) -> None:
    with refused(ConfigError, f"at least two classes are needed, got {list(words)}", where="task.label_words"):
        Verbalizer.of(words)


@pytest.mark.parametrize("words", [[], "", " ", ["good", ""]])
def test_a_class_without_words_is_refused(words: list[str] | str) -> None:
    with refused(ConfigError, "a class needs at least one label word", where="task.label_words.b"):
        Verbalizer.of({"a": "yes", "b": words})


def test_a_word_of_two_classes_is_refused() -> None:
    with refused(ConfigError, "the word 'good' stands for both 'a' and 'b'", where="task.label_words.b"):
        Verbalizer.of({"a": ["yes", "good"], "b": "good"})


@pytest.mark.parametrize(("word", "pieces"), [("goodx", "good ##x"), ("good bad", "good bad"), ("good!", "good !")])
def test_a_word_may_have_several_pieces(word: str, pieces: str) -> None:
    assert Verbalizer.of({"a": "yes", "b": word}).encode(ENCODER, spaced=True) == [ids("yes"), ids(pieces)]


@pytest.mark.parametrize("word", ["中", "€", "é😀", "good 中", "[MASK]"])
def test_a_word_that_the_tokenizer_cannot_produce_is_refused(word: str) -> None:
    what = f"the tokenizer cannot produce the label word {word!r}; it becomes the unknown token"
    with refused(TemplateError, what, where="task.label_words.b", fix="Choose another word"):
        Verbalizer.of({"a": "yes", "b": word}).encode(ENCODER, spaced=True)


def test_words_of_two_classes_that_the_tokenizer_confuses_are_refused() -> None:
    what = "the label word 'GOOD' has the same tokens as a word of class 'a'"
    with refused(TemplateError, what, where="task.label_words.b"):
        Verbalizer.of({"a": "good", "b": "GOOD"}).encode(ENCODER, spaced=True)


def test_a_word_of_no_pieces_is_refused() -> None:
    what = "the tokenizer cannot produce the label word '\\u200b'; it becomes nothing"
    with refused(TemplateError, what, where="task.label_words.b", fix="Choose another word"):
        Verbalizer.of({"a": "yes", "b": "\u200b"}).encode(ENCODER, spaced=False)


@pytest.mark.shared
def test_byte_level_label_words_follow_the_space_before_the_answer(shared: Path) -> None:
    folder = shared / "models/tokenizers/gpt2"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    from transformers import AutoTokenizer

    encoder = TextEncoder(AutoTokenizer.from_pretrained(folder))
    v = Verbalizer.of({"a": "good", "b": "bad"})
    assert encoder.tokens([i for ((i,),) in v.encode(encoder, spaced=True)]) == ["Ġgood", "Ġbad"]
    assert encoder.tokens([i for ((i,),) in v.encode(encoder, spaced=False)]) == ["good", "bad"]


def test_free_text_has_no_classes() -> None:
    assert Verbalizer.free().is_free
    assert Verbalizer.free().classes == ()
    assert not Verbalizer.of({"a": "x", "b": "y"}).is_free
    assert Verbalizer.free().class_of("anything") is None


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("True", "yes"),
        ("true.", "yes"),
        (" right ", "yes"),
        ("False!", "no"),
        ("it is true", None),
        ("", None),
        ("US", "country"),
        ("us", "we"),
        ("Us.", None),
        ("the cat", "country"),
        ("The Cat", None),
        ("cat", "we"),
        ("?", "doubt"),
        ("!", None),
    ],
)
def test_a_written_answer_names_a_class(text: str, label: str | None) -> None:
    words = {"yes": ["True", "right"], "no": "False", "country": ["US", "the cat"], "we": ["us", "cat"], "doubt": "?"}
    assert Verbalizer.of(words).class_of(text) == label
