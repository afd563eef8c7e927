"""Kill a training at random moments, start it again each time, and compare with an undisturbed one.

    python scripts/kill_test.py --kills 20 --out docs/results/kills.json

The run is a recipe of `trimtab run` in a process of its own, ended by SIGKILL. In float32 on a CPU, metrics, history
and predictions must be identical to the byte.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import subprocess
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path

SAME = (
    "metrics.jsonl", "predictions.dev.jsonl", "predictions.test.jsonl", "prompt.safetensors", "backbone.safetensors",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="recipes/quickstart/residual.yaml")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the outcome as JSON")
    parser.add_argument("overrides", nargs="*", help="key=value for the run")
    a = parser.parse_args()
    overrides = ["backbone.dtype=float32", "training.evaluations=60", *a.overrides]
    with tempfile.TemporaryDirectory() as scratch:
        begun = time.monotonic()
        expected = finished(
            train(a.recipe, overrides, Path(scratch) / "undisturbed").wait(), Path(scratch) / "undisturbed"
        )
        whole = time.monotonic() - begun
        draw, moments, identical, rounds = random.Random(a.seed), [], True, 0
        while len(moments) < a.kills:
            folder = Path(scratch) / f"killed-{rounds}"
            moments += kill_until_finished(a, overrides, folder, whole, draw, a.kills - len(moments))
            identical &= finished(0, folder) == expected
            rounds += 1
    outcome = {
        "command": "python " + shlex.join(sys.argv),
        "kills": len(moments),
        "runs_they_fell_on": rounds,
        "seconds_before_each_kill": [round(m, 2) for m in moments],
        "seconds_undisturbed": round(whole, 1),
        "identical": identical,
        "metrics": json.loads(expected["metrics"]),
    }
    print(json.dumps(outcome, indent=1))
    if a.out:
        a.out.write_text(json.dumps(outcome, indent=1) + "\n")
    sys.exit(not identical)


def train(recipe: str, overrides: list[str], runs_dir: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "trimtab", "run", recipe, *overrides, "--runs-dir", str(runs_dir), "--quiet"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def kill_until_finished(
    a: argparse.Namespace, overrides: list[str], runs_dir: Path, whole: float, draw: random.Random, most: int
) -> list[float]:
    """Start a run again and again, each time killed after a random part of the time that a whole run takes."""
    moments: list[float] = []
    while True:
        process = train(a.recipe, overrides, runs_dir)
        wait = draw.uniform(0.2, 0.6) * whole
        try:
            process.wait(wait if len(moments) < most else None)
            assert process.returncode == 0, "the run failed"
            return moments
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            moments.append(wait)


def finished(code: int, runs_dir: Path) -> dict[str, str]:
    """The files of the only run that must not depend on having been killed."""
    assert code == 0, "the run failed"
    (folder,) = (p.parent for p in runs_dir.glob("*/run.json"))
    record = json.loads((folder / "run.json").read_text())
    same = {name: sha256((folder / name).read_bytes()).hexdigest() for name in SAME if (folder / name).exists()}
    return {**same, "metrics": json.dumps(record["metrics"])}


if __name__ == "__main__":
    main()
