"""SMoP, sparse mixture-of-prompts (Choi et al., EMNLP 2023, "SMoP: Towards Efficient and Effective Prompt Tuning with
Sparse Mixture-of-Prompts").

    s = softmax( W mean_t E(x)_t ),     j = argmax s,     input = [ s_j P_j ; E(x) ]         P_1 ... P_k in R^{P x E}
    in training  softmax( W mean_t E(x)_t (1 + sigma z) ),     z ~ N(0, I), anew for each example and step

Symbols: E(x) embedded text, W in R^{k x E} router, P_j prompts, k how many (`prompts`), sigma `noise`. Each text takes
one of k short prompts, so a sequence is no longer than with one of them. The share s_j is what brings W a gradient; the
noise, held constant in the backward pass, keeps texts from crowding at one prompt.

Parameters: k E (P + 1), all kept. k = 4, P = 5, E = 768: 18,432. Cost per step: one embedding of the text, k products.

Deviations: the mean is over literals and fields; the released code's is over the whole text, special tokens included.
Each sequence of an example chooses for itself (each of several choices, say); of an encoder-decoder the encoder's text
chooses, for slots in the decoder as well. The noise is drawn once per example and step, and serves all passes that a
regularizer adds. W starts orthogonal as in the code, divided by the embeddings' root mean square, so that scores are as
apart on all backbones (`router: paper` leaves that out). Prompts start at words of the vocabulary, the code's at
N(0, 1). Not offered: the load-balancing loss, more prompts than one at a time, and other options of the code. The
optimizer is AdamW at our rate, not Adafactor at 0.5; P_j and W are the groups `prompt` and `encoder` of
`training.learning_rates`. k = 4 prompts of 5 tokens are the code's example. With another SMoP run as the `initializer`
the router starts at that run's, too; with any other run, all prompts at its one.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, final

import torch
from pydantic import Field
from torch import Tensor, nn

from trimtab.initializers import Initializer, PromptContext, SampledVocab, part_of
from trimtab.prompts import PromptEncoder
from trimtab.registry import initializers
from trimtab.registry import prompts as registered

_PROMPTS = 4


@final
@registered.register("smop")
class SMoP(PromptEncoder):
    """Several short prompts, one of which is chosen for each text (SMoP, Choi et al. 2023).

    Args:
        length: number of virtual tokens P of each prompt, and of slots in the text.
        initializer: first values of each prompt.
        prompts: k, how many there are.
        noise: standard deviation of the factors on the router's scores, in training.
        router: `scaled` starts the router in units of the embeddings' root mean square, `paper` does not.
    """

    default_learning_rate = 1e-2

    def __init__(
        self,
        context: PromptContext,
        *,
        length: Annotated[int, Field(ge=1)] = 5,
        initializer: Annotated[Initializer, initializers] = SampledVocab(),
        prompts: Annotated[int, Field(ge=1)] = _PROMPTS,
        noise: Annotated[float, Field(ge=0)] = 1.0,
        router: Literal["scaled", "paper"] = "scaled",
    ) -> None:
        super().__init__()
        size, where = context.embedding_size, "prompt.prompts"
        known = part_of(initializer, context, "router", (prompts, size), where)
        if known is None:
            weights = torch.empty(prompts, size)
            nn.init.orthogonal_(weights, 1 / context.embedding_rms if router == "scaled" else 1.0, context.generator)
            rows = torch.cat([initializer(context, length) for _ in range(prompts)])
        else:
            found = part_of(initializer, context, "inputs", (prompts * length, size), "prompt.length")
            assert found is not None, "every run has an input prompt"
            weights, rows = known, found
        self.rows, self.router = nn.Parameter(rows), nn.Parameter(weights)
        self.router_noise = noise

    def forward(self) -> dict[str, Tensor]:
        return {"inputs": self.rows * 1.0, "router": self.router * 1.0}

    @staticmethod
    def count(length: int, size: int, **options: Any) -> int:
        return int(options.get("prompts", _PROMPTS)) * (length + 1) * size

    @staticmethod
    def kept(length: int, size: int, **options: Any) -> int:
        return SMoP.count(length, size, **options)
