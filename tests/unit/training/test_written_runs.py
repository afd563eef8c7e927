"""Runs whose answers are written: what is resolved, what is refused before training, what the run folder holds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.contract.tiny_families import BUILDERS, POSITIONS
from tests.tiny import tiny_backbone, toy_task, write_jsonl, written_task
from tests.unit.refusals import refused
from trimtab import api
from trimtab.backbones import Backbone
from trimtab.config import resolve
from trimtab.errors import ConfigError, TemplateError, TrimtabError
from trimtab.loading import load
from trimtab.metrics import written_answers
from trimtab.predictions import Prediction, Written
from trimtab.training.judging import dev_metrics
from trimtab.training.preparing import Prepared, prepare
from trimtab.training.runs import run_pack
from trimtab.training.settling import concrete

TEXT = "readout={kind: text, max_new_tokens: 6}"


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return tiny_backbone(BUILDERS["llama"](tmp_path_factory.mktemp("models") / "llama"))


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return tiny_backbone(BUILDERS["t5"](tmp_path_factory.mktemp("models") / "t5"))


def recipe_of(task: dict[str, Any], backbone: Backbone) -> dict[str, Any]:
    return {
        "backbone": {"model": backbone.name, "dtype": "float32"},
        "task": task,
        "prompt": {"kind": "prompt_tuning", "length": 3},
        "training": {"learning_rate": 0.01, "max_steps": 4, "batch_size": 8, "evaluations": 2},
    }


def prepared(task: dict[str, Any], backbone: Backbone, *overrides: str) -> Prepared:
    return prepare(resolve(recipe_of(task, backbone), overrides).config, backbone)


# What `auto` means


def test_free_text_is_written_by_whatever_can(tmp_path: Path, llama: Backbone, t5: Backbone) -> None:
    for backbone in (llama, t5):
        p = prepared(written_task(tmp_path), backbone)
        assert p.config.readout == {"kind": "text", "max_new_tokens": 32, "sentinel": "auto", "as_released": False}
        assert p.config.training.select == "exact_match"
        assert {r.gold for r in p.rows["train"]} == {"yes", "not good"}
        assert {r.label for r in p.rows["train"]} == {0}


def test_classes_are_ranked_unless_text_is_asked_for(tmp_path: Path, llama: Backbone) -> None:
    assert prepared(toy_task(tmp_path), llama).config.readout["kind"] == "ranking"
    assert prepared(toy_task(tmp_path), llama).config.training.select == "accuracy"
    assert prepared(toy_task(tmp_path), llama, TEXT).config.training.select == "exact_match"


@pytest.mark.parametrize("select", ["loss", "token_f1", "rouge_l"])
def test_what_selects_is_kept(select: str, tmp_path: Path, llama: Backbone) -> None:
    p = prepared(written_task(tmp_path), llama, TEXT, f"training.select={select}")
    assert p.config.training.select == select


def test_a_config_that_is_concrete_stays_as_it_is(tmp_path: Path, llama: Backbone) -> None:
    p = prepared(written_task(tmp_path), llama)
    assert concrete(p.config, p.task, llama.family.readouts) == p.config


# What is refused


def test_a_masked_model_does_not_write(tmp_path: Path, backbone: Backbone) -> None:
    what, fix = f"the task's answers are free text, and {backbone.name!r} cannot write", "nano-causal"
    with refused(ConfigError, what, where="backbone.model", fix=fix):
        prepared(written_task(tmp_path), backbone)
    what = f"{backbone.name!r} cannot be read by 'text'"
    with refused(ConfigError, what, where="readout.kind", fix="Use cloze or head, or leave it out"):
        prepared(toy_task(tmp_path), backbone, "readout.kind=text")


def test_free_text_cannot_be_ranked(tmp_path: Path, llama: Backbone) -> None:
    what = "the readout 'ranking' gives no answers of the sort that the task 'written' has (text)"
    with refused(ConfigError, what, where="readout.kind", fix="Use text, or leave it out"):
        prepared(written_task(tmp_path), llama, "readout.kind=ranking")


@pytest.mark.parametrize(
    ("given", "select", "known"),
    [
        ("readout.kind=text", "accuracy", "auto, exact_match, token_f1, rouge_l or loss"),
        ("readout.kind=ranking", "exact_match", "auto, accuracy, macro_f1 or loss"),
        ("readout.kind=ranking", "acuracy", "auto, accuracy, macro_f1 or loss"),
    ],
)
def test_a_score_that_the_readout_has_not_cannot_select(
    given: str, select: str, known: str, tmp_path: Path, llama: Backbone
) -> None:
    what = f"the readout '{given.partition('=')[2]}' has no metric '{select}'"
    with refused(ConfigError, what, where="training.select", fix=f"Use {known}"):
        prepared(toy_task(tmp_path), llama, given, f"training.select={select}")


def test_an_answer_longer_than_what_may_be_written_is_refused(tmp_path: Path, llama: Backbone) -> None:
    task = written_task(tmp_path)
    where = f"{tmp_path}/train-written.jsonl:2"
    for most in (1, 2):
        what = "the answer has 3 tokens, its end token included" if most == 2 else "the answer has 2 tokens"
        at = where if most == 2 else f"{tmp_path}/train-written.jsonl:1"
        fix = f"readout.max_new_tokens={3 if most == 2 else 2} or more"
        with refused(TemplateError, what, where=at, fix=fix):
            prepared(task, llama, f"readout={{kind: text, max_new_tokens: {most}}}")
    assert prepared(task, llama, "readout={kind: text, max_new_tokens: 3}")


def test_an_answer_of_nothing_that_the_tokenizer_knows_is_refused(tmp_path: Path, t5: Backbone) -> None:
    task = written_task(tmp_path)
    rows = [{"text": "the cat", "answer": answer} for answer in ("good", "good 中", "中")]
    task["train"] = str(write_jsonl(tmp_path / "odd.jsonl", rows))
    what = "the tokenizer knows nothing of the answer '中'"
    with refused(TemplateError, what, where=f"{tmp_path / 'odd.jsonl'}:3", fix="whose vocabulary has it"):
        prepared(task, t5)


@pytest.mark.parametrize(
    ("kind", "task", "most", "need", "there"),
    [
        ("llama", {}, POSITIONS + 1, POSITIONS + 1, POSITIONS),
        ("llama", {"max_length": 20}, 21, 21, 20),
        ("t5", {}, POSITIONS - 1, POSITIONS + 1, POSITIONS),
        ("t5", {"max_length": 20}, POSITIONS - 1, POSITIONS + 1, POSITIONS),
    ],
)
def test_more_than_the_model_has_room_to_write_is_refused(
    kind: str, task: dict[str, Any], most: int, need: int, there: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    backbone = request.getfixturevalue(kind)
    given = f"readout={{kind: text, max_new_tokens: {most}}}"
    recipe = recipe_of(written_task(tmp_path, **task), backbone)
    what = f"what the model may write needs {need} positions, there are {there}"
    for check in (lambda: prepare(resolve(recipe, [given]).config, backbone), lambda: api.validate(recipe, [given])):
        with refused(ConfigError, what, where="readout.max_new_tokens", fix="Lower it"):
            check()


def test_all_that_may_be_written_has_room(tmp_path: Path, llama: Backbone, t5: Backbone) -> None:
    """Texts are cut so that the longest answer fits; one token more and nothing is left for the text."""
    long = " ".join(["cat"] * 80)
    rows = [{"text": long, "answer": answer} for answer in ("yes", "not very very good")]
    task = {**written_task(tmp_path), "train": str(write_jsonl(tmp_path / "long.jsonl", rows))}
    left = 1 + 3 + 1  # BOS, prompt, one word
    p = prepared(task, llama, f"readout={{kind: text, max_new_tokens: {POSITIONS - left}}}")
    first, second = (r.encoded for r in p.rows["train"])
    assert len(first.opened()) == len(second.opened()) == left
    assert len(second) == len(first) + 3
    p = prepared(task, llama, "readout={kind: text, max_new_tokens: 10}")
    assert {len(r.encoded.opened()) for r in p.rows["train"]} == {POSITIONS - 10}
    assert run_pack([p], tmp_path / "runs")[0]["status"] == "done"
    p = prepared(task, t5, f"readout={{kind: text, max_new_tokens: {POSITIONS - 2}}}")
    assert {len(r.encoded) for r in p.rows["train"]} == {POSITIONS}
    assert run_pack([p], tmp_path / "runs")[0]["status"] == "done"
    what = f"the example needs at least {left + 1} positions"
    with refused(TemplateError, what, where=f"{tmp_path / 'long.jsonl'}:1", fix="let the model write less"):
        prepared(task, llama, f"readout={{kind: text, max_new_tokens: {POSITIONS - left + 1}}}")


# What a run leaves


def test_a_run_folder_of_free_text(tmp_path: Path, llama: Backbone) -> None:
    p = prepared(written_task(tmp_path), llama, TEXT)
    record = run_pack([p], tmp_path / "runs")[0]
    folder = Path(record["run"])
    assert record["metric"] == "exact_match"
    assert set(record["metrics"]["test"]) == {"exact_match", "token_f1", "rouge_l", "rows"}
    assert set(record["metrics"]["dev"]) == {"exact_match", "token_f1", "rouge_l", "rows", "loss"}
    assert record["baselines"]["majority"] == 0.5
    kept = [json.loads(line) for line in (folder / "predictions.test.jsonl").read_text().splitlines()]
    assert [set(k) for k in kept] == [{"id", "text", "gold"}] * 16
    history = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all(set(h["dev"]) == {"loss", "exact_match", "token_f1", "rouge_l"} for h in history)
    bundle = json.loads((folder / "bundle.json").read_text())
    assert bundle["task"]["label_words"] == {}
    assert bundle["readout"] == {"kind": "text", "max_new_tokens": 6, "sentinel": "auto", "as_released": False}
    again = load(folder, backbone=llama).evaluate(p.task.splits["test"])
    assert again.metrics == record["metrics"]["test"]
    assert [x.as_json() for x in again.predictions] == kept
    assert all(type(x) is Written for x in again.predictions)


@pytest.mark.parametrize(("select", "headline"), [("loss", "exact_match"), ("rouge_l", "rouge_l")])
def test_the_score_that_selects_stands_for_a_run(select: str, headline: str, tmp_path: Path, llama: Backbone) -> None:
    task = written_task(tmp_path)
    rows = [{"text": "cat", "answer": a} for a in ("very good", "Very good.", "good", "bad")]
    task["test"] = str(write_jsonl(tmp_path / "few.jsonl", rows))
    p = prepared(task, llama, TEXT, f"training.select={select}")
    record = run_pack([p], tmp_path / "runs")[0]
    assert record["metric"] == headline
    constant = written_answers([r["answer"] for r in rows], ["very good"] * 4)
    assert record["baselines"]["majority"] == constant[headline]
    (line,) = api.ls("runs", runs_dir=tmp_path / "runs")
    assert (line["metric"], line["test"]) == (headline, record["metrics"]["test"][headline])


def test_a_run_folder_of_classes_that_are_written(tmp_path: Path, llama: Backbone) -> None:
    p = prepared(toy_task(tmp_path), llama, TEXT)
    record = run_pack([p], tmp_path / "runs")[0]
    assert record["metric"] == "accuracy"
    test = record["metrics"]["test"]
    assert {"accuracy", "macro_f1", "confusion", "exact_match", "token_f1", "rouge_l", "rows"} <= set(test)
    kept = [json.loads(line) for line in (Path(record["run"]) / "predictions.test.jsonl").read_text().splitlines()]
    assert all(set(k) == {"id", "label", "text", "gold"} for k in kept)
    assert test["accuracy"] == sum(k["label"] == k["gold"] for k in kept) / len(kept)
    assert test.get("unanswered", 0) == sum(k["label"] is None for k in kept)
    again = load(record["run"], backbone=llama).evaluate(p.task.splits["test"])
    assert again.metrics == test
    assert all(type(x) is Prediction for x in again.predictions)


def test_dev_scores_of_what_was_written(tmp_path: Path, llama: Backbone) -> None:
    from tests.contract.toy_runs import model_of

    p = prepared(written_task(tmp_path), llama, TEXT)
    rows, model = p.rows["dev"][:2], model_of(p)
    scores = torch.tensor([[-1.0], [-2.0]])
    assert dev_metrics(model, scores, rows) == {"loss": 1.5}
    found = dev_metrics(model, scores, rows, [rows[0].gold, "x"])
    assert found == {"loss": 1.5, "exact_match": 0.5, "token_f1": 0.5, "rouge_l": 0.5}
    lost = dev_metrics(model, scores * torch.nan, rows, ["", ""])
    assert (lost["exact_match"], lost["loss"] != lost["loss"]) == (0.0, True)


def test_show_and_validate_do_not_give_the_answer_away(tmp_path: Path, llama: Backbone) -> None:
    recipe = recipe_of(written_task(tmp_path), llama)
    found = api.validate(recipe)
    assert found.as_json()["classes"] == []
    assert found.config.readout["kind"] == "text"
    (shown,) = api.show(recipe, n=1).examples
    assert shown.label_words == ("yes",)
    assert shown.answer_tokens == 0
    assert shown.encoded.answer_slot == len(shown.tokens)
    (named,) = api.show(recipe_of(toy_task(tmp_path), llama), [TEXT], n=1).examples
    assert named.label_words == ("yes",)


def test_an_example_without_an_answer_cannot_be_evaluated(tmp_path: Path, llama: Backbone) -> None:
    p = prepared(written_task(tmp_path), llama, TEXT)
    predictor = load(run_pack([p], tmp_path / "runs")[0]["run"], backbone=llama)
    example = replace(p.task.splits["test"][0], label=None)
    with pytest.raises(TrimtabError, match="the example has no label"):
        predictor.evaluate([example])
    (one,) = predictor.predict([example])
    assert one.as_json() == {"id": example.id, "text": one.text}
    assert predictor.score([example]).isnan().all()
    assert predictor.predict([]) == []


def test_an_answer_that_the_model_may_not_write_can_still_be_compared(tmp_path: Path, llama: Backbone) -> None:
    p = prepared(written_task(tmp_path), llama, TEXT)
    predictor = load(run_pack([p], tmp_path / "runs")[0]["run"], backbone=llama)
    for answer in ("good " * 20, "中"):
        example = replace(p.task.splits["test"][0], label=answer)
        assert predictor.evaluate([example]).metrics["exact_match"] == 0.0
