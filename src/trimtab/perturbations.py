"""What a perturbation is added to, and what a regularizer sees of one micro-batch.

A perturbation names what it is added to, one tensor each:

    text          [X,N,E]        embeddings of the field text: entry n belongs to the n-th eligible token of an example
    inputs        [X,P,E]        the example's own copy of the input prompt
    deep.<site>   [X,L,2,P,K,D]  its own copy of the keys and values at a site

So perturbations belong to examples. The sequences that label words or choices need share the one of their example,
token by token from the left, padding plays no part, and batch mates do not meet. Slots, answer slots, answers,
literals, special tokens and label words of the verbalizer that stand in the text are not eligible (see
`types.Encoded`).

Encoders that look at the text see it perturbed: a router chooses anew, an offset is added to what is left. Where a
router chooses among several prompts, `inputs` are all of them, one after the other: only the chosen one has a gradient,
and norms are of all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, runtime_checkable
from zlib import crc32

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from trimtab.lookup import look_up
from trimtab.prompt_table import PromptTable
from trimtab.types import Batch

TEXT = "text"
"""The name of the text among what may be perturbed."""

Target = Literal["text", "prompt", "both"]

Delta = Mapping[str, Tensor]
"""A perturbation: name -> what is added."""

_TINY = 1e-12


def text_mask(batch: Batch) -> Bool[Tensor, "X N"]:
    """Which entries of a text perturbation belong to a token; N is the most that an example of the batch has."""
    counts = batch.eligible.sum(1)
    most = torch.zeros(len(batch.labels), dtype=counts.dtype, device=counts.device)
    most = most.scatter_reduce(0, batch.example_of, counts, "amax")
    longest = int(most.max()) if len(most) else 0
    return torch.arange(longest, device=counts.device) < most[:, None]


def text_of(values: Float[Tensor, "B T E"] | Int[Tensor, "B T"], batch: Batch) -> Tensor:
    """The values at the eligible tokens of each example, [X,N,...], zero where there is none; of several sequences,
    those of the one with most of them (the first such).
    """
    counts = batch.eligible.sum(1).tolist()
    most: dict[int, int] = {}
    for b, x in enumerate(batch.example_of.tolist()):
        if x not in most or counts[b] > counts[most[x]]:
            most[x] = b
    rows = torch.tensor([most[x] for x in range(len(batch.labels))], dtype=torch.long, device=values.device)
    mask = batch.eligible[rows]
    example, position = mask.nonzero(as_tuple=True)
    entry = (mask.cumsum(1) - 1)[example, position]
    found = values.new_zeros(len(rows), text_mask(batch).shape[1], *values.shape[2:])
    return found.index_put((example, entry), values[rows[example], position])


def add_to_text(embeds: Float[Tensor, "B T E"], delta: Float[Tensor, "X N E"], batch: Batch) -> Float[Tensor, "B T E"]:
    """Embeddings with each example's perturbation at its eligible tokens; added in float32, rounded once."""
    row, position, entry = _places(batch)
    moved = embeds[row, position].float() + look_up(delta, batch.example_of[row], entry).float()
    return embeds.index_put((row, position), moved.to(embeds.dtype))


def replace_tokens(batch: Batch, new: Int[Tensor, "X N"]) -> Batch:
    """The batch with other tokens at the eligible positions of each example; those that are negative stay."""
    row, position, entry = _places(batch)
    chosen = new[batch.example_of[row], entry]
    old = batch.ids[row, position]
    return replace(batch, ids=batch.ids.index_put((row, position), torch.where(chosen >= 0, chosen, old)))


def in_all_rows(where: Bool[Tensor, "B T"], batch: Batch) -> Bool[Tensor, "X N"]:
    """Entries at which every sequence of an example has the same token, one that `where` names."""
    row, position, entry = _places(batch)
    example, ids = batch.example_of[row], text_of(batch.ids, batch)
    agrees = where[row, position] & (batch.ids[row, position] == ids[example, entry])
    found = torch.zeros_like(ids).index_put((example, entry), agrees.long(), accumulate=True)
    return found == torch.bincount(batch.example_of, minlength=len(batch.labels))[:, None]


def add_to_prompts(table: PromptTable, batch: Batch, delta: Delta) -> tuple[PromptTable, Batch]:
    """A table with one prompt per example, perturbed, and the batch whose rows use it. Gradients flow to both."""
    own = table.rows(batch.prompt_of_example.clamp(min=0))
    tensors = {n: v + delta[n].to(v.dtype) if n in delta else v for n, v in own.tensors.items()}
    prompt_of = torch.where(batch.prompt_of < 0, batch.prompt_of, batch.example_of)
    return own.with_tensors(tensors), replace(batch, prompt_of=prompt_of)


def prompt_names(table: PromptTable) -> tuple[str, ...]:
    """What of a prompt may be perturbed: its vectors, keys and values; not gates, offsets, routers and heads."""
    named = (n for n in table.tensors if n == "inputs" or n.startswith("deep."))
    return tuple(n for n in named if table.tensors[n].numel())


def norms(values: Tensor, *, per_token: bool = False) -> Tensor:
    """L2 norms over all but the first dimension (per token: over the last), kept as dimensions of size 1."""
    dims = (-1,) if per_token else tuple(range(1, values.ndim))
    return torch.linalg.vector_norm(values, dim=dims, keepdim=True)


def directions(values: Tensor, *, per_token: bool = False) -> Tensor:
    """Values of norm 1; those that are zero stay zero."""
    return values / norms(values, per_token=per_token).clamp(min=_TINY)


def _places(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Row and position of every eligible token, and its number among those of its row."""
    row, position = batch.eligible.nonzero(as_tuple=True)
    return row, position, (batch.eligible.cumsum(1) - 1)[row, position]


@runtime_checkable
class Lexicon(Protocol):
    """The whole words of a vocabulary. What one is, and which are of one form, `trimtab.backbones.words` says."""

    def whole(self, ids: Int[Tensor, "B T"]) -> Bool[Tensor, "B T"]:
        """Which tokens are whole words of one piece, no label words among them."""
        ...

    def begins(self, ids: Int[Tensor, "B T"]) -> Bool[Tensor, "B T"]:
        """Where words begin, of one piece or more."""
        ...

    def word(self, token: int) -> str:
        """The text of a piece, without a space before it."""
        ...

    def sentence(self, ids: Sequence[int]) -> tuple[list[str], list[int]]:
        """The words of a text, and the number of the word that each piece belongs to."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text behind ids, without special tokens."""
        ...

    def embed(self, ids: Int[Tensor, "N"], batch: Batch, row: int, position: int) -> Float[Tensor, "N E"]:
        """Embeddings of words in one place of a batch, float32."""
        ...

    def neighbours(self, token: int, count: int, similarity: float) -> tuple[int, ...]:
        """At most `count` words of the same form whose embeddings have at least this cosine, nearest first."""
        ...

    def proposals(self, batch: Batch, row: int, position: int, count: int) -> Sequence[int]:
        """What the bare model finds likeliest, of the same form, in the place of a word."""
        ...


@dataclass(frozen=True)
class Substitutes:
    """Tokens that may stand in for others in a text.

    Attributes:
        mask_id: the token that stands for a hidden one; None where the vocabulary has nothing of the sort.
        words: ids of whole words, none of them of a label word, special or unused.
        lexicon: what is known of words; None where nothing is.
    """

    mask_id: int | None
    words: tuple[int, ...]
    lexicon: Lexicon | None = None


NO_SUBSTITUTES = Substitutes(None, ())


@dataclass(frozen=True)
class TrainStep:
    """What a regularizer sees of one micro-batch. See `trimtab.regularizers`.

    Attributes:
        batch: the rows.
        mask: which entries of a text perturbation belong to a token.
        prompts: what of the prompt may be perturbed, beside the text: `inputs`, `deep.<site>`.
        scores: scores without perturbation: detached, unless the regularizer asked for their graph. Readouts that write
            have one column of log-likelihoods, over which a softmax says nothing.
        rms: root mean square of what may be perturbed: of the backbone's embeddings for text and `inputs`, of a run's
            own keys and values for the others [X or 1, 1, ...].
        original: the values that a perturbation is added to, detached, by name.
        rescore: scores of the same rows with a perturbation, differentiable in it and in the prompt table.
        rescore_text: scores of the same rows with other tokens [X,N], where not negative.
        loss: loss per example from scores and labels, in nats.
        divergence: KL(p || q) per example from the scores of p and of q, in nats; the mean over what an example has
            several of (words, start and end).
        streams: random generators by purpose, one per example, that depend on (run, step, example) only.
        gradient: of each example's loss without perturbation, at what the regularizer asked for.
        table_gradient: of each run's mean loss without perturbation over its whole logical batch, at the prompt table;
            if asked for.
        substitutes: tokens that may stand in for others.
        epochs: of each example's run, from 0.
        mistaken: of scores, which examples they get wrong; for readouts with a distribution.
        tell: keeps a record about an example for the reader of its run, under the name of a file.
    """

    batch: Batch
    mask: Bool[Tensor, "X N"]
    prompts: tuple[str, ...]
    scores: Float[Tensor, "X *C"]
    rms: Mapping[str, float | Tensor]
    original: Callable[[str], Tensor]
    rescore: Callable[[Delta], Float[Tensor, "X *C"]]
    rescore_text: Callable[[Int[Tensor, "X N"]], Float[Tensor, "X *C"]]
    loss: Callable[[Float[Tensor, "X *C"], Int[Tensor, "X *Y"]], Float[Tensor, "X"]]
    divergence: Callable[[Float[Tensor, "X *C"], Float[Tensor, "X *C"]], Float[Tensor, "X"]]
    streams: Callable[[str], Sequence[np.random.Generator]]
    gradient: Mapping[str, Tensor] = field(default_factory=dict)
    table_gradient: Mapping[str, Tensor] = field(default_factory=dict)
    substitutes: Substitutes = NO_SUBSTITUTES
    epochs: Sequence[int] = ()
    mistaken: Callable[[Float[Tensor, "X *C"]], Bool[Tensor, "X"]] | None = None
    tell: Callable[[int, str, Mapping[str, Any]], None] = lambda example, file, record: None

    def names(self, target: Target) -> tuple[str, ...]:
        """What a target stands for."""
        return {"text": (TEXT,), "prompt": self.prompts, "both": (TEXT, *self.prompts)}[target]

    def normal(self, name: str, purpose: str) -> Tensor:
        """Standard normal noise for what `name` names, zero where there is no token."""
        return self._drawn(name, purpose, lambda draw, shape: draw.standard_normal(shape, dtype=np.float32))

    def uniform(self, name: str, purpose: str) -> Tensor:
        """The same, uniform in [-1, 1]."""
        return self._drawn(name, purpose, lambda draw, shape: 2 * draw.random(shape, dtype=np.float32) - 1)

    def _drawn(
        self, name: str, purpose: str, drawn: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
    ) -> Tensor:
        like = self.original(name)
        out = torch.zeros(like.shape, dtype=torch.float32)
        counts = self.mask.sum(1).tolist() if name == TEXT else [like.shape[1]] * len(like)
        for x, (draw, n) in enumerate(zip(self.streams(f"{purpose}:{name}"), counts, strict=True)):
            out[x, :n] = torch.from_numpy(drawn(draw, (n, *like.shape[2:])))
        return out.to(like.device)

    def detached(self) -> TrainStep:
        """The same with clean scores that no gradient flows into."""
        return replace(self, scores=self.scores.detach())


def purpose_number(purpose: str) -> int:
    """The counter by which streams of different purposes differ."""
    return crc32(purpose.encode())
