"""`trimtab landscape` as a user types it, on runs of a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tiny import toy_task
from trimtab import api
from trimtab.cli import main
from trimtab.landscape.surface import Surface, read_landscape

SMALL = ("--points", "5", "--examples", "6", "--no-sharpness")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> list[Path]:
    """Three seeds of a prompt."""
    folder = tmp_path_factory.mktemp("landscapes")
    recipe: dict[str, Any] = {
        "backbone": {"model": str(tiny_folder), "dtype": "float32"},
        "task": toy_task(folder, n=16),
        "prompt": {"kind": "prompt_tuning", "length": 3},
        "training": {"max_steps": 10, "min_steps": 10, "evaluations": 1, "learning_rate": 0.05},
    }
    return [Path(api.run({**recipe, "seed": s}, runs_dir=folder / "runs", device="cpu")["run"]) for s in (1, 2, 3)]


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in arguments])
    return int(stopped.value.code or 0)


def test_one_command_draws_a_run(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("landscape", runs[0], *SMALL, "--device", "cpu") == 0
    captured = capsys.readouterr()
    assert captured.err.splitlines() == ["text, prompt_tuning: 25 points", "prompt, prompt_tuning: 25 points"]
    assert captured.out.splitlines()[0].strip() == "Mean loss, nats"
    page = runs[0] / "landscape" / "landscape.html"
    assert f"page      {page}" in captured.out
    assert "Around the prompt" in page.read_text()
    for view in ("text", "prompt"):
        assert isinstance(read_landscape(runs[0], view), Surface)
        for suffix in (".svg", ".png", "-3d.svg", "-3d.png"):
            assert (runs[0] / "landscape" / f"{view}{suffix}").stat().st_size > 1000


def test_the_same_run_gives_the_same_numbers_by_id_and_by_path(runs: list[Path]) -> None:
    options: dict[str, Any] = {"points": 3, "examples": 4, "device": "cpu", "views": ["text"], "sharpness": False}
    api.landscape([runs[0]], **options)
    first = read_landscape(runs[0], "text")
    api.landscape([runs[0].name], runs_dir=runs[0].parent, max_tokens=30, **options)
    second = read_landscape(runs[0], "text")
    np.testing.assert_allclose(first.losses, second.losses, rtol=1e-4, atol=1e-5)
    assert first.facts["batch"] == second.facts["batch"]


def test_seeds_are_compared_on_paths_and_a_plane(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    views = ("--view", "path", "--view", "plane")
    assert call("landscape", *runs, *SMALL, *views, "--out", tmp_path, "--device", "cpu", "--json", "-q") == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["pairs"]) == 3
    assert {p["from"] for p in found["pairs"]} == {"prompt_tuning, seed 1", "prompt_tuning, seed 2"}
    assert [s["view"] for s in found["surfaces"]] == ["plane"]
    assert (tmp_path / "compare.html").exists()
    its = read_landscape(runs[0], "path")
    x = its.x.tolist()
    own = api.evaluate(runs[1], "test", device="cpu").metrics["rows"]
    assert own == 16
    plane = read_landscape(runs[0], "plane")
    ends = [float(its.mean[0, x.index(1.0)]), float(its.mean[1, x.index(1.0)])]
    assert ends == pytest.approx([m["loss"] for m in plane.facts["marks"][1:]], rel=1e-4)


def test_pictures_are_drawn_again_from_the_arrays(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    api.landscape([runs[2]], points=3, examples=4, device="cpu", views=["prompt"], sharpness=False)
    folder = runs[2] / "landscape"
    arrays, picture = (folder / "prompt.safetensors").read_bytes(), (folder / "prompt.svg").read_bytes()
    for file in (*folder.glob("*.svg"), *folder.glob("*.png"), *folder.glob("*.html")):
        file.unlink()
    weights = runs[2] / "prompt.safetensors"
    kept = weights.read_bytes()
    weights.unlink()  # nothing is computed
    try:
        assert call("landscape", runs[2], "--redraw") == 0
    finally:
        weights.write_bytes(kept)
    assert (folder / "prompt.svg").read_bytes() == picture
    assert (folder / "prompt.safetensors").read_bytes() == arrays
    assert (folder / "landscape.html").exists()
    assert call("landscape", runs[2], "--redraw", "--log") == 0
    assert (folder / "prompt.svg").read_bytes() != picture


def test_data_that_has_changed_is_refused(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    test = next(runs[0].parents[1].glob("test.jsonl"))
    kept = test.read_text()
    test.write_text("".join(kept.splitlines(keepends=True)[:-1]))
    try:
        assert call("landscape", runs[0], *SMALL) == 2
        assert "the data has changed since the run" in capsys.readouterr().err
        test.unlink()
        assert call("landscape", runs[0], *SMALL) == 2
        assert "test.jsonl" in capsys.readouterr().err
    finally:
        test.write_text(kept)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--view", "tekst"), "there is no view 'tekst'. Did you mean 'text'?"),
        (("--points", "4"), "Use 5."),
        (("--split", "tests"), "there is no split 'tests'"),
        (("--view", "plane"), "through the prompts of three runs, got 1"),
        (("--redraw", "--view", "path", "--runs-dir", "elsewhere"), "no landscape of the view 'path'"),
    ],
)
def test_mistakes_are_explained(
    runs: list[Path], capsys: pytest.CaptureFixture[str], options: tuple[str, ...], said: str
) -> None:
    assert call("landscape", runs[1], *options) == 2
    assert said in capsys.readouterr().err


def test_a_grid_that_does_not_fit_into_memory_is_refused(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("landscape", runs[0], "--points", "1000001", "--device", "cpu", "--view", "prompt", "-q") == 2
    said = capsys.readouterr().err
    assert "1,000,002,000,001 points" in said
    assert "Lower --points" in said
