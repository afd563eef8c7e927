"""`trimtab predict`: label new texts or their words with a trained prompt, or let the model write."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

import typer

from trimtab.cli.console import Device, Quiet, RunsDir, TrustRemoteCode, err, parsed_task

if TYPE_CHECKING:
    from trimtab.tasks.forms import Reading
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
    form: Annotated[
        Literal["jsonl", "superglue"], typer.Option("--format", help="superglue: as its server takes predictions.")
    ] = "jsonl",
    task: Annotated[
        str | None,
        typer.Option("--task", help="What the file is of: superglue/ax_b with a run of RTE, or one of a run's tasks."),
    ] = None,
    runs_dir: RunsDir = Path("runs"),
    device: Device = "auto",
    trust_remote_code: TrustRemoteCode = False,
    as_json: Annotated[bool, typer.Option("--json", help="Accepted for symmetry: the output is JSON lines.")] = False,
    quiet: Quiet = False,
) -> None:
    """Label texts, or write: one JSON object a line with id, label and a score per class, or id and text.

    Where words are tagged: id, tokens, tags and entities, `tokens[start:end]` each. A row gives its words as the list
    `tokens`; a text is split at white space.

    A prompt for several tasks is told with --task which one the file is of, or by each row in its field `task`.

    Files of MultiRC, ReCoRD and WSC are read as SuperGLUE writes them. With --format superglue a folder as output gets
    the file that its server wants, such as BoolQ.jsonl.
    """
    from trimtab import api
    from trimtab.files import write_text
    from trimtab.storage import find_run

    other = parsed_task(task)
    rows = read_inputs(input_file, api.reading_of(run_or_bundle, task=other, runs_dir=runs_dir))
    where: dict[str, Any] = {"runs_dir": runs_dir, "device": device, "trust_remote_code": trust_remote_code}
    if form == "superglue":
        name, text, unnamed = api.submit(run_or_bundle, numbered(rows), task=other, **where)
        output = output / name if output is not None and output.is_dir() else output
        if unnamed:
            err.print(f"note: {unnamed} answers name no class; the first class stands for them", markup=False)
    else:
        own = task if task in api.tasks_of(find_run(run_or_bundle, runs_dir)) else None
        predictions = api.predict(run_or_bundle, rows, task=own, **where)
        text = "".join(json.dumps(p.as_json(), ensure_ascii=False) + "\n" for p in predictions)
    if output is None:
        sys.stdout.write(text)
        return
    write_text(output, text)
    if not quiet:
        err.print(f"{text.count(chr(10))} rows written to {output}", markup=False)


def numbered(rows: list[Inputs]) -> list[Example]:
    """The rows of a table; lines of text have no numbers.

    Raises:
        DataError: they are texts.
    """
    from trimtab.errors import DataError
    from trimtab.types import Example

    found = [row for row in rows if isinstance(row, Example)]
    if len(found) < len(rows):
        raise DataError("plain texts have no number 'idx'.", where="--input", fix="Give SuperGLUE's own JSONL file.")
    return found


def read_inputs(name: str, reading: Reading | None = None) -> list[Inputs]:
    """Rows to label. Lines of `-` and `.txt` are JSON objects if the first begins with a brace, else plain texts."""
    from trimtab.errors import DataError
    from trimtab.tasks.reading import read_jsonl, read_lines, read_table

    if name != "-" and not name.endswith(".txt"):
        return examples(read_table(Path(name)), reading)
    try:
        lines = [line.rstrip("\n") for line in (sys.stdin if name == "-" else read_lines(Path(name)))]
    except UnicodeDecodeError as error:
        what = f"the text is not {error.encoding.upper()}."
        raise DataError(what, where="standard input", fix="Convert it, for example with iconv.") from None
    lines = [line for line in lines if line.strip()]
    if not lines:
        raise DataError("there is no input.", where="standard input" if name == "-" else name)
    if lines[0].lstrip().startswith("{"):
        return examples(read_jsonl(lines, "standard input" if name == "-" else name), reading)
    return list(lines)


def examples(table: Table, reading: Reading | None = None) -> list[Inputs]:
    """Rows of a table, each knowing its file and line; `id` names it, else its numbers in the file, else its position.

    Args:
        reading: how lines become rows; each is one by default.
    """
    from trimtab.tasks.forms import Reading
    from trimtab.tasks.reading import row_fields
    from trimtab.tasks.tagged import with_words
    from trimtab.types import Example

    found: list[Inputs] = []
    for i, row in enumerate((reading or Reading()).rows(table), 1):
        name = str(row.cells.get("id") or row.id or i)
        example = Example(name, row_fields(row.cells), None, row.source, answers=row.answers, group=row.group)
        found.append(with_words(example, row.cells))
    return found
