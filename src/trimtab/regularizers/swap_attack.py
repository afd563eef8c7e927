"""A greedy attack on texts by word swaps; what `word_swap` trains against.

    order:   words by || g_i ||,   g_i = gradient of the clean loss at E(x_i), the largest first
    choice:  argmax over candidates w' of g_i . (E(w') - E(x_i)),  only where that is > 0; see `swap_candidates`
    keep:    if loss( M(s, E(x')), y ) rises; else the swap is undone

All choices are made in the clean text, before the first swap. A round then takes the next one of every example, and one
pass verifies them. Nothing here leaves a gradient.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from math import ceil

import torch
from torch import Tensor

from trimtab.perturbations import TEXT, Lexicon, TrainStep, in_all_rows, text_of
from trimtab.regularizers.swap_candidates import Rules, Swap, choose, text_places


@dataclass(frozen=True)
class Limits:
    """How far an attack goes; see the options of `trimtab.regularizers.word_swap.WordSwap`.

    Attributes:
        until_mistake: an example that the model gets wrong is left.
    """

    rate: float
    at_least: int
    tries: int
    until_mistake: bool = False

    def budget(self, words: int) -> int:
        """How many of an example's words may be swapped."""
        return max(ceil(self.rate * words), self.at_least) if self.rate > 0 else 0


@dataclass
class Attacked:
    """What has become of one example.

    Attributes:
        before: the loss of the clean text.
        after: the loss with the swaps.
        left: swaps that are still to be tried, that of the most important word last.
        budget: swaps that are left.
    """

    before: float
    after: float
    left: list[Swap]
    budget: int
    swaps: list[Swap] = field(default_factory=list)


@torch.no_grad()
def attack(step: TrainStep, examples: Collection[int], limits: Limits, rules: Rules) -> dict[int, Attacked]:
    """Swap words of these examples of a micro-batch, by their number in it."""
    lexicon = step.substitutes.lexicon
    assert lexicon is not None, "a backbone has words"
    found = _opening(step, examples, limits, rules, lexicon)
    new = torch.full(step.mask.shape, -1, device=step.mask.device)
    wrong = _mistaken(step, step.scores, limits)
    while active := [x for x, its in found.items() if its.left and its.budget and not wrong[x]]:
        swaps = {x: found[x].left.pop() for x in active}
        trial = new.clone()
        for x, swap in swaps.items():
            trial[x, swap.entry] = swap.new
        scores = step.rescore_text(trial)
        losses, is_wrong = step.loss(scores, step.batch.labels).tolist(), _mistaken(step, scores, limits)
        for x, swap in swaps.items():
            its = found[x]
            if losses[x] > its.after:
                new[x, swap.entry] = swap.new
                its.swaps.append(swap)
                its.after, its.budget, wrong[x] = losses[x], its.budget - 1, is_wrong[x]
    return found


def _opening(
    step: TrainStep, examples: Collection[int], limits: Limits, rules: Rules, lexicon: Lexicon
) -> dict[int, Attacked]:
    """What is tried: the best swaps of the most important words, and how many may be made."""
    batch = step.batch
    rows, columns = (its.tolist() for its in text_places(batch))
    losses = step.loss(step.scores, batch.labels).tolist()
    ids = text_of(batch.ids, batch).tolist()
    whole = in_all_rows(lexicon.whole(batch.ids), batch) & step.mask
    words = text_of(lexicon.begins(batch.ids).long(), batch).sum(1).tolist()
    weight = torch.linalg.vector_norm(step.gradient[TEXT].float(), dim=2)
    order = weight.masked_fill(~whole, -1.0).argsort(dim=1, descending=True, stable=True).tolist()
    may, found = whole.tolist(), {}
    for x in examples:
        budget = limits.budget(words[x])
        tried = [n for n in order[x] if budget and may[x][n] and rules.near(ids[x][n], lexicon)]
        swaps = [choose(step, x, n, rows[x][n], columns[x][n], rules, lexicon) for n in tried[: limits.tries * budget]]
        found[x] = Attacked(losses[x], losses[x], [s for s in reversed(swaps) if s is not None], budget)
    return found


def _mistaken(step: TrainStep, scores: Tensor, limits: Limits) -> list[bool]:
    """Which examples need no more swaps."""
    if not limits.until_mistake:
        return [False] * len(scores)
    assert step.mistaken is not None, "asked for by `Needs.distribution`"
    return step.mistaken(scores).tolist()
