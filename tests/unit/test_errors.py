"""Errors: their parts, their one-paragraph text, and suggestions."""

from __future__ import annotations

import pytest

from trimtab import errors
from trimtab.errors import TrimtabError, suggest


def test_text_is_where_then_what_then_fix() -> None:
    assert str(TrimtabError("it is broken.", where="a.csv:3", fix="Mend it.")) == "a.csv:3: it is broken. Mend it."


@pytest.mark.parametrize(
    ("where", "fix", "text"),
    [(None, None, "it is broken."), ("x", None, "x: it is broken."), (None, "Mend it.", "it is broken. Mend it.")],
)
def test_absent_parts_leave_no_trace(where: str | None, fix: str | None, text: str) -> None:
    assert str(TrimtabError("it is broken.", where=where, fix=fix)) == text


@pytest.mark.parametrize(
    "name", ["ConfigError", "TemplateError", "DataError", "BackboneError", "BundleError", "DivergedError"]
)
def test_every_error_of_ours_is_a_trimtab_error_and_a_value_error(name: str) -> None:
    kind = getattr(errors, name)
    assert issubclass(kind, TrimtabError)
    assert issubclass(kind, ValueError)
    assert kind("x", where="y").where == "y"


def test_suggest_names_the_nearest_known_name() -> None:
    assert suggest("learning_rat", ["epochs", "learning_rate", "learning_rates"]) == "Did you mean 'learning_rate'?"


def test_suggest_lists_all_names_sorted_when_none_is_near() -> None:
    assert suggest("zzz", ["b", "a"]) == "Known: a, b."


def test_suggest_is_silent_when_nothing_is_known() -> None:
    assert suggest("zzz", []) == ""
