"""The front pages: numbers of the changelog are those of their files, links lead somewhere, the tour misses no room."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import trimtab

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[-+]?\d+)?")
FRONT_PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "examples/README.md",
               "benchmarks/README.md")  # fmt: skip


def rows() -> list[tuple[str, list[Path]]]:
    """What was found, and the files that say so."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").split("### Numbers", 1)[1]
    lines = [line.strip("|").split("|") for line in text.splitlines() if LINK.search(line) and line.startswith("|")]
    return [(found, [ROOT / link for link in LINK.findall(files)]) for _, found, files in lines]


def unknown(found: str, text: str) -> set[str]:
    """Numbers that a text does not have."""
    return set(NUMBER.findall(found.replace(",", ""))) - set(NUMBER.findall(text.replace(",", "")))


@pytest.mark.parametrize(("found", "files"), rows(), ids=lambda value: "" if isinstance(value, str) else value[0].stem)
def test_every_number_stands_in_its_file(found: str, files: list[Path]) -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    assert unknown(re.sub(r"`\w+`", "", found), text) == set()


def lines_of_the_readme() -> list[str]:
    """The table of what was measured, a line of it each."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").split("## Measured", 1)[1].split("\n## ", 1)[0]
    return [line for line in text.splitlines() if line.startswith("|") and LINK.search(line)]


@pytest.mark.parametrize("line", lines_of_the_readme(), ids=lambda line: Path(LINK.findall(line)[0]).stem)
def test_every_number_of_the_readme_stands_in_its_file(line: str) -> None:
    text = "\n".join((ROOT / link).read_text(encoding="utf-8") for link in LINK.findall(line))
    assert unknown(re.sub(r"\]\([^)]*\)", "", line), text) == set()


def test_a_number_that_is_another_is_found() -> None:
    assert unknown("0.50 of 1,000, 2.3e-06 and 7", "0.500, 1000 and 2.3e-06; 17") == {"0.50", "7"}
    assert len(rows()) >= 20
    assert len(lines_of_the_readme()) >= 8


@pytest.mark.parametrize("name", FRONT_PAGES)
def test_links_of_the_front_pages_lead_somewhere(name: str) -> None:
    page = ROOT / name
    links = LINK.findall(page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
    assert links


def test_the_list_of_benchmarks_misses_none() -> None:
    listed = set(re.findall(r"`((?:scripts|benchmarks)/[\w./]+)`", (ROOT / "benchmarks/README.md").read_text("utf-8")))
    there = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("scripts/benchmark_*.py")}
    assert len(there) >= 10
    assert there - listed == set()
    assert [path for path in listed if not (ROOT / path).exists()] == []


def test_the_tour_misses_no_room_and_names_none_that_is_gone() -> None:
    tour = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## A tour of the house")[1].split("## ")[0]
    rows = "".join(line for line in tour.splitlines() if line.startswith("| `"))
    package = ROOT / "src/trimtab"
    named = set(re.findall(r"`([a-z_]+(?:\.py)?)`", rows))
    assert {path.parent.name for path in package.glob("*/__init__.py")} - named == set()
    assert [room for room in named if not (package / room).exists()] == []


def test_the_version_stands_in_one_place() -> None:
    packaging = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'dynamic = ["version"]' in packaging
    assert 'version = { attr = "trimtab.__version__" }' in packaging
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    logged = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert cited
    assert logged
    assert cited[1] == logged[1] == trimtab.__version__
