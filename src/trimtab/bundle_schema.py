"""What `bundle.json` must hold for a prompt to be used again. More is allowed, and kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trimtab.errors import BundleError
from trimtab.rewriting import Rewrite


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Prompt(_Part):
    shape: Annotated[list[int], Field(min_length=2, max_length=2)]
    tensors: dict[str, list[int]] = {}
    layers: dict[str, list[int]] = {}
    shift: int = 0
    sha256: str | None = None


class _Options(_Part):
    dtype: Literal["auto", "float32", "bfloat16"]
    revision: str | None
    trust_remote_code: bool
    attention: Literal["auto", "eager", "sdpa"]
    quantization: dict[str, Any] | None
    embed_twice: bool = False


class _Backbone(_Part):
    model: str
    fingerprint: str
    options: _Options
    tuned: bool = False
    tuned_sha256: str | None = None


class _Tokenizer(_Part):
    fingerprint: str


class _Task(_Part):
    template: str | dict[str, Any]
    rendered: str | None = None
    truncate: list[str]
    max_length: int
    label_words: dict[str, list[str]]
    answer: Literal["class", "text", "tags", "span", "choice", "infill", "match", "word"] | None = None
    replace: dict[str, dict[str, str]] = {}
    candidate: str | None = None
    metrics: list[str] = []
    headline: str | None = None
    form: str | None = None
    rename: dict[str, str] = {}
    submission: str | None = None
    allowed: dict[str, list[str]] = {}
    rewrite: dict[str, list[Rewrite]] = {}
    nothing_matches: bool = False

    @model_validator(mode="after")
    def _chats_are_rendered(self) -> _Task:
        if (self.rendered is None) != isinstance(self.template, str):
            raise ValueError("a chat, and nothing else, needs the key 'rendered': the text that was trained with")
        return self


class _Readout(_Part):
    kind: str


class _Metadata(_Part):
    prompt: _Prompt
    backbone: _Backbone
    tokenizer: _Tokenizer
    task: _Task
    readout: _Readout


class _OneOfSeveral(_Part):
    name: str
    metric: str
    task: _Task
    readout: _Readout


class _MetadataOfSeveral(_Part):
    prompt: _Prompt
    backbone: _Backbone
    tokenizer: _Tokenizer
    tasks: Annotated[list[_OneOfSeveral], Field(min_length=1)]


def check_metadata(metadata: Mapping[str, Any], where: str) -> None:
    """Refuse the content of a bundle.json in which something is missing or of another sort.

    Raises:
        BundleError: with the dotted name of the key.
    """
    try:
        (_MetadataOfSeveral if "tasks" in metadata else _Metadata).model_validate(dict(metadata))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        what = f"the key {key!r} must be otherwise: {first['msg']}, got {first['input']!r}."
        if first["type"] == "missing":
            what = f"the key {key!r} is missing."
        raise BundleError(what, where=where, fix="Copy it again or rerun the training.") from None
