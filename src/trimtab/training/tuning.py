"""A backbone that is trained together with the prompt, as P-tuning does on SuperGLUE (Liu et al. 2021,
arXiv 2103.10385, and their released code).

The run has a copy of the backbone of its own, so the shared one stays frozen. Its parameters are seen as [1,...], in
the same memory, so that one optimizer steps prompt and backbone and one norm clips both. Their gradients arrive in
`.grad` of the model's parameters with every micro-batch, beside the one in the cut-off prompt table. Biases and gains
of norms (vectors) are not decayed: in P-tuning's code everything named bias or LayerNorm.weight is spared.

Memory beside the frozen backbone, in copies of it: weights, gradients, the best checkpoint, and AdamW's two moments.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from trimtab.backbones import Backbone
from trimtab.prompt_table import PromptTable
from trimtab.training.encoder_pack import EncoderPack

PREFIX = "backbone."
"""How the names of a backbone's parameters begin beside those of an encoder."""


@final
class TunedPack:
    """An encoder pack of one run and the backbone that is trained with it, seen by the loop as one pack.

    Args:
        encoders: a pack of one.
        backbone: private to this run, its parameters require gradients. See `Backbone.trainable`.

    Attributes:
        stacked: parameter name -> [1,...]; those of the backbone are called `backbone.<name>`.
    """

    def __init__(self, encoders: EncoderPack, backbone: Backbone) -> None:
        if encoders.size > 1:
            raise ValueError("a trained backbone needs a pack of one run: it belongs to that run alone")
        self._encoders = encoders
        self._own = {PREFIX + n: p for n, p in backbone.trained.items()}
        self.stacked = encoders.stacked | {n: nn.Parameter(p.detach()[None]) for n, p in self._own.items()}

    @property
    def size(self) -> int:
        """R, here 1."""
        return self._encoders.size

    @property
    def encoders(self) -> EncoderPack:
        """The pack of one."""
        return self._encoders

    @property
    def names(self) -> list[str]:
        return list(self.stacked)

    def group(self, name: str) -> str:
        """The learning-rate group of a parameter."""
        return "backbone" if name in self._own else self._encoders.group(name)

    def decays(self, name: str) -> bool:
        """Whether weight decay applies to a parameter: of the backbone, to matrices only."""
        return self._own[name].ndim > 1 if name in self._own else self._encoders.decays(name)

    def table(self, *, training: bool, step: int = 0) -> PromptTable:
        """The prompt, as `EncoderPack.table`."""
        return self._encoders.table(training=training, step=step)

    def backward(self, table: PromptTable, leaf: PromptTable) -> None:
        """Gradients of the encoder from the leaf; those of the backbone are there and only change hands."""
        self._encoders.backward(table, leaf)
        for name, parameter in self._own.items():
            self.stacked[name].grad = None if parameter.grad is None else parameter.grad[None]
            parameter.grad = None

    @torch.no_grad()
    def state(self, r: int) -> dict[str, Tensor]:
        """A copy of all parameters."""
        return {n: v[r].detach().clone() for n, v in self.stacked.items()}

    @torch.no_grad()
    def restore(self, r: int, state: dict[str, Tensor]) -> None:
        """Put a copy from `state` back."""
        for name, value in self.stacked.items():
            value[r].copy_(state[name])

    def materialize(self, r: int) -> dict[str, Tensor]:
        """The final prompt."""
        return self._encoders.materialize(r)
