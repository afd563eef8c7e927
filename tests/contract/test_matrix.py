"""Every method on every family with every readout: one step of a pack of two, compared with the same step alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.contract.test_backbone_families import ALIKE, MODELS, family_folder
from tests.contract.toy_runs import LENGTH, TINY, model_of
from tests.ordered_sums import OrderedSums
from tests.tiny import facts_task, tagged_task, toy_task, write_jsonl
from tests.unit.refusals import refused
from trimtab.backbones import Backbone, load_backbone
from trimtab.backbones.loading import TextSide, load_encoder
from trimtab.config import resolve
from trimtab.errors import ConfigError
from trimtab.registry import families, prompts, readouts
from trimtab.training.encoder_pack import EncoderPack
from trimtab.training.encoders import build_encoder, count_parameters
from trimtab.training.packs import train_pack
from trimtab.training.preparing import Prepared, build_head, prepare
from trimtab.types import Row

__all__ = ["family_folder"]

EXTRA: dict[str, dict[str, Any]] = {**TINY, "deep": {"input": {"kind": "prompt_tuning", "length": 2}}}
"""Options that make a method do more of what it can: both sorts of prompt at once."""


def files(folder: Path, name: str, row: Callable[[int], dict[str, Any]]) -> dict[str, str]:
    """A file of six rows for each split."""
    return {
        split: str(write_jsonl(folder / f"{name}-{split}.jsonl", [{"id": f"{split}-{i}", **row(i)} for i in range(6)]))
        for split in ("train", "dev", "test")
    }


def choices(folder: Path) -> dict[str, Any]:
    """A task of multiple choice."""

    def row(i: int) -> dict[str, Any]:
        return {"text": "the cat", "one": "is good", "two": "is bad indeed", "label": i % 2}

    return {
        "kind": "table", "name": "choices", **files(folder, "choices", row), "choices": ["one", "two"],
        "template": "{prompt} {text} {choice}",
    }  # fmt: skip


def questions(folder: Path) -> dict[str, Any]:
    """A task of questions, the answers words of their contexts."""

    def row(i: int) -> dict[str, Any]:
        context = "the bad film and the good cat"
        return {"question": "what is good", "context": context, "answers": {"text": ["cat"], "answer_start": [26]}}

    return {
        "kind": "squad", "name": "questions", **files(folder, "questions", row),
        "template": "{prompt} {question} {context}",
    }  # fmt: skip


def infills(folder: Path) -> dict[str, Any]:
    """Choices of several tokens that are written into masks. The rows differ: a hinge may be at rest in one of them,
    and where it is in neither, their gradients must not cancel."""

    def row(i: int) -> dict[str, Any]:
        return {"text": ("the cat", "a big old film")[i % 2], "one": "is good", "two": "is bad indeed", "label": i % 2}

    return {**choices(folder), **files(folder, "infills", row), "template": "{prompt} {text} {answer}"}


def phrases(folder: Path) -> dict[str, Any]:
    """A phrase that is written and compared with the example's own."""

    def row(i: int) -> dict[str, Any]:
        return {"text": "the cat saw it", "who": ("the dog", "bird")[i % 2], "label": i % 2 == 0 or i > 1}

    return {
        "kind": "table", "name": "phrases", **files(folder, "phrases", row), "candidate": "who",
        "template": "{prompt} {text} {answer}",
    }  # fmt: skip


ROWS = 2
TASKS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "class": lambda folder: toy_task(folder, 6),
    "tags": lambda folder: tagged_task(folder, 6),
    "choice": choices,
    "span": questions,
    "infill": infills,
    "match": phrases,
    "word": lambda folder: facts_task(folder, 24, template="{prompt} {subject} {answer}"),
}


def prepared(folder: Path, backbone: Backbone, method: str, readout: str, seed: int) -> Prepared:
    answer = next(kind for kind in readouts.get(readout).kinds if kind in TASKS)
    length = {"length": LENGTH} if "length" in prompts.options(method) else {}
    recipe = {
        "task": TASKS[answer](folder), "readout": {"kind": readout}, "seed": seed,
        "prompt": {"kind": method, **length, **EXTRA.get(method, {})},
    }  # fmt: skip
    return prepare(resolve(recipe).config, backbone)


def step(pack: list[Prepared], extra: list[Row] | None = None) -> tuple[dict[str, Tensor], Tensor]:
    """Gradients of all parameters [R,...], and the scores of the members' rows; `extra` rows are batch mates only."""
    encoders = EncoderPack([build_encoder(p.config, p.rendering, p.backbone) for p in pack], [1] * len(pack),
                           [build_head(p) for p in pack])  # fmt: skip
    with torch.no_grad():  # what starts at zero hides what it is multiplied with
        for name, value in encoders.stacked.items():
            value.add_(0.01 * torch.randn(value.shape[1:], generator=torch.Generator().manual_seed(len(name))))
    table = encoders.table(training=True)
    leaf = table.detached()
    model = model_of(pack[0])
    rows = [replace(row, prompt=r) for r, p in enumerate(pack) for row in p.rows["train"][:ROWS]]
    batch = model.collate([*rows, *(extra or [])])
    with OrderedSums():
        scores = model.scores(batch, leaf)
        model.readout.loss(scores, batch.labels)[: len(rows)].sum().backward()
        encoders.backward(table, leaf)
    if scores.ndim == 3:  # what stands behind a row's own reads is anything
        scores = scores.masked_fill(~batch.answer_mask[..., None], 0.0)
    return {n: p.grad for n, p in encoders.stacked.items() if p.grad is not None}, scores[: len(rows)].detach()


def check_cell(folder: Path, backbone: Backbone, side: TextSide, method: str, readout: str) -> None:
    first = prepared(folder, backbone, method, readout, 1)
    seeds = first.config.seeds.model_copy(update={"init": 2})
    pack = [first, replace(first, config=first.config.model_copy(update={"seeds": seeds}))]
    names = [n for n, _ in build_encoder(pack[0].config, pack[0].rendering, backbone).named_parameters()]
    longest = max(pack[0].rows["test"], key=lambda row: row.cost)
    gradients, scores = step(pack, [replace(longest, prompt=0, encoded=longer(longest))])
    assert {n for n in gradients if not n.startswith("head.")} == set(names)
    counted = count_parameters(first.config, first.task, first.rendering, side)
    assert counted["trained"] == sum(gradient[0].numel() for gradient in gradients.values())
    assert any(n.startswith("head.") for n in gradients) == readouts.get(readout).trains
    for name, gradient in gradients.items():
        assert bool(gradient.isfinite().all()), name
        assert bool((gradient.flatten(1).abs().sum(1) > 0).all()), f"a member's {name} gets no gradient"
    alone, own = step(pack[1:])
    for name, gradient in alone.items():
        worst = float((gradients[name][1] - gradient[0]).abs().max())
        assert worst <= 1e-3 * float(gradient.abs().max()) + 1e-6, f"{name} differs in the pack by {worst}"
    shown = tuple(slice(n) for n in own.shape)
    torch.testing.assert_close(scores[ROWS:][shown], own, rtol=1e-3, atol=1e-3)


def check_manual(folder: Path, backbone: Backbone, readout: str) -> None:
    """Its scores are those of the bare model on the same template."""
    run = prepared(folder, backbone, "manual", readout, 1)
    (trained,) = train_pack([run])
    assert (trained.member.status, trained.member.step, trained.parameters) == ("done", 0, 0)
    if not readouts.get(readout).writes:
        model = model_of(run)
        bare = model.score_rows([replace(row, prompt=-1) for row in run.rows["dev"]], None, 8192)
        labels = torch.tensor([row.label for row in run.rows["dev"]])
        assert trained.member.best_dev["loss"] == pytest.approx(float(model.readout.loss(bare, labels).mean()), 1e-4)


def longer(row: Row) -> Any:
    """A sequence of more tokens, so that its mates are padded."""
    e = row.encoded
    return replace(e, ids=(*e.ids, *e.ids[-1:] * 3))


@contextmanager
def untouched(backbone: Backbone) -> Iterator[None]:
    before = {n: v.clone() for n, v in backbone.model.state_dict().items()}
    yield
    for name, value in backbone.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(p.grad is None for p in backbone.model.parameters())


WHOLE = ("bert", "gpt2", "t5")
"""Families that try every method by default; what others add is how a prompt enters, so they try one of each way."""
WAYS = ("prompt_tuning", "deep", "dept", "smop", "manual", "none")


def tried_on(name: str) -> list[Any]:
    """A family's tests: all methods, or some by default and the others with `make test-all`."""
    if name in ALIKE:
        return [pytest.param(name, "all", marks=pytest.mark.slow)]
    if name in WHOLE:
        return [pytest.param(name, "all")]
    return [pytest.param(name, "ways"), pytest.param(name, "rest", marks=pytest.mark.slow)]


@pytest.mark.parametrize(("name", "which"), [its for m in MODELS for its in tried_on(m)])
def test_every_method_works_with_every_readout(
    name: str, which: str, family_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    backbone = load_backbone(str(family_folder(name)), dtype="float32", device="cpu")
    side = load_encoder(str(family_folder(name)))
    with untouched(backbone):
        for readout in backbone.family.readouts:
            for method in prompts.kinds():
                if which != "all" and (which == "ways") != (method in WAYS):
                    continue
                try:
                    trains = readouts.get(readout).trains
                    if method == "none" and not trains:
                        with refused(ConfigError, "trains nothing", where="prompt.kind", fix="readout.kind=head"):
                            prepared(tmp_path, backbone, method, readout, 1)
                    elif method == "manual" and trains:
                        with refused(ConfigError, "nothing is trained", where="prompt.kind", fix="prompt.kind=none"):
                            prepared(tmp_path, backbone, method, readout, 1)
                    elif method == "manual":
                        check_manual(tmp_path, backbone, readout)
                    else:
                        check_cell(tmp_path, backbone, side, method, readout)
                except Exception as error:
                    error.add_note(f"{method} with {readout} on {name}")
                    raise


def test_the_matrix_is_whole() -> None:
    """A readout that no family lists, or an answer without a task here, would go unseen."""
    listed = {readout for kind in families.kinds() for readout in families.build({"kind": kind}).readouts}
    own = {kind for kind in readouts.kinds() if readouts.get(kind).kinds}  # the others leave it to such, as `by_task`
    assert listed == own
    assert all(set(readouts.get(kind).kinds) & set(TASKS) for kind in own)
