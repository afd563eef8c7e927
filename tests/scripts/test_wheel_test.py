"""The test of the wheel: it finds files that were left out, a checkout that is in sight, and commands that fail."""

from __future__ import annotations

import importlib
import os
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module("wheel_test")


def test_files_that_are_left_out_or_too_many_are_found(script: ModuleType, tmp_path: Path) -> None:
    package = tmp_path / "boat"
    for name in ("hull.py", "page/flag.css", "__pycache__/hull.pyc"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).touch()
    with zipfile.ZipFile(tmp_path / "boat.whl", "w") as archive:
        for name in ("boat/hull.py", "boat/page/", "boat/stowaway.py", "boat-1.dist-info/RECORD"):
            archive.writestr(name, "")
    lacking, extra = script.differences(tmp_path / "boat.whl", package)
    assert lacking == "boat/page/flag.css: the wheel lacks it; see package-data in pyproject.toml"
    assert extra == "boat/stowaway.py: the wheel has it, src has not"


def test_a_command_that_fails_or_says_something_else_ends_the_walk(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = sys.executable
    monkeypatch.setattr(script, "WALK", ((f'{python} -c "print(1)"', "2"),))
    with pytest.raises(SystemExit, match="must print '2', and printed\n1"):
        script.walk(tmp_path, dict(os.environ))
    monkeypatch.setattr(script, "WALK", ((f'{python} -c "raise ValueError(5)"', ""),))
    with pytest.raises(SystemExit, match=r"exit code 1\n(.|\n)*ValueError: 5"):
        script.walk(tmp_path, dict(os.environ))


def test_a_checkout_in_sight_is_found(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").symlink_to(sys.executable)
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with pytest.raises(SystemExit, match=r"must be what is imported; got .*with .*src"):
        script.check_place(tmp_path, tmp_path, environ)


@pytest.mark.slow
def test_the_wheel_works_outside_the_checkout(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script.main(["--dist", str(tmp_path)])
    assert "works outside the checkout" in capsys.readouterr().out
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".gz", ".whl"]
