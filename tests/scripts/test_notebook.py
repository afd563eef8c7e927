"""The script that makes notebooks, the examples, and the notebook that is kept."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import agrees

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module("notebook")


def test_cells_of_a_script(script: Any) -> None:
    source = "# a licence\n# %% [markdown]\n# # Title\n#\n# Text\n\n# %%\nx = 1\n# a comment\n\n# %%\nprint(x)\n"
    assert script.cells(source) == [
        ("markdown", "# Title\n\nText"),
        ("code", "x = 1\n# a comment"),
        ("code", "print(x)"),
    ]


def test_a_notebook_has_what_its_cells_print(script: Any, tmp_path: Path) -> None:
    source = tmp_path / "a.py"
    source.write_text("# %% [markdown]\n# # A\n\n# %%\nx = 'ü'\n\n# %%\nprint(x)\nprint(2)\n")
    script.main(source)
    made = json.loads((tmp_path / "a.ipynb").read_text(encoding="utf-8"))
    assert [c["cell_type"] for c in made["cells"]] == ["markdown", "code", "code"]
    assert made["cells"][1]["outputs"] == []
    assert made["cells"][2]["outputs"] == [{"name": "stdout", "output_type": "stream", "text": ["ü\n", "2\n"]}]
    assert len({c["id"] for c in made["cells"]}) == 3


def test_cells_run_in_a_folder_of_their_own(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    script.notebook("# %%\nopen('made', 'w').close()\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_is_that_of_its_script(name: str, script: Any) -> None:
    kept = json.loads((EXAMPLES / f"{name}.ipynb").read_text(encoding="utf-8"))
    source = script.cells((EXAMPLES / f"{name}.py").read_text(encoding="utf-8"))
    assert [(c["cell_type"], "".join(c["source"])) for c in kept["cells"]] == source
    assert sum(bool(c.get("outputs")) for c in kept["cells"]) >= 2, "make it again: python scripts/notebook.py"


@pytest.mark.slow
def test_the_notebook_prints_what_it_shows(script: Any) -> None:
    kept = json.loads((EXAMPLES / "first_prompt.ipynb").read_text(encoding="utf-8"))
    made = script.notebook((EXAMPLES / "first_prompt.py").read_text(encoding="utf-8"))
    for old, new in zip(kept["cells"], made["cells"], strict=True):
        for a, b in zip(old.get("outputs", []), new.get("outputs", []), strict=True):
            shown, printed = "".join(a["text"]), "".join(b["text"])
            if "it every day" not in shown:  # labels of two texts may go either way on another machine
                assert agrees(shown, printed, "any"), (shown, printed)


@pytest.mark.slow
def test_the_example_of_steadiness_runs(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, str(EXAMPLES / "steadiness.py"), "2", "4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first, second, headline = done.stdout.splitlines()[:3]
    assert {first.split()[0], second.split()[0]} == {"plain", "noise"}
    assert first.endswith("n 2")
    assert headline
