"""One word of the vocabulary on every family: what is read, ranks, restrictions, packs, regularizers, bundles."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.conftest import SHARED
from tests.contract.test_backbone_families import MODELS, family_folder, frozen, sides
from tests.contract.toy_runs import model_of
from tests.tiny import LIVES, facts_task, write_jsonl
from tests.unit.refusals import refused
from trimtab import api, predictor
from trimtab.backbones import Backbone, load_backbone
from trimtab.batching import collate
from trimtab.config import resolve
from trimtab.errors import ConfigError, DataError, TemplateError
from trimtab.files import read_json
from trimtab.loading import from_bundle, load
from trimtab.prompt_table import PromptTable
from trimtab.readouts import divergence, mistaken
from trimtab.registry import readouts, regularizers
from trimtab.training.packs import train_pack
from trimtab.training.preparing import Prepared, prepare
from trimtab.training.records import bare_score, make_bundle
from trimtab.training.runs import run_pack
from trimtab.types import Example, Row

__all__ = ["family_folder"]
CAUSAL = ("gpt2", "llama")


def sections(folder: Path, recipe: dict[str, Any] | None = None, length: int = 9, **task: Any) -> dict[str, Any]:
    recipe = dict(recipe or {})
    training = {"learning_rate": 0.01, "max_steps": 4, "batch_size": 8, "evaluations": 2, **recipe.pop("training", {})}
    prompt = {"kind": "prompt_tuning", "length": length, **recipe.pop("prompt", {})}
    return {"task": facts_task(folder, **task), "seed": 1, "prompt": prompt, "training": training, **recipe}


def fact_run(folder: Path, backbone: Backbone, recipe: dict[str, Any] | None = None, **task: Any) -> Prepared:
    length = 6 if backbone.encoder.is_causal else 9
    return prepare(resolve(sections(folder, recipe, length, **task)).config, backbone)


def table_of(backbone: Backbone, length: int, prompts: int = 2) -> PromptTable:
    g = torch.Generator().manual_seed(0)
    return PromptTable(backbone.embedding_rms * torch.randn(prompts, length, backbone.embedding_size, generator=g))


@torch.no_grad()
def by_the_model(backbone: Backbone, row: Row) -> Tensor:
    """The bare model's own logits for the answer, its whole forward pass, head included: at the mask, or the last."""
    ids, decoder = torch.tensor([row.encoded.ids]), torch.tensor([row.encoded.decoder])
    if row.encoded.decoder:
        return backbone.model(input_ids=ids, decoder_input_ids=decoder, use_cache=False).logits[0, -1].float()
    logits = backbone.model(input_ids=ids).logits[0]
    is_mask = ids[0] == backbone.encoder.mask_id
    assert backbone.encoder.is_causal or int(is_mask.sum()) == 1
    return (logits[-1] if backbone.encoder.is_causal else logits[is_mask][0]).float()


@pytest.mark.parametrize("name", MODELS)
def test_words_are_read_on_every_family(name: str, family_folder: Callable[[str], Path], tmp_path: Path) -> None:
    backbone = load_backbone(str(family_folder(name)), dtype="float32")
    p = fact_run(tmp_path, backbone)
    assert p.config.readout["kind"] == "word"
    model, length = model_of(p), 6 if backbone.encoder.is_causal else 9
    bare = replace(p.rendering, template=p.rendering.template.without_prompt())
    row = bare.row(p.task.splits["train"][0], backbone.encoder, prompt=-1)
    own = model.scores(model.collate([row]), None)[0, 0]
    torch.testing.assert_close(own, by_the_model(backbone, row), rtol=1e-4, atol=1e-4)
    table = table_of(backbone, length).detached()
    rows = [replace(r, prompt=i % 2, key=i) for i, r in enumerate(p.rows["train"][:8])]
    with frozen(backbone):
        batch = model.collate(rows)
        together = model.scores(batch, table)
        assert together.shape == (8, 1, len(backbone.embedding_weight))
        model.readout.loss(together, batch.labels).sum().backward()
    assert table.inputs.grad is not None
    assert bool((table.inputs.grad.flatten(1).abs().sum(1) > 0).all())
    for r, its in zip(rows, together, strict=True):
        torch.testing.assert_close(its, model.scores(model.collate([r]), table)[0], rtol=1e-4, atol=1e-4)
    for side in sides(backbone):
        padded = model.scores(collate(rows[:-1], backbone.pad_id, side), table)
        torch.testing.assert_close(padded, together[:-1], rtol=1e-4, atol=1e-4)
    trained = train_pack([p])[0]
    again = from_bundle(make_bundle(trained), backbone)
    found = again.evaluate(p.task.splits["test"])
    kept = again.score(p.task.splits["test"])
    torch.testing.assert_close(kept, model.score_rows(p.rows["test"], again.table, predictor.MAX_TOKENS))
    for prediction, its in zip(found.predictions, kept, strict=True):
        record = prediction.as_json()
        assert record.keys() == {"id", "text", "top", "relation", "gold", "rank"}
        assert record["rank"] == int(its[1])
        assert len(record["top"]) == 10
        assert record["top"][0]["text"] == record["text"]
        assert (record["rank"] == 1) == (record["text"] == record["gold"])
        assert [t["score"] for t in record["top"]] == sorted((t["score"] for t in record["top"]), reverse=True)


# What is kept of scores ----------------------------------------------------------------------------------------------


@pytest.fixture(params=[*CAUSAL, "bert", "t5"])
def any_backbone(request: pytest.FixtureRequest, family_folder: Callable[[str], Path]) -> Backbone:
    return load_backbone(str(family_folder(request.param)), dtype="float32", device="cpu")


def test_ranks_and_top_words_equal_a_sort(any_backbone: Backbone, tmp_path: Path) -> None:
    p = fact_run(tmp_path, any_backbone, vocabulary="relation")
    model, rows = model_of(p), p.rows["test"]
    batch = model.collate(rows)
    scores = torch.randn(len(rows), 1, len(any_backbone.embedding_weight), generator=torch.Generator().manual_seed(5))
    scores = (scores * 2).round() / 2  # many words score the same
    kept = model.readout.condensed(scores, batch)  # type: ignore[attr-defined]
    (words,) = p.rendering.allowed_ids(any_backbone.encoder)
    ids = sorted(i for (i,) in words)
    assert len(ids) == len(set(LIVES.values()))
    for row, its, answer in zip(rows, scores[:, 0].tolist(), model.readout.decide(kept, rows), strict=True):
        order = sorted(ids, key=lambda i: (-its[i], i))
        assert isinstance(row.label, tuple)
        assert answer.rank == order.index(row.label[0]) + 1
        total = sum(math.exp(v) for v in its)
        assert {i for i, _ in answer.top} == set(ids)
        assert [i for i, _ in answer.top] == order
        assert [v for _, v in answer.top] == pytest.approx([math.exp(its[i]) / total for i in order], rel=1e-4)
    full = model.readout.loss(scores, batch.labels)
    torch.testing.assert_close(model.readout.loss(kept, batch.labels), full, rtol=1e-4, atol=1e-5)


def test_entries_without_a_token_are_never_answers(family_folder: Callable[[str], Path], tmp_path: Path) -> None:
    backbone = load_backbone(str(family_folder("bert")), dtype="float32", device="cpu")
    p = fact_run(tmp_path, backbone)
    readout = model_of(p).readout
    readout._allowed[:, len(backbone.encoder.tokenizer) - 3 :] = False  # type: ignore[attr-defined]
    scores = torch.zeros(len(p.rows["dev"]), 1, len(backbone.embedding_weight))
    scores[..., -1] = 9.0
    answers = readout.decide(readout.condensed(scores, model_of(p).collate(p.rows["dev"])), p.rows["dev"])  # type: ignore[attr-defined]
    assert all(i < len(backbone.encoder.tokenizer) - 3 for a in answers for i, _ in a.top)


def test_a_loss_over_the_words_that_may_be_answers(any_backbone: Backbone, tmp_path: Path) -> None:
    full = fact_run(tmp_path, any_backbone, vocabulary="relation")
    own = fact_run(tmp_path, any_backbone, {"readout": {"kind": "word", "loss": "allowed"}}, vocabulary="relation")
    rows = [replace(r, prompt=0) for r in own.rows["dev"]]
    table = table_of(any_backbone, own.rendering.template.length)
    (words,) = own.rendering.allowed_ids(any_backbone.encoder)
    ids = [i for (i,) in words]
    everywhere, restricted = (model_of(p).scores(model_of(p).collate(rows), table) for p in (full, own))
    for row, its, small in zip(rows, everywhere[:, 0], restricted, strict=True):
        assert isinstance(row.label, tuple)
        by_hand = its[ids].logsumexp(0) - its[row.label[0]]
        labels = torch.tensor([row.label])
        torch.testing.assert_close(model_of(own).readout.loss(small[None], labels)[0], by_hand, rtol=1e-4, atol=1e-4)
        assert int(small[0].isfinite().sum()) == len(ids)


def test_perfect_scores_are_one_and_frequent_objects_score_the_baseline(backbone: Backbone, tmp_path: Path) -> None:
    p = fact_run(tmp_path, backbone)
    readout, rows, classes = model_of(p).readout, p.rows["test"], ()
    size = len(backbone.embedding_weight)
    batch = model_of(p).collate(rows)
    gold = torch.nn.functional.one_hot(batch.labels[:, 0], size)[:, None].float()

    def measured(scores: Tensor) -> dict[str, Any]:
        kept = readout.condensed(scores, batch)  # type: ignore[attr-defined]
        return readout.measure(rows, readout.decide(kept, rows), classes)

    perfect = measured(gold)
    assert [perfect[k] for k in readout.metrics] == [1.0] * 4
    assert perfect["p_at_1_not_majority"] == 1.0
    order: dict[str, int] = {}
    for e in sorted(p.task.splits["train"], key=lambda e: e.prior or 0):
        order.setdefault(str(e.label), len(order))
    by_frequency = torch.zeros(len(rows), 1, size)
    for word, place in order.items():
        by_frequency[..., backbone.encoder.answer(word, spaced=True)[0]] = 10.0 - place
    found = measured(by_frequency)
    for name in readout.metrics:
        assert found[name] == pytest.approx(readout.constant(rows, name))
    assert found["p_at_1"] == sum(r.origin.label == "sea" for r in rows) / len(rows)
    assert found["p_at_1_not_majority"] == 0.0
    flat = measured(torch.zeros(len(rows), 1, size))
    assert flat["p_at_1"] == 0.0, "a model that says nothing must not be right"


# P-tuning's released slip --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CAUSAL)
def test_as_released_learns_from_the_token_before_the_last(
    name: str, family_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    backbone = load_backbone(str(family_folder(name)), dtype="float32", device="cpu")
    right, released = (
        fact_run(tmp_path, backbone, {"readout": {"kind": "word", "as_released": switch}}) for switch in (False, True)
    )
    e = released.rows["train"][0].encoded
    assert e.slots[-1] == len(e) - 1, "the last virtual token stands right before the answer"
    assert e.answer_at == (len(e) - 2, len(e) - 1)
    assert right.rows["train"][0].encoded.answer_at == (len(e) - 1,)
    rows = {
        s: [replace(r, prompt=0) for r in p.rows["train"][:4]] for s, p in (("right", right), ("released", released))
    }
    grads, scores = {}, {}
    for which, p in (("right", right), ("released", released)):
        table, model = table_of(backbone, 6, prompts=1).detached(), model_of(p)
        batch = model.collate(rows[which])
        scores[which] = model.scores(batch, table)
        model.readout.loss(scores[which], batch.labels).sum().backward()
        grads[which] = table.inputs.grad
    assert grads["right"] is not None
    assert grads["released"] is not None
    assert bool((grads["right"][0, -1] != 0).any())
    assert bool((grads["released"][0, -1] == 0).all()), "the loss reads a position that does not see it"
    torch.testing.assert_close(scores["released"][:, 1], scores["right"][:, 0], rtol=1e-5, atol=1e-5)
    kept = {w: model_of(p).readout.condensed(scores[w], model_of(p).collate(rows[w]))  # type: ignore[attr-defined]
            for w, p in (("right", right), ("released", released))}  # fmt: skip
    torch.testing.assert_close(kept["right"], kept["released"], rtol=1e-5, atol=1e-5)
    assert train_pack([released])[0].member.status == "done"


def test_as_released_is_for_models_that_read_from_left_to_right(backbone: Backbone, tmp_path: Path) -> None:
    what = "the slip of the released code is in its part for models that read from left to right"
    with refused(TemplateError, what, where="readout.as_released", fix="Leave it out."):
        fact_run(tmp_path, backbone, {"readout": {"kind": "word", "as_released": True}})


# Answers that cannot be ranked ---------------------------------------------------------------------------------------


def with_odd_objects(folder: Path) -> dict[str, Any]:
    section = facts_task(folder)
    rows = [json.loads(line) for line in Path(section["path"]).read_text().splitlines()]
    for i, row in enumerate(rows):
        row["obj_label"] = ("very good", row["obj_label"], "sunning", row["obj_label"])[i % 4]
    write_jsonl(folder / "P1.jsonl", rows)
    return section


def test_objects_of_several_tokens_are_counted_and_teach_nothing(backbone: Backbone, tmp_path: Path) -> None:
    config = resolve({**sections(tmp_path), "task": with_odd_objects(tmp_path)}).config
    p = prepare(config, backbone)
    lost = {s: sum(r.gold in ("very good", "sunning") for r in rows) for s, rows in p.rows.items()}
    assert min(lost.values()) > 0
    assert sum("are no single token of the vocabulary" in note for note in p.notes) == 3
    assert f"In train {lost['train']} of {len(p.rows['train'])} answers" in " ".join(p.notes)
    assert "it teaches nothing" in " ".join(p.notes)
    record = run_pack([p], tmp_path / "runs")[0]
    assert record["notes"] == [*p.task.notes, *p.notes]
    test = record["metrics"]["test"]
    assert test["unreachable"] == lost["test"]
    assert test["rows"] == len(p.rows["test"])
    assert test["p_at_1_all"] == pytest.approx(test["p_at_1"] * (1 - lost["test"] / test["rows"]))
    lines = [json.loads(x) for x in (Path(record["run"]) / "predictions.test.jsonl").read_text().splitlines()]
    assert sum(x["rank"] is None for x in lines) == lost["test"]
    row = next(r for r in p.rows["train"] if r.gold == "sunning")
    table = table_of(backbone, 9).detached()
    model = model_of(p)
    batch = model.collate([replace(row, prompt=0)])
    loss = model.readout.loss(model.scores(batch, table), batch.labels)
    assert loss.tolist() == [0.0]


def test_words_that_cannot_be_answers_are_counted(backbone: Backbone, tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("sea\nSEA\nsun\nvery good\nmoon\ntree\n")
    p = fact_run(tmp_path, backbone, vocabulary=str(tmp_path / "v.txt"))
    assert p.notes == (
        "2 of the 6 words that may be answers are not one token, or the same as another's, and are left out.",
    )
    (tmp_path / "v.txt").write_text("very good\n")
    with refused(TemplateError, "none of the 1 words that may be answers", where="task.vocabulary", fix="full"):
        fact_run(tmp_path, backbone, vocabulary=str(tmp_path / "v.txt"))


# Several relations, runs, packs, regularizers ------------------------------------------------------------------------


def two_relations(folder: Path, **options: Any) -> dict[str, Any]:
    section = facts_task(folder, **options)
    rows = [json.loads(line) for line in Path(section["path"]).read_text().splitlines()]
    turned = dict(zip(LIVES.values(), ("red", "blue", "old", "new"), strict=True))
    write_jsonl(folder / "P2.jsonl", [{**r, "obj_label": turned[r["obj_label"]]} for r in rows])
    templates = {**section["templates"], "P2": "the [X] is very [Y] ."}
    return {**section, "path": str(folder / "{relation}.jsonl"), "relation": ["P1", "P2"], "templates": templates}


def test_one_prompt_for_several_relations_each_with_its_own_words(backbone: Backbone, tmp_path: Path) -> None:
    task = two_relations(tmp_path, vocabulary="relation")
    training = {"max_steps": 60, "epochs": 60, "learning_rate": 0.03}
    p = prepare(resolve({**sections(tmp_path, {"training": training}), "task": task}).config, backbone)
    record = run_pack([p], tmp_path / "runs")[0]
    test = record["metrics"]["test"]
    assert set(test["relations"]) == {"P1", "P2"}
    assert test["p_at_1"] == pytest.approx(sum(r["p_at_1"] for r in test["relations"].values()) / 2)
    assert record["metric"] == "p_at_1"
    assert record["baselines"]["majority"] == pytest.approx(model_of(p).readout.constant(p.rows["test"], "p_at_1"))
    found = load(record["run"], backbone=backbone)
    assert found.evaluate(p.task.splits["test"]).metrics == test
    own = {"P1": set(LIVES.values()), "P2": {"red", "blue", "old", "new"}}
    for prediction in found.predict(list(p.task.splits["test"])):
        assert {t["text"] for t in prediction.as_json()["top"]} == own[prediction.relation]  # type: ignore[union-attr]
    (asked,) = found.predict([{"before": "the cat old is very", "after": ".", "relation": "P2"}])
    assert {t["text"] for t in asked.as_json()["top"]} == own["P2"]
    assert "rank" not in asked.as_json()
    what = "the relation must be known, as each has answers of its own; got 'P3'"
    with refused(DataError, what, where="1", fix="Give the field 'relation'."):
        found.predict([{"before": "the cat", "after": ".", "relation": "P3"}])


@pytest.mark.parametrize("readout", ["full", "allowed"])
def test_a_prompt_learns_what_follows_from_the_subject(readout: str, backbone: Backbone, tmp_path: Path) -> None:
    training = {"max_steps": 200, "epochs": 200, "learning_rate": 0.03, "batch_size": 16, "evaluations": 8}
    recipe = {"training": training, "readout": {"kind": "word", "loss": readout}}
    record = run_pack([fact_run(tmp_path, backbone, recipe, n=96, vocabulary="relation")], tmp_path / "runs")[0]
    test, baselines = record["metrics"]["test"], record["baselines"]
    assert test["p_at_1"] >= 0.8 > baselines["majority"] > 0.3
    assert test["p_at_1_not_majority"] >= 0.6
    assert baselines["no_prompt"] < 0.8
    assert test["mrr"] >= test["p_at_1"]


def test_the_baseline_without_a_prompt_is_the_manual_template(any_backbone: Backbone, tmp_path: Path) -> None:
    recipe = {"training": {"select": "mrr"}}
    p, manual = (fact_run(tmp_path, any_backbone, recipe, template=t) for t in ("p_tuning", "manual"))
    assert bare_score(p) == bare_score(manual)
    rows = [
        replace(p.rendering, template=manual.rendering.template.without_prompt()).row(e, any_backbone.encoder, -1)
        for e in p.task.splits["test"]
    ]
    shares = []
    for row in rows:
        logits = by_the_model(any_backbone, row)[: len(any_backbone.encoder.tokenizer)]
        shares.append(1 / (1 + int((logits > logits[row.label[0]]).sum())))  # type: ignore[index]
    assert bare_score(p) == pytest.approx(sum(shares) / len(shares), rel=1e-3)


def test_a_model_that_reads_from_left_to_right_cannot_be_asked_what_comes_first(
    family_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    backbone = load_backbone(str(family_folder("gpt2")), dtype="float32", device="cpu")
    p = fact_run(tmp_path, backbone, templates={"P1": "[Y] is where the [X] is ."})
    assert bare_score(p) is None
    with refused(TemplateError, "so {answer} must come last", where="task.template", fix="to the end"):
        fact_run(tmp_path, backbone, template="manual", templates={"P1": "[Y] is where the [X] is ."})
    (tmp_path / "P1.jsonl").write_text("")


def test_there_must_be_a_token_to_read(family_folder: Callable[[str], Path], tmp_path: Path) -> None:
    backbone = load_backbone(str(family_folder("gpt2")), dtype="float32", device="cpu")
    p = fact_run(tmp_path, backbone, {"readout": {"kind": "word", "as_released": True}})
    short = replace(p.rendering, template=p.rendering.template.without_prompt())
    with refused(TemplateError, "there is no token before the answer that the model could read", where="x"):
        short.row(Example("x", {"subject": "a"}, None), backbone.encoder, -1)


def test_members_of_a_pack_equal_runs_alone(backbone: Backbone, tmp_path: Path) -> None:
    runs = [fact_run(tmp_path, backbone, {"seed": s, "training": {"max_steps": 5}}, rows=12) for s in (1, 2, 3)]
    assert len({r.id for r in runs}) == 3
    together = train_pack(runs)
    for p, packed in zip(runs, together, strict=True):
        alone = train_pack([p])[0]
        torch.testing.assert_close(
            torch.from_numpy(packed.prompt), torch.from_numpy(alone.prompt), rtol=1e-3, atol=1e-4
        )


@pytest.mark.parametrize("kind", regularizers.kinds())
def test_every_regularizer_steadies_words(kind: str, backbone: Backbone, tmp_path: Path) -> None:
    p = fact_run(tmp_path, backbone, {"regularizers": [{"kind": kind}], "training": {"max_steps": 2}})
    trained = train_pack([p])[0]
    assert trained.member.status == "done"
    assert math.isfinite(trained.member.best_dev["loss"])


def test_divergence_and_mistakes_are_those_of_the_words(backbone: Backbone, tmp_path: Path) -> None:
    p = fact_run(tmp_path, backbone)
    readout, batch = model_of(p).readout, model_of(p).collate(p.rows["dev"])
    size, n = len(backbone.embedding_weight), len(p.rows["dev"])
    one, other = torch.randn(2, n, 1, size, generator=torch.Generator().manual_seed(0))
    by_hand = torch.nn.functional.kl_div(
        other[:, 0].log_softmax(1), one[:, 0].log_softmax(1), reduction="none", log_target=True
    ).sum(1)
    torch.testing.assert_close(divergence(readout, one, other, batch.labels), by_hand, rtol=1e-4, atol=1e-5)
    gold = torch.nn.functional.one_hot(batch.labels[:, 0], size)[:, None].float()
    assert not bool(mistaken(readout, gold, batch.labels).any())
    assert bool(mistaken(readout, -gold, batch.labels).all())


# The control without knowledge ---------------------------------------------------------------------------------------


def test_random_weights_are_others_and_the_same_for_a_seed(
    tiny_folder: Path, backbone: Backbone, tmp_path: Path
) -> None:
    first, same, other = (
        load_backbone(str(tiny_folder), dtype="float32", device="cpu", random_weights=seed) for seed in (3, 3, 4)
    )
    assert first.fingerprint == same.fingerprint != other.fingerprint
    assert backbone.fingerprint not in (first.fingerprint, other.fingerprint)
    assert torch.equal(first.embedding_weight, same.embedding_weight)
    assert not torch.equal(first.embedding_weight, backbone.embedding_weight)
    assert not any(p.requires_grad for p in first.model.parameters())
    recipe = {"backbone": {"model": str(tiny_folder), "dtype": "float32", "random_weights": 3}}
    record = api.run(
        {**sections(tmp_path, {**recipe}), "task": facts_task(tmp_path)}, runs_dir=tmp_path / "runs", device="cpu"
    )
    assert record["fingerprints"]["backbone"] == first.fingerprint
    assert load(record["run"], device="cpu").evaluate(load_task(tmp_path)).metrics == record["metrics"]["test"]
    assert read_json(Path(record["run"]) / "bundle.json")["backbone"]["options"]["random_weights"] == 3


def load_task(folder: Path) -> list[Example]:
    config = resolve(sections(folder)).config
    from trimtab.registry import tasks
    from trimtab.tasks.reading import Places

    return list(tasks.build(config.task).load(config.seeds.subset, Places()).splits["test"])


def test_a_run_without_the_control_keeps_its_id(tmp_path: Path) -> None:
    config = resolve(sections(tmp_path)).config
    assert "random_weights" not in config.as_dict()["backbone"]
    control = resolve({**sections(tmp_path), "backbone": {"model": "nano-masked", "random_weights": 0}}).config
    assert control.as_dict()["backbone"]["random_weights"] == 0
    assert config.pack_key != control.pack_key


def test_random_weights_cannot_be_quantized(tiny_folder: Path) -> None:
    from trimtab.errors import BackboneError

    with refused(BackboneError, "random weights cannot be quantized", where="backbone.random_weights", fix="Leave one"):
        load_backbone(
            str(tiny_folder), random_weights=0, quantization={"quant_method": "torchao", "quant_type": "int8"}
        )


# What goes together --------------------------------------------------------------------------------------------------


def test_words_need_their_readout(backbone: Backbone, tmp_path: Path) -> None:
    with refused(
        ConfigError, "gives no answers of the sort that the task 'toy/P1' has (word)", where="readout.kind", fix="word"
    ):
        fact_run(tmp_path, backbone, {"readout": {"kind": "cloze"}})


GOLDEN = {
    ("bert-base-uncased", "auto"): "[CLS] P P P [MASK] P P P paul mo ##un ##sey P P P [SEP]",
    ("bert-base-uncased", "manual"): "[CLS] P P P P P P P P P paul mo ##un ##sey was born in [MASK] . [SEP]",
    ("gpt2", "auto"): "P P P Paul ĠM oun sey P P P",
    ("gpt2", "manual"): "P P P P P P P P P Paul ĠM oun sey Ġwas Ġborn Ġin",
    ("t5", "auto"): "P P P <extra_id_0> P P P ▁Paul ▁Mo un s e y P P P </s>",
    ("t5", "manual"): "P P P P P P P P P ▁Paul ▁Mo un s e y ▁was ▁born ▁in <extra_id_0> ▁ . </s>",
}


@pytest.mark.shared
@pytest.mark.parametrize(("tokenizer", "template"), GOLDEN)
def test_golden_rendering(tokenizer: str, template: str, shared: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from trimtab.registry import tasks
    from trimtab.tasks.reading import Places
    from trimtab.text_encoder import TextEncoder
    from trimtab.training.preparing import render_task

    folder = next(f for f in (shared / "models" / "tokenizers").iterdir() if tokenizer.split("-")[0] in f.name)
    start, is_causal = (0 if tokenizer == "t5" else None), tokenizer == "gpt2"
    encoder = TextEncoder(AutoTokenizer.from_pretrained(folder), start, is_causal)
    section = tasks.resolve({"kind": "lama/trex", "relation": "P19", "template": template}, "task")
    task = tasks.build(section).load(0, Places(SHARED / "data"))
    length = 6 if is_causal and template == "auto" else 9
    rendering = render_task(task, length, encoder, 64, "word")
    row = rendering.row(task.splits["train"][0], encoder)
    tokens = encoder.tokens(row.encoded.ids)
    for place in row.encoded.slots:
        tokens[place] = "P"
    assert " ".join(tokens) == GOLDEN[tokenizer, template]
    if start is not None:
        assert row.encoded.answer_at == (1,)
        assert encoder.tokens(row.encoded.decoder) == ["<pad>", "<extra_id_0>"]


def test_the_readout_needs_a_mask_where_it_reads_at_one() -> None:
    from tests.unit.test_readouts import Encoder, plan

    class Masked(Encoder):
        is_causal = False

    with refused(TemplateError, "the readout 'word' needs a mask token", where="readout.kind", fix="causal"):
        plan("word", [], Masked(mask=None))
    assert readouts.get("word").kinds == ("word",)  # type: ignore[attr-defined]


def test_the_manual_prompt_is_the_manual_template_asked(backbone: Backbone, tmp_path: Path) -> None:
    recipe = {**sections(tmp_path, {"training": {"select": "mrr"}}, template="manual"), "prompt": {"kind": "manual"}}
    record = run_pack([prepare(resolve(recipe).config, backbone)], tmp_path / "runs")[0]
    assert record["metric"] == "mrr"
    assert record["metrics"]["test"]["mrr"] == pytest.approx(record["baselines"]["no_prompt"])
