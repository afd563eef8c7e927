"""The audit of dependencies: this project passes, and each thing that it looks for is found."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module("dependencies")


def project(folder: Path, dependencies: str, code: str, tests: str = "") -> Path:
    (folder / "pyproject.toml").write_text(
        f"[project]\ndependencies = [{dependencies}]\n[project.optional-dependencies]\n"
    )
    for name, text in (("src", code), ("tests", tests), ("scripts", "")):
        (folder / name).mkdir()
        (folder / name / "a.py").write_text(text)
    return folder


def test_every_dependency_is_used_and_explained(script: ModuleType) -> None:
    assert script.complaints(ROOT) == []
    table = script.page(ROOT).splitlines()
    assert len(table) == len(script.WHY) + 2
    assert any(line.startswith("| torch | package | Apache-2.0") for line in table)


@pytest.mark.parametrize(
    ("dependencies", "code", "complaint"),
    [
        ('"numpy>=2"', "", "numpy: nothing imports numpy any more (package)"),
        ('"left-pad"', "", "left-pad: nobody says why"),
        ("", "import requests_html", "requests_html: the package imports it"),
        ("", "", "torch: WHY explains it, and pyproject.toml does not ask for it"),
    ],
)
def test_what_is_wrong_is_found(
    script: ModuleType, tmp_path: Path, dependencies: str, code: str, complaint: str
) -> None:
    found = script.complaints(project(tmp_path, dependencies, code, "import numpy"))
    assert any(line.startswith(complaint) for line in found), found


def test_a_license_that_is_not_allowed_is_found(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "license_of", lambda name: "All rights reserved")
    found = script.complaints(project(tmp_path, '"numpy"', "import numpy"))
    assert "numpy: its license is 'All rights reserved', which ALLOWED does not have" in found


def test_the_command_fails_where_something_is_wrong(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        script.main(["--root", str(project(tmp_path, '"numpy"', ""))])
    assert ended.value.code == 1
    assert "nothing imports numpy any more" in capsys.readouterr().err
