"""Links of pages to files of the repository that are no pages: the file's name is shown, without a link.

The pages are also read in the repository, where such links work; the site may stand where the repository does not.
Links to folders have no meaning on a site at all. Files beside the pages (JSON, CSV, reports) are copied with the site.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|#|/|mailto:)([^)\s]+)\)")
COPIED = {".json", ".csv", ".html"}


def without_links_outside(text: str, folder: Path, docs: Path) -> str:
    """Markdown whose links to files and folders outside of `docs` are their text alone."""

    def replaced(match: re.Match[str]) -> str:
        target = (folder / match[2].split("#")[0]).resolve()
        if target.is_dir() or (target.exists() and docs not in target.parents):
            shown = match[1] if "`" in match[1] or " " in match[1] else f"`{match[1]}`"
            return shown
        return match[0]

    return LINK.sub(replaced, text)


def rewrite(app: Any, docname: str, source: list[str]) -> None:
    """Sphinx's source-read."""
    page = Path(app.env.doc2path(docname))
    source[0] = without_links_outside(source[0], page.parent.resolve(), Path(app.srcdir).resolve())


def copy_reports(app: Any, error: Exception | None) -> None:
    """Reports that are pages of their own, where the site links to them."""
    if error is None and app.builder.format == "html":
        for report in (Path(app.srcdir) / "results").rglob("*.html"):
            place = Path(app.outdir) / report.relative_to(app.srcdir)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(report, place)


def setup(app: Any) -> dict[str, Any]:
    """Listen to Sphinx."""
    app.connect("source-read", rewrite)
    app.connect("build-finished", copy_reports)
    return {"parallel_read_safe": True}
