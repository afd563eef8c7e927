"""Examples as a user of PEFT gives them to a model: token ids, a mask, labels; and what is read of its output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from correctness.examples import ANSWERS, CLASSES, EXAMPLES, TAGS, WORDS, Example
from correctness.families import END, MASK, tokenizer
from correctness.subject import Cell, NotApplicable, Side

NEW_TOKENS = 6
IGNORED = -100


@dataclass(frozen=True)
class Inputs:
    """What a model is called with, and which columns of each sequence are no pads."""

    given: dict[str, Tensor]
    real: Tensor

    @property
    def length(self) -> int:
        """Columns of the batch, without a prompt."""
        return int(self.real.shape[1])


class Batches:
    """The batches of a cell."""

    def __init__(self, cell: Cell) -> None:
        self.cell, self.tokenizer = cell, tokenizer(cell.family)
        self.label_ids = self.tokenizer.convert_tokens_to_ids([WORDS[name] for name in CLASSES])
        self.end_id, self.mask_id = self.tokenizer.convert_tokens_to_ids([END, MASK])
        self.per_row = 2 if cell.task == "choice" else 1

    @property
    def has_loss(self) -> bool:
        """Whether the model takes the loss by itself; of label words and choices a user takes it of their logits."""
        return self.cell.task not in ("choice", "words")

    # What is read and learned ----------------------------------------------------------------------------------------

    def texts(self, example: Example) -> list[str]:
        """The texts of an example, without the answer."""
        if self.cell.task == "span":
            return [f"{example.question} ? {example.text}"]
        if self.cell.task == "choice":
            return [f"{example.text} {choice}" for choice in example.choices]
        return [
            f"{example.text} {MASK} ." if self.cell.kind == "encoder" and self.cell.task == "words" else example.text
        ]

    def answer(self, row: int) -> list[int]:
        """The tokens to be written."""
        example = EXAMPLES[row]
        text = WORDS[example.label] if self.cell.task == "words" else ANSWERS[example.label]
        return [*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.end_id]

    @property
    def is_written(self) -> bool:
        return self.cell.task in ("words", "text") and self.cell.kind != "encoder"

    def sequences(self, row: int, opened: bool) -> list[list[int]]:
        """Token ids; of a causal model with the answer, unless it is `opened`."""
        found = [self.tokenizer(text)["input_ids"] for text in self.texts(EXAMPLES[row])]
        if self.is_written and self.cell.kind == "causal" and not opened:
            found = [[*found[0], *self.answer(row)]]
        return found

    def inputs(self, rows: Sequence[int], side: Side, labels: bool = False, opened: bool = False) -> Inputs:
        """A batch as a tokenizer pads it, with its mask.

        Causal models get positions with left pads, as transformers asks for in a forward pass (`generate` makes them by
        itself); other models are called with a mask.
        """
        ids, real = padded([s for row in rows for s in self.sequences(row, opened)], side, 0)
        given = {"input_ids": ids, "attention_mask": real.long()}
        if self.cell.kind == "causal" and side == "left":
            given["position_ids"] = (real.long().cumsum(1) - 1).clip(min=0)
        if self.cell.kind == "seq2seq" and not opened:
            given["labels"] = padded([self.answer(row) for row in rows], "right", IGNORED)[0]
        if labels:
            given |= self.labels(rows, side, ids.shape[1])
        return Inputs(given, real)

    def labels(self, rows: Sequence[int], side: Side, length: int) -> dict[str, Tensor]:
        """As the model class wants them."""
        task = self.cell.task
        if task == "head":
            return {"labels": torch.tensor([EXAMPLES[row].number for row in rows])}
        if task == "span":
            starts = torch.tensor([self.span(row) for row in rows])
            return {"start_positions": starts, "end_positions": starts}
        if self.cell.kind == "seq2seq":
            return {}
        return {"labels": padded([self.token_labels(row) for row in rows], side, IGNORED)[0]}

    def token_labels(self, row: int) -> list[int]:
        """One label per token; -100 for those that have none."""
        example, ids = EXAMPLES[row], self.sequences(row, opened=False)[0]
        if self.cell.task == "tokens":
            begin = self._begin(ids, example.text)
            marks = [TAGS.index(tag) for tag in example.tags]
            return [IGNORED] * begin + marks + [IGNORED] * (len(ids) - begin - len(marks))
        if self.cell.kind == "encoder":
            return [self.answer(row)[0] if i == self.mask_id else IGNORED for i in ids]
        answer = self.answer(row)
        return [IGNORED] * (len(ids) - len(answer)) + answer

    def span(self, row: int) -> int:
        """The position of the one word that is the answer."""
        example, ids = EXAMPLES[row], self.sequences(row, opened=False)[0]
        return self._begin(ids, example.text) + example.animal

    def _begin(self, ids: list[int], text: str) -> int:
        """Where a text begins in a sequence that holds it."""
        own = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return next(i for i in range(len(ids)) if ids[i : i + len(own)] == own)

    # What is said ----------------------------------------------------------------------------------------------------

    def read(self, model: Any, rows: Sequence[int], side: Side, **more: Any) -> list[Tensor]:
        """What the task reads of each row; what stands before the batch's own columns is the prompt's."""
        inputs, task = self.inputs(rows, side), self.cell.task
        if task == "span":
            out = model(**inputs.given, **more)
            logits = torch.stack([out.start_logits, out.end_logits], 2)[:, -inputs.length :]
            return [its[real] for its, real in zip(logits, inputs.real, strict=True)]
        logits = model(**inputs.given, **more).logits
        if task == "head":
            return list(logits)
        if task == "choice":
            return list(logits.view(len(rows), 2))
        if task == "tokens":
            return [its[-inputs.length :][real] for its, real in zip(logits, inputs.real, strict=True)]
        return self.words_in(logits, rows, inputs)

    def words_in(self, logits: Tensor, rows: Sequence[int], inputs: Inputs) -> list[Tensor]:
        """Of logits over the vocabulary, those of the label words, or those that predict the answer."""
        if self.cell.kind != "seq2seq":
            own = (its[-inputs.length :][real] for its, real in zip(logits, inputs.real, strict=True))
            return [self._words_of(its, row) for its, row in zip(own, rows, strict=True)]
        answers = [len(self.answer(row)) for row in rows]
        own = logits[:, -max(answers) :]
        if self.cell.task == "words":
            return [its[0, self.label_ids] for its in own]
        return [its[:n] for its, n in zip(own, answers, strict=True)]

    def _words_of(self, logits: Tensor, row: int) -> Tensor:
        """The same of one row without pads, of a model without a decoder of its own."""
        ids = self.sequences(row, opened=False)[0]
        if self.cell.kind == "encoder":
            return logits[ids.index(self.mask_id), self.label_ids]
        answer = len(self.answer(row))
        predicting = logits[len(ids) - answer - 1 : -1]
        return predicting[0, self.label_ids] if self.cell.task == "words" else predicting

    def write(self, model: Any, rows: Sequence[int], side: Side, static: bool, **more: Any) -> list[tuple[int, ...]]:
        """Six tokens for each row, the likeliest ones."""
        if self.cell.kind == "causal" and side == "right":
            raise NotApplicable("causal models write behind their text, so transformers wants pads on the left")
        inputs = self.inputs(rows, side, opened=True)
        inputs.given.pop("position_ids", None)  # `generate` makes them of the mask
        cache = {"cache_implementation": "static", "disable_compile": True} if static else {}
        options = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "do_sample": False, "pad_token_id": 0}
        found = model.generate(**inputs.given, **options, **cache, **more)
        return [tuple(its[-NEW_TOKENS:].tolist()) for its in found]

    # By hand ---------------------------------------------------------------------------------------------------------

    def as_scores(self, said: Sequence[Tensor]) -> list[Tensor]:
        """Scores whose last dimension a softmax runs over."""
        return [s.T if self.cell.task == "span" else s for s in said]

    def targets(self, row: int) -> Tensor:
        """The right answers of those softmaxes."""
        task = self.cell.task
        if task == "span":
            return torch.tensor([self.span(row)] * 2)
        if task == "tokens":
            return torch.tensor(self.token_labels(row))
        if task == "text":
            return torch.tensor(self.answer(row))
        return torch.tensor([EXAMPLES[row].number])


def padded(sequences: Sequence[Sequence[int]], side: Side, filling: int) -> tuple[Tensor, Tensor]:
    """The sequences as one tensor, and which of its entries are theirs."""
    length = max(map(len, sequences))
    values, real = torch.full((len(sequences), length), filling), torch.zeros(len(sequences), length, dtype=torch.bool)
    for i, sequence in enumerate(sequences):
        mine = slice(length - len(sequence), length) if side == "left" else slice(0, len(sequence))
        values[i, mine], real[i, mine] = torch.tensor(sequence), True
    return values, real
