"""Preparing many runs: what they share is loaded once, what differs is kept apart; and a rehearsal keeps nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import toy_task
from trimtab.backbones import Backbone
from trimtab.config import resolve
from trimtab.tasks import Task
from trimtab.training.loop import Loop
from trimtab.training.packs import rehearse, train_pack
from trimtab.training.preparing import Prepared, Preparer, prepare


def recipe(folder: Path, backbone: Backbone, **task: Any) -> dict[str, Any]:
    training = {"max_steps": 4, "min_steps": 4, "evaluations": 2, "batch_size": 4}
    return {"backbone": {"model": backbone.name}, "task": toy_task(folder, n=16, **task), "training": training}


def test_runs_share_task_and_rows_where_they_are_the_same(tmp_path: Path, backbone: Backbone) -> None:
    raw, preparer = recipe(tmp_path, backbone), Preparer(backbone)

    def prepared(*overrides: str) -> Prepared:
        return preparer.prepare(resolve(raw, overrides).config)

    first = prepared("prompt.length=3")
    same = prepared("prompt.length=3", "training.learning_rate=0.5", "seeds.init=9")
    assert same.task is first.task
    assert same.rows is first.rows
    other = prepared("prompt.length=4")
    assert other.task is first.task
    assert other.rows is not first.rows
    assert len(other.rows["train"][0].variants[0].ids) == len(first.rows["train"][0].variants[0].ids) + 1
    template = prepared("prompt.length=3", "task.template={prompt} {answer} {text}")
    assert template.rows is not first.rows
    assert template.rows["train"][0].variants[0].ids != first.rows["train"][0].variants[0].ids


def test_other_subsets_are_other_rows(tmp_path: Path, backbone: Backbone) -> None:
    raw = recipe(tmp_path, backbone)
    task = {k: v for k, v in raw["task"].items() if k not in ("train", "dev", "test")}
    raw["task"] = {**task, "path": raw["task"]["train"], "shots": 2}
    preparer = Preparer(backbone)
    one, two, again = (preparer.prepare(resolve(raw, [f"seeds.subset={s}"]).config) for s in (1, 2, 1))
    assert one.rows is again.rows
    assert [r.variants[0].ids for r in one.rows["train"]] != [r.variants[0].ids for r in two.rows["train"]]


def test_what_was_prepared_together_equals_what_was_prepared_alone(tmp_path: Path, backbone: Backbone) -> None:
    raw, preparer = recipe(tmp_path, backbone), Preparer(backbone)
    for overrides in (["prompt.length=2"], ["prompt.length=3"], ["prompt.length=2", "readout.kind=head"]):
        config = resolve(raw, overrides).config
        shared, alone = preparer.prepare(config), prepare(config, backbone)
        assert shared.id == alone.id
        assert shared.rows == alone.rows
        assert shared.config == alone.config


def test_a_task_is_read_once(tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, preparer, loads = recipe(tmp_path, backbone), Preparer(backbone), list[Task]()
    load = preparer._task.__func__  # type: ignore[attr-defined]
    monkeypatch.setattr(Preparer, "_task", lambda self, config: loads.append(load(self, config)) or loads[-1])
    for seed in range(3):
        preparer.prepare(resolve(raw, [f"seeds.noise={seed}"]).config)
    assert len({id(task) for task in loads}) == 1


def test_a_rehearsal_tells_memory_and_time_and_leaves_no_trace(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = recipe(tmp_path, backbone)
    pack = [prepare(resolve(raw, [f"seed={s}"]).config, backbone) for s in (1, 2)]
    steps: list[list[int]] = []
    step = Loop._step

    def spy(self: Loop, batches: Any) -> None:
        steps.append([len(batch) for batch in batches.values()])
        step(self, batches)

    expected = [t.prompt.copy() for t in train_pack(pack)]
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_step", spy)
        found = rehearse(pack)
    assert steps == [[4, 4], [4, 4]]
    assert found.seconds > 0
    assert found.bytes is None or found.bytes >= 0
    for trained, before in zip(train_pack(pack), expected, strict=True):
        assert torch.equal(torch.from_numpy(trained.prompt), torch.from_numpy(before))


def test_a_rehearsal_begins_with_the_longest_rows(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = prepare(resolve(recipe(tmp_path, backbone)).config, backbone)
    taken: list[list[int]] = []
    monkeypatch.setattr(Loop, "_step", lambda self, batches: taken.append(list(batches[0])))
    rehearse([p])
    costs = [row.cost for row in p.rows["train"]]
    assert sorted(costs[i] for i in taken[0]) == sorted(costs)[-4:]


def test_what_depends_on_the_device_is_settled(tmp_path: Path, backbone: Backbone) -> None:
    its = prepare(resolve(recipe(tmp_path, backbone)).config, backbone).config
    assert its.training.max_tokens == 2048
    assert its.backbone.dtype == "float32"
