"""The page of landscapes, as text: complete, self-contained, and harmless."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import unescape

import pytest

from tests.unit.reports.made_landscapes import HOSTILE, paths, surface
from trimtab.reports.colors import VIRIDIS
from trimtab.reports.surface_page import surface_page

PAIR = [surface("a", "prompt_tuning"), surface("b", "prompt_tuning + pgd", bend=2.0)]


def data_of(page: str) -> list[dict]:
    return [json.loads(raw) for raw in re.findall(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)]


def test_the_page_holds_every_surface() -> None:
    page = surface_page([*PAIR, surface("a", "prompt_tuning", "prompt")])
    texts, prompts = data_of(page)
    assert [s["label"] for s in texts["surfaces"]] == ["prompt_tuning", "prompt_tuning + pgd"]
    assert len(prompts["surfaces"]) == 1
    first = texts["surfaces"][0]
    assert len(first["x"]) == 9
    assert len(first["y"]) == 7
    assert first["z"][3][4] == pytest.approx(0.5)
    assert first["z"][6][8] == pytest.approx(3.5)
    assert first["marks"][0]["loss"] == 0.5
    assert texts["colors"] == list(VIRIDIS)
    assert texts["log"] is False
    assert data_of(surface_page(PAIR, log=True))[0]["log"] is True


def test_numbers_can_be_read_without_scripts() -> None:
    page = unescape(surface_page([*PAIR, paths("a")]))
    for part in (
        "mean loss 0.500 to 3.500 nats, 0.500 at the run",
        "1 = norm of the texts' embeddings",
        *("6.500", "12.5", "0.25", "barrier 0.750", "<noscript>"),
        *("2 of test, drawn with seed 0", "float32, eager attention", "nano-masked"),
    ):
        assert part in page


def test_views_that_were_computed_at_different_times_say_how_each() -> None:
    its = surface("a", view="prompt")
    other = replace(its, facts={**its.facts, "batch": {**its.facts["batch"], "examples": ["a"]}})
    page = unescape(surface_page([PAIR[0], other]))
    for part in ("2 of test, drawn with seed 0", "(around the texts); 1 of test", "(around the prompt)</dd>"):
        assert part in page
    assert page.count("nano-masked") == 1


def test_the_page_asks_for_nothing() -> None:
    page = surface_page(PAIR)
    assert "default-src &#x27;none&#x27;" in page
    assert not re.search(r'(src|href)="(?!#|data:)', page)
    assert "http" not in re.sub(r'http-equiv="[^"]*"', "", page)


def test_what_users_wrote_is_no_markup() -> None:
    page = surface_page([surface("a", HOSTILE), surface("b", HOSTILE, "plane", marks=3)])
    assert "<script>alert" not in page
    assert data_of(page)[0]["surfaces"][0]["label"] == HOSTILE


def test_a_plane_names_its_three_runs() -> None:
    page = surface_page([surface("a", "run", "plane", marks=3)])
    assert "A: run; B: run; C: run" in page
