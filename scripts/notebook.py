"""Makes a notebook, outputs included, of a script whose cells begin with `# %%`.

    python scripts/notebook.py examples/first_prompt.py        # writes examples/first_prompt.ipynb

The script is the source: change it, and make the notebook again. Cells run one after the other in an empty folder.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

MARK = "# %%"


def cells(source: str) -> list[tuple[str, str]]:
    """Kind (`markdown` or `code`) and text of each cell.

    >>> cells("# %% [markdown]\\n# # Title\\n#\\n# Text\\n\\n# %%\\nx = 1\\n")
    [('markdown', '# Title\\n\\nText'), ('code', 'x = 1')]
    """
    found: list[tuple[str, list[str]]] = []
    for line in source.splitlines():
        if line.startswith(MARK):
            found.append(("markdown" if "[markdown]" in line else "code", []))
        elif found:
            found[-1][1].append(line.removeprefix("#").removeprefix(" ") if found[-1][0] == "markdown" else line)
    return [(kind, "\n".join(lines).strip()) for kind, lines in found]


def notebook(source: str) -> dict[str, Any]:
    """The notebook (format 4.5) of a script, with what its cells print."""
    made, namespace, count = [], {"__name__": "__main__"}, 0
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for i, (kind, text) in enumerate(cells(source)):
            cell: dict[str, Any] = {"cell_type": kind, "id": f"cell-{i}", "metadata": {}, "source": _lines(text)}
            if kind == "code":
                count += 1
                printed = io.StringIO()
                with contextlib.redirect_stdout(printed):
                    exec(compile(text, f"cell {i}", "exec"), namespace)
                stream = {"name": "stdout", "output_type": "stream", "text": _lines(printed.getvalue())}
                cell |= {"execution_count": count, "outputs": [stream] if printed.getvalue() else []}
            made.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def main(script: Path) -> None:
    made = notebook(script.read_text(encoding="utf-8"))
    script.with_suffix(".ipynb").write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
