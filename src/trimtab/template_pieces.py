"""The pieces that a template is read into, and what becomes of them where slots or separators are left out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from trimtab.errors import TemplateError

SLOTS = ("prompt", "decoder_prompt")
_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|([{}])")


@dataclass(frozen=True)
class Piece:
    """One part of a template."""

    kind: Literal["text", "field", "prompt", "decoder_prompt", "answer", "sep", "special"]
    value: str = ""
    count: int = 0


def read_pieces(source: str, where: str) -> list[Piece]:
    """The pieces of a template; `{prompt}` has no length yet.

    Raises:
        TemplateError: unbalanced or empty braces, or a slot without a number of at least 1.
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
    return pieces


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
    if head in SLOTS:
        if colon and not (tail.isdecimal() and int(tail) > 0):
            raise TemplateError(f"a slot is written {{{head}:N}} with N of at least 1, got {{{body}}}.", where=where)
        return Piece(head, count=int(tail) if colon else 0)  # type: ignore[arg-type]
    if head == "special" and tail:
        return Piece("special", tail)
    name = tail if head == "field" and colon else body
    if not name:
        raise TemplateError(f"there are empty braces in {source!r}.", where=where)
    return Piece("field", name)


def filled(pieces: list[Piece], length: int, where: str) -> list[Piece]:
    """Give a slot without a number its length and check the sum."""
    slots = [p for p in pieces if p.kind in SLOTS]
    if not slots:
        raise TemplateError("there is no prompt slot.", where=where, fix="Write {prompt} where the prompt belongs.")
    whole = next((p for p in slots if p.count == 0), None)
    if whole is not None:
        if len(slots) > 1:
            raise TemplateError(
                f"{{{whole.kind}}} takes the whole prompt, so it must be the only slot.",
                where=where,
                fix=f"Number all slots: {{{slots[0].kind}:3}} ... {{{slots[1].kind}:2}}.",
            )
        return [replace(p, count=length) if p is whole else p for p in pieces]
    total = sum(p.count for p in slots)
    if total != length:
        raise TemplateError(
            f"the slots sum to {total}, prompt.length is {length}.",
            where=where,
            fix=f"Set prompt.length={total}, or change the slots.",
        )
    return pieces


def without(pieces: Sequence[Piece], kind: str) -> tuple[Piece, ...]:
    """The pieces but those of one kind; of the white space on both sides of such a piece, that behind it stays."""
    kept: list[Piece] = []
    is_gap = False
    for piece in pieces:
        if piece.kind == kind:
            is_gap = True
            continue
        if is_gap and piece.value[:1].isspace() and kept and kept[-1].kind == "text":
            kept[-1] = Piece("text", kept[-1].value.rstrip())
        if piece.kind == "text":
            _add_text(kept, piece.value)
        else:
            kept.append(piece)
        is_gap = False
    return tuple(kept)


def with_line_breaks(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    """The pieces with a line break for each `{sep}`, without the spaces around it."""
    kept: list[Piece] = []
    is_behind = False
    for piece in pieces:
        if piece.kind == "sep":
            if kept and kept[-1].kind == "text":
                kept[-1] = Piece("text", kept[-1].value.rstrip(" "))
            _add_text(kept, "\n")
        elif piece.kind == "text":
            _add_text(kept, piece.value.lstrip(" ") if is_behind else piece.value)
        else:
            kept.append(piece)
        is_behind = piece.kind == "sep"
    return tuple(kept)


def closed(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    """The pieces without slots, and without the spaces that only kept them apart from the text around them."""
    kept: list[Piece] = []
    is_gap = False
    for piece in pieces:
        if piece.kind == "prompt":
            is_gap = True
            continue
        last = kept[-1] if kept else Piece("special")
        if is_gap and piece.kind == "text" and (last.kind == "special" or last.value[-1:].isspace()):
            piece = replace(piece, value=piece.value.lstrip(" "))
        if is_gap and last.kind == "text" and (piece.kind == "special" or piece.value[:1].isspace()):
            kept[-1] = replace(last, value=last.value.rstrip(" "))
        is_gap = False
        if piece.kind == "text":
            _add_text(kept, piece.value)
        else:
            kept.append(piece)
    return tuple(kept)
