"""Reading users' tables: CSV, TSV, JSONL, Parquet. Malformed input is an error that names file and line."""

from __future__ import annotations

import csv
import json
import sys
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final, overload

from trimtab.errors import DataError, suggest
from trimtab.stored import Stored
from trimtab.tasks.hub import SCHEME, hub_file

ASSETS = Path(__file__).parent.parent / "assets"
FORMATS = (".csv", ".tsv", ".jsonl", ".parquet")
_FIELD_LIMIT = 16 << 20
_SORTS = {dict: "an object", list: "a list", str: "text", int: "a whole number"}


@final
class Sources(Sequence[str]):
    """`file:line` of each row.

    Args:
        file: what stands before the number, colon included.
        lines: the numbers.
    """

    def __init__(self, file: str, lines: Iterable[int]) -> None:
        self._file, self._lines = file, array("q", lines)

    def __len__(self) -> int:
        return len(self._lines)

    @overload
    def __getitem__(self, at: int) -> str: ...

    @overload
    def __getitem__(self, at: slice) -> list[str]: ...

    def __getitem__(self, at: int | slice) -> str | list[str]:
        if isinstance(at, slice):
            return [f"{self._file}{line}" for line in self._lines[at]]
        return f"{self._file}{self._lines[at]}"


@dataclass(frozen=True)
class Table:
    """Rows as read: values by column, and `file:line` of each row. Of many rows, most lie in a scratch file."""

    columns: tuple[str, ...]
    rows: Sequence[Mapping[str, Any]]
    sources: Sequence[str]


@dataclass(frozen=True)
class Places:
    """Where relative names of data files start: `data` for `data:...`, `root` for ordinary relative paths."""

    data: Path | None = None
    root: Path = Path()


def resolve_path(path: str, places: Places) -> Path:
    """`asset:...` is bundled data, `data:...` lies in the data directory, `hub:...` is a table of the Hugging Face hub
    (see `trimtab.tasks.hub`), anything else is an ordinary path.

    Raises:
        DataError: `data:` without a data directory; for `hub:` see there.
    """
    if path.startswith("asset:"):
        return ASSETS / path.removeprefix("asset:")
    if path.startswith("data:"):
        if places.data is None:
            raise DataError(
                f"{path!r} lies in the data directory, which is not set.",
                where="task",
                fix="Give --data-dir or set TRIMTAB_DATA.",
            )
        return places.data / path.removeprefix("data:")
    if path.startswith(SCHEME):
        return hub_file(path)
    return places.root / path


def read_table(path: Path, name: str | None = None) -> Table:
    """Read a table by its file name's ending.

    Cells of CSV may be quoted, with delimiters and line breaks inside. In a tab-separated file quotes count only if
    they are well-formed in the whole file; else, as in the files of GLUE, they are text like any other character.

    Args:
        path: the file.
        name: how errors call it; the path by default.

    Raises:
        DataError: missing, unreadable, binary, malformed, empty, or of an unknown format.
    """
    shown = name or str(path)
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise DataError(
            f"the format {path.suffix or '(none)'!r} is not supported.", where=shown, fix=f"Use {', '.join(FORMATS)}."
        )
    if not path.is_file():
        what = "this is a folder, not a file." if path.is_dir() else f"there is no such file (looked in {Path.cwd()})."
        near = [p.name for p in path.parent.glob("*") if p.suffix.lower() in FORMATS] if path.parent.is_dir() else []
        close = suggest(path.name, near)
        raise DataError(what, where=shown, fix=close if close.startswith("Did") else None)
    if suffix == ".parquet":
        table = _read_parquet(path, shown)
    elif suffix == ".jsonl":
        table = _read_jsonl(_decoded_lines(path, shown), shown)
    else:
        table = _read_delimited(lambda: _decoded_lines(path, shown), shown, suffix)
    if not table.rows:
        raise DataError("the table has no rows.", where=shown)
    return table


def read_jsonl(lines: Iterable[str], name: str) -> Table:
    """JSON objects, one a line; see `read_table`."""
    return _read_jsonl(enumerate(lines, 1), name)


def _decoded_lines(path: Path, shown: str) -> Iterator[tuple[int, str]]:
    """Numbered lines of a text file; line ends are kept."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if b"\0" in line:
                    raise DataError("this is a binary file, not a table of text.", where=f"{shown}:{number}")
                try:
                    yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"byte {error.start + 1} of the line is not UTF-8.",
                        where=f"{shown}:{number}",
                        fix="Save the file as UTF-8.",
                    ) from None
    except OSError as error:
        raise DataError(f"the file cannot be read: {error.strerror}.", where=shown) from None


def _read_delimited(read: Callable[[], Iterator[tuple[int, str]]], shown: str, suffix: str) -> Table:
    first = next(read(), None)
    if first is None:
        raise DataError("the file is empty.", where=shown)
    delimiter = "\t" if suffix == ".tsv" else _sniff(first[1])

    def text() -> Iterator[str]:
        return (line for _, line in read())

    return _read_tabs(text, shown) if delimiter == "\t" else _read_csv(text(), shown, delimiter)


def _read_tabs(text: Callable[[], Iterator[str]], shown: str) -> Table:
    """Quotes count if they are well-formed in the whole file, else they are text like any other.

    Two lone quotes that enclose whole rows by chance are not taken for well-formed ones. Where neither reading fits,
    the one that gets further tells what is wrong.
    """
    failures: list[DataError] = []
    chance: Table | None = None
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE):
        try:
            table = _read_csv(text(), shown, "\t", quoting)
        except DataError as error:
            failures.append(error)
        else:
            if not any("\t" in cell and "\n" in cell for row in table.rows for cell in row.values()):
                return table
            chance = table
    if chance is not None:
        return chance
    raise max(failures, key=lambda error: int(str(error.where).rpartition(":")[2]))


def _read_csv(text: Iterable[str], shown: str, delimiter: str, quoting: Literal[0, 3] = csv.QUOTE_MINIMAL) -> Table:
    csv.field_size_limit(min(sys.maxsize, _FIELD_LIMIT))
    reader = csv.reader(text, delimiter=delimiter, quoting=quoting, strict=True)
    rows, lines = Stored(), array("q")
    start = 1
    try:
        header = tuple(c.strip() for c in next(reader))
        _check_header(header, shown)
        start = reader.line_num + 1
        for values in reader:
            at, start = start, reader.line_num + 1
            if not values:
                continue
            if len(values) != len(header):
                raise DataError(
                    f"the header has {len(header)} columns, this row has {len(values)}.",
                    where=f"{shown}:{at}",
                    fix='Quote values that contain the delimiter: "like, this".',
                )
            rows.append(dict(zip(header, values, strict=True)))
            lines.append(at)
    except csv.Error as error:
        raise DataError(f"this is not valid CSV: {error}.", where=f"{shown}:{start}") from None
    return Table(header, rows, Sources(f"{shown}:", lines))


def _sniff(header: str) -> str:
    """The delimiter that splits the header most; a comma where nothing does."""
    return max(",;\t", key=lambda d: (header.count(d), d == ","))


def _check_header(header: tuple[str, ...], shown: str) -> None:
    if not header:
        raise DataError("the first line is empty; the names of the columns belong there.", where=f"{shown}:1")
    if any(not c for c in header):
        raise DataError(f"column {header.index('') + 1} of the header has no name.", where=f"{shown}:1")
    for column in header:
        if header.count(column) > 1:
            raise DataError(f"the column {column!r} stands twice in the header.", where=f"{shown}:1")


def _read_jsonl(lines: Iterable[tuple[int, str]], shown: str) -> Table:
    rows, numbers = Stored(), array("q")
    columns: dict[str, None] = {}
    for number, line in lines:
        if not line.strip():
            continue
        at = f"{shown}:{number}"
        row = parse_json(line.rstrip("\r\n"), shown, number)
        if not isinstance(row, dict):
            raise DataError(f"each line must be a JSON object, got {type(row).__name__}.", where=at)
        columns.update(dict.fromkeys(row))
        rows.append(row)
        numbers.append(number)
    return Table(tuple(columns), rows, Sources(f"{shown}:", numbers))


def parse_json(text: str, name: str, line: int = 1) -> Any:
    """A JSON value that begins in this line of a file.

    Raises:
        DataError: not JSON, with line and character; or a text that cannot be written or tokenized.
    """
    at = f"{name}:{line}"
    try:
        value = json.loads(text)
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair cannot be written or tokenized
    except json.JSONDecodeError as error:
        place = f"{name}:{line + error.lineno - 1}"
        raise DataError(f"this is not valid JSON: {error.msg} at character {error.colno}.", where=place) from None
    except UnicodeEncodeError:
        raise DataError("a text holds half of a surrogate pair, such as \\ud83d alone.", where=at) from None
    except (ValueError, RecursionError) as error:
        reason = "too deep" if isinstance(error, RecursionError) else "a number has too many digits"
        raise DataError(f"this is not valid JSON: {reason}.", where=at) from None
    return value


def part(holder: Any, key: str, kind: type, at: str) -> Any:
    """What stands under a key of an object, of the kind that belongs there.

    Raises:
        DataError: no object, no such key, or something of another kind.
    """
    if not isinstance(holder, dict):
        raise DataError(f"an object with {key!r} must stand here, got {type(holder).__name__}.", where=at)
    if key not in holder:
        raise DataError(f"there is no {key!r}.", where=at, fix=suggest(key, map(str, holder)) or None)
    value = holder[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise DataError(f"{key!r} must be {_SORTS[kind]}, got {type(value).__name__}.", where=at)
    return value


def _read_parquet(path: Path, shown: str) -> Table:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_table as read
    except ImportError:
        raise DataError("reading Parquet needs pyarrow.", where=shown, fix="pip install 'trimtab[parquet]'") from None
    try:
        table = read(path)
    except (ArrowException, OSError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise DataError(f"this is not a readable Parquet file: {reason}.", where=shown) from None
    rows = tuple(table.to_pylist())
    return Table(tuple(table.column_names), rows, Sources(f"{shown}:row ", range(1, len(rows) + 1)))


def row_fields(row: Mapping[str, Any], skip: Collection[str | None] = ()) -> dict[str, str]:
    """All cells of a row as text; lists and mappings as JSON, nothing as the empty string."""
    return {c: _cell(v) for c, v in row.items() if c not in skip}


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool | list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def as_text(value: Any, column: str, source: str) -> str:
    """A cell as text: numbers and booleans as written, nothing as the empty string.

    Raises:
        DataError: a list or mapping.
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple | dict):
        raise DataError(f"the column {column!r} must hold text, got {type(value).__name__}.", where=source)
    return str(value)


def read_lines(path: Path, name: str | None = None) -> list[str]:
    """Lines of a UTF-8 text file, without their ends; names and errors as in `read_table`."""
    shown = name or str(path)
    if not path.is_file():
        raise DataError("there is no such file.", where=shown)
    return [line.rstrip("\r\n") for _, line in _decoded_lines(path, shown)]
