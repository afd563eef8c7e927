"""Sharpness of several runs: one rule, one set of swaps per backbone, surfaces of the same examples, a file each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.landscape.toy_losses import toy_loss
from trimtab.backbones import Backbone, load_backbone
from trimtab.landscape import measuring
from trimtab.landscape.measuring import alike, measure_all, surfaces_of
from trimtab.landscape.point import LossAt
from trimtab.landscape.relief import relief
from trimtab.landscape.sharpness import PARTS, Protocol
from trimtab.landscape.surface import Surface, write_landscape
from trimtab.landscape.views import Subject

FAST = Protocol(eigenvalues=1, probes=2, steps=3, starts=1, ascent_steps=1, ascents=1, samples=1)
BATCH = {"batch": {"sha256": "b"}}


@pytest.fixture
def subjects(tmp_path: Path, tiny_folder: Path) -> list[Subject]:
    """Two runs on one backbone, whose prompts have opposite signs."""
    eager: Backbone = load_backbone(str(tiny_folder), dtype="float32", device="cpu", attention="eager")
    loss = toy_loss(eager, 2)
    other = LossAt(loss.model, loss.table.with_tensors({"inputs": -loss.table.inputs}), loss.rows)
    found = []
    for name, its in (("a", loss), ("b", other)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "prompt.safetensors").write_bytes(name.encode())
        found.append(Subject(tmp_path / name, f"run {name}", its, facts=BATCH, label_ids=(7,)))
    return found


def surface(batch: str, view: str = "text", points: int = 3) -> Surface:
    x = np.linspace(-1, 1, 3, dtype=np.float32)
    losses = (x[None, :, None] * 2 + x[:, None, None]).astype(np.float32)
    settings = {"points": points, "unit": "common"}
    facts = {"view": view, "batch": {"sha256": batch}, "axes": {"x": {}}, "scale": {"radius": 1.0}}
    facts |= {"settings": settings, "compared": ["a", "b"]}
    return Surface(facts, x, x, losses)


def test_each_run_gets_its_file_and_its_parts_are_told(subjects: list[Subject]) -> None:
    events: list[Any] = []
    found = measure_all(subjects, FAST, events.append)
    assert [s.label for s, _ in found] == ["run a", "run b"]
    for subject, its in found:
        written = json.loads((subject.folder / "landscape" / "sharpness.json").read_text())
        assert (written["label"], written["batch"], written["run"]) == (
            subject.label,
            *BATCH.values(),
            subject.folder.name,
        )
        assert written["loss"] == its.loss
        mine = [e for e in events if e["run"] == subject.label]
        assert sum(e["count"] for e in mine[:-1]) == mine[0]["of"] == 2 * len(PARTS) + 1
        assert (mine[0]["what"], mine[-1]["event"]) == ("parts", "written")
    assert found[0][1].prompt != found[1][1].prompt


def test_runs_on_one_backbone_share_its_words(subjects: list[Subject], monkeypatch: pytest.MonkeyPatch) -> None:
    asked, honest = [], measuring.substitutes

    def watched(backbone: Backbone, labels: tuple[int, ...]) -> Any:
        asked.append(labels)
        return honest(backbone, labels)

    monkeypatch.setattr(measuring, "substitutes", watched)
    measure_all(subjects, FAST)
    assert asked == [(7,)]


def test_surfaces_over_other_grids_do_not_count() -> None:
    text, prompt, other = surface("b"), surface("b", "prompt"), surface("b", "prompt", points=5)
    ours, theirs = {"text": text, "prompt": prompt}, {"text": text, "prompt": other}
    assert alike([ours, theirs]) == [{"text": text}, {"text": text}]
    both = [{"text": text, "prompt": prompt}, {"prompt": prompt}, {}]
    assert alike(both) == both


def test_surfaces_of_the_same_examples_count(subjects: list[Subject]) -> None:
    for subject, batch in zip(subjects, ("b", "another"), strict=True):
        write_landscape(subject.folder, surface(batch))
    assert list(surfaces_of(subjects[0])) == ["text"]
    assert surfaces_of(subjects[1]) == {}
    (_, one), (_, other) = measure_all(subjects, FAST)
    assert one.text is not None
    assert other.text is not None
    its = surface("b")
    expected = relief(its.mean.T, its.x, its.y)
    assert (one.text.range, one.text.slope) == (pytest.approx(6.0), pytest.approx(expected.slope))
    assert (other.text.range, other.text.slope) == (None, None)
