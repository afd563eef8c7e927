"""A prompt in use: inputs of several sorts, scores, and refusals of bundles for another model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny import save_tiny_model, tiny_backbone
from tests.unit.refusals import refused
from trimtab import predictor as module
from trimtab.backbones import Backbone
from trimtab.errors import BackboneError, BundleError, ConfigError, DataError, TemplateError
from trimtab.predictor import Predictor, Rendering, from_bundle, load
from trimtab.storage import Bundle, read_bundle, write_bundle
from trimtab.templates import Template
from trimtab.types import Example, PromptTable
from trimtab.verbalizers import Verbalizer

WORDS = {"positive": ["yes", "good"], "negative": ["no"]}


def bundle(backbone: Backbone, template: str = "{prompt} {text} {answer}.", **changes: Any) -> Bundle:
    """A bundle with a random prompt of three vectors."""
    metadata = {
        "prompt": {"kind": "prompt_tuning", "shape": [3, 32]},
        "backbone": {
            "model": backbone.name,
            "fingerprint": backbone.fingerprint,
            "options": {
                "dtype": "float32",
                "revision": None,
                "trust_remote_code": False,
                "attention": "auto",
                "quantization": None,
            },
        },
        "tokenizer": {"fingerprint": backbone.tokenizer_fingerprint},
        "task": {"template": template, "truncate": [], "max_length": 32, "label_words": WORDS},
        "readout": {"kind": "cloze", "combine": "mean"},
        **changes,
    }
    prompt = torch.randn(3, 32, generator=torch.Generator().manual_seed(0)).numpy()
    return Bundle({"schema": 1, **metadata}, {"inputs": prompt})


def test_a_bundle_that_asks_to_run_code_does_so_only_if_the_user_says_so(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking = bundle(backbone)
    asking.metadata["backbone"]["options"]["trust_remote_code"] = True
    asking.metadata["backbone"]["model"] = "somebody/model"
    write_bundle(tmp_path / "b", asking)
    loaded: list[Any] = []
    monkeypatch.setattr(module, "load_backbone", lambda name, **options: loaded.append(options) or backbone)
    monkeypatch.delenv("TRIMTAB_TRUST_REMOTE_CODE", raising=False)
    what, fix = "code that comes with 'somebody/model', and asks to run it", "--trust-remote-code"
    for place in (None, "elsewhere"):
        with refused(BundleError, what, where="backbone.options.trust_remote_code", fix=fix):
            load(tmp_path / "b", backbone=place)
    assert not loaded
    load(tmp_path / "b", trust_remote_code=True)
    monkeypatch.setenv("TRIMTAB_TRUST_REMOTE_CODE", "0")
    with refused(BundleError, what, where="backbone.options.trust_remote_code", fix=fix):
        load(tmp_path / "b")
    monkeypatch.setenv("TRIMTAB_TRUST_REMOTE_CODE", "1")
    load(tmp_path / "b")
    assert [options["trust_remote_code"] for options in loaded] == [True, True]
    load(tmp_path / "b", backbone=backbone)
    assert len(loaded) == 2, "a backbone that is loaded already runs nothing"


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


def test_a_readout_that_does_not_exist_or_lacks_an_option_is_refused(backbone: Backbone) -> None:
    with refused(ConfigError, "there is no such key", where="readout.zzz", fix="combine"):
        from_bundle(bundle(backbone, readout={"kind": "cloze", "zzz": 1}), backbone)
    with refused(ConfigError, "there is no readout 'x'", where="readout.kind", fix="cloze"):
        from_bundle(bundle(backbone, readout={"kind": "x"}), backbone)


@pytest.mark.parametrize("text", ["", "  \n"])
def test_empty_text_is_refused(predictor: Predictor, text: str) -> None:
    with refused(TemplateError, "all fields of the template (text) are empty", where="2"):
        predictor.predict(["good", text])


def test_long_and_odd_text_is_answered(predictor: Predictor) -> None:
    assert len(predictor.predict(["good " * 3000, "😀 größe 中文", "[MASK] [SEP] {prompt}", "\u200b"])) == 4


def test_a_rendered_row_knows_its_class_or_that_it_has_none(backbone: Backbone) -> None:
    rendering = Rendering(Template.parse("{prompt} {text} {answer}", 3), Verbalizer.of(WORDS), 32)
    for label, index in (("positive", 0), ("negative", 1), (None, -1), ("other", -1)):
        assert rendering.row(Example("1", {"text": "x"}, label), backbone.encoder).label == index


# Loading


def test_a_saved_bundle_gives_identical_scores(tmp_path: Path, predictor: Predictor, backbone: Backbone) -> None:
    write_bundle(tmp_path / "b", bundle(backbone))
    texts = ["good film", "the old sea is bad"]
    loaded = load(tmp_path / "b", device="cpu")
    again = load(str(tmp_path / "b"), backbone=backbone)
    expected = [p.scores for p in predictor.predict(texts)]
    assert [p.scores for p in loaded.predict(texts)] == expected
    assert [p.scores for p in again.predict(texts)] == expected


def test_a_moved_model_can_be_named(tmp_path: Path, tiny_folder: Path, backbone: Backbone) -> None:
    lost = bundle(backbone)
    lost.metadata["backbone"]["model"] = "/no/such/model"
    write_bundle(tmp_path / "b", lost)
    with refused(BackboneError, "there is no folder '/no/such/model'", where="backbone.model", fix="nano-masked"):
        load(tmp_path / "b", device="cpu")
    moved = shutil.copytree(tiny_folder, tmp_path / "moved")
    assert load(tmp_path / "b", backbone=str(moved), device="cpu").predict(["good"])


def test_the_dtype_is_that_of_training_unless_asked(tmp_path: Path, backbone: Backbone) -> None:
    write_bundle(tmp_path / "b", bundle(backbone))
    assert load(tmp_path / "b", device="cpu").model.backbone.dtype == torch.float32
    low = load(tmp_path / "b", device="cpu", dtype="bfloat16")
    assert low.model.backbone.dtype == torch.bfloat16
    assert low.table is not None
    assert low.table.inputs.dtype == torch.float32


def test_a_bundle_for_another_backbone_is_refused(tmp_path: Path, backbone: Backbone) -> None:
    other = tiny_backbone(save_tiny_model(tmp_path / "other", seed=1))
    write_bundle(tmp_path / "b", bundle(backbone))
    what = (
        f"the prompt was trained on another backbone than {other.name!r} (fingerprint {backbone.fingerprint[:12]}, got "
    )
    with refused(BundleError, what, where=str(tmp_path / "b"), fix=f"Use the backbone of {backbone.name!r}"):
        load(tmp_path / "b", backbone=other)


def test_a_bundle_for_another_tokenizer_is_refused(tmp_path: Path, tiny_folder: Path, backbone: Backbone) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "other"))
    definition = json.loads((folder / "tokenizer.json").read_text())
    definition["normalizer"]["lowercase"] = False
    (folder / "tokenizer.json").write_text(json.dumps(definition))
    other = tiny_backbone(folder)
    assert other.fingerprint == backbone.fingerprint
    what = f"the prompt was trained on another tokenizer than {other.name!r}"
    with refused(BundleError, what, where="bundle", fix="Use the tokenizer of"):
        from_bundle(bundle(backbone), other)


@pytest.mark.parametrize("damage", ["truncated", "flipped header"])
def test_a_damaged_prompt_is_refused_before_the_backbone_is_loaded(
    tmp_path: Path, backbone: Backbone, damage: str
) -> None:
    lost = bundle(backbone)
    lost.metadata["backbone"]["model"] = "/no/such/model"
    write_bundle(tmp_path, lost)
    path = tmp_path / "prompt.safetensors"
    raw = path.read_bytes()
    path.write_bytes(raw[:-4] if damage == "truncated" else raw[:12] + b"\xff" + raw[13:])
    with refused(BundleError, "truncated or corrupted", where=str(path), fix="Copy it again"):
        load(tmp_path)


def test_a_missing_bundle_is_refused(tmp_path: Path) -> None:
    with refused(BundleError, "there is no such folder", where=str(tmp_path / "b"), fix="trimtab ls runs"):
        load(tmp_path / "b")


def test_a_loaded_prompt_is_that_of_the_bundle(tmp_path: Path, backbone: Backbone) -> None:
    write_bundle(tmp_path, bundle(backbone))
    loaded = load(tmp_path, backbone=backbone)
    assert isinstance(loaded.table, PromptTable)
    assert np.array_equal(loaded.table.inputs[0].numpy(), read_bundle(tmp_path).prompt)
    assert loaded.metadata["task"]["label_words"] == WORDS


def test_a_part_of_a_prompt_that_nobody_knows_is_refused(backbone: Backbone) -> None:
    known = bundle(backbone)
    strange = replace(known, tensors={**known.tensors, "sidecar": np.zeros((3, 32), np.float32)})
    what = "a part 'sidecar', which this version of trimtab knows no use for"
    with refused(BundleError, what, where="bundle.json", fix="provenance.environment"):
        from_bundle(strange, backbone)
