"""Prefix tuning on WNUT-17: the trainings of `peft_prefix_trainings.py` side by side.

The rate is chosen per arm by the mean dev score. Besides: the first gradient and the first steps from the same values,
time (all arms in one process, taking turns) and memory (each in a process of its own).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from measuring import PAGE, difference, peak_while_stepping, ratios, turns
from peft_prefix_trainings import ARMS, base_of, prepared, start
from publishing import footer
from trimtab.backbones import Backbone


def check_gradients(a: argparse.Namespace, backbone: Backbone, steps: int = 5) -> dict[str, dict[str, Any]]:
    """trimtab's arms against PEFT's from the same first values: the gradients of the first batch, by parameter, and
    what a few steps add to the prompt and the head.
    """
    found: dict[str, dict[str, Any]] = {}
    for arm in (x for x in ARMS if x.library == "trimtab"):
        p = prepared(a, arm, a.seeds[0], a.rates[0], backbone)
        ours, theirs = start(p, arm), start(p, base_of(arm))
        first, mine, its = theirs.parameters, ours.gradients(), theirs.gradients()
        apart: dict[str, Any] = {"first_values": max(float((ours.parameters[n] - first[n]).abs().max()) for n in first)}
        apart["gradient"] = {n: difference(mine[n], its[n]) for n in its}
        for _ in range(steps):
            ours.step()
            theirs.step()
        now, theirs_now = ours.parameters, theirs.parameters
        apart["steps"] = {n: difference(now[n] - first[n], theirs_now[n] - first[n]) for n in first}
        found[str(arm)] = apart
    return found


def train_all(a: argparse.Namespace, backbone: Backbone) -> dict[str, dict[str, Any]]:
    """Every arm with every rate and seed; the rate with the best mean dev score. What `--finished` has is not trained
    again."""
    found: dict[str, dict[str, Any]] = {}
    lines = a.finished.read_text().splitlines() if a.finished and a.finished.exists() else []
    before = {(x["arm"], x["rate"], x["seed"]): x["outcome"] for x in map(json.loads, lines)}
    for arm in (x for x in ARMS if a.trained is None or str(x) in a.trained):
        grid: dict[str, list[dict[str, Any]]] = {}
        for rate in a.rates:
            grid[f"{rate:g}"] = []
            for seed in a.seeds:
                begun = time.perf_counter()
                p = prepared(a, arm, seed, rate, backbone)
                training = start(p, arm, a.first == "copied")
                outcome = before.get((str(arm), rate, seed))
                if outcome is None:
                    outcome = {"seed": seed, **training.run(), "seconds": round(time.perf_counter() - begun, 1)}
                    if a.finished:
                        with a.finished.open("a") as file:
                            line = {"arm": str(arm), "rate": rate, "seed": seed, "outcome": outcome}
                            file.write(json.dumps(line) + "\n")
                grid[f"{rate:g}"].append(outcome)
                print(arm, rate, json.dumps(outcome), flush=True)
        select = p.config.training.select
        best = max(
            grid, key=lambda r: (mean(x["dev"][select] for x in grid[r]), -mean(x["dev"]["loss"] for x in grid[r]))
        )
        count = sum(v.numel() for v in training.parameters.values())
        found[str(arm)] = {"rate": best, "select": select, "trained": count, "grid": grid}
    return found


def time_all(a: argparse.Namespace, backbone: Backbone) -> dict[str, dict[str, Any]]:
    """Seconds per step, all arms by turn on the same batches, and the ratios to PEFT's arms."""
    trainings = [start(prepared(a, arm, a.seeds[0], a.rates[0], backbone), arm) for arm in ARMS]
    taken = list(turns(trainings, a.timed))
    found = {}
    for i, arm in enumerate(ARMS):
        base = ARMS.index(base_of(arm))
        wall = ratios([t[i][0] for t in taken], [t[base][0] for t in taken])
        processor = ratios([t[i][1] for t in taken], [t[base][1] for t in taken])
        seconds = median(t[i][0] for t in taken)
        found[str(arm)] = {"seconds": seconds, "ratio": wall, "processor_ratio": processor}
    return found


def peak_of_all(a: argparse.Namespace, argv: Sequence[str] | None) -> dict[str, dict[str, float]]:
    """Peaks by arm, each in a process of its own, and their ratios to PEFT's arms."""
    given = list(sys.argv[1:] if argv is None else argv)
    found: dict[str, dict[str, float]] = {}
    for i, arm in enumerate(ARMS):
        command = [sys.executable, str(Path(__file__).with_name("peft_prefix.py")), *given, "--peak-of", str(i)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[str(arm)] = json.loads(done.stdout.splitlines()[-1])
    for arm in ARMS:
        mine, base = found[str(arm)], found[str(base_of(arm))]
        mine["ratio"] = mine["peak"] / base["peak"]
        mine["ratio_above_loaded"] = (mine["peak"] - mine["loaded"]) / max(base["peak"] - base["loaded"], PAGE)
    return found


def run_wnut17(a: argparse.Namespace, argv: Sequence[str] | None) -> dict[str, Any] | None:
    first = prepared(a, ARMS[0], a.seeds[0], a.rates[0])
    if a.peak_of is not None:
        arm = ARMS[a.peak_of]
        own = first if arm == ARMS[0] else prepared(a, arm, a.seeds[0], a.rates[0], first.backbone)
        print(json.dumps(peak_while_stepping(start(own, arm))))
        return None
    backbone = first.backbone
    apart = check_gradients(a, backbone)
    print(json.dumps(apart), flush=True)
    timing, memory = time_all(a, backbone), peak_of_all(a, argv)
    cost = {str(arm): {**timing[str(arm)], "memory": memory[str(arm)]} for arm in ARMS}
    settings = {
        "backbone": Path(a.backbone).name, "task": first.task.name, "length": a.length, "width": a.width,
        "steps": a.steps, "evaluations": a.evaluations, "seeds": a.seeds, "rates": a.rates, "first": a.first,
        "batch_size": first.config.training.batch_size,
        "rows": {split: len(rows) for split, rows in first.rows.items()},
    }  # fmt: skip
    return {"settings": settings, "agreement": apart, "cost": cost, "arms": train_all(a, backbone)}


def wnut17_page(outcome: Mapping[str, Any]) -> list[str]:
    """The markdown page of `wnut17`."""
    s = outcome["settings"]
    drawn = "drawn by each library" if s["first"] == "own" else "trimtab's in both libraries"
    lines = [
        f"# Prefix tuning on {s['task']}: PEFT and trimtab",
        "",
        f"Backbone `{s['backbone']}` (frozen, float32, no dropout), linear head on words, prefix of {s['length']}, "
        f"projection through {s['width']}, {s['steps']} steps of {s['batch_size']} rows; the same rows, batches, head, "
        f"loss and schedule. First prefix N(0,1), {drawn}. Checkpoint of {s['evaluations']} evaluations and rate of "
        f"{', '.join(f'{r:g}' for r in s['rates'])} chosen on dev ({s['rows']['dev']} rows), test "
        f"({s['rows']['test']} rows) used once; mean and sample standard deviation over seeds "
        f"{', '.join(map(str, s['seeds']))}. *Text moved*: to the positions behind the prefix, as PEFT always does.",
        "",
        "| arm | trained | rate | dev F1 | test F1 | each |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in outcome["arms"].items():
        runs, metric = row["grid"][row["rate"]], row["select"]
        dev, test = ([x[split][metric] for x in runs] for split in ("dev", "test"))
        each = ", ".join(f"{x:.3f}" for x in test)
        lines.append(f"| {name} | {row['trained']:,} | {row['rate']} | {spread(dev)} | {spread(test)} | {each} |")
    lines += [
        "",
        "Cost against PEFT's arm with the same projection: below 1 is faster or smaller. Time: median and quartiles "
        "over turns in one process; processor: the same in processor time. Memory: highest resident size of a process "
        "of its own, and how much of it is above the loaded model.",
        "",
        "| arm | s/step | time | processor | peak MiB | peak | above the model |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in outcome["cost"].items():
        wall, memory = row["ratio"], row["memory"]
        lines.append(
            f"| {name} | {row['seconds']:.3f} | {wall['median']:.2f} ({wall['low']:.2f} to {wall['high']:.2f}) "
            f"| {row['processor_ratio']['median']:.2f} | {memory['peak']:.0f} | {memory['ratio']:.2f} "
            f"| {memory['ratio_above_loaded']:.2f} |"
        )
    lines += ["", "Relative differences from PEFT's arm, from the same first values:", ""]
    for name, row in outcome["agreement"].items():
        gradient, steps = (", ".join(f"`{n}` {v:.1e}" for n, v in row[k].items()) for k in ("gradient", "steps"))
        lines.append(f"* {name}: first gradient of {gradient}; what five steps added to {steps}")
    return [*lines, "", *footer(outcome["command"], outcome["environment"])]


def spread(values: Sequence[float]) -> str:
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")
