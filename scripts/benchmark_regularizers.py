"""What a regularizer costs: a training step with it against a plain one, on the same rows.

    OMP_NUM_THREADS=1 python scripts/benchmark_regularizers.py --out docs/results/regularizer-costs
    OMP_NUM_THREADS=1 python scripts/benchmark_regularizers.py --model ../shared/models/minilm-l6-mlm \
        --out docs/results/regularizer-costs-minilm

In one process, a step of every kind takes its turn after a plain step; ratios are formed within a turn. Passes of the
backbone are counted by a hook. What remembers is measured in the first epoch and after it. Beside the defaults: PGD
with more steps, from a random start, and with a divergence.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmark_packs import Training, name_of, turns
from measuring import ratios
from publishing import common_options, footer, machine, publish
from trimtab.config import read_recipe, resolve
from trimtab.registry import regularizers
from trimtab.regularizers import Remembering
from trimtab.training.preparing import Preparer, open_backbone
from trimtab.training.records import environment

EXTRA: tuple[dict[str, Any], ...] = (
    {"kind": "pgd", "steps": 3},
    {"kind": "pgd", "start": "uniform"},
    {"kind": "pgd", "start": "uniform", "loss": "sym_kl"},
    {"kind": "gaussian", "loss": "sym_kl"},
)


def show(spec: Mapping[str, Any]) -> str:
    rest = ", ".join(f"{k} {v}" for k, v in spec.items() if k != "kind")
    return f"`{spec['kind']}`" + (f" ({rest})" if rest else "")


def has_memory(spec: Mapping[str, Any]) -> bool:
    """Whether later epochs may cost less than the first."""
    return isinstance(regularizers.build(spec), Remembering)


def called(its: Mapping[str, Any]) -> str:
    epoch = its.get("epoch", "any")
    return show(its["spec"]) + ("" if epoch == "any" else f", {epoch} epochs" if epoch == "later" else ", first epoch")


def measure(recipe: str, model: str, device: str, dtype: str, batch: int, steps: int, runs: int) -> dict[str, Any]:
    """Seconds, ratios and passes of every kind."""
    over = {"backbone.model": model, "backbone.dtype": dtype, "training.batch_size": batch}
    specs = [*({"kind": kind} for kind in regularizers.kinds()), *EXTRA]
    first = resolve(read_recipe(Path(recipe)), over).config
    bench = Preparer(open_backbone(first.backbone, device))

    def training(its: list[dict[str, Any]]) -> Training:
        configs = [resolve(read_recipe(Path(recipe)), {**over, "seed": s, "regularizers": its}) for s in range(runs)]
        return Training([bench.prepare(c.config) for c in configs])

    plain, ways = training([]), [training([spec]) for spec in specs]
    passes = 0

    def count(*_: Any) -> None:
        nonlocal passes
        passes += 1

    found = []
    backbone = bench.backbone
    gc.collect()
    gc.freeze()
    for spec, way in zip(specs, ways, strict=True):
        for one in (plain, way):
            one.step()
        handle = backbone.model.base_model.register_forward_hook(count)
        for epoch in ("first", "later") if has_memory(spec) else ("any",):
            if epoch == "later":
                for _ in range(way.steps_of_epoch):
                    way.step()
            passes = 0
            way.step()
            its_passes = passes
            taken = list(turns([plain.step, way.step], steps, backbone.device))
            without, with_it = ([t[i] for t in taken] for i in (0, 1))
            found.append(
                {
                    "spec": spec,
                    "epoch": epoch,
                    "passes": its_passes,
                    "ratio": ratios(with_it, without),
                    "plain_seconds": sorted(without)[len(without) // 2],
                }
            )
            r = found[-1]["ratio"]
            print(f"{called(found[-1])}: {r['median']:.2f} ({r['low']:.2f} to {r['high']:.2f}), {its_passes} passes")
        handle.remove()
    gc.unfreeze()
    facts = machine(environment(backbone))
    return {"recipe": recipe, "model": name_of(model), "batch": batch, "runs": runs, "found": found, "machine": facts}


def page(outcome: Mapping[str, Any]) -> list[str]:
    f = outcome["machine"]
    lines = [
        "# What a regularizer costs",
        "",
        f"A step of {outcome['runs']} runs with it, in plain steps: median and quartiles over turns in one process. "
        f"Backbone `{outcome['model']}`, {outcome['batch']} rows per run, recipe {Path(outcome['recipe']).stem}.",
        "",
        "| regularizer | plain steps | passes of the backbone |",
        "|---|---|---|",
    ]
    for its in outcome["found"]:
        r = its["ratio"]
        lines.append(f"| {called(its)} | {r['median']:.2f} ({r['low']:.2f} to {r['high']:.2f}) | {its['passes']} |")
    lines += [
        "",
        *footer(outcome["command"], f, f", {f['dtype']} backbone, float32 prompt"),
    ]
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="recipes/quickstart/prompt_tuning.yaml")
    parser.add_argument("--model", default="nano-masked", help="embedded model, folder or hub id")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--batch", type=int, default=16, help="rows of a run's step")
    parser.add_argument("--runs", type=int, default=1, help="runs in the pack")
    parser.add_argument("--steps", type=int, default=20, help="timed turns")
    common_options(parser)
    a = parser.parse_args(argv)
    torch.set_num_threads(a.threads)
    outcome = measure(a.recipe, a.model, a.device, a.dtype, a.batch, a.steps, a.runs)
    words = " ".join(f"--{k} {v}" for k, v in vars(a).items() if v != parser.get_default(k) or k == "out")
    outcome["command"] = f"python scripts/benchmark_regularizers.py {words}".strip()
    publish(a.out, outcome, page(outcome))


if __name__ == "__main__":
    main()
