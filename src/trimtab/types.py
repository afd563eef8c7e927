"""The frozen dataclasses that flow from stage to stage, and the letters of their shapes.

| letter | meaning | letter | meaning |
|---|---|---|---|
| B | rows of a batch | K | key/value heads |
| T | sequence length, slots included | D | size of a head |
| P | prompt length | V | vocabulary |
| E | size of the input embeddings | C | classes |
| H | hidden size | A | answer slots |
| L | layers | R | prompts in the table |
| W | label words of a class | | |

`E` and `H` differ on ALBERT. Slots of rows with a shorter prompt, or with none, are padded with -1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Example:
    """One row of a task. `source` is `file:line`, for errors; `label` is None when it is not known."""

    id: str
    fields: Mapping[str, str]
    label: str | None
    source: str = ""


@dataclass(frozen=True)
class Encoded:
    """A rendered example: token ids of final length, slots included, padding not.

    Attributes:
        ids: token ids; slots hold a filler id that is never looked at.
        slots: positions of the virtual tokens, in the order of the prompt's rows; empty for a bare row.
        answer_at: positions that the readout reads.
        eligible: positions of field text, which perturbations may touch (no literal, special, slot or answer).
        dropped: tokens cut off by truncation.
    """

    ids: tuple[int, ...]
    slots: tuple[int, ...]
    answer_at: tuple[int, ...]
    eligible: tuple[int, ...] = ()
    dropped: int = 0

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Row:
    """An encoded example on its way into a batch: which prompt it uses, which readout reads it.

    `key` names the row within its run, so that random streams depend on the row and not on its batch mates.
    """

    encoded: Encoded
    label: int = -1
    prompt: int = -1
    readout: int = 0
    key: int = 0


@dataclass(frozen=True)
class Batch:
    """Padded rows. `prompt_of[b]` is the row's prompt in the table, or -1 for the bare model."""

    ids: Int[Tensor, "B T"]
    attention_mask: Int[Tensor, "B T"]
    position_ids: Int[Tensor, "B T"]
    slots: Int[Tensor, "B P"]
    answer_at: Int[Tensor, "B A"]
    eligible: Bool[Tensor, "B T"]
    prompt_of: Int[Tensor, "B"]
    readout_of: Int[Tensor, "B"]
    labels: Int[Tensor, "B"]
    keys: Int[Tensor, "B"]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def is_bare(self) -> bool:
        """No row has a prompt."""
        return bool((self.prompt_of < 0).all())

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return replace(self, **{k: v.to(device) for k, v in vars(self).items()})


@dataclass(frozen=True)
class PromptTable:
    """The materialized prompts of a pack or a server. Row r of `inputs` is prompt r, zero-padded to P."""

    inputs: Float[Tensor, "R P E"]

    def __len__(self) -> int:
        return len(self.inputs)

    def detached(self) -> PromptTable:
        """A leaf that collects gradients, cut off from the encoders."""
        return PromptTable(self.inputs.detach().requires_grad_())


@dataclass(frozen=True)
class TrainStep:
    """What a regularizer sees of one micro-batch. See `trimtab.regularizers`.

    Attributes:
        batch: the rows.
        embeds: the text embeddings; slots hold a filler until the prompt is placed.
        scores: clean class scores, detached.
        embedding_rms: root mean square of the backbone's embedding table.
        rescore: scores of the same rows from other embeddings, differentiable down to the prompt table. Called with the
            perturbation to add to the text embeddings.
        loss: loss per row from scores and labels.
        noise: standard normal noise [B,T,E] that depends on (run, step, row) only, never on batch mates.
    """

    batch: Batch
    embeds: Float[Tensor, "B T E"]
    scores: Float[Tensor, "B C"]
    embedding_rms: float
    rescore: Callable[[Float[Tensor, "B T E"]], Float[Tensor, "B C"]]
    loss: Callable[[Float[Tensor, "B C"], Int[Tensor, "B"]], Float[Tensor, "B"]]
    noise: Callable[[str], Float[Tensor, "B T E"]]


@dataclass(frozen=True)
class Prediction:
    """One scored example."""

    id: str
    label: str
    scores: Mapping[str, float]
    gold: str | None = None

    def as_json(self) -> dict[str, Any]:
        """`{id, label, scores[, gold]}`, scores as probabilities rounded to 6 places."""
        record: dict[str, Any] = {"id": self.id, "label": self.label}
        record["scores"] = {c: round(s, 6) for c, s in self.scores.items()}
        return record if self.gold is None else record | {"gold": self.gold}


@dataclass(frozen=True)
class Evaluation:
    """Metrics and predictions of one prompt on one split."""

    metrics: Mapping[str, Any]
    predictions: tuple[Prediction, ...] = field(default=(), repr=False)
