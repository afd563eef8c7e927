"""The frozen dataclasses that flow from stage to stage, and the letters of their shapes.

| letter | meaning | letter | meaning |
|---|---|---|---|
| B | rows of a batch | K | key/value heads |
| T | sequence length, slots included | D | size of a head |
| P | prompt length | V | vocabulary |
| E | size of the input embeddings | C | classes |
| H | hidden size | A | answer slots |
| L | layers | R | prompts in the table |
| W | label words of a class | X | examples of a batch (B where each is one row) |
| Y | numbers of a label that has several | | |
| U | decoder length | Q | query heads |
| N | layers with keys and values of a prompt | J | prompts that a router chooses from |
| O | tokens of a text that have an offset | G | points of a landscape |
| M | numbers that a point of a landscape has | | |

`E` and `H` differ on ALBERT. Slots of rows with a shorter prompt, or with none, are padded with -1.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a task. `source` is `file:line`, for errors; `label` is None when it is not known.

    `words` are those of the field `text`, where it is given in words, in their order; `tags` has one for each of them,
    none where they are not known. `answers` are right answers that stand in a text, each with the offset of its first
    character; a question that is known to have none has the label "".

    `group` names what is scored together, from the coarsest to the finest: of an answer to a question about a passage
    the passage and the question. Rows whose coarsest group is the same are never divided among splits.

    `prior` is, of a fact, the rank of the label among those of the training facts of its relation, the most frequent
    first: 1 for the majority, 0 for a label that none of them has, None where that is not known.
    """

    id: str
    fields: Mapping[str, str]
    label: str | None
    source: str = ""
    words: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    answers: tuple[tuple[str, int], ...] = ()
    group: tuple[str, ...] = ()
    prior: int | None = None


@dataclass(frozen=True)
class Fill:
    """What stands in the answer slot, and where the model's opinion of a label word is read.

    Attributes:
        ids: token ids in the slot: mask tokens, a sentinel, or the beginning of a label word.
        reads: positions that are read, counted from the slot's first position (-1 is the token before the slot); of an
            encoder-decoder, positions in `decoder`.
        decoder: token ids that the decoder reads; empty for models without one.
        targets: the token ids that belong at the reads, where the readout writes its answer; else empty.
        is_last: the sequence ends with the slot: a causal model must not see what comes after the answer.
    """

    ids: tuple[int, ...]
    reads: tuple[int, ...]
    decoder: tuple[int, ...] = ()
    targets: tuple[int, ...] = ()
    is_last: bool = False


Label = int | tuple[int, ...]
"""The right answer of an example as numbers: a class, or several numbers where the readout wants them; -1 is none."""


@dataclass(frozen=True)
class WordPlan:
    """Where one label word is read: its token j at read j of the sequence rendered with fill `fill`."""

    fill: int
    ids: tuple[int, ...]


@dataclass(frozen=True)
class AnswerPlan:
    """How the answers of one task are read. An example is rendered once per fill, not once per word.

    Attributes:
        fills: the variants of a sequence, at least one; where the answer is written, what stands in the slot before.
        words: by class, by label word; none where the answer is written. Where `label` is given: by group of examples,
            the words that may be answers; none where any may.
        write: for readouts that write: the fill that holds an answer of these token ids; the text names the example in
            errors.
        room: positions that a sequence keeps free for the answer, where that is more than its fills need.
        decoder_room: positions that the decoder of an encoder-decoder needs to write, what it begins with included.
        locate: for readouts that read elsewhere than at the slot: from a rendered example, the example and the classes
            to the positions that are read and the label, None where it is not known. Their templates need no slot.
        field: the field whose tokens `locate` wants to know, see `Encoded.spans`.
        each: a field that stands for each of the example's choices in turn, a sequence for each.
        stride: where `field` is never cut, but read in windows: how many tokens two of them share.
        compose: for readouts whose slot depends on texts of the example (its choices, or the candidate): from their
            token ids, the number of the right one (-1 where it is not known) and the example's id to the fill and the
            label.
        label: for readouts whose answers are tokens: from the token ids of the right answer (none where it is not
            known) and the number of the example's group to the label.
    """

    fills: tuple[Fill, ...]
    words: tuple[tuple[WordPlan, ...], ...] = ()
    write: Callable[[tuple[int, ...], str], Fill] | None = None
    room: int = 0
    decoder_room: int = 0
    locate: Callable[[Encoded, Example, Sequence[str]], tuple[tuple[int, ...], Label | None]] | None = None
    field: str | None = None
    each: str | None = None
    stride: int | None = None
    compose: Callable[[Sequence[tuple[int, ...]], int, str], tuple[Fill, Label]] | None = None
    label: Callable[[tuple[int, ...], int], Label] | None = None

    @property
    def needs_slot(self) -> bool:
        """Whether the template must have an answer slot."""
        return self.locate is None


@dataclass(frozen=True)
class Encoded:
    """A rendered example: token ids of final length, slots included, padding not.

    Attributes:
        ids: token ids; slots hold a filler id that is never looked at.
        slots: positions of the virtual tokens, in the order of the prompt's rows, -1 for those that stand in `decoder`;
            empty for a bare row.
        answer_at: positions that the readout reads; of an encoder-decoder, positions in `decoder`.
        eligible: positions of field text, which perturbations may touch: no literal, special, slot or answer, and no
            label word.
        dropped: tokens cut off by truncation.
        decoder: what the decoder of an encoder-decoder reads.
        answer_slot: where the answer slot begins, -1 where there is none; its tokens are those of the fill.
        decoder_slots: positions of the virtual tokens in `decoder`, -1 for those that stand in `ids`; empty where none
            stands in the decoder.
        targets: token ids that belong at `answer_at`, where the readout writes its answer; else empty.
        spans: of the tokens of the field that the plan names: (position, first character, behind the last character),
            counted in the field's text.
        text: positions of literal and field text: no special token, slot or answer.
    """

    ids: tuple[int, ...]
    slots: tuple[int, ...]
    answer_at: tuple[int, ...]
    eligible: tuple[int, ...] = ()
    dropped: int = 0
    decoder: tuple[int, ...] = ()
    answer_slot: int = -1
    decoder_slots: tuple[int, ...] = ()
    targets: tuple[int, ...] = ()
    spans: tuple[tuple[int, int, int], ...] = ()
    text: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def opened(self) -> Encoded:
        """The sequence without its answer: what a model reads before it writes one of its own.

        `answer_at` is the one position that predicts the first new token, the last that is read. Of an encoder-decoder
        only `decoder` ends there.
        """
        if self.decoder:
            first = self.answer_at[0]
            return replace(self, decoder=self.decoder[: first + 1], answer_at=(first,), targets=())
        end = self.answer_slot
        places = (self.slots, self.eligible, self.text)
        slots, eligible, text = (tuple(p for p in its if p < end) for its in places)
        opened = replace(self, ids=self.ids[:end], slots=slots, eligible=eligible, text=text)
        return replace(opened, answer_at=(end - 1,), targets=())

    def refilled(self, ids: tuple[int, ...], targets: Mapping[int, int | None]) -> Encoded:
        """The sequence of an encoder with other tokens in its slot, which is read at `targets`: place in the slot ->
        the token that belongs there, None where any may."""
        begin, end = self.answer_slot, max(self.answer_at) + 1

        def moved(places: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(p + (len(ids) - (end - begin) if p >= end else 0) for p in places)

        return replace(
            self,
            ids=(*self.ids[:begin], *ids, *self.ids[end:]),
            slots=moved(self.slots),
            eligible=moved(self.eligible),
            text=moved(self.text),
            answer_at=tuple(begin + place for place in targets),
            targets=tuple(-1 if token is None else token for token in targets.values()),
        )

    def without_words(self, words: Mapping[int, Collection[tuple[int, ...]]]) -> Encoded:
        """The same where these words, as token ids, are not eligible. `words` holds them by their first token."""
        eligible, hit = set(self.eligible), set[int]()
        for i in self.eligible:
            for word in words.get(self.ids[i], ()):
                places = range(i, i + len(word))
                if self.ids[i : i + len(word)] == word and eligible.issuperset(places):
                    hit.update(places)
        return replace(self, eligible=tuple(i for i in self.eligible if i not in hit)) if hit else self


@dataclass(frozen=True)
class Row:
    """An encoded example on its way into a batch: which prompt it uses, which readout reads it.

    `key` names the row within its run, so that random streams depend on the row and not on its batch mates. Where label
    words or choices need several sequences (see `AnswerPlan`), `encoded` is the first and `others` are the rest. `gold`
    is the right answer as text, if known: a label word of the class, or free text. `example` is what was rendered,
    and `part` counts the rows that it was rendered to, from 0.
    """

    encoded: Encoded
    label: Label = -1
    prompt: int = -1
    readout: int = 0
    key: int = 0
    others: tuple[Encoded, ...] = ()
    gold: str = ""
    example: Example | None = None
    part: int = 0

    @property
    def origin(self) -> Example:
        """The example; every row that was rendered from a task's has one."""
        assert self.example is not None, "this row was made without an example"
        return self.example

    @property
    def variants(self) -> tuple[Encoded, ...]:
        """One sequence per fill."""
        return (self.encoded, *self.others)

    @cached_property
    def cost(self) -> int:
        """Tokens that the example takes in a batch, those of a decoder and padding between its variants included."""
        return len(self.variants) * max(len(v) + len(v.decoder) for v in self.variants)


@dataclass(frozen=True)
class Batch:
    """Padded rows. `prompt_of[b]` is the row's prompt in the table, or -1 for the bare model.

    A row is a sequence; an example is one row, or several where its label words need them (`example_of`). Labels,
    scores and losses belong to examples, everything else to rows. A label is a class or, where the readout has several
    per example, numbers padded with -1. `answers` counts the real entries of `answer_at`. `targets` are the token ids
    that belong there, padded with -1, where the readout writes its answer. `text` says what is literal or field text,
    None where no row has any. `jitter` is what an example's router is shaken with in training, see `Routing`.
    """

    ids: Int[Tensor, "B T"]
    attention_mask: Int[Tensor, "B T"]
    position_ids: Int[Tensor, "B T"]
    slots: Int[Tensor, "B P"]
    answer_at: Int[Tensor, "B A"]
    answers: Int[Tensor, "B"]
    eligible: Bool[Tensor, "B T"]
    prompt_of: Int[Tensor, "B"]
    keys: Int[Tensor, "B"]
    example_of: Int[Tensor, "B"]
    readout_of: Int[Tensor, "X"]
    labels: Int[Tensor, "X *Y"]
    decoder_ids: Int[Tensor, "B U"] | None = None
    decoder_slots: Int[Tensor, "B P"] | None = None
    targets: Int[Tensor, "B A"] | None = None
    text: Bool[Tensor, "B T"] | None = None
    jitter: Float[Tensor, "X J"] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def first_row(self) -> Int[Tensor, "X"]:
        """The first row of each example; the others follow it."""
        counts = torch.bincount(self.example_of, minlength=len(self.labels))
        return counts.cumsum(0) - counts

    @property
    def prompt_of_example(self) -> Int[Tensor, "X"]:
        """The prompt that an example uses, the same in all its rows."""
        return self.prompt_of[self.first_row]

    @property
    def answer_mask(self) -> Bool[Tensor, "B A"]:
        """Which entries of `answer_at` are real."""
        return torch.arange(self.answer_at.shape[1], device=self.answers.device) < self.answers[:, None]

    @property
    def has_slots(self) -> Bool[Tensor, "B"]:
        """Rows with a prompt at the input."""
        return (self.prompt_of >= 0) & (self.slots >= 0).any(1)

    @property
    def text_position_ids(self) -> Int[Tensor, "B T"]:
        """Positions counted as if there were no slots, those of the slots aside."""
        row, slot = (self.slots >= 0).nonzero(as_tuple=True)
        said = self.attention_mask.index_put((row, self.slots[row, slot]), torch.zeros_like(row))
        return (said.cumsum(1) - 1).clamp(min=0)

    def rows_of(self, examples: Int[Tensor, "N"]) -> Int[Tensor, "B"]:
        """The rows of some examples."""
        return torch.isin(self.example_of, examples).nonzero()[:, 0]

    def of(self, examples: Int[Tensor, "N"]) -> Batch:
        """The batch of some examples, in ascending order, with no more reads than they have."""
        rows = self.rows_of(examples)
        of_examples = {"readout_of", "labels", "jitter"}
        given = {n: v[examples if n in of_examples else rows] for n, v in vars(self).items() if v is not None}
        most = int(given["answers"].max())
        given |= {n: v[:, :most] for n, v in given.items() if n in ("answer_at", "targets")}
        given["example_of"] = torch.searchsorted(examples, given["example_of"])
        return replace(self, **given)

    def is_said(self, row: int) -> Bool[Tensor, "T"]:
        """Which positions of a row hold text, special tokens included: neither slots nor pads."""
        kept = self.attention_mask[row].bool()
        kept[self.slots[row][self.slots[row] >= 0]] = False
        return kept

    @property
    def is_bare(self) -> bool:
        """No row has a prompt."""
        return bool((self.prompt_of < 0).all())

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return replace(self, **{k: v.to(device) for k, v in vars(self).items() if v is not None})
