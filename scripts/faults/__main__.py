"""Faults wherever run, study, export and serve write: nothing broken is read as good, nothing finished is lost.

    python scripts/faults --cases 1000 --out docs/results/faults
    python scripts/faults --only "study" --fault "kill -9" --cases 0      # 0: all points there are

A scenario is a command on a tiny model, and the folder it starts from. Undisturbed, it makes n calls that write (see
`injection.py`). A case starts from the same folder, lets a fault happen at call k < n, looks at what is there,
then gives the command again without a fault, and looks again:

* after the fault the command has ended well, was killed, or has told what is wrong in one paragraph (exit code 2);
* every file is whole, and whatever is read as good (a bundle, a run that is done, an export, a report's runs) is either
  what was there before or what an undisturbed command leaves, never a mixture;
* a run that was done stays as it is, a line of the ledger stays, and training goes on from the last checkpoint;
* the second command ends well, with everything that an undisturbed one leaves, to the byte where it is no time or
  date, and nothing beside it.

Each case is a fork of one process that has loaded everything, so it takes about a second.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shlex
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}

from cases import referenced, tried
from commands import load_all
from injection import NAMES
from scenarios import scenarios, write_inputs
from serving import SERVE, referenced_serving, tried_serving


@dataclass
class Tally:
    """What has come out: cases by verb and fault, how the disturbed commands have ended, and what was found wrong."""

    cases: Counter[tuple[str, str]] = field(default_factory=Counter)
    ends: Counter[tuple[str, str]] = field(default_factory=Counter)
    findings: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Case:
    """A fault at a call of a scenario; `judge` carries it out in a folder."""

    verb: str
    scenario: str
    fault: str
    at: int
    call: str
    judge: Callable[[Path], tuple[str, list[str]]]


def all_cases(inputs: Path, scratch: Path, only: str) -> list[Case]:
    """Every fault at every call of every scenario; of a server, signals at as many moments."""
    found = []
    for i, s in enumerate(s for s in scenarios() if only in s.name):
        known = referenced(s, inputs, scratch / f"{i}")
        found += [Case(s.verb, s.name, f, k, call, partial(tried, s, known, f, k))
                  for f in NAMES for k, call in enumerate(known.calls)]  # fmt: skip
    if only in SERVE.name:
        known, right = referenced_serving(inputs, scratch / "serve")
        found += [Case(SERVE.verb, SERVE.name, f, k, call, partial(tried_serving, known, right, f, k))
                  for f in NAMES for k, call in enumerate(known.calls)]  # fmt: skip
    return found


def drawn(cases: Sequence[Case], count: int, seed: int) -> list[Case]:
    """That many cases, evenly over scenarios and faults, each at a random call and none twice; 0: all."""
    draw, groups = random.Random(seed), dict[tuple[str, str], list[Case]]()
    for case in cases:
        groups.setdefault((case.scenario, case.fault), []).append(case)
    for group in groups.values():
        draw.shuffle(group)
    turns = [case for turn in zip_longest(*groups.values()) for case in turn if case is not None]
    return turns[: count or None]


def carry_out(cases: Sequence[Case], scratch: Path, keep: Path | None, seconds: float) -> Tally:
    """All cases, one after the other, as long as there is time."""
    tally, begun = Tally(), time.monotonic()
    for i, case in enumerate(cases):
        if time.monotonic() - begun > seconds:
            break
        if i % 50 == 0:
            print(f"{i} of {len(cases)} cases, {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
        folder = scratch / "cases" / f"{i}" / "case"
        folder.parent.mkdir(parents=True)
        end, found = case.judge(folder)
        tally.cases[case.verb, case.fault] += 1
        tally.ends[case.fault, end] += 1
        if found:
            facts = {"scenario": case.scenario, "fault": case.fault, "at": case.at, "call": case.call, "found": found}
            print(json.dumps(facts), file=sys.stderr, flush=True)
            tally.findings.append(facts)
            if keep is not None:
                shutil.copytree(folder.parent, keep / f"{len(tally.findings)}", dirs_exist_ok=True)
        shutil.rmtree(folder.parent)
    return tally


def outcome(tally: Tally, argv: Sequence[str], calls: dict[str, int], seconds: float) -> dict[str, Any]:
    """What is written down."""
    from trimtab.backbones.loading import load_backbone
    from trimtab.training.records import environment

    its = environment(load_backbone("nano-masked", dtype="float32", device="cpu"))
    verbs = list(dict.fromkeys(verb for verb, _ in tally.cases))
    return {
        "command": f"python scripts/faults {shlex.join(argv)}".strip(),
        "cases": sum(tally.cases.values()),
        "findings": tally.findings,
        "by_verb_and_fault": {v: {f: tally.cases[v, f] for f in NAMES if tally.cases[v, f]} for v in verbs},
        "disturbed_commands": {f: {e: n for (g, e), n in sorted(tally.ends.items()) if g == f} for f in NAMES},
        "calls_that_write": calls,
        "seconds": round(seconds),
        "environment": {k: its[k] for k in ("trimtab", "python", "torch", "transformers", "device")},
    }


def page(facts: dict[str, Any]) -> str:
    """The outcome as Markdown."""
    found = len(facts["findings"])
    head = f"| | {' | '.join(NAMES)} | all |\n|{'---|' * (len(NAMES) + 2)}"
    rows = [f"| {verb} | {' | '.join(str(its.get(f, 0)) for f in NAMES)} | {sum(its.values())} |"
            for verb, its in facts["by_verb_and_fault"].items()]  # fmt: skip
    ends = [f"* {fault}: {', '.join(f'{n} {end}' for end, n in its.items())}"
            for fault, its in facts["disturbed_commands"].items() if its]  # fmt: skip
    calls = ", ".join(f"{name} {n}" for name, n in facts["calls_that_write"].items())
    its = facts["environment"]
    return "\n".join([
        "# Faults while files are written", "",
        f"{facts['cases']} cases, {found} with something wrong. A fault strikes at one call that writes (a server is "
        "sent signals at random moments); then the command is given again without a fault. What must hold stands in "
        "`scripts/faults/__main__.py`.", "",
        head, *rows, "",
        "How the disturbed commands have ended (`told`: one paragraph and exit code 2, of a server an error in JSON; "
        "`went on`: the fault did not matter):", "", *ends, "",
        f"Calls that write, undisturbed: {calls}.", "",
        *[f"* found: {json.dumps(x)}" for x in facts["findings"]], *([""] if found else []),
        f"Command: `{facts['command']}`", "",
        f"trimtab {its['trimtab']}, Python {its['python']}, torch {its['torch']}, transformers {its['transformers']}, "
        f"{its['device']}; {facts['seconds']} s on a shared machine.",
    ]) + "\n"  # fmt: skip


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=0, help="how many are drawn of all; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=math.inf, help="no more cases are begun after that")
    parser.add_argument("--only", default="", help="scenarios that have this in their names")
    parser.add_argument("--fault", choices=NAMES)
    parser.add_argument("--at", type=int, help="this call alone")
    parser.add_argument("--out", type=Path, help="write OUT.json and OUT.md")
    parser.add_argument("--keep", type=Path, help="keep folders of cases with findings here")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    a = parse(argv)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        (inputs := scratch / "inputs").mkdir()
        write_inputs(inputs)
        load_all(inputs, scratch)
        every = all_cases(inputs, scratch, a.only)
        calls = {c.scenario: c.at + 1 for c in sorted(every, key=lambda c: c.at)}
        cases = [c for c in every if a.fault in (None, c.fault) and a.at in (None, c.at)]
        tally = carry_out(drawn(cases, a.cases, a.seed), scratch, a.keep, 60 * a.minutes)
    facts = outcome(tally, sys.argv[1:] if argv is None else argv, calls, time.monotonic() - begun)
    print(page(facts))
    if a.out:
        a.out.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")
        a.out.with_suffix(".md").write_text(page(facts))
    sys.exit(bool(tally.findings))


if __name__ == "__main__":
    main()
