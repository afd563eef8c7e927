"""What trimtab should say of a row: one row alone, all its states, and tokens that are looked up in its ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from correctness.examples import ANSWERS, CLASSES, EXAMPLES, WORDS
from correctness.subject import Cell
from trimtab.backbones.family import carrying, either
from trimtab.batching import collate
from trimtab.model import PromptedBackbone
from trimtab.prompt_table import PromptTable
from trimtab.types import Row


@dataclass(frozen=True)
class ByHand:
    """The losses of a cell's rows.

    Attributes:
        classes: of the task, in the order of a head's scores.
    """

    cell: Cell
    prompted: PromptedBackbone
    table: PromptTable
    classes: tuple[str, ...]

    def loss(self, row: Row, number: int) -> Tensor:
        """Of one example."""
        example, task = EXAMPLES[number], self.cell.task
        right = torch.tensor([example.number])
        if task == "choice":
            scores = [self._choice(replace(row, encoded=variant, others=())) for variant in row.variants]
            return cross_entropy(torch.cat(scores)[None], right)
        if task == "words":
            return cross_entropy(self.at_labels(self._logits(row), row)[None], right)
        if task == "text":
            answer = [*self._ids(ANSWERS[example.label]), self._end]
            return cross_entropy(self._logits(row)[-len(answer) :], torch.tensor(answer))
        begin = self._begin(row.encoded.ids, self._ids(example.text))
        scores = self._headed(self._states(row)[begin : begin + len(example.words)])
        if task == "tokens":
            return cross_entropy(scores, torch.tensor([self.classes.index(tag) for tag in example.tags]))
        none = [self._headed(self._states(row)[:1])] if self._has_none else []
        scores, place = torch.cat([*none, scores]), torch.tensor([example.animal + len(none)])
        return (cross_entropy(scores[None, :, 0], place) + cross_entropy(scores[None, :, 1], place)) / 2

    def own(self, length: int, slots: Sequence[int]) -> set[int]:
        """Where a head reads: at [CLS], at the last token, or at all that are no slots."""
        if self.cell.kind == "seq2seq":
            return set(range(length)) - set(slots)
        return {0} if self.cell.kind == "encoder" else {length - 1}

    def at_labels(self, logits: Tensor, row: Row) -> Tensor:
        """Logits of the label words where they belong: at the mask, or behind all that is read."""
        encoder = self.prompted.backbone.encoder
        place = row.encoded.ids.index(encoder.mask_id) if self.cell.kind == "encoder" else len(logits) - 1
        return logits[place, encoder.tokenizer.convert_tokens_to_ids([WORDS[name] for name in CLASSES])]

    @property
    def _has_none(self) -> bool:
        """Whether a token before the text stands for "no answer"."""
        encoder = self.prompted.backbone.encoder
        return bool(encoder.prefix) and not encoder.is_causal

    @property
    def _end(self) -> int:
        """The token that ends an answer; T5's second sentinel."""
        encoder = self.prompted.backbone.encoder
        end = encoder.end_id if encoder.second_sentinel_id is None else encoder.second_sentinel_id
        assert end is not None
        return end

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.prompted.backbone.encoder.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _begin(self, ids: Sequence[int], own: list[int]) -> int:
        return next(i for i in range(len(ids)) if list(ids[i : i + len(own)]) == own)

    def _states(self, row: Row) -> Tensor:
        """The last hidden states of all positions of one row."""
        everywhere = replace(row.encoded, answer_at=tuple(range(len(row.encoded))), targets=())
        batch = collate([replace(row, encoded=everywhere, others=())], self.prompted.backbone.pad_id)
        return self.prompted.at_reads(batch, self.table)[0][0]

    def _logits(self, row: Row) -> Tensor:
        """Logits of the whole model over one row alone, of an encoder-decoder those of the decoder. A masked language
        model's own head is given the states."""
        backbone = self.prompted.backbone
        if self.cell.kind == "encoder":
            return self._filled(row)
        batch = collate([replace(row, others=())], backbone.pad_id)
        batch, embeds, _, attention = self.prompted.entered(batch, self.table)
        if batch.decoder_ids is None:
            more = {"position_ids": backbone.family.positions(backbone.model, batch)}
        else:
            more = {"decoder_input_ids": batch.decoder_ids}
        passage = carrying(backbone.family.passage(backbone.model, attention))
        logits: Tensor = backbone.model(**either(batch.ids, embeds), **more, **passage).logits[0]
        return logits

    def _filled(self, row: Row) -> Tensor:
        """What the model makes of these states, whatever it has read itself."""
        model, states = self.prompted.backbone.model, self._states(row)[None]

        def exchanged(module: Any, given: Any, output: Any) -> Any:
            output.last_hidden_state = states
            return output

        hook = model.base_model.register_forward_hook(exchanged)
        try:
            logits: Tensor = model(input_ids=torch.tensor([row.encoded.ids])).logits[0]
        finally:
            hook.remove()
        return logits

    def _choice(self, row: Row) -> Tensor:
        """The score of a choice."""
        own = sorted(self.own(len(row.encoded), row.encoded.slots))
        return self._headed(self._states(row)[own].mean(0))

    def _headed(self, states: Tensor) -> Tensor:
        heads = self.table.heads
        bias = heads["bias"][0] if "bias" in heads else 0.0
        return states @ heads["weight"][0].T + bias
