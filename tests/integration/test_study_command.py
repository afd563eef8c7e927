"""`trimtab study` end to end, on a tiny model in a temporary folder, as a user types it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.contract.fake_services import pretend
from tests.contract.toy_studies import toy_recipe
from tests.integration.test_command_line import Trimtab, trimtab  # noqa: F401  (a fixture)
from trimtab.documents import dump_yaml
from trimtab.studies.folder import StudyFolder


@pytest.fixture
def study(tmp_path: Path, tiny_folder: Path) -> Path:
    """Two prompts, two seeds; the recipe lies beside the study."""
    (tmp_path / "recipe.yaml").write_text(dump_yaml(toy_recipe(tmp_path, tiny_folder)))
    path = tmp_path / "toy.yaml"
    axes = {"prompt.kind": ["prompt_tuning", "residual"]}
    path.write_text(dump_yaml({"recipe": "recipe.yaml", "axes": axes, "seeds": 2}))
    return path


def test_a_dry_run_shows_packs_memory_and_time_and_writes_nothing(trimtab: Trimtab, study: Path) -> None:  # noqa: F811
    before = sorted(study.parent.rglob("*"))
    done = trimtab("study", study, "--dry-run", "seeds=3", "--quiet")
    assert done.code == 0, done.err
    assert "toy: 6 grid runs, 2 lines to compare" in done.out
    for words in ("prompt.kind prompt_tuning", "prompt.kind residual", "on 1 worker"):
        assert words in done.out
    assert len(re.findall(r"1 x 3 +[\d.,]+ (?:[KMG]i)?B +[\d.,]+ s", done.out)) == 2
    assert "nothing was trained or written" in done.out
    assert sorted(study.parent.rglob("*")) == before
    found = trimtab("study", study, "--dry-run", "--quiet", "--json").json
    assert [(g["runs"], g["packs"]) for g in found["groups"]] == [(2, 1), (2, 1)]


def test_a_study_trains_its_runs_and_a_second_call_trains_none(trimtab: Trimtab, study: Path) -> None:  # noqa: F811
    done = trimtab("study", study)
    assert done.code == 0, done.err
    assert "4 runs, 0 of them ended before, 4 to train" in done.err
    assert "2 packs of up to 2 runs" in done.err
    folder = StudyFolder(study.parent / "studies" / "toy")
    assert [run.status for run in folder.read()] == ["done"] * 4
    assert {p.name for p in folder.path.iterdir()} >= {"study.yaml", "plan.json", "ledger.jsonl", "packs.jsonl", "runs"}
    again = trimtab("study", study)
    assert again.code == 0
    assert "4 runs, 4 of them ended before, 0 to train" in again.err


def test_a_study_yaml_is_named_by_its_folder(trimtab: Trimtab, study: Path) -> None:  # noqa: F811
    other = study.with_name("study.yaml")
    study.rename(other)
    found = trimtab("study", other, "--dry-run", "--quiet", "--json").json
    assert Path(found["folder"]).name == study.parent.name
    assert Path(trimtab("study", other, "--name", "x", "--dry-run", "--json").json["folder"]).name == "x"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["axes.prompt.lenght=[1]"],
            "prompt.lenght (prompt.kind=prompt_tuning, prompt.lenght=1): there is no such key",
        ),
        (["axes.prompt.length=[]"], "axes.prompt.length: an axis without values"),
        (["--on", "slurm"], "--on: there is no executor 'slurm'. Use local or ray."),
        (["--workers", "0"], "--workers: there must be at least one worker"),
        (["--on", "ray", "--address", "127.0.0.1:1"], "--address: nothing answers at 127.0.0.1:1"),
        (["pack.memory=lots"], "pack.memory: a size is written as 4 GiB"),
    ],
)
def test_mistakes_are_one_paragraph_and_leave_nothing(
    trimtab: Trimtab, study: Path, arguments: list[str], words: str  # noqa: F811
) -> None:  # fmt: skip
    done = trimtab("study", study, *arguments)
    assert done.code == 2
    assert words in done.err
    assert done.err.strip().count("\n") == 0
    assert not (study.parent / "studies").exists()


def test_another_plan_and_an_edited_run_are_refused(trimtab: Trimtab, study: Path) -> None:  # noqa: F811
    assert trimtab("study", study, "seeds=1", "--quiet").code == 0
    done = trimtab("study", study, "seeds=2", "--quiet")
    assert done.code == 2
    assert "the folder holds another plan: it has 0 runs that the new plan lacks and lacks 2 of its 4." in done.err
    assert trimtab("study", study, "seeds=2", "--extend", "--quiet").code == 0
    folder = StudyFolder(study.parent / "studies" / "toy")
    run = folder.read()[0].folder
    assert run is not None
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "seconds": 0}))
    done = trimtab("study", study, "seeds=2", "--quiet")
    assert done.code == 2
    assert "not as it was when the run ended: run.json. Restore it, or remove the folder" in done.err


def test_a_study_is_followed_by_trackers(
    trimtab: Trimtab, study: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    wandb = pretend(monkeypatch, "wandb")
    refused = trimtab("study", study, "--track", "wandb: {projct: x}")
    assert refused.code == 2
    assert "track.projct: there is no such key. Did you mean 'project'?" in refused.err
    assert not (study.parent / "studies").exists()
    done = trimtab("study", study, "--track", "wandb: {project: x}", "--quiet")
    assert done.code == 0, done.err
    assert [(r.place, r.group, r.status) for r in wandb.records.values()] == [("x", "toy", ("done", 0))] * 4
