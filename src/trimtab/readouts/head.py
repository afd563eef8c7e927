"""A linear head on a hidden state (Devlin et al. 2019, section 4.1; P-tuning v2, Liu et al. 2022, arXiv 2110.07602,
section 3.2: "[CLS] and linear head").

    score(c) = w_c . h + b_c,        h = the last hidden state at one position, or the mean over the text

Symbols: w_c, b_c trained with the prompt, kept with it; H + 1 numbers per class. Label words play no part. `{answer}`
in a template is left out, unless it is the position that is read.

Deviations: the released code of P-tuning v2 reads RoBERTa through the model's pooler, which that checkpoint does not
have: a random, frozen projection that depends on the seed,

    h  <-  tanh(A h),        A [H,H] normal with a standard deviation of 0.02, a bias of 0

Here nothing random stands between hidden state and head unless `random_pooler` asks for it. No dropout before the
head. Encoder-decoders are read in the encoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, final

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from trimtab.backbones import Backbone
from trimtab.errors import TemplateError
from trimtab.lookup import look_up
from trimtab.readouts import WordIds
from trimtab.readouts.classes import Classes
from trimtab.registry import readouts
from trimtab.seeding import torch_stream
from trimtab.text_encoder import TextEncoder
from trimtab.types import AnswerPlan, Batch, Encoded, Example, Fill

Position = Literal["auto", "first", "last", "answer", "mean"]


class OneState(Classes):
    """What readouts of one hidden state of a sequence have in common: where it is read, and through what."""

    trains: ClassVar[bool] = True
    controls: ClassVar[tuple[str, ...]] = ("random_pooler",)

    def __init__(
        self,
        backbone: Backbone,
        plans: Sequence[AnswerPlan],
        *,
        position: Position = "auto",
        random_pooler: Annotated[int | None, Field(ge=0)] = None,
    ) -> None:
        self._pooler = pooler(backbone, random_pooler)

    def features(self, hidden: Float[Tensor, "B A H"], batch: Batch) -> Float[Tensor, "B H"]:
        """What the head is applied to, of each row: the mean of what is read, float32, through the pooler if any."""
        real = batch.answer_mask[..., None]
        mean = torch.where(real, hidden, 0).float().sum(1) / real.sum(1)
        return mean if self._pooler is None else (mean @ self._pooler.T).tanh()


@final
@readouts.register("head")
class Head(OneState):
    """A linear head on one hidden state.

    Args:
        position: the `first` token (the [CLS] of encoders), the `last`, that of `{answer}` (a mask token where there is
            one, else the token before), or the `mean` over all tokens but the prompt; `auto`: first for masked, last
            for causal language models, mean for encoder-decoders.
        random_pooler: seed of a random, frozen pooler, as P-tuning v2's released code has on RoBERTa; null for none.
            It is drawn again from its seed wherever the prompt is used.
    """

    @classmethod
    def plan(cls, encoder: TextEncoder, words: WordIds, *, position: Position = "auto", **options: Any) -> AnswerPlan:
        """One sequence per example."""
        return plan_at(encoder, position)

    @staticmethod
    def outputs(classes: int) -> int:
        """Rows of the head's weight."""
        return classes

    def scores(
        self, hidden: Float[Tensor, "B A H"], batch: Batch, heads: Mapping[str, Tensor] = {}
    ) -> Float[Tensor, "X C"]:
        """Class scores of each example; not a number for rows without a prompt, which have no head."""
        return linear(self.features(hidden, batch)[batch.first_row], batch.prompt_of_example, heads)


def plan_at(encoder: TextEncoder, position: Position) -> AnswerPlan:
    """One sequence that is read at a position, see `Head`.

    Raises:
        TemplateError: the first token of this backbone knows nothing of the text.
    """
    where = _automatic(encoder) if position == "auto" else position
    if where == "first" and (encoder.is_causal or not encoder.prefix):
        what = "this backbone reads from left to right, so its first token knows nothing of the text"
        if not encoder.is_causal:
            what = "this tokenizer puts no token before a text, so the first may be of the prompt"
        raise TemplateError(f"{what}.", where="readout.position", fix="Use readout.position=mean or last.")
    if where == "answer":
        if encoder.mask_id is not None and not encoder.is_causal:
            return AnswerPlan((Fill((encoder.mask_id,), (0,)),))
        return AnswerPlan((Fill((), (-1,), is_last=encoder.is_causal),))
    return AnswerPlan((Fill((), ()),), locate=partial(_locate, where))


def pooler(backbone: Backbone, seed: int | None) -> Float[Tensor, "H H"] | None:
    """The weight of a random pooler as BERT's begin (Devlin et al. 2019, their code), float32; None without a seed."""
    if seed is None:
        return None
    shape = (backbone.hidden_size, backbone.hidden_size)
    return (0.02 * torch.randn(shape, generator=torch_stream(seed, "pooler"))).to(backbone.device)


def linear(
    features: Float[Tensor, "X *A H"], prompt_of: Tensor, heads: Mapping[str, Tensor]
) -> Float[Tensor, "X *A C"]:
    """Apply each row's own head, with or without a bias; not a number where it has none."""
    if "weight" not in heads:
        return features.new_full((*features.shape[:-1], 1), torch.nan)
    own = prompt_of.clamp(min=0)
    shape = (len(features), *[1] * (features.ndim - 2), -1)
    found = torch.einsum("x...h,xch->x...c", features, look_up(heads["weight"], own))
    if "bias" in heads:
        found = found + look_up(heads["bias"], own).view(shape)
    return torch.where((prompt_of >= 0).view(shape), found, torch.nan)


def _automatic(encoder: TextEncoder) -> Position:
    if encoder.is_causal:
        return "last"
    return "first" if encoder.prefix and encoder.decoder_start_id is None else "mean"


def _locate(
    position: Position, encoded: Encoded, example: Example, classes: Sequence[str]
) -> tuple[tuple[int, ...], None]:
    """The positions that are read."""
    if position == "first":
        return (0,), None
    if position == "last":
        return (len(encoded) - 1,), None
    slots = set(encoded.slots)
    return tuple(i for i in range(len(encoded)) if i not in slots), None
