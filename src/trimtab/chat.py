"""Chats: messages of an instruction-tuned model, written as its tokenizer's chat template writes them, slots inside.

    template:
      chat:
        - {role: system, content: "{prompt:5} You label tickets."}
        - {role: user, content: "{text}{prompt:3}"}
        - {role: assistant, content: "Label: {answer}"}
      options: {enable_thinking: false}     # keyword arguments of the chat template

`chat: "{prompt} {text}"` is one message of the user. Where the assistant's turn is left out, the chat template opens it
(`add_generation_prompt`), and it holds the answer and nothing else.

The chat template is run once, with a mark in place of each content; what comes out around the marks is markup. Markup
and contents together are an ordinary template in which special tokens are written `{special:<|im_end|>}`, so slots,
fields and truncation work as everywhere, and nothing in a field is read as a special token. Without slots the ids are
those of `tokenizer.apply_chat_template`. What was written belongs to the run and its id: a chat template that writes
the date gives another run tomorrow (most take the date as an option), while a bundle stays as it was trained.

A chat suits any backbone whose tokenizer has a chat template. As with plain templates, what follows the answer is left
out for causal models and stays for others.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from trimtab.errors import ConfigError, TemplateError
from trimtab.registry import validated
from trimtab.template_pieces import read_pieces
from trimtab.templates import Template
from trimtab.text_encoder import TextEncoder

_WHERE = "task.template"
_MARK = "\ue0b0Content{}\ue0b1"
"""Private-use characters, so that no template writes it by itself; letters, so that a change of case is noticed."""
_MARKS = re.compile(_MARK.format(r"(\d+)"))
_PASSED_ON = ("tools", "documents")
"""Parameters of `apply_chat_template` that go to the template as they are."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)


class Message(_Section):
    """One message: who speaks, as the chat template names it, and a template of what is said."""

    role: str
    content: str


class Chat(_Section):
    """Messages in their order, and keyword arguments of the chat template."""

    chat: Annotated[list[Message], Field(min_length=1)]
    options: dict[str, Any] = {}

    @field_validator("chat", mode="before")
    @classmethod
    def _one_message(cls, value: Any) -> Any:
        return [{"role": "user", "content": value}] if isinstance(value, str) else value

    @property
    def has_answer(self) -> bool:
        """Whether the last turn is the assistant's; else it is opened behind the messages."""
        return self.chat[-1].role == "assistant"


def _checked(value: Any) -> Any:
    if isinstance(value, Mapping):
        return validated(Chat, value, _WHERE).model_dump()
    if not isinstance(value, str):
        raise ConfigError(f"a template is a text, or a mapping with the key chat, got {value!r}.", where=_WHERE)
    return value


TemplateSource = Annotated[str | Mapping[str, Any], BeforeValidator(_checked)]
"""A template as a recipe has it: a text, or `{chat, options}`."""


def read_template(
    source: str | Mapping[str, Any], length: int, truncate: Sequence[str], encoder: TextEncoder
) -> Template:
    """Parse a template, or a chat as the tokenizer writes it, for a prompt of `length` virtual tokens.

    Raises:
        ConfigError: a chat of another form than `Chat`.
        TemplateError: see `Template.parse` and `write_chat`.
    """
    if isinstance(source, str):
        return Template.parse(source, length, truncate)
    chat = validated(Chat, source, _WHERE)
    _check_answer(chat)
    return Template.parse(write_chat(chat, encoder), length, truncate, is_verbatim=True)


def write_chat(chat: Chat, encoder: TextEncoder) -> str:
    """The template text behind a chat.

    Raises:
        TemplateError: the tokenizer has no chat template; it does not know an option, refuses the messages, or leaves
            one out, changes it or repeats it.
    """
    _check_options(chat, encoder.tokenizer)
    marked = [{"role": m.role, "content": _mark(m.content, i)} for i, m in enumerate(chat.chat)]
    if chat.has_answer:
        text = _apply(encoder.tokenizer, marked, chat.options)
    else:
        text = _open_turn(encoder.tokenizer, marked, chat.options)
    parts = _MARKS.split(text)
    for i, message in enumerate(chat.chat):
        count = parts[1::2].count(str(i))
        if count != 1 and message.content.strip():
            what = "leaves out or changes" if not count else f"writes {count} times"
            raise TemplateError(
                f"the chat template of this tokenizer {what} the message of the role {message.role!r}.",
                where=f"{_WHERE}.chat.{i}",
                fix="Put its content into another message.",
            )
    written = [
        chat.chat[int(part)].content.strip() if i % 2 else _escape(part, encoder) for i, part in enumerate(parts)
    ]
    return "".join(written) + ("" if chat.has_answer else "{answer}")


def _mark(content: str, index: int) -> str:
    """White space at the ends stays, as some templates strip it. An empty content may mean something to a template."""
    inner = content.strip()
    return content.replace(inner, _MARK.format(index)) if inner else content


def _open_turn(tokenizer: Any, messages: list[dict[str, str]], options: Mapping[str, Any]) -> str:
    """The messages and the beginning of the assistant's turn, with a space where answers begin with one (Llama 2)."""
    opened = _apply(tokenizer, messages, options, add_generation_prompt=True)
    mark = _MARK.format(len(messages))
    before = _apply(tokenizer, [*messages, {"role": "assistant", "content": mark}], options).partition(mark)[0]
    return before if before.rstrip(" ") == opened else opened


def _apply(tokenizer: Any, messages: list[dict[str, str]], options: Mapping[str, Any], **how: bool) -> str:
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, **how, **options))
    except Exception as error:  # templates are programs of others
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise TemplateError(
            f"the chat template of this tokenizer refuses the messages: {reason}.", where=f"{_WHERE}.chat"
        ) from error


def _escape(markup: str, encoder: TextEncoder) -> str:
    """Markup in the language of templates."""
    return "".join(
        f"{{special:{part}}}" if is_token else part.replace("{", "{{").replace("}", "}}")
        for part, is_token in encoder.split(markup)
    )


def _check_answer(chat: Chat) -> None:
    """Contents must be templates, and `{answer}` must stand in the last message, the assistant's."""
    for i, message in enumerate(chat.chat):
        where = f"{_WHERE}.chat.{i}.content"
        holds = any(p.kind == "answer" for p in read_pieces(message.content, where))
        if holds != (chat.has_answer and i == len(chat.chat) - 1):
            raise TemplateError(
                "{answer} must stand in the last message, the assistant's, and in no other; "
                f"got {message.content!r} for the role {message.role!r}.",
                where=where,
                fix="Move {answer} into a last message of the role assistant, or leave that message out.",
            )


def _check_options(chat: Chat, tokenizer: Any) -> None:
    templates = tokenizer.chat_template
    if not templates:
        raise TemplateError(
            "the tokenizer of this backbone has no chat template.",
            where=f"{_WHERE}.chat",
            fix='Use an instruction-tuned checkpoint, or a plain template such as "{prompt} {text} {answer}".',
        )
    taken = {*inspect.signature(tokenizer.apply_chat_template).parameters, "messages"} - {*_PASSED_ON}
    names = set(re.findall(r"[A-Za-z_]\w*", str(templates)))
    for name in chat.options:
        if name in taken or name not in names:
            known = get_close_matches(name, names - taken, n=1)
            raise TemplateError(
                f"the chat template of this tokenizer takes no option {name!r}.",
                where=f"{_WHERE}.options",
                fix=f"Did you mean {known[0]!r}?" if known else "Leave it out.",
            )
