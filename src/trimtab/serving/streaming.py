"""Text from tokens as they come: what has been said is never taken back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

_UNFINISHED = "\ufffd"
"""What stands for bytes that are no character yet."""


@final
class GrowingText:
    """The text of tokens that come one by one.

    White space at both ends is dropped, as `TextEncoder.decode` does, so that pieces joined are the whole. What may yet
    turn out to be white space at the end, half a character or the beginning of a stop text is held back.

    Args:
        decode: text of all tokens so far, white space at the ends and all.
        stops: texts that end it, and are not part of it.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str] = ()) -> None:
        self._decode, self._stops = decode, [s for s in stops if s]
        self._held = max((len(s) for s in self._stops), default=1) - 1
        self._ids: list[int] = []
        self.said = ""
        self.is_stopped = False

    def grow(self, token: int) -> str:
        """What is new after one more token; empty where nothing is certain."""
        self._ids.append(token)
        text = self._cut(self._decode(self._ids).lstrip())
        if not self.is_stopped:
            text = text.rstrip(_UNFINISHED)
            text = text[: len(text) - self._held] if self._held else text
        return self._say(text.rstrip())

    def finish(self) -> str:
        """What was held back."""
        return self._say(self._cut(self._decode(self._ids).strip()).rstrip()) if self._ids else ""

    def _cut(self, text: str) -> str:
        found = [at for at in (text.find(stop) for stop in self._stops) if at >= 0]
        if not found:
            return text
        self.is_stopped = True
        return text[: min(found)]

    def _say(self, text: str) -> str:
        if not text.startswith(self.said):
            return ""
        new, self.said = text[len(self.said) :], text
        return new
