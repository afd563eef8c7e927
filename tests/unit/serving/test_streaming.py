"""Text that grows: pieces joined are the whole, whatever the pieces are."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.serving.streaming import GrowingText

PIECES = [" the", " cat", "s", "\n", "  ", ".", "é", "END"]


def decode(ids: Sequence[int]) -> str:
    """Bytes, so that half a character may be there."""
    return bytes(ids).decode("utf-8", "replace")


def grown(data: bytes, stops: Sequence[str] = ()) -> tuple[list[str], GrowingText]:
    text, pieces = GrowingText(decode, stops), []
    for byte in data:
        pieces.append(text.grow(byte))
        if text.is_stopped:
            return pieces, text
    return [*pieces, text.finish()], text


@given(st.lists(st.sampled_from(PIECES), max_size=8))
def test_pieces_joined_are_the_text_without_white_space_at_its_ends(parts: list[str]) -> None:
    whole = "".join(parts)
    pieces, text = grown(whole.encode())
    assert "".join(pieces) == whole.strip() == text.said


@given(st.lists(st.sampled_from(PIECES), max_size=8), st.lists(st.sampled_from(["END", "s.", "\n", " c"]), max_size=2))
def test_a_stop_ends_the_text_and_nothing_of_it_is_said(parts: list[str], stops: list[str]) -> None:
    whole = "".join(parts).lstrip()
    pieces, text = grown("".join(parts).encode(), stops)
    found = [whole.find(stop) for stop in stops if stop in whole]
    expected = whole[: min(found)].rstrip() if found else whole.rstrip()
    assert "".join(pieces) == expected == text.said
    assert text.is_stopped == bool(found)


def test_half_a_character_is_held_back() -> None:
    pieces, _ = grown("aé".encode())
    assert pieces == ["a", "", "é", ""]


@pytest.mark.parametrize("data", [b"", b"  "])
def test_nothing_is_nothing(data: bytes) -> None:
    assert "".join(grown(data)[0]) == ""


def test_what_was_said_is_not_taken_back() -> None:
    texts = iter(["do n", "don't", "don't go"])
    text = GrowingText(lambda ids: next(texts))
    assert [text.grow(1), text.grow(2), text.grow(3)] == ["do n", "", ""]
