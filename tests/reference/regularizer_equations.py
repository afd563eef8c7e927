"""The equations of regularizers, derived anew: one example at a time, in loops and in float64.

What a penalty is, is written here once more, with autograd on transformers' own model. Shared with the package are the
random streams, the tables that templates and label words were rendered to, and the forward pass with deep prompts.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn

from trimtab.config import Seeds
from trimtab.model import PromptedModel
from trimtab.prompt_table import table_of
from trimtab.regularizers import Regularizer
from trimtab.rendering import Rendering
from trimtab.seeding import stream
from trimtab.types import Row

Named = dict[str, Tensor]

TINY = 1e-12


@dataclass
class Member:
    """A run of a pack, as the objective wants it."""

    seeds: Seeds
    step: int
    regularizers: Sequence[Regularizer] = ()
    train: Sequence[Row] = ()
    epoch: int = 0
    findings: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


@dataclass(frozen=True)
class World:
    """A backbone, how examples are rendered for it, and what may stand in for words."""

    model: PromptedModel
    rendering: Rendering
    exact: nn.Module  # transformers' own model, float64
    mask_id: int
    words: tuple[int, ...]
    layers: Mapping[str, tuple[int, ...]]

    @property
    def embeddings(self) -> Tensor:
        return self.exact.get_input_embeddings().weight  # type: ignore[operator]


def exact_copy(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).double().eval()


@dataclass(frozen=True)
class One:
    """One example of a run: its rendered row, the run's prompt, and where its random numbers come from."""

    world: World
    row: Row
    prompt: Named
    member: Member
    place: int = 0

    # The model ---------------------------------------------------------------------------------------------------

    def scores(self, delta: Mapping[str, Tensor] | None = None, ids: Sequence[int] | None = None) -> Tensor:
        """One score per class, for a perturbation of the text [n,E] and of the prompt."""
        delta = delta or {}
        prompt = {n: v + delta[n].to(v.dtype) if n in delta else v for n, v in self.prompt.items()}
        if self.world.layers:
            return self._deep(prompt)
        logits = [self._logits(v, prompt["inputs"], delta.get("text"), ids) for v in self.row.variants]
        plans = self.world.rendering.plan(self.world.model.backbone.encoder).words
        if all(len(w.ids) == 1 for its in plans for w in its):
            return torch.stack([sum(logits[0][0, w.ids[0]] for w in its) / len(its) for its in plans])
        logs = [v.log_softmax(-1) for v in logits]
        return torch.stack([
            sum(sum(logs[w.fill][j, i] for j, i in enumerate(w.ids)) for w in its) / len(its) for its in plans
        ])  # fmt: skip

    def _logits(self, encoded: Any, inputs: Tensor, text: Tensor | None, ids: Sequence[int] | None) -> Tensor:
        """Vocabulary logits where the answer is read."""
        vectors = [self.world.embeddings[i] for i in encoded.ids]
        for n, position in enumerate(encoded.eligible):
            if ids is not None:
                vectors[position] = self.world.embeddings[ids[n]]
            if text is not None:
                vectors[position] = vectors[position] + text[n].double()
        for p, position in enumerate(encoded.slots):
            vectors[position] = inputs[p]
        out = self.world.exact(inputs_embeds=torch.stack(vectors)[None])
        return out.logits[0, list(encoded.answer_at)]

    def _deep(self, prompt: Named) -> Tensor:
        model = self.world.model
        table = table_of({n: v[None].float() for n, v in prompt.items()}, self.world.layers)
        return model.scores(model.collate([replace(self.row, prompt=0)]), table)[0]

    @property
    def label(self) -> int:
        assert isinstance(self.row.label, int)
        return self.row.label

    def loss(self, scores: Tensor) -> Tensor:
        return scores.logsumexp(0) - scores[self.label]

    # What is perturbed -------------------------------------------------------------------------------------------

    @property
    def eligible_ids(self) -> list[int]:
        longest = max(self.row.variants, key=lambda v: len(v.eligible))
        return [longest.ids[i] for i in longest.eligible]

    def original(self, name: str) -> Tensor:
        if name == "text":
            return self.world.embeddings[self.eligible_ids].detach()
        return self.prompt[name].detach()

    def rms(self, name: str) -> float:
        values = self.world.embeddings if name in ("text", "inputs") else self.original(name)
        return math.sqrt(float((values.detach().double() ** 2).mean()))

    def names(self, target: str) -> list[str]:
        return [n for n in ("text", *self.prompt) if target == "both" or (n == "text") == (target == "text")]

    def draw(self, purpose: str) -> np.random.Generator:
        counter = crc32(purpose.encode())
        return stream(self.member.seeds.noise, "noise", self.place, counter, self.member.step, self.row.key)

    def noise(self, purpose: str, name: str, kind: str = "normal") -> Tensor:
        draw, shape = self.draw(f"{purpose}:{name}"), tuple(self.original(name).shape)
        drawn = draw.standard_normal(shape, dtype=np.float32) if kind == "normal" else draw.random(shape, np.float32)
        return torch.from_numpy(drawn if kind == "normal" else 2 * drawn - 1).double()


def compare(one: One, loss: str, clean: Tensor, noisy: Tensor) -> Tensor:
    """The label, or a divergence term by term."""
    if loss == "ce":
        return one.loss(noisy)
    p, q = clean - clean.logsumexp(0), noisy - noisy.logsumexp(0)
    forth = sum(p[c].exp() * (p[c] - q[c]) for c in range(len(p)))
    back = sum(q[c].exp() * (q[c] - p[c]) for c in range(len(p)))
    return torch.as_tensor(forth if loss == "kl" else forth + back)


# Balls ---------------------------------------------------------------------------------------------------------------


def pieces(norm: str, values: Tensor) -> Tensor:
    """What each norm is taken over, one row each."""
    if norm == "linf":
        return values.reshape(-1, 1)
    return values.reshape(1, -1) if norm == "l2" else values.reshape(-1, values.shape[-1])


def radii(one: One, name: str, norm: str, absolute: float | None, relative: float) -> list[float]:
    rows = pieces(norm, one.original(name).double())
    if absolute is not None:
        return [absolute] * len(rows)
    if norm == "linf":
        return [relative * one.rms(name)] * len(rows)
    return [relative * math.sqrt(float((row**2).sum())) for row in rows]


def into_ball(norm: str, values: Tensor, limits: Sequence[float]) -> Tensor:
    found = []
    for row, limit in zip(pieces(norm, values), limits, strict=True):
        size = math.sqrt(float((row**2).sum()))
        found.append(row if size <= limit else row * (limit / size))
    return torch.stack(found).view_as(values)


def uphill(norm: str, gradient: Tensor, lengths: Sequence[float]) -> Tensor:
    found = []
    for row, length in zip(pieces(norm, gradient.double()), lengths, strict=True):
        found.append(row * (length / max(math.sqrt(float((row**2).sum())), TINY)))
    return torch.stack(found).view_as(gradient)


def begin(one: One, name: str, norm: str, start: str, limits: Sequence[float]) -> Tensor:
    like = one.original(name).double()
    if start == "zero":
        return torch.zeros_like(like)
    noise = one.noise("start", name, start)
    dimensions = pieces(norm, like).shape[1]
    if norm == "linf":
        width = 1.0 if start == "uniform" else 0.5
    else:
        width = 1 / math.sqrt(dimensions)
    rows = [row * (limit * width) for row, limit in zip(pieces(norm, noise), limits, strict=True)]
    return into_ball(norm, torch.stack(rows).view_as(noise), limits)


def slope(value: Callable[[Named], Tensor], delta: Named) -> Named:
    leaves = {n: v.detach().clone().requires_grad_() for n, v in delta.items()}
    found = torch.autograd.grad(value(leaves), list(leaves.values()))
    return dict(zip(leaves, found, strict=True))


# Penalties -----------------------------------------------------------------------------------------------------------


def gaussian(
    one: One, sigma: float | None = None, sigma_relative: float = 0.1, samples: int = 1, loss: str = "ce",
    target: str = "text",
) -> Tensor:  # fmt: skip
    total = torch.zeros((), dtype=torch.float64)
    for k in range(samples):
        sizes = {n: sigma if sigma is not None else sigma_relative * one.rms(n) for n in one.names(target)}
        delta = {n: size * one.noise(str(k), n) for n, size in sizes.items()}
        total = total + compare(one, loss, one.scores(), one.scores(delta)) / samples
    return total


def random_mask(
    one: One, rate: float = 0.15, replacement: str = "auto", at_least_one: bool = False, loss: str = "ce"
) -> Tensor:
    draw, ids = one.draw("mask"), one.eligible_ids
    chance = [float(c) for c in draw.random(len(ids))]
    hidden = {i for i, c in enumerate(chance) if c < rate}
    if at_least_one and len(ids) > 1:
        hidden.add(min(range(len(ids)), key=chance.__getitem__))
    hidden.discard(max(range(len(ids)), key=chance.__getitem__))
    instead = [one.world.mask_id] * len(ids)
    if replacement == "random":
        instead = [one.world.words[i] for i in draw.integers(len(one.world.words), size=len(ids))]
    new = [instead[i] if i in hidden else old for i, old in enumerate(ids)]
    return compare(one, loss, one.scores(), one.scores(ids=new))


def pgd(
    one: One, norm: str = "l2", epsilon: float | None = None, epsilon_relative: float = 0.01, steps: int = 1,
    step_size: float | None = None, start: str = "zero", loss: str = "ce", target: str = "text",
) -> Tensor:  # fmt: skip
    limits = {n: radii(one, n, norm, epsilon, epsilon_relative) for n in one.names(target)}
    delta = {n: begin(one, n, norm, start, its) for n, its in limits.items()}
    length = step_size if step_size is not None else (1.0 if steps == 1 else 2.5 / steps)
    clean = one.scores().detach()
    for _ in range(steps):
        found = slope(lambda its: compare(one, loss, clean, one.scores(its)), delta)
        for n, its in limits.items():
            moved = delta[n] + uphill(norm, found[n], [length * r for r in its])
            delta[n] = into_ball(norm, moved, its)
    return compare(one, loss, one.scores(), one.scores(delta))


def duplicate(one: One) -> Tensor:
    return one.loss(one.scores())


def r3f(
    one: One, sigma: float = 1e-5, sigma_relative: float | None = None, noise: str = "normal", target: str = "text"
) -> Tensor:
    sizes = {n: sigma if sigma_relative is None else sigma_relative * one.rms(n) for n in one.names(target)}
    noisy = one.scores({n: size * one.noise("noise", n, noise) for n, size in sizes.items()})
    return compare(one, "sym_kl", one.scores(), noisy)


def smart(
    one: One, epsilon: float | None = None, epsilon_relative: float | None = None, steps: int = 1,
    step_size: float = 2.0, target: str = "text",
) -> Tensor:  # fmt: skip
    absolute = 1e-5 if epsilon is None and epsilon_relative is None else epsilon
    delta, clean = {}, one.scores().detach()
    bounds = {n: absolute if absolute is not None else epsilon_relative * one.rms(n) for n in one.names(target)}  # type: ignore[operator]
    for n, bound in bounds.items():
        delta[n] = (bound / 2 * one.noise("start", n)).clamp(-bound, bound)
    for _ in range(steps):
        found = slope(lambda its: compare(one, "sym_kl", clean, one.scores(its)), delta)
        for n, bound in bounds.items():
            delta[n] = (delta[n] + step_size * bound * found[n].sign()).clamp(-bound, bound)
    return compare(one, "sym_kl", one.scores(), one.scores(delta))


def freelb(
    one: One, norm: str = "l2", epsilon: float | None = None, epsilon_relative: float = 0.1, steps: int = 3,
    step_size: float | None = None, start: str = "uniform", target: str = "text",
) -> Tensor:  # fmt: skip
    limits = {n: radii(one, n, norm, epsilon, epsilon_relative) for n in one.names(target)}
    delta = {n: begin(one, n, norm, start, its) for n, its in limits.items()}
    length, losses = 2.5 / steps if step_size is None else step_size, []
    for _ in range(steps):
        losses.append(one.loss(one.scores(delta)))
        found = slope(lambda its: one.loss(one.scores(its)), delta)
        delta = {
            n: into_ball(norm, delta[n] + uphill(norm, found[n], [length * r for r in its]), its)
            for n, its in limits.items()
        }
    return sum(losses, torch.zeros(())) / steps


def neftune(one: One, alpha: float = 5.0) -> Tensor:
    size = one.original("text").shape
    delta = alpha / math.sqrt(size[0] * size[1]) * one.noise("noise", "text", "uniform")
    return one.loss(one.scores({"text": delta}))


PER_EXAMPLE: dict[str, Callable[..., Tensor]] = {
    "gaussian": gaussian, "random_mask": random_mask, "pgd": pgd, "duplicate": duplicate, "r3f": r3f, "smart": smart,
    "freelb": freelb, "neftune": neftune,
}  # fmt: skip

REPLACING = ("freelb", "neftune", "sam")


def mean(values: Sequence[Tensor]) -> Tensor:
    return sum(values, torch.zeros(())) / len(values)


def sam(ones: Sequence[One], epsilon: float = 0.05, epsilon_relative: float | None = None) -> Tensor:
    """Of a whole run: one step for all its examples, one length for all its tensors."""
    prompt = ones[0].prompt
    clean = mean([one.loss(one.scores()) for one in ones])
    found = torch.autograd.grad(clean, list(prompt.values()))
    size = math.sqrt(sum(float((g.double() ** 2).sum()) for g in found))
    if epsilon_relative is not None:
        epsilon = epsilon_relative * math.sqrt(sum(float((v.detach().double() ** 2).sum()) for v in prompt.values()))
    delta = {n: epsilon / size * g for n, g in zip(prompt, found, strict=True)}
    return mean([one.loss(one.scores(delta)) for one in ones])


def objective(ones: Sequence[One], specs: Sequence[Mapping[str, Any]]) -> Tensor:
    """What a run minimizes: the mean clean loss, as far as it is not replaced, and the weighted penalties."""
    left = 1.0 - sum(s.get("weight", 1.0) for s in specs if s["kind"] in REPLACING)
    total = left * mean([one.loss(one.scores()) for one in ones])
    for place, spec in enumerate(s for s in specs if s.get("weight", 1.0)):
        options = {k: v for k, v in spec.items() if k not in ("kind", "weight")}
        placed = [replace(one, place=place) for one in ones]
        if spec["kind"] == "sam":
            penalty = sam(placed, **options)
        else:
            penalty = mean([PER_EXAMPLE[spec["kind"]](one, **options) for one in placed])
        total = total + spec.get("weight", 1.0) * penalty
    return total


def gradient(ones: Sequence[One], specs: Sequence[Mapping[str, Any]]) -> Named:
    """The gradient of the objective at a run's prompt."""
    prompt = ones[0].prompt
    found = torch.autograd.grad(objective(ones, specs), list(prompt.values()))
    return {n: g.double() for n, g in zip(prompt, found, strict=True)}
