"""YAML without its traps, in and out."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.refusals import refused
from trimtab.documents import dump_yaml, parse_yaml, read_yaml
from trimtab.errors import ConfigError

TRAPS = [
    "no", "No", "NO", "yes", "Yes", "on", "On", "off", "y", "n", "1:30", "12:30:45", "0o17", "0x1F", "0b11", "1_000",
    "2020-01-01", "2001-12-14t21:59:43.10-05:00", "=", "<<", "nan", "inf", "1.2.3", "e5", "-", "1e", "TRUE", "NuLL",
]  # fmt: skip


@pytest.mark.parametrize("word", [t for t in TRAPS if t != "-"])
def test_words_that_yaml_1_1_would_convert_stay_text(word: str) -> None:
    assert parse_yaml(f"label: {word}", "x") == {"label": word}


@pytest.mark.parametrize("word", ["no", "yes", "on", "1", "1e3", "true", "null", "~", "2020-01-01", "1:30"])
def test_keys_are_always_text(word: str) -> None:
    assert parse_yaml(f"{word}: 5", "x") == {word: 5}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("1E5", 1e5), ("1.5e+3", 1500.0), ("3e-4", 3e-4), (".5", 0.5), ("5.", 5.0), ("-1.25", -1.25),
        ("010", 10), ("0", 0), ("-7", -7), ("+7", 7), (".inf", math.inf), ("-.inf", -math.inf), ("+.Inf", math.inf),
    ],
)  # fmt: skip
def test_numbers_are_numbers_of_the_right_type(text: str, value: float) -> None:
    got = parse_yaml(f"x: {text}", "x")["x"]
    assert got == value
    assert isinstance(got, type(value))
    assert json.dumps(got) == json.dumps(value)


@pytest.mark.parametrize(
    "text", ["1234e56", "010", "+7", "1.50", "1E5", ".5", "5.", "-0", "+.Inf", "12", "0.5", "1_000"]
)
def test_a_number_remembers_how_it_was_written(text: str) -> None:
    assert str(parse_yaml(f"x: {text}", "x")["x"]) == text


def test_a_number_s_spelling_survives_a_copy_and_is_no_matter_of_equality() -> None:
    got = copy.deepcopy(parse_yaml("[1234e56, 010]", "x"))
    assert [str(n) for n in got] == ["1234e56", "010"]
    assert got == [1234e56, 10]


def test_numbers_with_a_spelling_are_dumped_as_numbers() -> None:
    assert parse_yaml(dump_yaml(parse_yaml("[1e3, 010, +7]", "x")), "x") == [1000.0, 10, 7]


def test_nan_is_a_float() -> None:
    assert math.isnan(parse_yaml("x: .nan", "x")["x"])


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("True", True), ("false", False), ("False", False), ("null", None), ("~", None), ("", None)],
)
def test_booleans_and_null_are_those_of_yaml_1_2(text: str, value: bool | None) -> None:
    assert parse_yaml(f"x: {text}", "x") == {"x": value}


@pytest.mark.parametrize("text", ["'no'", '"1e-3"', "'010'", '"true"', '"null"'])
def test_quoted_scalars_stay_text(text: str) -> None:
    assert parse_yaml(f"x: {text}", "x") == {"x": text[1:-1]}


def test_duplicate_key_is_refused_with_file_and_line() -> None:
    with refused(ConfigError, "the key 'epochs' stands twice", where="r.yaml:3"):
        parse_yaml("training:\n  epochs: 3\n  epochs: 4\n", "r.yaml")


def test_duplicate_key_is_found_below_a_list() -> None:
    with refused(ConfigError, "the key 'a' stands twice", where="r.yaml:2"):
        parse_yaml("- {b: 1}\n- {a: 1, a: 2}\n", "r.yaml")


def test_a_key_that_is_a_list_is_refused() -> None:
    with refused(ConfigError, "a key must be plain text", where="r.yaml:1"):
        parse_yaml("? [1, 2]\n: 3\n", "r.yaml")


def test_malformed_yaml_names_the_line() -> None:
    with refused(ConfigError, "this is not valid YAML", where="r.yaml:3"):
        parse_yaml("a:\n  - b\n c: d\n", "r.yaml")


def test_a_control_character_is_refused() -> None:
    with refused(ConfigError, "unacceptable character", where="r.yaml"):
        parse_yaml("a: \x07", "r.yaml")


def test_a_second_document_is_refused() -> None:
    with refused(ConfigError, "another document", where="r.yaml:2"):
        parse_yaml("--- {a: 1}\n--- {b: 1}\n", "r.yaml")


@pytest.mark.parametrize(
    "tag", ["!!python/object:os.system", "!!python/object/apply:os.system", "!!set", "!!timestamp", "!!binary", "!own"]
)
def test_tags_beyond_plain_data_are_refused(tag: str) -> None:
    with refused(ConfigError, "could not determine a constructor", where="r.yaml:1"):
        parse_yaml(f"a: {tag} x", "r.yaml")


@pytest.mark.parametrize("text", ["a: !!int x", "a: !!float 1:30", "a: " + "9" * 5000, "[" * 5000])
def test_what_python_cannot_convert_is_refused(text: str) -> None:
    with refused(ConfigError, "this is not valid YAML", where="r.yaml"):
        parse_yaml(text, "r.yaml")


def test_read_yaml_reads_utf8(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes("name: größe 😀\n".encode())
    assert read_yaml(tmp_path / "r.yaml") == {"name": "größe 😀"}


def test_read_yaml_of_a_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"
    with refused(ConfigError, "there is no such file", where=str(path)):
        read_yaml(path)


def test_read_yaml_of_a_folder(tmp_path: Path) -> None:
    with refused(ConfigError, "the file cannot be read", where=str(tmp_path)):
        read_yaml(tmp_path)


def test_read_yaml_of_a_binary_file(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(b"a: \xff\xfe\n")
    with refused(ConfigError, "not UTF-8", where=str(tmp_path / "r.yaml")):
        read_yaml(tmp_path / "r.yaml")


def test_read_yaml_names_the_file_of_a_syntax_error(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("a: [1\n")
    with refused(ConfigError, "this is not valid YAML", where=f"{tmp_path / 'r.yaml'}:2"):
        read_yaml(tmp_path / "r.yaml")


@pytest.mark.parametrize(
    "word", [*TRAPS, "1e-3", "010", "true", "null", "", " x", "a: b", "# c", "{", "é😀", "\x85", "\u2028"]
)
def test_dumped_text_comes_back_as_text_even_from_plain_yaml(word: str) -> None:
    text = dump_yaml({"label": word, word or "k": 1})
    assert parse_yaml(text, "x") == {"label": word, word or "k": 1}
    assert yaml.safe_load(text)["label"] == word


def test_dump_keeps_the_order_of_keys_and_writes_letters_as_they_are() -> None:
    assert dump_yaml({"b": "größe", "a": 1}) == "b: größe\na: 1\n"


@pytest.mark.parametrize("value", [1e-3, 1e-10, 1e22, -2.5e-300, math.inf, -math.inf, 0.1])
def test_dumped_floats_are_floats_in_both_dialects(value: float) -> None:
    text = dump_yaml({"x": value})
    assert parse_yaml(text, "x") == yaml.safe_load(text) == {"x": value}


TEXTS = st.text(max_size=12) | st.sampled_from(TRAPS)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS
DATA = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from([*TRAPS, "a", "b"]), DATA, max_size=3))
def test_any_plain_data_survives_dump_and_parse(value: dict[str, Any]) -> None:
    assert parse_yaml(dump_yaml(value), "x") == value


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_any_text_parses_or_is_refused_as_ours(text: str) -> None:
    place = "x"
    try:
        parse_yaml(text, "x")
    except ConfigError as error:
        place = str(error.where)
    assert place.startswith("x")


@pytest.mark.parametrize("name", ["\ud800.yaml", "a\0b.yaml"])
def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="no file can be called that") as caught:
        read_yaml(tmp_path / name)
    assert str(caught.value).encode()
