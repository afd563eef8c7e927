"""Directive `results-index`: every page of docs/results with what it shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from building.directive import WrittenByCode, table
from building.measured import RESULTS, scores

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
    tasks: dict[str, dict[str, None]] = {}
    for score in scores(folder):
        tasks.setdefault(score.page, {})[score.task] = None
    for page in sorted(folder.rglob("*.md")):
        if page.stem == "index":
            continue
        text = page.read_text(encoding="utf-8")
        title = re.search(r"^# (.+)$", text, re.MULTILINE)
        beside = page.parent.glob(f"{page.stem}.*") if page.stem != "report" else page.parent.iterdir()
        place = page.relative_to(folder).as_posix()
        yield Result(
            page=place,
            title=": ".join([", ".join(tasks.get(place, {})), title[1] if title else page.stem]).strip(": "),
            backbones=tuple(sorted(set(BACKBONES.findall(text)))),
            parts=tuple(sorted(p.relative_to(folder).as_posix() for p in beside if p.suffix != ".md")),
        )


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
