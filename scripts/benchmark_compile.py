"""What `backbone.compile` is worth: training steps of compiled layers and of layers as they are written, in turns.

    OMP_NUM_THREADS=1 python scripts/benchmark_compile.py --out docs/results/compile

Two backbones with the same weights, one of them compiled, take the same steps, of several lengths one after the other,
as batches of texts have. Before that each takes all of them once: that is what compiling costs. Gradients are compared
at the first step.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmark_packs import turns
from measuring import difference, ratios
from publishing import command_line, common_options, footer, machine, publish
from random_work import Work, loop_of, step_of
from trimtab.backbones import load_backbone
from trimtab.backbones.compiling import compile_layers
from trimtab.training.loop import Loop
from trimtab.training.records import environment


def stepping(loops: Sequence[Loop]) -> Callable[[], None]:
    """A step of each length."""

    def steps() -> None:
        for loop in loops:
            step_of(loop)

    return steps


def measure(model: str, dtype: str, work: Work, texts: Sequence[int], repeats: int, backend: str) -> dict[str, Any]:
    """Seconds of steps of all lengths, compiled and plain, and what comes before them."""
    compiled, plain = (load_backbone(model, dtype=dtype, device="cpu") for _ in range(2))  # type: ignore[arg-type]
    compile_layers(compiled.model, backend)
    works = [replace(work, text=text) for text in texts]
    both = [[loop_of(backbone, its) for its in works] for backbone in (compiled, plain)]
    before = both[1][0].pack.stacked["rows"].detach().clone()
    first = []
    for loops in both:
        begun = time.perf_counter()
        stepping(loops)()
        first.append(time.perf_counter() - begun)
    moved = [loops[0].pack.stacked["rows"].detach() - before for loops in both]
    gc.collect()
    gc.freeze()
    taken = list(turns([stepping(loops) for loops in both], repeats, torch.device("cpu")))
    gc.unfreeze()
    seconds = [[turn[i] for turn in taken] for i in (0, 1)]
    return {
        "model": Path(model).name, "dtype": dtype, "apart": difference(*moved),
        "first": first[0], "compiled": median(seconds[0]), "plain": median(seconds[1]), "ratio": ratios(*seconds),
        "environment": machine(environment(plain)),
    }  # fmt: skip


def page(outcome: Mapping[str, Any]) -> list[str]:
    """The markdown page."""
    work, facts = outcome["work"], outcome["results"][0]["environment"]
    lines = [
        "# Compiled layers",
        "",
        f"A step of each length ({', '.join(map(str, outcome['texts']))} tokens of text), {work['rows']} rows, "
        f"{work['prompt']} virtual tokens; torch.compile by `{outcome['backend']}`. Ratio compiled / plain, median and "
        "quartiles over turns in one process: below 1 compiled is faster. First: the first steps, compiling included. "
        "Last: how far apart the first update of the prompt is.",
        "",
        "| backbone | dtype | compiled, s | plain, s | ratio | first, s | update |",
        "|---|---|---|---|---|---|---|",
    ]
    for its in outcome["results"]:
        spread = "{median:.2f} ({low:.2f} to {high:.2f})".format(**its["ratio"])
        lines.append(
            f"| {its['model']} | {its['dtype']} | {its['compiled']:.3f} | {its['plain']:.3f} | {spread} "
            f"| {its['first']:.1f} | {its['apart']:.0e} |"
        )
    return [
        *lines,
        "",
        *footer(outcome["command"], facts),
    ]


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["nano-masked"], help="masked language models")
    parser.add_argument("--dtypes", nargs="+", choices=["float32", "bfloat16"], default=["float32", "bfloat16"])
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--texts", type=int, nargs="+", default=[21, 53, 85], help="lengths of texts")
    parser.add_argument("--repeats", type=int, default=10, help="turns")
    parser.add_argument("--backend", default="inductor")
    common_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    a = parse(argv)
    torch.set_num_threads(a.threads)
    work = Work(rows=a.rows)
    results = [measure(model, dtype, work, a.texts, a.repeats, a.backend) for model in a.models for dtype in a.dtypes]
    outcome = {"command": command_line(__file__, argv), "work": asdict(work), "texts": a.texts, "backend": a.backend,
               "results": results}  # fmt: skip
    publish(a.out, outcome, page(outcome))


if __name__ == "__main__":
    main()
