"""How an answer is read: from hidden states at the answer slots to class scores [X,C], or to written text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from trimtab.predictions import Records
from trimtab.registry import readouts
from trimtab.text_encoder import TextEncoder
from trimtab.types import AnswerPlan, Batch, Example, Row

WordIds = Sequence[Sequence[Sequence[int]]]
"""Token ids of label words: by class, by word."""


@runtime_checkable
class Reads(Protocol):
    """Reads examples of one readout table: all that training needs of a readout. `readout_of[x]` names the entry;
    scores of absent classes are -inf.

    Built from a backbone and one `AnswerPlan` per entry, which its class method `plan` makes. One that writes its
    answer scores a known answer with C = 1, its mean log-likelihood per token. One with a head of its own reads with
    tensors that are trained with the prompt, `heads` of the prompt table, one row per prompt.

    Attributes:
        kinds: the answers of tasks that it can give, see `trimtab.tasks.Task`.
        trains: whether it has a head; None where that is not its own to say.
        writes: whether the answer is written, token by token, instead of chosen among label words.
        metrics: the dev metrics that may select a checkpoint, beside `loss`; the first is the default.
        new_tokens: how much is written; 0 for readouts that do not.
        end_id: the token that ends what is written, where that is not the tokenizer's own end.

    One that has scores of every read, [X,A,C], says so by `per_read`.
    """

    kinds: ClassVar[tuple[str, ...]]
    trains: ClassVar[bool | None]
    writes: ClassVar[bool]
    metrics: ClassVar[tuple[str, ...]]
    new_tokens: int
    end_id: int | None

    def scores(
        self, hidden: Float[Tensor, "B A H"], batch: Batch, heads: Mapping[str, Tensor] = {}
    ) -> Float[Tensor, "X *C"]:
        """Scores in float32, differentiable in `hidden` and in `heads`."""
        ...

    def loss(self, scores: Float[Tensor, "X *C"], labels: Int[Tensor, "X *Y"]) -> Float[Tensor, "X"]:
        """Loss per example, in nats where it is a cross-entropy."""
        ...


@runtime_checkable
class Readout(Reads, Protocol):
    """Reads the examples of one task, and knows what answers to it are worth."""

    def measure(self, rows: Sequence[Row], answers: Sequence[Any], classes: Sequence[str]) -> dict[str, Any]:
        """Metrics of answers (of readouts that write: of texts), `metrics` among them."""
        ...

    def missing(self, example: Example, classes: Sequence[str]) -> str | None:
        """What an example lacks to be scored, in a sentence; None where it lacks nothing."""
        ...

    def constant(self, rows: Sequence[Row], metric: str) -> float | None:
        """What the best constant answer would score; None where that says nothing."""
        ...


@runtime_checkable
class Chooses(Readout, Protocol):
    """Its scores decide the answer, which is not written."""

    def decide(self, scores: Float[Tensor, "X *C"], rows: Sequence[Row]) -> list[Any]:
        """The answers that scores of rows stand for, one per example."""
        ...

    def records(self, rows: Sequence[Row], scores: Float[Tensor, "X *C"], classes: Sequence[str]) -> Records:
        """What a user sees, one per example."""
        ...


def of_one_task(readout: Reads) -> Readout:
    """A readout that is not of several tasks; of several, `PromptedModel.parts` has a model for each."""
    assert isinstance(readout, Readout), f"{type(readout).__name__} reads several tasks"
    return readout


def choosing(readout: Reads) -> Chooses:
    """A readout whose scores decide the answer; what the others write, `PromptedModel.write_rows` has."""
    assert isinstance(readout, Chooses), f"{type(readout).__name__} does not answer by its scores"
    return readout


Look = Callable[[Sequence[Row]], list[Float[Tensor, "A 2"]]]
"""One pass over rows: of each of their reads a token and its log-probability."""


@runtime_checkable
class LooksAhead(Protocol):
    """A readout that answers in several passes over rows, as what it has seen in one goes into the next."""

    def look(self, hidden: Float[Tensor, "B A H"], batch: Batch) -> Float[Tensor, "B A 2"]:
        """What a pass sees."""
        ...


@runtime_checkable
class Condenses(Protocol):
    """Its scores are many, so less is kept of rows that are not learned from. Its `loss`, `decide`, `measure` and
    `records` know what to do with that, too."""

    def condensed(self, scores: Float[Tensor, "X *C"], batch: Batch) -> Float[Tensor, "X K"]:
        """What is kept of scores."""
        ...


@runtime_checkable
class ScoresInPasses(LooksAhead, Protocol):
    """It scores rows so, where they are not trained on."""

    def score_in_passes(self, rows: Sequence[Row], look: Look) -> Float[Tensor, "N *C"]:
        """Scores of rows, on the CPU."""
        ...


@runtime_checkable
class WritesInPasses(LooksAhead, Protocol):
    """It writes so."""

    def write_in_passes(self, rows: Sequence[Row], look: Look) -> list[tuple[int, ...]]:
        """What stands in the slot of each row, as token ids."""
        ...


@runtime_checkable
class Several(Protocol):
    """Reads each row by one of several readouts, which `Row.readout` names."""

    parts: tuple[Readout, ...]

    def heads_of(self, heads: Mapping[str, Tensor], task: int) -> dict[str, Tensor]:
        """What one of them is read with."""
        ...

    def own_labels(self, labels: Int[Tensor, "X Z"]) -> Int[Tensor, "X Y"]:
        """The labels as that readout has them."""
        ...


def first_head(kind: str, hidden_size: int, classes: int, generator: torch.Generator) -> dict[str, Tensor]:
    """First values of a readout's head for one run, float32 on the CPU; none where it has no head, and no bias where
    the readout says so (`has_bias`).

    Weights are normal with a standard deviation of 0.02 and biases 0, as BERT's classifiers begin (Devlin et al. 2019,
    their code).
    """
    cls = readouts.get(kind)
    if not cls.trains:  # type: ignore[attr-defined]
        return {}
    outputs = cls.outputs(classes)  # type: ignore[attr-defined]
    weight = torch.randn(outputs, hidden_size, generator=generator) * 0.02
    has_bias = getattr(cls, "has_bias", True)
    return {"weight": weight, **({"bias": torch.zeros(outputs)} if has_bias else {})}


def chosen(readout: Reads, scores: Float[Tensor, "X *C"], rows: Sequence[Row]) -> dict[str, Any]:
    """Options of a readout that are best for scored rows of dev, for those that have such (a method `chosen`)."""
    choose = getattr(readout, "chosen", None)
    return {} if choose is None else dict(choose(scores, rows))


def divergence(
    readout: Reads, p: Float[Tensor, "X *C"], q: Float[Tensor, "X *C"], labels: Int[Tensor, "X *Y"]
) -> Float[Tensor, "X"]:
    """KL(p || q) in nats, per example, from the scores of p and of q; the mean where an example has several
    distributions (words, start and end), 0 where it has none. Differentiable in both.

    Answers that are impossible by construction (scores of -inf) count for nothing. For readouts with a method
    `distribution`, see `has_distribution`.
    """
    (log_p, known), (log_q, _) = (readout.distribution(s, labels) for s in (p, q))  # type: ignore[attr-defined]
    possible = (log_p > -torch.inf) & (log_q > -torch.inf)
    log_p, log_q = (torch.where(possible, values, 0.0) for values in (log_p, log_q))
    each = (torch.where(possible, log_p.exp(), 0.0) * (log_p - log_q)).sum(-1)
    return torch.where(known, each, 0.0).sum(1) / known.sum(1).clamp(min=1)


def mistaken(readout: Reads, scores: Float[Tensor, "X *C"], labels: Int[Tensor, "X *Y"]) -> Bool[Tensor, "X"]:
    """Which examples the likeliest answers get wrong, in one of their distributions at least; see `divergence`."""
    log_p, known = readout.distribution(scores, labels)  # type: ignore[attr-defined]
    labels = readout.own_labels(labels) if isinstance(readout, Several) else labels
    wrong = log_p.argmax(-1) != labels.reshape(len(labels), -1)[:, : known.shape[1]]
    return (wrong & known).any(1)


def has_distribution(kind: str) -> bool:
    """Whether the scores of a readout are a distribution over answers, which two passes can be compared by."""
    return hasattr(readouts.get(kind), "distribution")


def plan_answers(spec: Mapping[str, Any], encoder: TextEncoder, words: WordIds) -> AnswerPlan:
    """How the readout of a resolved `spec` wants sequences to be rendered for these label words.

    Raises:
        TemplateError: the tokenizer lacks a token that the readout needs.
    """
    options = {k: v for k, v in spec.items() if k != "kind"}
    plan: AnswerPlan = readouts.get(spec["kind"]).plan(encoder, words, **options)  # type: ignore[attr-defined]
    return plan
