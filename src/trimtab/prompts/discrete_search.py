"""Words in the place of a soft prompt, found by gradient-guided search (AutoPrompt: Shin et al. 2020, arXiv 2010.15980,
section 2.2, after the HotFlip attack of Ebrahimi et al. 2018 and the triggers of Wallace et al. 2019).

    P = [ E(w_1), ..., E(w_P) ],    w_i words of the vocabulary
    a step:  pick a position i;   V_cand = top-k over w of  - E(w) . dL/dP_i
             w_i <- argmin over { w_i } and V_cand of the loss with w in the place of w_i, on rows drawn from train

Symbols (section 2.2): w trigger tokens, k candidates (the paper's symbols, with its log-likelihood as -L). It is the
baseline that says what vectors gain over words: the result can be read, and typed into any model's input.

Parameters: P E numbers that are always rows of the embedding matrix, so P token ids; `words.jsonl` in the run folder
has every swap. Cost: a step, and k + 1 passes without gradient over the rows that judge.

Deviations: the paper starts from mask tokens, here an initializer's vectors move to the nearest words; candidates are
judged by the loss on rows drawn anew for every step (the released code: by the accuracy on the next batches); on the
rows of the gradient alone the search follows the noise of the batch. Label words are not tried, as in the released
code. Rates, schedules and optimizers have no say over the words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, final

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from trimtab.initializers import Initializer, PromptContext, SampledVocab
from trimtab.prompts import PromptEncoder
from trimtab.registry import initializers, prompts


@final
@prompts.register("discrete_search")
class DiscreteSearch(PromptEncoder):
    """Words found by gradient-guided search (Shin et al. 2020, AutoPrompt).

    Args:
        length: number of words P.
        initializer: where the search begins: the words nearest to these vectors.
        candidates: words that a step tries, k.
        judges: training rows that judge them, drawn for each step; all where there are fewer.
    """

    default_learning_rate = 1e-2

    def __init__(
        self,
        context: PromptContext,
        *,
        length: Annotated[int, Field(ge=1)] = 5,
        initializer: Annotated[Initializer, initializers] = SampledVocab(),
        candidates: Annotated[int, Field(ge=1)] = 10,
        judges: Annotated[int, Field(ge=1)] = 64,
    ) -> None:
        super().__init__()
        self._candidates, self.judges = candidates, judges
        self._words = [i for i in context.words if i not in set(context.label_ids)]
        self._vectors = context.rows  # a function: copies of an encoder share the matrix
        self.rows = nn.Parameter(self._nearest(initializer(context, length)))

    def forward(self) -> Float[Tensor, "P E"]:
        return self.rows * 1.0

    @torch.no_grad()
    def alternatives(
        self, rows: Float[Tensor, "P E"], gradient: Float[Tensor, "P E"], rng: np.random.Generator
    ) -> Float[Tensor, "K P E"]:
        """Prompts that a step tries, one word of each another than now; K is less than k in a small vocabulary."""
        at = int(rng.integers(len(rows)))
        matrix = self._vectors(self._words).to(rows.device)
        promise = -(matrix @ gradient[at])
        promise[(matrix == rows[at]).all(1)] = -torch.inf  # what stands there now
        best = promise.topk(min(self._candidates, len(matrix) - 1)).indices
        tried = rows.detach().repeat(len(best), 1, 1)
        tried[:, at] = matrix[best]
        return tried

    def _nearest(self, rows: Float[Tensor, "P E"]) -> Float[Tensor, "P E"]:
        """The word nearest to each vector."""
        matrix = self._vectors(self._words)
        return matrix[torch.cdist(rows, matrix).argmin(1)]

    @staticmethod
    def has_network(options: Mapping[str, Any]) -> bool:
        return False

    @staticmethod
    def count(length: int, size: int, **options: object) -> int:
        return length * size
