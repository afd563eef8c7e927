"""A tokenizer as templates and label words see it: plain text in between, special tokens at both ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

_GUARD = "\ue0a1\ue0a2"
"""A token of private-use characters that stands for a special token before a text."""


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
        is_causal: the model reads from left to right (the tokenizers of some such models have a mask token, too).

    Attributes:
        prefix: ids of the special tokens before a text.
        suffix: ids of those after it.
        mask_id: the mask token; None where there is none.
        sep_id: what separates two texts: the separator token, else the token that ends every text (T5's `</s>`); None
            where there is neither.
        sentinel_id: the first of T5's sentinels; None where there is none.
        second_sentinel_id: the sentinel that ends what fills the first.
        third_sentinel_id: the next one.
        end_id: what ends a text that the model writes: the end-of-sequence token, else the separator; None where the
            tokenizer has neither.
    """

    def __init__(self, tokenizer: Any, decoder_start_id: int | None = None, is_causal: bool = False) -> None:
        self.tokenizer, self.decoder_start_id, self.is_causal = tokenizer, decoder_start_id, is_causal
        bare = tokenizer("a", add_special_tokens=False)["input_ids"]
        full = tokenizer("a")["input_ids"]
        at = next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)
        self.prefix, self.suffix = tuple(full[:at]), tuple(full[at + len(bare) :])
        spaced = tokenizer(" a", add_special_tokens=False)["input_ids"]
        self._adds_space = spaced != bare and self.tokens(bare)[0].startswith("▁")
        self.mask_id: int | None = tokenizer.mask_token_id
        sentinels = [self._known(f"<extra_id_{i}>") for i in range(3)]
        self.sentinel_id, self.second_sentinel_id, self.third_sentinel_id = sentinels
        self.sep_id: int | None = tokenizer.sep_token_id
        self.end_id: int | None = self.sep_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id
        if self.sep_id is None and self.end_id in self.suffix:
            self.sep_id = self.end_id
        self.unk_id: int | None = tokenizer.unk_token_id
        self.filler_id: int = self.unk_id if self.unk_id is not None else 0

    def _known(self, token: str) -> int | None:
        found: int | None = self.tokenizer.convert_tokens_to_ids(token)
        return None if found == self.tokenizer.unk_token_id else found

    @cached_property
    def special_ids(self) -> dict[str, int]:
        """Special tokens: text -> id."""
        return {t.content: i for i, t in self.tokenizer.added_tokens_decoder.items() if t.special}

    def encode(self, text: str, *, is_first: bool = True) -> TextPieces:
        """Tokenize plain text; nothing in it is read as a special token.

        Args:
            text: any text.
            is_first: whether it begins a sequence or follows a special token; SentencePiece vocabularies put a space
                before the first word of a sequence only.
        """
        if not text:
            return TextPieces([], [])
        found = self._encode_first(text) if is_first else self._encode_inside(text)
        special = self._never_text.intersection(found.ids)
        cuts = [a + 1 for i, (a, b) in zip(found.ids, found.spans, strict=True) if i in special and b > a + 1]
        if not cuts:
            return found
        ids, spans = [], []  # a Unigram vocabulary finds the names of its special tokens by itself, so these are cut
        for start, stop in pairwise((0, *cuts, len(text))):
            part = self.encode(text[start:stop], is_first=is_first and not start)
            ids += part.ids
            spans += [(a + start, b + start) for a, b in part.spans]
        return TextPieces(ids, spans)

    def answer(self, word: str, *, spaced: bool, lead: str | None = None) -> tuple[int, ...]:
        """Token ids of an answer.

        Args:
            word: the answer.
            spaced: whether a space stands before it.
            lead: the text that it continues, where the same answer may have other tokens after other texts.
        """
        text = f" {word}" if spaced else word
        if lead is None:
            return tuple(self.encode(text).ids)
        before, whole = (self.encode(t, is_first=False).ids for t in (lead, lead + text))
        is_clean = whole[: len(before)] == before
        return tuple(whole[len(before) :] if is_clean else self.encode(text, is_first=False).ids)

    def split(self, text: str) -> list[tuple[str, bool]]:
        """Text cut at the special tokens that the tokenizer finds in it: pairs of (text or token, is a token)."""
        out = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        names = {i: token for token, i in self.special_ids.items()}
        parts, end = [], 0
        for i, (start, stop) in zip(out["input_ids"], out["offset_mapping"], strict=True):
            if names.get(i) == text[start:stop].strip():  # what is unknown has the id of a special token too
                parts += [(text[end:start], False), (names[i], True)]
                end = stop
        return [(part, is_token) for part, is_token in (*parts, (text[end:], False)) if part]

    @cached_property
    def _never_text(self) -> set[int]:
        return {*self.special_ids.values(), *self.tokenizer.all_special_ids} - {self.unk_id}

    def _encode_first(self, text: str) -> TextPieces:
        """SentencePiece puts a space before every text. Where the text begins with one that is it, not a second one, as
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

    def decode(self, ids: Sequence[int]) -> str:
        """The text behind ids, without special tokens and without white space at its ends."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def _encode_inside(self, text: str) -> TextPieces:
        n = len(_GUARD)
        out = self._guarded.encode(_GUARD + text.replace(_GUARD, "\ufffd" * n), add_special_tokens=False)
        return TextPieces(list(out.ids[1:]), [(a - n, b - n) for a, b in out.offsets[1:]])

    @cached_property
    def _guarded(self) -> Any:
        """The tokenizer with one more token to begin a text with. That one is not special, as these are plain text."""
        from tokenizers import AddedToken, Tokenizer

        copy = Tokenizer.from_str(self.tokenizer.backend_tokenizer.to_str())
        copy.no_padding()
        copy.no_truncation()
        copy.add_tokens([AddedToken(_GUARD, normalized=False)])
        copy.encode_special_tokens = True
        return copy

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """The pieces behind ids, as text."""
        return list(self.tokenizer.convert_ids_to_tokens(list(ids)))
