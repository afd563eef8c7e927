"""What is exported says what the run says: logits and greedy writing, over families, by other programs' code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from tests.exported_runs import (
    TEXTS,
    about,
    hidden,
    logits,
    model_folder,
    plain,
    row_of,
    trained,
    until_end,
    written,
)
from trimtab.exporting import Source, export
from trimtab.exporting.vllm_client import SoftPrompt
from trimtab.predictor import Predictor

needs_peft = pytest.mark.skipif(find_spec("peft") is None, reason="loads the folder with PEFT: extra lora")
pytestmark = [  # by PEFT
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Position ids are not supported for parameter efficient tuning:UserWarning"),
]

CAUSAL = ["gpt2", "llama", "gemma3_text", "opt", "gpt_neox", "mistral", "qwen2", "qwen3", "gemma", "gemma2"]
SEQ2SEQ = ["t5", "bart", "t5:own_head", "mt5", "mbart"]
MASKED = ["bert", "roberta", "albert", "xlm-roberta", "camembert", "electra", "distilbert", "modernbert", "deberta-v2"]
ROTARY = ["llama", "gemma3_text", "gpt_neox", "mistral", "qwen2", "qwen3", "gemma", "gemma2"]
INPUT: dict[str, Any] = {"prompt": {"kind": "prompt_tuning", "length": 4}}
DEEP: dict[str, Any] = {"prompt": {"kind": "deep", "length": 4}}
SHIFTED: dict[str, Any] = {"prompt": {"kind": "deep", "length": 4, "shift_positions": True}}
CLOSE = 1e-4


def first(names: list[str], count: int) -> list[Any]:
    """The first few; the others are left to `make test-all`."""
    return [*names[:count], *(pytest.param(name, marks=pytest.mark.slow) for name in names[count:])]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@dataclass
class Case:
    """A run, what was exported of it, and both as they are used."""

    folder: Path
    source: Source
    model: Path
    notes: list[str]

    @property
    def predictor(self) -> Predictor:
        return self.source.predictor

    def tokenized(self, *texts: str, folder: Path | None = None) -> Any:
        """Texts as trimtab.json says, by a plain tokenizer that pads on the right."""
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder or self.model)
        tokenizer.padding_side = "right"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)
        spelled = about(self.folder)
        assert spelled["exact"]
        assert spelled["add_special_tokens"] is False
        filled = [spelled["text"].format(text=text) for text in texts]
        return tokenizer(
            filled, add_special_tokens=False, return_tensors="pt", padding=len(texts) > 1, return_token_type_ids=False
        )


def case(models: Path, tmp_path: Path, name: str, recipe: Mapping[str, Any], to: str, **task: Any) -> Case:
    model = model_folder(models, name)
    source = Source.read(trained(tmp_path, model, recipe, **task))
    found = export([source], to, tmp_path / "out")
    return Case(tmp_path / "out", source, model, found["notes"])


def given(predictor: Predictor, text: str) -> dict[str, Any]:
    """What else an encoder-decoder reads."""
    decoder = row_of(predictor, text).encoded.decoder
    return {"decoder_input_ids": torch.tensor([decoder])} if decoder else {}


def read_at(predictor: Predictor, text: str, length: int) -> int:
    """The position of what a plain model says that the run reads; of causal models the last."""
    encoded = row_of(predictor, text).encoded
    is_causal = predictor.model.backbone.family.is_causal
    return length - 1 if is_causal else encoded.answer_at[0]


def differs_from_bare(predictor: Predictor, text: str) -> bool:
    """Whether the prompt matters: an export that lost it must not pass."""
    row = row_of(predictor, text)
    bare = Predictor(predictor.model, predictor.rendering, None, {})
    return bool((logits(predictor, row) - logits(bare, replace(row, prompt=-1))).abs().max() > 100 * CLOSE)


# PEFT ----------------------------------------------------------------------------------------------------------------


def with_peft(its: Case, base: Any = None) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(base or plain(its.model, its.source), str(its.folder)).eval()


@torch.no_grad()
def check_peft(its: Case) -> None:
    predictor, model = its.predictor, with_peft(its)
    batch = its.tokenized(*TEXTS)
    decoders = [given(predictor, text) for text in TEXTS]
    both = {k: torch.cat([d[k] for d in decoders]) for k in decoders[0]}
    padded = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, **both).logits
    for n, text in enumerate(TEXTS):
        assert differs_from_bare(predictor, text)
        mine = logits(predictor, row_of(predictor, text))
        alone = its.tokenized(text)
        its_own = model(input_ids=alone.input_ids, attention_mask=alone.attention_mask, **decoders[n]).logits[0]
        virtual = its_own.shape[0] - alone.input_ids.shape[1] if not both else 0
        at = read_at(predictor, text, its_own.shape[0])
        torch.testing.assert_close(its_own[at], mine, atol=CLOSE, rtol=CLOSE)
        last = virtual + int(batch.attention_mask[n].sum()) - 1 if not both else at
        torch.testing.assert_close(padded[n, last], mine, atol=CLOSE, rtol=CLOSE)
        start = {"decoder_input_ids": row_of(predictor, text).encoded.opened().decoder} if both else {}
        start = {k: torch.tensor([v]) for k, v in start.items()}
        out = model.generate(
            input_ids=alone.input_ids, attention_mask=alone.attention_mask, max_new_tokens=7, do_sample=False,
            pad_token_id=0, **start,
        )  # fmt: skip  # one more than is compared: BART ends its last token by force
        skipped = start["decoder_input_ids"].shape[1] if both else alone.input_ids.shape[1]
        assert until_end(out[0, skipped:].tolist(), predictor)[:6] == written(predictor, text)


@needs_peft
@pytest.mark.parametrize("name", first([*CAUSAL[:4], *SEQ2SEQ[:2], *CAUSAL[4:], *SEQ2SEQ[2:]], 6))
def test_peft_says_what_an_input_prompt_says(models: Path, tmp_path: Path, name: str) -> None:
    its = case(models, tmp_path, name, INPUT, "peft")
    check_peft(its)
    assert any("padded on the left" in note for note in its.notes)
    adds_bos = bool(its.predictor.model.backbone.encoder.prefix)
    assert (about(its.folder)["leading"][0] >= 0) is adds_bos, "BOS stays before the prompt"


@needs_peft
@pytest.mark.parametrize("name", first(ROTARY, 3))
def test_peft_says_what_a_deep_prompt_says_whose_keys_were_turned(models: Path, tmp_path: Path, name: str) -> None:
    its = case(models, tmp_path, name, DEEP, "peft")
    assert about(its.folder)["turned"]
    if name == "gemma3_text":
        assert any("16 tokens back: exact for texts of up to 12 tokens" in note for note in its.notes)
    if name in ("gemma3_text", "mistral", "gemma2"):
        with_windows(its)
    else:
        check_peft(its)


@torch.no_grad()
def with_windows(its: Case) -> None:
    """Where the cache has a window, what fits into it."""
    model, text = with_peft(its), TEXTS[1]
    batch = its.tokenized(text)
    got = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[0, -1]
    torch.testing.assert_close(got, logits(its.predictor, row_of(its.predictor, text)), atol=CLOSE, rtol=CLOSE)


@needs_peft
@pytest.mark.parametrize("name", first(["gpt2", "opt", "llama"], 2))
def test_peft_says_what_a_deep_prompt_says_behind_which_the_text_stands(
    models: Path, tmp_path: Path, name: str
) -> None:
    its = case(models, tmp_path, name, SHIFTED, "peft")
    assert not about(its.folder)["turned"]
    check_peft(its)


@needs_peft
@pytest.mark.parametrize("name", first(["bert", "roberta", "electra"], 2))
def test_peft_has_the_hidden_states_of_encoders_with_a_deep_prompt(models: Path, tmp_path: Path, name: str) -> None:
    its = case(models, tmp_path, name, SHIFTED, "peft")
    model = with_peft(its, transformers.AutoModel.from_pretrained(its.model).eval())
    batch = its.tokenized(*TEXTS)
    with torch.no_grad():
        padded = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
    for n, text in enumerate(TEXTS):
        row = row_of(its.predictor, text)
        mine = hidden(its.predictor, row)
        torch.testing.assert_close(padded[n, row.encoded.answer_at[0]], mine, atol=CLOSE, rtol=CLOSE)


@needs_peft
def test_peft_is_wrong_about_rows_padded_on_the_left_which_is_what_the_note_says(models: Path, tmp_path: Path) -> None:
    its = case(models, tmp_path, "llama", INPUT, "peft")
    batch, text = its.tokenized(TEXTS[0]), TEXTS[0]
    pads = torch.zeros(1, 3, dtype=torch.long)
    with torch.no_grad():
        got = with_peft(its)(
            input_ids=torch.cat([pads, batch.input_ids], 1), attention_mask=torch.cat([pads, batch.attention_mask], 1)
        ).logits[0, -1]
    assert (got - logits(its.predictor, row_of(its.predictor, text))).abs().max() > 100 * CLOSE


# Words of a plain model ----------------------------------------------------------------------------------------------


@torch.no_grad()
def check_baked(its: Case) -> None:
    predictor, model = its.predictor, plain(its.folder, its.source)
    old = predictor.model.backbone.embedding_weight.shape[0]
    for text in TEXTS:
        assert differs_from_bare(predictor, text)
        batch, mine = its.tokenized(text, folder=its.folder), logits(predictor, row_of(predictor, text))
        got = model(**batch, **given(predictor, text)).logits[0]
        got = got[read_at(predictor, text, len(got))]
        torch.testing.assert_close(got[: len(mine)], mine, atol=CLOSE, rtol=CLOSE)
        new = about(its.folder)["ids"]
        assert got[new].max() < got.max(), "a new word must never win"
        assert got.softmax(0)[new].max() < 1 / old
    if model.can_generate():
        start = row_of(predictor, TEXTS[0]).encoded.opened().decoder
        batch = its.tokenized(TEXTS[0], folder=its.folder)
        decoder = {"decoder_input_ids": torch.tensor([start])} if start else {}
        out = model.generate(**batch, **decoder, max_new_tokens=7, do_sample=False, pad_token_id=0)
        tokens = out[0, len(start) or batch.input_ids.shape[1] :].tolist()
        assert until_end(tokens, predictor)[:6] == written(predictor, TEXTS[0])


INSIDE = {"template": "{prompt:1} {text} was {prompt:3} {answer}"}


@pytest.mark.parametrize(
    "name", first([*CAUSAL[:3], *SEQ2SEQ[:3], *MASKED[:3], *CAUSAL[3:], *SEQ2SEQ[3:], *MASKED[3:]], 9)
)
def test_a_baked_model_says_what_the_run_says(models: Path, tmp_path: Path, name: str) -> None:
    check_baked(case(models, tmp_path, name, INPUT, "baked", **INSIDE))


def test_prompts_in_the_decoder_are_baked(models: Path, tmp_path: Path) -> None:
    template = {"template": "{prompt:2} {text} {decoder_prompt:2} {answer}"}
    its = case(models, tmp_path, "t5", INPUT, "baked", **template)
    found, predictor = about(its.folder), its.predictor
    assert found["decoder"] == found["tokens"][2:]
    model = plain(its.folder, its.source)
    encoded = row_of(predictor, TEXTS[0]).encoded
    start, *rest = [encoded.decoder[0], *encoded.decoder[3:]]
    decoder = torch.tensor([[start, *found["ids"][2:], *rest]])
    with torch.no_grad():
        got = model(**its.tokenized(TEXTS[0], folder=its.folder), decoder_input_ids=decoder).logits[0]
    mine = logits(predictor, row_of(predictor, TEXTS[0]))
    torch.testing.assert_close(got[encoded.answer_at[0], : len(mine)], mine, atol=CLOSE, rtol=CLOSE)


# Keys and values -----------------------------------------------------------------------------------------------------


def cache_of(folder: Path, model: Any) -> Any:
    """The files as a cache of transformers, by nothing but their names."""
    files = sorted(folder.glob("layer_*.safetensors"))
    cache = transformers.DynamicCache(config=model.config)
    for layer, path in enumerate(files):
        its = load_file(path)
        cache.update(its["key"][None], its["value"][None], layer)
    return cache


@torch.no_grad()
def check_kv(its: Case) -> None:
    predictor, model, position = its.predictor, plain(its.model, its.source), about(its.folder)["text_position"]
    for text in TEXTS[:2]:
        batch, mine = its.tokenized(text), logits(predictor, row_of(predictor, text))
        cache, ids = cache_of(its.folder, model), batch.input_ids
        length = about(its.folder)["length"]
        mask = torch.ones(1, length + ids.shape[1], dtype=torch.long)
        at = position + torch.arange(ids.shape[1])[None]
        out = model(input_ids=ids, past_key_values=cache, attention_mask=mask, position_ids=at)
        torch.testing.assert_close(out.logits[0, -1], mine, atol=CLOSE, rtol=CLOSE)
        said = [int(out.logits[0, -1].argmax())]
        for n in range(5):
            mask = torch.ones(1, mask.shape[1] + 1, dtype=torch.long)
            place = torch.tensor([[position + ids.shape[1] + n]])
            out = model(torch.tensor([said[-1:]]), past_key_values=cache, attention_mask=mask, position_ids=place)
            said.append(int(out.logits[0, -1].argmax()))
        assert until_end(said, predictor) == written(predictor, text)


@pytest.mark.parametrize("name", first(["gpt2", "llama", "gemma3_text", "opt", "gpt_neox", "qwen3", "gemma"], 4))
def test_keys_and_values_computed_once_say_what_an_input_prompt_says(models: Path, tmp_path: Path, name: str) -> None:
    its = case(models, tmp_path, name, INPUT, "kv")
    found = about(its.folder)
    assert found["text_position"] == found["length"] == 4 + len(its.predictor.model.backbone.encoder.prefix)
    check_kv(its)


@pytest.mark.parametrize("name", first(["gpt2", "llama", "gpt_neox", "opt", "gemma"], 3))
def test_keys_and_values_say_what_a_deep_prompt_says(models: Path, tmp_path: Path, name: str) -> None:
    its = case(models, tmp_path, name, DEEP, "kv")
    is_rotary = name not in ("gpt2", "opt")
    assert about(its.folder)["text_position"] == (4 if is_rotary else 0)
    assert any("give positions explicitly" in note for note in its.notes) is not is_rotary
    check_kv(its)


def test_a_deep_prompt_with_an_input_prompt_becomes_one_prefix(models: Path, tmp_path: Path) -> None:
    recipe = {"prompt": {**DEEP["prompt"], "input": {"kind": "prompt_tuning", "length": 2}}}
    its = case(models, tmp_path, "llama", recipe, "kv")
    assert about(its.folder)["length"] == 4 + 1 + 2, "keys and values, BOS, input prompt"
    check_kv(its)


@pytest.mark.parametrize("name", ["bert", "t5", "bart"])
def test_files_of_encoders_and_encoder_decoders_hold_what_was_trained(models: Path, tmp_path: Path, name: str) -> None:
    its = case(models, tmp_path, name, DEEP, "kv")
    sites = its.source.bundle.metadata["prompt"]["layers"]
    for site, layers in sites.items():
        for n, layer in enumerate(layers):
            got = load_file(its.folder / f"{'layer' if site == 'self' else site}_{layer:03}.safetensors")
            trained_values = torch.from_numpy(its.source.bundle.tensors[f"deep.{site}"][n])
            torch.testing.assert_close(torch.stack([got["key"], got["value"]]).transpose(1, 2), trained_values)
    assert len(list(its.folder.glob("*.safetensors"))) == sum(map(len, sites.values()))


# vLLM ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", first(["gpt2", "llama", "gemma3_text", "opt", "qwen3", "gpt_neox", "gemma"], 4))
def test_the_vectors_that_the_client_sends_say_what_the_run_says(models: Path, tmp_path: Path, name: str) -> None:
    its = case(models, tmp_path, name, INPUT, "vllm", template="{prompt} {text} : {answer}")
    model, client = plain(its.model, its.source), SoftPrompt(its.model, its.folder)
    for text in TEXTS:
        vectors = client.embeds(text=text)
        with torch.no_grad():
            got = model(inputs_embeds=vectors[None]).logits[0, -1]
            out = model.generate(inputs_embeds=vectors[None], max_new_tokens=6, do_sample=False, pad_token_id=0)
        mine = logits(its.predictor, row_of(its.predictor, text))
        torch.testing.assert_close(got, mine, atol=CLOSE, rtol=CLOSE)
        assert until_end(out[0].tolist(), its.predictor) == written(its.predictor, text)
