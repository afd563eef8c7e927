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
from trimtab.prompt_table import Site
from trimtab.registry import initializers
from trimtab.storage import Bundle, read_bundle


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


@runtime_checkable
class Transfer(Protocol):
    """An initializer that has a whole prompt, so that encoders of more than rows can begin with the rest of it too."""

    def part(self, context: PromptContext, name: str, shape: tuple[int, ...], option: str) -> Tensor | None:
        """A part by its name in a bundle; None where the prompt has no such part.

        Args:
            shape: that is needed.
            option: that decides it, for errors.
        """
        ...

    def stated(self, context: PromptContext) -> Mapping[str, Any]:
        """What the bundle states about its prompt, such as `layers` and `shift`."""
        ...


def part_of(
    initializer: Initializer, context: PromptContext, name: str, shape: tuple[int, ...], option: str
) -> Tensor | None:
    """`Transfer.part`; None of initializers that give rows only."""
    return initializer.part(context, name, shape, option) if isinstance(initializer, Transfer) else None


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

    Encoders begin with what they have of it: all of them with its rows, deep prompts with its keys and values, others
    of more than rows with their offset or router. A head is never carried over.

    Args:
        run: a run folder or bundle.
    """

    run: str

    def __call__(self, context: PromptContext, length: int) -> Float[Tensor, "P E"]:
        bundle = self._bundle(context)
        kind, rows = bundle.metadata["prompt"]["kind"], len(bundle.prompt)
        what = None if rows else "has no rows that stand in the text"
        if "router" in bundle.tensors:
            what = f"is {rows // bundle.slots} prompts that a router chooses from, and none of them is the one"
        if what is not None:
            raise ConfigError(
                f"the prompt of {self.run} {what}.",
                where="prompt.initializer.run",
                fix=f"Name a run with an input prompt, or set prompt.kind={kind}.",
            )
        wanted = (length, context.embedding_size)
        return self._fitting(bundle, "inputs", wanted, f"Set prompt.length={rows}.")

    def part(self, context: PromptContext, name: str, shape: tuple[int, ...], option: str) -> Tensor | None:
        """See `Transfer`."""
        bundle = self._bundle(context)
        return self._fitting(bundle, name, shape, f"Set {option} to fit.") if name in bundle.tensors else None

    def stated(self, context: PromptContext) -> Mapping[str, Any]:
        """See `Transfer`."""
        found: Mapping[str, Any] = self._bundle(context).metadata["prompt"]
        return found

    def _bundle(self, context: PromptContext) -> Bundle:
        """The other run, if it is on the same backbone."""
        bundle = read_bundle(Path(self.run))
        stated = bundle.metadata["backbone"]
        if stated["fingerprint"] != context.fingerprint:
            raise BundleError(
                f"the prompt of {self.run} was trained on the backbone {stated['model']!r} (fingerprint "
                f"{stated['fingerprint'][:12]}), this run uses {context.backbone!r} ({context.fingerprint[:12]}).",
                where="prompt.initializer.run",
                fix=f"Name a run on {context.backbone!r}, or train on {stated['model']!r}.",
            )
        return bundle

    def _fitting(self, bundle: Bundle, name: str, wanted: tuple[int, ...], fix: str) -> Tensor:
        """A part that has the shape that is needed."""
        values = torch.from_numpy(bundle.tensors[name])
        if tuple(values.shape) != wanted:
            what = "prompt" if name == "inputs" else name
            raise ConfigError(
                f"the {what} of {self.run} has shape {tuple(values.shape)}, this run needs {wanted}.",
                where="prompt.initializer.run",
                fix=fix if values.shape[-1] == wanted[-1] else None,
            )
        return values

    def fingerprint(self) -> str:
        """SHA-256 over the shape and values of the other run's prompt, all its parts but a head."""
        tensors = read_bundle(Path(self.run)).tensors
        others = sorted(n for n in tensors if n != "inputs" and not n.startswith("head."))
        hashed = hashlib.sha256()
        for name in ("inputs", *others):
            about = "" if name == "inputs" else name
            hashed.update(f"{about}{tensors[name].shape}".encode())
            hashed.update(np.ascontiguousarray(tensors[name], "<f4").tobytes())
        return hashed.hexdigest()


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


def fingerprint(prompt: Mapping[str, Any]) -> str | None:
    """The fingerprint of what the initializers of a resolved prompt read from disk, those of a prompt inside it
    included; None where their options say all.

    An initializer that reads files has a method `fingerprint()`; what it returns becomes part of the run's id.
    """
    found = []
    for option, spec in prompt.items():
        if option == "initializer" and spec is not None:
            read = getattr(initializers.build(spec), "fingerprint", None)
            found.append(None if read is None else str(read()))
        elif isinstance(spec, Mapping):
            found.append(fingerprint(spec))
    return "+".join(filter(None, found)) or None
