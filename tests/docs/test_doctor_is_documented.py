"""docs/doctor.md says of every check what it asks, in its own words, under its topic."""

from __future__ import annotations

import re
from pathlib import Path

from trimtab.registry import checks

PAGE = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text(encoding="utf-8")


def test_every_check_is_in_the_table_of_its_topic() -> None:
    told = {}
    for title, section in re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL):
        for kind, asks, means in re.findall(r"^\| `(\w+)` \| (.*?) \| (.+) \|$", section, re.MULTILINE):
            assert means
            told[kind] = (title.lower(), asks)
    known = {
        kind: (checks.get(kind).topic, checks.summary(kind))  # type: ignore[attr-defined]
        for kind in checks.kinds()
        if checks.get(kind).__module__.startswith("trimtab.")
    }
    assert len(known) > 20
    assert told == known
