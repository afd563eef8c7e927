"""Deep prompts by trimtab and prefix tuning by PEFT: on which families each works, and the same training by both.

    python scripts/peft_prefix.py families --out docs/results/peft-prefix-families
    OMP_NUM_THREADS=1 python scripts/peft_prefix.py wnut17 --backbone ../shared/models/minilm-l6-mlm \
        --data-dir ../shared/data --out docs/results/peft-prefix

`families` is in `peft_prefix_families.py`, `wnut17` in `peft_prefix_wnut17.py`. Everything runs on the CPU, in
`--threads` threads.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from peft_prefix_families import FAMILIES, TrimtabProbe, families_page, run_families
from peft_prefix_trainings import ARMS
from peft_prefix_wnut17 import run_wnut17, wnut17_page
from publishing import at_least_one, command_line, common_options, machine, needs_peft, publish
from trimtab.training.records import environment


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    halves = parser.add_subparsers(dest="half", required=True)
    table, study = halves.add_parser("families"), halves.add_parser("wnut17")
    table.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    study.add_argument("--backbone", default="nano-masked")
    study.add_argument("--data-dir", type=Path)
    study.add_argument("--task", type=json.loads, default={"kind": "wnut17"}, help="the task section of a recipe, JSON")
    study.add_argument("--length", type=int, default=20, help="virtual tokens")
    study.add_argument("--width", type=int, default=512, help="hidden width of the projection")
    study.add_argument("--steps", type=int, default=300)
    study.add_argument("--evaluations", type=int, default=6)
    study.add_argument("--rates", nargs="+", type=float, default=[1e-2, 3e-2])
    study.add_argument("--seeds", nargs="+", type=int, default=[13, 21, 42])
    study.add_argument("--first", choices=["own", "copied"], default="own", help="PEFT's first prefix")
    study.add_argument("--timed", type=int, default=20, help="timed steps of each arm")
    study.add_argument("--trained", nargs="+", choices=[str(arm) for arm in ARMS], help="arms; by default all")
    study.add_argument("--finished", type=Path, help="a file of runs that have ended, to go on after an interruption")
    study.add_argument("--peak-of", type=int, help=argparse.SUPPRESS)
    study.add_argument("--overrides", nargs="+", default=[], help="key=value for every run")
    for half in (table, study):
        common_options(half)
    a = parser.parse_args(argv)
    at_least_one(parser, a, "length", "width", "steps", "evaluations", "timed", "threads")
    needs_peft(parser)
    return a


def main(argv: Sequence[str] | None = None) -> None:
    a = parse(argv)
    torch.set_num_threads(a.threads)
    found = run_families(a) if a.half == "families" else run_wnut17(a, argv)
    if found is None:
        return
    outcome = {"command": command_line(__file__, argv), "environment": versions(), **found}
    publish(a.out, outcome, (families_page if a.half == "families" else wnut17_page)(outcome))


def versions() -> dict[str, Any]:
    found = {k: v for k, v in environment(TrimtabProbe("bert").backbone).items() if k != "dtype"}
    return machine(found, "peft")


if __name__ == "__main__":
    main()
