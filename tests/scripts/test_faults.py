"""The harness of faults: each strikes at the call that is meant, tears what is written; a broken product is caught."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FAULTS = ROOT / "scripts" / "faults"

WRITES = """
import os, sys
from pathlib import Path
from injection import Faults

root = Path(sys.argv[1])
Faults(root, sys.argv[2] or None, int(sys.argv[3]), root.with_name("journal")).install()
try:
    (root / "a").mkdir()
    with open(root / "a" / "x", "w") as file:
        file.write("0123456789")
    os.replace(root / "a" / "x", root / "a" / "y")
    Path(sys.argv[1] + "-elsewhere").write_text("not counted")
except OSError as error:
    print(error.errno)
try:
    (root / "b").mkdir()
    print("b")
except OSError as error:
    print(error.errno)
"""


def struck(folder: Path, fault: str, at: int) -> tuple[int, list[str], list[str], dict[str, str]]:
    """Exit code, what was said, the journal, and the files that are there."""
    (root := folder / "root").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(FAULTS)}
    done = subprocess.run(
        [sys.executable, "-c", WRITES, str(root), fault, str(at)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
    )
    files = {p.name: p.read_text() for p in root.rglob("*") if p.is_file()}
    return done.returncode, done.stdout.split(), (folder / "journal").read_text().splitlines(), files


CALLS = ["mkdir a", "open a/x", "write a/x", "rename a/x", "mkdir b"]


def test_calls_below_the_folder_are_counted_and_nothing_else(tmp_path: Path) -> None:
    assert struck(tmp_path, "", 0) == (0, ["b"], CALLS, {"y": "0123456789"})


@pytest.mark.parametrize(
    ("fault", "at", "code", "said", "files"),
    [
        ("kill -9", 2, -9, [], {"x": "01234"}),
        ("kill -9", 3, -9, [], {"x": "0123456789"}),
        ("SIGTERM", 1, -15, [], {}),
        ("ENOSPC once", 2, 0, ["28", "b"], {"x": "01234"}),
        ("ENOSPC", 2, 0, ["28", "28"], {"x": "01234"}),
        ("EIO once", 3, 0, ["5", "b"], {"x": "0123456789"}),
        ("read-only", 0, 0, ["30", "30"], {}),
        ("clock jumps", 1, 0, ["b"], {"y": "0123456789"}),
    ],
)
def test_a_fault_strikes_where_it_is_meant(
    tmp_path: Path, fault: str, at: int, code: int, said: list[str], files: dict[str, str]
) -> None:
    ended = struck(tmp_path, fault, at)
    assert (ended[0], ended[1], ended[3]) == (code, said, files)


def harness(before: str, *options: str) -> subprocess.CompletedProcess[str]:
    """The whole harness, after some code."""
    start = f"sys.argv = ['faults', *{list(options)!r}]\nrunpy.run_path({str(FAULTS)!r}, run_name='__main__')"
    code = f"import sys, runpy\n{before}\n{start}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=900)


CARELESS = """
import trimtab.files as files

def write_atomically(path, write):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        write(file)

files.write_atomically = write_atomically
"""


@pytest.mark.slow
def test_a_sample_of_faults_does_no_harm(tmp_path: Path) -> None:
    done = harness("", "--cases", "24", "--seed", "3", "--out", str(tmp_path / "faults"))
    assert done.returncode == 0, done.stderr[-2000:]
    facts = json.loads((tmp_path / "faults.json").read_text())
    assert (facts["cases"], facts["findings"]) == (24, [])
    assert "24 cases, 0 with something wrong" in (tmp_path / "faults.md").read_text()


@pytest.mark.slow
def test_writing_in_place_is_caught() -> None:
    done = harness(CARELESS, "--only", "run", "--fault", "kill -9", "--cases", "24")
    assert done.returncode == 1, done.stderr[-2000:]
    assert "is broken" in done.stderr or "is read as" in done.stderr or "ended with" in done.stderr
