"""A linear head on every word (Devlin et al. 2019, section 5.3; P-tuning v2, Liu et al. 2022, arXiv 2110.07602, section
3.2: sequence tagging).

    score(i, c) = w_c . h_i + b_c,      h_i = the last hidden state at the first token of word i
    loss = - 1/n sum over i of log softmax(score(i))[tag of word i],       n = how many words were read

Symbols: w_c, b_c trained with the prompt, kept with it; H + 1 numbers per tag. A word of several tokens is read at one
of them; the others count for nothing. A token belongs to a word if it covers one of the word's characters, so one that
holds only the space before it does not. Label words play no part, and templates need no `{answer}`.

Words that truncation has cut off, and words that the tokenizer drops, are not read: they are O, and wrong where the
right tag is another. They take no part in training.

A causal model has seen only the beginning of a word when it reads the word's first token, so there the last token is
read. No model of that kind sees what follows the word.

Deviations: the loss is averaged over the words of an example, then over examples. BERT's and P-tuning v2's code average
over all words of a batch, which would make an example's weight depend on its batch mates. No dropout before the head
(P-tuning v2 has 0.1). Encoder-decoders are read in the encoder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from trimtab.backbones import Backbone
from trimtab.errors import DataError
from trimtab.predictions import Entity, Tagged
from trimtab.readouts import WordIds
from trimtab.readouts.head import linear
from trimtab.registry import readouts
from trimtab.span_metrics import entities, tagging
from trimtab.text_encoder import TextEncoder
from trimtab.types import AnswerPlan, Batch, Encoded, Example, Fill, Row

FIELD = "text"
"""The field whose words are tagged."""

_NO_ENTITY = "O"


@final
@readouts.register("tokens")
class Tokens:
    """A linear head on every word of the field `text`, for tags such as those of named entities.

    Args:
        subword: which token of a word is read; `auto`: the last for causal language models, else the first.
    """

    kinds: ClassVar[tuple[str, ...]] = ("tags",)
    trains: ClassVar[bool] = True
    per_read: ClassVar[bool] = True
    writes: ClassVar[bool] = False
    metrics: ClassVar[tuple[str, ...]] = ("entity_f1", "token_accuracy")
    new_tokens: ClassVar[int] = 0
    end_id: ClassVar[int | None] = None

    def __init__(
        self, backbone: Backbone, plans: Sequence[AnswerPlan], *, subword: Literal["auto", "first", "last"] = "auto"
    ) -> None:
        pass

    @classmethod
    def plan(cls, encoder: TextEncoder, words: WordIds, *, subword: str = "auto", **options: Any) -> AnswerPlan:
        """One sequence per example, read once per word."""
        reads_last = encoder.is_causal if subword == "auto" else subword == "last"
        return AnswerPlan((Fill((), ()),), locate=partial(_locate, reads_last), field=FIELD)

    @staticmethod
    def outputs(classes: int) -> int:
        """Rows of the head's weight."""
        return classes

    def scores(
        self, hidden: Float[Tensor, "B A H"], batch: Batch, heads: Mapping[str, Tensor] = {}
    ) -> Float[Tensor, "X A C"]:
        """Scores of each word that is read; not a number for rows without a prompt, which have no head."""
        return linear(hidden[batch.first_row].float(), batch.prompt_of_example, heads)

    def loss(self, scores: Float[Tensor, "X A C"], labels: Int[Tensor, "X A"]) -> Float[Tensor, "X"]:
        """Mean cross-entropy over the words of each example; 0 where none is read or all their tags are unknown."""
        known = labels >= 0
        finite = scores.masked_fill(~known[..., None], 0.0)  # padding may be -inf
        each = cross_entropy(finite.flatten(0, 1), labels.clamp(min=0).flatten(), reduction="none").view(labels.shape)
        return torch.where(known, each, 0.0).sum(1) / known.sum(1).clamp(min=1)

    def distribution(
        self, scores: Float[Tensor, "X A C"], labels: Int[Tensor, "X A"]
    ) -> tuple[Float[Tensor, "X A C"], Bool[Tensor, "X A"]]:
        """Log-probabilities of the tags of each word, and which words have a known one."""
        known = labels >= 0
        return scores.masked_fill(~known[..., None], 0.0).log_softmax(2), known

    def decide(self, scores: Float[Tensor, "X A C"], rows: Sequence[Row]) -> list[tuple[int, ...]]:
        """The best tag of every word, as a number; -1 for words that were not read."""
        found = []
        for row, best in zip(rows, scores.argmax(-1).tolist(), strict=True):
            tags = [-1] * len(_words(row))
            for word, tag in zip(_read(row), best, strict=False):  # those of shorter rows are padded
                tags[word] = tag
            found.append(tuple(tags))
        return found

    def measure(
        self, rows: Sequence[Row], answers: Sequence[tuple[int, ...]], classes: Sequence[str]
    ) -> dict[str, Any]:
        """Precision, recall and F1 of entities, accuracy over words; how many words were not read, if any."""
        unread = sum(tag < 0 for tags in answers for tag in tags)
        found = tagging([row.origin.tags for row in rows], [_named(tags, classes) for tags in answers])
        return found | ({"unread": unread} if unread else {})

    def records(self, rows: Sequence[Row], scores: Float[Tensor, "X A C"], classes: Sequence[str]) -> list[Tagged]:
        """The words, their tags and the entities that these say."""
        found = []
        for row, numbers in zip(rows, self.decide(scores, rows), strict=True):
            example, words, tags = row.origin, _words(row), _named(numbers, classes)
            its = tuple(Entity(kind, " ".join(words[a:b]), a, b) for kind, a, b in entities(tags))
            found.append(Tagged(example.id, words, tags, its, example.tags or None))
        return found

    def missing(self, example: Example, classes: Sequence[str]) -> str | None:
        """Tags; they may be others than the task's, which were not seen in training."""
        return None if example.tags else "the example has no tags."

    def constant(self, rows: Sequence[Row], metric: str) -> float | None:
        """Accuracy of the most frequent tag. One tag for every word names no entity, so of F1 it says nothing."""
        if metric != "token_accuracy":
            return None
        counts = Counter(tag for row in rows for tag in row.origin.tags)
        return max(counts.values()) / counts.total()


def _words(row: Row) -> tuple[str, ...]:
    return _words_of(row.origin)


def _words_of(example: Example) -> tuple[str, ...]:
    """As they were given, else what white space separates."""
    return example.words or tuple(example.fields[FIELD].split())


def _named(tags: Sequence[int], classes: Sequence[str]) -> tuple[str, ...]:
    return tuple(classes[tag] if tag >= 0 else _NO_ENTITY for tag in tags)


def _read(row: Row) -> list[int]:
    """Which words are read, in the order of the reads."""
    return sorted(_tokens_of_words(row.encoded, row.origin))


def _locate(
    reads_last: bool, encoded: Encoded, example: Example, classes: Sequence[str]
) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """One position per word that has tokens left, and the numbers of their tags; -1 for tags that are no class."""
    words, tags = _words_of(example), example.tags
    if tags and len(tags) != len(words):
        raise DataError(
            f"the sentence has {len(words)} words and {len(tags)} tags.", where=example.source or example.id
        )
    found = sorted(_tokens_of_words(encoded, example).items())
    reads = tuple(positions[-1 if reads_last else 0] for _, positions in found)
    numbers = {tag: i for i, tag in enumerate(classes)}
    return reads, tuple(numbers.get(tags[word], -1) for word, _ in found) if tags else None


def _tokens_of_words(encoded: Encoded, example: Example) -> dict[int, list[int]]:
    """The positions of each word's tokens, for words that have any."""
    owner = [-1] * len(example.fields[FIELD])
    for word, (start, stop) in enumerate(_places(_words_of(example), example)):
        owner[start:stop] = [word] * (stop - start)
    found: dict[int, list[int]] = {}
    for position, start, stop in encoded.spans:
        for word in sorted({*owner[start:stop]} - {-1}):
            found.setdefault(word, []).append(position)
    return found


def _places(words: Sequence[str], example: Example) -> list[tuple[int, int]]:
    """Where each word stands in the text: the words are found one behind the other, whatever is between them."""
    text, end, places = example.fields[FIELD], 0, []
    for word in words:
        start = text.find(word, end)
        if start < 0:
            raise DataError(
                f"the word {word!r} is not in the text, or not behind the words before it.",
                where=example.source or example.id,
                fix="Leave the text out: it is made of the words.",
            )
        end = start + len(word)
        places.append((start, end))
    return places
