"""Pictures and pages from files alone: each run in its folder, several side by side."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.refusals import refused
from tests.unit.reports.made_landscapes import surface, write_runs
from trimtab.errors import BundleError, DataError
from trimtab.landscape.surface import write_landscape
from trimtab.reports import landscapes
from trimtab.reports.landscapes import write_pictures
from trimtab.reports.surface_pictures import MISSING


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, object]]:
    """What is drawn, in place of drawing: (kind, surfaces, scale)."""
    told: list[tuple[str, int, object]] = []

    def told_of(kind: str):
        def draw(its, scale=None):
            told.append((kind, len(its) if isinstance(its, list) else 1, scale))
            return {"svg": b"<svg/>", "png": b"png"}

        return draw

    for kind in ("contours", "reliefs", "curves"):
        monkeypatch.setattr(landscapes, kind, told_of(kind))
    return told


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


def test_one_run_has_its_pictures_and_a_page(tmp_path: Path, drawn: list) -> None:
    (folder,) = write_runs(tmp_path, ["alone"])
    found = write_pictures([folder])
    there = names(folder / "landscape")
    for stem in ("text", "text-3d", "prompt", "prompt-3d", "plane", "plane-3d", "path"):
        assert {f"{stem}.svg", f"{stem}.png"} <= there
    assert "landscape.html" in there
    assert not {n for n in there if n.startswith("compare")}
    told = {Path(f).name for f in found["files"]}
    assert told >= {"text.safetensors", "text.png", "path.svg", "landscape.html"}
    assert all(Path(f).exists() for f in found["files"])
    first = found["surfaces"][0]
    assert (first["run"], first["label"], first["view"]) == ("run-0", "alone", "text")
    assert [first[k] for k in ("loss", "lowest", "highest")] == pytest.approx([0.5, 0.5, 3.5])
    assert [p["barrier"] for p in found["pairs"]] == [0.75, 0.75]
    assert found["notes"] == []


def test_runs_that_are_drawn_together_share_their_scale_and_a_page(tmp_path: Path, drawn: list) -> None:
    folders = write_runs(tmp_path)
    write_pictures(folders, ["text"])
    assert [(kind, n) for kind, n, _ in drawn] == [("contours", 1), ("reliefs", 1)] * 2 + [
        ("contours", 2),
        ("reliefs", 2),
    ]
    scales = {scale for _, _, scale in drawn}
    assert len(scales) == 1
    (scale,) = scales
    assert (scale.low, scale.high, scale.log) == pytest.approx((0.5, 6.5, False))
    first, second = (names(f / "landscape") for f in folders)
    assert {"compare-text.svg", "compare-text-3d.png", "compare.html", "landscape.html"} <= first
    assert "landscape.html" in second
    assert "compare.html" not in second


@pytest.mark.parametrize(
    ("view", "other", "said"),
    [
        ("text", {"batch": {"sha256": "1" * 64}}, "those of the view 'text' differ in their examples."),
        ("text", {"settings": {"seed": 1}}, "differ in their grid, directions, unit or seed."),
        ("prompt", {"compared": ["run-1"]}, "those of the view 'prompt' differ in their unit of length."),
    ],
)
def test_surfaces_that_were_computed_in_other_ways_do_not_stand_side_by_side(
    tmp_path: Path, drawn: list, view: str, other: dict, said: str
) -> None:
    folders = write_runs(tmp_path)
    its = surface("run-1", view=view, compared=["run-0", "run-1"])
    changed = {k: {**its.facts[k], **v} if isinstance(v, dict) else v for k, v in other.items()}
    write_landscape(folders[1], replace(its, facts={**its.facts, **changed}))
    with refused(DataError, said, where=f"{folders[0]}, {folders[1]}", fix="Compute them together"):
        write_pictures(folders, [view])
    assert drawn == []
    for folder in folders:
        write_pictures([folder], [view])


def test_texts_have_one_unit_whoever_was_looked_at_and_packing_changes_nothing(tmp_path: Path, drawn: list) -> None:
    folders = write_runs(tmp_path)
    its = surface("run-1", compared=["run-1"])
    settings = {**its.facts["settings"], "max_tokens": 30}
    write_landscape(folders[1], replace(its, facts={**its.facts, "settings": settings}))
    write_pictures(folders, ["text"])
    assert ("reliefs", 2) in [(kind, n) for kind, n, _ in drawn]


def test_pictures_of_several_runs_go_where_they_are_asked(tmp_path: Path, drawn: list) -> None:
    write_pictures(write_runs(tmp_path), ["text"], out=tmp_path / "figures", log=True)
    assert names(tmp_path / "figures") == {"compare-text.svg", "compare-text.png", "compare-text-3d.svg",
                                           "compare-text-3d.png", "compare.html"}  # fmt: skip
    assert {scale.log for _, _, scale in drawn} == {True}


def test_the_page_of_a_run_keeps_views_that_were_drawn_before(tmp_path: Path, drawn: list) -> None:
    (folder,) = write_runs(tmp_path, ["alone"])
    write_pictures([folder], ["path"])
    assert {kind for kind, _, _ in drawn} == {"curves"}
    page = (folder / "landscape" / "landscape.html").read_text()
    assert "Around the texts" in page
    assert "Between the prompts" in page


def test_what_was_not_computed_cannot_be_drawn(tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    with refused(BundleError, "no landscape of the view 'text'", where=str(folder), fix="trimtab landscape"):
        write_pictures([folder], ["text"])
    with refused(BundleError, "there is no landscape to be drawn", where=str(folder), fix="leave --redraw out"):
        write_pictures([folder])


def test_without_matplotlib_there_is_a_page_and_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landscapes, "can_draw", lambda: False)
    folders = write_runs(tmp_path)
    found = write_pictures(folders)
    assert found["notes"] == [MISSING]
    assert "pip install" in MISSING
    assert not [n for f in folders for n in names(f / "landscape") if n.endswith(("svg", "png"))]
    assert (folders[0] / "landscape" / "compare.html").exists()


def test_drawing_needs_no_torch() -> None:
    code = "import sys, trimtab.reports.landscapes; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "False"
