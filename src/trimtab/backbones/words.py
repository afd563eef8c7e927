"""The whole words of a vocabulary: which tokens are one, what is near to one, and what a model would put in its place.

A word may be swapped if it is one piece of letters, two of them or more, and the pieces beside it belong to other
words. What stands beside an apostrophe or a hyphen is left: WordPiece does not say whether a space was there. Two words
are of one form if both have, or both lack, the space that byte-level BPE and SentencePiece write before a word, and
both are in lower case, capitalized or in capitals; mixed cases have no form. A piece without that space counts as a
word only if the vocabulary has it with one, too. Label words have no form, however they are written. Pieces that only
begin words are not told from words; a model that sees both sides of a gap does not propose them.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Sequence
from functools import cached_property
from typing import NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from trimtab.backbones.backbone import Backbone
from trimtab.backbones.proposals import ask, propose
from trimtab.types import Batch, Encoded

BYTES_MARK = "Ġ"
MARKS = (BYTES_MARK, "▁")
"""How byte-level BPE and SentencePiece write the space before a word."""
_JOINERS = ("'", "’", "-")
_INSIDE = "##"
_CHUNK = 8192
_REMEMBERED = 100_000
"""Words of texts for which a frozen model's proposals are kept, some 400 bytes each."""


class _Tables(NamedTuple):
    """By token id.

    Attributes:
        words: the text of the piece, without the mark of a space or of a continuation.
        forms: the form of a whole word, -1 for everything else.
        starts: begins with a letter or a digit.
        ends: ends with one, or with a joiner.
        inner: belongs to the word before it, where there is one.
        joins: what follows without a space belongs to the same word.
        is_bare: has no mark.
    """

    words: list[str]
    forms: Int[Tensor, "V"]
    starts: Bool[Tensor, "V"]
    ends: Bool[Tensor, "V"]
    inner: Bool[Tensor, "V"]
    joins: Bool[Tensor, "V"]
    is_bare: Bool[Tensor, "V"]


@final
class Words:
    """See `trimtab.perturbations.Lexicon`.

    Args:
        label_ids: token ids of label words.
    """

    def __init__(self, backbone: Backbone, label_ids: Collection[int] = ()) -> None:
        self._backbone, self._label_ids = backbone, frozenset(label_ids)
        self._is_frozen = not any(p.requires_grad for p in backbone.model.parameters())
        self._near: dict[int, tuple[Tensor, Tensor]] = {}
        self._proposed: dict[tuple[Encoded, int, int], array[int]] = {}

    def whole(self, ids: Int[Tensor, "B T"]) -> Bool[Tensor, "B T"]:
        """Which tokens are whole words of one piece."""
        glued = self._glued(ids)
        after = torch.cat([glued[:, 1:], torch.zeros_like(glued[:, :1])], dim=1)
        return (self._on(self._tables.forms, ids) >= 0) & ~glued & ~after

    def begins(self, ids: Int[Tensor, "B T"]) -> Bool[Tensor, "B T"]:
        """Where words begin, of one piece or more; numbers are words, punctuation is not."""
        return self._on(self._tables.starts, ids) & ~self._glued(ids)

    def word(self, token: int) -> str:
        """The text of a piece, without a space before it."""
        return self._tables.words[token]

    def sentence(self, ids: Sequence[int]) -> tuple[list[str], list[int]]:
        """The words of a text, punctuation among them, and the number of the word that each piece belongs to; -1 for
        special tokens."""
        words, places = list[str](), list[int]()
        special = set(self._backbone.encoder.special_ids.values())
        for token, is_inside in zip(ids, self._glued(torch.tensor([list(ids)]))[0].tolist(), strict=True):
            if token in special:
                places.append(-1)
                continue
            if is_inside:
                words[-1] += self.word(token)
            else:
                words.append(self.word(token))
            places.append(len(words) - 1)
        return words, places

    def decode(self, ids: Sequence[int]) -> str:
        """The text behind ids, without special tokens."""
        return self._backbone.encoder.decode(ids)

    def embed(self, ids: Int[Tensor, "N"], batch: Batch, row: int, position: int) -> Float[Tensor, "N E"]:
        """Embeddings of words as the model would read them in one place of a batch, float32."""
        with torch.no_grad():
            return self._backbone.embed_words(ids, batch, row, position).float()

    def neighbours(self, token: int, count: int, similarity: float) -> tuple[int, ...]:
        """Words of the same form, nearest first by the cosine of their input embeddings.

        Args:
            count: how many at most.
            similarity: the least cosine.
        """
        forms = self._tables.forms
        cosines, ids = self._near[token] if token in self._near else self._cosines(token, forms == forms[token])
        if self._is_frozen:
            self._near[token] = cosines, ids
        return tuple(ids[:count][cosines[:count] >= similarity].tolist())

    def proposals(self, batch: Batch, row: int, position: int, count: int) -> Sequence[int]:
        """What the bare model finds likeliest, of the same form, in the place of a word; nothing where it cannot
        tell."""
        asked = ask(self._backbone, batch, row, position)
        if asked is None:
            return ()
        old = int(batch.ids[row, position])
        forms = self._tables.forms
        key = (asked, int(forms[old]), count)
        likely = self._proposed.get(key)
        if likely is None:
            fits = forms == forms[old]
            logits = propose(self._backbone, asked)[: len(forms)].cpu().masked_fill(~fits, -torch.inf)
            likely = array("i", logits.topk(min(count + 1, int(fits.sum()))).indices.tolist())
            if self._is_frozen:
                self._remember(key, likely)
        return [i for i in likely if i != old][:count]

    def _remember(self, key: tuple[Encoded, int, int], likely: array[int]) -> None:
        """Keep an answer; the oldest one goes where there are too many."""
        if len(self._proposed) >= _REMEMBERED:
            del self._proposed[next(iter(self._proposed))]
        self._proposed[key] = likely

    @torch.no_grad()
    def _cosines(self, token: int, fits: Bool[Tensor, "V"], most: int = 256) -> tuple[Tensor, Tensor]:
        """The cosines of the nearest words, descending, and their ids. One word at a time, so that the result does not
        depend on which others are asked for."""
        weight = self._backbone.embedding_weight.detach()
        own = weight[token].float()
        parts = [c.float() for c in weight[: len(fits)].split(_CHUNK)]
        cosines = torch.cat([(c @ own) / (c.norm(dim=1) * own.norm()).clamp(min=1e-12) for c in parts]).cpu()
        fits = fits.index_fill(0, torch.tensor([token]), False)
        near = cosines.masked_fill(~fits, -torch.inf).topk(min(most, int(fits.sum())))
        return near.values, near.indices

    def _glued(self, ids: Int[Tensor, "B T"]) -> Bool[Tensor, "B T"]:
        """Which tokens belong to the word before them."""
        t = self._tables
        before, here = ids[:, :-1], ids[:, 1:]
        on = self._on
        joined = on(t.ends, before) & on(t.inner, here)
        joined |= on(t.joins, before) & on(t.is_bare, here) & on(t.starts, here)
        return torch.cat([torch.zeros_like(ids[:, :1], dtype=torch.bool), joined], dim=1)

    def _on(self, table: Tensor, ids: Int[Tensor, "B T"]) -> Tensor:
        return table.to(ids.device)[ids]

    @cached_property
    def _tables(self) -> _Tables:
        encoder = self._backbone.encoder
        tokens = encoder.tokens(range(len(encoder.tokenizer)))
        is_marked = any(t.startswith(MARKS) for t in tokens)
        is_bytes = any(t.startswith(MARKS[0]) for t in tokens)  # what is not ASCII stands for bytes there
        marks = MARKS if is_marked else (_INSIDE,)
        words = [t[len(m) :] if (m := next((m for m in marks if t.startswith(m)), "")) else t for t in tokens]
        has_mark = [t != w for t, w in zip(tokens, words, strict=True)]
        spaced = {w for w, m in zip(words, has_mark, strict=True) if m == is_marked}
        labels = {words[i].casefold() for i in self._label_ids}
        forms = [-1] * len(tokens)
        for i in self._backbone.ordinary_words:
            word = words[i]
            is_word = word.isalpha() and len(word) > 1 and (word.isascii() or not is_bytes)
            if is_word and word in spaced and (is_marked or not has_mark[i]) and word.casefold() not in labels:
                forms[i] = _form(word, has_mark[i])
        is_spaced = torch.tensor(has_mark) if is_marked else torch.zeros(len(tokens), dtype=torch.bool)
        is_bare = ~torch.tensor(has_mark)
        starts = torch.tensor([w[:1].isalnum() for w in words])
        opens, joins = (torch.tensor([w[at] in _JOINERS for w in words]) for at in (slice(1), slice(-1, None)))
        return _Tables(
            words,
            torch.tensor(forms),
            starts=starts,
            ends=torch.tensor([w[-1:].isalnum() for w in words]) | joins,
            inner=~is_spaced & (opens | (starts & (is_bare if is_marked else ~is_bare))),
            joins=joins,
            is_bare=is_bare,
        )


def _form(word: str, has_mark: bool) -> int:
    """A number for the way a word is written; -1 for mixed cases."""
    ways = (word.lower(), word.capitalize(), word.upper())
    return 2 * ways.index(word) + has_mark if word in ways else -1
