"""What vLLM is sent: bodies that its documented schema takes, and what it reads out of them."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.contract.tiny_families import bart, build, save
from tests.contract.toy_runs import toy_run
from tests.exported_runs import TEXTS, about, row_of, trained
from tests.tiny import tiny_backbone
from tests.tiny_chats import TOKENIZERS, save_tiny_chat_model
from tests.unit.exporting.conftest import INPUT, RunOf
from tests.unit.refusals import refused
from trimtab.errors import BackboneError, BundleError
from trimtab.exporting import Source, export
from trimtab.exporting.vllm import embedding_tensor
from trimtab.exporting.vllm_client import SoftPrompt, encoded
from trimtab.training.runs import run_pack

EMBEDS = {"type": "string", "contentEncoding": "base64", "pattern": "^[A-Za-z0-9+/]+={0,2}$"}
COMMON = {"model": {"type": "string"}, "max_tokens": {"type": "integer"}, "temperature": {"type": "number"}}
COMPLETION = {
    "type": "object",
    "required": ["model", "prompt_embeds"],
    "properties": {**COMMON, "prompt_embeds": EMBEDS},
    "additionalProperties": False,
}
"""POST /v1/completions, as docs.vllm.ai/features/prompt_embeds has it: one key more than OpenAI's."""

PART = {
    "oneOf": [
        {
            "type": "object",
            "required": ["type", "data"],
            "properties": {"type": {"const": "prompt_embeds"}, "data": EMBEDS},
            "additionalProperties": False,
        },
        {
            "type": "object",
            "required": ["type", "text"],
            "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
            "additionalProperties": False,
        },
    ]
}
CHAT = {
    "type": "object",
    "required": ["model", "messages"],
    "properties": {
        **COMMON,
        "messages": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["role", "content"],
                "properties": {"role": {"type": "string"}, "content": {"type": "array", "items": PART}},
                "additionalProperties": False,
            },
        },
        "add_generation_prompt": {"type": "boolean"},
        "continue_final_message": {"type": "boolean"},
        "chat_template_kwargs": {"type": "object"},
    },
    "additionalProperties": False,
}
"""POST /v1/chat/completions with prompt_embeds content parts (vllm-project/vllm pull request 40720)."""


def as_the_server_reads(data: str, hidden_size: int) -> torch.Tensor:
    """What vLLM does with a payload, as documented: strict base64, `torch.load` of weights alone, a tensor of floats,
    two-dimensional, as wide as the model."""
    tensor = torch.load(io.BytesIO(base64.b64decode(data, validate=True)), weights_only=True, map_location="cpu")
    assert isinstance(tensor, torch.Tensor)
    assert tensor.is_floating_point()
    assert tensor.dim() == 2
    assert tensor.shape[1] == hidden_size
    return tensor


def test_a_completion(run_of: RunOf, tmp_path: Path) -> None:
    source = Source.read(run_of("llama"))
    found = export([source], "vllm", tmp_path / "out")
    assert found["files"] == ["client.py", "prompt.safetensors", "trimtab.json"]
    assert any("reads pickles from its clients" in note for note in found["notes"])
    client = SoftPrompt(source.bundle.metadata["backbone"]["model"], tmp_path / "out", "served")
    body = json.loads(json.dumps(client.completion(text=TEXTS[0], max_tokens=8)))
    jsonschema.validate(body, COMPLETION)
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("served", 8, 0.0)
    vectors = as_the_server_reads(body["prompt_embeds"], 32)
    predictor = source.predictor
    row = row_of(predictor, TEXTS[0])
    with torch.no_grad():
        embeds = predictor.model.prompted.entered(predictor.model.prompted.collate([row]), predictor.table)[1]
    assert embeds is not None
    assert torch.equal(vectors, embeds[0])
    assert len(encoded(vectors[:1].expand(3, -1))) < 3000, "a view is sent without what it is a view of"


def test_only_safetensors_and_text_are_on_disk(run_of: RunOf, tmp_path: Path) -> None:
    export([Source.read(run_of("gpt2"))], "vllm", tmp_path / "out")
    for path in (tmp_path / "out").iterdir():
        assert path.suffix in (".py", ".json", ".safetensors")
        assert not path.read_bytes().startswith((b"PK", b"\x80")), "neither a zip nor a pickle"
    assert set(load_file(tmp_path / "out" / "prompt.safetensors")) == {"leading", "prompt"}


def test_gemmas_scale_is_stored_and_used(run_of: RunOf, tmp_path: Path) -> None:
    source = Source.read(run_of("gemma"))
    export([source], "vllm", tmp_path / "out")
    stated = about(tmp_path / "out")["embedding"]
    assert stated == {"tensor": "model.embed_tokens.weight", "scale": pytest.approx(32**0.5)}
    assert about(tmp_path / "out")["spaced_answer"] is True


# Chats ---------------------------------------------------------------------------------------------------------------


def chat_source(tmp_path: Path, template: dict[str, Any], kind: str = "chatml") -> tuple[Source, Path]:
    model = save_tiny_chat_model(tmp_path / "model", TOKENIZERS[kind]())
    recipe = {**INPUT, "training": {"max_steps": 1, "evaluations": 1}}
    prepared = toy_run(tmp_path, tiny_backbone(model), recipe, n=4, template=template)
    return Source.read(Path(run_pack([prepared], tmp_path / "runs")[0]["run"])), model


CHATS = [
    {"chat": [{"role": "user", "content": "{prompt} {text}"}]},
    {
        "chat": [
            {"role": "system", "content": "{prompt:1} was it good?"},
            {"role": "user", "content": "{text} {prompt:3}"},
            {"role": "assistant", "content": "it was {answer}"},
        ],
        "options": {"enable_thinking": False},
    },
    {"chat": [{"role": "user", "content": "{text} {{is}} {prompt}"}, {"role": "assistant", "content": "{answer}"}]},
]


@pytest.mark.parametrize("template", CHATS, ids=["plain", "inside", "opened"])
def test_a_chat_has_the_ids_of_the_run_when_each_part_is_as_many_tokens(
    tmp_path: Path, template: dict[str, Any]
) -> None:
    """The server puts a placeholder for each vector into its chat template, and so does this test."""
    source, model = chat_source(tmp_path, template)
    export([source], "vllm", tmp_path / "out")
    client = SoftPrompt(model, tmp_path / "out")
    body = json.loads(json.dumps(client.chat(text=TEXTS[0])))
    jsonschema.validate(body, CHAT)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens([transformers.AddedToken("<|pe|>", special=True, normalized=False)], special_tokens=True)
    vectors, messages = [], []
    for message in body["messages"]:
        text = ""
        for part in message["content"]:
            if part["type"] == "text":
                text += part["text"]
            else:
                vectors.append(as_the_server_reads(part["data"], 32))
                text += "<|pe|>" * len(vectors[-1])
        messages.append({"role": message["role"], "content": text})
    text = tokenizer.apply_chat_template(
        messages,
        tokenize=False,
        add_generation_prompt=body.get("add_generation_prompt", True),
        continue_final_message=body.get("continue_final_message", False),
        **body.get("chat_template_kwargs", {}),
    )
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    encoded_row = row_of(source.predictor, TEXTS[0]).encoded.opened()
    placeholder = tokenizer.convert_tokens_to_ids("<|pe|>")
    wanted = [placeholder if i in encoded_row.slots else token for i, token in enumerate(encoded_row.ids)]
    assert ids == wanted
    assert torch.equal(torch.cat(vectors), torch.from_numpy(source.bundle.prompt))


def test_of_a_prompt_inside_a_chat_only_the_chat_can_be_asked(tmp_path: Path) -> None:
    source, model = chat_source(tmp_path, CHATS[1])
    export([source], "vllm", tmp_path / "out")
    client = SoftPrompt(model, tmp_path / "out")
    with pytest.raises(ValueError, match="inside the text of this prompt: use chat"):
        client.completion(text="a")
    other, model = chat_source(tmp_path / "other", CHATS[0])
    export([other], "vllm", tmp_path / "both")
    assert as_the_server_reads(SoftPrompt(model, tmp_path / "both").completion(text="a")["prompt_embeds"], 32).any()


def test_a_turn_that_the_server_would_open_otherwise_is_no_chat(tmp_path: Path) -> None:
    template = {**CHATS[2], "options": {"enable_thinking": False}}
    source, _ = chat_source(tmp_path, template)
    with refused(BundleError, "{text} stands before a virtual token", where=str(source.path), fix="baked"):
        export([source], "vllm", tmp_path / "out")


# What is refused -----------------------------------------------------------------------------------------------------


def test_what_is_not_decoder_only_is_refused(run_of: RunOf, tmp_path: Path) -> None:
    for name in ("bert", "t5"):
        source = Source.read(run_of(name))
        with refused(BundleError, "vLLM takes vectors for decoder-only", where=str(source.path), fix="baked"):
            export([source], "vllm", tmp_path / "out")


def test_a_prompt_inside_plain_text_is_refused(run_of: RunOf, tmp_path: Path) -> None:
    source = Source.read(run_of("gpt2", INPUT, template="{prompt:1} {text} was {prompt:3} {answer}"))
    with refused(BundleError, "{text} stands before a virtual token", where=str(source.path), fix="baked"):
        export([source], "vllm", tmp_path / "out")


def test_embeddings_that_are_projected_are_refused(run_of: RunOf, tmp_path: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(run_of("opt").parents[1] / "opt")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 64}
    model = build("OPT", tokenizer, "ForCausalLM", **sizes, word_embed_proj_dim=16, init_std=0.3)
    source = Source.read(trained(tmp_path, save(tmp_path / "opt", model, tokenizer), INPUT))
    with refused(BundleError, "projects its embeddings", where=str(source.path), fix="baked"):
        export([source], "vllm", tmp_path / "out")


def test_a_checkpoint_without_such_a_matrix_is_told_of(run_of: RunOf, tmp_path: Path) -> None:
    source, other = Source.read(run_of("gpt2")), bart(tmp_path / "bart")
    save_file({"wte.weight": torch.zeros(397, 32)}, other / "model.safetensors")
    elsewhere = Source(source.name, source.path, source.bundle, str(other))
    with refused(BackboneError, "has no matrix 'wte.weight'", where=str(source.path), fix="baked"):
        embedding_tensor(elsewhere, source.predictor.model.backbone)
