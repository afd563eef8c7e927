"""The gradient of one optimizer step: clean losses and penalties of a pack, micro-batch by micro-batch.

First all clean passes are backpropagated, then all penalties. So a penalty may use the gradient of the clean loss, at
the embeddings of its micro-batch or at the prompt over the whole logical batch. Penalties whose gradient flows into the
clean scores (`Needs.graph`) join the clean pass of their micro-batch. What a penalty weighs nothing in, costs nothing
and leaves no trace in the last bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from trimtab.config import Seeds
from trimtab.errors import ConfigError
from trimtab.model import PromptedModel
from trimtab.perturbations import (
    TEXT,
    Substitutes,
    TrainStep,
    prompt_names,
    purpose_number,
    replace_tokens,
    text_mask,
    text_of,
)
from trimtab.prompt_table import PromptTable
from trimtab.readouts import divergence, has_distribution, mistaken
from trimtab.regularizers import Needs, Regularizer
from trimtab.seeding import stream
from trimtab.training.parallel import Processes
from trimtab.types import Batch, Row

_ROUNDING = 1e-6
"""What of a sum of weights is not meant."""


@runtime_checkable
class Penalized(Protocol):
    """What is asked of a member of the pack."""

    seeds: Seeds
    step: int
    regularizers: Sequence[Regularizer]
    train: Sequence[Row]
    findings: dict[str, list[dict[str, Any]]]

    @property
    def epoch(self) -> int: ...


@dataclass(frozen=True)
class Part:
    """A micro-batch, and what each example counts in the mean of its run."""

    batch: Batch
    share: Float[Tensor, "X"]


@dataclass(frozen=True)
class Seen:
    """A micro-batch after its clean pass."""

    part: Part
    scores: Float[Tensor, "X *C"]
    gradient: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Active:
    """A penalty with a weight other than zero in some run.

    Attributes:
        places: by run, its number among those of the recipe's list that weigh something there: so one that weighs
            nothing leaves the noise of the others as it is.
        weights: by run.
    """

    places: Sequence[int]
    regularizer: Regularizer
    weights: Float[Tensor, "R"]

    @property
    def needs(self) -> Needs:
        return self.regularizer.needs


class Objective:
    """Losses and penalties of the members of a pack.

    Args:
        members: one per prompt; their regularizers are the same but for the weights.
        substitutes: tokens that penalties may put into a text.
    """

    def __init__(
        self,
        model: PromptedModel,
        members: Sequence[Penalized],
        processes: Processes,
        substitutes: Substitutes,
    ) -> None:
        self._model, self._members, self._processes, self._substitutes = model, members, processes, substitutes
        device = model.backbone.device
        self._active = []
        places = [0] * len(members)
        for k, regularizer in enumerate(members[0].regularizers):
            weights = [m.regularizers[k].weight for m in members]
            if any(weights):
                self._active.append(Active(places, regularizer, torch.tensor(weights, device=device)))
            places = [place + (weight != 0) for place, weight in zip(places, weights, strict=True)]
        replacing = [a.weights for a in self._active if a.needs.replaces_loss]
        left = 1 - torch.stack(replacing).sum(0) if replacing else None
        self._clean = None if left is None else left.where(left > _ROUNDING, 0.0)  # how much of the clean loss is left
        self._clean_is_unused = self._clean is not None and not bool((self._clean > 0).any())
        # runs that would need no clean pass if they trained alone: their loss is the penalties, whatever the pack needs
        looks = [a.weights != 0 for a in self._active if a.needs.clean_pass]
        shows_clean = torch.ones(len(members), device=device) if self._clean is None else self._clean
        self._shows_clean = torch.stack([shows_clean > 0, *looks]).any(0)
        self._skips_clean = not bool(self._shows_clean.any())
        self._joining = [a for a in self._active if a.needs.graph and self._clean is None]
        self._following = [a for a in self._active if a not in self._joining]
        self._keeps_table = any(a.needs.table_gradient for a in self._following)
        self._embedding_rms = model.backbone.embedding_rms  # as training began, even if the backbone moves

    def backward(self, parts: Sequence[Part], leaf: PromptTable) -> Float[Tensor, "R"]:
        """Add the gradient of a logical batch to the leaf; returns each run's loss: the clean one, or the penalties of
        a run that has no use for it.

        Args:
            parts: the micro-batches of this process; may be none.
        """
        losses = torch.zeros(len(self._members), dtype=torch.float64)
        table_gradient: dict[str, Tensor] = {}
        seen = []
        for part in (replace(p, batch=self._shaken(p.batch, leaf)) for p in parts):
            if self._skips_clean:
                seen.append(Seen(part, torch.empty(len(part.share), 0, device=part.share.device)))
            else:
                seen.append(self._clean_pass(part, leaf, losses, table_gradient))
        if self._keeps_table:
            table_gradient = self._summed(table_gradient, leaf)
        for its in seen:
            for active in self._following:
                scores = self._model.scores(its.part.batch, leaf) if active.needs.graph else its.scores
                step = self._step(replace(its, scores=scores), leaf, active, table_gradient)
                own = its.part.batch.prompt_of_example
                for value in _passes(active, step):
                    penalty = value * its.part.share * active.weights[own]
                    penalty.sum().backward()
                    _add(losses, its.part, penalty, ~self._shows_clean[own])
        return losses

    def _shaken(self, batch: Batch, leaf: PromptTable) -> Batch:
        """The batch with the noise of routers: drawn per example, and the same in all passes of a step."""
        routing = leaf.routing
        if routing is None or not routing.noise:
            return batch
        runs, keys = (its[batch.first_row].tolist() for its in (batch.prompt_of, batch.keys))
        counts, jitter = routing.counts.tolist(), torch.zeros(len(runs), routing.weights.shape[1])
        for x, (r, key) in enumerate(zip(runs, keys, strict=True)):
            draw = stream(self._members[r].seeds.noise, "noise:router", self._members[r].step, key)
            jitter[x, : counts[r]] = torch.from_numpy(draw.standard_normal(counts[r], dtype=np.float32))
        return replace(batch, jitter=jitter.to(batch.ids.device))

    def _clean_pass(
        self, part: Part, leaf: PromptTable, losses: Float[Tensor, "R"], table_gradient: dict[str, Tensor]
    ) -> Seen:
        """The loss without perturbation, its gradient, and the penalties that join it."""
        batch = part.batch
        own = batch.prompt_of_example
        origin, table = self._origin(batch, leaf), _named(leaf) if self._keeps_table else {}
        scores = self._model.scores(batch, leaf, origin)
        loss = self._model.readout.loss(scores, batch.labels) * part.share
        _add(losses, part, loss, self._shows_clean[own])
        asked = [*origin.values(), *table.values()]
        is_apart = bool(table) or (bool(origin) and (self._clean is not None or bool(self._joining)))
        found = _gradients(loss, asked) if is_apart else []
        total = loss if self._clean is None else loss * self._clean[own]
        for active in self._joining:
            step = self._step(Seen(part, scores, _per_example(origin, found, part)), leaf, active, {})
            (penalty,) = _passes(active, step)
            total = total + penalty * part.share * active.weights[own]
        if not self._clean_is_unused:
            total.sum().backward()
        if not is_apart:
            found = [torch.zeros_like(v) if v.grad is None else v.grad for v in asked]
        for name, g in zip(table, found[len(origin) :], strict=True):
            table_gradient[name] = table_gradient.get(name, 0) + g
        return Seen(part, scores.detach(), _per_example(origin, found, part))

    def _origin(self, batch: Batch, leaf: PromptTable) -> dict[str, Tensor]:
        """A perturbation of zero, at which somebody asks for the gradient."""
        targets = {a.needs.gradient for a in self._active} - {None}
        is_text, is_prompt = (bool(targets & {t, "both"}) for t in ("text", "prompt"))
        names = ((TEXT,) if is_text else ()) + (prompt_names(leaf) if is_prompt else ())
        return {n: torch.zeros_like(self._original(batch, leaf, n)).float().requires_grad_() for n in names}

    def _original(self, batch: Batch, leaf: PromptTable, name: str) -> Tensor:
        """What a perturbation of this name is added to, detached."""
        with torch.no_grad():
            if name == TEXT:
                return text_of(self._model.embed(batch), batch)
            return leaf.tensors[name].detach()[batch.prompt_of_example.clamp(min=0)]

    def _step(self, seen: Seen, leaf: PromptTable, active: Active, table_gradient: Mapping[str, Tensor]) -> TrainStep:
        """What a regularizer may see of a micro-batch."""
        model, batch = self._model, seen.part.batch
        runs, keys = (its[batch.first_row].tolist() for its in (batch.prompt_of, batch.keys))

        def streams(purpose: str) -> list[np.random.Generator]:
            number = purpose_number(purpose)
            drawn = [(active.places[r], self._members[r], key) for r, key in zip(runs, keys, strict=True)]
            return [stream(m.seeds.noise, "noise", place, number, m.step, key) for place, m, key in drawn]

        def rescore_text(new: Tensor) -> Tensor:
            return model.scores(replace_tokens(batch, new), leaf)

        def tell(x: int, file: str, record: Mapping[str, Any]) -> None:
            member = self._members[runs[x]]
            if active.weights[runs[x]] != 0:
                about = {"step": member.step, "example": member.train[keys[x]].origin.id}
                member.findings.setdefault(file, []).append({**about, **record})

        prompts = prompt_names(leaf)
        deep = {n: _like(_rms(self._original(batch, leaf, n)), leaf.tensors[n]) for n in prompts if n != "inputs"}
        return TrainStep(
            batch=batch,
            mask=text_mask(batch),
            prompts=prompts,
            scores=seen.scores,
            rms={TEXT: self._embedding_rms, "inputs": self._embedding_rms, **deep},
            original=cache(partial(self._original, batch, leaf)),
            rescore=lambda delta: model.scores(batch, leaf, delta),
            rescore_text=rescore_text,
            loss=model.readout.loss,
            divergence=lambda p, q: divergence(model.readout, p, q, batch.labels),
            streams=streams,
            gradient=seen.gradient,
            table_gradient=table_gradient,
            substitutes=self._substitutes,
            epochs=[self._members[r].epoch for r in runs],
            mistaken=lambda scores: mistaken(model.readout, scores, batch.labels),
            tell=tell,
        )

    def _summed(self, table_gradient: Mapping[str, Tensor], leaf: PromptTable) -> dict[str, Tensor]:
        """The gradient of the whole logical batch, from those of all processes."""
        found = {n: table_gradient.get(n, torch.zeros_like(v)) for n, v in _named(leaf).items()}
        self._processes.sum_(*found.values())
        return found


def _named(leaf: PromptTable) -> dict[str, Tensor]:
    """What of a table may be perturbed."""
    return {n: leaf.tensors[n] for n in prompt_names(leaf)}


def _passes(active: Active, step: TrainStep) -> Iterable[Float[Tensor, "X"]]:
    """What is backpropagated at a time: the parts of a penalty, or all at once where they share the clean pass."""
    parts = active.regularizer.penalties(step)
    return [torch.stack(list(parts)).sum(0)] if active.needs.graph else parts


def _gradients(loss: Float[Tensor, "X"], at: Sequence[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(loss.sum(), at, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(v) if g is None else g for v, g in zip(at, found, strict=True)]


def _per_example(names: Iterable[str], found: Sequence[Tensor], part: Part) -> dict[str, Tensor]:
    """The gradients of each example's own loss, from those of what it counts in the mean; by name, the first ones."""
    return {name: g / _like(part.share, g) for name, g in zip(names, found, strict=False)}


def _add(losses: Float[Tensor, "R"], part: Part, per_example: Float[Tensor, "X"], counts: Bool[Tensor, "X"]) -> None:
    """Add to each run's loss what counts."""
    shown = torch.where(counts, per_example.detach(), 0.0)
    losses.index_add_(0, part.batch.prompt_of_example.cpu(), shown.double().cpu())


def _rms(values: Float[Tensor, "X ..."]) -> Float[Tensor, "X"]:
    return values.flatten(1).square().mean(1).sqrt()


def _like(per_example: Float[Tensor, "X"], values: Tensor) -> Tensor:
    """One number per example, as values of more dimensions are multiplied with."""
    return per_example.view(-1, *[1] * (values.ndim - 1))


def check_regularizers(
    built: Sequence[Regularizer],
    readouts: Sequence[str],
    rows: Sequence[Row],
    has_mask: bool,
) -> None:
    """Refuse regularizers that this run could not have.

    Args:
        readouts: the kind of each task's.
        rows: of the training split.
        has_mask: the vocabulary has a token for what is hidden.

    Raises:
        ConfigError: no text may be perturbed, the readout has no distribution, the vocabulary no mask; or more than
            all of the clean loss is replaced.
    """
    has_text = any(v.eligible for row in rows for v in row.variants)
    for i, needs in enumerate(r.needs for r in built):
        where = f"regularizers.{i}"
        if needs.text and not has_text:
            raise ConfigError(
                "there is no text to perturb: no field of the template has a token left beside label words.",
                where=where,
                fix="Check `trimtab show`. What has a target can perturb the prompt instead, by target: prompt.",
            )
        lacking = [kind for kind in readouts if needs.distribution and not has_distribution(kind)]
        if lacking:
            raise ConfigError(
                f"the readout {lacking[0]!r} gives no distribution over answers, so passes cannot be compared by one.",
                where=where,
                fix="Use a readout with classes; or leave out the option that compares them, such as loss: kl.",
            )
        if needs.mask and not has_mask:
            raise ConfigError(
                "the vocabulary has no mask token, sentinel or unknown token.",
                where=f"{where}.replacement",
                fix="Use replacement: random.",
            )
    replaced = sum(r.weight for r in built if r.needs.replaces_loss)
    if replaced > 1 + _ROUNDING:
        raise ConfigError(
            f"regularizers that stand in the place of the clean loss may weigh 1 together, got {replaced:g}.",
            where="regularizers",
            fix="Lower their weights.",
        )
