"""From run folders to landscapes: the same examples for all, one backbone, files in each folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.contract.toy_runs import toy_examples, toy_run
from tests.tiny import save_tiny_model, tiny_backbone
from tests.unit.refusals import refused
from trimtab.backbones import Backbone
from trimtab.documents import dump_yaml, read_yaml
from trimtab.errors import ConfigError, DataError
from trimtab.files import read_json
from trimtab.landscape.point import opened
from trimtab.landscape.surface import Surface, read_landscape
from trimtab.landscape.survey import check_views, labels_of, open_subjects, sampled, survey
from trimtab.landscape.views import Settings
from trimtab.training.runs import run_pack


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, backbone: Backbone) -> list[Path]:
    """Vanilla, with a regularizer, and deep; the first with two more seeds."""
    folder = tmp_path_factory.mktemp("survey")
    recipes: list[Mapping[str, Any]] = [
        {},
        {"regularizers": [{"kind": "pgd"}]},
        {"prompt": {"kind": "deep", "length": 2}},
        {"seed": 2},
    ]
    recipes = [{**r, "training": {"max_steps": 4, "evaluations": 1}} for r in recipes]
    return [Path(run_pack([toy_run(folder, backbone, r)], folder / "runs")[0]["run"]) for r in recipes]


def test_the_sample_is_drawn_from_what_all_runs_have() -> None:
    first, second = toy_examples(12), toy_examples(12)[4:] + toy_examples(3, seed=9)
    found = sampled([first, second], "test", 5, 0)
    assert len(found.examples) == 5
    assert {e.id for e in found.examples} <= {e.id for e in first[4:]}
    assert [first.index(e) for e in found.examples] == sorted(first.index(e) for e in found.examples)
    assert sampled([first, second], "test", 5, 0) == found
    assert sampled([first, second], "test", 5, 1) != found
    assert len(sampled([first, second], "test", 99, 0).examples) == 8
    told = found.as_json()
    assert told["examples"] == [e.id for e in found.examples]
    assert told["sha256"] != sampled([first, second], "test", 5, 1).as_json()["sha256"]


def test_runs_without_common_examples_are_refused() -> None:
    with refused(DataError, "have none of 'dev' in common", where="landscape", fix="one task"):
        sampled([toy_examples(4), toy_examples(4, seed=5)], "dev", 2, 0)


def test_a_sample_of_nothing_is_refused() -> None:
    with refused(ConfigError, "one example at least, got 0", where="--examples", fix=None):
        sampled([toy_examples(4)], "dev", 0, 0)


def test_an_unknown_view_is_refused() -> None:
    with refused(ConfigError, "there is no view 'tekst'", where="--view", fix="'text'"):
        check_views(["tekst"])


def test_labels_say_what_differs(runs: list[Path]) -> None:
    vanilla, pgd, deep, other = runs
    assert labels_of([vanilla]) == ["prompt_tuning"]
    assert labels_of([vanilla, pgd, deep]) == ["prompt_tuning", "prompt_tuning + pgd", "deep"]
    assert labels_of([vanilla, other]) == ["prompt_tuning, seed 1", "prompt_tuning, seed 2"]
    assert labels_of([vanilla, other, deep])[2] == "deep"
    assert labels_of([vanilla, vanilla])[0].endswith(vanilla.name.rpartition("-")[2])


def test_labels_name_the_seed_that_differs(runs: list[Path], tmp_path: Path) -> None:
    folders = [Path(shutil.copytree(runs[0], tmp_path / f"toy-{i}")) for i in range(2)]
    config = read_yaml(folders[1] / "config.yaml")
    config["seeds"]["data_order"] = 7
    (folders[1] / "config.yaml").write_text(dump_yaml(config))
    assert labels_of(folders) == ["prompt_tuning, seed data order 1", "prompt_tuning, seed data order 7"]
    (folders[1] / "config.yaml").unlink()
    assert labels_of(folders) == ["prompt_tuning", "toy-1"]


def test_a_survey_writes_every_view_of_every_run(runs: list[Path]) -> None:
    sample, told = sampled([toy_examples(8, seed=2)], "test", 4, 0), list[Mapping[str, Any]]()
    subjects = open_subjects(runs[:3], sample, device="cpu")
    assert len({id(s.loss.model.backbone.model) for s in subjects}) == 1
    found = survey(subjects, ["text", "prompt"], Settings(points=3), told.append)
    assert [(s.folder, its.facts["view"]) for s, its in found] == [(r, v) for v in ("text", "prompt") for r in runs[:3]]
    assert [e["view"] for e in told if e["event"] == "written"] == ["text"] * 3 + ["prompt"] * 3
    for folder in runs[:3]:
        for view in ("text", "prompt"):
            its = read_landscape(folder, view)
            assert isinstance(its, Surface)
            assert its.losses.shape == (3, 3, 4)
            assert its.facts["batch"] == sample.as_json()
            assert its.facts["settings"]["points"] == 3
            assert its.facts["environment"]["dtype"] == "float32"
    steps = [read_landscape(f, "text").facts["scale"]["step"] for f in runs[:3]]
    assert len(set(steps)) == 1
    assert "deep.self" not in read_json(runs[0] / "landscape" / "prompt.json")


@pytest.mark.parametrize("which", [0, 2])
def test_the_centre_of_the_grid_is_what_evaluate_finds(runs: list[Path], which: int) -> None:
    sample = sampled([toy_examples(10, seed=3)], "test", 6, 0)
    subject = open_subjects([runs[which]], sample, device="cpu")[0]
    predictions = opened(runs[which], device="cpu").evaluate(sample.examples).predictions
    expected = torch.stack([-torch.tensor(p.scores[p.gold]).log() for p in predictions])
    for _, its in survey([subject], ["text", "prompt"], Settings(points=5)):
        assert isinstance(its, Surface)
        torch.testing.assert_close(torch.from_numpy(its.losses[2, 2]), expected, rtol=1e-5, atol=1e-6)


def test_a_run_named_twice_is_refused(runs: list[Path]) -> None:
    sample = sampled([toy_examples(4)], "test", 2, 0)
    with refused(ConfigError, "each run is named once", where=f"{runs[0]}, {runs[0]}", fix="Leave the second out"):
        open_subjects([runs[0], runs[0]], sample)


def test_runs_on_several_backbones_are_refused(runs: list[Path], tmp_path: Path) -> None:
    other = toy_run(
        tmp_path, tiny_backbone(save_tiny_model(tmp_path / "other", seed=1)), {"training": {"max_steps": 2}}
    )
    strange = Path(run_pack([other], tmp_path / "runs")[0]["run"])
    sample = sampled([toy_examples(4)], "test", 2, 0)
    with refused(ConfigError, "on one backbone, got 2", where=f"{runs[0]}, {strange}", fix="for each backbone"):
        open_subjects([runs[0], strange], sample, device="cpu")
