"""A prompt in use: inputs of several sorts, scores, and refusals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.made_bundles import bundle
from tests.unit.refusals import refused
from trimtab.backbones import Backbone
from trimtab.errors import BackboneError, ConfigError, DataError, TemplateError
from trimtab.loading import from_bundle
from trimtab.predictor import Predictor
from trimtab.prompt_table import PromptTable
from trimtab.rendering import Rendering
from trimtab.storage import Bundle
from trimtab.types import Example


@pytest.fixture
def predictor(backbone: Backbone) -> Predictor:
    return from_bundle(bundle(backbone), backbone)


# Inputs


def test_texts_mappings_and_examples_give_the_same_answer(predictor: Predictor) -> None:
    example = Example("e", {"text": "the film is good"}, "positive")
    by_text, by_mapping, by_example = predictor.predict(
        ["the film is good", {"id": 7, "text": "the film is good", "other": None}, example]
    )
    assert by_text.scores == pytest.approx(by_mapping.scores, abs=1e-5)
    assert by_text.scores == pytest.approx(by_example.scores, abs=1e-5)
    assert [p.id for p in (by_text, by_mapping, by_example)] == ["1", "7", "e"]
    assert [p.gold for p in (by_text, by_mapping, by_example)] == [None, None, "positive"]


def test_scores_are_probabilities_and_the_label_is_the_largest(predictor: Predictor) -> None:
    predictions = predictor.predict(["good", "bad", "the cat and the dog"])
    for p in predictions:
        assert sum(p.scores.values()) == pytest.approx(1)
        assert p.scores[p.label] == max(p.scores.values())
        assert tuple(p.scores) == predictor.classes == ("positive", "negative")
    logits = predictor.score([Example("1", {"text": "good"}, None)])
    assert logits.softmax(1)[0].tolist() == pytest.approx(list(predictions[0].scores.values()), abs=1e-5)


def test_one_input_has_one_answer_and_many_come_in_batches(predictor: Predictor) -> None:
    texts = ["good", "bad film", "the cat", "old", "a dog"]
    expected = predictor.predict(texts)
    assert predictor("bad film").scores == pytest.approx(expected[1].scores, abs=1e-5)
    read: list[str] = []

    def endless() -> Iterator[str]:
        for text in cycle(texts):
            read.append(text)
            yield text

    stream = predictor.predict_each(endless(), batch_size=2)
    got = [next(stream) for _ in range(5)]
    assert [p.id for p in got] == ["1", "2", "3", "4", "5"]
    assert len(read) == 6, "no more is read than a batch"
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.scores == pytest.approx(theirs.scores, abs=1e-5)
    assert [p.id for p in predictor.predict_each([{"id": "x", "text": "good"}, "bad"])] == ["x", "2"]
    assert list(predictor.predict_each([])) == []


def test_the_bare_predictor_asks_the_model_without_the_prompt(predictor: Predictor, backbone: Backbone) -> None:
    bare = predictor.bare
    assert bare.table is None
    assert bare.rendering.template.length == 0
    plain = Predictor(predictor.model, replace(predictor.rendering, template=bare.rendering.template), None, {})
    assert bare("the film").scores == pytest.approx(plain("the film").scores, abs=1e-6)
    assert bare("the film").scores != pytest.approx(predictor("the film").scores, abs=1e-3)
    head = {"inputs": np.zeros((3, 32), np.float32), "head.weight": np.ones((2, 32), np.float32)}
    trained = from_bundle(Bundle(bundle(backbone, readout={"kind": "head"}).metadata, head), backbone)
    what = "the readout 'head' has a head that was trained with the prompt"
    with refused(ConfigError, what, where="readout.kind", fix="Ask with the prompt"):
        trained.bare  # noqa: B018


@pytest.mark.parametrize("value", [3e38, -3e38])
def test_scores_that_are_infinite_are_refused(backbone: Backbone, value: float) -> None:
    head = {
        "inputs": np.zeros((3, 32), np.float32),
        "head.weight": np.full((2, 32), value, np.float32),
        "head.bias": np.full(2, value, np.float32),
    }
    broken = from_bundle(Bundle(bundle(backbone, readout={"kind": "head"}).metadata, head), backbone)
    with refused(BackboneError, "are not finite", where="input 1", fix="float32"):
        broken.predict(["good", "bad"])


def test_no_inputs_give_no_predictions(predictor: Predictor) -> None:
    assert predictor.predict([]) == []


def test_an_answer_does_not_depend_on_its_batch_mates(predictor: Predictor) -> None:
    texts = ["good", "the cat and the dog in the sea is old", "bad film"]
    together = predictor.predict(texts)
    for i, text in enumerate(texts):
        assert predictor.predict([text])[0].scores == pytest.approx(together[i].scores, abs=1e-5)


def test_the_prompt_changes_the_answer_and_without_it_the_bare_model_speaks(backbone: Backbone) -> None:
    one = from_bundle(bundle(backbone), backbone)
    other = from_bundle(Bundle(bundle(backbone).metadata, {"inputs": -bundle(backbone).prompt}), backbone)
    assert one.predict(["good"])[0].scores != pytest.approx(other.predict(["good"])[0].scores, abs=1e-3)
    rendering = Rendering(one.rendering.template.without_prompt(), one.rendering.verbalizer, 32)
    bare = Predictor(one.model, rendering, None, {}).score([Example("1", {"text": "good"}, None)])
    encoder = backbone.encoder
    ids = rendering.template.render({"text": "good"}, encoder, 32, "x").ids
    logits = backbone.model(torch.tensor([ids])).logits[0, ids.index(encoder.mask_id)]
    yes, good, no = encoder.tokenizer.convert_tokens_to_ids(["yes", "good", "no"])
    expected = torch.stack([(logits[yes] + logits[good]) / 2, logits[no]])
    torch.testing.assert_close(bare[0], expected)


def test_evaluation_counts_gold_labels(predictor: Predictor) -> None:
    texts = ["good film", "bad song", "old sea"]
    answers = [p.label for p in predictor.predict(texts)]
    flipped = {"positive": "negative", "negative": "positive"}
    gold = [answers[0], flipped[answers[1]], answers[2]]
    evaluation = predictor.evaluate(
        [Example(str(i), {"text": t}, g) for i, (t, g) in enumerate(zip(texts, gold, strict=True))]
    )
    assert evaluation.metrics["accuracy"] == pytest.approx(2 / 3)
    assert [p.gold for p in evaluation.predictions] == gold


def test_a_missing_field_is_refused_with_the_place(predictor: Predictor) -> None:
    what = "the field 'text' is missing; the template needs text"
    with refused(DataError, what, where="input 2"):
        predictor.predict(["good", {"txt": "good"}])
    with refused(DataError, what, where="t.csv:9"):
        predictor.predict([Example("e", {"txt": "good"}, None, "t.csv:9")])


def test_plain_text_for_several_fields_is_refused(backbone: Backbone) -> None:
    two = from_bundle(bundle(backbone, "{prompt} {a} and {b} {answer}"), backbone)
    with refused(DataError, "plain text cannot fill several fields (a, b)", where="input 1"):
        two.predict(["good"])
    absent, empty = two.predict([{"a": "good", "b": None}, {"a": "good", "b": ""}])
    assert absent.scores == pytest.approx(empty.scores, abs=1e-5)


@pytest.mark.parametrize(
    ("label", "what"),
    [(None, "the example has no label"), ("neutral", "the label 'neutral' is not one of positive, negative")],
)
def test_an_example_without_a_known_label_cannot_be_evaluated(predictor: Predictor, label: Any, what: str) -> None:
    good = Example("a", {"text": "good"}, "positive")
    with refused(DataError, what, where="t.csv:3", fix="`predict` needs no labels"):
        predictor.evaluate([good, Example("b", {"text": "good"}, label, "t.csv:3")])
    with refused(DataError, what, where="input 2", fix="`predict` needs no labels"):
        predictor.evaluate([good, Example("b", {"text": "good"}, label)])


@pytest.mark.parametrize("given", ["bad \ud83d", {"text": "good \ude00"}, {"text": "good", "id": "\ud83d"}])
def test_half_of_a_surrogate_pair_is_refused_with_the_place(predictor: Predictor, given: Any) -> None:
    with refused(DataError, "a text holds half of a surrogate pair, such as \\ud83d alone", where="input 2"):
        predictor.predict(["good \U0001f600", given])
    with refused(DataError, "half of a surrogate pair", where="t.jsonl:7"):
        predictor.predict([Example("a", {"text": "\ud83d"}, None, "t.jsonl:7")])


def test_scores_that_are_not_numbers_are_refused_with_the_place(predictor: Predictor) -> None:
    assert predictor.table is not None
    broken = replace(predictor, table=PromptTable(predictor.table.inputs * torch.nan))
    what = f"the scores of {predictor.model.backbone.name!r} are not finite in torch.float32"
    with refused(BackboneError, what, where="input 1", fix="float32"):
        broken.predict(["good"])
    with refused(BackboneError, what, where="t.csv:2", fix="float32"):
        broken.predict([Example("a", {"text": "good"}, None, "t.csv:2")])


@pytest.mark.parametrize("text", ["", "  \n"])
def test_empty_text_is_refused(predictor: Predictor, text: str) -> None:
    with refused(TemplateError, "all fields of the template (text) are empty", where="2"):
        predictor.predict(["good", text])


def test_long_and_odd_text_is_answered(predictor: Predictor) -> None:
    assert len(predictor.predict(["good " * 3000, "😀 größe 中文", "[MASK] [SEP] {prompt}", "\u200b"])) == 4
