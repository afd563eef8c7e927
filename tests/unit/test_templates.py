"""Templates: parsing and rendering."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract.tiny_families import byte_level, unigram
from tests.tiny import SPECIALS, WORDS, tiny_tokenizer
from tests.unit.refusals import refused
from trimtab.errors import TemplateError
from trimtab.templates import Template
from trimtab.text_encoder import TextEncoder
from trimtab.types import Encoded, Fill

ENCODER = TextEncoder(tiny_tokenizer())
CLS, SEP, MASK, UNK = (ENCODER.tokenizer.convert_tokens_to_ids(t) for t in ("[CLS]", "[SEP]", "[MASK]", "[UNK]"))
ODD_TEXTS = [
    "größe naïve",
    "中文 テキスト",
    "привет мир",
    "مرحبا",
    "😀👩‍👩‍👧 good",
    "e\u0301 a\u0300",
    "\u200b good",
    "good\x00bad",
    "\ufffd",
]


def shape(source: str, length: int = 2) -> list[tuple[str, str | int]]:
    return [(p.kind, p.count or p.value) for p in Template.parse(source, length).pieces]


def render(source: str, length: int = 2, limit: int = 64, truncate: list[str] | None = None, **fields: str) -> Encoded:
    return Template.parse(source, length, truncate or []).render(fields, ENCODER, limit, "row 1")


def words(encoded: Encoded, at: tuple[int, ...] | None = None) -> list[str]:
    ids = encoded.ids if at is None else [encoded.ids[i] for i in at]
    return ENCODER.tokens(ids)


# Parsing


def test_pieces_in_their_order() -> None:
    assert shape("{prompt:1} {a} Question: {b}?{sep}{prompt:1}{answer}.") == [
        ("prompt", 1), ("text", " "), ("field", "a"), ("text", " Question: "), ("field", "b"), ("text", "?"),
        ("sep", ""), ("prompt", 1), ("answer", ""), ("text", "."),
    ]  # fmt: skip


def test_a_bare_prompt_slot_takes_the_whole_length() -> None:
    assert shape("{prompt}{text}{answer}", 7)[0] == ("prompt", 7)


def test_doubled_braces_are_literal_and_join_their_text() -> None:
    assert shape("{prompt}{{a}} {{{text}}} }} {{ {answer}") == [
        ("prompt", 2), ("text", "{a} {"), ("field", "text"), ("text", "} } { "), ("answer", ""),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["prompt", "decoder_prompt", "answer", "sep"])
def test_a_column_called_like_a_piece_is_written_with_field(name: str) -> None:
    assert Template.parse(f"{{prompt}}{{field:{name}}}{{answer}}", 2).fields == [name]


@pytest.mark.parametrize(
    "name", ["Customer message", "größe", "a:b", "field", "a.b", "Prompt", "2nd", "x-y/z", "a'b\"c", "中文"]
)
def test_odd_column_names_are_fields(name: str) -> None:
    assert Template.parse(f"{{prompt}} {{{name}}} {{answer}}", 2).fields == [name]


def test_fields_are_listed_once_in_order_of_appearance() -> None:
    assert Template.parse("{prompt}{b}{a}{b}{answer}", 2).fields == ["b", "a"]


def test_white_space_inside_braces_is_ignored() -> None:
    assert shape("{ prompt : 2 }{ text }{ answer }") == [("prompt", 2), ("field", "text"), ("answer", "")]


@pytest.mark.parametrize(
    ("source", "spaced"),
    [("{prompt}{text} {answer}", True), ("{prompt}{text}\n{answer}", True), ("{prompt}{text}{answer}", False),
     ("{prompt}{text} is ({answer})", False), ("{answer}{prompt}{text}", False), ("{text} {prompt}{answer}", False)],
)  # fmt: skip
def test_answer_is_spaced_where_white_space_stands_right_before_it(source: str, spaced: bool) -> None:
    assert Template.parse(source, 2).answer_is_spaced is spaced


@pytest.mark.parametrize(
    ("source", "what", "fix"),
    [
        ("{prompt}{text}", "exactly one answer slot, got 0", "Write {answer} where"),
        ("{prompt}{text}{answer}{answer}", "exactly one answer slot, got 2", "Write {answer} where"),
        ("{text}{answer}", "there is no prompt slot", "Write {prompt} where"),
        ("", "there is no prompt slot", "Write {prompt} where"),
        ("{prompt:1}{prompt}{text}{answer}", "it must be the only slot", "{prompt:3} ... {prompt:2}"),
        ("{prompt}{prompt}{text}{answer}", "it must be the only slot", "Number all slots"),
        ("{prompt:3}{text}{answer}", "the slots sum to 3, prompt.length is 2", "Set prompt.length=3"),
        ("{prompt:1}{text}{answer}", "the slots sum to 1, prompt.length is 2", "Set prompt.length=1"),
        ("{prompt:2}{text}{prompt:2}{answer}", "the slots sum to 4, prompt.length is 2", "Set prompt.length=4"),
        ("{prompt:0}{text}{answer}", "N of at least 1, got {prompt:0}", None),
        ("{prompt:-1}{text}{answer}", "N of at least 1, got {prompt:-1}", None),
        ("{prompt:}{text}{answer}", "N of at least 1, got {prompt:}", None),
        ("{prompt:two}{text}{answer}", "N of at least 1, got {prompt:two}", None),
        ("{prompt}{answer}", "there is no field such as {text}", None),
        ("{prompt}{}{answer}", "there are empty braces", None),
        ("{prompt}{ }{answer}", "there are empty braces", None),
        ("{prompt}{field:}{answer}", "there are empty braces", None),
        ("{prompt}{text", "a lone '{' at character 9 of '{prompt}{text'", "Write {{ or }}"),
        ("{prompt}text}", "a lone '}' at character 13", "Write {{ or }}"),
        ("{prompt}{te{xt}}{answer}", "a lone '{' at character 9", "Write {{ or }}"),
        ("{prompt}{text}}{answer}", "a lone '}' at character 15", "Write {{ or }}"),
    ],
)
def test_a_malformed_template_is_refused(source: str, what: str, fix: str | None) -> None:
    with refused(TemplateError, what, where="task.template", fix=fix):
        Template.parse(source, 2).check_answer()


def test_a_truncate_entry_that_is_no_field_is_refused_with_suggestion() -> None:
    with refused(TemplateError, "'txt' is not a field", where="task.truncate", fix="Did you mean 'text'?"):
        Template.parse("{prompt}{text}{answer}", 2, ["txt"])


def test_an_unknown_field_is_refused_with_suggestion() -> None:
    template = Template.parse("{prompt}{txt}{answer}", 2)
    with refused(
        TemplateError, "uses the field {txt}, the data has no such column", where="task.template", fix="'text'"
    ):
        template.check_fields(["text", "label"])
    template.check_fields(["txt"])


# Rendering


def test_a_rendered_example_in_full() -> None:
    e = render("{prompt:1} The {text}, is it {prompt:1} {answer}?", text="cat")
    assert words(e) == ["[CLS]", "[UNK]", "the", "cat", ",", "is", "it", "[UNK]", "[MASK]", "?", "[SEP]"]
    assert (e.slots, e.answer_at, e.eligible, e.dropped) == ((1, 7), (8,), (3,), 0)


def test_text_is_what_literals_and_fields_say() -> None:
    e = render("{prompt:1} The {text}, is it {prompt:1} {answer}? {sep} No", text="cat")
    assert [w for i, w in enumerate(words(e)) if i in e.text] == ["the", "cat", ",", "is", "it", "?", "no"]
    assert e.text == tuple(i for i in range(len(e)) if words(e)[i] not in ("[CLS]", "[UNK]", "[MASK]", "[SEP]"))


def test_slots_come_in_the_order_of_the_prompt_s_rows_wherever_they_stand() -> None:
    assert render("{text} {answer} {prompt:1}. {prompt:2}", 3, text="cat").slots == (3, 5, 6)


def test_sep_is_the_separator_and_not_eligible() -> None:
    e = render("{prompt}{a}{sep}{b}{answer}", a="cat", b="dog")
    assert words(e)[3:6] == ["cat", "[SEP]", "dog"]
    assert e.eligible == (3, 5)


def test_sep_is_what_ends_a_text_where_there_is_no_separator_token() -> None:
    encoder = TextEncoder(unigram("T5Tokenizer", ["<pad>", "</s>", "<unk>"], extra_ids=4))
    e = Template.parse("{prompt} {a} {sep} {b}", 1).render({"a": "cat", "b": "dog"}, encoder, 64, "x", Fill((), ()))
    assert encoder.tokens(e.ids) == ["<unk>", "▁cat", "</s>", "▁dog", "</s>"]
    assert e.eligible == (1, 3)


@pytest.mark.parametrize(
    ("source", "pieces"),
    [
        ("{prompt} {a}? {sep} {b}", ["!", "c", "a", "t", "?", "Ċ", "d", "o", "g"]),
        ("{a}{sep}{prompt:1} {b}", ["c", "a", "t", "!", "Ġdog"]),
        ("{a} {prompt:1}{sep} {b}", ["c", "a", "t", "!", "Ċ", "d", "o", "g"]),
        ("{prompt} {a}: {sep} {sep} It is {b}", [*"!cat:", "Ċ", "Ċ", *"It", "Ġis", "Ġdog"]),
    ],
)
def test_sep_is_a_line_break_where_nothing_ends_a_text(source: str, pieces: list[str]) -> None:
    encoder = TextEncoder(byte_level("GPT2Tokenizer", [], ["<|endoftext|>"]), is_causal=True)
    e = Template.parse(source, 1).render({"a": "cat", "b": "dog"}, encoder, 64, "x", Fill((), ()))
    assert ["!" if i in e.slots else t for i, t in enumerate(encoder.tokens(e.ids))] == pieces


def test_spans_are_counted_in_the_field_behind_a_line_break() -> None:
    encoder = TextEncoder(byte_level("GPT2Tokenizer", [], ["<|endoftext|>"]), is_causal=True)
    fields = {"question": "what?", "context": "  the dog"}
    template = Template.parse("{prompt} {question} {sep} {context}", 1)
    e = template.render(fields, encoder, 64, "x", Fill((), ()), spans_of="context")
    assert [fields["context"][a:b] for _, a, b in e.spans] == ["t", "h", "e", " dog"]


def test_fields_are_stripped_and_absent_or_empty_ones_leave_no_token() -> None:
    e = render("{prompt}{a} and {b}{c}{answer}", a="  cat \n", b=" ", c="")
    assert words(e)[3:-2] == ["cat", "and"]
    assert (
        render("{prompt}{a} and {b}{answer}", a="cat").ids == render("{prompt}{a} and {b}{answer}", a="cat", b="").ids
    )


@pytest.mark.parametrize("fields", [{}, {"text": ""}, {"text": " \t\n\u00a0"}, {"other": "cat"}])
def test_an_example_with_all_fields_empty_is_refused(fields: dict[str, str]) -> None:
    with refused(TemplateError, "all fields of the template (text) are empty", where="t.csv:7"):
        Template.parse("{prompt}{text}{answer}", 2).render(fields, ENCODER, 64, "t.csv:7")


def test_braces_and_markup_inside_a_field_are_plain_text() -> None:
    e = render("{prompt}{text}{answer}", text="{prompt} {answer} {0} %s")
    assert e.slots == (1, 2)
    assert len(e.answer_at) == 1
    assert list(e.eligible) == list(range(3, len(e) - 2))


@pytest.mark.parametrize("special", SPECIALS)
def test_special_tokens_written_in_a_field_stay_plain_text(special: str) -> None:
    e = render("{prompt}{text} {answer}", text=f"cat {special} dog")
    piece = special[1:-1].lower()
    middle = words(e, e.eligible)
    assert middle[0] == "cat"
    assert middle[-1] == "dog"
    assert "".join(middle[2:-2]).replace("##", "") == piece
    for token in (CLS, SEP, MASK):
        assert token not in [e.ids[i] for i in e.eligible]
    assert e.ids.count(MASK) == 1


def test_special_tokens_written_in_the_template_stay_plain_text() -> None:
    assert render("{prompt}[MASK] {text} {answer}", text="cat").ids.count(MASK) == 1


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_odd_text_renders_with_all_its_structure(text: str) -> None:
    e = render("{prompt} {text} {answer}.", text=text)
    assert (len(e.slots), len(e.answer_at)) == (2, 1)
    assert e.ids[0] == CLS
    assert e.ids[-1] == SEP


def test_without_prompt_the_white_space_around_a_slot_is_kept_once() -> None:
    parse = [
        Template.parse(s, 2).without_prompt().pieces for s in ("{a} x {prompt} y{answer}", "{a} x{prompt}y{answer}")
    ]
    assert [[p.value for p in pieces if p.kind == "text"] for pieces in parse] == [[" x y"], [" xy"]]


def test_without_prompt_is_the_same_text_without_slots() -> None:
    template = Template.parse("{prompt:1} {text} is {prompt:1} {answer}.", 2)
    bare = template.without_prompt().render({"text": "cat"}, ENCODER, 64, "x")
    assert words(bare) == ["[CLS]", "cat", "is", "[MASK]", ".", "[SEP]"]
    assert (bare.slots, bare.answer_at, bare.eligible) == ((), (3,), (1,))


def test_a_tokenizer_without_a_mask_token_is_refused() -> None:
    encoder = TextEncoder(tiny_tokenizer())
    encoder.mask_id = None
    with refused(TemplateError, "no mask token for {answer}", where="task.template"):
        Template.parse("{prompt}{text}{sep}{answer}", 2).render({"text": "cat"}, encoder, 64, "x")


# Properties

LITERALS = st.lists(st.sampled_from([*WORDS[:20], " ", ". ", "{{", "}}", "[MASK]", "😀"]), max_size=3).map(" ".join)
FIELD_TEXT = st.one_of(
    st.lists(st.sampled_from([*WORDS, *SPECIALS, "{answer}", "ing", "größe", "😀"]), max_size=30).map(" ".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
)


@st.composite
def templates(draw: st.DrawFn) -> tuple[str, int]:
    """A template of one answer, one to three slots and one to two fields in any order, and its prompt length."""
    counts = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    parts = [*(f"{{prompt:{n}}}" for n in counts), "{answer}", *draw(st.sampled_from([["{a}"], ["{a}", "{b}"]]))]
    parts += draw(st.sampled_from([[], ["{sep}"]]))
    parts = draw(st.permutations(parts))
    return "".join(p + draw(LITERALS) for p in parts), sum(counts)


@settings(max_examples=200, deadline=None)
@given(templates(), FIELD_TEXT, FIELD_TEXT, st.integers(8, 64))
def test_rendering_never_loses_a_slot_an_answer_or_a_literal(
    template: tuple[str, int], a: str, b: str, limit: int
) -> None:
    source, length = template
    fields = {"a": a, "b": b}
    parsed = Template.parse(source, length)
    if not any(fields[f].strip() for f in parsed.fields):
        return
    whole = parsed.render(fields, ENCODER, 10**6, "x")
    try:
        cut = parsed.render(fields, ENCODER, limit, "x")
    except TemplateError:  # only ever for want of room
        assert len(whole) - max(0, len(whole.eligible) - len(parsed.fields)) > limit
        return
    assert len(cut) <= limit
    assert len(cut) + cut.dropped == len(whole)
    assert (len(cut.slots), len(cut.answer_at)) == (length, 1)
    assert list(cut.slots) == sorted(cut.slots)
    assert cut.ids[cut.answer_at[0]] == MASK
    assert all(cut.ids[i] == UNK for i in cut.slots)
    structural = {*cut.slots, *cut.answer_at}
    assert not structural & set(cut.eligible)
    assert cut.dropped == len(whole.eligible) - len(cut.eligible)
    kept = [t for i, t in enumerate(cut.ids) if i not in cut.eligible]
    assert kept == [t for i, t in enumerate(whole.ids) if i not in whole.eligible]
    assert MASK not in [cut.ids[i] for i in cut.eligible]


# Models that read from left to right


@pytest.mark.parametrize(
    "source", ["{prompt} {answer} {text}", "{text} {answer} {prompt}", "{prompt}{text}{answer}{a}"]
)
def test_fields_and_slots_after_the_answer_are_refused_where_it_must_come_last(source: str) -> None:
    with refused(TemplateError, f"{{answer}} must come last, got {source!r}", where="task.template", fix="to the end"):
        Template.parse(source, 2).check_answer_is_last()


@pytest.mark.parametrize("source", ["{prompt} {text} {answer}", "{prompt} {text} {answer}. The end.{sep}"])
def test_literals_after_the_answer_are_left_out_where_it_must_come_last(source: str) -> None:
    template = Template.parse(source, 2)
    template.check_answer_is_last()
    encoded = template.render({"text": "a cat"}, ENCODER, 64, "x", Fill((9, 8), (-1, 0, 1), is_last=True))
    assert encoded.ids[-2:] == (9, 8)
    assert encoded.answer_at == (len(encoded) - 3, len(encoded) - 2, len(encoded) - 1)
    assert encoded.answer_slot == len(encoded) - 2


def test_reads_follow_the_answer_when_text_before_it_is_cut() -> None:
    template, fill = Template.parse("{text} {prompt} {answer} old", 2), Fill((9, 8), (-1, 0))
    encoded = template.render({"text": "a cat and a dog"}, ENCODER, 10, "x", fill)
    assert encoded.dropped > 0
    assert encoded.ids[encoded.answer_slot : encoded.answer_slot + 2] == (9, 8)
    assert encoded.answer_at == (encoded.answer_slot - 1, encoded.answer_slot)


# The text encoder


def test_the_text_encoder_knows_what_surrounds_a_text() -> None:
    assert (ENCODER.prefix, ENCODER.suffix) == ((CLS,), (SEP,))
    assert ENCODER.encode("") == type(ENCODER.encode("a"))([], [])
    assert ENCODER.encode("cat dog").spans == [(0, 3), (4, 7)]


def test_a_slot_s_filler_exists_without_an_unknown_token() -> None:
    class NoUnknown:
        mask_token_id = sep_token_id = eos_token_id = unk_token_id = None

        def convert_tokens_to_ids(self, token: str) -> None:
            return None

        def __call__(self, text: str, **options: Any) -> dict[str, list[int]]:
            return {"input_ids": [5]}

    assert TextEncoder(NoUnknown()).filler_id == 0


# Slots in the decoder


START, HEAD = 90, 91
LIKE_T5 = TextEncoder(tiny_tokenizer(), decoder_start_id=START)
FILL = Fill((HEAD,), (1, 2), (START, HEAD, 7))
"""A sentinel in the text; in the decoder the start, the sentinel and the beginning of an answer."""


def decoded(source: str, length: int, limit: int = 64) -> Encoded:
    fields = {"text": "cat dog", "more": "sun"}
    return Template.parse(source, length).render(fields, LIKE_T5, limit, "row 1", FILL)


def test_a_prompt_in_the_decoder_stands_behind_its_start_token() -> None:
    e = decoded("{decoder_prompt} {text} {answer}", 2)
    filler = LIKE_T5.filler_id
    assert e.decoder == (START, filler, filler, HEAD, 7)
    assert (e.slots, e.decoder_slots, e.answer_at) == ((-1, -1), (1, 2), (3, 4))
    bare = decoded("{prompt:2}{text} {answer}", 2)
    assert (len(e.ids), e.answer_slot, len(bare.ids), bare.answer_slot) == (5, 3, 7, 5)
    assert (bare.decoder, bare.decoder_slots, bare.answer_at) == (FILL.decoder, (), FILL.reads)


@pytest.mark.parametrize(
    ("source", "slots", "decoder_slots"),
    [
        ("{prompt:2} {text} {decoder_prompt:3} {answer}", (1, 2, -1, -1, -1), (-1, -1, 1, 2, 3)),
        ("{decoder_prompt:3} {prompt:2} {text} {answer}", (-1, -1, -1, 1, 2), (1, 2, 3, -1, -1)),
        (
            "{decoder_prompt:1}{prompt:1}{text}{prompt:1}{answer}{decoder_prompt:2}",
            (-1, 1, 4, -1, -1),
            (1, -1, -1, 2, 3),
        ),
    ],
)
def test_rows_of_the_prompt_go_to_slots_in_the_order_of_the_pieces(
    source: str, slots: tuple[int, ...], decoder_slots: tuple[int, ...]
) -> None:
    e = decoded(source, 5)
    assert (e.slots, e.decoder_slots) == (slots, decoder_slots)
    assert e.decoder[4:] == (HEAD, 7)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("{prompt:1}{text} {decoder_prompt:1} {answer}", "{prompt}{text} {answer}"),
        ("{decoder_prompt:1} {prompt:1}{text} {answer}", " {prompt}{text} {answer}"),
        ("{prompt:1}{text} a {decoder_prompt:1} b {answer}", "{prompt}{text} a b {answer}"),
        ("{prompt:1}{text} a{decoder_prompt:1}b {answer}", "{prompt}{text} ab {answer}"),
        ("{prompt:1}{text}{decoder_prompt:1} {more} {answer}", "{prompt}{text} {more} {answer}"),
    ],
)
def test_the_text_is_read_as_if_a_slot_of_the_decoder_were_not_written(written: str, read: str) -> None:
    one, other = Template.parse(written, 2), Template.parse(read, 1)
    assert one.pieces == other.pieces
    assert one.answer_is_spaced == other.answer_is_spaced
    assert one.decoder_rows != ()


def test_without_prompt_nothing_stands_in_the_decoder() -> None:
    bare = Template.parse("{prompt:1} {text} {decoder_prompt:2} {answer}", 3).without_prompt()
    e = bare.render({"text": "cat"}, LIKE_T5, 64, "x", FILL)
    assert (e.slots, e.decoder_slots, e.decoder, e.answer_at) == ((), (), FILL.decoder, FILL.reads)


@pytest.mark.parametrize(
    ("source", "what", "fix"),
    [
        (
            "{decoder_prompt} {prompt:2} {text} {answer}",
            "{decoder_prompt} takes the whole prompt",
            "{decoder_prompt:3}",
        ),
        ("{prompt} {decoder_prompt:2} {text} {answer}", "{prompt} takes the whole prompt", "{decoder_prompt:2}"),
        ("{prompt:2} {decoder_prompt:2} {text} {answer}", "the slots sum to 4, prompt.length is 5", "prompt.length=4"),
        ("{decoder_prompt:0} {text} {answer}", "a slot is written {decoder_prompt:N}", None),
    ],
)
def test_malformed_slots_of_the_decoder_are_refused(source: str, what: str, fix: str | None) -> None:
    with refused(TemplateError, what, where="task.template", fix=fix):
        Template.parse(source, 5)


def test_slots_of_the_decoder_are_refused_where_there_is_none() -> None:
    template = Template.parse("{decoder_prompt} {text} {answer}", 2)
    template.check_decoder(LIKE_T5)
    Template.parse("{prompt} {text} {answer}", 2).check_decoder(ENCODER)
    with refused(TemplateError, "needs an encoder-decoder, and this", where="task.template", fix="Write {prompt}"):
        template.check_decoder(ENCODER)


def test_a_decoder_that_is_too_long_is_refused() -> None:
    assert len(decoded("{decoder_prompt} {text} {answer}", 7, limit=10).decoder) == 10
    with refused(
        TemplateError, "the decoder reads 11 tokens, slots included; at most 10", where="row 1", fix="Shorten"
    ):
        decoded("{decoder_prompt} {text} {answer}", 8, limit=10)


def test_a_text_ends_with_the_end_of_sequence_or_else_the_separator() -> None:
    tokenizer = tiny_tokenizer()
    assert TextEncoder(tokenizer).end_id == SEP
    tokenizer.eos_token = "[MASK]"
    assert TextEncoder(tokenizer).end_id == MASK
    tokenizer.eos_token = tokenizer.sep_token = None
    assert TextEncoder(tokenizer).end_id is None
