"""Baked models: several tasks in one, words that never win, and models that cannot take any."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests.contract.tiny_families import VARIANTS, gemma, roberta, save
from tests.exported_runs import TEXTS, about, bundle_folder, logits, row_of, trained
from tests.unit.exporting.conftest import INPUT, RunOf
from tests.unit.refusals import refused
from trimtab.errors import BackboneError, BundleError
from trimtab.exporting import Source, baked, export

LONGER = {"prompt": {"kind": "prompt_tuning", "length": 2}, "seed": 5}


def said(folder: Path, source: Source, task: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """What the baked model says of a text, and what the run does."""
    family = source.predictor.model.backbone.family
    model = getattr(transformers, family.auto_class).from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    text = about(folder, task)["text"].format(text=TEXTS[0])
    row = row_of(source.predictor, TEXTS[0])
    with torch.no_grad():
        got = model(**tokenizer(text, add_special_tokens=False, return_tensors="pt")).logits[0]
    mine = logits(source.predictor, row)
    at = len(got) - 1 if family.is_causal else row.encoded.answer_at[0]
    return got[at, : len(mine)].float(), mine.float()


def test_many_tasks_are_baked_into_one_model(run_of: RunOf, tmp_path: Path) -> None:
    sources = [Source.read(run_of("gpt2")), Source.read(run_of("gpt2", LONGER))]
    export(sources, "baked", tmp_path / "out")
    assert about(tmp_path / "out", 0)["tokens"] == [f"<|toy:{i}|>" for i in range(4)]
    assert about(tmp_path / "out", 1)["tokens"] == ["<|toy-2:0|>", "<|toy-2:1|>"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer("a <|toy:0|>")["input_ids"] == tokenizer("a<|toy:0|>")["input_ids"], "no space before a slot"
    for n, source in enumerate(sources):
        got, mine = said(tmp_path / "out", source, n)
        torch.testing.assert_close(got, mine, atol=1e-4, rtol=1e-4)


def test_names_are_given(run_of: RunOf, tmp_path: Path) -> None:
    runs = [run_of("gpt2"), run_of("gpt2", LONGER), run_of("gpt2", LONGER)]
    sources = [Source.read(run, name) for run, name in zip(runs, ("a b/c", "x-2", "x-2"), strict=True)]
    export(sources, "baked", tmp_path / "out")
    assert [about(tmp_path / "out", n)["tokens"][0] for n in range(3)] == ["<|a_b_c:0|>", "<|x-2:0|>", "<|x-3:0|>"]


def test_a_word_that_the_tokenizer_knows_is_refused(run_of: RunOf, tmp_path: Path) -> None:
    export([Source.read(run_of("gpt2"))], "baked", tmp_path / "once")
    run = trained(tmp_path, tmp_path / "once", INPUT)
    with refused(BackboneError, "knows '<|toy:0|>' already", where=str(run), fix="Name the task otherwise"):
        export([Source.read(run)], "baked", tmp_path / "twice")
    export([Source.read(run, "other")], "baked", tmp_path / "twice")


def test_new_words_have_the_mean_of_the_old_rows_where_there_is_no_bias(run_of: RunOf, tmp_path: Path) -> None:
    source = Source.read(run_of("gpt2"))
    export([source], "baked", tmp_path / "out")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    old = source.predictor.model.backbone.embedding_weight
    new = model.lm_head.weight[about(tmp_path / "out")["ids"]]
    torch.testing.assert_close(new, old.mean(0).expand(4, -1))
    assert not model.config.tie_word_embeddings
    assert model.generation_config.suppress_tokens == about(tmp_path / "out")["ids"]
    stored = model.transformer.wte.weight[about(tmp_path / "out")["ids"]]
    assert torch.equal(stored, torch.from_numpy(source.bundle.prompt))


def test_with_a_bias_matrices_stay_one(run_of: RunOf, tmp_path: Path) -> None:
    export([Source.read(run_of("bert"))], "baked", tmp_path / "out")
    model = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out")
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert (model.get_output_embeddings().bias[about(tmp_path / "out")["ids"]] == -1e9).all()
    assert "trimtab" not in (tmp_path / "out" / "config.json").read_text(), "no attention of ours in its config"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_halves(tmp_path: Path, dtype: str) -> None:
    """Gemma's scale is rounded to the weights' dtype, and so is what the rows are divided by."""
    model = gemma(tmp_path / "gemma", "Gemma3", sliding_window=16)
    source = Source.read(trained(tmp_path, model, INPUT))
    export([source], f"baked: {{dtype: {dtype}}}", tmp_path / "out")
    stored = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert stored.dtype == getattr(torch, dtype)
    with torch.no_grad():
        entering = stored.get_input_embeddings()(torch.tensor(about(tmp_path / "out")["ids"])).float()
        module = stored.get_input_embeddings()
        module.weight.fill_(1.0)
        assert baked._scale(module) == float(module(torch.tensor([0]))[0, 0])
    wanted = torch.from_numpy(source.bundle.prompt)
    exact = 2 * torch.finfo(getattr(torch, dtype)).eps
    torch.testing.assert_close(entering, wanted, rtol=1.01 * exact, atol=1e-6)


def test_the_bias_fits_into_half_precision(run_of: RunOf, tmp_path: Path) -> None:
    export([Source.read(run_of("bert"))], "baked: {dtype: float16}", tmp_path / "out")
    model = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out")
    bias = model.get_output_embeddings().bias[about(tmp_path / "out")["ids"]]
    assert bias.isfinite().all()
    assert (bias < -1e4).all()


def test_the_dtype_is_the_runs_or_more(tmp_path: Path) -> None:
    model = roberta(tmp_path / "roberta")
    loaded = transformers.AutoModelForMaskedLM.from_pretrained(model).to(torch.bfloat16)
    save(tmp_path / "half", loaded, transformers.AutoTokenizer.from_pretrained(model))
    run = trained(tmp_path, tmp_path / "half", INPUT)
    export([Source.read(run)], "baked", tmp_path / "out")
    kinds = json.loads((tmp_path / "out" / "config.json").read_text())["dtype"]
    assert kinds == "float32", "the run was computed in float32, though the checkpoint is not stored so"

    def half(metadata: dict[str, Any]) -> None:
        metadata["provenance"]["environment"]["dtype"] = "bfloat16"

    export([Source.read(bundle_folder(run, tmp_path / "bundle", half))], "baked", tmp_path / "less")
    assert json.loads((tmp_path / "less" / "config.json").read_text())["dtype"] == "bfloat16"


def test_rows_that_the_vocabulary_has_to_spare_are_used(tmp_path: Path, run_of: RunOf) -> None:
    base = transformers.AutoModelForCausalLM.from_pretrained(run_of("gpt2").parents[1] / "gpt2")
    tokenizer = transformers.AutoTokenizer.from_pretrained(run_of("gpt2").parents[1] / "gpt2")
    base.resize_token_embeddings(len(tokenizer) + 3, mean_resizing=False)
    source = Source.read(trained(tmp_path, save(tmp_path / "padded", base, tokenizer), INPUT))
    export([source], "baked", tmp_path / "out")
    assert about(tmp_path / "out")["ids"] == [len(tokenizer) + i for i in range(4)]
    got, mine = said(tmp_path / "out", source)
    torch.testing.assert_close(got[: len(tokenizer)], mine[: len(tokenizer)], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("tuning", ["all", "biases"])
def test_a_backbone_that_was_trained_with_the_prompt_is_what_is_baked(
    run_of: RunOf, tmp_path: Path, tuning: str
) -> None:
    training = {"max_steps": 2, "evaluations": 1, "learning_rates": {"backbone": 0.05}}
    recipe = {**INPUT, "backbone": {"tuning": tuning}, "training": training}
    source = Source.read(run_of("bert", recipe))
    export([source], "baked", tmp_path / "out")
    got, mine = said(tmp_path / "out", source)
    torch.testing.assert_close(got, mine, atol=1e-4, rtol=1e-4)
    export([Source.read(run_of("bert"))], "baked", tmp_path / "frozen")
    assert (said(tmp_path / "frozen", source)[0] - mine).abs().max() > 0.01, "its weights matter"
    with refused(BundleError, "others cannot share it", where=str(source.path), fix="Bake it alone"):
        export([source, Source.read(run_of("bert"))], "baked", tmp_path / "both")


def test_lora_is_no_weight_of_the_backbones_own(run_of: RunOf, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    training = {"max_steps": 1, "evaluations": 1, "learning_rates": {"backbone": 0.01}}
    source = Source.read(
        run_of("gpt2", {**INPUT, "backbone": {"tuning": {"kind": "lora", "rank": 2}}, "training": training})
    )
    with refused(BundleError, "no weight of its own", where=str(source.path), fix="tuning=all"):
        export([source], "baked", tmp_path / "out")


def test_runs_of_other_backbones_are_refused(run_of: RunOf, tmp_path: Path) -> None:
    sources = [Source.read(run_of("gpt2")), Source.read(run_of("qwen3"))]
    with refused(BundleError, "trained on another backbone", where=str(sources[1].path), fix="runs of one backbone"):
        export(sources, "baked", tmp_path / "out")


def test_quantized_backbones_are_refused(run_of: RunOf, tmp_path: Path) -> None:
    def change(metadata: dict[str, Any]) -> None:
        metadata["backbone"]["options"]["quantization"] = {"quant_method": "bitsandbytes"}

    source = Source.read(bundle_folder(run_of("gpt2"), tmp_path / "bundle", change))
    with refused(BundleError, "cannot take new rows", where=str(source.path), fix="as it was published"):
        export([source], "baked", tmp_path / "out")


def test_a_head_that_is_not_where_transformers_says_is_refused(tmp_path: Path) -> None:
    run = trained(tmp_path, VARIANTS["deberta-v2:own_head"](tmp_path / "deberta"), INPUT)
    with refused(BackboneError, "not where transformers says", where="backbone.model", fix="with trimtab"):
        export([Source.read(run)], "baked", tmp_path / "out")


def test_a_model_that_answers_otherwise_afterwards_is_refused(
    run_of: RunOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiled(model: Any, *others: Any) -> None:
        model.get_output_embeddings().weight.mul_(2.0)

    monkeypatch.setattr(baked, "_silence", spoiled)
    with refused(BackboneError, "answers otherwise with new words", where="backbone.model", fix="with trimtab"):
        export([Source.read(run_of("gpt2"))], "baked", tmp_path / "out")


class Forgetful:
    """A tokenizer that has no ids to give."""

    def get_vocab(self) -> dict[str, int]:
        return {"a": 0, "b": 2}

    def add_tokens(self, tokens: list[Any], special_tokens: bool) -> int:
        return len(tokens)

    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]:
        return [2 + i for i in range(len(tokens))]


def test_a_tokenizer_that_reuses_ids_is_refused() -> None:
    with refused(BackboneError, "gave new words the ids of old ones", where="run"):
        baked._add(Forgetful(), {"toy": ["<|toy:0|>", "<|toy:1|>"]}, "run")
