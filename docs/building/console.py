"""Lexer `console`: a line is a command only if it begins with `$ `, so output may have comments of its own."""

from __future__ import annotations

import re
from typing import Any

from pygments.lexers.shell import BashSessionLexer


class Console(BashSessionLexer):
    """Pygments' lexer takes `# ` and `% ` for prompts, too."""

    _ps1rgx = re.compile(r"^(\$ )(.*\n?)")
    _venv = re.compile(r"(?!)")  # output may begin with a bracket


def setup(app: Any) -> dict[str, Any]:
    """Make the lexer known to Sphinx."""
    app.add_lexer("console", Console)
    return {"parallel_read_safe": True}
