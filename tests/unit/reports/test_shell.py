"""The shell of a page: what a title may hold, and in which order styles, body and scripts stand."""

from __future__ import annotations

from trimtab.reports.markup import el
from trimtab.reports.shell import POLICY, contents, document, top


def test_a_document_has_its_styles_before_and_its_scripts_after_what_is_shown() -> None:
    text = document("a < b", [el("main", "shown")], ["report", "surface"])
    assert text.startswith('<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">')
    assert "<title>a &lt; b</title>" in text
    assert POLICY.replace("'", "&#x27;") in text
    assert (text.count("<style>"), text.count("<script>")) == (2, 2)
    assert text.rindex("</style>") < text.index("<main>shown</main>") < text.index("<script>")


def test_a_document_without_assets_has_neither() -> None:
    text = document("t", [], [])
    assert "<style>" not in text
    assert "<script>" not in text


def test_headings_and_links() -> None:
    link = '<a href="#a">A &amp; B</a>'
    assert f"<ul><li>{link}</li></ul></nav>" in contents([("a", "A & B")])
    header = top("Study report", "<s>", el("p", "more"))
    assert header.startswith('<header class="top"><div><p class="over">Study report</p><h1>&lt;s&gt;</h1><p>more</p>')
