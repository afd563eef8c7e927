"""Table of methods x tasks over several seeds, learning rate chosen on dev, test reported.

    python scripts/method_table.py --backbone ../shared/models/minilm-l6-mlm --data-dir ../shared/data \
        --out docs/results/few-shot-minilm
    python scripts/method_table.py --tasks wnut17 --methods none prompt_tuning "deep: {init: vocabulary}" --shots 0 ...

For every task and method the same grid of learning rates is trained with every seed (as one pack), the rate with the
best mean dev score over seeds is taken (ties: the lower mean dev loss), and only then are runs with that rate written
and scored on test. The score is the one that selects checkpoints (`training.select`), by default the readout's first.
A seed sets initialization, data order, noise and the few-shot subset at once.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml

from publishing import publish
from trimtab.backbones import Backbone
from trimtab.config import resolve
from trimtab.tasks.reading import Places
from trimtab.training.packs import train_pack
from trimtab.training.preparing import Prepared, open_backbone, prepare
from trimtab.training.runs import run_pack

METHODS = ("prompt_tuning", "p_tuning_lstm", "residual")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="nano-masked")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--tasks", nargs="+", default=["sst2", "trec", "subj"])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), help='a kind, or "kind: {option: value}"')
    parser.add_argument("--rates", nargs="+", type=float, default=[1e-3, 3e-3, 1e-2, 3e-2])
    parser.add_argument("--seeds", nargs="+", type=int, default=[13, 21, 42, 87, 100])
    parser.add_argument("--shots", type=int, default=16, help="rows per class; 0 for all training rows")
    parser.add_argument(
        "--keep-grid", action="store_true", help="score every run of the grid on test, not the chosen rate trained anew"
    )
    parser.add_argument("--runs-dir", type=Path, default=Path("runs/few-shot"))
    parser.add_argument("--out", type=Path, required=True, help="writes OUT.json and OUT.md")
    parser.add_argument("overrides", nargs="*", default=[], help="key=value for every run")
    return parser.parse_args(argv)


def prepare_all(
    a: argparse.Namespace, task: str, method: str, rates: Sequence[float], backbone: Backbone | None
) -> tuple[list[Prepared], Backbone]:
    """One prepared run per (rate, seed)."""
    prepared = []
    for rate in rates:
        for seed in a.seeds:
            recipe = {
                "seed": seed,
                "backbone": {"model": a.backbone},
                "task": {"kind": task, **({"shots": a.shots} if a.shots else {})},
                "prompt": prompt_of(method),
                "training": {"learning_rate": rate},
            }
            config = resolve(recipe, a.overrides).config
            backbone = backbone or open_backbone(config.backbone)
            prepared.append(prepare(config, backbone, Places(a.data_dir)))
    assert backbone is not None
    return prepared, backbone


def prompt_of(method: str) -> dict[str, Any]:
    """The prompt section behind the name of a method."""
    given = yaml.safe_load(method)
    if isinstance(given, str):
        return {"kind": given}
    ((kind, options),) = given.items()
    return {"kind": kind, **options}


def choose_rate(a: argparse.Namespace, best_dev: Sequence[dict[str, Any]], select: str) -> tuple[float, dict[str, Any]]:
    """The rate with the best mean dev score, from the dev metrics of the grid."""
    grid: dict[str, Any] = {}
    for i, rate in enumerate(a.rates):
        mine = best_dev[i * len(a.seeds) : (i + 1) * len(a.seeds)]
        grid[str(rate)] = {"dev": mean(d[select] for d in mine), "dev_loss": mean(d["loss"] for d in mine)}
    best = max(grid, key=lambda r: (grid[r]["dev"], -grid[r]["dev_loss"]))
    return float(best), grid


def main() -> None:
    a = parse()
    backbone: Backbone | None = None
    rows: list[dict[str, Any]] = []
    for task in a.tasks:
        for method in a.methods:
            begun = time.time()
            pack, backbone = prepare_all(a, task, method, a.rates, backbone)
            select = pack[0].config.training.select
            if a.keep_grid:
                whole = run_pack(pack, a.runs_dir)
                rate, grid = choose_rate(a, [r["metrics"]["dev"] for r in whole], select)
                chosen = a.rates.index(rate) * len(a.seeds)
                records = whole[chosen : chosen + len(a.seeds)]
            else:
                rate, grid = choose_rate(a, [t.member.best_dev for t in train_pack(pack)], select)
                final, backbone = prepare_all(a, task, method, [rate], backbone)
                records = run_pack(final, a.runs_dir, again=True)
            scores = [r["metrics"]["test"][r["metric"]] for r in records]
            row = {"task": task, "method": method, "rate": rate, "grid": grid, "test": scores, "runs": records}
            rows.append({**row, "seconds": round(time.time() - begun)})
            print(f"{task} {method} rate {rate}: {mean(scores):.3f} +- {stdev(scores):.3f}", flush=True)
            write(a, rows)


def write(a: argparse.Namespace, rows: Sequence[dict[str, Any]]) -> None:
    """OUT.json with every run, OUT.md with the table."""
    command = "python " + shlex.join(sys.argv)
    slim = [{**r, "runs": [without_machine(x) for x in r["runs"]]} for r in rows]
    environment, metric = rows[0]["runs"][0]["environment"], rows[0]["runs"][0]["metric"].replace("_", " ")
    lines = [
        f"# {f'{a.shots} examples per class' if a.shots else 'All training rows'}, {len(a.seeds)} seeds",
        "",
        f"Backbone `{Path(a.backbone).name}` (frozen), test {metric}, mean and sample standard deviation over seeds "
        f"{', '.join(map(str, a.seeds))}. A seed sets initialization, data order and few-shot subset.",
        f"Learning rate chosen per task and method from {', '.join(map(str, a.rates))} by mean dev score;",
        "checkpoint chosen on dev; test "
        + ("scores are those of the chosen rate." if a.keep_grid else "used once.")
        + " `bare`: the model without a prompt, same template and label words.",
        "`majority`: the best constant answer.",
        "",
        "| task | method | trained | kept | rate | dev | test, mean ± sd | worst | macro-F1 | dev, test rows "
        "| majority | bare |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        first = r["runs"][0]
        dev = mean(x["metrics"]["dev"][x["metric"]] for x in r["runs"])
        macro = [x["metrics"]["test"]["macro_f1"] for x in r["runs"] if "macro_f1" in x["metrics"]["test"]]
        majority, bare = (first["baselines"][name] for name in ("majority", "no_prompt"))
        lines.append(
            f"| {r['task']} | {r['method']} | {first['parameters']['trained']:,} | {first['parameters']['kept']:,} "
            f"| {r['rate']:g} | {dev:.3f} | {mean(r['test']):.3f} ± {stdev(r['test']):.3f} | {min(r['test']):.3f} "
            f"| {f'{mean(macro):.3f} ± {stdev(macro):.3f}' if macro else '-'} "
            f"| {first['rows']['dev']}, {first['rows']['test']} | {shown(majority)} | {shown(bare)} |"
        )
    lines += [
        "",
        f"Command: `{command}`",
        "",
        f"trimtab {environment['trimtab']}, torch {environment['torch']}, transformers {environment['transformers']}, "
        f"{environment['device']}, {environment['threads']} threads, {environment['dtype']} backbone, float32 prompt.",
    ]
    publish(a.out, {"command": command, "results": slim}, lines)


def shown(score: float | None) -> str:
    """A score, or a dash where there is none."""
    return "-" if score is None else f"{score:.3f}"


def without_machine(record: dict[str, Any]) -> dict[str, Any]:
    """A run record without the folder names of the machine it ran on."""
    kept = {k: v for k, v in record.items() if k not in ("working_directory", "run")}
    return {**kept, "backbone": Path(kept["backbone"]).name}


if __name__ == "__main__":
    main()
