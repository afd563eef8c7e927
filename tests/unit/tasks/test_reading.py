"""Reading tables: what is read, and file:line of what cannot be."""

from __future__ import annotations

import builtins
import errno
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.refusals import refused
from trimtab.errors import DataError
from trimtab.tasks.reading import ASSETS, Places, Table, as_text, read_jsonl, read_lines, read_table, resolve_path

QUOTE = "Quote values that contain the delimiter"


def table(folder: Path, name: str, content: str | bytes) -> Table:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_table(path, name)


def values(got: Table) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in got.rows]


# CSV and TSV


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", "text,label\nx,y\n"),
        ("t.csv", "text,label\nx,y"),
        ("t.csv", "text,label\r\nx,y\r\n"),
        ("t.csv", "\ufefftext,label\nx,y\n"),
        ("t.csv", " text , label \nx,y\n"),
        ("t.csv", '"text","label"\n"x","y"\n'),
        ("t.csv", "text;label\nx;y\n"),
        ("t.csv", "text\tlabel\nx\ty\n"),
        ("t.tsv", "text\tlabel\nx\ty\n"),
        ("t.csv", "text,label\n\nx,y\n\n"),
    ],
)
def test_usual_dialects_of_csv(tmp_path: Path, name: str, content: str) -> None:
    got = table(tmp_path, name, content)
    assert got.columns == ("text", "label")
    assert list(got.rows) == [{"text": "x", "label": "y"}]


def test_the_delimiter_that_splits_the_header_decides_and_others_are_text(tmp_path: Path) -> None:
    assert values(table(tmp_path, "t.csv", "text;label\na, b;y\n")) == [("a, b", "y")]
    assert values(table(tmp_path, "t.tsv", "text\tlabel\na, b; c\ty\n")) == [("a, b; c", "y")]
    assert values(table(tmp_path, "t.csv", "text\nhello; you\n")) == [("hello; you",)]


def test_quoted_newlines_delimiters_and_quotes_are_text_and_lines_stay_right(tmp_path: Path) -> None:
    got = table(tmp_path, "t.csv", 'text,label\n"a\nb\n\nc",1\n"d, ""e""",2\n\n"f\r\ng",3\nh,4\n')
    assert values(got) == [("a\nb\n\nc", "1"), ('d, "e"', "2"), ("f\r\ng", "3"), ("h", "4")]
    assert list(got.sources) == ["t.csv:2", "t.csv:6", "t.csv:8", "t.csv:10"]


def test_a_quoted_newline_in_the_header_counts_as_a_line(tmp_path: Path) -> None:
    assert list(table(tmp_path, "t.csv", '"te\nxt",label\nx,y\n').sources) == ["t.csv:3"]


def test_non_english_text_and_emoji_are_kept(tmp_path: Path) -> None:
    assert values(table(tmp_path, "t.csv", "größe,標籤\nпривет 😀,はい\n")) == [("привет 😀", "はい")]


def test_a_cell_far_longer_than_the_csv_module_s_default_limit_is_read(tmp_path: Path) -> None:
    assert len(table(tmp_path, "t.csv", "text\n" + "x" * 300_000).rows[0]["text"]) == 300_000


@pytest.mark.parametrize(
    ("content", "what", "where", "fix"),
    [
        ("text,label\nx,y\na,b,c\n", "the header has 2 columns, this row has 3", "t.csv:3", QUOTE),
        ("text,label\nx\n", "the header has 2 columns, this row has 1", "t.csv:2", QUOTE),
        ('text,label\n"a\nb",y\nz\n', "the header has 2 columns, this row has 1", "t.csv:4", QUOTE),
        ("text\nhello, there\n", "the header has 1 columns, this row has 2", "t.csv:2", QUOTE),
        ('text,label\nx,y\n"a,b\nc,d\ne,f\n', "not valid CSV: unexpected end of data", "t.csv:3", None),
        ('text,"label\nx,y\n', "not valid CSV: unexpected end of data", "t.csv:1", None),
        ('text,label\nx,y\n"a"b,c\n', "not valid CSV: ',' expected after", "t.csv:3", None),
        ("text,label\rx,y\r", "not valid CSV: new-line character", "t.csv:1", None),
        ("text,label,text\nx,y,z\n", "the column 'text' stands twice in the header", "t.csv:1", None),
        ("text,,label\nx,y,z\n", "column 2 of the header has no name", "t.csv:1", None),
        ("text,label,\nx,y,\n", "column 3 of the header has no name", "t.csv:1", None),
        ("\ntext,label\nx,y\n", "the first line is empty", "t.csv:1", None),
        ("", "the file is empty", "t.csv", None),
        ("\ufeff", "the first line is empty", "t.csv:1", None),
        ("text,label\n", "the table has no rows", "t.csv", None),
        ("text,label\n\n\n", "the table has no rows", "t.csv", None),
    ],
)
def test_malformed_csv_is_refused_with_its_line(
    tmp_path: Path, content: str, what: str, where: str, fix: str | None
) -> None:
    with refused(DataError, what, where=where, fix=fix):
        table(tmp_path, "t.csv", content)


@pytest.mark.parametrize("name", ["t.tsv", "t.csv"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('"a ""b"""\t1\nc\t2\n', [('a "b"', "1"), ("c", "2")]),
        ('"a\tb"\t1\n', [("a\tb", "1")]),
        ('"a\nb"\t1\nc\t2\n', [("a\nb", "1"), ("c", "2")]),
        ('x "y" z\t1\n', [('x "y" z', "1")]),
        ('"a" b\t1\n', [('"a" b', "1")]),
        ('"a\t1\nb\t2\n', [('"a', "1"), ("b", "2")]),
        ('"a\t1\n"b\t2\n', [('"a', "1"), ('"b', "2")]),
        ('"good"\t0\n"a\t1\n', [('"good"', "0"), ('"a', "1")]),
        ('"\t1\nb\t2\n"\t3\n', [('"', "1"), ("b", "2"), ('"', "3")]),
    ],
)
def test_quotes_of_a_tab_separated_file_count_where_they_are_well_formed_and_else_are_text(
    tmp_path: Path, name: str, content: str, expected: list[tuple[str, str]]
) -> None:
    got = table(tmp_path, name, "text\tlabel\n" + content)
    assert got.columns == ("text", "label")
    assert values(got) == expected


def test_lines_of_a_tab_separated_file_with_bare_quotes_stay_right(tmp_path: Path) -> None:
    assert list(table(tmp_path, "t.tsv", 'text\tlabel\n"a\t1\n\nb\t2\n').sources) == ["t.tsv:2", "t.tsv:4"]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("a\t1\nb\t2\t3\n", 3),
        ('"a\t1\nb\t2\nc\t3\t4\n', 4),
        ('"a\tb"\t1\n"c\td"\t2\ne\t3\t4\n', 4),
    ],
)
def test_a_row_that_does_not_fit_is_refused_where_the_likelier_reading_of_quotes_ends(
    tmp_path: Path, content: str, line: int
) -> None:
    with refused(DataError, "the header has 2 columns, this row has 3", where=f"t.tsv:{line}", fix=QUOTE):
        table(tmp_path, "t.tsv", "text\tlabel\n" + content)


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl"])
def test_a_binary_file_is_refused_with_its_line(tmp_path: Path, name: str) -> None:
    with refused(DataError, "this is a binary file, not a table of text", where=f"{name}:2"):
        table(tmp_path, name, b'{"a": "1"}\n\x00\x01\n')


def test_utf_16_is_refused_as_binary(tmp_path: Path) -> None:
    with refused(DataError, "this is a binary file", where="t.csv:1"):
        table(tmp_path, "t.csv", "text\nx\n".encode("utf-16"))


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_text_that_is_not_utf8_is_refused_with_line_and_byte(tmp_path: Path, name: str) -> None:
    with refused(DataError, "byte 9 of the line is not UTF-8", where=f"{name}:2", fix="Save the file as UTF-8"):
        table(tmp_path, name, b'{"a": 1}\n{"a": "x\xe9"}\n')


# JSONL


def test_jsonl_columns_are_those_of_all_rows_in_order(tmp_path: Path) -> None:
    got = table(tmp_path, "t.jsonl", '\ufeff{"b": 1, "a": "x\\ny"}\n\n{"c": null, "a": [1]}\n')
    assert got.columns == ("b", "a", "c")
    assert list(got.rows) == [{"b": 1, "a": "x\ny"}, {"c": None, "a": [1]}]
    assert list(got.sources) == ["t.jsonl:1", "t.jsonl:3"]


def test_jsonl_keeps_emoji_written_as_surrogate_pairs(tmp_path: Path) -> None:
    assert values(table(tmp_path, "t.jsonl", '{"a": "\\ud83d\\ude00"}')) == [("😀",)]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('{"a": ', "not valid JSON: Expecting value at character 7"),
        ('{"a": 1} {"a": 2}', "not valid JSON: Extra data at character 10"),
        ("{'a': 1}", "not valid JSON: Expecting property name"),
        ("plain text", "not valid JSON"),
        ('{"a": "x\ty"}', "not valid JSON: Invalid control character"),
        ("[" * 100_000, "not valid JSON: too deep"),
        ('{"a": ' + "9" * 5000 + "}", "not valid JSON: a number has too many digits"),
        ('{"a": "\\ud83d"}', "half of a surrogate pair"),
        ("[1, 2]", "each line must be a JSON object, got list"),
        ('"text"', "each line must be a JSON object, got str"),
        ("null", "each line must be a JSON object, got NoneType"),
    ],
)
def test_a_broken_line_of_jsonl_is_refused_with_its_line(tmp_path: Path, line: str, what: str) -> None:
    with refused(DataError, what, where="t.jsonl:3"):
        table(tmp_path, "t.jsonl", f'{{"a": 1}}\n\n{line}\n{{"a": 2}}\n')


def test_empty_jsonl_is_refused(tmp_path: Path) -> None:
    with refused(DataError, "the table has no rows", where="t.jsonl"):
        table(tmp_path, "t.jsonl", "\n")


def test_read_jsonl_takes_lines_from_anywhere() -> None:
    assert read_jsonl(['{"a": 1}\n', '{"a": 2}'], "stdin").rows[:] == [{"a": 1}, {"a": 2}]
    with refused(DataError, "not valid JSON", where="stdin:2"):
        read_jsonl(['{"a": 1}\n', "{"], "stdin")


# Parquet


def test_parquet_keeps_types_and_names_rows(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.table({"text": ["a", None], "label": [1, 0]}), tmp_path / "t.parquet")
    got = read_table(tmp_path / "t.parquet", "t.parquet")
    assert got.columns == ("text", "label")
    assert values(got) == [("a", 1), (None, 0)]
    assert list(got.sources) == ["t.parquet:row 1", "t.parquet:row 2"]


@pytest.mark.parametrize("damage", ["empty", "noise", "truncated", "flipped"])
def test_broken_parquet_is_refused(tmp_path: Path, damage: str) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.table({"text": ["a" * 50] * 50}), tmp_path / "good.parquet", compression="none")
    raw = (tmp_path / "good.parquet").read_bytes()
    broken = {
        "empty": b"",
        "noise": b"PAR1" + b"\xff" * 90,
        "truncated": raw[:-9],
        "flipped": raw[:-60] + b"\xff" * 40 + raw[-20:],
    }
    with refused(DataError, "this is not a readable Parquet file", where="t.parquet"):
        table(tmp_path, "t.parquet", broken[damage])


def test_parquet_without_pyarrow_is_refused_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return find(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with refused(DataError, "reading Parquet needs pyarrow", where="t.parquet", fix="pip install 'trimtab[parquet]'"):
        table(tmp_path, "t.parquet", b"PAR1")


# Files


def test_a_missing_file_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a\n1\n")
    where = str(tmp_path / "trian.csv")
    with refused(DataError, "there is no such file (looked in", where=where, fix="Did you mean 'train.csv'?"):
        read_table(tmp_path / "trian.csv")


def test_a_missing_file_without_a_similar_one_is_refused_without_a_guess(tmp_path: Path) -> None:
    (tmp_path / "zzz.csv").write_text("a\n1\n")
    for path in (tmp_path / "train.csv", tmp_path / "none" / "train.csv"):
        with refused(DataError, "there is no such file", where=str(path)):
            read_table(path)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").mkdir()
    with refused(DataError, "this is a folder, not a file", where=str(tmp_path / "t.csv"), fix="Did you mean"):
        read_table(tmp_path / "t.csv")


@pytest.mark.parametrize("name", ["t.txt", "t", "t.csv.gz", "t.json", "t.xlsx"])
def test_an_unknown_format_is_refused_with_the_known_ones(tmp_path: Path, name: str) -> None:
    suffix = Path(name).suffix or "(none)"
    with refused(DataError, f"the format {suffix!r} is not supported", where=name, fix=".csv, .tsv, .jsonl, .parquet"):
        table(tmp_path, name, "a\n1\n")


def test_an_unreadable_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*args: Any, **options: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied")

    (tmp_path / "t.csv").write_text("a\n1\n")
    monkeypatch.setattr(Path, "open", deny)
    with refused(DataError, "the file cannot be read: Permission denied", where="t.csv"):
        read_table(tmp_path / "t.csv", "t.csv")


def test_lines_of_a_text_file_come_without_their_ends(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes("\ufeffa\r\n\nб".encode())
    assert read_lines(tmp_path / "t.txt") == ["a", "", "б"]
    with refused(DataError, "there is no such file", where=str(tmp_path / "none.txt")):
        read_lines(tmp_path / "none.txt")
    (tmp_path / "t.txt").write_bytes(b"a\n\xff\n")
    with refused(DataError, "not UTF-8", where=f"{tmp_path / 't.txt'}:2", fix="UTF-8"):
        read_lines(tmp_path / "t.txt")


def test_paths_start_at_the_assets_the_data_folder_or_the_root(tmp_path: Path) -> None:
    places = Places(data=tmp_path / "data", root=tmp_path / "root")
    assert resolve_path("asset:support_desk/dev.jsonl", places) == ASSETS / "support_desk" / "dev.jsonl"
    assert resolve_path("data:sst2/dev.tsv", places) == tmp_path / "data" / "sst2" / "dev.tsv"
    assert resolve_path("a/t.csv", places) == tmp_path / "root" / "a" / "t.csv"
    assert resolve_path(str(tmp_path / "t.csv"), places) == tmp_path / "t.csv"


def test_a_data_path_without_a_data_folder_is_refused() -> None:
    with refused(
        DataError, "'data:x.csv' lies in the data directory, which is not set", where="task", fix="--data-dir"
    ):
        resolve_path("data:x.csv", Places())


# Cells


@pytest.mark.parametrize(
    ("value", "text"), [("x", "x"), (1, "1"), (1.5, "1.5"), (True, "true"), (False, "false"), (None, "")]
)
def test_cells_as_text(value: Any, text: str) -> None:
    assert as_text(value, "c", "t.jsonl:1") == text


@pytest.mark.parametrize(("value", "name"), [([1], "list"), ({"a": 1}, "dict")])
def test_a_cell_that_holds_several_values_is_refused(value: Any, name: str) -> None:
    with refused(DataError, f"the column 'c' must hold text, got {name}", where="t.jsonl:1"):
        as_text(value, "c", "t.jsonl:1")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["t.csv", "t.tsv", "t.jsonl"]),
    st.one_of(st.binary(max_size=60), st.text('a,;\t"\n\r{}[]:1\\ud', max_size=60)),
)
def test_any_file_is_a_table_or_refused_as_ours(tmp_path: Path, name: str, content: bytes | str) -> None:
    place = name
    try:
        got = table(tmp_path, name, content)
    except DataError as error:
        place = str(error.where)
    else:
        assert len(got.rows) == len(got.sources) > 0
    assert place.startswith(name)
