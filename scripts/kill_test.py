"""Kill a training at random moments, start it again each time, and compare with an undisturbed one.

    python scripts/kill_test.py --kills 20 --out docs/results/kills.json
    python scripts/kill_test.py --study recipes/quickstart/study.yaml --kills 20 --out docs/results/kills-study.json \
        training.max_steps=40 training.min_steps=1

The run is a recipe of `trimtab run`, the study a file of `trimtab study`, in a process of its own, ended by SIGKILL. In
float32 on a CPU, metrics, histories, predictions and prompts must be identical to the byte; of a study also who trained
with whom, and every run must stand in the ledger, once.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from publishing import command_line
from trimtab.files import sha256_of

SAME = (
    "metrics.jsonl", "predictions.dev.jsonl", "predictions.test.jsonl", "prompt.safetensors", "backbone.safetensors",
)  # fmt: skip


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="recipes/quickstart/residual.yaml")
    parser.add_argument("--study", help="kill this study instead of a run")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the outcome as JSON")
    parser.add_argument("overrides", nargs="*", help="key=value for the run, or for all runs of the study")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    a = parse(argv)
    with tempfile.TemporaryDirectory() as scratch:
        begun = time.monotonic()
        expected = finished(a, start(a, Path(scratch) / "undisturbed").wait(), Path(scratch) / "undisturbed")
        whole = time.monotonic() - begun
        draw, moments, different, rounds = random.Random(a.seed), list[float](), list[str](), 0
        while len(moments) < a.kills:
            folder = Path(scratch) / f"killed-{rounds}"
            moments += kill_until_finished(a, folder, whole, draw, a.kills - len(moments))
            different += differences(expected, finished(a, 0, folder))
            rounds += 1
    outcome = {
        "command": command_line(__file__, argv),
        "kills": len(moments),
        "studies_they_fell_on" if a.study else "runs_they_fell_on": rounds,
        "seconds_before_each_kill": [round(m, 2) for m in moments],
        "seconds_undisturbed": round(whole, 1),
        "identical": not different,
        **({"different": sorted(set(different))} if different else {}),
        **facts(expected),
    }
    print(json.dumps(outcome, indent=1))
    if a.out:
        a.out.write_text(json.dumps(outcome, indent=1) + "\n")
    sys.exit(bool(different))


def start(a: argparse.Namespace, folder: Path) -> subprocess.Popen[bytes]:
    """Begin, or go on with, the run or study in a folder."""
    overrides = ["backbone.dtype=float32", f"training.evaluations={20 if a.study else 60}", *a.overrides]
    verb = ["study", a.study, "--studies-dir"] if a.study else ["run", a.recipe, "--runs-dir"]
    command = [sys.executable, "-m", "trimtab", *verb, str(folder), *overrides, "--device", "cpu", "--quiet"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def kill_until_finished(
    a: argparse.Namespace, folder: Path, whole: float, draw: random.Random, most: int
) -> list[float]:
    """Start again and again, each time killed after a random part of the time that the whole takes."""
    moments: list[float] = []
    while True:
        process = start(a, folder)
        wait = draw.uniform(0.2, 0.6) * whole
        try:
            process.wait(wait if len(moments) < most else None)
            assert process.returncode == 0, f"it ended with {process.returncode}"
            return moments
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            moments.append(wait)


def finished(a: argparse.Namespace, code: int, folder: Path) -> dict[str, Any]:
    """What must not depend on having been killed: of every run, and of the study as a whole."""
    assert code == 0, f"it ended with {code}"
    runs = {p.parent.name: what_came_out(p.parent) for p in sorted(folder.rglob("run.json"))}
    if not a.study:
        return {"runs": runs}
    (place,) = (p.parent for p in folder.glob("*/plan.json"))
    ledger = [json.loads(line) for line in (place / "ledger.jsonl").read_text().splitlines()]
    entered = sorted([x["key"], x["status"], x["run"], json.dumps(x["cell"]), json.dumps(x["seeds"])] for x in ledger)
    packs = [json.loads(line)["keys"] for line in (place / "packs.jsonl").read_text().splitlines()]
    planned = json.loads((place / "plan.json").read_text())
    return {"runs": runs, "ledger": entered, "packs": packs, "plan": planned["digest"]}


def what_came_out(folder: Path) -> dict[str, Any]:
    record = json.loads((folder / "run.json").read_text())
    files = {name: sha256_of(folder / name) for name in SAME if (folder / name).exists()}
    return {**files, **{key: record.get(key) for key in ("status", "metrics", "best_step", "steps")}}


def differences(expected: dict[str, Any], got: dict[str, Any], path: str = "") -> list[str]:
    """Names of what is not the same.

    >>> differences({"runs": {"a": {"x": 1, "y": 2}}, "packs": []}, {"runs": {"a": {"x": 1, "y": 3}, "b": {}}})
    ['packs', 'runs: a: y', 'runs: b']
    """
    found = []
    for key in sorted({*expected, *got}):
        a, b, name = expected.get(key), got.get(key), f"{path}{key}"
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{name}: ")
        elif a != b:
            found.append(name)
    return found


def facts(expected: dict[str, Any]) -> dict[str, Any]:
    """What the undisturbed run or study has come to, for the record."""
    runs = expected["runs"]
    if "ledger" not in expected:
        ((_, only),) = runs.items()
        return {"metrics": only["metrics"]}
    statuses = [status for _, status, *_ in expected["ledger"]]
    scores = {name: its["metrics"]["test"]["accuracy"] for name, its in runs.items() if its["metrics"]}
    counts = {status: statuses.count(status) for status in sorted(set(statuses))}
    return {"runs": counts, "packs": [len(keys) for keys in expected["packs"]], "test_accuracy": scores}


if __name__ == "__main__":
    main()
