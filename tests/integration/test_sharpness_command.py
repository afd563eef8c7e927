"""Sharpness as a user asks for it: beside the surfaces of a run, and for the runs of a study and its report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.contract.toy_studies import toy_recipe
from tests.tiny import toy_task
from trimtab import api
from trimtab.cli import main
from trimtab.cli.landscape import print_landscapes
from trimtab.documents import dump_yaml
from trimtab.files import read_json
from trimtab.landscape import measuring, sharpness
from trimtab.landscape.sharpness import Protocol

FAST = Protocol(eigenvalues=1, probes=2, steps=3, starts=1, ascent_steps=1, ascents=1, samples=1)
FEW = ("--examples", "4", "--device", "cpu")


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least of everything, with the seed that was asked for."""
    honest = sharpness.measure

    def hurried(loss: Any, lexicon: Any, surfaces: Any, protocol: Protocol, tell: Any) -> Any:
        return honest(loss, lexicon, surfaces, Protocol(**{**vars(FAST), "seed": protocol.seed}), tell)

    monkeypatch.setattr(measuring, "measure", hurried)


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in arguments])
    return int(stopped.value.code or 0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("sharpness")
    recipe: dict[str, Any] = {
        "backbone": {"model": str(tiny_folder), "dtype": "float32"},
        "task": toy_task(folder, n=16),
        "prompt": {"kind": "prompt_tuning", "length": 3},
        "training": {"max_steps": 4, "min_steps": 4, "evaluations": 1},
    }
    return Path(api.run(recipe, runs_dir=folder / "runs", device="cpu")["run"])


def test_the_table_is_printed_and_the_file_written(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("landscape", run, *FEW, "--points", "3", "--view", "text", "--seed", "5") == 0
    captured = capsys.readouterr()
    assert "sharpness, prompt_tuning: 11 parts" in captured.err
    for words in ("Sharpness; u is", "top eigenvalue, texts", "ε-sharpness, prompt", "max − min, texts"):
        assert words in captured.out
    its = read_json(run / "landscape" / "sharpness.json")
    assert its["protocol"]["seed"] == 5
    assert len(its["batch"]["examples"]) == 4
    assert its["text"]["range"] > 0
    assert its["prompt"]["range"] is None
    assert its["words"]["swaps"] > 0


def test_what_could_not_be_measured_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    its = {"label": "a", "loss": 0.5, "text": None, "prompt": None, "words": None, "findings": ["text: nothing there"]}
    print_landscapes({"surfaces": [], "pairs": [], "files": [], "notes": [], "sharpness": [its]})
    assert "  a: text: nothing there" in capsys.readouterr().out


def test_it_can_be_left_out_and_redrawn(run: Path, tmp_path: Path) -> None:
    before = (run / "landscape" / "sharpness.json").read_bytes()
    found = api.landscape([run], ["text"], points=3, examples=3, device="cpu", sharpness=False)
    assert (run / "landscape" / "sharpness.json").read_bytes() == before
    assert [its["label"] for its in found["sharpness"]] == ["prompt_tuning"]
    assert api.landscape([run], redraw=True)["sharpness"] == found["sharpness"]


def test_the_runs_of_a_study_are_measured_and_its_report_shows_them(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.yaml").write_text(dump_yaml(toy_recipe(tmp_path, tiny_folder)))
    axes = {"prompt.kind": ["prompt_tuning", "residual", "deep"]}
    (tmp_path / "toy.yaml").write_text(dump_yaml({"recipe": "recipe.yaml", "axes": axes, "seeds": 2}))
    folder = tmp_path / "toy"
    api.study(tmp_path / "toy.yaml", studies_dir=tmp_path, device="cpu")
    assert api.report(folder)["stability"] == []
    assert call("landscape", "--study", folder, *FEW, "-q") == 0
    said = capsys.readouterr().out
    assert said.count("prompt_tuning, seed") == 2
    assert "page" not in said
    assert len(list(folder.glob("runs/*/landscape/sharpness.json"))) == 6
    assert not list(folder.glob("runs/*/landscape/*.safetensors"))
    (group,) = api.report(folder)["stability"]
    assert [(p["label"], p["measured"]) for p in group["points"]] == [
        ("prompt_tuning", 2), ("residual", 2), ("deep", 2)
    ]  # fmt: skip
    assert group["correlations"]["prompt.top_eigenvalue"]["mean"]["n"] == 3
    assert '<h2 id="stability">' in (folder / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((), "got neither"), (("RUN", "--study", "STUDY"), "not both"), (("--study", "STUDY"), "there is no such folder")],
)
def test_runs_or_a_study_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert call("landscape", *(a.replace("STUDY", str(tmp_path / "none")) for a in arguments)) == 2
    assert said in capsys.readouterr().err
