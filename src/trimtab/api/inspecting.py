"""What a recipe amounts to, before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trimtab.api.inputs import Overrides, Recipe, places_of, resolved
from trimtab.backbones.loading import load_encoder
from trimtab.backbones.substitutes import hiding_token
from trimtab.config import RunConfig
from trimtab.registry import regularizers, tasks
from trimtab.rendering import Rendering
from trimtab.tasks import SPLITS, Task
from trimtab.text_encoder import TextEncoder
from trimtab.training.encoders import count_parameters
from trimtab.training.objective import check_regularizers
from trimtab.training.preparing import Asked, ask, check_components, notes_on
from trimtab.types import Encoded, Example, Label, Row


@dataclass(frozen=True)
class Shown:
    """An example as the backbone will see it; `decoder_tokens` are what the decoder of an encoder-decoder reads.

    `special` holds the positions of special tokens, slots and answer aside. `tags` are those of the words that are
    read, one for each of `encoded.answer_at`; none where no words are tagged. `label_words` is empty where no answer
    stands in the template. `part` says which of its
    sequences this is, where an example has several: which choice, which window of a long text. `task` is the name of
    its task, where a run has several.
    """

    example: Example
    encoded: Encoded
    tokens: tuple[str, ...]
    decoder_tokens: tuple[str, ...]
    label_words: tuple[str, ...]
    answer_tokens: int
    special: tuple[int, ...]
    tags: tuple[str, ...]
    part: str = ""
    task: str = ""


@dataclass(frozen=True)
class Preview:
    """What `show` shows. `parameters`: how many are `trained` and `kept`, a trained backbone's own aside."""

    examples: tuple[Shown, ...]
    parameters: dict[str, int]


@dataclass(frozen=True)
class Validation:
    """What a recipe amounts to, found without loading weights or training. `parts` are its tasks, mostly one."""

    config: RunConfig
    task: Task
    parts: tuple[Asked, ...]
    encoder: TextEncoder
    lengths: dict[str, list[int]]
    truncated: dict[str, int]
    dropped_options: tuple[str, ...]
    parameters: dict[str, int]
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Rows, lengths and truncation per split, classes (of several tasks by name), parameters, and the config."""
        classes = {its.task.name: list(its.task.verbalizer.classes) for its in self.parts}
        return {
            "task": self.task.name,
            "classes": classes if self.task.parts else classes[self.task.name],
            "rows": {s: len(n) for s, n in self.lengths.items()},
            "longest": {s: max(n) for s, n in self.lengths.items()},
            "truncated": self.truncated,
            "notes": list(self.notes),
            "positions": max(its.rendering.max_length for its in self.parts),
            "dropped_options": list(self.dropped_options),
            "parameters": self.parameters,
            "config": self.config.as_dict(),
        }


def validate(recipe: Recipe, overrides: Overrides = (), *, data_dir: str | Path | None = None) -> Validation:
    """Check a recipe, its data, template, label words and tokenizer; nothing is trained or written.

    Raises:
        TrimtabError: the first thing that `run` would refuse.
    """
    resolution = resolved(recipe, overrides)
    config = resolution.config
    check_components(config)
    asked_of_it = config.backbone.model_dump(include={"revision", "trust_remote_code", "embed_twice"})
    side = load_encoder(config.backbone.model, **asked_of_it)
    encoder = side.encoder
    task: Task = tasks.build(config.task).load(config.seeds.subset, places_of(data_dir))
    config, asked = ask(config, task, side.family, encoder, side.positions)
    first, *others = asked
    further = [(its.config, its.task) for its in others]
    parameters = count_parameters(first.config, first.task, first.rendering, side, further)
    rendered = [{s: [its.rendering.rows(e, encoder) for e in its.task.splits[s]] for s in SPLITS} for its in asked]
    longest = {s: [_longest(rows) for part in rendered for rows in part[s]] for s in SPLITS}
    flat = [{s: [row for rows in part[s] for row in rows] for s in SPLITS} for part in rendered]
    built = [regularizers.build(spec) for spec in config.regularizers]
    kinds = [its.config.readout["kind"] for its in asked]
    check_regularizers(built, kinds, [r for part in flat for r in part["train"]], hiding_token(encoder) is not None)
    lengths = {s: [len(e) for e in encoded] for s, encoded in longest.items()}
    truncated = {s: sum(e.dropped > 0 for e in encoded) for s, encoded in longest.items()}
    notes = list(task.notes)
    for its, part in zip(asked, flat, strict=True):
        found = notes_on(part, its.rendering, encoder)
        notes += [f"{its.task.name}: {note}" if others else note for note in found]
    told = (resolution.dropped, parameters, tuple(notes))
    return Validation(config, task, tuple(asked), encoder, lengths, truncated, *told)


def show(recipe: Recipe, overrides: Overrides = (), *, n: int = 2, data_dir: str | Path | None = None) -> Preview:
    """The first `n` training examples of each task as the backbone will see them, and how many parameters there are."""
    v = validate(recipe, overrides, data_dir=data_dir)
    return Preview(tuple(s for its in v.parts for s in _shown(v, its, n)), v.parameters)


def _shown(v: Validation, asked: Asked, n: int) -> Iterator[Shown]:
    """The first examples of a task."""
    task, rendering = asked.task, asked.rendering
    plan = rendering.plan(v.encoder)
    answer_tokens = len(plan.fills[0].ids)
    has_slot = plan.needs_slot and any(piece.kind == "answer" for piece in rendering.template.pieces)
    names, specials = task.verbalizer.classes, v.encoder.special_ids.values()
    classes = dict(zip(names, task.verbalizer.words, strict=True))
    of = task.name if v.task.parts else ""
    for example in task.splits["train"][:n]:
        words = classes.get(str(example.label), (str(example.label),)) if has_slot else ()
        if task.answer in ("infill", "match"):
            words = tuple(filter(None, [rendering.gold(example)]))
        for part, label, encoded in _parts(rendering, v.encoder, replace(example, label=None)):
            tags = tuple(names[i] for i in label) if task.answer == "tags" and isinstance(label, tuple) else ()
            tokens, decoder_tokens = (tuple(v.encoder.tokens(ids)) for ids in (encoded.ids, encoded.decoder))
            slot = range(encoded.answer_slot, encoded.answer_slot + answer_tokens)
            other = {*encoded.slots, *encoded.eligible, *slot}
            special = tuple(i for i, t in enumerate(encoded.ids) if t in specials and i not in other)
            yield Shown(example, encoded, tokens, decoder_tokens, words, answer_tokens, special, tags, part, of)


def _parts(rendering: Rendering, encoder: TextEncoder, example: Example) -> list[tuple[str, Label, Encoded]]:
    """The sequences of an example that differ in what they read, what to call them, and their labels."""
    rows = rendering.rows(example, encoder)
    if rendering.plan(encoder).each is not None:
        named = zip(rendering.verbalizer.classes, rows[0].variants, strict=False)
        return [(name, rows[0].label, encoded) for name, encoded in named]
    many = len(rows) > 1
    return [(f"window {i} of {len(rows)}" if many else "", row.label, row.encoded) for i, row in enumerate(rows, 1)]


def _longest(rows: Sequence[Row]) -> Encoded:
    """The longest sequence of an example."""
    return max((variant for row in rows for variant in row.variants), key=len)
