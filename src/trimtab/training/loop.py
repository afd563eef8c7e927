"""The training loop: a pack of R >= 1 runs on one backbone. It knows no method, task or family by name.

One optimizer step: every encoder computes its prompt; the table is cut off into a leaf; each micro-batch mixes rows of
all runs and adds the gradient of its clean loss and penalties to the leaf; the leaf's gradient goes back through the
encoders once; each run is clipped and updated on its own. Losses are divided by the rows of the run's logical batch, so
the result does not depend on micro-batches, and no run influences another.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trimtab.backbones.checkpointing import recomputing, recomputing_activations
from trimtab.batching import epoch_batches, micro_batches
from trimtab.config import Seeds, TrainingConfig
from trimtab.grading import PLAIN, Grading
from trimtab.model import PromptedModel
from trimtab.perturbations import NO_SUBSTITUTES, Substitutes
from trimtab.prompt_table import PromptTable
from trimtab.regularizers import Regularizer, Remembering
from trimtab.seeding import stream, torch_seed
from trimtab.training.encoder_pack import EncoderPack
from trimtab.training.judging import Judge, merit
from trimtab.training.mixing import Mixture
from trimtab.training.notes import say
from trimtab.training.objective import Objective, Part
from trimtab.training.optimization import build_optimizer, schedule_factor
from trimtab.training.parallel import ALONE, Processes
from trimtab.training.rendered import costs_of
from trimtab.training.searching import Search
from trimtab.training.tuning import TunedPack
from trimtab.types import Row

Report = Callable[[Mapping[str, Any]], None]


@dataclass
class Member:
    """One run of a pack: its data, its settings, and how far it has come.

    A run that is not `is_trained` is scored as it is, and takes no steps. `best` is the state of the best checkpoint,
    and `is_good` says whether there is one: even the first evaluation may not be finite. `findings` are what
    regularizers keep for the reader of the run, by the name of a file. `mixture` says which rows an epoch has, where
    that is not every row once.
    """

    seeds: Seeds
    training: TrainingConfig
    train: Sequence[Row]
    dev: Sequence[Row]
    regularizers: Sequence[Regularizer] = ()
    grader: Grading = PLAIN
    is_trained: bool = True
    mixture: Mixture | None = None
    status: str = "running"
    is_good: bool = False
    best: dict[str, Tensor] = field(default_factory=dict)
    best_dev: dict[str, float] = field(default_factory=dict)
    best_step: int = 0
    step: int = 0
    stale: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    recent: list[float] = field(default_factory=list)
    findings: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def epoch(self) -> int:
        """How often all rows have been seen."""
        return self.step // -(-len(self.train) // self.training.batch_size)

    @property
    def steps(self) -> int:
        """How many optimizer steps this run takes, early stopping aside."""
        if not self.is_trained:
            return 0
        t = self.training
        wanted = max(t.epochs * -(-len(self.train) // t.batch_size), t.min_steps)
        return wanted if t.max_steps is None else min(wanted, t.max_steps)

    @property
    def evaluation_steps(self) -> set[int]:
        """After which steps the dev split is scored."""
        n = min(self.training.evaluations, self.steps)
        return {round(self.steps * (i + 1) / n) for i in range(n)}

    def batches(self) -> Iterator[list[int]]:
        """Logical batches without end: indices of training rows. Depends on (seed, lengths) only."""
        lengths, t, epoch, seed = costs_of(self.train), self.training, 0, self.seeds.data_order
        once = t.shuffle == "once"
        while True:
            order = stream(seed, "data_order", 0 if once else epoch)
            rows = range(len(lengths)) if self.mixture is None else self.mixture.rows(seed, epoch, once)
            for batch in epoch_batches([lengths[i] for i in rows], t.batch_size, order, t.buckets):
                yield [rows[i] for i in batch]
            epoch += 1


@dataclass(frozen=True)
class LoopState:
    """Where a loop stands after an evaluation: tensors, and facts as plain data."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


_REHEARSED_ROWS = 16
"""Of every member's dev split, for a guess of the time."""

_PROGRESS = ("status", "is_good", "best_dev", "best_step", "step", "stale", "history", "recent", "findings")
"""What a member has come to, apart from its tensors."""


class Loop:
    """Trains the members of one pack.

    Args:
        model: backbone and readout.
        pack: what is trained: the members' prompt encoders, and a single member's backbone if that is not frozen.
        members: one per prompt of the pack; `batch_size` and the schedule may differ only as packs allow.
        report: receives events: `{"event": "note" | "continue" | "step" | "evaluation" | "end", "run": r, ...}`.
        backbone_dropout: keep the backbone's dropout in training passes; for a pack of one.
        save: receives the state after every evaluation; `load` continues from it, bit for bit on the same machine.
        processes: that share the work of every step and evaluation.
        substitutes: tokens that regularizers may put into a text.
    """

    def __init__(
        self,
        model: PromptedModel,
        pack: EncoderPack | TunedPack,
        members: Sequence[Member],
        report: Report | None = None,
        backbone_dropout: bool = False,
        save: Callable[[LoopState], None] | None = None,
        processes: Processes = ALONE,
        substitutes: Substitutes = NO_SUBSTITUTES,
    ) -> None:
        if backbone_dropout and len(members) > 1:
            raise ValueError("backbone dropout needs a pack of one run: its masks would depend on batch mates")
        self.model, self.pack, self.members = model, pack, list(members)
        self.report = report or (lambda event: None)
        self.backbone_dropout = backbone_dropout
        rates = {n: [_rate(m.training, pack.group(n)) for m in members] for n in pack.names}
        decays = {n: [m.training.weight_decay * pack.decays(n) for m in members] for n in pack.names}
        self.optimizer = build_optimizer(members[0].training, pack.stacked, rates, decays)
        self.max_tokens = members[0].training.tokens_per_pass(model.backbone.device.type)
        self.search = Search(model, processes, self.max_tokens)
        self.judge = Judge(model, processes, self.max_tokens)
        self.objective = Objective(model, members, processes, substitutes)
        self.seconds_in_steps, self.steps_done = 0.0, 0
        self.save = save or (lambda state: None)
        self.processes = processes

    @property
    def state(self) -> LoopState:
        """Where the loop stands. The tensors are the loop's own, not copies."""
        tensors = {f"prompt.{n}": p.detach() for n, p in self.pack.stacked.items()}
        tensors |= {f"optimizer.{n}": v for n, v in self.optimizer.state.items()}
        tensors |= {f"best.{r}.{n}": v for r, m in enumerate(self.members) for n, v in m.best.items()}
        members = [{name: getattr(m, name) for name in _PROGRESS} for m in self.members]
        facts = {"steps_done": self.steps_done, "seconds_in_steps": self.seconds_in_steps, "members": members}
        remembered = {str(k): r.state for k, r in self._remembering.items()}
        return LoopState(tensors, facts | ({"regularizers": remembered} if remembered else {}))

    @property
    def _remembering(self) -> dict[int, Remembering]:
        """The regularizers that remember, by their number in the recipe; those of the first member act for all."""
        return {k: r for k, r in enumerate(self.members[0].regularizers) if isinstance(r, Remembering)}

    @torch.no_grad()
    def load(self, state: LoopState) -> None:
        """Continue from a state of a loop with the same members."""
        own = self.state.tensors
        for name, value in state.tensors.items():
            if name.startswith("best."):
                _, r, parameter = name.split(".", 2)
                self.members[int(r)].best[parameter] = value.to(self.model.backbone.device)
            else:
                own[name].copy_(value)
        for member, progress in zip(self.members, state.facts["members"], strict=True):
            for name in _PROGRESS:
                setattr(member, name, progress.get(name, getattr(member, name)))
        for k, regularizer in self._remembering.items():
            regularizer.load(state.facts["regularizers"][str(k)])
        self.steps_done, self.seconds_in_steps = state.facts["steps_done"], state.facts["seconds_in_steps"]

    @property
    def seconds_per_step(self) -> float:
        """Mean wall time of an optimizer step of the whole pack, evaluations excluded."""
        return self.seconds_in_steps / max(1, self.steps_done)

    def run(self) -> None:
        """Train until every member is done; afterwards the pack holds each member's best checkpoint, if it has one."""
        streams = [islice(m.batches(), self.steps_done, None) for m in self.members]
        said = say(self.members, self.report)
        if not self.steps_done:
            self._evaluate(self._running())
        else:
            for r in self._running():
                self.report({"event": "continue", "run": r, "step": self.members[r].step, "of": self.members[r].steps})
        self._end_complete()
        while running := self._running():
            begun = time.perf_counter()
            self._step({r: next(streams[r]) for r in running})
            self.seconds_in_steps += time.perf_counter() - begun
            self.steps_done += 1
            due = [r for r in self._running() if self.members[r].step in self.members[r].evaluation_steps]
            if due:
                self._evaluate(due)
            self._end_complete()
            if due:
                self.save(self.state)
        say(self.members, self.report, said)
        for r, member in enumerate(self.members):
            if member.is_good:
                self.pack.restore(r, member.best)

    def rehearse(self) -> tuple[float, float]:
        """Take the two steps and the part of an evaluation that tell what the whole will cost; the loop is spent then.

        Returns:
            Seconds of an ordinary step of all members, and of scoring a row.
        """

        def longest(member: Member) -> list[int]:
            costs = costs_of(member.train)
            order = sorted(range(len(costs)), key=lambda i: costs[i], reverse=True)
            return order[: member.training.batch_size]

        trained = {r: m for r, m in enumerate(self.members) if m.is_trained}
        if trained:
            self._step({r: longest(m) for r, m in trained.items()})
        begun = time.perf_counter()
        if trained:
            self._step({r: next(m.batches()) for r, m in trained.items()})
        stepped = time.perf_counter()
        table = self.pack.table(training=False)
        few = [m.dev[:: max(1, -(-len(m.dev) // _REHEARSED_ROWS))] for m in self.members]
        rows = [replace(row, prompt=r) for r, its in enumerate(few) for row in its]
        with torch.no_grad():
            self.judge.rehearse(rows, table)
        return stepped - begun, (time.perf_counter() - stepped) / max(1, len(rows))

    def _running(self) -> list[int]:
        return [r for r, m in enumerate(self.members) if m.status == "running"]

    def _end_complete(self) -> None:
        """End the members that have taken all their steps."""
        for r in self._running():
            if self.members[r].step >= self.members[r].steps:
                self._end(r, "done")

    def _end(self, r: int, status: str) -> None:
        self.members[r].status = status
        self.report({"event": "end", "run": r, "status": status, "step": self.members[r].step})

    def first_steps(self, count: int, watch: Callable[[PromptTable], None]) -> None:
        """Take the first steps and score nothing; the loop is spent then.

        Args:
            watch: sees the prompts that a step begins with and the gradients that they have collected, before the
                parameters are updated.
        """
        streams = [m.batches() for m in self.members]
        for _ in range(count):
            batches = {r: next(streams[r]) for r in self._running()}
            if not batches:
                return
            leaf, losses = self._gradients(batches)
            watch(leaf)
            self._update(batches, losses, self.optimizer.clip(self.members[0].training.clip))
            self.steps_done += 1

    def _step(self, batches: Mapping[int, Sequence[int]]) -> None:
        """One optimizer step of all running members."""
        _, losses = self._gradients(batches)
        self._update(batches, losses, self.optimizer.clip(self.members[0].training.clip))

    def _gradients(self, batches: Mapping[int, Sequence[int]]) -> tuple[PromptTable, Tensor]:
        """Give every parameter its gradient; the prompts with theirs, and the runs' losses."""
        table = self.pack.table(training=True, step=self.steps_done)
        leaf = table.detached()
        drawn = [(r, i, self.members[r].train[i]) for r, batch in batches.items() for i in batch]
        drawn = self.processes.share(drawn, [row.cost for _, _, row in drawn])
        rows, parts = [replace(row, prompt=r, key=i) for r, i, row in drawn], []
        costs = [row.cost for _, _, row in drawn]
        for group in micro_batches(costs, self.max_tokens, self.model.backbone.pass_cost):
            batch = self.model.collate([rows[i] for i in group])
            share = torch.tensor([1 / len(batches[rows[i].prompt]) for i in group], device=batch.labels.device)
            parts.append(Part(batch, share))
        with self._dropout(), self._recomputing():
            losses = self.objective.backward(parts, leaf)
        for value in leaf.tensors.values():
            if value.grad is None:  # no row of this step fell to this process
                value.grad = torch.zeros_like(value)
        self.pack.backward(table, leaf)
        self.processes.sum_gradients(self.pack.stacked.values())
        self.processes.sum_(losses)
        return leaf, losses

    def _update(self, batches: Mapping[int, Sequence[int]], losses: Tensor, norms: Tensor) -> None:
        """Stop members whose loss or gradient is not finite, update the others."""
        for r in batches:
            if not (math.isfinite(losses[r]) and math.isfinite(norms[r])):
                self._end(r, "diverged")
        active = torch.tensor([r in batches and m.status == "running" for r, m in enumerate(self.members)])
        factors = [schedule_factor(m.training.schedule, m.training.warmup, m.step, m.steps) for m in self.members]
        running = {r: self.members[r] for r in batches if self.members[r].status == "running"}
        self.search.step(self.pack.encoders, running)
        self.optimizer.step(factors, active)
        for r in batches:
            member = self.members[r]
            if member.status == "running":
                member.step += 1
                member.recent.append(float(losses[r]))
                event = {"event": "step", "run": r, "step": member.step, "of": member.steps}
                self.report({**event, "loss": float(losses[r])})

    @torch.no_grad()
    def _evaluate(self, due: Sequence[int]) -> None:
        """Score the dev split of some members and keep the best checkpoints."""
        self.processes.check_equal(self.pack.stacked.values())
        table = self.pack.table(training=False)
        writes = self.members[0].training.select != "loss"
        for r, dev in self.judge.metrics({r: self.members[r] for r in due}, table, writes=writes).items():
            self._judge(r, dev)

    def _judge(self, r: int, dev: dict[str, float]) -> None:
        """Keep a better checkpoint; stop a member that has not improved for long."""
        member = self.members[r]
        if not math.isfinite(dev["loss"]):
            member.best_dev = member.best_dev or dev
            self._end(r, "diverged")
            return
        select = member.training.select
        better = not member.is_good or merit(dev, select) > merit(member.best_dev, select)
        if better:
            member.is_good = True
            member.best, member.best_dev, member.best_step, member.stale = self.pack.state(r), dev, member.step, 0
        else:
            member.stale += 1
        loss = float(np.mean(member.recent)) if member.recent else None
        member.recent = []
        member.history.append({"step": member.step, "train_loss": loss, "dev": dev, "best": better})
        event = {"event": "evaluation", "run": r, "step": member.step, "of": member.steps, "train_loss": loss}
        self.report({**event, "dev": dev, "best_dev": member.best_dev, "select": select, "best": better})
        if member.training.patience and member.stale >= member.training.patience:
            self._end(r, "done")

    def _recomputing(self) -> AbstractContextManager[None]:
        """What is computed anew in the backward pass: layers, if asked for, else what costs next to nothing."""
        anew = recomputing if self.members[0].training.recompute_layers else recomputing_activations
        return anew(self.model.backbone.model)

    @contextmanager
    def _dropout(self) -> Iterator[None]:
        """The backbone's own dropout, if asked for, with masks from the `noise` stream."""
        if not self.backbone_dropout:
            yield
            return
        network = self.model.backbone.model
        member = self.members[0]
        with torch.random.fork_rng(devices=[network.device] if network.device.type == "cuda" else []):
            torch.manual_seed(torch_seed(member.seeds.noise, "noise:backbone", member.step))
            network.train()
            try:
                yield
            finally:
                network.eval()


def _rate(training: TrainingConfig, group: str) -> float:
    rates: Mapping[str, float] = training.learning_rates  # type: ignore[assignment]
    rate = rates.get(group, training.learning_rate)
    assert rate is not None, "config resolution fills in the learning rate"
    return rate
