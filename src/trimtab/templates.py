"""Templates: text pieces, fields, prompt slots and the answer slot. The final length of a sequence is decided here.

    {prompt:3} {premise} Question: {hypothesis}? {prompt:2} Answer: {answer}.

| piece | meaning |
|---|---|
| `{prompt:N}` | N slots for virtual tokens; all numbered slots sum to the prompt length |
| `{prompt}` | all slots of the prompt |
| `{answer}` | the answer slot: a mask token, a sentinel or the label word itself, as the readout needs |
| `{sep}` | the tokenizer's separator token |
| `{name}` | a field of the example; `{field:name}` where the name is one of the words above |
| `{{`, `}}` | a literal brace |

Text between slots is tokenized as one string, so pieces at field borders are those of ordinary text. White space at the
beginning of the sequence and before slots belongs to no piece: byte-level vocabularies keep the space before a word in
the word. Special tokens
written inside a field are plain text. Truncation cuts fields only, never a slot, an answer or a literal; padding comes
later, so masks, labels and position ids never need to be shifted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from trimtab.errors import TemplateError, suggest
from trimtab.types import Encoded, Fill

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|([{}])")


@dataclass(frozen=True)
class TextPieces:
    """Token ids of a stretch of text, and the character span of each."""

    ids: list[int]
    spans: list[tuple[int, int]]


class TextEncoder:
    """A tokenizer seen as: special ids at both ends, and plain text in between.

    Args:
        tokenizer: a fast transformers tokenizer.
        decoder_start_id: what the decoder of an encoder-decoder begins with; None for other models.

    Attributes:
        prefix: ids of the special tokens before a text.
        suffix: ids of those after it.
        mask_id: the mask token; None where there is none.
        sentinel_id: the first of T5's sentinels; None where there is none.
    """

    def __init__(self, tokenizer: Any, decoder_start_id: int | None = None) -> None:
        self.tokenizer, self.decoder_start_id = tokenizer, decoder_start_id
        bare = tokenizer("a", add_special_tokens=False)["input_ids"]
        full = tokenizer("a")["input_ids"]
        at = next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)
        self.prefix, self.suffix = tuple(full[:at]), tuple(full[at + len(bare) :])
        spaced = tokenizer(" a", add_special_tokens=False)["input_ids"]
        self._adds_space = spaced != bare and self.tokens(bare)[0].startswith("▁")
        self.mask_id: int | None = tokenizer.mask_token_id
        sentinel = tokenizer.convert_tokens_to_ids("<extra_id_0>")
        self.sentinel_id: int | None = None if sentinel in (None, tokenizer.unk_token_id) else sentinel
        self.sep_id: int | None = tokenizer.sep_token_id
        self.unk_id: int | None = tokenizer.unk_token_id
        self.filler_id: int = self.unk_id if self.unk_id is not None else 0

    def encode(self, text: str) -> TextPieces:
        """Tokenize plain text; nothing in it is read as a special token.

        SentencePiece puts a space before every text. Where the text begins with one that is it, not a second one, as
        the text stands behind other text.
        """
        start = int(self._adds_space and text.startswith(" "))
        rest = text[start:]
        if not rest:
            return TextPieces([], [])
        out = self.tokenizer(
            rest, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True, verbose=False
        )
        return TextPieces(list(out["input_ids"]), [(a + start, b + start) for a, b in out["offset_mapping"]])

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """The pieces behind ids, as text."""
        return list(self.tokenizer.convert_ids_to_tokens(list(ids)))


@dataclass(frozen=True)
class Piece:
    """One part of a template."""

    kind: Literal["text", "field", "prompt", "answer", "sep"]
    value: str = ""
    count: int = 0


@dataclass(frozen=True)
class Template:
    """A parsed template. Build with `Template.parse`.

    Attributes:
        source: the template as written.
        pieces: its parts in order.
        length: the prompt length; the slots sum to it.
        truncate: fields that may be cut, first to last; empty means every field, the longest first.
    """

    source: str
    pieces: tuple[Piece, ...]
    length: int
    truncate: tuple[str, ...] = ()

    @classmethod
    def parse(cls, source: str, length: int, truncate: Sequence[str] = (), where: str = "task.template") -> Template:
        """Parse a template for a prompt of `length` virtual tokens.

        Raises:
            TemplateError: unbalanced braces, no or several answer slots, no prompt slot, slots that do not sum to
                `length`, `{prompt}` beside other slots, or a `truncate` entry that is not a field.
        """
        pieces: list[Piece] = []
        end = 0
        for match in _PIECE.finditer(source):
            _add_text(pieces, source[end : match.start()])
            end = match.end()
            if match.group() in ("{{", "}}"):
                _add_text(pieces, match.group()[0])
            elif match.group(2):
                raise TemplateError(
                    f"there is a lone {match.group()!r} at character {match.start() + 1} of {source!r}.",
                    where=where,
                    fix="Write {{ or }} for a literal brace.",
                )
            else:
                pieces.append(_read_piece(match.group(1).strip(), source, where))
        _add_text(pieces, source[end:])
        template = cls(source, tuple(_fill_prompt(pieces, length, where)), length, tuple(dict.fromkeys(truncate)))
        template._check(where)
        return template

    @property
    def fields(self) -> list[str]:
        """Names of the fields used, in order of appearance."""
        return list(dict.fromkeys(p.value for p in self.pieces if p.kind == "field"))

    @property
    def answer_is_spaced(self) -> bool:
        """Whether white space stands right before the answer slot."""
        at = next(i for i, p in enumerate(self.pieces) if p.kind == "answer")
        before = self.pieces[at - 1] if at else Piece("sep")
        return before.kind == "text" and before.value[-1:].isspace()

    def _check(self, where: str) -> None:
        answers = sum(p.kind == "answer" for p in self.pieces)
        if answers != 1:
            raise TemplateError(
                f"a template needs exactly one answer slot, got {answers} in {self.source!r}.",
                where=where,
                fix="Write {answer} where the label word belongs.",
            )
        if not self.fields:
            raise TemplateError(f"there is no field such as {{text}} in {self.source!r}.", where=where)
        for name in self.truncate:
            if name not in self.fields:
                raise TemplateError(
                    f"{name!r} is not a field of the template.",
                    where=where.replace("template", "truncate"),
                    fix=suggest(name, self.fields),
                )

    def without_prompt(self) -> Template:
        """The same template with no slots: what the bare model reads."""
        return Template(self.source, tuple(p for p in self.pieces if p.kind != "prompt"), 0, self.truncate)

    def check_fields(self, known: Sequence[str], where: str = "task.template") -> None:
        """Every field of the template must be a column of the data.

        Raises:
            TemplateError: an unknown field, with a suggestion.
        """
        for name in self.fields:
            if name not in known:
                raise TemplateError(
                    f"the template uses the field {{{name}}}, the data has no such column.",
                    where=where,
                    fix=suggest(name, known),
                )

    def check_answer_is_last(self, where: str = "task.template") -> None:
        """A causal model reads from left to right: no field and no slot may follow the answer.

        Raises:
            TemplateError: one does.
        """
        at = next(i for i, p in enumerate(self.pieces) if p.kind == "answer")
        if any(p.kind in ("field", "prompt") for p in self.pieces[at + 1 :]):
            raise TemplateError(
                f"this backbone reads from left to right, so {{answer}} must come last, got {self.source!r}.",
                where=where,
                fix="Move {answer} to the end of the template.",
            )

    def render(
        self, fields: Mapping[str, str], encoder: TextEncoder, max_length: int, name: str, fill: Fill | None = None
    ) -> Encoded:
        """Token ids of one example, at most `max_length` of them, slots and special tokens included.

        Args:
            fields: the example's text by field name.
            encoder: the backbone's text encoder.
            max_length: how many positions the backbone has.
            name: the example's id or file:line, for errors.
            fill: what stands in the answer slot; the mask token where nothing is given.

        Raises:
            TemplateError: all fields are empty, or slots, answer and literals do not fit even with fields cut to one
                token each.
        """
        if not any(fields.get(f, "").strip() for f in self.fields):
            raise TemplateError(f"all fields of the template ({', '.join(self.fields)}) are empty.", where=name)
        if fill is None:
            fill = Fill((_special(encoder.mask_id, "mask", "{answer}"),), (0,))
        tokens, before = self._tokens(fields, encoder, fill)
        kept = self._truncate(tokens, max_length, name)
        ids, slots, eligible = [], [], []
        for position, token in enumerate(kept):
            ids.append(token.id)
            if token.kind == "prompt":
                slots.append(position)
            elif token.kind == "field":
                eligible.append(position)
        slot = sum(t.place < before for t in kept)
        answer_at = fill.reads if fill.decoder else tuple(slot + r for r in fill.reads)
        dropped = len(tokens) - len(kept)
        return Encoded(tuple(ids), tuple(slots), answer_at, tuple(eligible), dropped, fill.decoder, slot)

    def _tokens(self, fields: Mapping[str, str], encoder: TextEncoder, fill: Fill) -> tuple[list[_Token], int]:
        """All tokens, untruncated, and the place of the answer slot. Runs of text and fields are tokenized as one
        string each.
        """
        tokens = [_Token(i, "special") for i in encoder.prefix]
        run: list[Piece] = []
        slot = 0
        for piece in (*self.pieces, None):
            if piece is not None and piece.kind in ("text", "field"):
                run.append(piece)
                continue
            is_first = all(t.kind in ("special", "prompt") for t in tokens)
            tokens += _encode_run(run, fields, encoder, is_first, piece is not None)
            run = []
            if piece is None:
                tokens += [_Token(i, "special") for i in encoder.suffix]
            elif piece.kind == "prompt":
                tokens += [_Token(encoder.filler_id, "prompt")] * piece.count
            elif piece.kind == "answer":
                slot = len(tokens)
                tokens += [_Token(i, "answer") for i in fill.ids]
                if fill.is_last:
                    break
            else:
                tokens.append(_Token(_special(encoder.sep_id, "separator", "{sep}"), "special"))
        return [replace(t, place=i) for i, t in enumerate(tokens)], slot

    def _truncate(self, tokens: list[_Token], max_length: int, name: str) -> list[_Token]:
        excess = len(tokens) - max_length
        if excess <= 0:
            return tokens
        sizes = {f: sum(t.field == f for t in tokens) for f in self.fields}
        for field, cut in _cuts(sizes, excess, self.truncate).items():
            sizes[field] -= cut
            excess -= cut
        if excess > 0:
            raise TemplateError(
                f"the example needs at least {max_length + excess} positions for its slots, literals and one token per "
                f"field, the backbone has {max_length}.",
                where=name,
                fix="Shorten the prompt or the template, or allow more fields in task.truncate.",
            )
        kept, used = [], dict.fromkeys(sizes, 0)
        for token in tokens:
            if token.field is not None:
                used[token.field] += 1
                if used[token.field] > sizes[token.field]:
                    continue
            kept.append(token)
        return kept


@dataclass(frozen=True)
class _Token:
    id: int
    kind: str
    field: str | None = None
    place: int = -1


def _add_text(pieces: list[Piece], text: str) -> None:
    """Append literal text, joined to literal text before it."""
    if text and pieces and pieces[-1].kind == "text":
        pieces[-1] = Piece("text", pieces[-1].value + text)
    elif text:
        pieces.append(Piece("text", text))


def _read_piece(body: str, source: str, where: str) -> Piece:
    head, colon, tail = (part.strip() for part in body.partition(":"))
    if body in ("answer", "sep"):
        return Piece(body)  # type: ignore[arg-type]
    if head == "prompt":
        if colon and not (tail.isdecimal() and int(tail) > 0):
            raise TemplateError(f"a slot is written {{prompt:N}} with N of at least 1, got {{{body}}}.", where=where)
        return Piece("prompt", count=int(tail) if colon else 0)
    name = tail if head == "field" and colon else body
    if not name:
        raise TemplateError(f"there are empty braces in {source!r}.", where=where)
    return Piece("field", name)


def _fill_prompt(pieces: list[Piece], length: int, where: str) -> list[Piece]:
    """Give `{prompt}` its length and check the sum."""
    slots = [p for p in pieces if p.kind == "prompt"]
    if not slots:
        raise TemplateError("there is no prompt slot.", where=where, fix="Write {prompt} where the prompt belongs.")
    if any(p.count == 0 for p in slots):
        if len(slots) > 1:
            raise TemplateError(
                "{prompt} takes the whole prompt, so it must be the only slot.",
                where=where,
                fix="Number all slots: {prompt:3} ... {prompt:2}.",
            )
        return [Piece("prompt", count=length) if p.kind == "prompt" else p for p in pieces]
    total = sum(p.count for p in slots)
    if total != length:
        raise TemplateError(
            f"the slots sum to {total}, prompt.length is {length}.",
            where=where,
            fix=f"Set prompt.length={total}, or change the slots.",
        )
    return pieces


def _encode_run(
    run: list[Piece], fields: Mapping[str, str], encoder: TextEncoder, is_first: bool, before_slot: bool
) -> list[_Token]:
    """Tokenize a run of literals and fields as one string; a token belongs to the field where it ends."""
    text, owners = "", []
    for i, piece in enumerate(run):
        value = piece.value if piece.kind == "text" else fields.get(piece.value, "").strip()
        if is_first and not text:
            value = value.lstrip()
        if before_slot and i == len(run) - 1:
            value = value.rstrip()
        owners.append((len(text), len(text) + len(value), piece.value if piece.kind == "field" else None))
        text += value
    pieces = encoder.encode(text.rstrip(" "))  # a space belongs to what follows; alone, byte-level BPE makes it a piece
    tokens = []
    for token, (start, stop) in zip(pieces.ids, pieces.spans, strict=True):
        middle = max(start, stop - 1)  # a byte-level piece may start with the space before its word
        owner = next((o for a, b, o in owners if a <= middle < b), None)
        tokens.append(_Token(token, "field" if owner is not None else "text", owner))
    return tokens


def _special(token: int | None, what: str, piece: str) -> int:
    if token is None:
        raise TemplateError(f"this tokenizer has no {what} token for {piece}.", where="task.template")
    return token


def _cuts(sizes: Mapping[str, int], excess: int, order: Sequence[str]) -> dict[str, int]:
    """How many tokens each field loses; every field keeps at least one token."""
    room = {f: max(0, n - 1) for f, n in sizes.items()}
    cuts = dict.fromkeys(sizes, 0)
    if order:
        for field in order:
            cuts[field] = min(room[field], excess - sum(cuts.values()))
        return cuts
    for _ in range(min(excess, sum(room.values()))):
        longest = max(sizes, key=lambda f: (room[f] > cuts[f], sizes[f] - cuts[f]))
        cuts[longest] += 1
    return cuts
