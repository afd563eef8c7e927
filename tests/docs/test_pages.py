"""The pages of the site: every block is parsed, and run as a reader would; quick pages always, the others in the long
run of tests.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import trimtab
from tests.docs.pages import DOCS, Reader, blocks, is_quick, pages, parse
from trimtab.registry import prompts, regularizers

PAGES = pages()


def name_of(page: Path) -> str:
    return page.relative_to(DOCS).as_posix()


def runs(page: Path) -> bool:
    """Whether there is anything on a page to be run."""
    return any(b.is_run and b.language in ("console", "python") for b in blocks(page))


def test_the_counts_of_what_is_checked() -> None:
    found = [block for page in PAGES for block in blocks(page)]
    assert len(PAGES) >= 40
    assert sum(b.language == "console" and not b.is_run for b in found) >= 20
    assert sum(b.language == "console" and b.is_run for b in found) >= 15
    assert sum(b.language == "python" for b in found) >= 8
    assert sum(b.language == "output" for b in found) >= 5
    assert sum(is_quick(page) for page in PAGES) >= 1


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_all_blocks_of_a_page_can_be_read(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    found = blocks(page)
    # what the pattern of a fence does not match would be shown and never checked
    assert sum(line.startswith("```") for line in text.splitlines()) == 2 * sum(b.fence.startswith("`") for b in found)
    for block in found:
        checked = parse(block)
        assert checked or block.language != "console" or block.is_run, f"{block}: neither run nor checked"


@pytest.mark.parametrize("page", [p for p in PAGES if runs(p) and is_quick(p)], ids=name_of)
def test_a_quick_page_does_what_it_shows(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRIMTAB_RUNS", raising=False)
    reader = Reader(tmp_path)
    reader.follow(page)
    assert reader.done == len(blocks(page))


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if runs(p) and not is_quick(p)], ids=name_of)
def test_a_page_does_what_it_shows(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRIMTAB_RUNS", raising=False)
    reader = Reader(tmp_path)
    reader.follow(page)
    assert reader.done == len(blocks(page))


def test_every_page_can_be_found_from_the_first() -> None:
    listed = set(re.findall(r"^([\w/]+)$", (DOCS / "index.md").read_text(encoding="utf-8"), re.MULTILINE))
    of_sorts = ("methods", "regularizers", "results", "index")
    written = {name_of(p).removesuffix(".md") for p in DOCS.rglob("*.md")}
    unlisted = {name for name in written if not name.startswith(of_sorts)} - listed
    assert unlisted == set(), "name these pages in a toctree of docs/index.md"


def test_all_public_names_are_in_the_reference() -> None:
    text = (DOCS / "reference/python.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"^\.\. auto\w+:: trimtab\.(\w+)$", text, re.MULTILINE))
    assert set(trimtab.__all__) - shown == {"__version__", "TrimtabError"}
    assert "errors" in shown, "TrimtabError and its children are shown with their module"


def missing(folder: str, kinds: list[str]) -> list[str]:
    """Kinds that have no page, or one that does not say what the code says."""
    sort = {"methods": "prompts", "regularizers": "regularizers"}[folder]
    found = []
    for kind in kinds:
        page = DOCS / folder / f"{kind}.md"
        wanted = (f"```{{slots}} {kind}\n", f"```{{from-code}} {sort} {kind}\n", f"```{{measured}} {sort} {kind}\n")
        text = page.read_text(encoding="utf-8") if page.exists() else ""
        if not all(part in text for part in wanted):
            found.append(kind)
    return found


def test_every_method_has_a_page() -> None:
    assert missing("methods", prompts.kinds()) == [], "a prompt encoder has no page in docs/methods"
    assert missing("regularizers", regularizers.kinds()) == [], "a regularizer has no page in docs/regularizers"
    assert missing("methods", ["residual", "brand_new"]) == ["brand_new"]


def test_every_page_of_a_method_is_of_one_that_exists() -> None:
    for folder, registry in (("methods", prompts), ("regularizers", regularizers)):
        stems = {p.stem for p in (DOCS / folder).glob("*.md")} - {"index"}
        assert stems == set(registry.kinds())
