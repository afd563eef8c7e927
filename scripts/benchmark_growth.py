"""How a run grows: step time with rows, length, prompt length and number of prompts; memory with prompts and with rows.

    OMP_NUM_THREADS=1 python scripts/benchmark_growth.py --out docs/results/growth

Time: from one common step, one size is changed at a time; all sizes take turns in one process. Memory: each
size in a process of its own. With prompts: the peak of steps above the loaded backbone, with a budget of `--max-tokens`
a pass. With rows of a training table: the peak of the whole process, over reading the table, preparing a run on a small
model and a few steps; a table with so many rows is made for it. An empty `--grid {}`, `--packs` or `--tables` leaves
that part out.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from measuring import resident
from publishing import command_line, common_options, footer, machine, publish
from random_work import Work, loop_of, step_of
from trimtab.backbones import load_backbone
from trimtab.config import resolve
from trimtab.stored import HELD
from trimtab.training.packs import assembled
from trimtab.training.preparing import prepare
from trimtab.training.records import environment

COMMON = Work(rows=8, text=53, prompt=10, prompts=1)
GRID = {
    "rows": (1, 2, 4, 8, 16, 32),
    "text": (13, 29, 53, 117, 245),
    "prompt": (1, 5, 10, 20, 50, 100),
    "prompts": (1, 2, 4, 8, 16),
}
MEMORY = ("memory_of_prompts", "memory_of_rows")
WORDS = "the a of and to it was is in on red blue green sun moon sea cat dog bird tree".split()


def step_times(model: str, steps: int, max_tokens: int, grid: Mapping[str, Sequence[int]]) -> list[dict[str, Any]]:
    """Milliseconds of the fastest of some steps, by what was changed and to what."""
    backbone = load_backbone(model, dtype="float32", device="cpu")
    found = []
    for axis, sizes in grid.items():
        works = [replace(COMMON, **{axis: size}) for size in sizes]
        loops = [loop_of(backbone, work, max_tokens) for work in works]
        for loop in loops:
            step_of(loop)
        taken: list[list[float]] = [[] for _ in loops]
        for _ in range(steps):
            for loop, seconds in zip(loops, taken, strict=True):
                begun = time.perf_counter()
                step_of(loop)
                seconds.append(time.perf_counter() - begun)
        for size, work, seconds in zip(sizes, works, taken, strict=True):
            tokens = work.rows * work.prompts * work.length
            found.append({"axis": axis, "size": size, "tokens": tokens, "ms": 1000 * min(seconds)})
    return found


def line(points: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Milliseconds of a step without tokens, and of a token: the line through the steps of an axis, least squares of
    relative errors.

    >>> line([{"tokens": 1, "ms": 3.0}, {"tokens": 2, "ms": 5.0}])
    (1.0, 2.0)
    """
    tokens, ms = (torch.tensor([float(p[key]) for p in points], dtype=torch.float64) for key in ("tokens", "ms"))
    sides = torch.stack([1 / ms, tokens / ms], 1)
    fixed, each = torch.linalg.lstsq(sides, torch.ones(len(points), 1, dtype=torch.float64)).solution[:, 0].tolist()
    return round(fixed, 6), round(each, 6)


def memory_of_prompts(model: str, prompts: int, max_tokens: int, steps: int = 3) -> float:
    """MiB at the peak of steps of so many runs, above the loaded backbone."""
    loop = loop_of(load_backbone(model, dtype="float32", device="cpu"), replace(COMMON, prompts=prompts), max_tokens)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading
    loaded = resident("VmRSS")
    for _ in range(steps):
        step_of(loop)
    return resident("VmHWM") - loaded


def table(folder: Path, rows: int, seed: int = 0) -> str:
    """A table of so many rows of 40 words."""
    path, draw = folder / f"{rows}-{seed}.jsonl", random.Random(seed)
    with path.open("w") as file:
        for i in range(rows):
            row = {"text": " ".join(draw.choices(WORDS, k=40)), "label": ("yes", "no")[i % 2]}
            file.write(json.dumps(row) + "\n")
    return str(path)


def memory_of_rows(model: str, rows: int, steps: int = 3) -> dict[str, float]:
    """MiB at the peak of a process that trains on so many rows: before the table is read, and in the end."""
    with tempfile.TemporaryDirectory() as folder:
        small = table(Path(folder), 200, 1)
        task = {"kind": "table", "train": table(Path(folder), rows), "dev": small, "test": small,
                "label_words": {"yes": "yes", "no": "no"}}  # fmt: skip
        training = {"batch_size": 8, "min_steps": steps, "max_steps": steps, "evaluations": 1}
        raw = {"backbone": {"model": model, "dtype": "float32"}, "task": task, "training": training}
        backbone = load_backbone(model, dtype="float32", device="cpu")
        before = resident("VmRSS")
        begun = time.perf_counter()
        prepared = prepare(resolve(raw).config, backbone)
        seconds = time.perf_counter() - begun
        assembled([prepared])[0].run()
        return {"before": before, "peak": resident("VmHWM"), "seconds": seconds}


def in_a_process(what: str, **given: Any) -> Any:
    """What a function of this file finds in a process of its own."""
    task = json.dumps({"what": what, "given": given, "threads": torch.get_num_threads()})
    done = subprocess.run([sys.executable, __file__, "--alone", task], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def figure(outcome: Mapping[str, Any], path: Path) -> None:
    """A panel per axis of step times."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    names = {"rows": "rows of a step", "text": "tokens of a text", "prompt": "virtual tokens", "prompts": "prompts"}
    axes = [axis for axis in names if any(p["axis"] == axis for p in outcome["steps"])]
    sheet, panels = plt.subplots(1, len(axes), figsize=(3 * len(axes), 2.6), squeeze=False, layout="constrained")
    for panel, axis in zip(panels[0], axes, strict=True):
        points = [p for p in outcome["steps"] if p["axis"] == axis]
        fixed, each = line(points)
        panel.plot([p["size"] for p in points], [p["ms"] for p in points], "o", color="#1f6f8b")
        panel.plot([p["size"] for p in points], [fixed + each * p["tokens"] for p in points], "-", color="#99a8b2")
        panel.set(xlabel=names[axis], ylabel="ms a step", xlim=0, ylim=0)
    sheet.savefig(path, dpi=110)
    plt.close(sheet)


def page(outcome: Mapping[str, Any]) -> list[str]:
    """The markdown page: what was measured."""
    facts = outcome["environment"]
    parts = [_page_of_steps(outcome), _page_of_prompts(outcome), _page_of_rows(outcome)]
    return [
        "# Growth" if outcome["steps"] else "# Growth of memory",
        "",
        *(line for part, key in zip(parts, ("steps", *MEMORY), strict=True) if outcome[key] for line in [*part, ""]),
        *footer(outcome["command"], facts),
    ]


def _page_of_steps(outcome: Mapping[str, Any]) -> list[str]:
    common = f"{COMMON.rows} rows of {COMMON.prompt} virtual tokens, {COMMON.text} tokens and a mask, one prompt"
    lines = [
        f"Steps of {outcome['model']}, float32, the fastest of {outcome['repeats']}. One size is changed at a time; "
        f"the others are {common}. A pass takes {outcome['max_tokens']:,} tokens at most. `line`: milliseconds without "
        "tokens, and for 1,000 tokens.",
        "",
        "| changed | size: ms a step | line |",
        "|---|---|---|",
    ]
    for axis in dict.fromkeys(p["axis"] for p in outcome["steps"]):
        points = [p for p in outcome["steps"] if p["axis"] == axis]
        fixed, each = line(points)
        sizes = ", ".join(f"{p['size']}: {p['ms']:.1f}" for p in points)
        lines.append(f"| {axis} | {sizes} | {fixed:.1f} + {1000 * each:.0f} |")
    return lines


def _page_of_prompts(outcome: Mapping[str, Any]) -> list[str]:
    rows = [f"| {its['prompts']} | {its['mib']:.0f} |" for its in outcome["memory_of_prompts"]]
    return ["| prompts trained together | peak above the backbone, MiB |", "|---|---|", *rows]


def _page_of_rows(outcome: Mapping[str, Any]) -> list[str]:
    lines = [
        f"A table of rows of 40 words, {HELD:,} of which are held rendered at most: resident memory before the table "
        "is read, and at the peak of the process; seconds to prepare the run.",
        "",
        "| training rows | before, MiB | peak, MiB | KiB a row | seconds |",
        "|---|---|---|---|---|",
    ]
    for its in outcome["memory_of_rows"]:
        each = 1024 * (its["peak"] - its["before"]) / its["rows"]
        sizes = f"{its['before']:.0f} | {its['peak']:.0f} | {each:.1f}"
        lines.append(f"| {its['rows']:,} | {sizes} | {its['seconds']:.1f} |")
    return lines


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano-masked", help="a masked language model")
    parser.add_argument("--tiny", default="nano-masked", help="the model for the memory of rows")
    parser.add_argument("--grid", type=json.loads, default=GRID, help="axis -> sizes, in JSON")
    parser.add_argument("--packs", type=int, nargs="*", default=[1, 4, 16, 64], help="prompts, for their memory")
    parser.add_argument("--tables", type=int, nargs="*", default=[1000, 10000, 100000], help="rows, for their memory")
    parser.add_argument("--steps", type=int, default=7, help="timed steps of each size")
    parser.add_argument("--max-tokens", type=int, default=2048, help="tokens a pass")
    common_options(parser, "writes OUT.json, OUT.md and OUT.png")
    parser.add_argument("--alone", type=json.loads, help=argparse.SUPPRESS)
    a = parser.parse_args(argv)
    if unknown := a.grid.keys() - GRID.keys():
        parser.error(f"--grid knows {', '.join(GRID)}, got {', '.join(sorted(unknown))}")
    return a


def main(argv: Sequence[str] | None = None) -> None:
    a = parse(argv)
    torch.set_num_threads(a.threads if a.alone is None else a.alone["threads"])
    if a.alone:
        known = {"prompts": memory_of_prompts, "rows": memory_of_rows}
        print(json.dumps(known[a.alone["what"]](**a.alone["given"])))
        return
    steps = step_times(a.model, a.steps, a.max_tokens, a.grid)
    packs = [
        {"prompts": n, "mib": in_a_process("prompts", model=a.model, prompts=n, max_tokens=a.max_tokens)}
        for n in a.packs
    ]
    tables = [{"rows": n, **in_a_process("rows", model=a.tiny, rows=n)} for n in a.tables]
    facts = machine(environment(load_backbone(a.model, dtype="float32", device="cpu")))
    outcome = {
        "command": command_line(__file__, argv), "model": Path(a.model).name,
        "max_tokens": a.max_tokens, "repeats": a.steps, "environment": facts, "steps": steps,
        "memory_of_prompts": packs, "memory_of_rows": tables,
    }  # fmt: skip
    publish(a.out, outcome, page(outcome))
    if a.out and steps:
        figure(outcome, a.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
