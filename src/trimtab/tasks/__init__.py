"""On what: tasks. One YAML per dataset (a preset of options), a Python file where structure needs it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from trimtab.tasks.forms import Reading
from trimtab.types import Example
from trimtab.verbalizers import Verbalizer

SPLITS = ("train", "dev", "test")
Answer = Literal["class", "text", "tags", "span", "choice", "infill", "match", "word"]


@dataclass(frozen=True)
class Task:
    """Examples by split, and how they are turned into text and answers.

    `train` is learned from, `dev` selects the checkpoint, `test` is reported and used for nothing else.

    Attributes:
        verbalizer: the classes and their label words; `Verbalizer.free()` where there are no classes.
        template: template text, or a chat (see `trimtab.chat`); parsed when prompt length and tokenizer are known.
        truncate: fields that may be cut, first to last; empty: the longest first.
        max_length: positions a row may take; None for what the backbone has.
        answer: what an answer is: one of the classes, free text, a class for every word (`tags`), a stretch of a text
            (`span`), one of several texts of the example, each read in a sequence of its own (`choice`) or all written
            into one slot (`infill`): then the classes are the fields that hold them; a text that is compared with one
            of the example (`match`): then the classes, false and true, say whether it is right; or a word of the
            backbone's vocabulary (`word`).
        notes: what was found in the data that a user should know, in sentences.
        replace: field -> what stands in the data -> what the template shall have instead.
        most: positions that a row takes at most where `max_length` says nothing.
        candidate: the field that answers of the sort `match` are compared with.
        metrics: that are reported beside the readout's, see `trimtab.benchmark_metrics`.
        headline: the metric that stands for a run; None for the readout's.
        reading: how its files are read.
        submission: what SuperGLUE calls it, where predictions can be handed in.
        causal: the template of models that read from left to right, where it is another.
        manual: what the bare model is asked for the baseline without a prompt, where that is not the template without
            its slots, and what a model that reads from left to right is asked, if it can be.
        allowed: relation -> the words that may be answers to it; empty where any may.
        rewrite: field -> how its text is changed before the template is filled, see `trimtab.rewriting`.
        nothing_matches: whether an answer without words counts as the candidate.
        parts: of several tasks that share a prompt, each by its name. What is asked is then theirs to say; here are
            all examples, task by task, and what was found.
        shares: of several tasks, how much of an epoch is rows of each; none where every row is seen once.
    """

    name: str
    splits: Mapping[str, tuple[Example, ...]]
    template: str | Mapping[str, Any]
    truncate: tuple[str, ...]
    verbalizer: Verbalizer
    max_length: int | None = None
    answer: Answer = "class"
    notes: tuple[str, ...] = ()
    replace: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    most: int | None = None
    candidate: str | None = None
    metrics: tuple[str, ...] = ()
    headline: str | None = None
    reading: Reading = field(default_factory=Reading)
    submission: str | None = None
    causal: str | None = None
    manual: tuple[str, str | None] | None = None
    allowed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rewrite: Mapping[str, Sequence[str]] = field(default_factory=dict)
    nothing_matches: bool = False
    parts: Mapping[str, Task] = field(default_factory=dict)
    shares: tuple[float, ...] = ()

    @classmethod
    def together(cls, name: str, parts: Mapping[str, Task], shares: tuple[float, ...] = ()) -> Task:
        """Several tasks as one."""
        splits = {split: tuple(e for part in parts.values() for e in part.splits[split]) for split in SPLITS}
        notes = tuple(f"{part}: {note}" for part, task in parts.items() for note in task.notes)
        return cls(name, splits, "", (), Verbalizer.free(), notes=notes, parts=parts, shares=shares)

    @property
    def each(self) -> tuple[Task, ...]:
        """The tasks that it is made of: itself where it is one."""
        return tuple(self.parts.values()) or (self,)

    def template_for(self, is_causal: bool) -> str | Mapping[str, Any]:
        """The template of a model that reads from left to right, or of another."""
        return self.causal if is_causal and self.causal is not None else self.template

    @property
    def columns(self) -> list[str]:
        """Names of the fields that templates may use: those of examples, and `choice`, which stands for each choice."""
        own = list(next(iter(self.splits["train"])).fields)
        return [*own, "choice"] if self.answer == "choice" else own

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the examples of all splits and the words that may be answers; of several tasks, over theirs."""
        if self.parts:
            theirs = [[name, part.fingerprint] for name, part in self.parts.items()]
            return hashlib.sha256(json.dumps(theirs, ensure_ascii=False).encode()).hexdigest()
        digest = hashlib.sha256()
        for split in SPLITS:
            for e in self.splits[split]:
                facts: list[Any] = [split, e.id, dict(e.fields), e.label, *([e.words, e.tags] if e.words else [])]
                facts += [e.answers] if e.answers else []
                facts += [e.group] if e.group else []
                facts += [e.prior] if e.prior is not None else []
                digest.update(json.dumps(facts, ensure_ascii=False).encode())
        if self.allowed:
            digest.update(json.dumps(dict(self.allowed), ensure_ascii=False).encode())
        return digest.hexdigest()
