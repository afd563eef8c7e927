"""study.json against numbers worked out by hand, from study folders with known scores."""

from __future__ import annotations

import copy
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.study_folders import ROWS, Result, enter, write_study
from trimtab.errors import BundleError, TrimtabError
from trimtab.reports.comparison_tables import aggregate
from trimtab.reports.study import write_report
from trimtab.reports.tables import cost, headline
from trimtab.studies.analysis import analyse
from trimtab.studies.analysis.findings import findings
from trimtab.studies.definition import check_study
from trimtab.studies.folder import StudyFolder
from trimtab.studies.plan import PlannedRun, final_runs, trial_runs

KINDS = ["prompt_tuning", "residual"]
GRID = {"axes": {"prompt.kind": KINDS, "training.learning_rate": [0.001, 0.1]}, "seeds": 5}

# kind, rate -> (test, dev) of seeds 0 to 4
SCORES: dict[tuple[str, float], list[tuple[float, float]]] = {
    ("prompt_tuning", 0.001): [(0.50, 0.4), (0.52, 0.4), (0.48, 0.4), (0.54, 0.4), (0.46, 0.4)],
    ("prompt_tuning", 0.1): [(0.90, 0.3), (0.90, 0.3), (0.90, 0.3), (0.90, 0.3), (0.90, 0.3)],
    ("residual", 0.001): [(0.30, 0.2), (0.30, 0.2), (0.30, 0.2), (0.30, 0.2), (0.25, 0.2)],
    ("residual", 0.1): [(0.60, 0.5), (0.62, 0.5), (0.58, 0.5), (0.64, 0.5), (0.56, 0.5)],
}


def known(run: PlannedRun) -> Result:
    test, dev = SCORES[run.cell["prompt.kind"], run.cell["training.learning_rate"]][run.seeds["init"]]
    return Result(test, dev=dev)


def line(facts: dict[str, Any], label: str) -> dict[str, Any]:
    return next(x for x in facts["lines"] if x["label"] == label)


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return analyse(write_study(tmp_path_factory.mktemp("studies") / "grid", GRID, known))


def test_the_setting_is_chosen_on_dev_even_where_test_says_otherwise(facts: dict[str, Any]) -> None:
    plain = line(facts, "prompt_tuning")
    assert plain["setting_cell"] == {"training.learning_rate": 0.001}  # 0.1 has 0.9 on test
    assert plain["setting"] == "learning rate 0.001"
    assert plain["dev_mean"] == pytest.approx(0.4)
    assert line(facts, "residual")["setting_cell"] == {"training.learning_rate": 0.1}


def test_a_headline_row_has_the_statistics_of_its_seeds(facts: dict[str, Any]) -> None:
    plain = line(facts, "prompt_tuning")
    assert (plain["n"], plain["missing"], plain["settings"]) == (5, 0, 2)
    assert plain["mean"] == pytest.approx(0.5)
    assert plain["sd"] == pytest.approx(math.sqrt((0.0004 * 2 + 0.0016 * 2) / 4))
    assert plain["median"] == pytest.approx(0.5)
    assert plain["iqm"] == pytest.approx((0.48 + 0.5 + 0.52) / 3)
    assert (plain["min"], plain["max"]) == (0.46, 0.54)
    assert plain["iqm_interval"]["low"] < 0.5 < plain["iqm_interval"]["high"]
    assert plain["collapse"]["collapsed"] == 0
    assert (plain["majority"], plain["no_prompt"]) == (0.25, 0.3)
    assert [(s["seed"], s["test"]) for s in plain["scores"]] == [
        (str(i), SCORES["prompt_tuning", 0.001][i][0]) for i in range(5)
    ]
    assert all(s["run"].startswith("support_desk-prompt_tuning-") for s in plain["scores"])
    assert plain["statuses"] == {"done": 5}
    assert plain["cost"]["seconds"] == pytest.approx(10 * 12.5)
    assert plain["cost"]["trained"] == 208528


def test_comparisons_are_paired_over_seeds_and_told_in_words(facts: dict[str, Any]) -> None:
    (versus,) = facts["comparisons"]["baseline"]
    assert (versus["a"], versus["b"]) == ("residual", "prompt_tuning")
    assert versus["difference"]["paired"]
    assert versus["difference"]["mean"] == pytest.approx(0.1)
    assert versus["difference"]["sd"] == pytest.approx(0.0, abs=1e-9)
    assert versus["p"] == versus["p_adjusted"]  # one comparison, nothing to correct
    assert versus["improvement"]["estimate"] == 1.0
    assert versus["spread"]["sd_ratio"] == pytest.approx(1.0)
    assert "residual" in versus["verdict"]["sentence"]
    assert versus["verdict"]["sentence"] in facts["verdict"]["sentences"]
    assert facts["verdict"]["headline"].startswith(
        "residual has the highest mean test accuracy: 0.600 ± 0.032 over 5 seeds"
    )


def test_the_headline_says_of_a_planned_comparison_what_its_own_sentence_says(facts: dict[str, Any]) -> None:
    told = copy.deepcopy(facts)
    told["comparisons"]["baseline"][0]["verdict"]["outcome"] = "better"
    told["comparisons"]["pairs"][0]["verdict"]["outcome"] = "not_enough_seeds"  # corrected for more comparisons
    assert findings(told)["headline"].endswith("It is better than prompt_tuning.")


def test_what_is_no_better_than_the_bare_model_is_told_but_not_of_that_model_itself(tmp_path: Path) -> None:
    def result(run: PlannedRun) -> Result:
        trained = 0 if run.cell["prompt.kind"] == "manual" else 100
        return Result(0.3, no_prompt=0.3, parameters={"trained": trained, "kept": trained})

    study = {**GRID, "axes": {"prompt.kind": ["prompt_tuning", "manual"]}, "baseline": None}
    told = analyse(write_study(tmp_path / "bare", study, result))["verdict"]
    assert "Not clearly above the same model without any prompt: prompt_tuning." in told["cautions"]


def test_sensitivity_to_the_rate_has_all_runs_of_the_grid(facts: dict[str, Any]) -> None:
    (grid,) = facts["rates"]
    plain, residual = grid["curves"]
    assert [p["value"] for p in plain["points"]] == [0.001, 0.1]
    assert [p["n"] for p in plain["points"]] == [5, 5]
    assert plain["test"]["best_rate"] == 0.1
    assert plain["test"]["area"] == pytest.approx((0.5 + 0.9) / 2)
    assert plain["test"]["worst_mean"] == pytest.approx(0.5)
    assert plain["dev"]["area"] == pytest.approx(0.35)
    assert (plain["chosen"], residual["chosen"]) == (0.001, 0.1)


def test_classes_are_counted_from_the_predictions_of_the_chosen_setting(facts: dict[str, Any]) -> None:
    found = next(c for c in facts["confusion"] if c["label"] == "prompt_tuning")
    right = sum(round(test * ROWS) for test, _ in SCORES["prompt_tuning", 0.001])
    assert sum(found["counts"][i][i] for i in range(4)) == right
    assert sum(map(sum, found["counts"])) == 5 * ROWS
    assert found["runs"] == 5


def test_learning_curves_environment_cost_and_rows(facts: dict[str, Any]) -> None:
    curve = facts["curves"][0]["seeds"][0]
    assert curve["steps"] == [0, 4, 8, 12, 16, 20]
    assert curve["dev"][-1] == pytest.approx(0.4)
    assert facts["environment"]["torch"] == ["2.13.0"]
    assert facts["cost"]["seconds"] == pytest.approx(20 * 12.5)
    assert len(facts["runs"]) == 20
    assert sum(r["reported"] for r in facts["runs"]) == 10
    assert facts["complete"]
    assert facts["problems"] == []


def test_it_is_plain_json_and_the_same_twice(facts: dict[str, Any], tmp_path: Path) -> None:
    text = json.dumps(facts, allow_nan=False)
    again = analyse(write_study(tmp_path / "grid", GRID, known))
    strip = {"folder": None}
    assert json.loads(text) | strip == json.loads(json.dumps(again)) | strip


def test_of_equal_dev_scores_the_lower_dev_loss_is_chosen(tmp_path: Path) -> None:
    def tied(run: PlannedRun) -> Result:
        rate = run.cell["training.learning_rate"]
        return Result(0.5, dev=0.4, loss={0.001: 1.0, 0.01: 0.8, 0.1: 0.9}[rate])

    raw = {"axes": {"training.learning_rate": [0.001, 0.01, 0.1]}, "seeds": 2}
    facts = analyse(write_study(tmp_path / "s", raw, tied))
    (only,) = facts["lines"]
    assert only["setting_cell"] == {"training.learning_rate": 0.01}
    assert only["label"] == "all runs"
    assert facts["rates"][0]["curves"][0]["chosen"] == 0.01


def test_a_line_says_whether_its_backbone_is_frozen(tmp_path: Path) -> None:
    def tuned(run: PlannedRun) -> Result:
        own = {"trained": 900, "kept": 900, "backbone": 800}
        return Result(0.5, parameters=own if run.cell["prompt.kind"] == "residual" else None)

    facts = analyse(write_study(tmp_path / "s", {"axes": {"prompt.kind": KINDS}, "seeds": 3}, tuned))
    assert [x["cost"]["frozen"] for x in facts["lines"]] == [True, False]
    for its in (headline(facts), cost(facts)):
        at = [c.name for c in its.columns].index("Frozen")
        assert {row[0].text: row[at].text for row in its.rows} == {"prompt_tuning": "yes", "residual": "no"}


def failing(run: PlannedRun) -> Result:
    match run.cell["prompt.kind"], run.seeds["init"]:
        case "residual", 0:
            error = {"type": "RuntimeError", "message": "out of memory"}
            return Result(None, status="failed", error=error, has_folder=False)
        case "residual", 1:
            return Result(None, status="diverged")
        case "residual", 2:
            return Result(0.7, status="diverged")
        case "residual", 3:
            return Result(0.25)
        case _:
            return Result(0.6)


def test_failed_runs_count_as_the_constant_answer_and_are_told(tmp_path: Path) -> None:
    facts = analyse(write_study(tmp_path / "s", {"axes": {"prompt.kind": KINDS}, "seeds": 5}, failing))
    residual = line(facts, "residual")
    assert residual["n"] == 5
    assert residual["mean"] == pytest.approx((0.25 + 0.25 + 0.7 + 0.25 + 0.6) / 5)
    assert (
        residual["collapse"]["collapsed"] == 3
    )  # failed, diverged before the first evaluation, and one at the majority
    assert [s["imputed"] for s in residual["scores"]] == [True, True, False, False, False]
    assert [s["collapsed"] for s in residual["scores"]] == [True, True, False, True, False]
    assert residual["statuses"] == {"failed": 1, "diverged": 2, "done": 2}
    assert facts["counts"] | {"trials": 0} == {
        "planned": 10, "ended": 10, "done": 7, "diverged": 2, "failed": 1, "missing": 0, "trials": 0, "imputed": 2,
    }  # fmt: skip
    failed, diverged, later = facts["problems"]
    assert (failed["type"], failed["message"], failed["run"], failed["test"]) == (
        "RuntimeError",
        "out of memory",
        None,
        0.25,
    )
    assert (diverged["imputed"], diverged["message"]) == (True, "the loss was not finite")
    assert (later["imputed"], later["test"]) == (False, 0.7)
    assert any("1 failed and 2 diverged" in caution for caution in facts["verdict"]["cautions"])
    assert any("residual (3 of 5)" in sentence for sentence in facts["verdict"]["sentences"])


def test_the_constant_answer_of_a_line_without_results_is_that_of_its_task(tmp_path: Path) -> None:
    def result(run: PlannedRun) -> Result:
        task = run.cell["task.kind"]
        if run.cell["prompt.kind"] == "residual" and task == "trec":
            return Result(None, status="failed", error={"type": "X", "message": "y"}, has_folder=False)
        return Result(0.8, task=task, majority={"sst2": 0.5, "trec": 0.2}[task])

    raw = {"axes": {"task.kind": ["sst2", "trec"], "prompt.kind": KINDS}, "seeds": 2}
    facts = analyse(write_study(tmp_path / "s", raw, result))
    assert line(facts, "trec, residual")["mean"] == pytest.approx(0.2)


def test_where_nothing_has_a_result_it_counts_as_zero(tmp_path: Path) -> None:
    error = {"type": "X", "message": "y"}
    facts = analyse(write_study(tmp_path / "s", {"seeds": 2}, lambda run: Result(None, status="failed", error=error)))
    assert facts["lines"][0]["mean"] == 0.0
    assert facts["verdict"]["headline"].startswith("No run has a result: all 2 failed")


def test_a_task_without_constant_answer_collapses_at_zero(tmp_path: Path) -> None:
    def result(run: PlannedRun) -> Result:
        return Result([0.0, 0.4][run.seeds["init"]], metric="entity_f1", majority=None, classes=())

    facts = analyse(write_study(tmp_path / "s", {"seeds": 2}, result))
    assert facts["lines"][0]["collapse"]["collapsed"] == 1
    assert facts["metric"] == "entity_f1"
    assert facts["confusion"] == []


def test_missing_runs_are_counted_and_a_setting_that_lacks_some_is_not_chosen(tmp_path: Path) -> None:
    def result(run: PlannedRun) -> Result:
        lucky = run.cell["training.learning_rate"] == 0.1
        if lucky and run.seeds["init"] > 0:
            return Result(status="missing")
        return Result(0.9 if lucky else 0.5)

    raw = {"axes": {"training.learning_rate": [0.001, 0.1]}, "seeds": 3}
    facts = analyse(write_study(tmp_path / "s", raw, result))
    assert not facts["complete"]
    assert facts["counts"]["missing"] == 2
    assert facts["lines"][0]["setting_cell"] == {"training.learning_rate": 0.001}
    assert any("incomplete: 2 of 6 runs" in caution for caution in facts["verdict"]["cautions"])


def test_a_study_without_runs_says_so(tmp_path: Path) -> None:
    facts = analyse(write_study(tmp_path / "s", GRID, lambda run: Result(status="missing")))
    assert facts["verdict"]["headline"] == "No run has ended yet, so there is nothing to report."
    assert facts["counts"]["missing"] == 20
    assert [x["n"] for x in facts["lines"]] == [0, 0]


def test_a_run_folder_edited_by_hand_is_refused(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "s", {"seeds": 1}, lambda run: Result())
    (record,) = folder.runs_dir.glob("*/run.json")
    record.write_text(record.read_text().replace("0.5", "0.9"))
    with pytest.raises(BundleError, match=r"not as it was when the run ended: run\.json.*Restore it"):
        analyse(folder)


def test_what_is_no_study_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrimtabError, match=r"there is no plan\.json"):
        analyse(StudyFolder(tmp_path))


def test_tasks_are_compared_within_and_summed_up_over(tmp_path: Path) -> None:
    base = {"sst2": 0.8, "trec": 0.6}

    def result(run: PlannedRun) -> Result:
        task, kind, seed = run.cell["task.kind"], run.cell["prompt.kind"], run.seeds["init"]
        return Result(base[task] + (0.05 if kind == "residual" else 0.0) + 0.01 * seed, task=task)

    raw = {
        "axes": {"task.kind": ["sst2", "trec"], "prompt.kind": KINDS},
        "seeds": 3,
        "baseline": {"prompt.kind": "residual"},
    }
    facts = analyse(write_study(tmp_path / "s", raw, result))
    named = [(c["a"], c["b"]) for c in facts["comparisons"]["baseline"]]
    assert named == [("sst2, prompt_tuning", "sst2, residual"), ("trec, prompt_tuning", "trec, residual")]
    assert len(facts["comparisons"]["pairs"]) == 2
    whole = facts["aggregate"]
    plain, residual = whole["methods"]
    assert [m["baseline"] for m in whole["methods"] if m["label"] != "residual"] == ["residual"]
    assert [m["baseline"] for m in whole["methods"] if m["label"] == "residual"] == [None]
    assert plain["tasks"] == pytest.approx({"sst2": 0.81, "trec": 0.61})
    assert plain["mean"] == pytest.approx(0.71)
    assert plain["improvement"]["estimate"] == 0.0
    assert residual["improvement"] is None
    assert plain["iqm"]["estimate"] == pytest.approx((0.62 + 0.8 + 0.61 + 0.81) / 4)  # one of six cut off at each end
    assert facts["verdict"]["headline"].startswith("Over 2 tasks, residual has the highest mean test score: 0.760.")


def test_relations_are_tasks_with_means_over_them(tmp_path: Path) -> None:
    relations = {"P19": 0.2, "P20": 0.4}

    def result(run: PlannedRun) -> Result:
        relation, seed = run.cell["task.relation"], run.seeds["init"]
        score = relations[relation] + (0.1 if run.cell["prompt.kind"] == "residual" else 0.0) + 0.02 * seed
        others = {"mrr": score + 0.1, **({"p_at_1_new_objects": 0.05 * seed} if relation == "P19" else {})}
        return Result(score, metric="p_at_1", classes=(), extra=others, task=f"lama/trex/{relation}")

    raw = {
        "recipe": {"task": {"kind": "lama/trex"}, "prompt": {"kind": "prompt_tuning", "length": 9}},
        "axes": {"task.relation": list(relations), "prompt.kind": KINDS},
        "seeds": 3,
    }
    folder = write_study(tmp_path / "s", raw, result)
    facts = analyse(folder)
    plain, residual = sorted(facts["aggregate"]["methods"], key=lambda m: m["label"])
    assert facts["aggregate"]["tasks"] == ["P19", "P20"]
    assert (plain["label"], residual["label"]) == ("prompt_tuning", "residual")
    assert plain["mean"] == pytest.approx(0.32), "the mean over relations of the mean over seeds"
    assert residual["mean"] == pytest.approx(0.42)
    assert plain["others"] == {
        "mrr": {"mean": pytest.approx(0.42), "tasks": 2},
        "p_at_1_new_objects": {"mean": pytest.approx(0.05), "tasks": 1},
    }
    assert len(facts["comparisons"]["pairs"]) == 2, "relations are not compared with each other"
    write_report(folder)
    text = (folder.path / "report.md").read_text()
    assert "| No prompt | 0.300 | 0.300 | 0.300 | – | – |" in text
    assert "| Majority | 0.250 | 0.250 | 0.250 | – | – |" in text
    assert "| Method | MRR | P@1 of new objects |" in text
    assert "| prompt_tuning | 0.420 | 0.050 (1 of 2 tasks) |" in text
    assert "Other scores, means over tasks" in (folder.path / "report.html").read_text()


def test_many_tasks_are_told_by_method(tmp_path: Path) -> None:
    relations = {f"P{i}": 0.1 * i for i in range(1, 8)}

    def result(run: PlannedRun) -> Result:
        relation, ahead = run.cell["task.relation"], run.cell["prompt.kind"] == "residual"
        gain = 0.0 if not ahead else -0.01 if relation == "P7" else 0.06
        seed = run.seeds["init"]
        own = 0.31 if relation == "P1" else 0.3
        return Result(relations[relation] + gain + 0.001 * (seed + ahead * (seed % 2)), task=relation, no_prompt=own)

    raw = {
        "recipe": {"task": {"kind": "lama/trex"}, "prompt": {"kind": "prompt_tuning", "length": 9}},
        "axes": {"task.relation": list(relations), "prompt.kind": KINDS},
        "seeds": 6,
    }
    facts = analyse(write_study(tmp_path / "s", raw, result))
    first = facts["verdict"]["sentences"][0]
    assert first.startswith(
        "residual against prompt_tuning: its mean over 7 tasks is 0.050 higher; a run of it scores above one of "
        "prompt_tuning with probability 0.86 ["
    )
    assert first.endswith("task by task: better on 6, worse on 1.")
    assert not [text for text in facts["verdict"]["sentences"] if "P3" in text]


def test_what_lines_of_a_task_have_differently_is_no_constant(tmp_path: Path) -> None:
    def result(run: PlannedRun) -> Result:
        return Result(0.5, no_prompt=0.3 if run.cell["prompt.kind"] == "residual" else 0.2, task=run.cell["task.kind"])

    raw = {"axes": {"task.kind": ["sst2", "trec"], "prompt.kind": KINDS}, "seeds": 2}
    rows = aggregate(analyse(write_study(tmp_path / "s", raw, result))).rows
    assert [row[0].text for row in rows] == [*KINDS, "Majority"]


def test_metrics_that_only_some_runs_have_are_not_averaged(tmp_path: Path) -> None:
    def result(run: PlannedRun) -> Result:
        return Result(0.5, extra={"macro_f1": 0.4} if run.seeds["init"] else {}, task=run.cell["task.kind"])

    raw = {"axes": {"task.kind": ["sst2", "trec"]}, "seeds": 2}
    facts = analyse(write_study(tmp_path / "s", raw, result))
    assert [m["others"] for m in facts["aggregate"]["methods"]] == [{}]


def test_a_baseline_that_names_one_axis_is_taken_from_each_lines_own_kind(tmp_path: Path) -> None:
    raw = {
        "arms": {"none": {"regularizers": []}, "noise": {"regularizers": [{"kind": "gaussian"}]}},
        "axes": {"task.kind": ["sst2", "trec"], "prompt.kind": KINDS},
        "seeds": 3,
        "baseline": {"arm": "none"},
    }
    facts = analyse(
        write_study(tmp_path / "s", raw, lambda run: Result(0.01 * run.seeds["init"], task=run.cell["task.kind"]))
    )
    compared = {(c["a"], c["b"]) for c in facts["comparisons"]["baseline"]}
    expected = {(f"noise, {t}, {k}", f"none, {t}, {k}") for t in ("sst2", "trec") for k in KINDS}
    assert compared == expected
    assert [m["baseline"] for m in facts["aggregate"]["methods"]] == [None, None, *(f"none, {k}" for k in KINDS)]


def test_several_baselines_are_each_compared_with(tmp_path: Path) -> None:
    raw = {
        "arms": {"none": {}, "long": {"training.max_steps": 300}, "noise": {"regularizers": [{"kind": "gaussian"}]}},
        "axes": {"task.kind": ["sst2", "trec"], "prompt.kind": KINDS},
        "seeds": 3,
        "baseline": {"arm": ["long", "none"]},
    }
    facts = analyse(
        write_study(tmp_path / "s", raw, lambda run: Result(0.01 * run.seeds["init"], task=run.cell["task.kind"]))
    )
    compared = [(c["a"], c["b"]) for c in facts["comparisons"]["baseline"]]
    cells = [(t, k) for t in ("sst2", "trec") for k in KINDS]
    versus = (("none", "long"), ("noise", "long"), ("noise", "none"))  # and not once more the other way round
    assert sorted(compared) == sorted((f"{a}, {t}, {k}", f"{b}, {t}, {k}") for a, b in versus for t, k in cells)
    assert {m["baseline"] for m in facts["aggregate"]["methods"]} == {None, *(f"long, {k}" for k in KINDS)}


def test_crossed_seeds_are_split_into_components(tmp_path: Path) -> None:
    def result(run: PlannedRun) -> Result:
        noise = 0.001 * ((7 * run.seeds["init"] + 3 * run.seeds["data_order"]) % 5)
        return Result(0.5 + 0.1 * run.seeds["init"] + noise)

    facts = analyse(write_study(tmp_path / "s", {"seeds": {"init": 3, "data_order": 4}}, result))
    (found,) = facts["components"]
    shares = {c["source"]: c["share"] for c in found["found"]["components"]}
    assert list(shares) == ["init", "data_order", "residual"]
    assert shares["init"] > 0.95
    assert facts["lines"][0]["scores"][1]["seed"] == "init 0, data order 1"
    assert any("crossed" in caution for caution in facts["verdict"]["cautions"])


def test_components_that_cannot_be_told_apart_say_why(tmp_path: Path) -> None:
    def result(run: PlannedRun) -> Result:
        return Result(status="missing") if run.seeds["init"] == run.seeds["noise"] == 1 else Result(0.5)

    facts = analyse(write_study(tmp_path / "s", {"seeds": {"init": 2, "noise": 2}}, result))
    (found,) = facts["components"]
    assert found["found"] is None
    assert "have none" in found["reason"]


def test_lengths_are_an_ablation(tmp_path: Path) -> None:
    def result(run: PlannedRun) -> Result:
        return Result(0.4 + 0.001 * run.cell["prompt.length"] + 0.01 * run.seeds["init"])

    raw = {"axes": {"prompt.kind": KINDS, "prompt.length": [10, 100]}, "seeds": 2}
    facts = analyse(write_study(tmp_path / "s", raw, result))
    assert [c["label"] for c in facts["lengths"]] == KINDS
    assert [(p["value"], p["mean"]) for p in facts["lengths"][0]["points"]] == [
        (10, pytest.approx(0.415)),
        (100, pytest.approx(0.505)),
    ]
    assert facts["lines"][0]["label"] == "prompt_tuning, length 10"


def test_of_a_search_only_the_final_runs_are_reported(tmp_path: Path) -> None:
    raw = {
        "axes": {"prompt.kind": KINDS},
        "seeds": 2,
        "search": {"space": {"training.learning_rate": [0.001, 0.1]}, "trials": 2},
    }
    folder = write_study(tmp_path / "s", raw, lambda run: Result())
    study = check_study({**raw, "recipe": folder_recipe(folder)})
    for kind in KINDS:
        for rate in (0.001, 0.1):
            for run in trial_runs(study, {"prompt.kind": kind}, {"training.learning_rate": rate}):
                enter(folder, run, Result(0.99))
        for run in final_runs(study, {"prompt.kind": kind}, {"training.learning_rate": 0.1}):
            if kind == "residual" and run.seeds["init"] == 1:
                continue
            enter(folder, run, Result(0.5))
    facts = analyse(folder)
    plain, residual = facts["lines"]
    assert (plain["mean"], plain["n"], plain["trials"], plain["setting"]) == (0.5, 2, 2, "learning rate 0.1")
    assert (residual["n"], residual["missing"]) == (1, 1)
    assert facts["counts"]["missing"] == 1
    assert facts["counts"]["trials"] == 4
    assert facts["rates"] == []
    assert "search" in facts["rule"][0]


def folder_recipe(folder: StudyFolder) -> dict[str, Any]:
    from trimtab.documents import read_yaml

    return read_yaml(folder.path / "study.yaml")["recipe"]


def test_one_seed_has_no_intervals_and_no_verdict(tmp_path: Path) -> None:
    facts = analyse(write_study(tmp_path / "s", {"axes": {"prompt.kind": KINDS}, "seeds": 1}, lambda run: Result()))
    assert facts["lines"][0]["iqm_interval"] is None
    assert facts["lines"][0]["sd"] is None
    assert facts["comparisons"]["baseline"][0]["verdict"]["outcome"] == "not_enough_seeds"


def test_memory_of_packs_is_known_where_it_was_tried(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "s", {"seeds": 2}, lambda run: Result(), fits={"size": 8, "bytes": 1000})
    assert analyse(folder)["lines"][0]["cost"]["memory"] == {"bytes": 1000, "size": 8}


def test_several_comparisons_are_corrected(tmp_path: Path) -> None:
    kinds = ["prompt_tuning", "residual", "deep"]
    bonus = {"prompt_tuning": 0.0, "residual": 0.02, "deep": 0.05}

    def result(run: PlannedRun) -> Result:
        wobble = 0.01 * ((3 * run.seeds["init"] + len(run.cell["prompt.kind"])) % 4)
        return Result(0.5 + bonus[run.cell["prompt.kind"]] + wobble)

    facts = analyse(write_study(tmp_path / "s", {"axes": {"prompt.kind": kinds}, "seeds": 6}, result))
    first, second = facts["comparisons"]["baseline"]
    low, high = sorted((first["p"], second["p"]))
    assert sorted((first["p_adjusted"], second["p_adjusted"])) == pytest.approx([2 * low, max(2 * low, high)])
    assert len(facts["comparisons"]["pairs"]) == 3


def test_torch_is_not_imported() -> None:
    code = "import sys, trimtab.studies.analysis, trimtab.reports.study; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"


def test_a_rate_at_the_edge_of_the_grid_is_a_caution(tmp_path: Path) -> None:
    best = {"prompt_tuning": 0.001, "residual": 0.1, "deep": 0.01}

    def result(run: PlannedRun) -> Result:
        return Result(0.9 if run.cell["training.learning_rate"] == best[run.cell["prompt.kind"]] else 0.5)

    raw = {"axes": {"prompt.kind": list(best), "training.learning_rate": [0.1, 0.001, 0.01]}, "seeds": 2}
    cautions = analyse(write_study(tmp_path / "s", raw, result))["verdict"]["cautions"]
    assert "The lowest rate that was tried is the best of prompt_tuning; a lower one may be better." in cautions
    assert "The highest rate that was tried is the best of residual; a higher one may be better." in cautions
    assert not any("deep" in c for c in cautions if "rate that was tried" in c)
    raw["axes"]["training.learning_rate"] = [0.1, 0.001]  # type: ignore[index]
    cautions = analyse(write_study(tmp_path / "two", raw, result))["verdict"]["cautions"]
    assert not any("rate that was tried" in c for c in cautions), "two rates are two edges"
