"""What may be asked of a server, whatever it is reached by: answers to tasks, and texts that are written on.

The same `Predictor` that answers alone renders the rows here and makes answers of what the engine finds; in between the
rows stand in mixed batches. Tokenizers are not made for several threads, so one lock guards rendering and reading.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, final

from trimtab.backbones import Backbone
from trimtab.chat import Chat, write_chat
from trimtab.errors import BackboneError, DataError, TemplateError
from trimtab.model import PromptedBackbone, stacked
from trimtab.predictions import Prediction, Records
from trimtab.predictor import Predictor
from trimtab.serving.catalog import Asker, Catalog
from trimtab.serving.choosing import Choice
from trimtab.serving.engine import Engine, Pace
from trimtab.serving.fitting import fitted
from trimtab.serving.refusals import TooLargeError
from trimtab.serving.tickets import Ended, Order, Scoring, Seat, Writing
from trimtab.storage import Bundle
from trimtab.templates import Template
from trimtab.types import Encoded, Example, Fill, Row

NEW_TOKENS = 16
"""How much is written where nobody says."""

Message = tuple[str, str]
"""Who speaks, and what is said."""


@dataclass(frozen=True)
class Limits:
    """What one request may bring.

    Attributes:
        inputs: texts.
        rows: sequences, where long texts are read in parts.
    """

    inputs: int = 128
    rows: int = 4096


@dataclass(frozen=True)
class Question:
    """Inputs that were handed to the engine.

    Attributes:
        futures: what is waited for.
        conclude: makes answers of their results.
    """

    futures: Sequence[Future[Any]]
    conclude: Callable[[Sequence[Any]], Records]

    def records(self, timeout: float | None = None) -> Records:
        """Wait for the answers."""
        return self.conclude([future.result(timeout) for future in self.futures])

    def cancel(self) -> None:
        """Nobody waits any more."""
        for future in self.futures:
            future.cancel()


@final
class Service:
    """One backbone and its prompts.

    Args:
        backbone: frozen; nobody else may use it meanwhile.
        pace: of the engine.
        limits: of one request.
    """

    def __init__(self, backbone: Backbone, pace: Pace = Pace(), limits: Limits = Limits()) -> None:  # noqa: B008
        is_folder = Path(backbone.name).exists()
        self.name = Path(backbone.name).name if is_folder else backbone.name  # where it lies is nobody's business
        self.backbone, self.limits = replace(backbone, name=self.name), limits
        self.engine = Engine(self.backbone, pace)
        self.catalog = Catalog(self.engine, self.name)
        self.pen = threading.Lock()
        self._chat_template = lru_cache(maxsize=256)(self._chat_of_roles)

    def add(self, name: str, bundle: Bundle, where: str = "bundle") -> None:
        """Serve a prompt; it is tried on a text first, in the engine's thread.

        Raises:
            ConfigError, TakenError: the name.
            BundleError: the bundle, see `trimtab.serving.fitting`.
        """
        self.catalog.check_name(name)

        def tried() -> Predictor:
            with self.pen:
                return fitted(bundle, self.backbone, where)

        self.catalog.add(name, self.engine.call(tried).result())

    def remove(self, name: str, patience: float = 30.0) -> None:
        """Serve a prompt no longer; errors as `Catalog.remove`."""
        self.catalog.remove(name, patience)

    def close(self, patience: float | None = None) -> None:
        """Answer what was asked, then stop."""
        self.engine.close(patience)

    # Tasks -----------------------------------------------------------------------------------------------------------

    def ask(self, name: str, inputs: Sequence[Example | Mapping[str, Any] | str], bare: bool = False) -> Question:
        """Put inputs to a task; waiting is the caller's.

        Args:
            bare: ask the bare model, with the same words and label words but without the prompt.

        Raises:
            TrimtabError: no such task, too many inputs, or as `Predictor.predict`.
        """
        if len(inputs) > self.limits.inputs:
            what = f"a request has at most {self.limits.inputs} inputs, got {len(inputs)}."
            raise TooLargeError(what, where="inputs", fix="Send several requests; they share batches all the same.")
        with self.catalog.using(name) as loaded:
            asker = loaded.bare if bare else loaded.prompted
            question = self._put(asker, inputs)
            for future in question.futures:
                self.catalog.hold(loaded, future)
            return question

    def _put(self, asker: Asker, inputs: Sequence[Any]) -> Question:
        predictor = asker.predictor
        with self.pen:
            examples = predictor.examples(inputs)
            if asker.in_passes:
                return self._in_passes(predictor, examples)
            writes = predictor.model.readout.writes
            rows = predictor.open_rows(examples) if writes else predictor.rows(examples)
            if len(rows) > self.limits.rows:
                what = f"the texts are read in {len(rows)} parts, at most {self.limits.rows} are."
                raise TooLargeError(what, where="inputs", fix="Send shorter texts.")
            seats = asker.seats(rows)
        if writes:
            return self._written(predictor, examples, seats)
        return self._scored(predictor, examples, rows, self.engine.score(seats))

    def _scored(
        self, predictor: Predictor, examples: Sequence[Example], rows: Sequence[Row], scoring: Scoring
    ) -> Question:
        def conclude(values: Sequence[Any]) -> Records:
            with self.pen:
                return predictor.conclude(examples, rows, stacked(values[0])) if rows else []

        return Question([scoring.future], conclude)

    def _written(self, predictor: Predictor, examples: Sequence[Example], seats: Sequence[Seat]) -> Question:
        readout, encoder = predictor.model.readout, self.backbone.encoder
        order = Order(readout.new_tokens, encoder.end_id if readout.end_id is None else readout.end_id)
        for seat in seats:
            self._check_room(seat, order.new_tokens)
        writings = [self.engine.write(Writing(seat, order)) for seat in seats]

        def conclude(values: Sequence[Ended]) -> Records:
            with self.pen:
                texts = [encoder.decode(ended.ids) for ended in values]
                return predictor.rendering.grader.named(examples, texts)

        return Question([w.future for w in writings], conclude)

    def _in_passes(self, predictor: Predictor, examples: Sequence[Example]) -> Question:
        """A readout that looks several times has the model to itself."""

        def alone() -> Records:
            with self.pen:
                return predictor.predict(examples)

        def conclude(values: Sequence[Any]) -> Records:
            found: Records = values[0]
            return found

        return Question([self.engine.call(alone)], conclude)

    # Texts -----------------------------------------------------------------------------------------------------------

    def write(
        self,
        model: str,
        text: str | Sequence[Message],
        new_tokens: int | None = None,
        choice: Choice = Choice(),  # noqa: B008
        told: Callable[[int], None] | None = None,
    ) -> tuple[Writing, int]:
        """Let a causal model write on.

        Args:
            model: a prompt, whose template is filled with the text, or the backbone, which reads it as it is.
            text: a text, or messages.
            new_tokens: at most; by default as the task's readout has it, else 16.
            told: as of `Order`.

        Returns:
            What is being written, and how many tokens were read.

        Raises:
            UnknownError: no such prompt.
            BackboneError: the backbone does not write, or has no room for as much.
            DataError, TemplateError: a text that the prompt cannot be asked with.
        """
        if not self.backbone.family.is_causal:
            raise BackboneError(
                f"{self.backbone.name!r} is no causal model, so it does not write texts on.",
                where="model",
                fix="Use the routes of the tasks.",
            )
        if model == self.name:
            with self.pen:
                seat, most = self._bare_seat(text), NEW_TOKENS
            return self._begin(seat, most if new_tokens is None else new_tokens, choice, told)
        with self.catalog.using(model) as loaded:
            predictor = loaded.prompted.predictor
            with self.pen:
                rows = predictor.open_rows([_only_field(predictor, text, model)])
            if rows[0].encoded.answer_slot < 0:
                what = f"the prompt {model!r} has no place where an answer is written: its answers are read by a head."
                raise DataError(what, where="model", fix="Use the route of the task.")
            seat = replace(loaded.prompted.seats(rows)[0], reader=None)
            most = predictor.model.readout.new_tokens or NEW_TOKENS
            writing, read = self._begin(seat, most if new_tokens is None else new_tokens, choice, told)
            self.catalog.hold(loaded, writing.future)
            return writing, read

    def _begin(
        self, seat: Seat, new_tokens: int, choice: Choice, told: Callable[[int], None] | None
    ) -> tuple[Writing, int]:
        self._check_room(seat, new_tokens)
        order = Order(new_tokens, self.backbone.encoder.end_id, choice, told)
        return self.engine.write(Writing(seat, order)), len(seat.row.encoded.opened())

    def _check_room(self, seat: Seat, new_tokens: int) -> None:
        row = replace(seat.row, encoded=seat.row.encoded.opened(), prompt=-1 if seat.table is None else 0)
        PromptedBackbone(self.backbone).check_room(row, seat.table, new_tokens)

    def _bare_seat(self, text: str | Sequence[Message]) -> Seat:
        """What the bare model reads: a text as it is, or messages as its chat template writes them."""
        encoder = self.backbone.encoder
        if isinstance(text, str):
            ids = (*encoder.prefix, *encoder.encode(text).ids)
            if not ids:
                raise TemplateError("the text is empty, and nothing stands before it.", where="prompt")
            return Seat(Row(Encoded(ids, (), (len(ids) - 1,), answer_slot=len(ids))), None)
        template = self._chat_template(tuple(role for role, _ in text))
        fields = {f"message{i}": said for i, (_, said) in enumerate(text)}
        whole = template.render(fields, encoder, 10**9, "messages", Fill((), (-1,), is_last=True))
        return Seat(Row(whole), None)

    def _chat_of_roles(self, roles: tuple[str, ...]) -> Template:
        messages = [{"role": role, "content": f"{{message{i}}}"} for i, role in enumerate(roles)]
        chat = Chat.model_validate({"chat": messages})
        answered = chat.chat[-1].role == "assistant"
        if answered:
            raise TemplateError(
                "the last message is the assistant's, so there is nothing to answer.",
                where="messages",
                fix="End with a message of the role user.",
            )
        return Template.parse(write_chat(chat, self.backbone.encoder), 0, is_verbatim=True)

    def text(self, ids: Sequence[int]) -> str:
        """The text behind tokens, white space at its ends and all."""
        with self.pen:
            return str(self.backbone.encoder.tokenizer.decode(list(ids), skip_special_tokens=True))

    # What there is ---------------------------------------------------------------------------------------------------

    def describe(self, name: str) -> dict[str, Any]:
        """What a task wants and gives; errors as `Catalog.get`."""
        loaded = self.catalog.get(name)
        predictor = loaded.prompted.predictor
        readout, table, meta = predictor.model.readout, predictor.table, predictor.metadata
        with self.pen:
            fields = predictor.rendering.wanted(self.backbone.encoder)
        return {
            "name": name,
            "fields": fields,
            "classes": list(predictor.classes),
            "answer": predictor.rendering.answer,
            "readout": predictor.rendering.readout["kind"],
            "writes": readout.writes,
            "has_bare": not readout.trains,
            "prompt": meta["prompt"].get("kind"),
            "virtual_tokens": predictor.rendering.template.length,
            "deep_layers": {site: len(d.layers) for site, d in table.deep.items()} if table is not None else {},
            "template": predictor.rendering.template.source,
        }


def _only_field(predictor: Predictor, text: str | Sequence[Message], name: str) -> Example:
    """A text as the one field of a task."""
    if not isinstance(text, str):
        users = [said for role, said in text if role == "user"]
        if len(users) != 1 or len(text) != 1:
            raise DataError(
                f"the prompt {name!r} was trained on single texts, so it takes one message of the role user; got "
                f"{len(text)}: {', '.join(role for role, _ in text) or 'none'}.",
                where="messages",
                fix="Send the text as one message, or name the backbone as the model.",
            )
        text = users[0]
    wanted = predictor.rendering.wanted(predictor.model.backbone.encoder)
    if len(wanted) != 1:
        what = f"the task {name!r} reads several fields ({', '.join(wanted)}), and one text was given."
        raise DataError(what, where="model", fix=f"Use the route of the task, tasks/{name}.")
    return predictor.examples([{wanted[0]: text}])[0]


def classes_of(records: Records, name: str) -> list[Prediction]:
    """Answers that have a score for each class.

    Raises:
        DataError: the task has others.
    """
    found = [r for r in records if isinstance(r, Prediction) and r.scores]
    if len(found) < len(records):
        raise DataError(f"the answers of {name!r} are no classes with scores.", where="task", fix=f"Use tasks/{name}.")
    return found
