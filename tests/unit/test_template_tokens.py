"""Tokens of templates: which field owns one, and which are cut."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings

from tests.unit.refusals import refused
from tests.unit.test_templates import ENCODER, FIELD_TEXT, render, words
from trimtab.errors import TemplateError
from trimtab.templates import Template
from trimtab.text_encoder import TextEncoder


def test_a_token_that_spans_a_border_belongs_to_the_field_where_it_ends() -> None:
    assert words(e := render("{prompt}un{text} {answer}", text="good"), e.eligible)[-1].endswith("d")
    inside = render("{prompt}{text}s {answer}", text="cat")
    assert words(inside)[3:5] == ["cat", "##s"]
    assert inside.eligible == (3,)
    merged = render("{prompt}s{text} {answer}", text="ad")
    assert words(merged)[3:-2] == ["sad"]
    assert merged.eligible == (3,)
    swallowed = render("{prompt}{text}d {answer}", text="sa")
    assert words(swallowed)[3:-2] == ["sad"]
    assert swallowed.eligible == ()


@settings(max_examples=80, deadline=None)
@given(FIELD_TEXT.filter(lambda t: bool(t.strip())))
def test_eligible_tokens_are_exactly_those_of_the_field(text: str) -> None:
    e = render("{prompt} the {text} . {answer}", text=text, limit=10**6)
    alone = ENCODER.encode(text.strip()).ids
    assert [e.ids[i] for i in e.eligible] == alone


# Truncation


def test_truncation_cuts_the_end_of_the_field_and_nothing_else() -> None:
    e = render("{prompt} {text} is {answer}.", limit=10, text="one two three four five six seven")
    assert words(e) == ["[CLS]", "[UNK]", "[UNK]", "one", "two", "three", "is", "[MASK]", ".", "[SEP]"]
    assert e.dropped == 4


def test_the_longest_field_is_cut_first() -> None:
    e = render("{prompt}{a},{b}{answer}", limit=11, a="one two three four five six", b="cat dog")
    assert words(e, e.eligible) == ["one", "two", "three", "cat", "dog"]


def test_equal_fields_are_cut_evenly() -> None:
    e = render("{prompt}{a},{b}{answer}", limit=10, a="one two three four", b="cat dog bird tree")
    assert words(e, e.eligible) == ["one", "two", "cat", "dog"]


def test_truncate_names_the_only_fields_that_may_be_cut_in_order() -> None:
    fields = {"a": "one two three", "b": "cat dog bird", "c": "red green"}
    e = render("{prompt}{a},{b},{c}{answer}", limit=12, truncate=["b", "a"], **fields)
    assert words(e, e.eligible) == ["one", "two", "cat", "red", "green"]
    with refused(TemplateError, "needs at least 11 positions", where="row 1", fix="task.truncate"):
        render("{prompt}{a},{b},{c}{answer}", limit=10, truncate=["b", "a"], **fields)


def test_a_field_named_twice_in_truncate_is_cut_once() -> None:
    e = render("{prompt}{a}{answer}", limit=7, truncate=["a", "a"], a="one two three four five")
    assert words(e, e.eligible) == ["one", "two"]


def test_an_example_that_fits_exactly_is_not_cut() -> None:
    assert render("{prompt}{text}{answer}", limit=7, text="one two").dropped == 0
    assert render("{prompt}{text}{answer}", limit=6, text="one two").dropped == 1


def test_an_example_whose_slots_and_literals_do_not_fit_is_refused() -> None:
    template = Template.parse("{prompt} very very {text} {answer}.", 4)
    with refused(TemplateError, "at least 11 positions", where="t.csv:7", fix="Shorten the prompt or the template"):
        template.render({"text": "one two three"}, ENCODER, 10, "t.csv:7")
    assert len(template.render({"text": "one two three"}, ENCODER, 11, "t.csv:7")) == 11


def test_very_long_text_is_cut_without_a_warning() -> None:
    e = render("{prompt}{text}{answer}", text="one two three " * 5000)
    assert (len(e), e.dropped) == (64, 15000 - 59)


# Byte-level tokenizers, whose pieces begin with the space before their word


@pytest.fixture
def gpt2(shared: Path) -> TextEncoder:
    folder = shared / "models/tokenizers/gpt2"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    from transformers import AutoTokenizer

    return TextEncoder(AutoTokenizer.from_pretrained(folder))


@pytest.mark.shared
def test_a_byte_level_tokenizer_has_no_mask_token(gpt2: TextEncoder) -> None:
    with refused(TemplateError, "this tokenizer has no mask token for {answer}", where="task.template"):
        Template.parse("{prompt} {text} {answer}", 2).render({"text": "x"}, gpt2, 64, "x")


@pytest.mark.shared
@pytest.mark.parametrize(
    "text", ["a fine movie", "é😀 中文 x", "<|endoftext|> no", "x" * 300, "  tabs\t\tand\nlines  "]
)
def test_a_piece_with_a_leading_space_belongs_to_the_word_s_field(gpt2: TextEncoder, text: str) -> None:
    gpt2.mask_id = 0
    e = Template.parse("{prompt} Review: {text} Great? {answer}", 2).render({"text": text}, gpt2, 10**6, "x")
    stripped = text.strip()
    assert [e.ids[i] for i in e.eligible] == gpt2.encode(" " + stripped).ids
    assert gpt2.tokenizer.decode([e.ids[i] for i in e.eligible]) == " " + stripped
    literals = [gpt2.tokenizer.decode([t]) for i, t in enumerate(e.ids) if i not in e.eligible and i not in e.slots]
    assert literals[:3] == ["Review", ":", " Great"]
    assert gpt2.tokenizer.eos_token_id not in [e.ids[i] for i in e.eligible]


@pytest.mark.shared
def test_every_byte_of_a_field_is_cut_before_any_literal(gpt2: TextEncoder) -> None:
    gpt2.mask_id = 0
    template = Template.parse("{prompt} Review: {text} Great? {answer}", 2)
    whole = template.render({"text": "😀" * 50}, gpt2, 10**6, "x")
    fixed = len(whole) - len(whole.eligible)
    assert len(template.render({"text": "😀" * 50}, gpt2, fixed + 1, "x").eligible) == 1
    with refused(TemplateError, f"at least {fixed + 1} positions", where="x", fix="Shorten"):
        template.render({"text": "😀" * 50}, gpt2, fixed, "x")
