"""Choose the presets of `trimtab init` from the dev scores of published studies.

For every architecture and method, from all studies of it (a *cell* is one backbone on one task):

* the learning rate is the one that loses least on dev against the best rate of each cell, on average over the cells;
  of equals the lowest. Only rates that every cell has tried can be chosen.
* length and initializer are those of the rate study unless another one is better at the chosen rate, seed by seed on
  dev, by more than chance: the 95 % interval of the mean difference over seeds and cells lies above zero.

Test scores have no say. Writes OUT.json, OUT.md and, with --write, the presets themselves.

    python scripts/presets.py --write --out docs/results/presets
"""

from __future__ import annotations

import argparse
import csv
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml
from scipy import stats

from publishing import command_line, publish
from trimtab.documents import read_yaml
from trimtab.drafting.presets import FILE, Preset
from trimtab.trackers import flattened

ROOT = Path(__file__).resolve().parents[1]
METHOD, RATE = "prompt.kind", "training.learning_rate"
LENGTH, START = "prompt.length", "prompt.initializer.kind"
STANDARD = Preset(0.0, 10, "sampled_vocab")
OWN_START = {"deep"}
"""Methods whose first values are no rows in the text."""


@dataclass(frozen=True)
class Source:
    """A study, and how the names of its arms begin.

    Attributes:
        study: its file below recipes, without the suffix, and its results below docs/results.
        arms: beginning of an arm's name -> (architecture, cell); other arms are left out.
    """

    study: str
    arms: Mapping[str, tuple[str, str]]

    def place(self, arm: str) -> tuple[str, str] | None:
        found = [place for start, place in self.arms.items() if arm == start or arm.startswith(f"{start}, ")]
        return found[0] if found else None


NANO = {
    f"{architecture}, {task}": (architecture, f"nano-{architecture}, {task}")
    for architecture in ("masked", "causal", "seq2seq")
    for task in ("topics", "ratings")
}
SOURCES = (
    Source("presets/rates", NANO),
    Source("presets/lengths", NANO),
    Source("presets/initializers", NANO),
    Source("ptp/sst2", {"none": ("masked", "MiniLM, sst2")}),
    Source("ptp/trec", {"none": ("masked", "MiniLM, trec")}),
    Source("ptp/sst2-p_tuning_lstm", {"none": ("masked", "MiniLM, sst2")}),
)


@dataclass(frozen=True)
class Run:
    """A run that helps to choose; those of the final stage of a search do not, as only one rate has them."""

    architecture: str
    method: str
    cell: str
    seed: int
    learning_rate: float
    length: int
    initializer: str
    dev: float


def read(root: Path = ROOT, sources: Sequence[Source] = SOURCES) -> list[Run]:
    """All runs that have a dev score, each once."""
    found: dict[Run, None] = {}
    for source in sources:
        file = root / "docs/results" / source.study / "runs.csv"
        if not file.exists():
            continue
        study = read_yaml(root / "recipes" / f"{source.study}.yaml")
        with file.open(newline="") as lines:
            for row in csv.DictReader(lines):
                place = source.place(row["arm"])
                if place is None or row["stage"] == "final" or not row["dev"]:
                    continue
                options = {**flattened(study["recipe"]), **flattened(study["arms"][row["arm"]]), **row}
                length = int(options.get(LENGTH) or STANDARD.length)
                start = str(options.get(START) or STANDARD.initializer)
                seed, rate, dev = int(row["seed.init"]), float(options[RATE]), float(row["dev"])
                found[Run(place[0], str(options[METHOD]), place[1], seed, rate, length, start, dev)] = None
    return list(found)


def losses(runs: Sequence[Run]) -> dict[float, float]:
    """Rate -> what it loses on dev against the best rate of each cell, on average; only rates that all cells have.

    >>> def run(cell, rate, dev): return Run("masked", "deep", cell, 0, rate, 10, "", dev)
    >>> losses([run("a", 0.1, 0.5), run("a", 0.2, 0.75), run("b", 0.1, 0.5), run("b", 0.2, 0.5), run("b", 0.3, 1.0)])
    {0.1: 0.375, 0.2: 0.25}
    """
    scores: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        scores[run.cell][run.learning_rate].append(run.dev)
    means = {cell: {rate: fmean(devs) for rate, devs in rates.items()} for cell, rates in scores.items()}
    shared = set.intersection(*(set(rates) for rates in means.values()))
    return {
        rate: fmean(max(rates[r] for r in shared) - rates[rate] for rates in means.values()) for rate in sorted(shared)
    }


@dataclass(frozen=True)
class Gain:
    """Another length or initializer against the standard one: the mean difference on dev and its 95 % interval."""

    value: Any
    pairs: int
    mean: float
    low: float
    high: float


def gains(runs: Sequence[Run], option: str, standard: Any) -> list[Gain]:
    """The best last. Pairs share everything but `option`."""
    scores: dict[Any, dict[tuple[str, int], float]] = defaultdict(dict)
    for run in runs:
        scores[getattr(run, option)][run.cell, run.seed] = run.dev
    base, found = scores.pop(standard, {}), []
    for value, devs in scores.items():
        differences = [devs[key] - base[key] for key in devs if key in base]
        if len(differences) < 2:
            continue
        mean, error = fmean(differences), float(stats.sem(differences))
        reach = float(stats.t.ppf(0.975, len(differences) - 1)) * error
        found.append(Gain(value, len(differences), mean, mean - reach, mean + reach))
    return sorted(found, key=lambda gain: gain.mean)


def choose(runs: Sequence[Run]) -> tuple[Preset, dict[str, Any]]:
    """The preset of one architecture and method, and the figures behind it."""
    usual = [r for r in runs if (r.length, r.initializer) == (STANDARD.length, STANDARD.initializer)]
    lost = losses(usual)
    rate = min(lost, key=lambda r: (round(lost[r], 6), r))
    at_rate = [r for r in runs if math.isclose(r.learning_rate, rate)]
    lengths = gains([r for r in at_rate if r.initializer == STANDARD.initializer], "length", STANDARD.length)
    starts = gains([r for r in at_rate if r.length == STANDARD.length], "initializer", STANDARD.initializer)
    preset = Preset(
        rate,
        lengths[-1].value if lengths and lengths[-1].low > 0 else STANDARD.length,
        None
        if runs[0].method in OWN_START
        else (starts[-1].value if starts and starts[-1].low > 0 else STANDARD.initializer),
    )
    cells = sorted({r.cell for r in usual})
    return preset, {
        "cells": cells,
        "runs": len(usual),
        "losses": {str(r): round(loss, 4) for r, loss in lost.items()},
        "lengths": [asdict(g) for g in lengths],
        "initializers": [asdict(g) for g in starts],
    }


def outcome(runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """Architecture -> method -> preset and figures."""
    groups: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.architecture, run.method].append(run)
    result: dict[str, dict[str, Any]] = defaultdict(dict)
    for (architecture, method), group in groups.items():
        preset, figures = choose(group)
        values = {k: v for k, v in asdict(preset).items() if v is not None}
        result[architecture][method] = {"preset": values, **figures}
    return dict(result)


def as_yaml(result: Mapping[str, Mapping[str, Any]]) -> str:
    """The file that the package reads."""
    presets = {a: {m: found["preset"] for m, found in methods.items()} for a, methods in result.items()}
    head = "# Written by `python scripts/presets.py --write` from the studies that docs/guide/presets.md names.\n"
    return head + yaml.safe_dump(presets, sort_keys=False, default_flow_style=None)


def page(result: Mapping[str, Mapping[str, Any]], command: str) -> list[str]:
    """The results as a page."""
    rates = sorted({float(r) for methods in result.values() for found in methods.values() for r in found["losses"]})
    lines = [
        "# Presets: learning rate, length and initializer by architecture",
        "",
        "What each learning rate loses on dev against the best rate of its backbone and task, on average; the lowest "
        "loss is chosen. How, and what the presets are for: [the guide](../guide/presets.md).",
        "",
        f"| Architecture | Method | Runs | {' | '.join(f'{r:g}' for r in rates)} | Chosen |",
        f"|---|---|---:|{'---:|' * len(rates)}---|",
    ]
    for architecture, methods in result.items():
        for method, found in methods.items():
            lost = found["losses"]
            shown = [f"{lost[str(r)]:.3f}" if str(r) in lost else "–" for r in rates]
            chosen = ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in found["preset"].values())
            lines.append(f"| {architecture} | {method} | {found['runs']} | {' | '.join(shown)} | {chosen} |")
    lines += ["", "The cells behind them:", ""]
    for architecture, methods in result.items():
        named = sorted({cell for found in methods.values() for cell in found["cells"]})
        lines.append(f"* {architecture}: {'; '.join(named)}")
    others = [
        (architecture, method, name, gain)
        for architecture, methods in result.items()
        for method, found in methods.items()
        for name in ("lengths", "initializers")
        for gain in found[name]
    ]
    if others:
        lines += [
            "",
            "Other lengths and initializers at the chosen rate, against length 10 and `sampled_vocab`: difference on "
            "dev with its 95 % interval over seeds and cells.",
            "",
            "| Architecture | Method | Instead | Pairs | Difference |",
            "|---|---|---|---:|---:|",
            *(
                f"| {a} | {m} | {'length ' if name == 'lengths' else ''}{g['value']} | {g['pairs']} | "
                f"{g['mean']:+.3f} \\[{g['low']:+.3f}, {g['high']:+.3f}] |"
                for a, m, name, g in others
            ),
        ]
    return [*lines, "", f"Command: `{command}`"]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the presets that the package reads")
    parser.add_argument("--out", type=Path, help="write OUT.json and OUT.md")
    args = parser.parse_args(argv)
    result = outcome(read())
    publish(args.out, result, page(result, command_line(__file__, argv)))
    if args.write:
        FILE.write_text(as_yaml(result))


if __name__ == "__main__":
    main()
