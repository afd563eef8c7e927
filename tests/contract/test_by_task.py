"""A batch of several tasks: each row is read as in a batch of its own task, by every readout that may share a pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.contract.test_backbone_families import family_folder
from tests.contract.test_matrix import TASKS
from tests.contract.toy_runs import LENGTH
from tests.tiny import written_task
from tests.unit.refusals import refused
from trimtab.backbones import Backbone, load_backbone
from trimtab.config import resolve
from trimtab.errors import ConfigError
from trimtab.model import PromptedModel
from trimtab.prompt_table import PromptTable
from trimtab.readouts import Reads, choosing, divergence, has_distribution, mistaken, of_one_task
from trimtab.registry import readouts
from trimtab.training.encoder_pack import EncoderPack
from trimtab.training.preparing import Prepared, build_head, encoder_of, prepare
from trimtab.types import Batch, Row

__all__ = ["family_folder"]

ROWS = 3
ONE_PASS: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "masked": ("bert", [("class", "cloze"), ("class", "head"), ("tags", "tokens"), ("choice", "choice"),
                        ("span", "span"), ("infill", "cloze_choice"), ("match", "cloze_span"), ("word", "word")]),
    "classes": ("roberta", [("class", "cloze"), ("class", "head")]),
    "causal": ("gpt2", [("class", "ranking"), ("text", "text"), ("class", "head"), ("tags", "tokens"),
                        ("span", "span"), ("word", "word")]),
    "decoder": ("t5", [("class", "ranking"), ("text", "text"), ("word", "word")]),
    "encoder": ("t5", [("class", "head"), ("tags", "tokens"), ("choice", "choice")]),
}  # fmt: skip
"""What is read in one pass: a family, and the answers of tasks with their readouts."""


def run_of(folder: Path, backbone: Backbone, pairs: Sequence[tuple[str, str]], **more: Any) -> Prepared:
    """A run on tasks of these answers, read so."""
    sections, named = [], {}
    for i, (answer, readout) in enumerate(pairs):
        place = folder / str(i)
        place.mkdir(parents=True, exist_ok=True)
        section = written_task(place, 6) if answer == "text" else TASKS[answer](place)
        sections.append({**section, "name": f"t{i}"})
        named[f"t{i}/P1" if answer == "word" else f"t{i}"] = readout  # facts of one relation add its name
    recipe = {
        "task": {"kind": "multitask", "tasks": sections}, "readout": {"kind": "by_task", "readouts": named},
        "prompt": {"kind": "prompt_tuning", "length": LENGTH}, "seed": 1, **more,
    }  # fmt: skip
    return prepare(resolve(recipe).config, backbone)


def model_of(p: Prepared) -> PromptedModel:
    plans = [part.rendering.plan(p.backbone.encoder) for part in p.each]
    return PromptedModel(p.backbone, readouts.build(p.config.readout, p.backbone, plans))


def table_of(p: Prepared) -> PromptTable:
    """Two prompts of different values, with their heads."""
    pack = EncoderPack([encoder_of(p)] * 2, [1, 1], [build_head(p)] * 2)
    with torch.no_grad():
        for name, value in pack.stacked.items():
            noise = torch.randn(value.shape, generator=torch.Generator().manual_seed(len(name)))
            value.add_(0.1 * noise)
    return pack.table(training=False).detached()


def rows_of(p: Prepared) -> tuple[list[Row], list[list[Row]]]:
    """Rows of all tasks one after the other, shuffled, and the same task by task."""
    begins = [0]
    for part in p.parts:
        begins.append(begins[-1] + len(part.rows["train"]))
    mixed, alone = [], [list[Row]() for _ in p.parts]
    for i in range(ROWS):
        for k, part in enumerate(p.parts):
            mixed.append(replace(p.rows["train"][begins[k] + i], prompt=i % 2, key=begins[k] + i))
            alone[k].append(replace(part.rows["train"][i], prompt=i % 2, key=begins[k] + i))
    return mixed, alone


@pytest.fixture(params=list(ONE_PASS))
def world(request: pytest.FixtureRequest, family_folder: Callable[[str], Path], tmp_path: Path) -> Prepared:
    family, pairs = ONE_PASS[request.param]
    return run_of(tmp_path, load_backbone(str(family_folder(family)), dtype="float32", device="cpu"), pairs)


def gradients(model: PromptedModel, batch: Batch, table: PromptTable) -> tuple[Tensor, dict[str, Tensor]]:
    """Losses, and the gradient of their sum."""
    leaf = table.detached()
    losses = model.readout.loss(model.scores(batch, leaf), batch.labels)
    losses.sum().backward()
    return losses.detach(), {n: v.grad for n, v in leaf.tensors.items() if v.grad is not None}


def test_each_row_is_read_as_among_rows_of_its_own_task(world: Prepared) -> None:
    model, table = model_of(world), table_of(world)
    mixed, alone = rows_of(world)
    losses, found = gradients(model, model.collate(mixed), table)
    expected = {n: torch.zeros_like(v) for n, v in found.items()}
    for k, ((part, own_table), rows) in enumerate(zip(model.parts(table), alone, strict=True)):
        assert own_table is not None
        its, grads = gradients(part, part.collate(rows), own_table)
        torch.testing.assert_close(losses[k :: len(alone)], its, rtol=1e-4, atol=1e-5)
        for name, value in grads.items():
            expected[name.replace("head.", f"head.{k}.")] += value
    assert {n for n in found if n.startswith("head.")} == {n for n in table.tensors if n.startswith("head.")}
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    assert len(set(losses.tolist())) > len(alone), "the rows must differ"


def test_distributions_are_those_of_the_tasks(family_folder: Callable[[str], Path], tmp_path: Path) -> None:
    family, pairs = ONE_PASS["masked"]
    backbone = load_backbone(str(family_folder(family)), dtype="float32", device="cpu")
    world = run_of(tmp_path, backbone, [pair for pair in pairs if has_distribution(pair[1])])
    model, (mixed, alone), one = model_of(world), rows_of(world), table_of(world)
    other = one.with_tensors({n: v + 0.3 * torch.ones_like(v).cumsum(-1) for n, v in one.tensors.items()})
    batch = model.collate(mixed)
    p, q = (model.scores(batch, table) for table in (one, other))
    far, wrong = divergence(model.readout, p, q, batch.labels), mistaken(model.readout, p, batch.labels)
    assert bool((far > 0).any())
    for k, rows in enumerate(alone):
        part, first = model.parts(one)[k]
        own, second = part.collate(rows), model.parts(other)[k][1]
        own_p, own_q = (part.scores(own, table) for table in (first, second))
        expected = divergence(part.readout, own_p, own_q, own.labels)
        torch.testing.assert_close(far[k :: len(alone)], expected, rtol=1e-3, atol=1e-5)
        assert torch.equal(wrong[k :: len(alone)], mistaken(part.readout, own_p, own.labels))


def test_a_batch_may_lack_tasks(world: Prepared) -> None:
    model, table = model_of(world), table_of(world)
    mixed, _ = rows_of(world)
    whole = model.collate(mixed)
    losses = model.readout.loss(model.scores(whole, table), whole.labels)
    for k in range(len(world.parts)):
        few = model.collate(mixed[k :: len(world.parts)])
        found = model.readout.loss(model.scores(few, table), few.labels)
        torch.testing.assert_close(found, losses[k :: len(world.parts)], rtol=1e-4, atol=1e-5)


def test_one_pass_reads_an_encoder_decoder_on_one_side(family_folder: Callable[[str], Path], tmp_path: Path) -> None:
    backbone = load_backbone(str(family_folder("t5")), dtype="float32", device="cpu")
    what = "the task 't1' is read in the decoder (by 'ranking') and the task 't0' in the encoder (by 'head')"
    with refused(ConfigError, what, where="readout", fix="Read all in the decoder (ranking, text, word)"):
        run_of(tmp_path, backbone, [("class", "head"), ("class", "ranking")])


def test_a_readout_is_given_to_a_task_that_there_is(backbone: Backbone, tmp_path: Path) -> None:
    named = {"kind": "by_task", "readouts": {"t2": "head"}}
    with refused(ConfigError, "there is no task 't2'", where="readout.readouts", fix="Known: t0, t1."):
        run_of(tmp_path, backbone, [("class", "cloze"), ("class", "cloze")], readout=named)


def test_what_is_wrong_with_a_readout_names_its_task(backbone: Backbone, tmp_path: Path) -> None:
    pairs = [("class", "cloze"), ("tags", "tokens")]
    with refused(ConfigError, "'tokens' gives no answers", where="readout.kind (the task 't0')", fix="Use cloze"):
        run_of(tmp_path, backbone, pairs, readout="tokens")
    with refused(ConfigError, "no such key", where="readout.readouts.t0.combin", fix="Did you mean"):
        named = {"kind": "by_task", "readouts": {"t0": {"kind": "cloze", "combin": "max"}}}
        run_of(tmp_path, backbone, pairs, readout=named)


def test_a_task_alone_is_not_read_by_task(backbone: Backbone, tmp_path: Path) -> None:
    recipe = {"task": TASKS["class"](tmp_path), "readout": "by_task", "prompt": {"length": LENGTH}}
    with refused(ConfigError, "cannot be read by 'by_task'", where="readout.kind", fix="Use cloze or head"):
        prepare(resolve(recipe).config, backbone)


def test_without_a_word_each_task_is_read_as_it_would_be_alone(backbone: Backbone, tmp_path: Path) -> None:
    pairs = [("class", "cloze"), ("tags", "tokens")]
    read = run_of(tmp_path, backbone, pairs, readout="auto").config.readout["readouts"]
    assert {name: spec["kind"] for name, spec in read.items()} == {"t0": "cloze", "t1": "tokens"}
    read = run_of(tmp_path, backbone, [pairs[0], pairs[0]], readout="head").config.readout["readouts"]
    assert {name: spec["kind"] for name, spec in read.items()} == {"t0": "head", "t1": "head"}


def test_it_leaves_answers_to_the_tasks(backbone: Backbone) -> None:
    reader: Any = readouts.build({"kind": "by_task", "readouts": {}}, backbone, [])
    assert isinstance(reader, Reads)
    for narrow in (of_one_task, choosing):
        with pytest.raises(AssertionError, match="ByTask"):
            narrow(reader)
