"""First values of a prompt. Each initializer returns [P,E] float32 and draws from the run's `init` stream only."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Protocol, final, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from trimtab.errors import BundleError, ConfigError
from trimtab.registry import initializers
from trimtab.storage import read_bundle, read_prompt
from trimtab.types import Site


@dataclass(frozen=True)
class PromptContext:
    """What prompt encoders and initializers may know of the backbone and the task.

    Attributes:
        embeddings: the backbone's input embeddings, [V,E], in its dtype and on its device.
        embedding_rms: root mean square of an element of them.
        words: token ids of ordinary (not special) vocabulary entries.
        label_ids: token ids of the label words, class by class.
        encode: text -> token ids.
        generator: the `init` stream.
        backbone: name of the backbone.
        fingerprint: of the backbone, so that a prompt made for another one can be refused.
        hidden_size: H of the backbone.
        sites: gives the kinds of attention that the readout depends on; an error where the model has no way in.
        takes_positions: whether the text can be moved to other positions.
        keys_values: token ids [P] -> what every attention layer makes of them, by site [L,2,P,K,D], float32.
    """

    embeddings: Float[Tensor, "V E"]
    embedding_rms: float
    words: Sequence[int]
    label_ids: Sequence[int]
    encode: Callable[[str], list[int]]
    generator: torch.Generator
    backbone: str = ""
    fingerprint: str = ""
    hidden_size: int = 0
    sites: Callable[[], Mapping[str, Site]] = dict
    takes_positions: bool = True
    keys_values: Callable[[Tensor], Mapping[str, Tensor]] = field(default=lambda ids: {})

    @property
    def embedding_size(self) -> int:
        return int(self.embeddings.shape[1])

    def rows(self, ids: Sequence[int]) -> Float[Tensor, "N E"]:
        """The embeddings of `ids`: a float32 copy on the CPU."""
        picked = self.embeddings[torch.tensor(list(ids), dtype=torch.long, device=self.embeddings.device)]
        return picked.detach().to("cpu", torch.float32, copy=True)


@runtime_checkable
class Initializer(Protocol):
    """`initializer(context, length)` -> first values [P,E]."""

    def __call__(self, context: PromptContext, length: int) -> Float[Tensor, "P E"]: ...


@final
@initializers.register("sampled_vocab")
@dataclass(frozen=True, kw_only=True)
class SampledVocab:
    """Embeddings of randomly drawn vocabulary entries (Lester et al. 2021, section 3.1).

    Args:
        first: draw from this many of the lowest token ids only (0: all); frequency-sorted vocabularies put common
            words first, and the paper draws from the 5,000 most common.
    """

    first: Annotated[int, Field(ge=0)] = 0

    def __call__(self, context: PromptContext, length: int) -> Float[Tensor, "P E"]:
        pool = context.words[: self.first] if self.first else context.words
        if len(pool) < length:
            raise ConfigError(
                f"{length} entries cannot be drawn from {len(pool)} without repetition.", where="prompt.initializer"
            )
        picks = torch.randperm(len(pool), generator=context.generator)[:length]
        return context.rows([pool[i] for i in picks])


@final
@initializers.register("uniform")
@dataclass(frozen=True, kw_only=True)
class Uniform:
    """Uniform values in [-range, range] (Lester et al. 2021: 0.5).

    Args:
        range: half width; 0 matches the root mean square of the embedding table instead, sqrt(3) times it.
    """

    range: float = 0.0

    def __call__(self, context: PromptContext, length: int) -> Float[Tensor, "P E"]:
        half = self.range or 3**0.5 * context.embedding_rms
        values = torch.rand(length, context.embedding_size, generator=context.generator)
        return (2 * values - 1) * half


@final
@initializers.register("class_labels")
@dataclass(frozen=True, kw_only=True)
class ClassLabels:
    """Embeddings of the task's label words in turn, further rows from the vocabulary (Lester et al. 2021)."""

    def __call__(self, context: PromptContext, length: int) -> Float[Tensor, "P E"]:
        values = SampledVocab()(context, length)
        known = context.rows(list(context.label_ids)[:length])
        values[: len(known)] = known
        return values


@final
@initializers.register("text")
@dataclass(frozen=True, kw_only=True)
class Text:
    """Embeddings of a given text; a shorter text is repeated, a longer one is an error.

    Args:
        text: an instruction, such as "Decide what the customer writes about".
    """

    text: str

    def __call__(self, context: PromptContext, length: int) -> Float[Tensor, "P E"]:
        return context.rows(repeated_ids(context, self.text, length, "prompt.initializer.text"))


def repeated_ids(context: PromptContext, text: str, length: int, where: str) -> list[int]:
    """Token ids of a text, repeated until there are `length`.

    Args:
        where: the option that holds the text, for errors.

    Raises:
        ConfigError: the text is empty, or has more tokens.
    """
    ids = context.encode(text)
    if not 0 < len(ids) <= length:
        raise ConfigError(
            f"the text must give 1 to {length} tokens (prompt.length), got {len(ids)}.",
            where=where,
            fix=f"Set prompt.length={len(ids)} or change the text." if ids else "Write some text.",
        )
    return [ids[i % len(ids)] for i in range(length)]


@final
@initializers.register("from_run")
@dataclass(frozen=True, kw_only=True)
class FromRun:
    """The trained prompt of another run or bundle on the same backbone (prompt transfer, Vu et al. 2022, SPoT).

    Args:
        run: a run folder or bundle.
    """

    run: str

    def __call__(self, context: PromptContext, length: int) -> Float[Tensor, "P E"]:
        bundle = read_bundle(Path(self.run))
        stated = bundle.metadata["backbone"]
        if stated["fingerprint"] != context.fingerprint:
            raise BundleError(
                f"the prompt of {self.run} was trained on the backbone {stated['model']!r} (fingerprint "
                f"{stated['fingerprint'][:12]}), this run uses {context.backbone!r} ({context.fingerprint[:12]}).",
                where="prompt.initializer.run",
                fix=f"Name a run on {context.backbone!r}, or train on {stated['model']!r}.",
            )
        values = torch.from_numpy(bundle.prompt)
        wanted = (length, context.embedding_size)
        if tuple(values.shape) != wanted:
            raise ConfigError(
                f"the prompt of {self.run} has shape {tuple(values.shape)}, this run needs {wanted}.",
                where="prompt.initializer.run",
                fix=f"Set prompt.length={values.shape[0]}." if values.shape[1] == wanted[1] else None,
            )
        return values

    def fingerprint(self) -> str:
        """SHA-256 over the shape and values of the other run's prompt."""
        prompt = read_prompt(Path(self.run))
        return hashlib.sha256(f"{prompt.shape}".encode() + np.ascontiguousarray(prompt, "<f4").tobytes()).hexdigest()


def factors(
    values: Float[Tensor, "N E"], start: Float[Tensor, "N r"]
) -> tuple[Float[Tensor, "N r"], Float[Tensor, "r E"]]:
    """Two factors A and B whose product is the nearest matrix of rank r (truncated singular value decomposition).

    Args:
        start: columns of A where r is more than the rank of `values`; B is zero there, and can be trained from there.
    """
    rank = min(start.shape[1], *values.shape)
    u, s, v = torch.linalg.svd(values.double(), full_matrices=False)
    root = s[:rank].sqrt()
    left, right = start.clone(), values.new_zeros(start.shape[1], values.shape[1])
    left[:, :rank], right[:rank] = (u[:, :rank] * root).float(), (root[:, None] * v[:rank]).float()
    return left, right


def fingerprint(spec: Mapping[str, Any]) -> str | None:
    """The fingerprint of what an initializer reads from disk; None where its options say all.

    An initializer that reads files has a method `fingerprint()`; what it returns becomes part of the run's id.
    """
    read = getattr(initializers.build(spec), "fingerprint", None)
    return None if read is None else str(read())
