"""The command line: which cells, in which order, and what is kept of them."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from correctness.checks import TASKS, Check, all_checks
from correctness.families import FAMILIES
from correctness.judging import judged
from correctness.page import file as file_of
from correctness.page import page
from correctness.subject import Cell, Library

AXES = ("library", "method", "family", "task", "check")
FIRST = (
    "bert", "gpt2", "t5", "llama", "bart", "roberta", "albert", "electra", "distilbert", "modernbert", "deberta-v2",
    "opt", "gpt_neox", "gemma2", "mistral",
)  # fmt: skip
"""Families that share little code with each other come first."""


def libraries() -> list[Library]:
    """Both sides; importing them takes seconds."""
    from correctness.peft_side import PEFT
    from correctness.trimtab_side import TRIMTAB

    return [TRIMTAB, PEFT]


def cells(only: Mapping[str, Sequence[str]]) -> Iterator[tuple[Library, Cell, Check]]:
    """All cells that the filters let through, family by family."""
    families = [*FIRST, *(name for name in FAMILIES if name not in FIRST)]
    for family in families:
        for library in libraries():
            for method in library.methods:
                for check in all_checks():
                    for task in (task for task in TASKS if task in check.tasks):
                        cell = Cell(library.name, method, family, task)
                        its = {**asdict(cell), "check": check.name}
                        if all(its[axis] in wanted for axis, wanted in only.items()):
                            yield library, cell, check


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], metavar="AXIS=NAMES", help=f"axes: {', '.join(AXES)}")
    parser.add_argument("--again", action="store_true", help="repeat what was done before")
    parser.add_argument("--out", type=Path, required=True, help="writes OUT.cells.jsonl, OUT.json and OUT.md")
    a = parser.parse_args(argv)
    if find_spec("peft") is None:
        parser.error("this compares with PEFT, which is not installed: pip install -e '.[benchmark]'")
    a.filters = {}
    for given in a.only:
        axis, _, names = given.partition("=")
        if axis not in AXES:
            parser.error(f"--only takes {', '.join(AXES)}, got {axis!r}")
        # names of checks may hold ", "
        a.filters[axis] = names.replace(", ", "\0").replace(",", "\n").replace("\0", ", ").split("\n")
    return a


def main(argv: Sequence[str] | None = None) -> None:
    a = parse(argv)
    torch.set_num_threads(1)
    a.out.parent.mkdir(parents=True, exist_ok=True)
    kept = a.out.with_name(a.out.name + ".cells.jsonl")
    found = read(kept)
    wanted = list(cells(a.filters))
    if not wanted:
        raise SystemExit("--only leaves nothing: names are as in the tables")
    todo = [its for its in wanted if a.again or key({**asdict(its[1]), "check": its[2].name}) not in found]
    begun = time.perf_counter()
    with kept.open("a") as file:
        for number, (library, cell, check) in enumerate(todo, 1):
            outcome = judged(check, library, cell).as_json()
            found[key(outcome)] = outcome
            file.write(json.dumps(outcome) + "\n")
            file.flush()
            if number % 100 == 0 or number == len(todo):
                print(f"{number} of {len(todo)} cells, {time.perf_counter() - begun:.0f} s", flush=True)
    outcome = {
        "command": "python benchmarks/correctness.py " + shlex.join(sys.argv[1:] if argv is None else argv),
        "environment": environment(),
        "seconds": round(sum(its["seconds"] for its in found.values())),
        "checks": {check.name: check.holds for check in all_checks()},
        "cells": list(found.values()),
    }
    a.out.with_name(a.out.name + ".json").write_text(file_of(outcome))
    a.out.with_name(a.out.name + ".md").write_text(page(outcome))


def read(path: Path) -> dict[tuple[str, ...], dict[str, Any]]:
    """What was found before, the latest of each cell; half a line, from a kill, is done again."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            its = json.loads(line)
        except ValueError:
            continue
        found[key(its)] = its
    return found


def key(its: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(its[axis] for axis in AXES)


def environment() -> dict[str, Any]:
    """Versions and hardware."""
    names = ("trimtab", "peft", "transformers", "torch", "accelerate")
    machine = {"python": platform.python_version(), "cpu": platform.machine(), "cores": os.cpu_count(), "threads": 1}
    return {**{name: version(name) for name in names}, **machine}
