"""Study files: what they may say, what is refused and how."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.refusals import refused
from trimtab.config import Seeds
from trimtab.documents import dump_yaml
from trimtab.errors import ConfigError
from trimtab.studies.definition import check_study, read_study

RECIPE: dict[str, Any] = {"task": {"kind": "support_desk"}, "training": {"max_steps": 5}}
BASE = Seeds(init=1, data_order=2, subset=3, noise=4)


def study(**given: Any) -> Any:
    return check_study({"recipe": RECIPE, **given})


def test_rates_and_weights_are_tuned_and_the_rest_is_compared() -> None:
    axes = {"prompt.length": [5, 10], "training.learning_rate": [0.1], "training.learning_rates.head": [0.1],
            "regularizers.0.weight": [1.0], "training.weight_decay": [0.0], "training.epochs": [1]}  # fmt: skip
    given = study(axes=axes)
    assert given.compared == ("prompt.length", "training.epochs")
    assert set(given.tuned) == set(axes) - {"prompt.length", "training.epochs"}
    assert study(axes=axes, tune=["training.epochs"]).tuned == ("training.epochs",)
    assert study(axes=axes, tune=[]).tuned == ()


def test_arms_are_the_first_axis() -> None:
    given = study(arms={"short": {"prompt.length": 2}, "long": {"prompt.length": 20}}, axes={"task.max_length": [8]})
    assert given.grid == {"arm": ["short", "long"], "task.max_length": [8]}
    assert given.compared == ("arm", "task.max_length")


@pytest.mark.parametrize(
    ("seeds", "expected"),
    [
        (2, [(0, 0, 0, 0), (1, 1, 1, 1)]),
        ([7, 5], [(7, 7, 7, 7), (5, 5, 5, 5)]),
        ({"noise": [9], "init": 2}, [(0, 2, 3, 9), (1, 2, 3, 9)]),
        ({"init": 2, "data_order": [5, 6]}, [(0, 5, 3, 4), (0, 6, 3, 4), (1, 5, 3, 4), (1, 6, 3, 4)]),
    ],
)
def test_seeds_are_counted_listed_or_crossed(seeds: Any, expected: list[tuple[int, ...]]) -> None:
    assert [tuple(its.values()) for its in study(seeds=seeds).seed_sets(BASE)] == expected
    assert list(study(seeds=seeds).seed_sets(BASE)[0]) == ["init", "data_order", "subset", "noise"]


def test_factors_are_the_crossed_streams() -> None:
    assert study(seeds=3).factors == ()
    assert study(seeds={"noise": 2, "init": 2}).factors == ("init", "noise")


def test_a_recipe_lies_beside_the_study_or_where_the_command_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "studies").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "studies").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    file = tmp_path / "studies" / "s.yaml"
    file.write_text("recipe: r.yaml\nseeds: 1\n")
    (tmp_path / "here" / "r.yaml").write_text(dump_yaml({**RECIPE, "seed": 1}))
    assert read_study(file).recipe["seed"] == 1
    (tmp_path / "studies" / "r.yaml").write_text(dump_yaml({**RECIPE, "seed": 2}))
    assert read_study(file).recipe["seed"] == 2


def test_overrides_reach_the_study_and_its_recipe(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(dump_yaml({"recipe": RECIPE, "axes": {"prompt.length": [1]}, "seeds": 9}))
    given = read_study(file, ["seeds=2", "axes.training.learning_rate=[0.1, 0.2]", "pack.most=3",
                              "training.max_steps=7", "prompt.kind=residual"])  # fmt: skip
    assert given.seeds == 2
    assert given.axes == {"prompt.length": [1], "training.learning_rate": [0.1, 0.2]}
    assert given.pack.most == 3
    assert given.recipe["training"] == {"max_steps": 7}
    assert given.recipe["prompt"] == {"kind": "residual"}
    with refused(ConfigError, "seeds is not a mapping here, but 9", where="seeds.init"):
        read_study(file, ["seeds.init=2"])


TWIN = {"kind": "tagged", "name": "a"}


@pytest.mark.parametrize(
    ("given", "what", "where", "fix"),
    [
        ({"axis": {}}, "no such key", "axis", "'axes'"),
        ({"axes": {"prompt.length": []}}, "without values leaves no runs", "axes.prompt.length", "at least one"),
        ({"axes": {"task": [TWIN, TWIN]}}, "2 values of the axis are called 'a'", "axes.task", "`name` of its own"),
        ({"axes": {"prompt.length": 5}}, "has a list of values, got 5", "axes.prompt.length", None),
        ({"axes": {"seed": [1, 2]}}, "seeds are no axis", "seed", "{init: 5"),
        ({"arms": {"a": {"seeds.init": 1}}}, "seeds are no axis", "seeds.init", "{init: 5"),
        ({"seeds": {"inti": 3}}, "no such stream", "seeds.inti", "'init'"),
        ({"seeds": [1, 2, 1]}, "stands twice, got [1, 2, 1]", "seeds", None),
        ({"seeds": {"init": [4, 4]}}, "stands twice, got [4, 4]", "seeds.init", None),
        ({"tune": ["prompt.length"], "axes": {"prompt.lenght": [1]}}, "only an axis", "tune: prompt.length", "lenght"),
        ({"tune": ["a"], "search": {"space": {"b": [1]}}}, "tunes what the search finds", "tune", "Leave it out"),
        ({"axes": {"b": [1]}, "search": {"space": {"b": [1]}}}, "at once", "search.space.b", None),
        ({"search": {"space": {"b": {"low": 2, "high": 1}}}}, "below high, got 2 and 1", "search.space", None),
        ({"search": {"space": {"b": {"low": 0, "high": 1, "log": True}}}}, "above 0, got 0", "search.space", None),
        (
            {"search": {"space": {"b": {"low": 1, "high": 2, "log": True, "step": 1}}}},
            "log or step", "search.space", None,
        ),
        ({"pack": {"memory": "4 apples"}}, "written as 4 GiB, got '4 apples'", "pack.memory", None),
        ({"baseline": {"prompt.length": 1}}, "axis that is not compared", "baseline.prompt.length", "Compared: none"),
        (
            {"axes": {"prompt.length": [1, 2]}, "baseline": {"prompt.length": 3}},
            "3 is not among the values", "baseline.prompt.length", None,
        ),
        (
            {"axes": {"prompt.length": [1, 2]}, "baseline": {"prompt.length": [2, 3]}},
            "3 is not among the values", "baseline.prompt.length", None,
        ),
        ({"recipe": None}, "a study needs a recipe", "recipe", "path of a recipe"),
        ({"recipe": [1]}, "a file or a mapping, got [1]", "recipe", "path of a recipe"),
    ],
)  # fmt: skip
def test_what_a_study_may_not_say(
    given: dict[str, Any], what: str, where: str, fix: str | None, tmp_path: Path
) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(dump_yaml({"recipe": RECIPE, **given}))
    with refused(ConfigError, what, where=where, fix=fix):
        read_study(file)


def test_a_study_is_a_mapping(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("- 1\n")
    with refused(ConfigError, "mapping with a recipe", where=str(tmp_path / "s.yaml")):
        read_study(tmp_path / "s.yaml")


@pytest.mark.parametrize(("text", "n"), [("auto", None), ("4 GiB", 4 << 30), ("2.5GB", 2_500_000_000), ("7 KiB", 7168)])
def test_sizes_are_read_with_their_units(text: str, n: int | None) -> None:
    assert study(pack={"memory": text}).pack.bytes == n
