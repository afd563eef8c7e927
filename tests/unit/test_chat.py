"""Chats: what the tokenizer's own chat template writes, token by token, with slots, fields and the answer inside."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiny import WORDS, tiny_tokenizer
from tests.tiny_chats import CHATML, TOKENIZERS, chatml, special
from tests.unit.refusals import refused
from trimtab.chat import read_template
from trimtab.errors import ConfigError, TemplateError
from trimtab.readouts import plan_answers
from trimtab.rendering import Rendering
from trimtab.templates import Template
from trimtab.text_encoder import TextEncoder
from trimtab.types import Encoded, Fill
from trimtab.verbalizers import Verbalizer

Messages = list[dict[str, str]]

EVERY = tuple(TOKENIZERS)
WITH_SYSTEM = tuple(name for name in EVERY if name != "inst")


@cache
def encoder(name: str) -> TextEncoder:
    return TextEncoder(TOKENIZERS[name]())


def said(*contents: str, answer: str | None = None) -> Messages:
    """One content is the user's, of two the first is the system's."""
    messages = [{"role": r, "content": c} for r, c in zip(("system", "user")[-len(contents) :], contents, strict=True)]
    return messages if answer is None else [*messages, {"role": "assistant", "content": answer}]


def read(messages: Messages | str, of: TextEncoder, length: int = 2, **options: Any) -> Template:
    return read_template({"chat": messages, "options": options}, length, (), of)


def answered(template: Template, of: TextEncoder, word: str, **fields: str) -> Encoded:
    """The sequence of a causal model, with the answer in it."""
    ids = of.answer(word, spaced=template.answer_is_spaced, lead=template.answer_lead)
    return template.render(fields, of, 10**6, "x", Fill(ids, (-1,), is_last=True))


def expected(messages: Messages, of: TextEncoder, word: str, **options: Any) -> list[int]:
    """What `apply_chat_template` makes of messages without slots, and of the word behind them."""
    if messages[-1]["role"] == "assistant":
        return of.tokenizer.apply_chat_template(messages, continue_final_message=True, **options)["input_ids"]
    opened = of.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **options)
    space = " " if of.tokenizer.chat_template == TOKENIZERS["inst"]().chat_template else ""
    whole = of.tokenizer(opened + space + word, add_special_tokens=False)["input_ids"]
    alone = of.tokenizer.apply_chat_template(messages, add_generation_prompt=True, **options)["input_ids"]
    assert whole[: len(alone)] == alone
    return whole


def slotted(messages: Messages) -> Messages:
    """The same messages with a slot that leaves no trace in the text around it."""
    return [m | {"content": m["content"].replace("{text}", "{prompt}{text}")} for m in messages]


def as_read(messages: Messages, word: str, **fields: str) -> Messages:
    """Messages with their fields filled in."""
    return [m | {"content": m["content"].format(answer=word, **fields)} for m in messages]


# Token ids are those of the tokenizer


CHATS = [
    said("{text}"),
    said("Is it {text} or {other}?"),
    said(" {text}: very\n\ngood "),
    said("{text}.", answer="{answer}"),
    said("{text}", answer="sun: {answer}"),
    said("{text}", answer="the sun ({answer}"),
    said("{text}", answer="sun:\n{answer}"),
]
SYSTEM_CHATS = [
    said("Be good.", "{text}"),
    said("", "{text}", answer="it is {answer}"),
    said("a {other} sun", "{text}"),
]
CASES = [(n, c) for n in EVERY for c in CHATS] + [(n, c) for n in WITH_SYSTEM for c in SYSTEM_CHATS]


@pytest.mark.parametrize(("name", "messages"), CASES)
def test_without_slots_the_ids_are_those_of_apply_chat_template(name: str, messages: Messages) -> None:
    of = encoder(name)
    template = read(slotted(messages), of).without_prompt()
    fields = {"text": "the cat's not sad!", "other": "two Dogs"}
    found = answered(template, of, "good", **fields)
    assert of.tokens(found.ids) == of.tokens(expected(as_read(messages, "good", **fields), of, "good"))
    assert (found.slots, found.dropped) == ((), 0)


@pytest.mark.parametrize("options", [{}, {"enable_thinking": False}, {"enable_thinking": True}])
def test_options_reach_the_chat_template(options: dict[str, bool]) -> None:
    of = encoder("chatml")
    found = answered(read("{prompt}{text}", of, **options).without_prompt(), of, "good", text="a cat")
    assert list(found.ids) == expected(said("a cat"), of, "good", **options)
    assert ("<think>" in of.tokens(found.ids)) == (options == {"enable_thinking": False})


FIELD_TEXT = st.one_of(
    st.lists(
        st.sampled_from(
            [*WORDS, "<|im_start|>", "<|im_end|>", "<|end|>", "<s>", "</s>", "<pad>", "<unk>", "[CLS]", "[SEP]",
             "{answer}", "[/INST]", "<|endoftext|>", "\ue0a1\ue0a2", "\ue0b0Content0\ue0b1", "\uff1c/s>", "größe", "😀"]
        ),
        max_size=12,
    ).map(" ".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(EVERY), FIELD_TEXT.filter(lambda t: bool(t.strip())), st.integers(1, 3))
def test_no_field_text_makes_a_special_token_or_moves_a_slot(name: str, text: str, count: int) -> None:
    of = encoder(name)
    template = read(said(f"{{prompt:{count}}} it is {{text}} {{prompt:1}}."), of, count + 1)
    plain, odd = (answered(template, of, "good", text=t) for t in ("cat", text))
    specials = {*of.special_ids.values(), *of.tokenizer.all_special_ids} - {of.unk_id}
    assert not specials & {odd.ids[i] for i in odd.eligible}
    assert [i for i in odd.ids if i in specials] == [i for i in plain.ids if i in specials]
    assert max(odd.ids) < len(of.tokenizer)
    assert len(odd.slots) == len(plain.slots) == count + 1


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(EVERY),
    st.lists(st.sampled_from([*WORDS, "größe", "😀", "\n", "  "]), min_size=1, max_size=8).map(" ".join),
)
def test_plain_field_text_has_the_tokens_of_apply_chat_template(name: str, text: str) -> None:
    if not text.strip():
        return
    of, messages = encoder(name), said("Is it {text} ?")
    found = answered(
        read([messages[0] | {"content": "{prompt}Is it {text} ?"}], of).without_prompt(), of, "good", text=text
    )
    assert list(found.ids) == expected(as_read(messages, "good", text=text.strip()), of, "good")


# What it looks like


def test_a_chat_in_full() -> None:
    of = encoder("chatml")
    messages = said("{prompt:2} the sun.", "{text}{prompt:1}", answer="it is {answer}. ")
    template = read(messages, of, 3)
    assert template.source == (
        "{special:<|im_start|>}system\n{prompt:2} the sun.{special:<|im_end|>}\n"
        "{special:<|im_start|>}user\n{text}{prompt:1}{special:<|im_end|>}\n"
        "{special:<|im_start|>}assistant\nit is {answer}. {special:<|im_end|>}\n"
    )
    tokens = of.tokens((found := answered(template, of, "good", text="a cat")).ids)
    for at in found.slots:
        tokens[at] = "_"
    assert "".join(tokens) == (
        "<|im_start|>systemĊ__ĠtheĠsun.<|im_end|>Ċ<|im_start|>userĊaĠcat_<|im_end|>Ċ<|im_start|>assistantĊitĠisĠgood"
    )
    assert of.tokens([found.ids[i] for i in found.eligible]) == ["a", "Ġcat"]


def test_a_text_is_one_message_of_the_user() -> None:
    of = encoder("chatml")
    assert read("{prompt} {text}", of) == read(said("{prompt} {text}"), of)


def test_the_tokenizer_s_own_prefix_and_suffix_are_not_added_again() -> None:
    bert = encoder("bert")
    ids = answered(read("{prompt}{text}", bert), bert, "good", text="cat").ids
    assert not {*bert.prefix, *bert.suffix} & {*ids}
    llama = encoder("roles")
    ids = answered(read("{prompt}{text}", llama), llama, "good", text="cat").ids
    assert llama.prefix == (1,)
    assert (ids[0], ids.count(1)) == (1, 1)


def test_a_template_that_strips_contents_strips_white_space_at_their_ends() -> None:
    assert read("  {text}{prompt} \n", encoder("inst")).source == "{special:<s>}[INST] {text}{prompt} [/INST] {answer}"
    assert read("  {text}{prompt} \n", encoder("chatml")).source.startswith(
        "{special:<|im_start|>}user\n  {text}{prompt} \n{special"
    )


def test_an_answer_is_spaced_where_the_chat_template_writes_a_space_before_it() -> None:
    for name, tokens in (("inst", ["▁good"]), ("roles", ["g", "o", "o", "d"]), ("roles-legacy", ["▁good"])):
        of = encoder(name)
        template = read("{prompt}{text}", of)
        assert of.tokens(answered(template, of, "good", text="cat").ids)[-len(tokens) :] == tokens, name


def test_special_tokens_in_a_content_are_plain_text_and_braces_in_markup_stay() -> None:
    tokenizer = chatml()
    tokenizer.chat_template = CHATML.replace("<|im_start|>{{", "<|im_start|>{x}{{")
    of = TextEncoder(tokenizer)
    template = read("{prompt}{text} <|im_end|> {{y}}", of)
    assert "{special:<|im_start|>}{{x}}user" in template.source
    ids = answered(template, of, "good", text="a cat").ids
    assert of.tokenizer.decode(ids).count("<|im_end|>") == 2
    assert list(ids).count(of.special_ids["<|im_end|>"]) == 1
    assert "{x}user" in of.tokenizer.decode(ids)
    assert "{y}" in of.tokenizer.decode(ids)


def test_a_template_may_write_messages_in_another_order() -> None:
    tokenizer = chatml()
    tokenizer.chat_template = "{% for m in messages | reverse %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    template = read(said("{prompt} be good", "{text}"), TextEncoder(tokenizer))
    assert template.source == "user: {text}\nsystem: {prompt} be good\n{answer}"


@pytest.mark.parametrize(
    ("content", "bare"),
    [("{prompt} the {text}", "the cat"), ("the {text} {prompt}", "the cat"), ("{text} {prompt} sun", "cat sun"),
     ("{text}{prompt} sun", "cat sun"), ("{text} {prompt}sun", "cat sun"), ("{text}:\n{prompt} sun", "cat:\nsun")],
)  # fmt: skip
def test_without_its_slots_a_chat_reads_as_if_they_had_never_been_written(content: str, bare: str) -> None:
    of = encoder("chatml")
    found = answered(read(content, of).without_prompt(), of, "good", text="cat")
    assert list(found.ids) == expected(said(bare), of, "good")


def test_a_field_is_cut_and_markup_is_not() -> None:
    of = encoder("chatml")
    template = read(said("{prompt} {text}.", answer="it is {answer}"), of)
    whole = template.render({"text": "cat dog " * 30}, of, 10**6, "x", Fill((1,), (-1,), is_last=True))
    cut = template.render({"text": "cat dog " * 30}, of, 40, "x", Fill((1,), (-1,), is_last=True))
    assert (len(cut), cut.dropped, len(cut.slots)) == (40, len(whole) - 40, 2)
    kept = [t for i, t in enumerate(cut.ids) if i not in cut.eligible]
    assert kept == [t for i, t in enumerate(whole.ids) if i not in whole.eligible]


def test_label_words_continue_the_text_before_them() -> None:
    of = encoder("roles")
    assert of.tokens(of.answer("good", spaced=True, lead="sun:")) == ["▁good"]
    assert of.tokens(of.answer("good", spaced=False, lead="sun:")) == ["g", "o", "o", "d"]
    assert of.tokens(of.answer("good", spaced=False)) == ["▁good"]
    bpe = encoder("chatml")
    assert bpe.tokens(bpe.answer("d", spaced=False, lead=" goo")) == ["d"], "a border inside a token"


# Other backbones than causal ones


def test_on_a_masked_model_the_text_after_the_answer_stays() -> None:
    of = encoder("bert")
    template = read(said("{prompt} {text}", answer="it is {answer}."), of)
    tokens = of.tokens(template.render({"text": "cat"}, of, 64, "x").ids)
    assert tokens[-5:] == ["it", "is", "[MASK]", ".", "<|im_end|>"]


def test_an_encoder_decoder_reads_the_chat_in_its_encoder() -> None:
    of = TextEncoder(TOKENIZERS["t5"](), decoder_start_id=0)
    template = read("{prompt} {text}", of)
    (fill,) = plan_answers({"kind": "ranking"}, of, [[[5]], [[6]]]).fills
    encoded = template.render({"text": "a cat"}, of, 64, "x", fill)
    assert encoded.ids[-1] == of.sentinel_id
    assert encoded.decoder == (0, of.sentinel_id)
    assert of.suffix[0] not in encoded.ids
    verbalizer = Verbalizer.of({"a": "good", "b": "bad"})
    behind = Rendering(read(said("{prompt} {text}", answer="it is ({answer})"), of), verbalizer, 64)
    assert behind.label_ids(of) == verbalizer.encode(of, spaced=False), "the decoder does not read the text before it"
    causal = encoder("roles")
    behind = Rendering(read(said("{prompt} {text}", answer="it is ({answer})"), causal), verbalizer, 64)
    assert behind.label_ids(causal) != verbalizer.encode(causal, spaced=False)


# Refusals


def test_a_tokenizer_without_a_chat_template_is_refused() -> None:
    with refused(TemplateError, "has no chat template", where="task.template.chat", fix="instruction-tuned checkpoint"):
        read("{prompt} {text}", TextEncoder(tiny_tokenizer()))


def test_a_message_that_the_template_drops_is_named() -> None:
    what = "leaves out or changes the message of the role 'system'"
    with refused(TemplateError, what, where="task.template.chat.0", fix="into another message"):
        read(said("{prompt} sun", "{text}"), encoder("inst"))


def test_a_message_that_the_template_changes_or_repeats_is_named() -> None:
    tokenizer = chatml()
    tokenizer.chat_template = "{% for m in messages %}{{ m.content | upper }}{% endfor %}"
    with refused(TemplateError, "leaves out or changes the message of the role 'user'", where="task.template.chat.0",
                 fix="another"):  # fmt: skip
        read("{prompt} {text}", TextEncoder(tokenizer))
    tokenizer.chat_template = "{{ messages[0].content }}{% for m in messages %}{{ m.content }}{% endfor %}"
    with refused(TemplateError, "writes 2 times the message of the role 'system'", where="task.template.chat.0",
                 fix="another"):  # fmt: skip
        read(said("{prompt} sun", "{text}"), TextEncoder(tokenizer))


def test_what_the_chat_template_refuses_is_refused_in_its_words() -> None:
    messages = [*said("{prompt} {text}"), *said("cat")]
    with refused(TemplateError, "refuses the messages: Roles must alternate.", where="task.template.chat"):
        read(messages, encoder("inst"))


@pytest.mark.parametrize(
    ("messages", "at"),
    [(said("{prompt} {text} {answer}"), 0), (said("{answer}", "{prompt} {text}"), 0),
     (said("{prompt} {text}", answer="sun"), 1), (said("{prompt} {text} {answer}", answer="{answer}"), 0)],
)  # fmt: skip
def test_the_answer_stands_in_the_last_message_and_that_is_the_assistant_s(messages: Messages, at: int) -> None:
    what = "{answer} must stand in the last message, the assistant's, and in no other; got "
    with refused(TemplateError, what, where=f"task.template.chat.{at}.content", fix="leave that message out"):
        read(messages, encoder("chatml"))


def test_malformed_contents_are_refused_where_they_stand() -> None:
    with refused(
        TemplateError, "a lone '{' at character 1", where="task.template.chat.1.content", fix="Write {{ or }}"
    ):
        read(said("{prompt}", "{text"), encoder("chatml"))
    with refused(TemplateError, "the slots sum to 3", where="task.template", fix="prompt.length=3"):
        read(said("{prompt:3}", "{text}"), encoder("chatml"))
    with refused(TemplateError, "{answer} must come last", where="task.template", fix="to the end"):
        read(said("{prompt:1}", "{text}", answer="{answer}{prompt:1}"), encoder("chatml")).check_answer_is_last()


@pytest.mark.parametrize(
    ("option", "fix"),
    [("enable_thinkin", "Did you mean 'enable_thinking'?"), ("qqq", "Leave it out."),
     ("add_generation_prompt", "Leave it out."), ("tokenize", "Leave it out."), ("tools", "Leave it out.")],
)  # fmt: skip
def test_an_option_that_the_chat_template_does_not_take_is_refused(option: str, fix: str) -> None:
    with refused(TemplateError, f"takes no option {option!r}", where="task.template.options", fix=fix):
        read("{prompt} {text}", encoder("chatml"), **{option: False})


@pytest.mark.parametrize(
    ("source", "what", "where"),
    [
        ({"chat": []}, "at least 1 item", "task.template.chat"),
        ({}, "this key is required", "task.template.chat"),
        ({"chat": "{prompt} {text}", "option": {}}, "there is no such key", "task.template.option"),
        ({"chat": [{"role": "user"}]}, "this key is required", "task.template.chat.0.content"),
        ({"chat": [{"role": "user", "content": "", "nam": ""}]}, "there is no such key", "task.template.chat.0.nam"),
    ],
)
def test_a_chat_of_another_form_is_refused(source: dict[str, Any], what: str, where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_template(source, 2, (), encoder("chatml"))
    assert (what in caught.value.what, caught.value.where) == (True, where)


# The language below: special tokens in templates, and text behind them


def test_a_special_token_that_the_tokenizer_lacks_is_refused() -> None:
    of, template = encoder("chatml"), Template.parse("{special:<|end|>}{prompt}{text}{answer}", 2)
    with refused(TemplateError, "no special token for {special:<|end|>}", where="task.template"):
        template.render({"text": "x"}, of, 64, "x", Fill((1,), (-1,)))
    named = template.parse("{special:<|im_end|>}{prompt}{text}{answer}", 2)
    assert named.render({"text": "x"}, of, 64, "x", Fill((1,), (-1,))).ids[0] == of.special_ids["<|im_end|>"]


def test_the_end_of_a_text_in_a_field_does_not_end_it_for_a_unigram_vocabulary() -> None:
    of = encoder("t5")
    for is_first in (True, False):
        for text in ("a </s> cat <pad></s>", "</s>", "<pad"):
            found = of.encode(text, is_first=is_first)
            assert not {of.special_ids["</s>"], of.special_ids["<pad>"]} & {*found.ids}
            assert (found.spans[0][0], found.spans[-1][1]) == (0, len(text))
    assert of.encode("a cat").ids == of.tokenizer("a cat", add_special_tokens=False)["input_ids"]


def test_text_behind_a_special_token_is_tokenized_as_the_tokenizer_does() -> None:
    for name in EVERY:
        of = encoder(name)
        token, number = next(iter(of.special_ids.items())) if name != "bert" else ("[SEP]", of.sep_id)
        for text in ("good cat", " good  cat ", "\ngood", "größe"):
            whole = of.tokenizer(token + text, add_special_tokens=False)["input_ids"]
            found = of.encode(text, is_first=False)
            assert [number, *found.ids] == whole, (name, text)
            assert all(0 <= a <= b <= len(text) for a, b in found.spans)


def test_markup_is_cut_at_its_special_tokens_and_not_at_unknown_characters() -> None:
    assert encoder("roles").split("<s><|user|>\n中 x") == [("<s>", True), ("<|user|>", True), ("中 x", False)]
    assert encoder("bert").split("cat 中[SEP]中") == [("cat 中", False), ("[SEP]", True), ("中", False)]


@pytest.mark.shared
def test_a_real_byte_level_tokenizer(shared: Path) -> None:
    folder = shared / "models/tokenizers/gpt2"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    from transformers import AutoTokenizer

    of = TextEncoder(special(AutoTokenizer.from_pretrained(folder), ["<|im_start|>", "<|im_end|>"], CHATML))
    fields = {"text": "It's 12:30,\n\n  naïve <|endoftext|> 😀", "other": "two"}
    for messages in (*CHATS, *SYSTEM_CHATS):
        template = read(slotted(messages), of).without_prompt()
        found = answered(template, of, "billing", **fields)
        plain = fields | {"text": fields["text"].replace("<|endoftext|>", "<\u200b|endoftext|>")}
        assert of.special_ids["<|endoftext|>"] not in found.ids
        found = answered(template, of, "billing", **plain)
        assert list(found.ids) == expected(as_read(messages, "billing", **plain), of, "billing")


@pytest.mark.shared
def test_no_text_ends_the_sequence_of_the_real_t5(shared: Path) -> None:
    folder = shared / "models/tokenizers/t5"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    from transformers import AutoTokenizer

    of = TextEncoder(AutoTokenizer.from_pretrained(folder))
    ids = of.encode("one </s> two <pad> <extra_id_0> \uff1c/s\uff1e three").ids
    assert not {*ids} & {*of.tokenizer.all_special_ids} - {of.unk_id}
    assert of.encode("one two").ids == of.tokenizer("one two", add_special_tokens=False)["input_ids"]
