"""How an example becomes rows: which texts, how often, with which label words and candidates, under one template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from trimtab.errors import ConfigError, DataError, TemplateError, suggest
from trimtab.grading import Grader
from trimtab.readouts import plan_answers
from trimtab.registry import readouts
from trimtab.rewriting import rewritten
from trimtab.tasks.choices import choices_of
from trimtab.templates import Template
from trimtab.text_encoder import TextEncoder
from trimtab.types import AnswerPlan, Example, Label, Row
from trimtab.verbalizers import Verbalizer


@dataclass(frozen=True)
class Rendering:
    """How a task's examples become rows for a backbone.

    Attributes:
        template: text, slots and answer slot.
        verbalizer: the label words.
        max_length: positions available.
        readout: the resolved readout, which says how the answer slot is filled.
        replace: field -> what stands in the data -> what the template has instead.
        answer: what an answer is, see `trimtab.tasks.Task`.
        candidate: the field that answers of the sort `match` are compared with.
        metrics: that the task names.
        headline: the metric that stands for a run; None for the readout's.
        allowed: relation -> the words that may be their answers; empty where any may.
        rewrite: field -> how its text is changed, see `trimtab.rewriting`.
        nothing_matches: see `trimtab.grading.Grader`.
    """

    template: Template
    verbalizer: Verbalizer
    max_length: int
    readout: Mapping[str, Any] = field(default_factory=lambda: {"kind": "cloze"})
    replace: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    answer: str = "class"
    candidate: str | None = None
    metrics: tuple[str, ...] = ()
    headline: str | None = None
    allowed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rewrite: Mapping[str, Sequence[str]] = field(default_factory=dict)
    nothing_matches: bool = False
    _plans: dict[TextEncoder, AnswerPlan] = field(default_factory=dict, init=False, repr=False, compare=False)
    _words: dict[TextEncoder, dict[int, set[tuple[int, ...]]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def row(self, example: Example, encoder: TextEncoder, prompt: int = 0, keep: tuple[int, int] | None = None) -> Row:
        """Render one example.

        Args:
            example: the example.
            encoder: the backbone's text encoder.
            prompt: the prompt that the row uses.
            keep: the tokens that are read of the field that the readout reads; all that fit by default.

        Raises:
            TemplateError: it is empty, or does not fit.
            DataError: it lacks choices, or has a value that `replace` does not know.
        """
        name = example.source or example.id
        plan, gold, classes = self.plan(encoder), self.gold(example), self.verbalizer.classes
        fills = plan.fills
        right = classes.index(example.label) if example.label in classes else -1
        label: Label = right
        contents = self._contents(example, plan, name)
        if plan.write is not None:
            fills = (plan.write(self._ids(gold, encoder, name), name),) if gold else fills
            label = label if self.answer == "class" and classes else 0 if gold else -1
        if plan.compose is not None:
            texts = [self._ids(text, encoder, name) for text in self._texts(contents[0], name)]
            fill, label = plan.compose(texts, right, example.id)
            fills = (fill,)
        room = self.max_length - max(plan.room, *(len(f.ids) for f in fills))
        if plan.compose is not None:
            room = self.max_length - plan.room - len(fills[0].ids)
        variants = [
            self.template.render(fields, encoder, room + len(f.ids), name, f, plan.field, keep)
            for fields in contents
            for f in fills
        ]
        variants = [v.without_words(self._own_words(encoder)) for v in variants]
        if plan.locate is not None:
            located = [plan.locate(v, example, classes) for v in variants]
            variants = [replace(v, answer_at=reads) for v, (reads, _) in zip(variants, located, strict=True)]
            label = label if located[0][1] is None else located[0][1]
        if plan.label is not None:
            label = plan.label(self._answer(gold, encoder) if gold else (), self._group(example, name))
        return Row(variants[0], label, prompt, others=tuple(variants[1:]), gold=gold, example=example)

    def _contents(self, example: Example, plan: AnswerPlan, name: str) -> list[Mapping[str, str]]:
        """The fields that templates are filled with: once, or once per choice."""
        fields = dict(rewritten(example.fields, self.rewrite))
        for column, texts in self.replace.items():
            value = fields.get(column, "").strip()
            if column in fields and value not in texts:
                what = (
                    f"the field {column!r} holds {value!r}, and task.replace.{column} does not say what that becomes."
                )
                raise DataError(what, where=name, fix=suggest(value, texts))
            fields[column] = texts.get(value, "")
        if plan.each is None:
            return [fields]
        return [{**fields, plan.each: text} for text in choices_of(fields, self.verbalizer.classes, name).values()]

    def _texts(self, fields: Mapping[str, str], name: str) -> list[str]:
        """The texts of an example that its slot may hold."""
        if self.candidate is not None:
            return [fields[self.candidate]]
        return list(choices_of(fields, self.verbalizer.classes, name).values())

    def wanted(self, encoder: TextEncoder) -> list[str]:
        """The fields that every example must have."""
        plan = self.plan(encoder)
        texts = self.verbalizer.classes[:2] if plan.each or self.answer == "infill" else ()
        texts = (*texts, *([] if self.candidate is None else [self.candidate]))
        return [f for f in dict.fromkeys([*self.template.fields, *texts]) if f != plan.each]

    @property
    def grader(self) -> Grader:
        """How answers are scored."""
        return Grader(self.verbalizer, self.metrics, self.headline, self.candidate, self.nothing_matches)

    def rows(self, example: Example, encoder: TextEncoder, prompt: int = 0) -> list[Row]:
        """Render one example, as several rows where the readout reads it in parts.

        Raises:
            TemplateError: as `row`; also where slots and other fields leave no room for what is read in parts.
        """
        plan, name = self.plan(encoder), example.source or example.id
        if plan.stride is None or plan.field is None:
            return [self.row(example, encoder, prompt)]
        (fields,), (fill,) = self._contents(example, plan, name), plan.fills
        windows = self.template.windows(fields, encoder, self.max_length, name, fill, plan.field, plan.stride)
        return [replace(self.row(example, encoder, prompt, keep), part=i) for i, keep in enumerate(windows)]

    def gold(self, example: Example) -> str:
        """The right answer as text: the first label word of the class, the free text, the right choice, or the
        candidate where it is right; empty if it is not known."""
        if example.label is None or self.verbalizer.is_free:
            return example.label or ""
        fields = rewritten(example.fields, self.rewrite)
        if self.candidate is not None:
            return fields[self.candidate] if example.label == self.verbalizer.classes[1] else ""
        if self.answer == "infill":
            return fields[example.label]
        words = dict(zip(self.verbalizer.classes, self.verbalizer.words, strict=True))
        return words[example.label][0] if example.label in words else ""

    def _answer(self, text: str, encoder: TextEncoder) -> tuple[int, ...]:
        return encoder.answer(text, spaced=self.template.answer_is_spaced, lead=self._lead(encoder))

    def _group(self, example: Example, name: str) -> int:
        """The number of the example's group among those that have answers of their own; 0 where none has."""
        groups = list(self.allowed)
        if len(groups) < 2:
            return 0
        own = example.fields.get("relation", "")
        if own not in groups:
            what = f"the relation must be known, as each has answers of its own; got {own!r}."
            raise DataError(what, where=name, fix=f"Give the field 'relation'. {suggest(own, groups)}")
        return groups.index(own)

    def _ids(self, text: str, encoder: TextEncoder, name: str) -> tuple[int, ...]:
        ids = self._answer(text, encoder)
        if not encoder.decode(ids):
            raise TemplateError(
                f"the tokenizer knows nothing of the answer {text!r}.",
                where=name,
                fix="Use a backbone whose vocabulary has it, or remove the row.",
            )
        return ids

    def label_ids(self, encoder: TextEncoder) -> list[list[tuple[int, ...]]]:
        """Token ids of the label words, class by class."""
        spaced, lead = self.template.answer_is_spaced, self._lead(encoder)
        return self.verbalizer.encode(encoder, spaced=spaced, lead=lead)

    def allowed_ids(self, encoder: TextEncoder) -> list[list[tuple[int, ...]]]:
        """Token ids of the words that may be answers, group by group: of those that are one token, each once.

        Raises:
            TemplateError: a group has none.
        """
        found: list[list[tuple[int, ...]]] = []
        for group, words in self.allowed.items():
            ids = dict.fromkeys(self._answer(word, encoder) for word in words)
            found.append([i for i in ids if len(i) == 1 and i[0] != encoder.unk_id])
            if not found[-1]:
                raise TemplateError(
                    f"none of the {len(words)} words that may be answers is one token of the backbone's vocabulary.",
                    where=f"task.vocabulary ({group})" if group else "task.vocabulary",
                    fix="Use another backbone, or task.vocabulary=full.",
                )
        return found

    def _own_words(self, encoder: TextEncoder) -> dict[int, set[tuple[int, ...]]]:
        """How the label words that are read would stand in a text, by first token: never to be perturbed there."""
        if encoder not in self._words:
            is_read = self.has_words
            words = [w for its in self.verbalizer.words for w in its] if is_read else []
            forms = [
                encoder.encode(text, is_first=is_first).ids
                for w in words
                for text in (w, f" {w}")
                for is_first in (True, False)
            ]
            by_first: dict[int, set[tuple[int, ...]]] = {}
            for ids in filter(None, forms):
                by_first.setdefault(ids[0], set()).add(tuple(ids))
            self._words[encoder] = by_first
        return self._words[encoder]

    @property
    def has_words(self) -> bool:
        """Whether label words are read or written."""
        is_class = self.answer == "class" and not self.verbalizer.is_free
        return is_class and not readouts.get(self.readout["kind"]).trains  # type: ignore[attr-defined]

    def _lead(self, encoder: TextEncoder) -> str | None:
        """The text that an answer continues; a decoder of its own begins with the answer."""
        return self.template.answer_lead if encoder.decoder_start_id is None else None

    def plan(self, encoder: TextEncoder) -> AnswerPlan:
        """How the readout wants the answer slot filled.

        Raises:
            TemplateError: a label word or a token that the readout needs is not in the vocabulary, the template lacks a
                field that it needs, or something follows the answer where it must come last.
            ConfigError: the task has free text, and the readout chooses among label words.
        """
        if encoder not in self._plans:
            if self.verbalizer.is_free and readouts.get(self.readout["kind"]).kinds == ("class",):  # type: ignore[attr-defined]
                raise ConfigError(
                    f"the readout {self.readout['kind']!r} chooses among label words, and the task has free text.",
                    where="readout.kind",
                    fix="Use readout.kind=text with a causal or encoder-decoder model.",
                )
            words = self.label_ids(encoder) if self.has_words else self.allowed_ids(encoder)
            plan = plan_answers(self.readout, encoder, words)
            for name in (plan.each, plan.field):
                if name is not None and name not in self.template.fields:
                    raise TemplateError(
                        f"the readout {self.readout['kind']!r} reads the field {{{name}}}, which is not in "
                        f"{self.template.source!r}.",
                        where="task.template",
                        fix=f"Write {{{name}}} where the text belongs.",
                    )
            if plan.needs_slot:
                self.template.check_answer()
            if any(f.is_last for f in plan.fills):
                self.template.check_answer_is_last()
            self._plans[encoder] = plan
        return self._plans[encoder]
