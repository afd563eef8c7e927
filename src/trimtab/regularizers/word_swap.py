"""Adversarial word swaps in the style of A2T (Yoo and Qi 2021, arXiv 2109.00544): PTP-ADV in text space (Chen et al.,
EMNLP 2023, arXiv 2305.02423).

    penalty = loss( M(s, E(x')), y ),      x' = x with some words swapped, by a greedy attack on the current prompt

Symbols: s prompt, x token ids of the text, E the input embeddings, M frozen backbone; x' is held constant. The attack
is in `swap_attack`, its candidates in `swap_candidates`, what a word is in `trimtab.backbones.words`.

As in A2T: words are tried in the order of the gradient's norm at their embedding; each changes once at most; stop words
stay, negations among them; the budget is a tenth of the words, rounded up, with a floor; a swap that does not raise the
loss is undone. A2T's floor is 4 words, and its attack ends at the first mistake (`until: mistake`).

Not as in A2T: no counter-fitted embeddings and no sentence encoder, as no backbone comes with them. Instead a
substitute must be proposed by the bare model (A2T-MLM: 20 proposals) and be near in the backbone's own input
embeddings; neither knows opposites, so a list of English ones is kept out. Candidates are those of the clean text, and
one of a word is tried, the best to first order, not each. Swaps are of whole pieces of one form, so labels and
positions stay; words of several pieces, label words, and those that the sequences of an example do not share, stay.
Stop words are not put in, either. The part of speech is asked for only where nltk's tagger is installed. A2T leaves the
premise of a pair; here all fields may change, answers that stand in a context too. The additive form and all other
defaults are ours; `similarity`, `proposals` and `neighbours` were set by reading swaps of a small English BERT. Cosines
differ between backbones.

Cost: one more pass per step (with a divergence one more backward pass, too, as the attack needs the gradient of the
clean loss alone), and one without gradient per refresh for each swap that is tried. The model that proposes
is asked once for each word that is tried, alone; a frozen one is remembered, so it is the first epoch that costs: a
step took 8 plain ones on nano-masked and 39 on a six-layer BERT, later 3 (docs/results/regularizer-costs.md and
regularizer-costs-minilm.md). What comes again before the next refresh keeps its swaps.

`swaps.jsonl` in the run folder has the first 20 swapped examples of every refresh. `step` counts the updates of the
prompt that was attacked; the texts are those of the example's first sequence, without slots and special tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, final

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from trimtab.perturbations import TrainStep, replace_tokens
from trimtab.registry import regularizers
from trimtab.regularizers import Needs
from trimtab.regularizers.comparison import Loss, compared
from trimtab.regularizers.english import english_stop_words
from trimtab.regularizers.part_of_speech import find_tagger
from trimtab.regularizers.swap_attack import Attacked, Limits, attack
from trimtab.regularizers.swap_candidates import Rules, read_ids

FILE = "swaps"
TOLD = 20
"""Examples of every refresh that are written to be read."""

NO_TAGGER = "word_swap does not look at parts of speech: nltk, or the data of its tagger, is not installed."
NO_SWAPS = "word_swap found no word to swap. A lower similarity, or more proposals and neighbours, may help."


@dataclass
class Kept:
    """The swaps of one run since its last refresh: by the example's key, pairs of an entry and a token."""

    refresh: int
    told: int = 0
    found: dict[int, list[list[int]]] = field(default_factory=dict)


@final
@regularizers.register("word_swap")
class WordSwap:
    """Adversarial word swaps (PTP-ADV in text space, after A2T).

    Args:
        weight: of the penalty beside the clean loss.
        rate: share of an example's words that may be swapped; 0 swaps none.
        at_least: words that may be swapped however short the text.
        tries: words that are tried for each word that may be swapped.
        proposals: likeliest words of the bare model that may be a substitute.
        neighbours: nearest words in the input embeddings that may be one.
        similarity: the least cosine of the two embeddings.
        stop_words: words that stay: scikit-learn's English ones and what begins contractions, or none.
        opposites: what is no substitute: English opposites, or nothing.
        part_of_speech: a substitute must be of the same, where nltk's tagger is installed; `off` never asks.
        until: what ends an attack: the budget, or a mistake of the model.
        refresh_every: epochs after which texts are attacked anew.
        loss: what the scores are held against: the label, or the clean scores. The attack raises the loss of the label.
    """

    def __init__(
        self,
        *,
        weight: Annotated[float, Field(ge=0)] = 1.0,
        rate: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        at_least: Annotated[int, Field(ge=0)] = 1,
        tries: Annotated[int, Field(ge=1)] = 4,
        proposals: Annotated[int, Field(ge=1)] = 50,
        neighbours: Annotated[int, Field(ge=1, le=256)] = 20,
        similarity: Annotated[float, Field(ge=-1, le=1)] = 0.5,
        stop_words: Literal["english", "none"] = "english",
        opposites: Literal["english", "none"] = "english",
        part_of_speech: Literal["auto", "off"] = "auto",
        until: Literal["budget", "mistake"] = "budget",
        refresh_every: Annotated[int, Field(ge=1)] = 1,
        loss: Loss = "ce",
    ) -> None:
        self.weight, self._refresh_every, self._loss = weight, refresh_every, loss
        compares = loss != "ce"
        self.needs = Needs(
            graph=compares,
            gradient="text",
            distribution=compares or until == "mistake",
            text=True,
            one_process=True,
        )
        tagger = find_tagger() if part_of_speech == "auto" else None
        stop = english_stop_words() if stop_words == "english" else ()
        self._limits = Limits(rate, at_least, tries, until == "mistake")
        self._rules = Rules(proposals, neighbours, similarity, stop, opposites == "english", tagger)
        self._lacks_tagger = part_of_speech == "auto" and tagger is None
        self._kept: dict[int, Kept] = {}
        self._attacked = self._swapped = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """That parts of speech are not looked at, and that nothing was swapped."""
        finds_nothing = self._limits.rate > 0 and self._attacked > 0 and not self._swapped
        return (NO_TAGGER,) * self._lacks_tagger + (NO_SWAPS,) * finds_nothing

    def penalties(self, step: TrainStep) -> Iterator[Float[Tensor, "X"]]:
        """The loss of the swapped texts, which are looked for where they are not known."""
        runs, keys = step.batch.prompt_of_example.tolist(), step.batch.keys[step.batch.first_row].tolist()
        for run, epoch in zip(runs, step.epochs, strict=True):
            if run not in self._kept or self._kept[run].refresh != epoch // self._refresh_every:
                self._kept[run] = Kept(epoch // self._refresh_every)
        lacking = [x for x, (run, key) in enumerate(zip(runs, keys, strict=True)) if key not in self._kept[run].found]
        fresh = attack(step, lacking, self._limits, self._rules) if lacking else {}
        for x, its in fresh.items():
            self._kept[runs[x]].found[keys[x]] = [[s.entry, s.new] for s in its.swaps]
            self._attacked, self._swapped = self._attacked + 1, self._swapped + bool(its.swaps)
        new = torch.full(step.mask.shape, -1)
        for x, (run, key) in enumerate(zip(runs, keys, strict=True)):
            for entry, token in self._kept[run].found[key]:
                new[x, entry] = token
        new = new.to(step.mask.device)
        self._tell(step, fresh, new, runs)
        yield compared(self._loss, step.rescore_text(new), step)

    def _tell(self, step: TrainStep, fresh: dict[int, Attacked], new: Tensor, runs: list[int]) -> None:
        """Keep some swaps to be read."""
        words, first, swapped = step.substitutes.lexicon, step.batch.first_row.tolist(), replace_tokens(step.batch, new)
        assert words is not None, "there were words to swap"
        for x, its in fresh.items():
            kept = self._kept[runs[x]]
            if its.swaps and kept.told < TOLD:
                kept.told += 1
                before, after = (words.decode(read_ids(b, first[x])) for b in (step.batch, swapped))
                pairs = [[words.word(s.old), words.word(s.new)] for s in its.swaps]
                record = {"refresh": kept.refresh, "before": before, "after": after, "swaps": pairs}
                step.tell(x, FILE, {**record, "loss_before": its.before, "loss_after": its.after})

    @property
    def state(self) -> dict[str, Any]:
        """The swaps of every run."""
        runs = {
            str(run): {**vars(k), "found": {str(x): its for x, its in k.found.items()}} for run, k in self._kept.items()
        }
        return {"attacked": self._attacked, "swapped": self._swapped, "runs": runs}

    def load(self, state: dict[str, Any]) -> None:
        """Go on with the swaps of another one."""
        self._attacked, self._swapped = state["attacked"], state["swapped"]
        for run, its in state["runs"].items():
            self._kept[int(run)] = Kept(**{**its, "found": {int(x): swaps for x, swaps in its["found"].items()}})
