"""How near a training step comes to what the processor can multiply, and where the rest goes.

    OMP_NUM_THREADS=1 python scripts/benchmark_roofline.py --out docs/results/roofline \\
        --models nano-masked ../shared/models/minilm-l6-mlm bert-base --tokenizer ../shared/models/minilm-l6-mlm

The peak is measured: the fastest of many products of square matrices, and of matrices with the sizes of the model's own
layers. The operations of a step are counted twice, by a formula and by torch's FlopCounterMode (with eager attention,
which it sees), and must agree. The step is timed with the attention that a run would take; its share of the peak is
operations / seconds / peak. The rest is looked for with torch's profiler: time in matrix products, in attention, in
other operations, and outside of them. `bert-base` is the architecture with random weights.

With a frozen backbone a step costs twice the forward pass of its linear layers, not thrice: weights get no gradient.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from publishing import at_least_one, command_line, common_options, footer, machine, publish
from random_work import Work, loop_of, opened, step_of
from trimtab.backbones import Backbone
from trimtab.training.records import environment

PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "linear", "_addmm_activation", "mkldnn_linear_pointwise")
ATTENTION = ("attention", "softmax")
BLOCK = "step"


def formula(backbone: Backbone, work: Work) -> int:
    """Operations of one training step of an encoder: multiplications and additions.

    Per layer and token forward: 8 h^2 for queries, keys, values and output, 4 h i for the feed-forward layers; and
    4 T^2 h per row for scores and their sum. Backward: the same again for the linear layers, twice for attention, whose
    factors both get a gradient. The head's dense layer sees one position of a row.
    """
    c = backbone.model.config
    rows, length = work.rows * work.prompts, work.length
    linear = rows * length * (8 * c.hidden_size**2 + 4 * c.hidden_size * c.intermediate_size)
    attention = 4 * rows * length**2 * c.hidden_size
    head = 2 * rows * c.hidden_size**2
    return int(c.num_hidden_layers * (2 * linear + 3 * attention) + 2 * head)


def counted(backbone: Backbone, work: Work) -> int:
    """The same by torch; attention is eager for it."""
    model = backbone.model
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        loop = loop_of(backbone, work)
        with FlopCounterMode(display=False) as counter:
            step_of(loop)
    finally:
        model.set_attn_implementation(before)
    return int(counter.get_total_flops())


def peak(dtype: torch.dtype, sizes: Sequence[tuple[int, int, int]], seconds: float = 1.0) -> float:
    """The most operations a second of products [m,k] x [k,n], in the best of many tries."""
    best = 0.0
    for m, k, n in sizes:
        a, b = torch.randn(m, k).to(dtype), torch.randn(n, k).to(dtype).T  # weights are kept as [n,k]
        out = torch.empty(m, n, dtype=dtype)
        torch.mm(a, b, out=out)
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            begun = time.perf_counter()
            torch.mm(a, b, out=out)
            best = max(best, 2 * m * k * n / (time.perf_counter() - begun))
    return best


def shapes_of(backbone: Backbone, work: Work) -> list[tuple[int, int, int]]:
    """The products of a layer, beside square ones."""
    c, tokens = backbone.model.config, work.rows * work.prompts * work.length
    h, i = c.hidden_size, c.intermediate_size
    return [(1024, 1024, 1024), (2048, 2048, 2048), (tokens, h, h), (tokens, h, i), (tokens, i, h)]


def where_it_goes(backbone: Backbone, work: Work) -> dict[str, float]:
    """Shares of a step: matrix products, attention, other operations, and what lies between operations."""
    loop = loop_of(backbone, work)
    step_of(loop)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        begun = time.perf_counter()
        step_of(loop)
        wall = 1e6 * (time.perf_counter() - begun)
    found = dict.fromkeys(("products", "attention", "others", "between"), 0.0)
    each: dict[str, float] = {}
    for event in seen.key_averages():
        name = event.key.removeprefix("aten::")
        if not event.key.startswith("aten::") and "mkldnn" not in name:
            continue
        taken = event.self_cpu_time_total / wall
        kind = "products" if name in PRODUCTS else "attention" if any(a in name for a in ATTENTION) else "others"
        found[kind] += taken
        if kind != "products":
            each[name] = each.get(name, 0.0) + taken
    found["between"] = max(0.0, 1 - sum(found.values()))
    top = sorted(each.items(), key=lambda item: -item[1])[:4]
    return {**found, **{f"op:{name}": share for name, share in top}}


def measure(name: str, backbone: Backbone, work: Work, steps: int, seconds: float) -> dict[str, Any]:
    """Everything of one model."""
    loop = loop_of(backbone, work)
    step_of(loop)
    highest, taken = [], []
    for _ in range(3):  # peak and steps in turns: what else runs on the machine meets both
        highest.append(peak(backbone.dtype, shapes_of(backbone, work), seconds / 15))
        for _ in range(-(-steps // 3)):
            begun = time.perf_counter()
            step_of(loop)
            taken.append(time.perf_counter() - begun)
    theirs = counted(backbone, work)
    operations = formula(backbone, work)
    return {
        "model": name, "parameters": backbone.parameter_count, "dtype": str(backbone.dtype).removeprefix("torch."),
        "operations": operations, "counted": theirs, "peak": max(highest), "seconds": median(taken),
        "fastest": min(taken), "share": operations / min(taken) / max(highest),
        "median_share": operations / median(taken) / max(highest), "profile": where_it_goes(backbone, work),
    }  # fmt: skip


def page(outcome: Mapping[str, Any]) -> list[str]:
    """The markdown page."""
    work, facts = outcome["work"], outcome["environment"]
    lines = [
        "# Roofline: a training step against the matrix products that the processor can do",
        "",
        f"{work['rows']} rows of {work['prompt']} virtual tokens, {work['text']} tokens and a mask. Operations by "
        "formula; torch's count beside it. Share: of the measured peak, of the fastest step and, in brackets, of the "
        "median one. The last four columns are shares of one profiled step.",
        "",
        "| backbone | parameters | dtype | GFLOP | counted | peak, GFLOP/s | s/step | share of the peak | products "
        "| attention | other operations | between them |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for its in outcome["results"]:
        shares = " | ".join(f"{its['profile'][k]:.0%}" for k in ("products", "attention", "others", "between"))
        lines.append(
            f"| {its['model']} | {its['parameters'] / 1e6:.0f}M | {its['dtype']} | {its['operations'] / 1e9:.2f} "
            f"| {its['counted'] / 1e9:.2f} | {its['peak'] / 1e9:.1f} | {its['seconds']:.3f} "
            f"| {its['share']:.0%} ({its['median_share']:.0%}) | {shares} |"
        )
    lines += ["", "The largest operations that are no matrix products, as shares of the step:", ""]
    for its in outcome["results"]:
        ops = [f"{k.removeprefix('op:')} {v:.0%}" for k, v in its["profile"].items() if k.startswith("op:")]
        lines.append(f"* {its['model']}, {its['dtype']}: {', '.join(ops)}")
    return [
        *lines,
        "",
        *footer(outcome["command"], facts),
    ]


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["nano-masked"])
    parser.add_argument("--tokenizer", type=Path, default=Path("nano-masked"), help="a model's, for bert-base")
    parser.add_argument("--dtypes", nargs="+", choices=["float32", "bfloat16"], default=["float32"])
    for name, default in asdict(Work()).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=15.0, help="in all, for the peak of a model")
    common_options(parser)
    a = parser.parse_args(argv)
    at_least_one(parser, a, *asdict(Work()), "steps", "threads")
    return a


def main(argv: Sequence[str] | None = None) -> None:
    a = parse(argv)
    torch.set_num_threads(a.threads)
    work = Work(**{name: getattr(a, name) for name in asdict(Work())})
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        for dtype in a.dtypes:
            for name in a.models:
                backbone = opened(name, dtype, Path(scratch), a.tokenizer)
                results.append(measure(Path(name).name, backbone, work, a.steps, a.seconds))
                print(json.dumps(results[-1]), flush=True)
    facts = {k: v for k, v in machine(environment(backbone)).items() if k != "dtype"}
    outcome = {"command": command_line(__file__, argv), "work": asdict(work),
               "environment": facts, "results": results}  # fmt: skip
    publish(a.out, outcome, page(outcome))


if __name__ == "__main__":
    main()
