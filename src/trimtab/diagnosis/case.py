"""A prepared run as checks see it. What several of them need is computed once: sample rows, the first steps."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from trimtab.backbones import Backbone
from trimtab.batching import collate
from trimtab.config import RunConfig
from trimtab.model import PromptedModel
from trimtab.prompt_table import PromptTable
from trimtab.registry import readouts
from trimtab.rendering import Rendering
from trimtab.text_encoder import TextEncoder
from trimtab.training.encoder_pack import EncoderPack
from trimtab.training.loop import Loop
from trimtab.training.optimization import schedule_factor
from trimtab.training.packs import assembled
from trimtab.training.preparing import Prepared
from trimtab.types import Example, Row

FIRST_STEPS = 3
"""How many steps are taken; in the second, networks and gates that begin at zero have their gradient."""

_SAMPLED = 4
"""Rows of each task that are looked at with the model."""


@dataclass(frozen=True)
class Steps:
    """The first steps of a run.

    Attributes:
        losses: of each step.
        factors: what share of the learning rate each had.
        tables: the prompts before the first step and after each, by their names in a bundle.
        gradients: of the loss with respect to the prompts, absolute values summed over the steps; None where one is
            not finite.
        silent: trained parameters that got no gradient in any step.
        digest: of all that was trained, after the last step.
        touched: names of weights of the shared backbone that changed.
    """

    losses: tuple[float, ...]
    factors: tuple[float, ...]
    tables: tuple[dict[str, Tensor], ...]
    gradients: dict[str, Tensor]
    silent: tuple[str, ...]
    digest: str
    touched: tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """A run that is to be examined, or one of its tasks alone.

    Attributes:
        task: its name, where it is one of several; else empty.
    """

    prepared: Prepared
    task: str = ""

    @property
    def each(self) -> tuple[Case, ...]:
        """Its tasks, each alone."""
        return tuple(Case(part, part.task.name) for part in self.prepared.parts) or (self,)

    @property
    def config(self) -> RunConfig:
        return self.prepared.config

    @property
    def backbone(self) -> Backbone:
        return self.prepared.backbone

    @property
    def encoder(self) -> TextEncoder:
        return self.backbone.encoder

    @property
    def rendering(self) -> Rendering:
        """How its one task is asked."""
        return self.prepared.rendering

    def examples(self, split: str) -> Sequence[Example]:
        """The examples of a split."""
        return self.prepared.task.splits[split]

    def rows(self, split: str) -> Sequence[Row]:
        """The same, rendered."""
        return self.prepared.rows[split]

    def read(self, example: Example) -> tuple[str, ...]:
        """What of an example the model reads: the fields that it needs, white space aside."""
        return tuple(" ".join(example.fields.get(f, "").split()) for f in self.rendering.wanted(self.encoder))

    @property
    def has_head(self) -> bool:
        """Whether answers are read by a head that is trained."""
        return bool(readouts.get(self.config.readout["kind"]).trains)  # type: ignore[attr-defined]

    @cached_property
    def _assembled(self) -> tuple[Loop, EncoderPack]:
        return assembled([self.prepared])

    @property
    def loop(self) -> Loop:
        """The run before its first step. No check takes one here, see `first_steps`."""
        return self._assembled[0]

    @property
    def stacked(self) -> EncoderPack:
        """The prompt encoder in it."""
        return self._assembled[1]

    @property
    def model(self) -> PromptedModel:
        return self.loop.model

    @property
    def is_trained(self) -> bool:
        """Whether anything is learned."""
        return self.loop.members[0].is_trained

    @property
    def steps(self) -> int:
        """How many the run will take."""
        return self.loop.members[0].steps

    @cached_property
    @torch.no_grad()
    def table(self) -> PromptTable:
        """The prompt at the start, without dropout."""
        return self.loop.pack.table(training=False)

    @cached_property
    def sample(self) -> list[Row]:
        """A few training rows of each task, from the shortest to the longest."""
        rows = list[Row]()
        for task in range(len(self.each)):
            own = sorted((row for row in self.rows("train") if row.readout == task), key=lambda row: row.cost)
            places = {round(i * (len(own) - 1) / (_SAMPLED - 1)) for i in range(_SAMPLED)}
            rows += [replace(own[i], prompt=0) for i in sorted(places)]
        return rows

    @cached_property
    def first(self) -> Steps:
        """The first steps."""
        return self._take_steps()

    def again(self) -> Steps:
        """The first steps, taken once more from the same seeds."""
        return self._take_steps()

    def _take_steps(self) -> Steps:
        loop, _ = assembled([self.prepared])
        pack, member = loop.pack, loop.members[0]
        tables, gradients, heard = list[dict[str, Tensor]](), dict[str, Tensor](), set[str]()

        def watch(leaf: PromptTable) -> None:
            tables.append(_tensors(pack.table(training=False)))
            for name, value in leaf.tensors.items():
                assert value.grad is not None
                gradients[name] = gradients.get(name, 0) + value.grad[0].float().abs().cpu()
            heard.update(n for n, p in pack.stacked.items() if p.grad is not None and bool((p.grad != 0).any()))

        before = _sums(self.backbone)
        loop.first_steps(FIRST_STEPS, watch)
        after, training = _sums(self.backbone), member.training
        steps = [schedule_factor(training.schedule, training.warmup, i, member.steps) for i in range(len(tables))]
        return Steps(
            losses=tuple(member.recent),
            factors=tuple(steps),
            tables=(*tables, _tensors(pack.table(training=False))),
            gradients=gradients,
            silent=tuple(n for n in pack.names if n not in heard),
            digest=_digest(pack.state(0)),
            touched=tuple(n for n in before if before[n] != after[n]),
        )

    @torch.no_grad()
    def hidden(
        self, rows: Sequence[Row], table: PromptTable | None, side: Literal["left", "right"] | None = None
    ) -> list[Float[Tensor, "N H"]]:
        """Of each row, in one batch of them all, the hidden states that its readout reads; float32 on the CPU.

        Args:
            side: where pads go; as the family has it by default.
        """
        backbone = self.backbone
        batch = collate(rows, backbone.pad_id, side or backbone.family.padding_side).to(backbone.device)
        states, batch, _ = self.model.prompted.at_reads(batch, table)
        states, reads = states.float().cpu(), batch.answers.tolist()
        own = [batch.rows_of(torch.tensor([x], device=backbone.device)).tolist() for x in range(len(rows))]
        return [torch.cat([states[b, : reads[b]] for b in its]) for its in own]


def distance(found: Float[Tensor, "N H"], expected: Float[Tensor, "N H"]) -> float:
    """Root mean square of a difference, in that of what is expected."""
    return float((found - expected).norm() / expected.norm().clamp(min=torch.finfo(torch.float32).tiny))


def _tensors(table: PromptTable) -> dict[str, Tensor]:
    """Copies of what is in the only row of a table."""
    return {name: value[0].detach().float().cpu().clone() for name, value in table.tensors.items()}


def _digest(state: dict[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name in sorted(state):
        found.update(name.encode())
        found.update(state[name].detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _sums(backbone: Backbone) -> dict[str, int]:
    """A number for each weight, which changes when its bits do."""
    named = backbone.model.named_parameters()
    flat = ((name, p.detach().contiguous().view(-1).view(_INTEGERS[p.element_size()])) for name, p in named)
    return {name: int(bits.sum(dtype=torch.int64)) for name, bits in flat}
