"""The page as a document: well-formed, self-contained, named throughout, and deaf to markup in what users wrote."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from tests.unit.reports.conftest import STUDIES, Report
from trimtab.reports.shell import POLICY

VOID = {"meta", "link", "br", "wbr", "hr"}
Written = Callable[[str], Report]


class Document(HTMLParser):
    """Checks nesting while it reads, and keeps what was found."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.ids: Counter[str] = Counter()
        self.references: list[str] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.sections: list[str] = []
        self.faults: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        its = dict(attrs)
        self.tags[tag] += 1
        self.attributes.append((tag, its))
        if its.get("id"):
            self.ids[str(its["id"])] += 1
        for name in ("aria-labelledby", "aria-describedby"):
            self.references += (its.get(name) or "").split()
        if (its.get("href") or "").startswith("#"):
            self.references.append(str(its["href"])[1:])
        if len(its) < len(attrs):
            self.faults.append(f"an attribute stands twice in {tag}")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> closes nothing at {self.getpos()}")


@pytest.mark.parametrize("name", STUDIES)
def test_it_is_well_formed_and_its_references_exist(written: Written, name: str) -> None:
    document = Document(written(name).html)
    assert document.faults == []
    assert document.open == []
    assert [i for i, n in document.ids.items() if n > 1] == []
    assert set(document.references) <= set(document.ids)
    assert document.tags["h1"] == 1


@pytest.mark.parametrize("text", ["<p><b></p></b>", "<p>", "</p>", '<p id="a" id="b"></p>'])
def test_the_check_of_nesting_finds_faults(text: str) -> None:
    document = Document(text)
    assert document.faults or document.open


@pytest.mark.parametrize("name", STUDIES)
def test_it_loads_nothing(written: Written, name: str) -> None:
    html = written(name).html
    assert re.findall(r"https?:|@import|url\(|//[a-z]+\.", html) == []
    document = Document(html)
    loaded = [
        (tag, its) for tag, its in document.attributes if its.get("src") or (tag == "link" and its["href"] != "data:,")
    ]
    assert loaded == []
    assert ("meta", POLICY) in [(tag, its.get("content")) for tag, its in document.attributes]


@pytest.mark.parametrize("name", STUDIES)
def test_figures_tables_and_boxes_have_names(written: Written, name: str) -> None:
    document = Document(written(name).html)
    for tag, its in document.attributes:
        if tag == "svg" and its.get("role") == "img":
            assert len(str(its["aria-labelledby"]).split()) == 2
        if tag == "figure" or its.get("role") == "region":
            assert its.get("aria-labelledby")
        if its.get("role") == "region":
            assert its.get("tabindex") == "0"
    assert document.tags["caption"] == document.tags["table"]


def test_headings_go_down_step_by_step(written: Written) -> None:
    for name in STUDIES:
        levels = [int(t[1]) for t, _ in Document(written(name).html).attributes if re.fullmatch(r"h[1-6]", t)]
        assert levels[0] == 1
        assert all(b <= a + 1 for a, b in pairwise(levels))


def test_what_users_wrote_is_text(written: Written) -> None:
    html = written("rates").html
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert('x')&lt;/script&gt; &amp;" in html
    assert Document(html).tags["script"] == 1


@pytest.mark.parametrize(
    ("name", "slugs"),
    [
        (
            "rates",
            ["verdict", "results", "seeds", "comparisons", "rates", "curves", "classes", "cost", "problems", "method"],
        ),
        (
            "lengths",
            ["verdict", "results", "seeds", "comparisons", "curves", "length", "sources", "classes", "cost", "method"],
        ),
        ("tasks", ["verdict", "results", "seeds", "tasks", "comparisons", "curves", "classes", "cost", "method"]),
        ("one", ["verdict", "results", "seeds", "curves", "classes", "cost", "method"]),
        ("nothing", ["verdict", "results", "comparisons", "cost", "method"]),
    ],
)
def test_the_sections_a_study_has_are_there_in_order(written: Written, name: str, slugs: list[str]) -> None:
    assert re.findall(r'<h2 id="([a-z]+)">', written(name).html) == slugs


def test_numbers_of_the_analysis_stand_in_the_page(written: Written) -> None:
    report = written("rates")
    html = report.html
    for line in report.facts["lines"]:
        assert f"{line['mean']:.3f} ± {line['sd']:.3f}" in html
        assert f"[{line['iqm_interval']['low']:.3f}, {line['iqm_interval']['high']:.3f}]" in html
    assert "1 of 5" in html  # collapsed
    assert "counts as the constant answer" in html
    assert "trimtab study rates" not in html  # with the folder it lies in
    assert "/rates/study.yaml" in html


def test_an_incomplete_study_says_so_on_top(written: Written) -> None:
    html = written("tasks").html
    assert "The study is incomplete: 2 of 12 runs have not ended." in html
    assert html.index("incomplete") < html.index('id="results"')


def test_many_lines_are_drawn_in_panels_of_their_own(written: Written) -> None:
    document = Document(written("many").html)
    panels = [i for i in document.ids if re.fullmatch(r"rates-0-\d+-title", i)]
    assert len(panels) == 8
    assert "rates-0-chart-title" in Document(written("rates").html).ids
