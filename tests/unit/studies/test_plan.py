"""Plans: the same runs in the same order always, errors that name the cell."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.refusals import refused
from trimtab.errors import ConfigError
from trimtab.studies.definition import check_study
from trimtab.studies.plan import TRIAL_SEEDS, final_runs, grid_runs, lines, plan_digest, trial_runs

RECIPE: dict[str, Any] = {"seed": 4, "task": {"kind": "support_desk"}, "prompt": {"kind": "residual", "bottleneck": 8}}
AXES = {"training.learning_rate": [0.1, 0.2], "prompt.kind": ["residual", "prompt_tuning"]}


def study(**given: Any) -> Any:
    return check_study({"recipe": RECIPE, "axes": AXES, "seeds": 2, **given})


def test_lines_are_outside_settings_in_them_and_seeds_inside() -> None:
    runs = grid_runs(study())
    order = [(r.cell["prompt.kind"], r.cell["training.learning_rate"], r.seeds["init"]) for r in runs]
    assert order == [
        (kind, rate, seed) for kind in ("residual", "prompt_tuning") for rate in (0.1, 0.2) for seed in (0, 1)
    ]
    assert lines(study()) == [{"prompt.kind": "residual"}, {"prompt.kind": "prompt_tuning"}]


def test_configs_are_resolved_with_cell_and_seeds() -> None:
    run = grid_runs(study(seeds={"init": [7]}))[3]
    assert run.config.prompt["kind"] == "prompt_tuning"
    assert run.config.training.learning_rate == 0.2
    assert run.config.seeds.model_dump() == run.seeds == {"init": 7, "data_order": 4, "subset": 4, "noise": 4}
    assert run.dropped == ("prompt.bottleneck",)


def test_keys_are_of_the_resolved_config_and_never_change() -> None:
    runs, again = grid_runs(study()), grid_runs(study())
    assert [r.key for r in runs] == [r.key for r in again]
    assert len({r.key for r in runs}) == 8
    spelled_out = grid_runs(study(axes={**AXES, "prompt.length": [runs[0].config.prompt["length"]]}))
    assert [r.key for r in spelled_out] == [r.key for r in runs], "a default that is written out changes no run"
    assert plan_digest(study(), runs) == plan_digest(study(pack={"most": 2}, matters=0.1), again)
    assert plan_digest(study(), runs) != plan_digest(study(tune=[]), runs)


def test_runs_that_differ_in_seeds_rates_initializer_and_weights_share_a_pack_key() -> None:
    regularizer = [{"kind": "gaussian", "weight": 1.0}]
    axes = {
        "training.learning_rate": [0.1, 0.2],
        "training.weight_decay": [0.0, 0.1],
        "regularizers.0.weight": [0.5, 1.0],
        "prompt.initializer.kind": ["uniform", "sampled_vocab"],
    }
    recipe = {**RECIPE, "prompt": {"kind": "prompt_tuning"}, "regularizers": regularizer}
    runs = grid_runs(check_study({"recipe": recipe, "axes": axes, "seeds": 2}))
    assert len(runs) == 32
    assert len({r.pack_key for r in runs}) == 1
    for key, values in {"prompt.length": [3, 4], "training.batch_size": [4, 8], "backbone.dropout": [False, True],
                        "training.shuffle": ["every_epoch", "once"],
                        "regularizers.0.sigma_relative": [0.1, 0.2]}.items():  # fmt: skip
        others = grid_runs(check_study({"recipe": recipe, "axes": {key: values}, "seeds": 1}))
        assert len({r.pack_key for r in others}) == 2, key


def test_runs_with_a_trained_backbone_or_its_dropout_are_alone() -> None:
    for key in ("backbone.dropout=true", "training.learning_rates.backbone=1e-5"):
        name, _, value = key.partition("=")
        runs = grid_runs(study(axes={name: [True if value == "true" else float(value)]}, seeds=3))
        assert len({r.pack_key for r in runs}) == 3, key


def test_runs_whose_examples_share_a_loss_are_alone() -> None:
    of_one = {"readout": {"kind": "cloze_choice", "batch_hinge": True}}
    of_several = {"readout": {"kind": "by_task", "readouts": {"a": "head", "b": of_one["readout"]}}}
    for more, expected in ((of_one, 2), (of_several, 2), ({"readout": "cloze_choice"}, 1)):
        runs = grid_runs(check_study({"recipe": {**RECIPE, **more}, "seeds": 2}))
        assert len({r.pack_key for r in runs}) == expected, more


def test_arms_set_keys_together_and_axes_win() -> None:
    arms = {"bare": {"prompt.kind": "prompt_tuning", "prompt.length": 3}, "deep": {"prompt.kind": "deep"}}
    runs = grid_runs(check_study({"recipe": RECIPE, "arms": arms, "axes": {"prompt.length": [2, 9]}, "seeds": 1}))
    assert [(r.config.prompt["kind"], r.config.prompt["length"]) for r in runs] == [
        ("prompt_tuning", 2), ("prompt_tuning", 9), ("deep", 2), ("deep", 9)
    ]  # fmt: skip
    assert runs[0].cell == {"arm": "bare", "prompt.length": 2}


def test_trials_have_seeds_of_their_own() -> None:
    given = study(axes={"prompt.kind": ["residual"]}, search={"space": {"training.learning_rate": [0.1]}, "seeds": 2})
    setting = {"training.learning_rate": 0.1}
    trial, final = (f(given, {"prompt.kind": "residual"}, setting) for f in (trial_runs, final_runs))
    assert [r.seeds["noise"] for r in trial] == [TRIAL_SEEDS, TRIAL_SEEDS + 1]
    assert [r.seeds["noise"] for r in final] == [0, 1]
    assert {r.stage for r in trial} == {"trial"}
    assert {r.stage for r in final} == {"final"}
    assert not {r.key for r in trial} & {r.key for r in final}


@pytest.mark.parametrize(
    ("axes", "what", "where", "fix"),
    [
        ({"prompt.lenght": [1]}, "no such key", "prompt.lenght (prompt.lenght=1)", "'length'"),
        ({"promt.length": [1]}, "no such section", "promt (promt.length=1)", "'prompt'"),
        ({"prompt.kind": ["residul"]}, "residul", "prompt.kind (prompt.kind=residul)", "'residual'"),
        ({"prompt.length": [4, 0]}, "greater than", "prompt.length (prompt.length=0)", None),
        ({"prompt.length": [4, 4]}, "two runs of the plan are the same: prompt.length=4 and prompt.length=4", "axes",
         "Leave one"),
    ],
)  # fmt: skip
def test_what_an_axis_may_not_say(axes: dict[str, Any], what: str, where: str, fix: str | None) -> None:
    with refused(ConfigError, what, where=where, fix=fix):
        grid_runs(study(axes=axes, seeds=1))
