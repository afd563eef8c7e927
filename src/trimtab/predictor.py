"""A prompt in use: text in, labels and scores out. The same code scores a run after training and a reloaded bundle."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from math import isnan
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from trimtab.backbones import Backbone, load_backbone
from trimtab.errors import BackboneError, BundleError, ConfigError, DataError, TemplateError, suggest
from trimtab.grading import Grader, Graders, Grading
from trimtab.model import PromptedModel
from trimtab.readouts import choosing, of_one_task, plan_answers
from trimtab.registry import readouts, tunings
from trimtab.storage import Bundle, read_bundle
from trimtab.tasks.choices import choices_of
from trimtab.tasks.tagged import with_words
from trimtab.templates import Template
from trimtab.text_encoder import TextEncoder
from trimtab.types import (
    AnswerPlan,
    Evaluation,
    Example,
    Label,
    OfTask,
    Prediction,
    PromptTable,
    Records,
    Row,
    table_of,
)
from trimtab.verbalizers import Verbalizer

MAX_TOKENS = 8192
TRUST = "TRIMTAB_TRUST_REMOTE_CODE"


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
        fields = dict(example.fields)
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
        return Grader(self.verbalizer, self.metrics, self.headline, self.candidate)

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
        if self.candidate is not None:
            return example.fields[self.candidate] if example.label == self.verbalizer.classes[1] else ""
        if self.answer == "infill":
            return example.fields[example.label]
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


@dataclass(frozen=True)
class Predictor:
    """One prompt (or none) on one backbone for one task.

    Build with `trimtab.load(path)`.
    """

    model: PromptedModel
    rendering: Rendering
    table: PromptTable | None
    metadata: Mapping[str, Any]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of scores."""
        return self.rendering.verbalizer.classes

    @property
    def bare(self) -> Predictor:
        """The same question put to the bare model: the template without its slots, no prompt.

        Raises:
            ConfigError: what is read with was trained with the prompt.
        """
        kind = self.rendering.readout["kind"]
        if readouts.get(kind).trains:  # type: ignore[attr-defined]
            raise ConfigError(
                f"the readout {kind!r} has a head that was trained with the prompt; the bare model has none.",
                where="readout.kind",
                fix="Ask with the prompt.",
            )
        rendering = replace(self.rendering, template=self.rendering.template.without_prompt())
        reader = readouts.build(rendering.readout, self.model.backbone, [rendering.plan(self.model.backbone.encoder)])
        return replace(self, model=replace(self.model, readout=reader), rendering=rendering, table=None)

    def score(self, examples: Sequence[Example]) -> torch.Tensor:
        """Raw scores, float32, in the order of the examples' rows: [N,C] for classes.

        Where the answer is written, C = 1: the mean log-likelihood per token of the example's own label or text. Of
        readouts that condense their scores, what they keep.
        """
        return self.model.score_rows(self.rows(examples), self.table, MAX_TOKENS)

    def rows(self, examples: Sequence[Example]) -> list[Row]:
        """Rendered examples, each as one row or, where the readout reads it in parts, as several."""
        prompt = -1 if self.table is None else 0
        return [row for e in examples for row in self.rendering.rows(e, self.model.backbone.encoder, prompt)]

    def predict(self, inputs: Sequence[Example | Mapping[str, Any] | str]) -> Records:
        """Label and class probabilities of each input, the tags of its words, or what the model writes where its
        readout is `text`.

        Args:
            inputs: examples, mappings field -> text, or plain texts where the template has a single field. Where words
                are tagged, a mapping may hold them as the list `tokens`; a text is split at white space.

        Raises:
            DataError: an input lacks a field of the template, or is no valid Unicode.
            TemplateError: an input is empty.
            BackboneError: a score is not a number.
        """
        return self._answered(self.examples(inputs))[0]

    def __call__(self, given: Example | Mapping[str, Any] | str) -> Any:
        """The answer to one input, see `predict`."""
        return self.predict([given])[0]

    def predict_each(self, inputs: Iterable[Example | Mapping[str, Any] | str], batch_size: int = 64) -> Iterator[Any]:
        """Answers to inputs of any number, one after the other: as many as `batch_size` are read and held at once.

        Inputs without an id are numbered as they come. Errors as `predict`, when their batch is read.
        """
        given, at = iter(inputs), 0
        while batch := list(islice(given, batch_size)):
            yield from self._answered(self.examples(batch, at))[0]
            at += len(batch)

    def examples(self, inputs: Sequence[Example | Mapping[str, Any] | str], first: int = 0) -> list[Example]:
        """Inputs as examples, checked; errors as `predict`.

        Args:
            first: how many inputs came before.
        """
        return [self._example(given, i) for i, given in enumerate(inputs, first)]

    def conclude(self, examples: Sequence[Example], rows: Sequence[Row], scores: Float[Tensor, "N *C"]) -> Records:
        """Answers from the scores of rows, for readouts that do not write.

        Raises:
            BackboneError: a score is not a number.
        """
        pairs = zip(rows, scores, strict=True)  # -inf is what padding and impossible answers have
        broken = next((row.example for row, its in pairs if its.isnan().any() or its.isposinf().any()), None)
        if broken is not None:
            raise self._not_finite(_place(broken, examples.index(broken)))
        records = choosing(self.model.readout).records(rows, scores, self.classes)
        for i, record in enumerate(records):
            if isinstance(record, Prediction) and any(map(isnan, record.scores.values())):
                raise self._not_finite(_place(examples[i], i))
        return records

    def _answered(self, examples: Sequence[Example], measured: bool = False) -> tuple[Records, dict[str, Any]]:
        """Predictions and, if asked for, the readout's metrics."""
        readout, grader = self.model.readout, self.rendering.grader
        if readout.writes:
            return self._written(examples, measured)
        if not examples:
            return [], {}
        rows = self.rows(examples)
        scores = self.model.score_rows(rows, self.table, MAX_TOKENS)
        records = self.conclude(examples, rows, scores)
        return records, grader.measure(readout, scores, rows) if measured else {}

    def open_rows(self, examples: Sequence[Example]) -> list[Row]:
        """Rendered examples whose answers, known or not, are yet to be written."""
        prompt = -1 if self.table is None else 0
        return [self.rendering.row(replace(e, label=None), self.model.backbone.encoder, prompt) for e in examples]

    def _written(self, examples: Sequence[Example], measured: bool) -> tuple[Records, dict[str, Any]]:
        """The model's own words and, where the task has classes, the class that they name; and metrics if asked for."""
        rendering, grader = self.rendering, self.rendering.grader
        rows = self.open_rows(examples)
        texts = self.model.write_rows(rows, self.table, MAX_TOKENS)
        if not measured:
            return grader.named(examples, texts), {}
        known = [replace(row, gold=rendering.gold(e), example=e) for row, e in zip(rows, examples, strict=True)]
        return grader.named(examples, texts), grader.measure_texts(self.model.readout, known, texts)

    def evaluate(self, examples: Sequence[Example]) -> Evaluation:
        """Metrics and predictions on labelled examples.

        Where the answer is written, `exact_match`, `token_f1` and `rouge_l` compare it with the right one (of a class:
        its first label word).

        Raises:
            DataError, TemplateError, BackboneError: as `predict`; also an example without a label of the task.
        """
        self.check_labels(examples)
        predictions, found = self._answered([self._example(e, i) for i, e in enumerate(examples)], measured=True)
        return Evaluation(found, tuple(predictions))  # type: ignore[arg-type]

    def check_labels(self, examples: Sequence[Example]) -> None:
        """Refuse examples whose right answer is not known.

        Raises:
            DataError: an example without a label of the task.
        """
        for i, example in enumerate(examples):
            what = of_one_task(self.model.readout).missing(example, self.classes)
            if what is not None:
                raise DataError(what, where=_place(example, i), fix="Give its label; `predict` needs no labels.")

    def _example(self, given: Example | Mapping[str, Any] | str, position: int) -> Example:
        wanted = self.rendering.wanted(self.model.backbone.encoder)
        if isinstance(given, Example):
            example = given
        else:
            if isinstance(given, str):
                if len(wanted) > 1:
                    raise DataError(
                        f"plain text cannot fill several fields ({', '.join(wanted)}).", where=f"input {position + 1}"
                    )
                given = {wanted[0]: given}
            name = str(given.get("id", position + 1))
            example = Example(name, {k: "" if v is None else str(v) for k, v in given.items()}, None)
            example = with_words(example, given)
        for name in wanted:
            if name not in example.fields:
                raise DataError(
                    f"the field {name!r} is missing; the template needs {', '.join(wanted)}.",
                    where=_place(example, position),
                )
        for text in (example.id, *(example.fields.get(name, "") for name in (*wanted, *self.classes))):
            if any("\ud800" <= c <= "\udfff" for c in text):  # cannot be tokenized or written
                what = "a text holds half of a surrogate pair, such as \\ud83d alone."
                raise DataError(what, where=_place(example, position))
        return example

    def _not_finite(self, where: str) -> BackboneError:
        backbone = self.model.backbone
        return BackboneError(
            f"the scores of {backbone.name!r} are not finite in {backbone.dtype}.",
            where=where,
            fix="Train with backbone.dtype=float32 or a lower training.learning_rate.",
        )


def _place(example: Example, position: int) -> str:
    return example.source or f"input {position + 1}"


@dataclass(frozen=True)
class Predictors:
    """One prompt for several tasks, each by its name. `grader` says what they come to together."""

    parts: Mapping[str, Predictor]
    grader: Graders

    def evaluate(self, examples: Mapping[str, Sequence[Example]]) -> Evaluation:
        """Metrics and predictions on labelled examples of each task; errors as of `Predictor.evaluate`."""
        return evaluation_of(self.grader, [its.evaluate(examples[name]) for name, its in self.parts.items()])

    def predict(self, inputs: Sequence[Example | Mapping[str, Any] | str]) -> list[OfTask]:
        """As `Predictor.predict`; each input says its task in the field `task`.

        Raises:
            DataError: an input says none, or one that is not known; else as there.
        """
        of: dict[str, list[int]] = {name: [] for name in self.parts}
        for i, given in enumerate(inputs):
            of[self._task(given, i)].append(i)
        found: dict[int, OfTask] = {}
        for name, places in of.items():
            # an input without an id is called by its position among all
            mine = [_numbered(inputs[i], i) for i in places]
            records: Sequence[Any] = self.parts[name].predict(mine)
            found |= {i: OfTask(name, record) for i, record in zip(places, records, strict=True)}
        return [found[i] for i in range(len(inputs))]

    def _task(self, given: Example | Mapping[str, Any] | str, position: int) -> str:
        """The task that an input says."""
        fields = given.fields if isinstance(given, Example) else given
        name = None if isinstance(fields, str) else fields.get("task")
        if name is None or str(name) not in self.parts:
            what = "the input does not say which task it is of" if name is None else f"there is no task {name!r}"
            place = _place(given, position) if isinstance(given, Example) else f"input {position + 1}"
            known = f"the field `task`: {', '.join(self.parts)}."
            raise DataError(f"{what}.", where=place, fix=f"Name one in {known}")
        return str(name)


def _numbered(given: Example | Mapping[str, Any] | str, position: int) -> Example | Mapping[str, Any] | str:
    """An input that has a name."""
    return {"id": position + 1, **given} if isinstance(given, Mapping) else given


def evaluation_of(grading: Grading, found: Sequence[Evaluation]) -> Evaluation:
    """The evaluation of a run from those of its tasks; of several also each by its name, under `tasks`."""
    metrics = grading.combined([its.metrics for its in found])
    if isinstance(grading, Grader):
        return Evaluation(metrics, found[0].predictions)
    pairs = list(zip(grading.parts, found, strict=True))
    said = tuple(OfTask(name, record) for name, its in pairs for record in its.predictions)  # type: ignore[arg-type]
    return Evaluation({**metrics, "tasks": {name: dict(its.metrics) for name, its in pairs}}, said)


def load(
    path: str | Path,
    *,
    task: str | None = None,
    backbone: Backbone | str | None = None,
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16"] | None = None,
    attention: Literal["auto", "eager", "sdpa"] | None = None,
    trust_remote_code: bool = False,
) -> Predictor:
    """Load a run folder or bundle, ready to predict.

    Args:
        path: the folder.
        task: which one, if it is of several.
        backbone: a loaded backbone, or where the model lies now; by default the one the bundle names.
        device: `auto`, `cpu` or `cuda`.
        dtype: of the backbone; by default that of training.
        attention: its implementation; by default that of training.
        trust_remote_code: let a bundle that asks for it run the code that comes with its model.

    Raises:
        BundleError: unreadable, trained on another backbone or tokenizer, of several tasks and none is named, or one
            that asks to run code and may not.
        BackboneError: the backbone cannot be loaded.
    """
    bundle = read_bundle(Path(path))
    if task is not None:
        bundle = bundle.of_task(task)
    if bundle.tasks:
        raise BundleError(
            f"the prompt is of several tasks: {', '.join(bundle.tasks)}.",
            where=str(path),
            fix=f"Say which one: --task {bundle.tasks[0]}, or load(path, task={bundle.tasks[0]!r}).",
        )
    return from_bundle(bundle, backbone_of(bundle, backbone, device, dtype, attention, trust_remote_code), str(path))


def load_tasks(
    path: str | Path,
    *,
    backbone: Backbone | str | None = None,
    device: str = "auto",
    trust_remote_code: bool = False,
) -> Predictors:
    """Load a run folder or bundle of several tasks, each ready to predict; arguments and errors as of `load`."""
    bundle = read_bundle(Path(path))
    loaded = backbone_of(bundle, backbone, device, trust_remote_code=trust_remote_code)
    parts = {name: from_bundle(bundle.of_task(name), loaded, str(path)) for name in bundle.tasks}
    metrics = {its["name"]: its["metric"] for its in bundle.metadata["tasks"]}
    graders = {name: replace(its.rendering.grader, headline=metrics[name]) for name, its in parts.items()}
    return Predictors(parts, Graders(graders))


def backbone_of(
    bundle: Bundle,
    backbone: Backbone | str | None = None,
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16"] | None = None,
    attention: Literal["auto", "eager", "sdpa"] | None = None,
    trust_remote_code: bool = False,
) -> Backbone:
    """The backbone that a bundle wants, or the one that is given; arguments and errors as `load`.

    A bundle may come from anybody, and may say that code beside its model is to be run. That takes a word of the user:
    `trust_remote_code`, or the environment variable TRIMTAB_TRUST_REMOTE_CODE=1.
    """
    if isinstance(backbone, Backbone):
        return backbone
    stated = bundle.metadata["backbone"]
    check_code(stated, trust_remote_code)
    options = {k: stated["options"][k] for k in ("revision", "trust_remote_code", "attention", "quantization")}
    options["random_weights"] = stated["options"].get("random_weights")
    options["attention"] = attention or options["attention"]
    return load_backbone(
        backbone or stated["model"], dtype=dtype or stated["options"]["dtype"], device=device, **options
    )


def check_code(stated: Mapping[str, Any], trusted: bool = False) -> None:
    """Refuse to run a model's code because the section `backbone` of a bundle says so: a bundle may come from anybody.

    Raises:
        BundleError: it wants code to be run, and neither `trusted` nor the environment allows that.
    """
    may_run = trusted or os.environ.get(TRUST) == "1"
    if stated["options"]["trust_remote_code"] and not may_run:
        raise BundleError(
            f"the prompt was trained with code that comes with {stated['model']!r}, and asks to run it.",
            where="backbone.options.trust_remote_code",
            fix=f"If you trust that code: --trust-remote-code (predict, serve), trust_remote_code=True, or {TRUST}=1.",
        )


def from_bundle(bundle: Bundle, backbone: Backbone, where: str = "bundle") -> Predictor:
    """A predictor from a bundle and the backbone it was trained on.

    Raises:
        BundleError: fingerprints differ, or trained weights that do not fit.
    """
    meta = bundle.metadata
    for what, got, stated in (
        ("backbone", backbone.fingerprint, meta["backbone"]["fingerprint"]),
        ("tokenizer", backbone.tokenizer_fingerprint, meta["tokenizer"]["fingerprint"]),
    ):
        if got != stated:
            raise BundleError(
                f"the prompt was trained on another {what} than {backbone.name!r} "
                f"(fingerprint {stated[:12]}, got {got[:12]}).",
                where=where,
                fix=f"Use the {what} of {meta['backbone']['model']!r} that it was trained with.",
            )
    if bundle.tuned:
        backbone = _tuned(backbone, bundle, where)
    task = meta["task"]
    rendered = task.get("rendered")
    template = Template.parse(
        rendered or task["template"], bundle.slots, task["truncate"], is_verbatim=rendered is not None
    )
    readout = readouts.resolve(meta["readout"], "readout")
    verbalizer = Verbalizer.of(task["label_words"]) if task["label_words"] else Verbalizer.free()
    rendering = Rendering(
        template,
        verbalizer,
        int(task["max_length"]),
        readout,
        task.get("replace", {}),
        task.get("answer") or "class",
        task.get("candidate"),
        tuple(task.get("metrics", ())),
        task.get("headline"),
        {group: tuple(words) for group, words in task.get("allowed", {}).items()},
    )
    reader = readouts.build(readout, backbone, [rendering.plan(backbone.encoder)])
    return Predictor(PromptedModel(backbone, reader), rendering, table_from(bundle, backbone.device), meta)


def table_from(bundle: Bundle, device: torch.device) -> PromptTable:
    """The prompt of a bundle, as a table of one.

    Raises:
        BundleError: it has a part that this version knows no use for, so it would not say what it was trained to.
    """
    stated = bundle.metadata["prompt"]
    parts = {n: torch.from_numpy(v)[None].to(device) for n, v in bundle.tensors.items()}
    layers = {site: tuple(its) for site, its in stated.get("layers", {}).items()}
    table = table_of(parts, layers, stated.get("shift", 0))
    unknown = sorted(parts.keys() - table.tensors.keys())
    if unknown:
        raise BundleError(
            f"the prompt has a part {unknown[0]!r}, which this version of trimtab knows no use for.",
            where="bundle.json",
            fix="Use the version that bundle.json names under provenance.environment.",
        )
    return table


def _tuned(backbone: Backbone, bundle: Bundle, where: str) -> Backbone:
    """A private copy of the backbone with the weights that were trained with the prompt."""
    tuning = tunings.build(bundle.metadata["backbone"]["options"].get("tuning", {"kind": "all"}))
    try:
        return backbone.with_weights(tuning.open, {n: torch.from_numpy(v) for n, v in bundle.tuned.items()})
    except BackboneError as error:
        raise BundleError(error.what, where=where, fix=error.fix) from None
