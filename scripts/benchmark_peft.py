"""Prompt tuning by trimtab and by PEFT's own loop, on one shape: time and peak memory as ratios, gradients checked.

    OMP_NUM_THREADS=1 python scripts/benchmark_peft.py --out docs/results/benchmark-peft

A GPT-2 with random weights (no download), the prompt before the text, AdamW, a loss at the label only, no dropout. A
row is a text and one label token behind it. PEFT reads both, with labels of -100 before the last token, in its usual
loop (`model(**batch).loss.backward()`); its loss is over the whole vocabulary. trimtab trains in its own loop, once
with that same loss (a readout whose classes are the vocabulary: only hidden states at the answer meet the head) and
once with `ranking` over two label words, as users would. PEFT has no masked-LM task type, so it is a causal model.

Time: all contestants in one process, taking turns step by step; ratios are formed within a turn. Memory: each in a
process of its own, the highest resident size while it steps. Everything runs on the CPU, in `--threads` threads.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

import torch
from transformers import GPT2Config

from measuring import PAGE, difference, peak_while_stepping, ratios, turns
from peft_contestants import CONTESTANTS, PEFT, Contestant, Shape, start, versions
from publishing import at_least_one, command_line, common_options, footer, needs_peft, publish


def check_gradients(shape: Shape, dtype: str, steps: int = 5) -> dict[str, float]:
    """How far the two libraries are apart in the first gradient, and in the prompt after a few steps; and, since a
    bfloat16 gradient is a rounded one, how far each of them is from the float32 gradient.
    """
    ours, theirs = start(Contestant("trimtab", "vocabulary", "sdpa"), shape, dtype), start(PEFT, shape, dtype)
    found = {"gradient": difference(ours.gradient(), theirs.gradient())}
    if dtype != "float32":
        exact = start(PEFT, shape, "float32").gradient()
        found["trimtab_to_float32"] = difference(ours.gradient(), exact)
        found["peft_to_float32"] = difference(theirs.gradient(), exact)
    first = theirs.prompt.clone()
    for _ in range(steps):
        ours.step()
        theirs.step()
    found["prompt_moved"] = difference(theirs.prompt, first)
    found["prompt"] = difference(ours.prompt - first, theirs.prompt - first)
    return found


def time_all(shape: Shape, dtype: str, steps: int) -> dict[str, dict[str, Any]]:
    """Seconds per step and their ratios to PEFT's, by contestant."""
    everyone = [PEFT, *CONTESTANTS[dtype]]
    taken = list(turns([start(who, shape, dtype) for who in everyone], steps))
    found = {}
    for i, who in enumerate(everyone):
        wall, base = [t[i][0] for t in taken], [t[0][0] for t in taken]
        processor = ratios([t[i][1] for t in taken], [t[0][1] for t in taken])
        found[str(who)] = {"seconds": median(wall), "ratio": ratios(wall, base), "processor_ratio": processor}
    return found


def peak(shape: Shape, dtype: str, who: Contestant, steps: int = 3) -> dict[str, float]:
    """MiB resident after loading, and the most while stepping. Linux."""
    return peak_while_stepping(start(who, shape, dtype), steps)


def peak_of_all(shape: Shape, dtype: str, threads: int) -> dict[str, dict[str, float]]:
    """Peaks by contestant, each in a process of its own, and their ratios to PEFT's."""
    found: dict[str, dict[str, float]] = {}
    for who in [PEFT, *CONTESTANTS[dtype]]:
        task = json.dumps({"shape": asdict(shape), "dtype": dtype, "who": asdict(who)})
        command = [sys.executable, __file__, "--threads", str(threads), "--peak-of", task]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[str(who)] = json.loads(done.stdout.splitlines()[-1])
    base = found[str(PEFT)]
    for mine in found.values():
        mine["ratio"] = mine["peak"] / base["peak"]
        mine["ratio_above_loaded"] = (mine["peak"] - mine["loaded"]) / max(base["peak"] - base["loaded"], PAGE)
    return found


# Command line --------------------------------------------------------------------------------------------------------


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in asdict(Shape()).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtypes", nargs="+", choices=list(CONTESTANTS), default=list(CONTESTANTS))
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each contestant")
    common_options(parser)
    parser.add_argument("--peak-of", type=json.loads, help=argparse.SUPPRESS)
    a = parser.parse_args(argv)
    at_least_one(parser, a, *asdict(Shape()), "steps", "threads")
    if a.width % a.heads:
        parser.error(f"--width must be a multiple of --heads, got {a.width} and {a.heads}")
    if a.prompt + a.text + 1 > GPT2Config().n_positions:
        parser.error(f"prompt, text and label must fit in {GPT2Config().n_positions} positions")
    needs_peft(parser)
    return a


def main(argv: Sequence[str] | None = None) -> None:
    a = parse(argv)
    torch.set_num_threads(a.threads)
    if a.peak_of:
        print(json.dumps(peak(Shape(**a.peak_of["shape"]), a.peak_of["dtype"], Contestant(**a.peak_of["who"]))))
        return
    shape = Shape(**{name: getattr(a, name) for name in asdict(Shape())})
    results: dict[str, Any] = {}
    for dtype in a.dtypes:
        agreement = check_gradients(shape, dtype)
        print(dtype, json.dumps(agreement), flush=True)
        memory = peak_of_all(shape, dtype, a.threads)
        timing = time_all(shape, dtype, a.steps)
        rows = {name: {**timing[name], "memory": memory[name]} for name in timing}
        results[dtype] = {"agreement": agreement, "contestants": rows}
    outcome = {
        "command": command_line(__file__, argv),
        "shape": asdict(shape),
        "environment": versions(shape),
        "results": results,
    }
    publish(a.out, outcome, page(outcome))


def page(outcome: Mapping[str, Any]) -> list[str]:
    """The markdown page."""
    shape = outcome["shape"]
    lines = [
        "# Prompt tuning: trimtab and PEFT's own loop",
        "",
        "GPT-2 with random weights, {layers} layers, {width} wide, {heads} heads, vocabulary {vocabulary}; batch "
        "{batch}, text of {text} tokens and one label token, prompt of {prompt}; loss at the label.".format(**shape),
        "Ratios to PEFT in the first row: below 1 is faster or smaller. Time: median and quartiles over turns in one "
        "process; processor: the same in processor time. Memory: highest resident size of a process of its own, and "
        "how much of it is above the loaded model.",
        "",
        "| backbone | library, loss over, attention | s/step | time | processor | peak MiB | peak | above the model |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for dtype, found in outcome["results"].items():
        for name, row in found["contestants"].items():
            time_, memory = row["ratio"], row["memory"]
            lines.append(
                f"| {dtype} | {name} | {row['seconds']:.3f} "
                f"| {time_['median']:.2f} ({time_['low']:.2f} to {time_['high']:.2f}) "
                f"| {row['processor_ratio']['median']:.2f} | {memory['peak']:.0f} | {memory['ratio']:.2f} "
                f"| {memory['ratio_above_loaded']:.2f} |"
            )
    lines += ["", "Relative differences, trimtab against PEFT, both with sdpa and the loss over the vocabulary:", ""]
    for dtype, found in outcome["results"].items():
        agreement = found["agreement"]
        rounding = (
            f" (from the float32 gradient: trimtab {agreement['trimtab_to_float32']:.1e}, PEFT "
            f"{agreement['peft_to_float32']:.1e})"
            if "peft_to_float32" in agreement
            else ""
        )
        lines.append(
            f"* {dtype}: gradient of the prompt {agreement['gradient']:.1e}{rounding}; what five steps added to the "
            f"prompt {agreement['prompt']:.1e}"
        )
    return [
        *lines,
        "",
        *footer(outcome["command"], outcome["environment"], ", float32 prompt"),
    ]


if __name__ == "__main__":
    main()
