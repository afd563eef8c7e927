"""`trimtab predict`: label new texts or their words with a trained prompt, or let the model write."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Union

import typer

from trimtab.cli.console import Device, Quiet, RunsDir, err

if TYPE_CHECKING:
    from trimtab.tasks.reading import Table
    from trimtab.types import Example

Inputs = Union["Example", Mapping[str, Any], str]


def command(
    run_or_bundle: Annotated[str, typer.Argument(help="A run folder or bundle, or a run id under --runs-dir.")],
    input_file: Annotated[
        str,
        typer.Option(
            "--input", "-i", help="CSV, TSV, JSONL or Parquet; .txt or - for one text (or JSON object) a line."
        ),
    ],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to write; stdout by default.")] = None,
    runs_dir: RunsDir = Path("runs"),
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Accepted for symmetry: the output is JSON lines.")] = False,
    quiet: Quiet = False,
) -> None:
    """Label texts, or write: one JSON object a line with id, label and a score per class, or id and text.

    Where words are tagged: id, tokens, tags and entities, `tokens[start:end]` each. A row gives its words as the list
    `tokens`; a text is split at white space.
    """
    from trimtab import api
    from trimtab.storage import write_text

    rows = read_inputs(input_file)
    predictions = api.predict(run_or_bundle, rows, runs_dir=runs_dir, device=device)
    text = "".join(json.dumps(p.as_json(), ensure_ascii=False) + "\n" for p in predictions)
    if output is None:
        sys.stdout.write(text)
        return
    write_text(output, text)
    if not quiet:
        err.print(f"{len(predictions)} rows written to {output}", markup=False)


def read_inputs(name: str) -> list[Inputs]:
    """Rows to label. Lines of `-` and `.txt` are JSON objects if the first begins with a brace, else plain texts."""
    from trimtab.errors import DataError
    from trimtab.tasks.reading import read_jsonl, read_lines, read_table

    if name != "-" and not name.endswith(".txt"):
        return examples(read_table(Path(name)))
    try:
        lines = [line.rstrip("\n") for line in (sys.stdin if name == "-" else read_lines(Path(name)))]
    except UnicodeDecodeError as error:
        what = f"the text is not {error.encoding.upper()}."
        raise DataError(what, where="standard input", fix="Convert it, for example with iconv.") from None
    lines = [line for line in lines if line.strip()]
    if not lines:
        raise DataError("there is no input.", where="standard input" if name == "-" else name)
    if lines[0].lstrip().startswith("{"):
        return examples(read_jsonl(lines, "standard input" if name == "-" else name))
    return list(lines)


def examples(table: Table) -> list[Inputs]:
    """Rows of a table, each knowing its file and line; `id` names it, else its position."""
    from trimtab.tasks.reading import row_fields
    from trimtab.tasks.tagged import with_words
    from trimtab.types import Example

    return [
        with_words(Example(str(row.get("id") or i), row_fields(row), None, source), row)
        for i, (row, source) in enumerate(zip(table.rows, table.sources, strict=True), 1)
    ]
