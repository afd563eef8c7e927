"""Docstrings are plain text with code in backticks; Sphinx reads them as reStructuredText, so marks are escaped."""

from __future__ import annotations

import re
from typing import Any


def as_restructured(line: str) -> str:
    """A line of a docstring in which only code is marked.

    >>> as_restructured("the sum of `w_1` * x, see prompt_")
    'the sum of ``w_1`` \\\\* x, see prompt\\\\_'
    """
    parts = line.split("`")
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"_(?=\W|$)", r"\\_", parts[i].replace("*", r"\*").replace("|", r"\|"))
    return re.sub(r"(``[^`]+``)(?=\w)", r"\1\\ ", "``".join(parts))


def escape(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Sphinx's autodoc-process-docstring."""
    lines[:] = [line if line.lstrip().startswith((">>>", "...")) else as_restructured(line) for line in lines]


def setup(app: Any) -> dict[str, Any]:
    """Listen to autodoc, before Google's sections are read."""
    app.connect("autodoc-process-docstring", escape, priority=100)
    return {"parallel_read_safe": True}
