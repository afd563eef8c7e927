"""What requests and answers look like. Unknown keys and values of another type are refused, not guessed at.

Completions follow OpenAI's API (v1/completions, v1/chat/completions). Of its options those are taken that mean
something here; others are taken with the value that asks for nothing. The default temperature is 0: the likeliest text.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _whole(text: str) -> str:
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise ValueError("a text holds half of a surrogate pair, such as \\ud83d alone")
    return text


Text = Annotated[str, AfterValidator(_whole)]
"""Any text that can be written in UTF-8."""
Cell = Text | int | float | bool | list[Text] | None
Input = Text | dict[Text, Cell]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Ask(_Request):
    """Inputs for a task: plain texts where it has one field, else objects field -> text, with an optional `id`."""

    inputs: Annotated[list[Input], Field(min_length=1, examples=[["the film was good"]])]
    bare: bool = Field(False, description="Ask the bare model: the same words, without the prompt.")


class Classify(Ask):
    """The same for a task that is named in the body."""

    task: Text


class Answers(BaseModel):
    """What was found, an answer for each input in their order."""

    task: str
    bare: bool
    predictions: list[dict[str, Any]]


class ClassScores(BaseModel):
    """A class, and the probability of each."""

    id: str
    label: str
    scores: dict[str, float]


class Classified(BaseModel):
    """A class for each input."""

    task: str
    bare: bool
    predictions: list[ClassScores]


class Task(BaseModel):
    """What a task wants and gives."""

    name: str
    fields: list[str]
    classes: list[str]
    answer: str
    readout: str
    writes: bool
    has_bare: bool
    prompt: str | None
    virtual_tokens: int
    deep_layers: dict[str, int]
    template: str


class Tasks(BaseModel):
    """All tasks, and the backbone that they share."""

    backbone: str
    can_write: bool
    tasks: list[Task]


class Health(BaseModel):
    """Whether the server works."""

    status: Literal["ok", "closing"]
    backbone: str
    prompts: int
    waiting: int


class StreamOptions(_Request):
    """What a stream tells beside the text."""

    include_usage: bool = False


class _Writing(_Request):
    model: Text = Field(description="A prompt, or the backbone.")
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: int | None = None
    stop: Text | Annotated[list[Text], Field(max_length=16)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Text | None = None
    n: Literal[1] | None = None
    presence_penalty: Literal[0] | Literal[0.0] | None = None  # type: ignore[valid-type]
    frequency_penalty: Literal[0] | Literal[0.0] | None = None  # type: ignore[valid-type]
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None

    @property
    def stops(self) -> list[str]:
        """Texts that end what is written."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []


Count = Annotated[int, Field(ge=1, le=1 << 20)]


class Completion(_Writing):
    """A text to be written on."""

    prompt: Text | Annotated[list[Text], Field(min_length=1)]
    max_tokens: Count | None = None
    best_of: Literal[1] | None = None
    echo: Literal[False] | None = None
    logprobs: None = None
    suffix: None = None


class ChatMessage(_Request):
    """Who speaks, and what is said."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text
    name: Text | None = None


class ChatCompletion(_Writing):
    """Messages to be answered."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    logprobs: Literal[False] | None = None


class Usage(BaseModel):
    """Tokens, virtual ones included."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Model(BaseModel):
    """A prompt, or the backbone, as OpenAI's API lists models."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["trimtab"] = "trimtab"


class Models(BaseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[Model]
