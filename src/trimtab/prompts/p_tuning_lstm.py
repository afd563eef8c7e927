"""P-tuning with a bi-LSTM prompt encoder (Liu et al. 2021, "GPT Understands, Too", arXiv 2103.10385, section 3).

    h_i = MLP( [ LSTM_forward(e_0..i) ; LSTM_backward(e_i..m) ] )        MLP = W2 ReLU( W1 . + b1 ) + b2

Symbols: e_i raw pseudo-token, h_i its embedding, m + 1 = P pseudo-tokens. Two LSTM layers. `width: half` gives E/2
units per direction (the LAMA code), `full` gives E per direction and an MLP 2E -> E -> E (the SuperGLUE code).

Parameters for `half`, E even: P E + 2 layers x 2 directions x 4 (E/2) (E + E/2 + 2) + 2 (E^2 + E); kept: P E. For
E = 768, P = 9: 8,278,272, of which 6,912 are kept. Cost per step: a P-step recurrence, small beside the backbone.

Deviations: the backbone is frozen, as on LAMA (the released SuperGLUE code trains it too). The optimizer is AdamW at a
rate two orders larger than the code's 1e-5, which was set for a trained backbone or for very long training.
"""

from __future__ import annotations

from typing import Annotated, Literal, final

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from trimtab.errors import ConfigError
from trimtab.initializers import Initializer, PromptContext, SampledVocab
from trimtab.prompts import PromptEncoder
from trimtab.registry import initializers, prompts


@final
@prompts.register("p_tuning_lstm")
class PTuningLSTM(PromptEncoder):
    """Pseudo-tokens tied together by a bi-LSTM and an MLP (Liu et al. 2021).

    Args:
        length: number of virtual tokens P.
        initializer: first values of the raw rows.
        width: LSTM units per direction, `half` of E or `full` E.
    """

    default_learning_rate = 3e-3
    is_stackable = False

    def __init__(
        self,
        context: PromptContext,
        *,
        length: Annotated[int, Field(ge=1)] = 10,
        initializer: Annotated[Initializer, initializers] = SampledVocab(),
        width: Literal["half", "full"] = "half",
    ) -> None:
        super().__init__()
        size = context.embedding_size
        if width == "half" and size % 2:
            raise ConfigError(f"half of an odd embedding size ({size}) is not whole.", where="prompt.width")
        units = size // 2 if width == "half" else size
        self.rows = nn.Parameter(initializer(context, length))
        self.lstm = nn.LSTM(size, units, num_layers=2, bidirectional=True, batch_first=True)
        self.network = nn.Sequential(nn.Linear(2 * units, size), nn.ReLU(), nn.Linear(size, size))

    def forward(self) -> Float[Tensor, "P E"]:
        tied, _ = self.lstm(self.rows[None])
        return self.network(tied[0])

    @staticmethod
    def count(length: int, size: int, **options: object) -> int:
        u = size // 2 if options.get("width", "half") == "half" else size
        first, second = 4 * u * (size + u + 2), 4 * u * (2 * u + u + 2)
        return length * size + 2 * (first + second) + (2 * u * size + size) + (size * size + size)
