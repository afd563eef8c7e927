"""A study file (YAML) -> a checked StudyConfig: a recipe, axes, seeds, and what is done with them.

    recipe: residual.yaml                          # beside this file, or from where the command is given; or in full
    axes:
      prompt.kind: [prompt_tuning, residual]       # compared: one line of the report each
      training.learning_rate: [1.0e-3, 1.0e-2]     # tuned: the best is chosen on dev, line by line
    seeds: 10                                      # or a list, or factors that are crossed: {init: 5, data_order: 4}

Any key of a recipe can be an axis. `arms` are named sets of keys that change together.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trimtab.config import Seeds, read_recipe
from trimtab.documents import read_yaml
from trimtab.errors import ConfigError, suggest
from trimtab.overrides import apply_overrides, parse_overrides
from trimtab.registry import validated

STREAMS = tuple(Seeds.model_fields)
ARM = "arm"
"""The axis that `arms` make."""

Seed = Annotated[int, Field(ge=0)]
SeedList = Annotated[list[Seed], Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]

_TUNED = re.compile(r"training\.(learning_rates?|weight_decay)(\..+)?|regularizers\.\d+\.weight")
_BYTES = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]i?B)")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Range(_Section):
    """Numbers from `low` to `high`, both included; `log` for factors instead of sums, `step` for a grid in it."""

    low: float
    high: float
    log: bool = False
    step: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _in_order(self) -> Range:
        if self.low >= self.high:
            raise ConfigError(f"low must be below high, got {self.low:g} and {self.high:g}.", where="search.space")
        if self.log and self.low <= 0:
            raise ConfigError(f"a range with log starts above 0, got {self.low:g}.", where="search.space")
        if self.log and self.step:
            raise ConfigError("a range has log or step, not both.", where="search.space")
        return self


Space = dict[str, Range | Annotated[list[Any], Field(min_length=1)]]
"""Key of the recipe -> the values that are tried."""


class Search(_Section):
    """A search on the dev split, with as many trials for every line of the report.

    Attributes:
        space: key -> list of values, or a range.
        spaces: arm -> the space of its lines, in place of `space`; `{}` for an arm in which there is nothing to tune.
        trials: settings that are tried, per line: 20 by default; of a grid all.
        batch: trials that are asked for at once; they train in one pack where they can.
        seeds: how many seeds each trial has, none of them among the seeds of the study.
        sampler: `tpe` (Bergstra et al. 2011), which learns from earlier trials, `random`, or `grid`: every combination
            of the values in the space, once.
        seed: of the sampler.
    """

    space: Annotated[Space, Field(min_length=1)]
    spaces: dict[str, Space] = {}
    trials: int = Field(0, ge=0)
    batch: int = Field(8, ge=1)
    seeds: int = Field(1, ge=1)
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    seed: int = Field(0, ge=0)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of all spaces."""
        return tuple(dict.fromkeys(key for space in (self.space, *self.spaces.values()) for key in space))

    def space_of(self, line: Mapping[str, Any]) -> Space:
        """What is searched for a line, given by its values of the compared axes."""
        return self.spaces.get(str(line.get(ARM)), self.space)

    def count(self, space: Space) -> int:
        """How many settings of a space are tried."""
        if not space:
            return 0
        return self.trials or (len(self.settings(space)) if self.sampler == "grid" else 20)

    def settings(self, space: Space) -> list[dict[str, Any]]:
        """The settings of a grid, by position in the lists of values, the last key innermost."""
        positions = product(*(range(len(values)) for values in space.values() if not isinstance(values, Range)))
        return [dict(zip(space, its, strict=True)) for its in positions]

    @model_validator(mode="after")
    def _whole_grids(self) -> Search:
        if self.sampler != "grid":
            return self
        named = {"search.space": self.space, **{f"search.spaces.{arm}": its for arm, its in self.spaces.items()}}
        for where, space in named.items():
            for key, values in space.items():
                if isinstance(values, Range):
                    raise ConfigError("a grid has lists of values, no ranges.", where=f"{where}.{key}")
        most = len(self.settings(self.space))
        for where, space in named.items():
            if space and (its := len(self.settings(space))) != most:
                raise ConfigError(
                    f"this grid has {its} settings, that of search.space {most}: lines that were tuned more than "
                    "others cannot be compared.",
                    where=where,
                    fix="Give all of them as many, or {} where there is nothing to tune.",
                )
        if self.trials not in (0, most):
            raise ConfigError(
                f"the grid has {most} settings, got {self.trials} trials.",
                where="search.trials",
                fix="Leave trials out.",
            )
        return self


class PackLimits(_Section):
    """How many runs train together, and on what.

    Attributes:
        memory: that a pack may take: `auto`, or as `4 GiB`. `auto` is 80 % of what is free on a GPU, 50 % elsewhere.
        most: runs in a pack, whatever the memory.
        cpus: that a pack asks a cluster for.
        gpus: likewise, or a part of one; by default one where the cluster has any.
    """

    memory: str = "auto"
    most: int = Field(32, ge=1)
    cpus: float = Field(1.0, gt=0)
    gpus: float | None = Field(None, ge=0)

    @property
    def bytes(self) -> int | None:
        """The limit in bytes; None for `auto`."""
        return None if self.memory == "auto" else _bytes(self.memory)

    @model_validator(mode="after")
    def _readable(self) -> PackLimits:
        _ = self.bytes
        return self


class StudyConfig(_Section):
    """A study, checked.

    Attributes:
        recipe: the base recipe, as plain data.
        axes: key of the recipe -> values. One that is a mapping with a `name`, such as a task, goes by it in reports.
        arms: name -> keys with values that belong together.
        seeds: how many (0, 1, ...), which, or per random stream how many or which; streams are crossed with each other,
            and those that are not named keep the recipe's seed.
        tune: axes whose best value is chosen on dev for every combination of the others. By default learning rates,
            weight decay and weights of regularizers.
        baseline: what the others are compared with, as values of compared axes, such as `{arm: none}`; in the axes that
            are not named, a line is compared with its own kind. Several values of an axis in a list,
            `{arm: [none, none_twice_as_long]}`, are a baseline each; the first is the one that methods are compared
            with over several tasks. By default the first line of the task.
        matters: the smallest difference of scores that is worth knowing of; for the verdicts.
        search: tune by search instead of axes.
        pack: limits.
    """

    recipe: dict[str, Any]
    axes: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    arms: dict[str, dict[str, Any]] = {}
    seeds: Count | SeedList | Annotated[dict[str, Count | SeedList], Field(min_length=1)] = 5
    tune: list[str] | None = None
    baseline: dict[str, Any] | None = None
    matters: float = Field(0.02, gt=0)
    search: Search | None = None
    pack: PackLimits = PackLimits()

    @property
    def grid(self) -> dict[str, list[Any]]:
        """All axes, arms first."""
        return ({ARM: list(self.arms)} if self.arms else {}) | dict(self.axes)

    @property
    def tuned(self) -> tuple[str, ...]:
        """The axes whose value is chosen on dev; with a search, its space."""
        if self.search is not None:
            return self.search.keys
        return tuple(a for a in self.axes if (a in self.tune if self.tune is not None else _TUNED.fullmatch(a)))

    @property
    def compared(self) -> tuple[str, ...]:
        """The axes that span the lines of the report."""
        return tuple(a for a in self.grid if a not in self.tuned)

    @property
    def baselines(self) -> list[dict[str, Any]]:
        """What `baseline` names, each as values of compared axes; none where it names nothing."""
        named = {axis: _alternatives(value, self.grid.get(axis, [])) for axis, value in (self.baseline or {}).items()}
        return [dict(zip(named, values, strict=True)) for values in product(*named.values())] if named else []

    @property
    def factors(self) -> tuple[str, ...]:
        """The random streams that are crossed; none where one seed sets all."""
        return tuple(s for s in STREAMS if s in self.seeds) if isinstance(self.seeds, dict) else ()

    def seed_sets(self, base: Seeds) -> list[dict[str, int]]:
        """All combinations of seeds, in the order of the report."""
        if not isinstance(self.seeds, dict):
            return [dict.fromkeys(STREAMS, seed) for seed in _seeds(self.seeds)]
        lists = [_seeds(self.seeds[s]) for s in self.factors]
        fixed = base.model_dump()
        return [{**fixed, **dict(zip(self.factors, seeds, strict=True))} for seeds in product(*lists)]


def read_study(path: Path, overrides: Sequence[str] = ()) -> StudyConfig:
    """Read and check a study file.

    Args:
        overrides: `key=value`; the key is one of the study's own (`seeds=3`, `pack.most=4`,
            `axes.training.learning_rate=[0.01]`) or, for all runs, one of the recipe (`training.max_steps=20`).

    Raises:
        ConfigError: no such file, a key that does not exist, an empty grid, an axis that is given twice, a value that
            does not fit.
    """
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        raise ConfigError("a study is a mapping with a recipe, axes and seeds.", where=str(path))
    given = parse_overrides(overrides)
    own = {k: v for k, v in given.items() if k.split(".")[0] in StudyConfig.model_fields}
    raw = _with_own_keys(dict(raw), own)
    others = {k: v for k, v in given.items() if k not in own}
    raw["recipe"], _ = apply_overrides(_recipe(raw.get("recipe"), path), others)
    return check_study(raw)


def name_of(path: Path) -> str:
    """What a study is called by its file; a `study.yaml` by the folder it lies in.

    >>> name_of(Path("recipes/quickstart/study.yaml")), name_of(Path("lengths.yaml"))
    ('quickstart', 'lengths')
    """
    return path.absolute().parent.name if path.stem == "study" else path.stem


def check_study(raw: Mapping[str, Any]) -> StudyConfig:
    """Plain data as a StudyConfig; errors as `read_study`."""
    for key in raw:
        if key not in StudyConfig.model_fields:
            raise ConfigError("there is no such key.", where=key, fix=suggest(key, StudyConfig.model_fields))
    axes = raw.get("axes") or {}
    for key, values in axes.items() if isinstance(axes, Mapping) else ():
        if not isinstance(values, list):
            raise ConfigError(f"an axis has a list of values, got {values!r}.", where=f"axes.{key}")
        if not values:
            raise ConfigError("an axis without values leaves no runs.", where=f"axes.{key}", fix="Name at least one.")
        names = Counter(str(v["name"]) for v in values if isinstance(v, Mapping) and v.get("name"))
        if twice := [name for name, n in names.items() if n > 1]:
            what = f"{names[twice[0]]} values of the axis are called {twice[0]!r}, so no report could tell them apart."
            raise ConfigError(what, where=f"axes.{key}", fix="Give each a `name` of its own.")
    if isinstance(raw.get("seeds"), Mapping):
        for stream in raw["seeds"]:
            if stream not in STREAMS:
                raise ConfigError("there is no such stream.", where=f"seeds.{stream}", fix=suggest(stream, STREAMS))
    study = validated(StudyConfig, {k: v for k, v in raw.items() if v is not None}, "")
    searched = study.search.keys if study.search else ()
    for key in searched:
        if key in study.axes:
            raise ConfigError("this key is an axis and searched for at once.", where=f"search.space.{key}")
    for arm in study.search.spaces if study.search else ():
        if arm not in study.arms:
            what = "there is no such arm."
            raise ConfigError(what, where=f"search.spaces.{arm}", fix=suggest(arm, study.arms) or None)
    if study.search and study.tune:
        raise ConfigError("a study with a search tunes what the search finds.", where="tune", fix="Leave it out.")
    for key in study.tune or ():
        if key not in study.axes:
            raise ConfigError("only an axis can be tuned.", where=f"tune: {key}", fix=suggest(key, study.axes) or None)
    for key in (*study.axes, *searched, *(k for arm in study.arms.values() for k in arm)):
        if key.split(".")[0] in ("seed", "seeds"):
            raise ConfigError("seeds are no axis.", where=key, fix="Use seeds: {init: 5, data_order: 4}.")
    for name in ("seeds", *(f"seeds.{s}" for s in study.factors)):
        its = study.seeds[name.partition(".")[2]] if "." in name and isinstance(study.seeds, dict) else study.seeds
        if isinstance(its, list) and len(set(its)) < len(its):
            raise ConfigError(f"a seed stands twice, got {its}.", where=name)
    _check_baseline(study)
    return study


def _check_baseline(study: StudyConfig) -> None:
    for key, value in (study.baseline or {}).items():
        if key not in study.compared:
            known = ", ".join(study.compared) or "none"
            raise ConfigError("the baseline names an axis that is not compared.", where=f"baseline.{key}",
                              fix=f"Compared: {known}.")  # fmt: skip
        for one in _alternatives(value, study.grid[key]):
            if one not in study.grid[key]:
                raise ConfigError(f"{one!r} is not among the values of the axis.", where=f"baseline.{key}")


def _alternatives(value: Any, axis: Sequence[Any]) -> list[Any]:
    """A value of an axis, or several of them; the values of an axis may be lists themselves."""
    return value if isinstance(value, list) and value and value not in axis else [value]


def _recipe(given: Any, path: Path) -> dict[str, Any]:
    if isinstance(given, Mapping):
        return dict(given)
    if not isinstance(given, str):
        what = "a study needs a recipe" if given is None else f"this is a file or a mapping, got {given!r}"
        raise ConfigError(f"{what}.", where="recipe", fix="Give the path of a recipe, or write it out here.")
    beside = path.parent / given
    return read_recipe(beside if os.path.exists(beside) else Path(given))


def _with_own_keys(raw: dict[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a study set; what follows the first dot names an axis, a stream or an option."""
    for key, value in own.items():
        section, _, rest = key.partition(".")
        below = raw.get(section)
        if rest and not isinstance(below, dict | None):
            raise ConfigError(f"{section} is not a mapping here, but {below!r}.", where=key)
        raw[section] = {**(below or {}), rest: value} if rest else value
    return raw


def _seeds(given: int | list[int]) -> list[int]:
    return list(range(given)) if isinstance(given, int) else given


def _bytes(text: str) -> int:
    """Bytes of a size with a unit.

    >>> _bytes("1.5 GiB"), _bytes("2 GB")
    (1610612736, 2000000000)
    """
    match = _BYTES.fullmatch(text.strip())
    if not match:
        raise ConfigError(f"a size is written as 4 GiB, got {text!r}.", where="pack.memory")
    base = 1024 if "i" in match[2] else 1000
    return int(float(match[1]) * base ** ("KMGT".index(match[2][0]) + 1))
