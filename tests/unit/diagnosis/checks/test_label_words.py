"""Label words: tokens, forms and likeness."""

from __future__ import annotations

from pathlib import Path

from tests.contract.toy_runs import toy_run
from tests.unit.diagnosis.cases import only, seen, toy_case
from trimtab.backbones import Backbone
from trimtab.diagnosis.case import Case


def words(folder: Path, backbone: Backbone, positive: str, negative: str, **options: object) -> Case:
    return toy_case(folder, backbone, label_words={"positive": positive, "negative": negative}, **options)  # type: ignore[arg-type]


def test_single_tokens_are_well(tmp_path: Path, backbone: Backbone) -> None:
    found = only("label_words", words(tmp_path, backbone, "yes", "no"))
    assert (found.severity, found.numbers["tokens"]) == ("ok", {"yes": 1, "no": 1})


def test_words_of_several_tokens_beside_single_ones_are_a_note(tmp_path: Path, backbone: Backbone) -> None:
    found = only("label_words", words(tmp_path, backbone, "goodly", "no"))
    assert (found.severity, found.numbers["tokens"]["goodly"]) == ("note", 2)
    assert "good ##ly" in found.seen
    p = toy_run(tmp_path, backbone, {"readout": {"kind": "cloze", "length_normalized": True}},
                label_words={"positive": "goodly", "negative": "no"})  # fmt: skip
    assert only("label_words", Case(p)).severity == "ok"


def test_a_word_that_begins_another_is_found(tmp_path: Path, backbone: Backbone) -> None:
    found = {f.severity: f for f in seen("label_words", words(tmp_path, backbone, "good", "goodly"))}
    assert found["warning"].numbers == {"short": "good", "long": "goodly"}
    assert "task.label_words.negative" in found["warning"].advice


def test_a_word_that_misses_its_space_is_found(tmp_path: Path, causal: Backbone) -> None:
    """Byte-level pieces: " good" is one, "good" is four."""
    unspaced = {
        f.severity: f
        for f in seen("label_words", words(tmp_path, causal, "good", "bad", template="{prompt} {text}:{answer}"))
    }
    assert unspaced["warning"].numbers == {"longer": ["good", "bad"]}
    assert "a space before {answer}" in unspaced["warning"].advice
    spaced = only("label_words", words(tmp_path, causal, "good", "bad", template="{prompt} {text}: {answer}"))
    assert spaced.severity == "ok"


def test_written_answers_that_sound_alike_are_found(tmp_path: Path, causal: Backbone) -> None:
    p = toy_run(tmp_path, causal, {"readout": {"kind": "text"}}, template="{prompt} {text}: {answer}",
                label_words={"positive": "good", "negative": "the good"})  # fmt: skip
    assert [f.numbers["word"] for f in seen("label_words", Case(p)) if "word" in f.numbers] == ["the good"]


def test_heads_have_no_words(tmp_path: Path, backbone: Backbone) -> None:
    assert seen("label_words", toy_case(tmp_path, backbone, {"readout": {"kind": "head"}})) == []
