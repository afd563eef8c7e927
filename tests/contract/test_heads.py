"""Readouts with a head of their own, on every family: what is trained beside the prompt, read by whose row it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.contract.test_backbone_families import MODELS, family_folder, frozen, sides
from tests.contract.toy_runs import LENGTH, toy_run
from tests.unit.refusals import refused
from trimtab import predictor
from trimtab.backbones import Backbone, load_backbone
from trimtab.batching import collate
from trimtab.errors import ConfigError, TemplateError
from trimtab.loading import from_bundle
from trimtab.model import PromptedModel
from trimtab.prompt_table import PromptTable
from trimtab.readouts import first_head, plan_answers
from trimtab.readouts.head import pooler
from trimtab.registry import readouts
from trimtab.training.packs import train_pack
from trimtab.training.preparing import Prepared
from trimtab.training.records import make_bundle
from trimtab.training.runs import run_pack
from trimtab.types import Encoded, Row

HEAD = {"readout": {"kind": "head"}}
__all__ = ["family_folder"]


def model_of(p: Prepared) -> PromptedModel:
    return PromptedModel(
        p.backbone, readouts.build(p.config.readout, p.backbone, [p.rendering.plan(p.backbone.encoder)])
    )


def table_of(backbone: Backbone, prompts: int = 2) -> PromptTable:
    """Prompts and heads of different values."""
    g = torch.Generator().manual_seed(0)
    inputs = backbone.embedding_rms * torch.randn(prompts, LENGTH, backbone.embedding_size, generator=g)
    heads = [first_head("head", backbone.hidden_size, 2, g) for _ in range(prompts)]
    return PromptTable(inputs, heads={n: torch.stack([h[n] + r for r, h in enumerate(heads)]) for n in heads[0]})


@pytest.mark.parametrize("name", MODELS)
def test_a_head_reads_every_family(name: str, family_folder: Callable[[str], Path], tmp_path: Path) -> None:
    backbone = load_backbone(str(family_folder(name)), dtype="float32")
    p = toy_run(tmp_path, backbone, HEAD, n=8)
    model, table = model_of(p), table_of(backbone).detached()
    rows = [replace(row, prompt=i % 2, key=i) for i, row in enumerate(p.rows["train"])]
    with frozen(backbone):
        together = model.scores(model.collate(rows), table)
        model.readout.loss(together, model.collate(rows).labels).sum().backward()
    for name_, value in table.tensors.items():
        assert value.grad is not None
        assert bool((value.grad.flatten(1).abs().sum(1) > 0).all()), f"a row of {name_} gets no gradient"
    alone = torch.cat([model.scores(model.collate([row]), table) for row in rows])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    for side in sides(backbone):
        padded = model.scores(collate([*rows, *p.rows["test"]], backbone.pad_id, side), table)[: len(rows)]
        torch.testing.assert_close(padded, together, rtol=1e-4, atol=1e-4)
    trained = train_pack([p])[0]
    again = from_bundle(make_bundle(trained), backbone)
    assert set(trained.tensors) == {"inputs", "head.weight", "head.bias"}
    examples = p.task.splits["test"]
    torch.testing.assert_close(
        again.score(examples), model.score_rows(p.rows["test"], again.table, predictor.MAX_TOKENS)
    )


OTHERS = [pytest.param(position, marks=pytest.mark.slow) for position in ("last", "mean")]


@pytest.mark.parametrize("position", ["first", "answer", *OTHERS])
@pytest.mark.parametrize("kind", ["none", "prompt_tuning"])
def test_a_head_learns_the_toy(position: str, kind: str, tmp_path: Path, backbone: Backbone) -> None:
    training = {"max_steps": 150, "learning_rate": 0.03, "batch_size": 16}
    prompt = {"kind": kind} | ({"length": LENGTH} if kind != "none" else {})
    recipe = {"readout": {"kind": "head", "position": position}, "training": training, "prompt": prompt}
    if kind == "none":
        from tests.tiny import toy_task
        from trimtab.config import resolve
        from trimtab.training.preparing import prepare

        sections = {"task": toy_task(tmp_path, 64), "seed": 1, **recipe}
        p = prepare(resolve(sections).config, backbone)
    else:
        p = toy_run(tmp_path, backbone, recipe, n=64)
    record = run_pack([p], tmp_path / "runs")[0]
    if kind == "none":  # a random model, so what a linear head finds there is little
        assert record["metrics"]["dev"]["loss"] < 0.69
    else:
        assert record["metrics"]["test"]["accuracy"] >= 0.8
    assert record["baselines"] == {"majority": 0.5, "no_prompt": None}
    kept = 2 * 33 + (0 if kind == "none" else LENGTH * 32)
    assert record["parameters"] == {"trained": kept, "kept": kept}


def test_each_position_reads_where_it_says(tmp_path: Path, backbone: Backbone) -> None:
    hidden = torch.randn(1, 40, 32)
    for position, expected in (("first", [0]), ("last", [-1]), ("mean", None)):
        p = toy_run(tmp_path, backbone, {"readout": {"kind": "head", "position": position}}, n=8)
        row = p.rows["train"][0]
        length = len(row.encoded)
        places = (
            [i % length for i in expected] if expected else [i for i in range(length) if i not in row.encoded.slots]
        )
        assert list(row.encoded.answer_at) == places
        model, table = model_of(p), table_of(backbone)
        batch = model.collate([row])
        found = model.readout.scores(hidden[:, batch.answer_at[0]], batch, table.heads)
        pooled = hidden[0, places].mean(0)
        torch.testing.assert_close(found[0], table.heads["weight"][0] @ pooled + table.heads["bias"][0])


@pytest.mark.parametrize("kind", ["head", "choice"])
def test_a_random_pooler_stands_before_a_head_and_depends_on_its_seed(kind: str, backbone: Backbone) -> None:
    hidden, table = torch.randn(1, 1, 32), table_of(backbone)
    row = Row(Encoded((1, 2), (), (0,)), 0, 0)
    batch, found = collate([row], 0, "right"), {}
    heads = {n: v[:, :1] if kind == "choice" else v for n, v in table.heads.items() if n == "weight" or kind == "head"}
    for seed in (None, 0, 1):
        spec = readouts.resolve({"kind": kind, "random_pooler": seed}, "readout")
        assert ("random_pooler" in spec) == (seed is not None)
        plan = plan_answers(spec, backbone.encoder, [])
        found[seed] = readouts.build(spec, backbone, [plan]).scores(hidden, batch, heads)
        assert torch.equal(readouts.build(spec, backbone, [plan]).scores(hidden, batch, heads), found[seed])
    assert len({its.flatten()[0].item() for its in found.values()}) == 3
    weight = pooler(backbone, 0)
    assert weight is not None
    assert weight.std().item() == pytest.approx(0.02, rel=0.1)
    expected = heads["weight"][0] @ (weight @ hidden[0, 0]).tanh() + (heads["bias"][0] if kind == "head" else 0)
    torch.testing.assert_close(found[0][0], expected)


def test_a_reloaded_prompt_is_read_through_its_random_pooler(tmp_path: Path, backbone: Backbone) -> None:
    p = toy_run(tmp_path, backbone, {"readout": {"kind": "head", "random_pooler": 7}}, n=8)
    trained = train_pack([p])[0]
    assert set(trained.tensors) == {"inputs", "head.weight", "head.bias"}, "the pooler is frozen, and drawn again"
    again = from_bundle(make_bundle(trained), backbone)
    scores = again.score(p.task.splits["test"])
    torch.testing.assert_close(scores, model_of(p).score_rows(p.rows["test"], again.table, predictor.MAX_TOKENS))
    other = readouts.build({"kind": "head"}, backbone, [p.rendering.plan(backbone.encoder)])
    assert not torch.allclose(scores, PromptedModel(backbone, other).score_rows(p.rows["test"], again.table, 512))


def test_rows_without_a_head_score_nothing(tmp_path: Path, backbone: Backbone) -> None:
    p = toy_run(tmp_path, backbone, HEAD, n=8)
    model = model_of(p)
    rows = [replace(p.rows["train"][0], prompt=i) for i in (-1, 1)]
    scores = model.scores(model.collate(rows), table_of(backbone))
    assert scores.isnan().all(1).tolist() == [True, False]


def test_heads_of_a_pack_equal_each_alone(tmp_path: Path, backbone: Backbone) -> None:
    def run(seed: int, rate: float) -> Prepared:
        recipe: dict[str, Any] = {"seed": seed, "training": {"learning_rates": {"head": rate}, "clip": 0.1}}
        return toy_run(tmp_path, backbone, {**HEAD, **recipe}, n=16)

    pack = [run(1, 0.1), run(2, 0.01)]
    for together, p in zip(train_pack(pack), pack, strict=True):
        alone = train_pack([p])[0]
        for name, value in together.tensors.items():
            torch.testing.assert_close(
                torch.from_numpy(value), torch.from_numpy(alone.tensors[name]), rtol=1e-4, atol=1e-5
            )


def test_a_template_needs_no_answer_slot_for_a_head(tmp_path: Path, backbone: Backbone) -> None:
    p = toy_run(tmp_path, backbone, HEAD, n=8, template="{prompt} {text}")
    assert p.rows["train"][0].encoded.answer_at == (0,)
    with refused(TemplateError, "exactly one answer slot, got 0", where="task.template", fix="{answer}"):
        toy_run(tmp_path, backbone, {"readout": {"kind": "cloze"}}, n=8, template="{prompt} {text}")


def test_first_needs_a_token_that_sees_the_text(tmp_path: Path, family_folder: Callable[[str], Path]) -> None:
    backbone = load_backbone(str(family_folder("gpt2")), dtype="float32")
    with refused(TemplateError, "its first token knows nothing", where="readout.position", fix="mean or last"):
        toy_run(tmp_path, backbone, {"readout": {"kind": "head", "position": "first"}}, n=8)


def test_classes_whose_names_are_no_words_can_be_read_by_a_head(tmp_path: Path, backbone: Backbone) -> None:
    words = {"positive": "\U0001f600", "negative": "\U0001f61e"}
    assert toy_run(tmp_path, backbone, HEAD, n=8, label_words=words).rows["train"][0].label in (0, 1)
    with refused(TemplateError, "cannot produce the label word", where="task.label_words.positive", fix="another word"):
        toy_run(tmp_path, backbone, {"readout": {"kind": "cloze"}}, n=8, label_words=words)


def test_free_text_needs_another_readout(tmp_path: Path, backbone: Backbone) -> None:
    with refused(ConfigError, "free text", where="backbone.model", fix="encoder-decoder"):
        toy_run(tmp_path, backbone, HEAD, n=8, label_words=None, target="label")
