"""A pack: the encoders of R runs of one kind, their parameters stacked [R,...] and computed together.

An encoder is written for one prompt. The pack runs `vmap` over the stacked parameters where the encoder allows it, and
a plain loop otherwise (an LSTM, or dropout, whose random numbers must not depend on the pack).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, vmap

from trimtab.prompts import PromptEncoder
from trimtab.seeding import torch_seed
from trimtab.types import PromptTable


class EncoderPack(nn.Module):
    """R prompt encoders as one module.

    Args:
        encoders: of one class, with the same options; their parameters are copied.
        noise_seeds: the `noise` seed of each run, for dropout.

    Attributes:
        stacked: parameter name -> [R,...].
    """

    def __init__(self, encoders: Sequence[PromptEncoder], noise_seeds: Sequence[int]) -> None:
        super().__init__()
        shapes = [{n: p.shape for n, p in e.named_parameters()} for e in encoders]
        if any(type(e) is not type(encoders[0]) or s != shapes[0] for e, s in zip(encoders, shapes, strict=True)):
            raise TypeError("the encoders of a pack must be of one class with the same options")
        self.names = [n for n, _ in encoders[0].named_parameters()]
        for name in self.names:
            rows = [dict(e.named_parameters())[name].detach() for e in encoders]
            self.register_parameter(_flat(name), nn.Parameter(torch.stack(rows)))
        self.encoder = [copy.deepcopy(encoders[0])]  # in a list: its own parameters are not the pack's
        self.noise_seeds = tuple(noise_seeds)

    @property
    def size(self) -> int:
        """R, the number of runs."""
        return len(self.noise_seeds)

    @property
    def stacked(self) -> dict[str, nn.Parameter]:
        return {name: self.get_parameter(_flat(name)) for name in self.names}

    def group(self, name: str) -> str:
        """The learning-rate group of a parameter: `prompt` for the raw rows, else `encoder`."""
        return "prompt" if name == "rows" else "encoder"

    def decays(self, name: str) -> bool:
        """Whether weight decay applies to a parameter: here always, as in the papers' code."""
        return True

    def table(self, *, training: bool, step: int = 0) -> PromptTable:
        """The prompts of all runs, differentiable in `stacked`.

        Args:
            training: with dropout, if the encoder has any.
            step: the optimizer step, which picks the dropout masks.
        """
        encoder = self.encoder[0].train(training)
        stacked = self.stacked
        if encoder.is_stackable and not (training and encoder.is_random):
            return PromptTable(vmap(lambda values: functional_call(encoder, values, ()))(stacked))
        rows = []
        for r, seed in enumerate(self.noise_seeds):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(torch_seed(seed, "noise:encoder", step))
                rows.append(functional_call(encoder, {n: v[r] for n, v in stacked.items()}, ()))
        return PromptTable(torch.stack(rows))

    def backward(self, table: PromptTable, leaf: PromptTable) -> None:
        """Send the gradient that the cut-off `leaf` has collected through the encoders, once."""
        assert leaf.inputs.grad is not None
        table.inputs.backward(leaf.inputs.grad)

    @torch.no_grad()
    def state(self, r: int) -> dict[str, Tensor]:
        """A copy of the parameters of run r."""
        return {n: v[r].detach().clone() for n, v in self.stacked.items()}

    @torch.no_grad()
    def restore(self, r: int, state: dict[str, Tensor]) -> None:
        """Put a copy from `state` back."""
        for name, value in self.stacked.items():
            value[r].copy_(state[name])

    @torch.no_grad()
    def materialize(self, r: int) -> Float[Tensor, "P E"]:
        """The final prompt of run r: computed once, without dropout."""
        return self.table(training=False).inputs[r].detach().float().cpu().clone()


def _flat(name: str) -> str:
    return name.replace(".", "__")
