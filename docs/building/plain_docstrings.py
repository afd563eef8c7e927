"""Docstrings are plain text with code in backticks; Sphinx reads them as reStructuredText, so marks are escaped."""

from __future__ import annotations

import re
from typing import Any


def as_restructured(line: str) -> str:
    r"""A line of a docstring in which only code is marked.

    >>> print(as_restructured("all `w_1`s * x, see `a`, `b` and prompt_"))
    all ``w_1``\ s \* x, see ``a``, ``b`` and prompt\_
    """
    parts = line.split("`")
    for i in range(0, len(parts), 2):
        plain = parts[i].replace("*", r"\*").replace("|", r"\|")
        plain = re.sub(r"_(?=\W|$)", r"\\_", plain)
        # the plural of a name: code must end at something that is no letter
        parts[i] = rf"\ {plain}" if i and plain[:1].isalnum() else plain
    return "``".join(parts)


def escape(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Sphinx's autodoc-process-docstring."""
    lines[:] = [line if line.lstrip().startswith((">>>", "...")) else as_restructured(line) for line in lines]


def setup(app: Any) -> dict[str, Any]:
    """Listen to autodoc, before Google's sections are read."""
    app.connect("autodoc-process-docstring", escape, priority=100)
    return {"parallel_read_safe": True}
