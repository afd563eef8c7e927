"""Several tasks in one batch, each read by a readout of its own.

    scores(row) = scores_t(hidden states at the reads of the row),    loss(row) = loss_t(scores(row), label of the row)

Symbols: t the task of the row (`Row.readout`). After the one pass of the backbone, rows are grouped by their task, and
each group is read as if it were a batch. Any readouts can share a batch, but one thing: an encoder-decoder that is read
in its decoder by one and in its encoder by another would need two passes, and is refused.

Parameters: those of the readouts. A head of task t is kept as `<t>.<name>`, t counted from 0.

What a row of several tasks has as its label says how to read it: the task, how many numbers its own label has (0: it is
one number), and the own label. Scores are padded with -inf to what the largest task needs, [X,C], or [X,A,C] where one
of the readouts has scores of every read; a readout gets back its own by leaving out what is -inf in all of its rows.
Outside of training every task is scored, written and measured by its own readout, so this one never decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from trimtab.backbones import Backbone
from trimtab.errors import ConfigError, suggest
from trimtab.readouts import Readout
from trimtab.registry import readouts as known
from trimtab.types import AnswerPlan, Batch, Row

_OWN = 2
"""Where a row's own label begins."""


@final
@known.register("by_task")
class ByTask:
    """A readout for each of several tasks.

    Args:
        readouts: by the name of the task, those that are not `auto`.
    """

    kinds: ClassVar[tuple[str, ...]] = ()
    trains: ClassVar[bool | None] = None  # its readouts say
    writes: ClassVar[bool] = False
    metrics: ClassVar[tuple[str, ...]] = ()
    new_tokens: ClassVar[int] = 0
    end_id: ClassVar[int | None] = None

    def __init__(
        self,
        backbone: Backbone,
        plans: Sequence[AnswerPlan],
        *,
        readouts: dict[str, Any] = {},  # noqa: B006  (a schema default, never mutated)
    ) -> None:
        pairs = zip(readouts.values(), plans, strict=True)
        self.parts: tuple[Readout, ...] = tuple(known.build(spec, backbone, [plan]) for spec, plan in pairs)
        self._per_read = [bool(getattr(part, "per_read", False)) for part in self.parts]

    @staticmethod
    def heads_of(heads: Mapping[str, Tensor], task: int) -> dict[str, Tensor]:
        """The head of one task, by the names that its readout knows."""
        return {n.partition(".")[2]: v for n, v in heads.items() if n.partition(".")[0] == str(task)}

    @staticmethod
    def own_labels(labels: Int[Tensor, "X Z"]) -> Int[Tensor, "X Y"]:
        """The rows' own labels, without what says how to read them."""
        return labels[:, _OWN:]

    def scores(
        self, hidden: Float[Tensor, "B A H"], batch: Batch, heads: Mapping[str, Tensor] = {}
    ) -> Float[Tensor, "X *C"]:
        """Scores of each row's own readout, padded."""
        found = []
        for task, examples in self._groups(batch.readout_of):
            own = batch.of(examples)
            own = replace(own, readout_of=torch.zeros_like(own.readout_of), labels=_unpacked(own.labels))
            reads = hidden[batch.rows_of(examples), : own.answer_at.shape[1]]
            its = self.parts[task].scores(reads, own, self.heads_of(heads, task))
            found.append((examples, its if its.ndim == 3 or not any(self._per_read) else its[:, None]))
        return _merged(found, -torch.inf)

    def loss(self, scores: Float[Tensor, "X *C"], labels: Int[Tensor, "X Z"]) -> Float[Tensor, "X"]:
        """Loss of each row's own readout."""
        losses = [
            (examples, self.parts[task].loss(*self._own(task, scores[examples], labels[examples])))
            for task, examples in self._groups(labels[:, 0])
        ]
        return _merged(losses, 0.0)

    def distribution(
        self, scores: Float[Tensor, "X *C"], labels: Int[Tensor, "X Z"]
    ) -> tuple[Float[Tensor, "X K C"], Bool[Tensor, "X K"]]:
        """Log-probabilities by each row's own readout, where all have such."""
        values, known_ones = [], []
        for task, examples in self._groups(labels[:, 0]):
            part: Any = self.parts[task]
            log_p, has_label = part.distribution(*self._own(task, scores[examples], labels[examples]))
            values.append((examples, log_p))
            known_ones.append((examples, has_label))
        return _merged(values, -torch.inf), _merged(known_ones, False)

    def _groups(self, task_of: Int[Tensor, "X"]) -> Iterator[tuple[int, Int[Tensor, "N"]]]:
        """The tasks that have examples, and which."""
        for task in range(len(self.parts)):
            examples = (task_of == task).nonzero()[:, 0]
            if len(examples):
                yield task, examples

    def _own(self, task: int, scores: Float[Tensor, "N *C"], labels: Int[Tensor, "N Z"]) -> tuple[Tensor, Tensor]:
        """Scores and labels of examples of one task as its readout has made them."""
        if any(self._per_read) and not self._per_read[task]:
            scores = scores[:, 0]
        real = scores != -torch.inf
        for dim in range(1, scores.ndim):
            there = real.flatten(1).any(0) if scores.ndim == 2 else real.any(0).any(2 - dim)
            scores = scores.narrow(dim, 0, int(there.nonzero().max()) + 1)
        return scores, _unpacked(labels)


def of_task(row: Row, task: int) -> Row:
    """A row of a task alone as a row among those of several."""
    own, count = (row.label, len(row.label)) if isinstance(row.label, tuple) else ((row.label,), 0)
    return replace(row, readout=task, label=(task, count, *own))


def readouts_of(given: Mapping[str, Any], tasks: Sequence[str]) -> dict[str, Any]:
    """The readout of each task as a recipe has it: a kind for all of them, or by name, `auto` where nothing is said.

    Raises:
        ConfigError: it names another task.
    """
    named = given.get("readouts")
    if named is None:
        return dict.fromkeys(tasks, given)
    for name in named:
        if name not in tasks:
            raise ConfigError(f"there is no task {name!r}.", where="readout.readouts", fix=suggest(name, tasks))
    return {name: named.get(name, "auto") for name in tasks}


def check_one_pass(plans: Mapping[str, AnswerPlan], kinds: Sequence[str]) -> None:
    """Refuse readouts of several tasks that cannot be read in one pass of the backbone.

    Args:
        plans: of each task, by its name.
        kinds: of their readouts.

    Raises:
        ConfigError: some are read in the decoder, others in the encoder.
    """
    in_decoder = [(name, kind, bool(plans[name].fills[0].decoder)) for name, kind in zip(plans, kinds, strict=True)]
    one = next((its for its in in_decoder if its[2]), None)
    other = next((its for its in in_decoder if not its[2]), None)
    if one is not None and other is not None:
        raise ConfigError(
            f"the task {one[0]!r} is read in the decoder (by {one[1]!r}) and the task {other[0]!r} in the encoder (by "
            f"{other[1]!r}), and one pass of an encoder-decoder gives one of them.",
            where="readout",
            fix="Read all in the decoder (ranking, text, word), or all in the encoder (head, tokens, span, choice).",
        )


def _unpacked(labels: Int[Tensor, "N Z"]) -> Int[Tensor, "N *Y"]:
    """Own labels of one task: a number each, or several padded with -1."""
    most = int(labels[:, 1].max())
    return labels[:, _OWN : _OWN + most] if most else labels[:, _OWN]


def _merged(groups: Sequence[tuple[Tensor, Tensor]], padding: float | bool) -> Tensor:
    """Values of groups of examples as one tensor, in the order of the examples, padded to the largest."""
    largest = [max(sizes) for sizes in zip(*(v.shape[1:] for _, v in groups), strict=True)]
    padded = []
    for _, values in groups:
        sizes = zip(reversed(largest), reversed(values.shape[1:]), strict=True)
        room = [n for most, own in sizes for n in (0, most - own)]
        padded.append(torch.nn.functional.pad(values, room, value=padding))
    order = torch.cat([examples for examples, _ in groups])
    return torch.cat(padded)[order.argsort()]
