"""Directive `journal-index`: the sections of docs/LOG.md, each with the day on which it was first written.

Days are those of the commits that wrote the headings; where there is no history (a source archive) there are no days.
"""

from __future__ import annotations

import re
import subprocess
import unicodedata
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from building.directive import WrittenByCode, table

LOG = Path(__file__).parents[1] / "LOG.md"


def sections(text: str) -> list[str]:
    """Headings of the second level, in their order.

    >>> sections("# Log\\n\\n## One\\n\\ntext\\n\\n## Two\\n")
    ['One', 'Two']
    """
    return re.findall(r"^## (.+)$", text, re.MULTILINE)


def anchor(heading: str) -> str:
    """The anchor that MyST gives a heading.

    >>> anchor("COPA and XQuAD: too small a model")
    'copa-and-xquad-too-small-a-model'
    """
    kept = re.sub(r"[^\w\- ]", "", unicodedata.normalize("NFC", heading).strip().lower())
    return kept.replace(" ", "-")


def days(log: Path) -> dict[str, str]:
    """Heading -> the day of the commit that wrote it; empty where there is no history."""
    command = ["git", "-C", str(log.parent), "blame", "--line-porcelain", "--", log.name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True, encoding="utf-8")
    except (OSError, subprocess.SubprocessError):
        return {}
    found, day = {}, ""
    for line in done.stdout.splitlines():
        if line.startswith("author-time "):
            day = datetime.fromtimestamp(int(line.split()[1]), tz=UTC).strftime("%Y-%m-%d")
        elif line.startswith("\t## "):
            found[line[4:]] = day
    return found


class JournalIndex(WrittenByCode):
    """Days and links."""

    def markdown(self) -> str:
        self.env.note_dependency(str(LOG))
        known = days(LOG)
        rows = [[known.get(h, ""), f"[{h}](/LOG.md#{anchor(h)})"] for h in sections(LOG.read_text(encoding="utf-8"))]
        return table(["day", "section"], rows)


def setup(app: Any) -> dict[str, Any]:
    """Make the directive known to Sphinx."""
    app.add_directive("journal-index", JournalIndex)
    return {"parallel_read_safe": True}
