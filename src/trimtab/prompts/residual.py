"""Residual Prompt Tuning (Razdaibiedina et al., Findings of ACL 2023, arXiv 2305.03937).

    phi(p) = LayerNorm( Dropout( W_up ReLU( W_down p + b1 ) + b2 ) )       W_down: E -> m,  W_up: m -> E
    P'     = [ p_1 + phi(p_1), ..., p_P + phi(p_P) ]

Symbols (section 3): p raw prompt row, m bottleneck, phi shallow network, P' the prompt that enters the backbone. One
phi for all rows by default; `shared: false` gives each row its own ("separate MLPs", section 6).

Parameters: 2 E m + m + E (+ 2 E with LayerNorm) per network, + P E; kept: P E. Cost per step: negligible beside the
backbone. The default bottleneck, 400, reproduces the published count (925,072 for T5-large, P = 100).

Deviations: LayerNorm's gain starts at the root mean square of the backbone's embeddings (`layer_norm: scaled`). The
paper's gain of 1 (`layer_norm: on`) suits T5, whose embeddings are large; on BERT-sized embeddings (about 0.05) the
branch would swamp the prompt. `layer_norm: off` drops it, as the authors did in their BERT code. The reference code
saves the raw P of the last epoch; here P' of the best checkpoint is kept.
"""

from __future__ import annotations

from typing import Annotated, Literal, final

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from trimtab.initializers import Initializer, PromptContext, SampledVocab
from trimtab.prompts import PromptEncoder
from trimtab.registry import initializers, prompts


@final
@prompts.register("residual")
class Residual(PromptEncoder):
    """Vectors through a shallow network with a skip connection (Razdaibiedina et al. 2023).

    Args:
        length: number of virtual tokens P.
        initializer: first values of the raw rows.
        bottleneck: width m of the network.
        layer_norm: `scaled` starts the gain at the embeddings' root mean square, `on` at 1 (the paper), `off` drops it.
        shared: one network for all rows, or one for each.
        dropout: rate before LayerNorm, in training only; 0 in the paper.
    """

    default_learning_rate = 3e-3

    def __init__(
        self,
        context: PromptContext,
        *,
        length: Annotated[int, Field(ge=1)] = 10,
        initializer: Annotated[Initializer, initializers] = SampledVocab(),
        bottleneck: Annotated[int, Field(ge=1)] = 400,
        layer_norm: Literal["scaled", "on", "off"] = "scaled",
        shared: bool = True,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ) -> None:
        super().__init__()
        self.rows = nn.Parameter(initializer(context, length))
        networks, size = (1 if shared else length), context.embedding_size
        self.down, self.down_bias = _linears(networks, size, bottleneck)
        self.up, self.up_bias = _linears(networks, bottleneck, size)
        self.drop = nn.Dropout(dropout)
        gain = {"scaled": context.embedding_rms, "on": 1.0, "off": None}[layer_norm]
        self.gain = None if gain is None else nn.Parameter(torch.full((networks, size), float(gain)))
        self.shift = None if gain is None else nn.Parameter(torch.zeros(networks, size))

    def forward(self) -> Float[Tensor, "P E"]:
        hidden = torch.relu(_apply(self.down, self.down_bias, self.rows))
        branch = self.drop(_apply(self.up, self.up_bias, hidden))
        if self.gain is not None and self.shift is not None:
            branch = layer_norm(branch, branch.shape[-1:]) * self.gain + self.shift
        return self.rows + branch

    @staticmethod
    def count(length: int, size: int, **options: object) -> int:
        m = int(options.get("bottleneck", 400))  # type: ignore[call-overload]
        network = 2 * size * m + m + size + (0 if options.get("layer_norm") == "off" else 2 * size)
        return length * size + network * (1 if options.get("shared", True) else length)


def _linears(networks: int, inputs: int, outputs: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Weights [networks, outputs, inputs] and biases of linear layers, each with torch's default initialization."""
    layers = [nn.Linear(inputs, outputs) for _ in range(networks)]
    weight = torch.stack([layer.weight.detach() for layer in layers])
    bias = torch.stack([layer.bias.detach() for layer in layers])
    return nn.Parameter(weight), nn.Parameter(bias)


def _apply(weight: Tensor, bias: Tensor, rows: Float[Tensor, "P I"]) -> Float[Tensor, "P O"]:
    """One shared layer on all rows, or layer i on row i."""
    if weight.shape[0] == 1:
        return rows @ weight[0].T + bias[0]
    return torch.einsum("poi,pi->po", weight, rows) + bias
