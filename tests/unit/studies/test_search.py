"""Search: the same trials whenever it is asked, told in order, and only fresh seeds reported."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.contract.toy_studies import Recorder, carried_out, toy_study
from tests.unit.refusals import refused
from trimtab.errors import ConfigError
from trimtab.studies.analysis.lines import build_lines
from trimtab.studies.definition import StudyConfig, check_study
from trimtab.studies.folder import StudyFolder, StudyRun
from trimtab.studies.search import Searcher, score_of

SPACE = {"training.learning_rate": {"low": 1e-3, "high": 1.0, "log": True}, "prompt.length": [2, 4]}
RECIPE = {"task": {"kind": "support_desk"}}


def study(**search: Any) -> StudyConfig:
    return check_study({"recipe": RECIPE, "search": {"space": SPACE, "trials": 6, "batch": 4, **search}})


def settings(searcher: Searcher, score: float = 0.5) -> list[dict[str, Any]]:
    """All trials of a search whose scores fall with the learning rate."""
    found = []
    while searcher.left:
        for trial in searcher.ask():
            found.append(dict(trial.setting))
            searcher.tell(trial, (score - trial.setting["training.learning_rate"], 0.0))
    return found


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_same_search_asks_the_same(sampler: str) -> None:
    found = settings(Searcher(study(sampler=sampler), {}))
    assert len(found) == 6
    assert found == settings(Searcher(study(sampler=sampler), {}))
    assert found != settings(Searcher(study(sampler=sampler, seed=1), {}))
    assert all(1e-3 <= s["training.learning_rate"] <= 1 and s["prompt.length"] in (2, 4) for s in found)


def test_a_grid_is_tried_once_and_whole() -> None:
    space = {"training.learning_rate": [0.01, 0.1, 1.0], "prompt.length": [2, 4]}
    its = study(sampler="grid", space=space, trials=0)
    found = settings(Searcher(its, {}))
    expected = [{"training.learning_rate": r, "prompt.length": n} for r in (0.01, 0.1, 1.0) for n in (2, 4)]
    assert found == expected
    assert its.search is not None
    assert its.search.count(its.search.space) == 6


@pytest.mark.parametrize(
    ("search", "what", "where"),
    [
        ({"trials": 0}, "a grid has lists of values, no ranges", "search.space.training.learning_rate"),
        ({"space": {"prompt.length": [2, 4]}, "trials": 3}, "the grid has 2 settings, got 3 trials", "search.trials"),
    ],
)
def test_what_is_no_grid_is_refused(search: dict[str, Any], what: str, where: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        study(sampler="grid", **search)
    assert caught.value.where == where


def test_batches_are_of_the_size_that_was_asked_for() -> None:
    searcher = Searcher(study(), {})
    sizes = []
    while searcher.left:
        trials = searcher.ask()
        sizes.append(len(trials))
        for trial in trials:
            searcher.tell(trial, (0.0, 0.0))
    assert sizes == [4, 2]


def test_a_sampler_that_learns_comes_closer_than_one_that_does_not() -> None:
    def late_distance(sampler: str) -> float:
        total = 0.0
        for seed in range(2):
            searcher = Searcher(study(sampler=sampler, seed=seed, trials=24, batch=8), {})
            rates = [s["training.learning_rate"] for s in settings(searcher)]
            total += sum(rates[-8:])
        return total

    assert late_distance("tpe") < 0.5 * late_distance("random")


def test_whole_numbers_stay_whole_and_values_may_be_anything() -> None:
    space = {"prompt.length": {"low": 2, "high": 8, "step": 2}, "prompt.initializer": [{"kind": "uniform"}],
             "training.warmup": {"low": 0.0, "high": 0.5}}  # fmt: skip
    given = check_study({"recipe": RECIPE, "search": {"space": space, "trials": 4}})
    for trial in Searcher(given, {}).ask():
        assert trial.setting["prompt.length"] in (2, 4, 6, 8)
        assert isinstance(trial.setting["prompt.length"], int)
        assert trial.setting["prompt.initializer"] == {"kind": "uniform"}
        assert 0 <= trial.setting["training.warmup"] <= 0.5


def run(score: float | None, loss: float = 1.0, majority: float | None = 0.3) -> StudyRun:
    metrics = {"dev": {"accuracy": score, "loss": loss}}
    record = {"metrics": metrics, "metric": "accuracy", "baselines": {"majority": majority}}
    return StudyRun("k", "trial", "done", {}, {}, record=record if score is not None else {})


def test_scores_are_means_over_seeds_and_failures_count_as_the_constant_answer() -> None:
    assert score_of([run(0.5, 1.0), run(0.7, 2.0)]) == (pytest.approx(0.6), -1.5)
    assert score_of([run(0.5), run(None)]) == (pytest.approx(0.4), -1.0)
    assert score_of([run(0.5, majority=None), run(None)]) == (pytest.approx(0.25), -1.0)
    assert score_of([run(None)]) == (0.0, float("-inf"))


def test_the_best_has_the_best_score_then_the_lower_loss_then_came_first() -> None:
    searcher = Searcher(study(trials=4), {})
    trials = searcher.ask()
    for trial, score in zip(trials, [(0.5, -1.0), (0.6, -2.0), (0.6, -1.0), (0.6, -1.0)], strict=True):
        searcher.tell(trial, score)
    assert searcher.best == trials[2].setting


def test_a_key_that_no_recipe_has_is_refused_before_the_search() -> None:
    given = check_study({"recipe": RECIPE, "search": {"space": {"prompt.lenght": [1]}}})
    with refused(ConfigError, "no such key", where="prompt.lenght (prompt.lenght=1)", fix="'length'"):
        Searcher(given, {}).check()
    given = check_study({"recipe": RECIPE, "search": {"space": {"prompt.length": {"low": -1, "high": 3, "step": 1}}}})
    with refused(ConfigError, "greater than", where="prompt.length (prompt.length=-1)"):
        Searcher(given, {}).check()


def test_without_optuna_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with refused(ConfigError, "needs Optuna", where="search", fix="pip install 'trimtab[search]'"):
        Searcher(study(), {})


ARMS = {"manual": {"prompt.kind": "manual"}, "soft": {}, "tuned": {"prompt.kind": "none"}}
RATES = {"training.learning_rates.backbone": [1e-4, 1e-3]}


def test_arms_may_have_spaces_of_their_own() -> None:
    spaces = {"manual": {}, "tuned": RATES}
    its = check_study({
        "recipe": RECIPE, "arms": ARMS,
        "search": {"space": {"training.learning_rate": [0.1, 1.0]}, "spaces": spaces, "sampler": "grid"},
    })  # fmt: skip
    assert its.tuned == ("training.learning_rate", "training.learning_rates.backbone")
    assert its.compared == ("arm",)
    found = {arm: Searcher(its, {"arm": arm}) for arm in ARMS}
    asked = {arm: [dict(t.setting) for t in searcher.ask()] for arm, searcher in found.items()}
    assert asked == {
        "manual": [],
        "soft": [{"training.learning_rate": 0.1}, {"training.learning_rate": 1.0}],
        "tuned": [{"training.learning_rates.backbone": 1e-4}, {"training.learning_rates.backbone": 1e-3}],
    }
    assert found["manual"].best == {}


@pytest.mark.parametrize(
    ("spaces", "what", "where", "fix"),
    [
        ({"tuned": {"training.learning_rate": [0.1]}}, "has 1 settings, that of search.space 2", "search.spaces.tuned",
         "{} where there is nothing to tune"),
        ({"tuned": {"training.learning_rate": {"low": 1, "high": 2}}}, "no ranges",
         "search.spaces.tuned.training.learning_rate", None),
        ({"tunde": RATES}, "no such arm", "search.spaces.tunde", "tuned"),
    ],
)  # fmt: skip
def test_spaces_of_arms_that_cannot_be_are_refused(spaces: Any, what: str, where: str, fix: str | None) -> None:
    search = {"space": {"training.learning_rate": [0.1, 1.0]}, "spaces": spaces, "sampler": "grid"}
    with refused(ConfigError, what, where=where, fix=fix):
        check_study({"recipe": RECIPE, "arms": ARMS, "search": search})


class Killed(BaseException):
    pass


def test_a_line_without_anything_to_tune_has_its_final_runs_alone(tmp_path: Path, tiny_folder: Path) -> None:
    given = toy_study(
        tmp_path, tiny_folder, axes={}, arms={"manual": {"prompt.kind": "manual"}, "soft": {}},
        search={"space": {"training.learning_rate": [0.01, 0.1]}, "spaces": {"manual": {}}, "sampler": "grid"},
    )  # fmt: skip
    runs = carried_out(given, tmp_path / "study").read()
    stages = [(r.cell["arm"], r.stage, r.status) for r in runs]
    assert sorted(set(stages)) == [("manual", "final", "done"), ("soft", "final", "done"), ("soft", "trial", "done")]
    assert stages.count(("soft", "trial", "done")) == 2
    lines = {line.cell["arm"]: line for line in build_lines(given, runs)}
    assert lines["manual"].chosen is not None
    assert lines["manual"].chosen.cell == {}
    assert set(lines["soft"].chosen.cell) == {"training.learning_rate"}  # type: ignore[union-attr]


def test_a_searched_study_reports_fresh_seeds_and_survives_a_kill(tmp_path: Path, tiny_folder: Path) -> None:
    space = {"training.learning_rate": {"low": 1e-4, "high": 0.3, "log": True}}
    given = toy_study(
        tmp_path, tiny_folder, axes={"prompt.kind": ["prompt_tuning", "residual"]},
        search={"space": space, "trials": 3, "batch": 2, "seeds": 1},
    )  # fmt: skip
    folder = carried_out(given, tmp_path / "peace")
    stages = [(r.stage, r.cell["prompt.kind"]) for r in folder.read()]
    for kind in ("prompt_tuning", "residual"):
        assert stages.count(("trial", kind)) == 3
        assert stages.count(("final", kind)) == 2
        trials = [r for r in folder.read() if r.stage == "trial" and r.cell["prompt.kind"] == kind]
        best = max(trials, key=lambda r: score_of([r]))
        finals = [r for r in folder.read() if r.stage == "final" and r.cell["prompt.kind"] == kind]
        assert {r.cell["training.learning_rate"] for r in finals} == {best.cell["training.learning_rate"]}
        assert {r.seeds["init"] for r in finals}.isdisjoint({r.seeds["init"] for r in trials})

    jobs: list[int] = []

    def before(job: Any) -> None:
        jobs.append(1)
        if len(jobs) == 4:
            raise Killed

    with pytest.raises(Killed):
        carried_out(given, tmp_path / "killed", Recorder(before))
    carried_out(given, tmp_path / "killed")
    again = StudyFolder(tmp_path / "killed")
    assert {r.key: (r.status, r.record["metrics"]) for r in again.read()} == {
        r.key: (r.status, r.record["metrics"]) for r in folder.read()
    }
