"""What written answers promise on every family that writes: gradients, padding, learning, no look at the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.contract.tiny_families import BUILDERS, VARIANTS
from tests.contract.toy_runs import model_of
from tests.tiny import ANSWERS, written_task
from trimtab.backbones import Backbone, load_backbone
from trimtab.config import resolve
from trimtab.model import PromptedModel
from trimtab.prompt_table import PromptTable
from trimtab.registry import families, readouts
from trimtab.training.preparing import Prepared, prepare
from trimtab.training.runs import run_pack

MODELS = BUILDERS | VARIANTS
WRITERS = [m for m in MODELS if "text" in families.get(m.partition(":")[0]).readouts]
BOTH = ["llama", "t5:own_head"]
"""A causal model and an encoder-decoder that a prompt can teach to write within seconds."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def opened(folder: Path, name: str) -> Backbone:
    path = folder / name.replace(":", "-")
    if not path.exists():
        MODELS[name](path)
    return load_backbone(str(path), dtype="float32", device="cpu")


def run_of(tmp_path: Path, backbone: Backbone, recipe: Mapping[str, Any] | None = None, **task: Any) -> Prepared:
    """A prepared run on the toy whose answers are written."""
    sections = {
        "task": written_task(tmp_path, **task),
        "seed": 1,
        "prompt": {"kind": "prompt_tuning", "length": 12},
        "readout": {"kind": "text", "max_new_tokens": 6},
        "training": {"learning_rate": 0.1, "max_steps": 4, "epochs": 200, "evaluations": 2, "batch_size": 8},
    }
    return prepare(resolve({**sections, **(recipe or {})}).config, backbone)


def table_of(backbone: Backbone, n: int = 1, length: int = 12) -> PromptTable:
    drawn = torch.randn(n, length, backbone.embedding_size, generator=torch.Generator().manual_seed(5))
    return PromptTable(backbone.embedding_rms * drawn)


def test_all_families_but_the_masked_models_write() -> None:
    assert len(WRITERS) == 15
    for name in MODELS:
        assert (name in WRITERS) != ("cloze" in families.get(name.partition(":")[0]).readouts)


@pytest.mark.parametrize("name", WRITERS)
def test_the_gradient_reaches_the_prompt_and_not_the_backbone(name: str, folder: Path, tmp_path: Path) -> None:
    prepared = run_of(tmp_path, opened(folder, name))
    model, leaf = model_of(prepared), table_of(prepared.backbone).detached()
    batch = model.collate([replace(r, prompt=0) for r in prepared.rows["train"][:4]])
    scores = model.scores(batch, leaf)
    loss = model.readout.loss(scores, batch.labels)
    assert scores.shape == (4, 1)
    assert scores.dtype == torch.float32
    assert bool((loss > 0).all())
    loss.sum().backward()
    assert leaf.inputs.grad is not None
    assert bool((leaf.inputs.grad.abs().sum(-1) > 0).all())
    assert all(p.grad is None for p in model.backbone.model.parameters())


@pytest.mark.parametrize("name", WRITERS)
@torch.no_grad()
def test_batch_mates_and_padding_change_neither_score_nor_text(name: str, folder: Path, tmp_path: Path) -> None:
    prepared = run_of(tmp_path, opened(folder, name))
    model, table = model_of(prepared), table_of(prepared.backbone, 2)
    rows = [replace(r, prompt=(0, 1, -1)[i % 3]) for i, r in enumerate(prepared.rows["train"][:6])]
    assert len({len(r.encoded) for r in rows}) > 1
    assert len({len(r.encoded.targets) for r in rows}) > 1
    together = model.score_rows(rows, table, 8192)
    alone = torch.cat([model.score_rows([row], table, 8192) for row in rows])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    texts = model.write_rows(rows, table, 8192)
    assert texts == [model.write_rows([row], table, 8192)[0] for row in rows]


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_written_does_not_depend_on_the_right_answer(name: str, folder: Path, tmp_path: Path) -> None:
    prepared = run_of(tmp_path, opened(folder, name))
    model, table, encoder = model_of(prepared), table_of(prepared.backbone), prepared.backbone.encoder
    examples = prepared.task.splits["dev"][:6]
    known = [prepared.rendering.row(e, encoder) for e in examples]
    unknown = [prepared.rendering.row(replace(e, label=None), encoder) for e in examples]
    assert [r.gold for r in unknown] == [""] * 6
    assert [r.encoded.opened() for r in known] == [r.encoded for r in unknown]
    assert model.write_rows(known, table, 8192) == model.write_rows(unknown, table, 8192)


def test_a_row_without_an_answer_has_no_score(folder: Path, tmp_path: Path) -> None:
    prepared = run_of(tmp_path, opened(folder, "llama"))
    model, encoder = model_of(prepared), prepared.backbone.encoder
    known, other = prepared.task.splits["dev"][:2]
    unknown = prepared.rendering.row(replace(other, label=None), encoder)
    rows = [prepared.rendering.row(known, encoder), unknown]
    table = table_of(prepared.backbone)
    assert model.score_rows(rows, table, 8192).isnan().tolist() == [[False], [True]]
    assert model.score_rows([unknown], table, 8192).isnan().tolist() == [[True]]


LEARN: dict[str, dict[str, Any]] = {
    "llama": {"template": "{prompt:6} {text} {prompt:6} {answer}.", "rate": 0.1},
    "t5:own_head": {"template": "{prompt} {text} {answer}.", "rate": 0.2},
}


@pytest.mark.parametrize("name", BOTH)
def test_a_prompt_learns_to_write(name: str, folder: Path, tmp_path: Path) -> None:
    how = LEARN[name]
    training = {"learning_rate": how["rate"], "max_steps": 200, "epochs": 200, "evaluations": 6, "batch_size": 8}
    recipe = {"training": {**training, "schedule": "cosine"}}
    prepared = run_of(tmp_path, opened(folder, name), recipe, template=how["template"])
    weights = {n: p.clone() for n, p in prepared.backbone.model.named_parameters()}
    record = run_pack([prepared], tmp_path / "runs")[0]
    assert record["metrics"]["dev"]["exact_match"] == 1.0
    assert record["metrics"]["test"]["exact_match"] > 0.9
    assert record["metrics"]["test"]["token_f1"] >= record["metrics"]["test"]["exact_match"]
    assert record["baselines"] == {"majority": 0.5, "no_prompt": 0.0}
    assert record["metric"] == "exact_match"
    assert all(torch.equal(p, weights[n]) for n, p in prepared.backbone.model.named_parameters())


@pytest.mark.parametrize("name", BOTH)
def test_label_words_are_learned_as_text(name: str, folder: Path, tmp_path: Path) -> None:
    """The first word of a class is the answer; any counts."""
    words = {ANSWERS["positive"]: ["yes", "great"], ANSWERS["negative"]: ["bad", "very bad"]}
    prepared = run_of(tmp_path, opened(folder, name), target=None, label="answer", label_words=words)
    rows = [r for its in prepared.rows.values() for r in its]
    assert {(r.label, r.gold) for r in rows} == {(0, "yes"), (1, "bad")}
    model = PromptedModel(prepared.backbone, readouts.build(prepared.config.readout, prepared.backbone, []))
    batch = model.collate([replace(r, prompt=0) for r in rows[:4]])
    assert model.scores(batch, table_of(prepared.backbone)).shape == (4, 1)
