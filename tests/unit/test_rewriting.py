"""Texts that are changed before a template is filled: what it reads, what it writes, what is kept in a bundle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.refusals import refused
from trimtab.backbones import Backbone
from trimtab.errors import ConfigError, DataError
from trimtab.registry import readouts, tasks
from trimtab.rendering import Rendering
from trimtab.rewriting import rewritten
from trimtab.tasks.reading import Places
from trimtab.templates import Template
from trimtab.types import Example
from trimtab.verbalizers import Verbalizer

COPA = {"premise": ["no_final_punctuation"], "one": ["lower_first", "no_final_punctuation"]}


@pytest.mark.parametrize(
    ("how", "text", "expected"),
    [
        ("no_final_punctuation", "It rained.", "It rained"),
        ("no_final_punctuation", 'Really?!" ', "Really"),
        ("no_final_punctuation", "A. B", "A. B"),
        ("no_final_punctuation", "...", ""),
        ("lower_first", "It Rained.", "it Rained."),
        ("lower_first", "", ""),
    ],
)
def test_each_change(how: str, text: str, expected: str) -> None:
    assert rewritten({"a": text, "b": text}, {"a": [how]}) == {"a": expected, "b": text}


def test_a_field_that_is_not_there_is_left_alone() -> None:
    fields = {"a": "X."}
    assert rewritten(fields, {"b": ["lower_first"]}) == fields
    assert rewritten(fields, {}) is fields


def test_what_the_template_reads_and_what_is_written_into_it_are_changed(backbone: Backbone) -> None:
    template = Template.parse("{one} or {two}? {premise} {prompt} {answer}.", 2)
    choices = Verbalizer.of({"one": "one", "two": "two"})
    spec = readouts.resolve("cloze_choice", "readout")
    example = Example("a", {"premise": "The sun.", "one": "The moon.", "two": "Cat."}, "one")
    plain = Rendering(template, choices, 64, spec, answer="infill")
    changed = Rendering(template, choices, 64, spec, answer="infill", rewrite=COPA)
    by_hand = Example("a", {"premise": "The sun", "one": "the moon", "two": "Cat."}, "one")
    its, wanted = changed.row(example, backbone.encoder), plain.row(by_hand, backbone.encoder)
    assert its.encoded.ids == wanted.encoded.ids != plain.row(example, backbone.encoder).encoded.ids
    assert its.encoded.targets == wanted.encoded.targets
    assert changed.gold(example) == "the moon"


def test_a_table_checks_what_is_to_be_changed(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": f"{i}.", "label": "ab"[i % 2]}) + "\n" for i in range(40)))
    spec = {"kind": "table", "path": str(path), "label_words": {"a": "yes", "b": "no"}}
    built = tasks.build(tasks.resolve({**spec, "rewrite": {"text": ["no_final_punctuation"]}}, "task"))
    task = built.load(0, Places())
    assert dict(task.rewrite) == {"text": ["no_final_punctuation"]}
    assert task.splits["train"][0].fields["text"].endswith("."), "what is in the file stays as it is"
    assert "rewrite" not in tasks.resolve(spec, "task"), "an option that is off leaves ids as they were"
    with refused(DataError, "there is no column 'txt'", where=str(path), fix="'text'"):
        tasks.build(tasks.resolve({**spec, "rewrite": {"txt": ["lower_first"]}}, "task")).load(0, Places())
    with refused(ConfigError, "no_final_punctuation", where="task.rewrite.text.0"):
        tasks.resolve({**spec, "rewrite": {"text": ["upper"]}}, "task")
    with refused(ConfigError, "only what is compared", where="task.nothing_matches", fix="task.candidate"):
        tasks.build(tasks.resolve({**spec, "nothing_matches": True}, "task"))
