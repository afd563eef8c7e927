"""A directive whose content is Markdown that is written while the site is built."""

from __future__ import annotations

from abc import abstractmethod

from docutils import nodes
from sphinx.util.docutils import SphinxDirective


class WrittenByCode(SphinxDirective):
    """Parses what `markdown` returns as if it stood in the page."""

    optional_arguments = 2

    @abstractmethod
    def markdown(self) -> str:
        """The Markdown that takes the place of the directive."""

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(self.markdown(), allow_section_headings=True)


def escaped(text: str) -> str:
    """Plain text as Markdown that shows it unchanged; what stands in backticks stays code.

    >>> escaped("P_l * `a_b` [x]")
    'P\\\\_l \\\\* `a_b` \\\\[x\\\\]'
    """
    parts = text.split("`")
    for i in range(0, len(parts), 2):
        for mark in "\\*_[]<>{}|~#$":
            parts[i] = parts[i].replace(mark, "\\" + mark)
    return "`".join(parts)


def table(columns: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; a bar in a cell is escaped."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("\n", " ") for cell in line) + " |" for line in lines)
