"""How a task's text is written so that a plain tokenizer gives the ids that were trained with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.contract.toy_runs import toy_run
from tests.exported_runs import row_of
from tests.tiny import tiny_backbone
from tests.tiny_chats import TOKENIZERS, save_tiny_chat_model
from tests.unit.exporting.conftest import RunOf
from tests.unit.refusals import refused
from trimtab.errors import BundleError
from trimtab.exporting import Source
from trimtab.exporting.spelling import Spelling, leading, spell
from trimtab.templates import Template
from trimtab.training.runs import run_pack

INPUT = {"prompt": {"kind": "prompt_tuning", "length": 4}}


def test_all_that_is_constant_leads(run_of: RunOf) -> None:
    source = Source.read(run_of("llama", INPUT, template="{prompt:1} the cat : {prompt:3} {text} was {answer}"))
    predictor = source.predictor
    ahead, encoded = leading(source, "PEFT"), row_of(predictor, "a dog").encoded
    assert ahead.ids[:2] == (1, -1), "BOS, then the first virtual token"
    assert ahead.ids[-3:] == (-1, -1, -1)
    with torch.no_grad():
        prompted = predictor.model.prompted
        embeds = prompted.entered(prompted.collate([row_of(predictor, "a dog")]), predictor.table)[1]
    assert embeds is not None
    assert torch.equal(ahead.vectors, embeds[0, : len(ahead.ids)])
    rest = spell(predictor, begin=len(ahead.ids))
    assert rest.is_exact
    tokenizer = predictor.model.backbone.encoder.tokenizer
    got = tokenizer(rest.text.format(text="a dog"), add_special_tokens=False)["input_ids"]
    assert got == list(encoded.opened().ids[len(ahead.ids) :])


def test_fields_that_are_changed_first_are_told(run_of: RunOf) -> None:
    rewrite = {"text": ["lower_first", "no_final_punctuation"]}
    predictor = Source.read(run_of("bert", INPUT, rewrite=rewrite)).predictor
    spelled = spell(predictor, ["[UNK]"] * 4)
    assert spelled.is_exact, "probes are changed as rows are"
    assert spelled.as_json()["rewrite"] == rewrite
    assert spelled.notes == ["fields are changed before they enter the text (text): see rewrite."]


def test_a_field_before_a_virtual_token_is_refused(run_of: RunOf) -> None:
    source = Source.read(run_of("gpt2", INPUT, template="{prompt:1} {text} was {prompt:3} {answer}"))
    with refused(BundleError, "{text} stands before a virtual token", where=str(source.path), fix="baked"):
        leading(source, "PEFT")


def test_virtual_tokens_in_a_decoder_are_refused(run_of: RunOf) -> None:
    source = Source.read(run_of("t5", INPUT, template="{prompt:2} {text} {decoder_prompt:2} {answer}"))
    with refused(BundleError, "virtual tokens stand in the decoder", where=str(source.path), fix="baked"):
        leading(source, "PEFT")


def test_braces_of_the_template_stay_braces(run_of: RunOf) -> None:
    predictor = Source.read(run_of("bert", INPUT, template="{prompt} {{{text}}} was {answer}")).predictor
    spelled = spell(predictor, ["[UNK]"] * 4)
    assert "{{" in spelled.text
    assert "{a dog}" in spelled.text.format(text="a dog")


def test_what_no_text_can_say_is_not_called_exact(run_of: RunOf) -> None:
    predictor = Source.read(run_of("gpt2")).predictor
    other = Source.read(run_of("llama")).predictor.model.backbone.encoder.tokenizer
    spelled = spell(predictor, begin=4, tokenizer=other)
    assert not spelled.is_exact
    assert "compare ids" in spelled.notes[0]
    assert spelled.as_json() == {"text": spelled.text, "add_special_tokens": False, "exact": False}
    assert spell(predictor, begin=4).notes == []


def test_names_of_fields_that_format_would_take_apart_are_not_called_exact(run_of: RunOf) -> None:
    predictor = Source.read(run_of("gpt2")).predictor
    template = Template.parse("{prompt} {a.b} {answer}", 4)
    other = replace(predictor, rendering=replace(predictor.rendering, template=template))
    assert spell(other, begin=4) == Spelling(" {a.b}", False)


@pytest.mark.parametrize("kind", ["chatml", "inst", "roles"])
def test_chats_are_spelled_with_their_special_tokens(tmp_path: Path, kind: str) -> None:
    model = save_tiny_chat_model(tmp_path / "model", TOKENIZERS[kind]())
    template = {"chat": [{"role": "user", "content": "{prompt} {text}"}]}
    recipe = {**INPUT, "training": {"max_steps": 1, "evaluations": 1}}
    prepared = toy_run(tmp_path, tiny_backbone(model), recipe, n=4, template=template)
    source = Source.read(Path(run_pack([prepared], tmp_path / "runs")[0]["run"]))
    ahead = leading(source, "vLLM")
    assert ahead.ids[-4:] == (-1,) * 4
    assert ahead.ids[0] >= 0, "markup stands before the prompt"
    assert spell(source.predictor, begin=len(ahead.ids)).is_exact
