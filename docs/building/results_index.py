"""Directive `results-index`: every page of docs/results with what it shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from building.directive import WrittenByCode, table
from building.measured import RESULTS, Score, scores

SHOWN = {".md", ".svg", ".png"}
"""What a page is, or shows; all else beside it is a file to be had."""
RECIPES = Path(__file__).parents[2] / "recipes"
BACKBONES = re.compile(r"minilm-l6-mlm|nano-(?:masked|causal|seq2seq)")


@dataclass(frozen=True)
class Result:
    """A page of results: its place under docs/results, what it shows, its backbones, and the files beside it."""

    page: str
    title: str
    backbones: tuple[str, ...]
    parts: tuple[str, ...]


def results(folder: Path = RESULTS) -> Iterator[Result]:
    """All pages of results, and the files beside them: data, tables, reports to be opened."""
    found = scores(folder)
    for page in sorted(folder.rglob("*.md")):
        if page.stem == "index":
            continue
        text = page.read_text(encoding="utf-8")
        heading = re.search(r"^# (.+)$", text, re.MULTILINE)
        beside = page.parent.glob(f"{page.stem}.*") if page.stem != "report" else page.parent.iterdir()
        place = page.relative_to(folder).as_posix()
        yield Result(
            page=place,
            title=title(place, heading[1] if heading else page.stem, [s for s in found if s.page == place]),
            backbones=tuple(sorted(set(BACKBONES.findall(text)))),
            parts=tuple(sorted(p.relative_to(folder).as_posix() for p in beside if p.suffix not in SHOWN)),
        )


def title(place: str, heading: str, found: list[Score]) -> str:
    """What a page shows: the question of its study, the tasks and methods of a table, or its own heading."""
    tasks = ", ".join(dict.fromkeys(score.task for score in found))
    if asked := question(place):
        return f"{asked} ({tasks})" if tasks else asked
    methods = ", ".join(dict.fromkeys(score.kind for score in found if score.kind != "manual"))
    return f"{tasks}: {methods}. {heading}" if found else heading


def question(place: str) -> str:
    """What the study behind a page asks: the first line of its recipe, up to the command; empty if there is none."""
    name = place.removesuffix(".md").removesuffix("/report")
    of_study = [RECIPES / name / "study.yaml"] if place.endswith("/report.md") else []
    for recipe in (RECIPES / f"{name}.yaml", *of_study):
        if recipe.is_file():
            return recipe.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ").partition("   ")[0].rstrip(".")
    return ""


class ResultsIndex(WrittenByCode):
    """The table of all pages of results."""

    def markdown(self) -> str:
        self.env.note_dependency(str(RESULTS))
        rows = []
        for result in results():
            name = result.page.removesuffix(".md").removesuffix("/report")
            files = ", ".join(f"[{Path(part).suffix[1:]}](/results/{part})" for part in result.parts)
            backbones = ", ".join(f"`{name}`" for name in result.backbones)
            rows.append([f"[{name}](/results/{result.page})", result.title, backbones, files])
        return table(["page", "what it shows", "backbones", "files"], rows)


def setup(app: Any) -> dict[str, Any]:
    """Make the directive known to Sphinx."""
    app.add_directive("results-index", ResultsIndex)
    return {"parallel_read_safe": True}
