"""What a check may ask of a library. `peft_side.py` and `trimtab_side.py` answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from correctness.families import FAMILIES, Kind

Side = Literal["left", "right"]
SIDES: tuple[Side, ...] = ("left", "right")


class NotApplicable(Exception):
    """The check means nothing here: transformers, the method or the task does not have what it is about."""


class Refused(Exception):
    """The library said beforehand, with a reason, that this does not work."""


@dataclass(frozen=True)
class Cell:
    """One library's method on one family for one task."""

    library: str
    method: str
    family: str
    task: str

    @property
    def kind(self) -> Kind:
        """What the family's models read and write."""
        return FAMILIES[self.family].kind


class Subject(ABC):
    """One method of one library on a tiny model for one task, with random values that are not yet trained.

    Building one may raise `Refused`; every operation may raise `NotApplicable`. `rows` are numbers of examples, see
    `examples.py`; what is said of an example is what its task reads of it: scores of classes, of the tokens of the
    text, of choices, of label words, or of the answer's tokens.
    """

    def __init__(self, cell: Cell) -> None:
        self.cell = cell

    @abstractmethod
    def said(self, rows: Sequence[int], side: Side = "right", prompts: Sequence[int] | None = None) -> list[Tensor]:
        """What is said of the examples of one batch, padded on a side; `prompts` are 0 or 1, all 0 by default."""

    @abstractmethod
    def written(
        self,
        rows: Sequence[int],
        side: Side | None = None,
        prompts: Sequence[int] | None = None,
        static: bool = False,
    ) -> list[tuple[int, ...]]:
        """The tokens that are generated for the examples of one batch, padded on the usual side by default; `static`:
        with transformers' static cache."""

    @abstractmethod
    def bears_pads(self, side: Side, written: bool = False) -> bool:
        """Whether transformers' own model, called the same way, says or writes the same of padded rows: the control."""

    @abstractmethod
    def plain_said(self, rows: Sequence[int]) -> list[Tensor]:
        """What transformers' own model says; of a task with label words."""

    @abstractmethod
    def plain_written(self, rows: Sequence[int], static: bool = False) -> list[tuple[int, ...]]:
        """What transformers' own model generates."""

    @abstractmethod
    def off_said(self, rows: Sequence[int]) -> list[Tensor]:
        """What is said with the prompt switched off."""

    @abstractmethod
    def off_written(self, rows: Sequence[int]) -> list[tuple[int, ...]]:
        """What is generated with the prompt switched off."""

    @abstractmethod
    def loss(self, rows: Sequence[int]) -> float:
        """The library's loss on the labels of examples."""

    @abstractmethod
    def loss_by_hand(self, rows: Sequence[int]) -> float:
        """The same from logits of each example alone and tokens that are looked up anew."""

    @abstractmethod
    def positions_read(self) -> tuple[set[int], set[int]]:
        """Which positions of the last layer the head's scores depend on, and on which they should."""

    @abstractmethod
    def gradients(self, recomputed: bool = False) -> Mapping[str, Tensor]:
        """Gradients of all that the prompt is made of, each as rows; `recomputed`: with gradient checkpointing."""

    @abstractmethod
    def train(self, steps: int) -> tuple[float, float]:
        """The loss before and after a short training with the library's defaults."""

    @abstractmethod
    def reloaded(self, rows: Sequence[int], folder: Path) -> list[Tensor]:
        """What is said by the prompt that was saved to a folder and loaded from it."""

    @abstractmethod
    def best(self, folder: Path) -> tuple[float, float]:
        """The best loss that a training recorded, and that of what it leaves in the end."""

    @abstractmethod
    def resumed(self, folder: Path) -> tuple[list[Tensor], list[Tensor]]:
        """What is said after a training in one go, and after one that was interrupted and went on."""


@dataclass(frozen=True)
class Library:
    """A side of the comparison.

    Attributes:
        methods: name -> options, as its adapter wants them.
        build: a subject; raises `Refused` where the library refuses, `NotApplicable` where the method has no such task.
    """

    name: str
    version: str
    methods: Mapping[str, Mapping[str, Any]]
    build: type[Subject]


def apart(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """How far apart lists of tensors are, relative to the second; infinite where shapes differ or a value is no number.

    >>> apart([torch.tensor([1.0, 2.0])], [torch.tensor([1.0, 1.0])])
    0.7071...
    """
    if [f.shape for f in found] != [e.shape for e in expected]:
        return float("inf")
    scale = max(float(torch.cat([e.flatten() for e in expected]).norm()), 1e-12)
    distance = float(torch.cat([(f - e).flatten() for f, e in zip(found, expected, strict=True)]).norm()) / scale
    return distance if distance == distance else float("inf")


def different(found: Sequence[tuple[int, ...]], expected: Sequence[tuple[int, ...]]) -> float:
    """The share of texts that differ."""
    return sum(f != e for f, e in zip(found, expected, strict=True)) / len(expected)
