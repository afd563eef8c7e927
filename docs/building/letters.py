"""Directive `letters`: the letters of shapes, as `trimtab.types` has them."""

from __future__ import annotations

import re
from typing import Any

import trimtab.types
from building.directive import WrittenByCode, table


def letters(docstring: str) -> list[tuple[str, str]]:
    """Letter and meaning, by the letter.

    >>> letters("| letter | meaning | letter | meaning |\\n| B | rows | | |\\n| T | length | K | heads |")
    [('B', 'rows'), ('K', 'heads'), ('T', 'length')]
    """
    found = []
    for line in docstring.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and re.fullmatch(r"[A-Z]", cells[0]):
            found += [(a, b) for a, b in zip(cells[::2], cells[1::2], strict=True) if a]
    return sorted(found)


class Letters(WrittenByCode):
    """The table."""

    def markdown(self) -> str:
        self.env.note_dependency(str(trimtab.types.__file__))
        return table(["letter", "meaning"], [[f"`{a}`", b] for a, b in letters(trimtab.types.__doc__ or "")])


def setup(app: Any) -> dict[str, Any]:
    """Make the directive known to Sphinx."""
    app.add_directive("letters", Letters)
    return {"parallel_read_safe": True}
