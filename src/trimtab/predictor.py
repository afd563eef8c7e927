"""A prompt in use: text in, labels and scores out. The same code scores a run after training and a reloaded bundle."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import isnan
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from trimtab.errors import BackboneError, ConfigError, DataError
from trimtab.grading import Grader, Graders, Grading
from trimtab.model import PromptedModel
from trimtab.predictions import Evaluation, OfTask, Prediction, Records
from trimtab.prompt_table import PromptTable
from trimtab.readouts import choosing, of_one_task
from trimtab.registry import readouts
from trimtab.rendering import Rendering
from trimtab.tasks.tagged import with_words
from trimtab.types import Example, Row

MAX_TOKENS = 8192


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
