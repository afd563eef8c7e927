"""SuperPos-Prompt (SadraeiJavaeri et al. 2024, "Enhancing Soft Prompt Tuning of Language Models with Superposition of
Multi Token Embeddings", arXiv 2406.05279).

    p_i = sum over j of w_ij e_j,        e_1 ... e_m: embeddings of words drawn from the vocabulary

Symbols: p_i row of the prompt, w its weights, m how many words (`words`). The weights are free: no softmax, no sign.
All rows share the words, so the prompt lies in the space that they span.

Parameters: P m, with `tune_words` m E more; kept: P E. P = 10, m = 128: 1,280, whatever the backbone. Cost per step:
negligible beside the backbone.

The paper's other finding, that dropout in the frozen model does harm, is how all training is done here
(`backbone.dropout: false`).

Deviations: of the paper its abstract, the equation and m = 128, from where on more words gained nothing, were available
to us. Ours are therefore: first weights from N(0, 1 / m), which give a prompt of the embeddings' size; words that stay
as they are, unless `tune_words` trains them along with the weights; the length of 10 and AdamW with our rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, final

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from trimtab.initializers import Initializer, PromptContext, SampledVocab, part_of
from trimtab.prompts import PromptEncoder
from trimtab.registry import initializers, prompts

_WORDS = 128


@final
@prompts.register("superpos")
class SuperPos(PromptEncoder):
    """Weighted sums of the embeddings of sampled words (SuperPos-Prompt, SadraeiJavaeri et al. 2024).

    Args:
        length: number of virtual tokens P.
        words: m, how many embeddings are summed up.
        initializer: where these embeddings come from; it is asked for m rows. Of another run they are its prompt.
        tune_words: train the embeddings, too.
    """

    default_learning_rate = 1e-2

    def __init__(
        self,
        context: PromptContext,
        *,
        length: Annotated[int, Field(ge=1)] = 10,
        words: Annotated[int, Field(ge=1)] = _WORDS,
        initializer: Annotated[Initializer, initializers] = SampledVocab(),
        tune_words: bool = False,
    ) -> None:
        super().__init__()
        known = part_of(initializer, context, "inputs", (words, context.embedding_size), "prompt.words")
        known = initializer(context, words) if known is None else known
        self.weights = nn.Parameter(torch.randn(length, words, generator=context.generator) / words**0.5)
        if tune_words:
            self.rows = nn.Parameter(known)
        else:
            self.register_buffer("rows", known)

    def forward(self) -> Float[Tensor, "P E"]:
        return self.weights @ self.rows

    @staticmethod
    def has_rows(options: Mapping[str, Any]) -> bool:
        return bool(options["tune_words"])

    @staticmethod
    def count(length: int, size: int, **options: Any) -> int:
        m = options.get("words", _WORDS)
        return length * m + (m * size if options.get("tune_words") else 0)
