"""Where the spread over seeds comes from: initial values, data order, subset, noise. Pure functions.

Symbols: y a score; S, T sets of factors; n_f levels of factor f; r runs per cell; N runs in all; σ²_S the variance
component of S, σ²_e of the residual; MS_S a mean square with d_S degrees of freedom.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from math import prod
from typing import Any

import numpy as np

from trimtab.errors import DataError, suggest
from trimtab.studies.statistics.bootstrap import finite, generator, percentiles

Effect = tuple[int, ...]  # positions of factors


@dataclass(frozen=True)
class Component:
    """Variance of scores that one source accounts for, in squared units of the scores; `sd` is its root.

    `truncated` where the estimate was negative and is given as 0. `share` is of the sum of all components, None where
    scores do not vary. Bounds are of `variance` and of `share`.
    """

    source: str
    variance: float
    sd: float
    low: float
    high: float
    share: float | None
    share_low: float | None
    share_high: float | None
    mean_square: float
    df: int
    truncated: bool


@dataclass(frozen=True)
class VarianceComponents:
    """Components in the order of factors, interactions, residual; `residual_holds` says what the last one mixes."""

    components: tuple[Component, ...]
    residual_holds: str
    runs: int
    repeats: int
    level: float


def variance_components(
    table: Sequence[tuple[Mapping[str, Any], float]],
    factors: Sequence[str] | None = None,
    *,
    nested: bool = False,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> VarianceComponents:
    """Splits the variance of scores over seed factors, all of them random (method of moments, analysis of variance).

    `y = μ + Σ_S u_S + e`, with independent u_S of variance σ²_S for each factor and each interaction S of a full
    crossing. In a balanced table `E[MS_S] = σ²_e + Σ_(T ⊇ S) (N / ∏_(f in T) n_f) σ²_T`, which is solved from the
    largest S down (Searle, Casella & McCulloch 1992, chapter 4). With one run per cell the interaction of all
    factors cannot be told from the residual and is part of it. Interactions are not pooled: that would hand their
    variance to the factors.

    `nested`: each factor in the order given has seeds of its own within the one before it (three subsets, with four
    initial values tried on each: levels need not agree between subsets); S are then the leading factors.
    A single factor with several runs per level is the one-way case; factors left out of `factors` are part of the
    residual.

    Intervals are generalized confidence intervals (Weerahandi 1993; Burdick, Borror & Montgomery 2005): percentiles of
    the components that come out as MS_S d_S / χ²_(d_S), with drawn χ², takes the place of E[MS_S]. They assume normal
    effects, are wide where a factor has few levels, as they should be, and hold the true value about as often as they
    say. The pigeonhole bootstrap (Owen 2007, Annals of Applied Statistics 1:386), which redraws levels of each factor,
    serves means: redrawn levels coincide, which shrinks just the components that are wanted here.

    Args:
        table: for each run, the level (seed) of each factor and the score.
        factors: which to tell apart, in order; all that the first run has unless given.

    Raises:
        DataError: no factor, an unknown one, or one with a single level, which shows no variance; a cell without runs
            or with more runs than another, as estimates then depend on the order of factors; one run per level of a
            single factor, as nothing then tells it from the residual; a score that is no finite number.
        ConfigError: `level` or `resamples` out of range.

    >>> table = [({"init": i, "order": o}, 0.8 + 0.1 * i + 0.01 * o * (1 - 2 * i)) for i in (0, 1) for o in (0, 1)]
    >>> for found in variance_components(table).components:
    ...     print(found.source, round(found.variance, 5), found.truncated)
    init 0.004 False
    order 0.0 True
    residual 0.0001 False
    """
    rng = generator(seed, level, resamples)
    names = _factors(table, factors)
    finite([score for _, score in table])
    y = _balanced(table, names, nested=nested)
    k, repeats = len(names), y.shape[-1]
    effects: list[Effect] = [e for size in range(1, k + 1) for e in combinations(range(k), size)]
    if nested:
        effects = [tuple(range(size)) for size in range(1, k + 1)]
    sources = [
        " within ".join(names[f] for f in e[::-1]) if nested else " x ".join(names[f] for f in e) for e in effects
    ]
    residual_holds = "what differs between runs of one cell"
    if repeats == 1:
        effects, confounded = effects[:-1], sources.pop()
        residual_holds = f"{confounded}, and what would differ between runs of one cell"
    per_level = [y.size / prod(y.shape[f] for f in effect) for effect in effects]
    squares, df = _sums_of_squares(y, effects, per_level)
    estimates = _solved(squares / df, effects, per_level)
    drawn = np.maximum(_solved(squares / rng.chisquare(df, size=(resamples, len(df))), effects, per_level), 0.0)
    kept = np.maximum(estimates, 0.0)
    total, tail = float(kept.sum()), (1 - level) / 2
    with np.errstate(invalid="ignore"):
        shares = drawn / drawn.sum(axis=1, keepdims=True)
    components = []
    for i, source in enumerate([*sources, "residual"]):
        low, high = percentiles(drawn[:, i], tail)
        share_low, share_high = percentiles(shares[:, i], tail) if total else (None, None)
        components.append(
            Component(
                source=source,
                variance=float(kept[i]),
                sd=float(kept[i]) ** 0.5,
                low=low,
                high=high,
                share=float(kept[i]) / total if total else None,
                share_low=share_low,
                share_high=share_high,
                mean_square=float(squares[i] / df[i]),
                df=int(df[i]),
                truncated=bool(estimates[i] < 0),
            )
        )
    return VarianceComponents(tuple(components), residual_holds, runs=y.size, repeats=repeats, level=level)


def _factors(table: Sequence[tuple[Mapping[str, Any], float]], factors: Sequence[str] | None) -> list[str]:
    known = list(dict.fromkeys(name for levels, _ in table for name in levels))
    names = known if factors is None else list(factors)
    if not names:
        raise DataError("At least one factor needed, got none.", fix="Say the level of each factor for each run.")
    for name in names:
        if name not in known:
            raise DataError(f"No run says its {name!r}.", fix=suggest(name, known))
        for row, (levels, _) in enumerate(table):
            if name not in levels:
                raise DataError(f"Run {row} does not say its {name!r}, others do.", fix="Say it, or name `factors`.")
        if len({levels[name] for levels, _ in table}) == 1:
            raise DataError(
                f"All runs have the {name} {table[0][0][name]!r}, so nothing shows how much it matters.",
                fix="Run further levels, or name the other `factors`.",
            )
    return names


def _balanced(table: Sequence[tuple[Mapping[str, Any], float]], names: list[str], *, nested: bool) -> np.ndarray:
    """Scores by level of each factor and repeat, less their mean; equal scores give exact zeros."""
    rows = [tuple(levels[name] for name in names) for levels, _ in table]
    runs = Counter(rows)
    if nested:
        _check_branches(rows, names)
    else:
        grid = list(product(*(_in_order({row[f] for row in rows}) for f in range(len(names)))))
        missing = [cell for cell in grid if cell not in runs]
        if missing:
            raise DataError(
                f"A crossing needs runs in all {len(grid)} cells; {len(missing)} have none: {_cells(missing, names)}.",
                fix="Run them, leave out the levels that lack runs, or name fewer `factors`.",
            )
    most = max(runs.values())
    few = [cell for cell in runs if runs[cell] < most]
    if few:
        raise DataError(
            f"A balanced table has equally many runs in each cell; some have {most}, fewer have {_cells(few, names)}.",
            fix="Run the missing ones, or leave out the surplus.",
        )
    if most == 1 and len(names) == 1:
        raise DataError(
            f"With one run for each {names[0]} nothing tells it from the rest.",
            fix="Run each level several times, or cross it with another factor.",
        )
    position: dict[tuple[Any, ...], int] = {}  # of a level: of its factor, or within the levels before it
    used: Counter[tuple[Any, ...]] = Counter()
    y: dict[tuple[int, ...], float] = {}
    for row, (_, score) in zip(rows, table, strict=True):
        place = []
        for f, level in enumerate(row):
            parent = (f, *row[:f]) if nested else (f,)
            if (*parent, level) not in position:
                position[(*parent, level)] = used[parent]
                used[parent] += 1
            place.append(position[(*parent, level)])
        y[(*place, used[("repeat", *row)])] = score
        used[("repeat", *row)] += 1
    array = np.empty([1 + max(key[axis] for key in y) for axis in range(len(names) + 1)])
    for key, score in y.items():
        array[key] = score
    array -= array.flat[0]
    return array - array.mean()


def _in_order(levels: Iterable[Any]) -> list[Any]:
    """Numbers by size, then the rest by how it is written."""
    return sorted(levels, key=lambda v: (0, v, "") if isinstance(v, int | float) else (1, 0, str(v)))


def _check_branches(rows: list[tuple[Any, ...]], names: list[str]) -> None:
    """Each level must have equally many of the next factor within it, and at least two."""
    for depth in range(1, len(names)):
        branches = Counter(prefix[:-1] for prefix in {row[: depth + 1] for row in rows})
        most = max(branches.values())
        few = [branch for branch in branches if branches[branch] < most]
        if few:
            raise DataError(
                f"A balanced nesting has equally many levels of {names[depth]} in each {names[depth - 1]}; some have "
                f"{most}, fewer have {_cells(sorted(few, key=str), names)}.",
                fix="Run the missing ones, or leave out the surplus.",
            )
        if most == 1:
            raise DataError(
                f"With one {names[depth]} in each {names[depth - 1]} nothing tells the two apart.",
                fix=f"Leave {names[depth]} out of `factors`, or run more of them.",
            )


def _cells(cells: Sequence[tuple[Any, ...]], names: list[str]) -> str:
    said = ["(" + ", ".join(f"{n} {level}" for n, level in zip(names, cell, strict=False)) + ")" for cell in cells[:6]]
    return ", ".join(said) + (f" and {len(cells) - 6} more" if len(cells) > 6 else "")


def _sums_of_squares(
    y: np.ndarray, effects: Sequence[Effect], per_level: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Sums of squares and degrees of freedom of the effects and, last, of the residual."""
    squares: list[float] = []
    df: list[int] = []
    for effect, count in zip(effects, per_level, strict=True):
        means = y.mean(axis=tuple(axis for axis in range(y.ndim) if axis not in effect))
        inner = [i for i, other in enumerate(effects[: len(squares)]) if set(other) < set(effect)]
        squares.append(max(0.0, count * float((means**2).sum()) - sum(squares[i] for i in inner)))
        df.append(means.size - 1 - sum(df[i] for i in inner))
    squares.append(max(0.0, float((y**2).sum()) - sum(squares)))
    df.append(y.size - 1 - sum(df))
    return np.array(squares), np.array(df)


def _solved(mean_squares: np.ndarray, effects: Sequence[Effect], per_level: Sequence[float]) -> np.ndarray:
    """Components, over the last axis, whose expected mean squares these are; larger sets come later in `effects`."""
    found = np.array(mean_squares)
    for i in reversed(range(len(effects))):
        outer = [j for j in range(i + 1, len(effects)) if set(effects[i]) < set(effects[j])]
        others = found[..., -1] + sum(per_level[j] * found[..., j] for j in outer)
        found[..., i] = (mean_squares[..., i] - others) / per_level[i]
    return found
