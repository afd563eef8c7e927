"""Random stretching of the text: penalty = loss( M(s, e (1 + sigma z)), y ), one z ~ N(0, 1) per example."""

from collections.abc import Iterator
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from trimtab.perturbations import TEXT, TrainStep
from trimtab.registry import regularizers
from trimtab.regularizers import Needs


@regularizers.register("stretch")
class Stretch:
    """Random stretching of the text.

    Args:
        weight: of the penalty beside the clean loss.
        sigma: standard deviation of the factor.
    """

    needs = Needs(text=True)

    def __init__(
        self, *, weight: Annotated[float, Field(ge=0)] = 1.0, sigma: Annotated[float, Field(ge=0)] = 0.1
    ) -> None:
        self.weight, self.sigma = weight, sigma

    def penalties(self, step: TrainStep) -> Iterator[Tensor]:
        text = step.original(TEXT)  # [X, N, E]
        draws = [stream.standard_normal() for stream in step.streams("stretch")]  # one per example
        z = torch.tensor(draws, dtype=text.dtype, device=text.device)[:, None, None]
        yield step.loss(step.rescore({TEXT: self.sigma * z * text}), step.batch.labels)
