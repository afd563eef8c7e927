"""The benchmark of compiled layers: both ways make the same update. In a process of its own, see tests of compiling."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmark_compile.py"


def test_both_ways_make_the_same_update_and_stand_on_the_page(tiny_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "compile"
    sizes = ["--rows", "2", "--texts", "5", "9", "--repeats", "2", "--dtypes", "float32", "--backend", "aot_eager"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--models", str(tiny_folder), *sizes, "--out", str(out)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    (its,) = json.loads(out.with_suffix(".json").read_text())["results"]
    assert its["apart"] < 1e-3
    assert f"| {its['ratio']['median']:.2f} (" in out.with_suffix(".md").read_text()
