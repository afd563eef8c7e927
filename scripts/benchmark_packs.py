"""Packed against one by one: time and memory for the same runs of a recipe, trained together and one after the other.

    OMP_NUM_THREADS=1 python scripts/benchmark_packs.py --out docs/results/benchmark-packs
    OMP_NUM_THREADS=1 python scripts/benchmark_packs.py --models ../shared/models/minilm-l6-mlm --out ...

The runs differ in their seeds alone. Time: in one process, a step of a pack of R runs and R steps of single runs take
turns, on the same batches; so do evaluations of the dev split. Ratios are formed within a turn; below 1 the pack is
faster. Both must arrive at the same prompts. `whole` puts together the steps and evaluations that the recipe asks for;
preparing and the final scores, which are the same either way, are left out.

Memory: each way in a process of its own, the peak of steps and an evaluation above what was taken before (the prepared
model, resident memory on a CPU, allocated memory on a GPU). One by one, a run is let go of before the next; what the
allocator keeps of it counts.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch

from measuring import difference, ratios
from publishing import at_least_one, command_line, common_options, machine, publish
from trimtab.config import read_recipe, resolve
from trimtab.training.loop import Loop
from trimtab.training.memory import peak_memory
from trimtab.training.packs import assembled
from trimtab.training.preparing import Prepared, Preparer, open_backbone
from trimtab.training.records import environment

RECIPES = ("recipes/quickstart/residual.yaml", "recipes/quickstart/prompt_tuning.yaml")


@dataclass(frozen=True)
class Setting:
    """What is trained. `batch`: rows of a run's step."""

    recipe: str
    model: str
    device: str
    dtype: str
    batch: int
    runs: int

    def __str__(self) -> str:
        return f"{Path(self.recipe).stem}, {name_of(self.model)}, {self.device}, batch {self.batch}, {self.runs} runs"


def prepared(s: Setting) -> list[Prepared]:
    """The runs of a setting, on one backbone."""
    over = {"backbone.model": s.model, "backbone.dtype": s.dtype, "training.batch_size": s.batch}
    configs = [resolve(read_recipe(Path(s.recipe)), {**over, "seed": seed}).config for seed in range(s.runs)]
    bench = Preparer(open_backbone(configs[0].backbone, s.device))
    return [bench.prepare(config) for config in configs]


class Training:
    """The loop of some runs, step by step."""

    def __init__(self, pack: Sequence[Prepared]) -> None:
        self.loop: Loop = assembled(pack)[0]
        self._batches = [islice(m.batches(), 0, None) for m in self.loop.members]

    def step(self) -> None:
        self.loop._step({r: next(batches) for r, batches in enumerate(self._batches)})
        self.loop.steps_done += 1

    @property
    def steps_of_epoch(self) -> int:
        """Of the first run."""
        first = self.loop.members[0]
        return -(-len(first.train) // first.training.batch_size)

    def evaluate(self) -> None:
        self.loop._evaluate(range(len(self.loop.members)))

    @property
    def prompts(self) -> torch.Tensor:
        """[R,P,E]"""
        with torch.no_grad():
            return self.loop.pack.table(training=False).inputs.float().cpu()


class Together:
    """All runs as one pack."""

    def __init__(self, runs: Sequence[Prepared]) -> None:
        self.parts = [Training(runs)]

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def evaluate(self) -> None:
        for part in self.parts:
            part.evaluate()


class OneByOne(Together):
    """Each run as a pack of its own."""

    def __init__(self, runs: Sequence[Prepared]) -> None:
        self.parts = [Training([run]) for run in runs]


# Time ----------------------------------------------------------------------------------------------------------------


def turns(actions: Sequence[Callable[[], None]], count: int, device: torch.device) -> Iterator[list[float]]:
    """Seconds of each action, by turn; who begins a turn changes."""
    for turn in range(count):
        taken = [0.0] * len(actions)
        for k in range(len(actions)):
            i = (k + turn) % len(actions)
            wait_for(device)
            begun = time.perf_counter()
            actions[i]()
            wait_for(device)
            taken[i] = time.perf_counter() - begun
        yield taken


def wait_for(device: torch.device) -> None:
    """A GPU works on while Python goes on."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def time_both(s: Setting, steps: int, evaluations: int, warmup: int = 2) -> dict[str, Any]:
    """Seconds of a step and of an evaluation of all runs, both ways, and their ratios."""
    runs = prepared(s)
    device = runs[0].backbone.device
    both = [Together(runs), OneByOne(runs)]
    gc.collect()
    gc.freeze()
    for way in both:
        for _ in range(warmup):
            way.step()
    found: dict[str, Any] = {}
    for what, count in (("step", steps), ("evaluate", evaluations)):
        actions: list[Callable[[], None]] = [getattr(way, what) for way in both]
        taken = list(turns(actions, count, device))
        packed, single = ([t[i] for t in taken] for i in (0, 1))
        found[what] = {"packed": median(packed), "one_by_one": median(single), "ratio": ratios(packed, single)}
    gc.unfreeze()
    together, alone = both[0].parts[0].prompts, torch.cat([part.prompts for part in both[1].parts])
    found["prompts_differ_by"] = difference(together, alone)
    members = both[0].parts[0].loop.members
    counts = {"step": max(m.steps for m in members), "evaluate": max(len(m.evaluation_steps) + 1 for m in members)}
    whole = {way: sum(n * found[what][way] for what, n in counts.items()) for way in ("packed", "one_by_one")}
    return {**found, "whole": {**whole, "ratio": whole["packed"] / whole["one_by_one"], **counts},
            "environment": machine(environment(runs[0].backbone))}  # fmt: skip


# Memory --------------------------------------------------------------------------------------------------------------


def peak(s: Setting, way: str, steps: int = 3) -> float | None:
    """MiB at the peak of training the runs one way, above the prepared model; None where the system does not tell."""
    runs = prepared(s)
    with peak_memory(runs[0].backbone.device) as highest:
        for group in [runs] if way == "packed" else [[run] for run in runs]:
            training = Training(group)
            for _ in range(steps):
                training.step()
            training.evaluate()
            del training
            gc.collect()
    found = highest()
    return None if found is None else found / 2**20


def peaks(s: Setting, threads: int) -> dict[str, float | None]:
    """Of both ways, each in a process of its own."""
    found: dict[str, float | None] = {}
    for way in ("packed", "one_by_one"):
        task = json.dumps({"setting": asdict(s), "way": way})
        command = [sys.executable, __file__, "--threads", str(threads), "--peak-of", task]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found[way] = json.loads(done.stdout.splitlines()[-1])
    return found


# Command line --------------------------------------------------------------------------------------------------------


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES))
    parser.add_argument("--models", nargs="+", default=["nano-masked"], help="embedded models, folders or hub ids")
    parser.add_argument("--runs", nargs="+", type=int, default=[1, 2, 5, 10, 20], help="sizes of packs")
    parser.add_argument("--batches", nargs="+", type=int, default=[4, 8, 16], help="rows of a run's step")
    parser.add_argument("--devices", nargs="+", default=["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--steps", type=int, default=20, help="timed turns")
    parser.add_argument("--evaluations", type=int, default=5, help="timed turns of evaluations")
    common_options(parser)
    parser.add_argument("--peak-of", type=json.loads, help=argparse.SUPPRESS)
    a = parser.parse_args(argv)
    at_least_one(parser, a, "runs", "batches", "steps", "evaluations", "threads")
    for recipe in a.recipes:
        if not Path(recipe).is_file():
            parser.error(f"--recipes: there is no file {recipe}")
    return a


def main(argv: Sequence[str] | None = None) -> None:
    a = parse(argv)
    torch.set_num_threads(a.threads)
    if a.peak_of:
        print(json.dumps(peak(Setting(**a.peak_of["setting"]), a.peak_of["way"])))
        return
    settings = [
        Setting(recipe, model, device, a.dtype, batch, runs)
        for device in a.devices for model in a.models for recipe in a.recipes for batch in a.batches for runs in a.runs
    ]  # fmt: skip
    results: list[dict[str, Any]] = []
    for s in settings:
        found = {**time_both(s, a.steps, a.evaluations), "memory": peaks(s, a.threads)}
        results.append({**asdict(s), "recipe": Path(s.recipe).stem, "model": name_of(s.model), **found})
        outcome = {"command": command(argv), "results": results}
        publish(a.out, outcome, page(outcome))  # after every setting, as all of them take long


def name_of(model: str) -> str:
    """A folder's own name."""
    return Path(model).name if Path(model).is_dir() else model


def command(argv: Sequence[str] | None) -> str:
    """What was typed; of absolute paths the last part."""
    words = sys.argv[1:] if argv is None else argv
    return command_line(__file__, [Path(w).name if Path(w).is_absolute() else w for w in words])


def row(found: Mapping[str, Any]) -> str:
    """The columns of a setting."""
    step, evaluate, memory = found["step"], found["evaluate"], found["memory"]
    sizes = ["unknown" if memory[way] is None else f"{memory[way]:.0f}" for way in ("packed", "one_by_one")]
    spread = "{median:.2f} ({low:.2f} to {high:.2f})"
    return (
        f"{1000 * step['packed']:.1f} | {1000 * step['one_by_one']:.1f} | {spread.format(**step['ratio'])} "
        f"| {spread.format(**evaluate['ratio'])} | {found['whole']['ratio']:.2f} | {sizes[0]} | {sizes[1]} "
        f"| {found['prompts_differ_by']:.0e}"
    )


def page(outcome: Mapping[str, Any]) -> list[str]:
    """The markdown page."""
    results = outcome["results"]
    lines = [
        "# Packed against one by one",
        "",
        "Runs that differ in their seeds, trained together and one after the other. Milliseconds of a step of all "
        "runs; ratios packed / one by one, median and quartiles over turns in one process: below 1 the pack is faster. "
        "`whole`: all steps and evaluations of the recipe. Peak memory in MiB above the prepared model, each way in a "
        "process of its own. Last: how far apart the prompts of both ways are in the end, relative.",
        "",
        "| recipe | backbone | device | batch | runs | packed ms | one by one ms | step | evaluation | whole "
        "| packed MiB | one by one MiB | prompts |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for found in results:
        where = f"{found['device']} ({found['environment']['dtype']})"
        lines.append(
            f"| {found['recipe']} | {found['model']} | {where} | {found['batch']} | {found['runs']} | {row(found)} |"
        )
    facts = results[-1]["environment"]
    devices = ", ".join(dict.fromkeys(found["environment"]["device"] for found in results))
    loads = [found["environment"]["load"] for found in results]
    return [
        *lines,
        "",
        f"Command: `{outcome['command']}`",
        "",
        f"trimtab {facts['trimtab']}, torch {facts['torch']}, transformers {facts['transformers']}, {devices}, "
        f"{facts['cores']} cores (load average {min(loads)} to {max(loads)}), {facts['threads']} threads.",
    ]


if __name__ == "__main__":
    main()
