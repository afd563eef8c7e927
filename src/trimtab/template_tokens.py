"""The tokens of a template's pieces, each with the field that owns it, and which of them stay where there is no room.

A run of literals and fields is tokenized as one string, so pieces at field borders are those of ordinary text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from trimtab.errors import TemplateError
from trimtab.template_pieces import Piece
from trimtab.text_encoder import TextEncoder


class Token(NamedTuple):  # there are many of them
    """A token of a sequence before it is cut.

    Attributes:
        kind: `text`, `field`, `prompt`, `answer` or `special`.
        field: which field it belongs to, if any.
        place: its position.
        span: characters of its field, counted from where that begins.
    """

    id: int
    kind: str
    field: str | None = None
    place: int = -1
    span: tuple[int, int] = (0, 0)


def encode_run(
    run: Sequence[Piece], fields: Mapping[str, str], encoder: TextEncoder, is_first: bool, before_slot: bool
) -> list[Token]:
    """Tokens of literals and fields that stand side by side; white space at the beginning of the sequence (`is_first`)
    and before a slot belongs to no piece.
    """
    values = _values(run, fields)
    if is_first:
        for i, value in enumerate(values):
            values[i] = value.lstrip()
            if values[i]:
                break
    if before_slot and values:
        values[-1] = values[-1].rstrip()
    # a space belongs to what follows; alone, byte-level BPE makes it a piece
    return _owned(run, values, encoder, "".join(values).rstrip(" "))


def encode_verbatim(
    run: Sequence[Piece], fields: Mapping[str, str], encoder: TextEncoder, is_first: bool, before_slot: bool
) -> list[Token]:
    """The same for text that stands as written, but for spaces right before slots."""
    values = _values(run, fields)
    text = "".join(values)
    return _owned(run, values, encoder, text.rstrip(" ") if before_slot else text, is_first=is_first)


def truncated(tokens: list[Token], most: int, fields: Sequence[str], order: Sequence[str], name: str) -> list[Token]:
    """At most so many of the tokens: fields lose their ends, nothing else is cut.

    Args:
        fields: the fields of the template.
        order: which of them may be cut, first to last; empty means every field, the longest first.
        name: the example's id or file:line, for errors.

    Raises:
        TemplateError: what may not be cut does not fit.
    """
    excess = len(tokens) - most
    if excess <= 0:
        return tokens
    sizes = {f: sum(t.field == f for t in tokens) for f in fields}
    for field, cut in _cuts(sizes, excess, order).items():
        sizes[field] -= cut
        excess -= cut
    if excess > 0:
        raise TemplateError(
            f"the example needs at least {most + excess} positions for its slots, literals and one token per field, "
            f"there are {most}.",
            where=name,
            fix="Shorten the prompt or the template, let the model write less, or cut more fields (task.truncate).",
        )
    kept, used = [], dict.fromkeys(sizes, 0)
    for token in tokens:
        if token.field is not None:
            used[token.field] += 1
            if used[token.field] > sizes[token.field]:
                continue
        kept.append(token)
    return kept


def _values(run: Sequence[Piece], fields: Mapping[str, str]) -> list[str]:
    """What each piece says."""
    return [piece.value if piece.kind == "text" else fields.get(piece.value, "").strip() for piece in run]


def _owned(
    run: Sequence[Piece], values: Sequence[str], encoder: TextEncoder, text: str, *, is_first: bool = True
) -> list[Token]:
    """Each token belongs to the field where it ends; its span is counted from where the field begins."""
    ends = list(accumulate(map(len, values)))
    owners = [(end - len(value), end, piece.value if piece.kind == "field" else None)
              for piece, value, end in zip(run, values, ends, strict=True)]  # fmt: skip
    tokens, pieces = [], encoder.encode(text, is_first=is_first)
    for token, (start, stop) in zip(pieces.ids, pieces.spans, strict=True):
        middle = max(start, stop - 1)  # a byte-level piece may start with the space before its word
        begun, owner = next(((a, o) for a, b, o in owners if a <= middle < b), (0, None))
        span = (max(0, start - begun), stop - begun)
        tokens.append(Token(token, "field" if owner is not None else "text", owner, span=span))
    return tokens


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
