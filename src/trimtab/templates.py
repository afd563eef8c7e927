"""Templates: text pieces, fields, prompt slots and the answer slot. The final length of a sequence is decided here.

    {prompt:3} {premise} Question: {hypothesis}? {prompt:2} Answer: {answer}.

| piece | meaning |
|---|---|
| `{prompt:N}` | N slots for virtual tokens; all numbered slots sum to the prompt length |
| `{prompt}` | all slots of the prompt |
| `{decoder_prompt:N}`, `{decoder_prompt}` | the same for slots in the decoder of an encoder-decoder |
| `{answer}` | the answer slot: a mask token, a sentinel, the label word itself, or nothing, as the readout needs |
| `{sep}` | the tokenizer's separator token, or what it ends texts with (T5); a line break where it has neither |
| `{special:TOKEN}` | another special token, such as `<|im_end|>` |
| `{name}` | a field of the example; `{field:name}` where the name is one of the words above |
| `{{`, `}}` | a literal brace |

Slots of the decoder stand right after its start token, wherever the piece is written; the text is tokenized as if it
were not there. Rows of the prompt go to slots in the order in which the pieces are written: with
`{prompt:5} {text} {decoder_prompt:5} {answer}` the first five are read by the encoder and the last five by the decoder.

Text between slots is tokenized as one string, so pieces at field borders are those of ordinary text. White space at the
beginning of the sequence and before slots belongs to no piece: byte-level vocabularies keep the space before a word in
the word. Special tokens written inside a field are plain text. Truncation cuts fields only, never a slot, an answer or
a literal; padding comes later, so masks, labels and position ids never need to be shifted.

A *verbatim* template (see `trimtab.chat`) writes all special tokens itself, and its white space stands as written, but
for spaces right before slots and the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from trimtab.errors import TemplateError, suggest
from trimtab.template_pieces import SLOTS, Piece, closed, filled, read_pieces, with_line_breaks, without
from trimtab.template_tokens import Token, encode_run, encode_verbatim, truncated
from trimtab.text_encoder import TextEncoder
from trimtab.types import Encoded, Fill


@dataclass(frozen=True)
class Template:
    """A parsed template. Build with `Template.parse`.

    Attributes:
        source: the template as written.
        pieces: its parts in order, without slots of the decoder.
        length: how many slots there are; 0 where no prompt stands in the text.
        truncate: fields that may be cut, first to last; empty means every field, the longest first.
        decoder_rows: which rows of the prompt stand in the decoder.
        is_verbatim: it writes all special tokens itself, and its white space stands as written.
    """

    source: str
    pieces: tuple[Piece, ...]
    length: int
    truncate: tuple[str, ...] = ()
    decoder_rows: tuple[int, ...] = ()
    is_verbatim: bool = False

    @classmethod
    def parse(
        cls,
        source: str,
        length: int,
        truncate: Sequence[str] = (),
        where: str = "task.template",
        *,
        is_verbatim: bool = False,
    ) -> Template:
        """Parse a template for a prompt with `length` virtual tokens in the text; for one with none, its slots are
        left out.

        Raises:
            TemplateError: unbalanced braces, several answer slots, no prompt slot, slots that do not sum to `length`, a
                slot without a number beside others, no field, or a `truncate` entry that is not a field.
        """
        pieces = read_pieces(source, where)
        if not length:
            bare = closed(pieces) if is_verbatim else without(without(pieces, "prompt"), "decoder_prompt")
            template = cls(source, bare, 0, tuple(dict.fromkeys(truncate)), (), is_verbatim)
            template._check(where)
            return template
        pieces = filled(pieces, length, where)
        sites = [piece.kind for piece in pieces if piece.kind in SLOTS for _ in range(piece.count)]
        decoder_rows = tuple(row for row, site in enumerate(sites) if site == "decoder_prompt")
        written = without(pieces, "decoder_prompt")
        template = cls(source, written, length, tuple(dict.fromkeys(truncate)), decoder_rows, is_verbatim)
        template._check(where)
        return template

    @property
    def fields(self) -> list[str]:
        """Names of the fields used, in order of appearance."""
        return list(dict.fromkeys(p.value for p in self.pieces if p.kind == "field"))

    @property
    def answer_is_spaced(self) -> bool:
        """Whether white space stands right before the answer slot."""
        before = self._before_answer
        last = before.value[-1:]
        return before.kind == "text" and (last == " " if self.is_verbatim else last.isspace())

    @property
    def answer_lead(self) -> str | None:
        """The text between the answer and the piece before that text; None where answers are tokenized alone."""
        before = self._before_answer
        if not self.is_verbatim:
            return None
        return before.value.rstrip(" ") if before.kind == "text" else ""

    @property
    def _before_answer(self) -> Piece:
        """The piece before the answer slot."""
        at = next((i for i, p in enumerate(self.pieces) if p.kind == "answer"), 0)
        return self.pieces[at - 1] if at else Piece("sep")

    def check_answer(self, where: str = "task.template") -> None:
        """A readout that reads at the answer slot needs one.

        Raises:
            TemplateError: there is none.
        """
        self._check_answers(where, least=1)

    def _check_answers(self, where: str, least: int) -> None:
        answers = sum(p.kind == "answer" for p in self.pieces)
        if not least <= answers <= 1:
            raise TemplateError(
                f"a template needs exactly one answer slot, got {answers} in {self.source!r}.",
                where=where,
                fix="Write {answer} where the label word belongs.",
            )

    def _check(self, where: str) -> None:
        self._check_answers(where, least=0)
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
        if self.is_verbatim:
            return replace(self, pieces=closed(self.pieces), length=0, decoder_rows=())
        return Template(self.source, without(self.pieces, "prompt"), 0, self.truncate)

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

    def check_decoder(self, encoder: TextEncoder, where: str = "task.template") -> None:
        """Slots in the decoder need a decoder.

        Raises:
            TemplateError: the backbone has none.
        """
        if self.decoder_rows and encoder.decoder_start_id is None:
            raise TemplateError(
                f"{{decoder_prompt}} needs an encoder-decoder, and this backbone is none; got {self.source!r}.",
                where=where,
                fix="Write {prompt}, or choose a backbone.model such as T5 or BART.",
            )

    def render(
        self,
        fields: Mapping[str, str],
        encoder: TextEncoder,
        max_length: int,
        name: str,
        fill: Fill | None = None,
        spans_of: str | None = None,
        keep: tuple[int, int] | None = None,
    ) -> Encoded:
        """Token ids of one example, at most `max_length` of them, slots and special tokens included.

        Args:
            fields: the example's text by field name.
            encoder: the backbone's text encoder.
            max_length: how many positions the backbone has.
            name: the example's id or file:line, for errors.
            fill: what stands in the answer slot; the mask token where nothing is given.
            spans_of: the field whose tokens' spans are wanted.
            keep: of that field, the tokens from the first of these numbers up to the second; see `windows`.

        Raises:
            TemplateError: all fields are empty, or slots, answer and literals do not fit even with fields cut to one
                token each, or what the decoder reads does not fit.
        """
        if not any(fields.get(f, "").strip() for f in self.fields):
            raise TemplateError(f"all fields of the template ({', '.join(self.fields)}) are empty.", where=name)
        if fill is None:
            self.check_answer()
            fill = Fill((_special(encoder.mask_id, "mask", "{answer}"),), (0,))
        tokens, before = self._tokens(fields, encoder, fill)
        if keep is not None:
            own = iter(range(len(tokens)))
            tokens = [t for t in tokens if t.field != spans_of or keep[0] <= next(own) < keep[1]]
        kept = truncated(tokens, max_length, self.fields, self.truncate, name)
        whole = fields.get(spans_of or "", "")
        lead = len(whole) - len(whole.lstrip())  # fields are rendered without white space at their ends
        ids, slots, eligible = [], [], []
        for position, token in enumerate(kept):
            ids.append(token.id)
            if token.kind == "prompt":
                slots.append(position)
            elif token.kind == "field":
                eligible.append(position)
        slot = sum(t.place < before for t in kept)
        first = len(self.decoder_rows) if fill.decoder else slot
        decoder = (*fill.decoder[:1], *(encoder.filler_id for _ in self.decoder_rows), *fill.decoder[1:])
        if len(decoder) > max_length:
            raise TemplateError(
                f"the decoder reads {len(decoder)} tokens, slots included; at most {max_length} fit.",
                where=name,
                fix="Shorten the prompt or the label words.",
            )
        if first + min(fill.reads, default=0) < 0:
            raise TemplateError("there is no token before the answer that the model could read.", where=name)
        slots_by_row, decoder_slots = self._sites(slots)
        return Encoded(
            tuple(ids),
            slots_by_row,
            answer_at=tuple(first + r for r in fill.reads),
            eligible=tuple(eligible),
            dropped=len(tokens) - len(kept),
            decoder=decoder,
            answer_slot=slot if before >= 0 else -1,
            decoder_slots=decoder_slots,
            targets=fill.targets,
            spans=tuple((i, t.span[0] + lead, t.span[1] + lead) for i, t in enumerate(kept) if t.field == spans_of)
            if spans_of is not None
            else (),
            text=tuple(i for i, t in enumerate(kept) if t.kind in ("text", "field")),
        )

    def windows(
        self,
        fields: Mapping[str, str],
        encoder: TextEncoder,
        max_length: int,
        name: str,
        fill: Fill,
        of: str,
        stride: int,
    ) -> list[tuple[int, int]]:
        """Which tokens of a long field each of several sequences holds, so that every token is in one of them and
        nothing else is cut.

        Args:
            of: the field.
            stride: tokens that a window shares with the one before; at most half a window.

        Raises:
            TemplateError: the field is empty, or the rest leaves no room for it.
        """
        tokens, _ = self._tokens(fields, encoder, fill)
        size = sum(t.field == of for t in tokens)
        room = max_length - len(tokens) + size
        if not size:
            raise TemplateError(f"the field {of!r} is empty.", where=name)
        if room < 1:
            raise TemplateError(
                f"slots, literals and other fields take {len(tokens) - size} positions of {max_length} and leave none "
                f"for the field {of!r}.",
                where=name,
                fix="Shorten the prompt or the other fields, or raise task.max_length.",
            )
        step = room - min(stride, room // 2)
        return [(at, min(at + room, size)) for at in range(0, max(1, size - room + step), step)]

    def _sites(self, slots: list[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Where each row of the prompt stands, in the text and in the decoder; -1 where it does not."""
        if not self.decoder_rows:
            return tuple(slots), ()
        text, decoder = iter(slots), iter(range(1, 1 + self.length))
        sites = [(-1, next(decoder)) if r in self.decoder_rows else (next(text), -1) for r in range(self.length)]
        return tuple(t for t, _ in sites), tuple(d for _, d in sites)

    def _tokens(self, fields: Mapping[str, str], encoder: TextEncoder, fill: Fill) -> tuple[list[Token], int]:
        """All tokens, untruncated, and the place of the answer slot, -1 without one. Runs of text and fields are
        tokenized as one string each.
        """
        tokens = [] if self.is_verbatim else [Token(i, "special") for i in encoder.prefix]
        run: list[Piece] = []
        slot = -1
        pieces = self.pieces if encoder.sep_id is not None else with_line_breaks(self.pieces)
        for piece in (*pieces, None):
            if piece is not None and piece.kind in ("text", "field"):
                run.append(piece)
                continue
            if self.is_verbatim:
                before_slot = piece is not None and piece.kind in ("prompt", "answer")
                tokens += encode_verbatim(run, fields, encoder, not tokens, before_slot)
            else:
                is_first = all(t.kind in ("special", "prompt") for t in tokens)
                tokens += encode_run(run, fields, encoder, is_first, piece is not None)
            run = []
            if piece is None:
                tokens += [] if self.is_verbatim else [Token(i, "special") for i in encoder.suffix]
            elif piece.kind == "prompt":
                tokens += [Token(encoder.filler_id, "prompt")] * piece.count
            elif piece.kind == "answer":
                slot = len(tokens)
                tokens += [Token(i, "answer") for i in fill.ids]
                if fill.is_last:
                    break
            elif piece.kind == "special":
                token = encoder.special_ids.get(piece.value)
                tokens.append(Token(_special(token, "special", f"{{special:{piece.value}}}"), "special"))
            elif encoder.sep_id is not None:
                tokens.append(Token(encoder.sep_id, "special"))
        return [t._replace(place=i) for i, t in enumerate(tokens)], slot


def _special(token: int | None, what: str, piece: str) -> int:
    if token is None:
        raise TemplateError(f"this tokenizer has no {what} token for {piece}.", where="task.template")
    return token
