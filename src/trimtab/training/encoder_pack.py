"""A pack: the encoders of R runs of one kind, their parameters stacked [R,...] and computed together.

An encoder is written for one prompt. The pack runs `vmap` over the stacked parameters where the encoder allows it, and
a plain loop otherwise (an LSTM, or dropout, whose random numbers must not depend on the pack). What an encoder has
beside parameters, its buffers, differs from run to run as well and is stacked beside them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, vmap

from trimtab.prompt_table import PromptTable, table_of
from trimtab.prompts import PromptEncoder, named_parts
from trimtab.seeding import torch_seed

HEAD = "head."
"""How the names of a head's parameters begin beside those of an encoder."""

FIXED = "fixed."
"""How the names of buffers begin in the pack."""


class EncoderPack(nn.Module):
    """R prompt encoders as one module.

    Args:
        encoders: of one class, with the same options; their parameters are copied.
        noise_seeds: the `noise` seed of each run, for dropout.
        heads: of each run, for readouts that have one.

    Attributes:
        stacked: parameter name -> [R,...].
        constants: the same of what is not trained.
    """

    def __init__(
        self,
        encoders: Sequence[PromptEncoder],
        noise_seeds: Sequence[int],
        heads: Sequence[Mapping[str, Tensor]] = (),
    ) -> None:
        super().__init__()
        shapes = [{n: p.shape for n, p in e.named_parameters()} for e in encoders]
        if any(type(e) is not type(encoders[0]) or s != shapes[0] for e, s in zip(encoders, shapes, strict=True)):
            raise TypeError("the encoders of a pack must be of one class with the same options")
        own: list[dict[str, Tensor]] = [dict(e.named_parameters()) for e in encoders]
        if heads:
            own = [{**its, **{HEAD + n: v for n, v in head.items()}} for its, head in zip(own, heads, strict=True)]
        self.names = list(own[0])
        for name in self.names:
            stacked = torch.stack([its[name].detach() for its in own])
            self.register_parameter(_flat(name), nn.Parameter(stacked))
        fixed = [dict(e.named_buffers()) for e in encoders]
        self.fixed_names = list(fixed[0])
        for name in self.fixed_names:
            self.register_buffer(_flat(FIXED + name), torch.stack([its[name] for its in fixed]))
        self.encoder = [copy.deepcopy(encoders[0])]  # in a list: its own parameters are not the pack's
        self.noise_seeds = tuple(noise_seeds)

    @property
    def size(self) -> int:
        """R, the number of runs."""
        return len(self.noise_seeds)

    @property
    def layers(self) -> Mapping[str, tuple[int, ...]]:
        """Site -> layers of the deep prompts; the same for all runs."""
        return self.encoder[0].layers

    @property
    def text_shift(self) -> int:
        """Positions that the prompts move the text on."""
        return self.encoder[0].text_shift

    @property
    def encoders(self) -> EncoderPack:
        """Itself; see `trimtab.training.tuning.TunedPack`."""
        return self

    @torch.no_grad()
    def accept(self, r: int, rows: Float[Tensor, "P E"]) -> None:
        """Set the raw prompt of run r."""
        self.stacked["rows"][r].copy_(rows)

    @property
    def stacked(self) -> dict[str, nn.Parameter]:
        return {name: self.get_parameter(_flat(name)) for name in self.names}

    @property
    def constants(self) -> dict[str, Tensor]:
        return {name: self.get_buffer(_flat(FIXED + name)) for name in self.fixed_names}

    def group(self, name: str) -> str:
        """The learning-rate group of a parameter: `head`, `prompt` for the raw prompt, else `encoder`."""
        if name.startswith(HEAD):
            return HEAD.rstrip(".")
        return "prompt" if {"rows", "gates"}.intersection(name.split(".")) else "encoder"

    def decays(self, name: str) -> bool:
        """Whether weight decay applies to a parameter: here always, as in the papers' code."""
        return True

    def table(self, *, training: bool, step: int = 0) -> PromptTable:
        """The prompts of all runs, differentiable in `stacked`.

        Args:
            training: with dropout and noise on routers, if the encoder has any.
            step: the optimizer step, which picks the dropout masks.
        """
        encoder = self.encoder[0].train(training)
        own = {n: v for n, v in self.stacked.items() if not n.startswith(HEAD)}
        heads = {n.removeprefix(HEAD): v * 1.0 for n, v in self.stacked.items() if n.startswith(HEAD)}
        if encoder.is_stackable and own and not (training and encoder.is_random):
            parts = vmap(lambda *values: named_parts(functional_call(encoder, values, ())))(own, self.constants)
        else:
            rows = []
            for r, seed in enumerate(self.noise_seeds):
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(torch_seed(seed, "noise:encoder", step))
                    values = {n: v[r] for n, v in (*own.items(), *self.constants.items())}
                    rows.append(named_parts(functional_call(encoder, values, ())))
            parts = {name: torch.stack([its[name] for its in rows]) for name in rows[0]}
        noise = encoder.router_noise if training else 0.0
        return table_of(parts, encoder.layers, encoder.text_shift, heads, noise)

    def backward(self, table: PromptTable, leaf: PromptTable) -> None:
        """Send the gradients that the cut-off `leaf` has collected through the encoders, once."""
        collected = leaf.tensors
        pairs = [(v, collected[n].grad) for n, v in table.tensors.items() if v.requires_grad]
        known = [(value, gradient) for value, gradient in pairs if gradient is not None]
        torch.autograd.backward([value for value, _ in known], [gradient for _, gradient in known])

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
    def materialize(self, r: int) -> dict[str, Tensor]:
        """The final prompt of run r, head included, by the names of a bundle: computed once, without dropout."""
        return {n: v[r].detach().float().cpu().clone() for n, v in self.table(training=False).tensors.items()}


def _flat(name: str) -> str:
    return name.replace(".", "__")
