"""The page in headless Chromium: answers side by side, by keyboard, in the dark, on a phone, asking nobody else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from tests.unit.reports import test_page_in_browser as chromium
from tests.unit.serving.conftest import Running

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = chromium.pytestmark
browser = chromium.browser
Open = Callable[..., "Page"]


@pytest.fixture
def open_page(browser: Browser, running: Running) -> Iterator[Open]:
    """Opens the page; at the end it must have asked for nothing but its own server, and complained of nothing."""
    contexts, asked, complaints = [], list[str](), list[str]()

    def open_(width: int = 1280, scheme: str = "light") -> Page:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(running.url + "/")
        page.wait_for_selector("#tasks input")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert [c for c in complaints if "400 (Bad Request)" not in c] == []
    assert [url for url in asked if not url.startswith((running.url + "/", "data:"))] == []


def choose(page: Page, *names: str) -> None:
    page.click("#none")
    for name in names:
        page.check(f"#tasks input[value='{name}']")


def ask(page: Page, text: str, field: str = "text") -> None:
    page.fill(f"textarea[name={field}]", text)
    page.click("#ask")
    page.wait_for_selector("#said:has-text('answers')")


def test_several_prompts_and_the_bare_model_stand_side_by_side(open_page: Open, running: Running) -> None:
    page = open_page()
    assert page.inner_text("h1") == "tiny-llama"
    choose(page, "long", "deep", "tags")
    ask(page, "the film was good")
    assert page.locator(".answer h2").all_inner_texts() == ["deep", "long", "tags"]
    assert page.locator(".answer").nth(2).locator(".side").count() == 1, "a head has no bare model"
    for name in ("deep", "long"):
        card = page.locator(".answer", has=page.locator(f"h2:text-is('{name}')"))
        assert card.locator("h3").all_inner_texts() == ["With the prompt", "Bare model"]
        for i, bare in enumerate((False, True)):
            expected = running.service.ask(name, ["the film was good"], bare).records(30.0)[0]
            assert not isinstance(expected, list)
            shown = card.locator(".side").nth(i).locator(".score").all_inner_texts()
            assert [tuple(s.split("\n")) for s in shown] == [
                (c, f"{100 * round(s, 6):.1f} %")
                for c, s in expected.scores.items()  # type: ignore[union-attr]
            ]
            assert card.locator(".side").nth(i).locator(".best span").first.inner_text() == expected.label  # type: ignore[union-attr]
    assert "5 of 5 answers" in page.inner_text("#said")


def test_texts_are_written_beside_each_other(open_page: Open, running: Running) -> None:
    page = open_page()
    choose(page, "writer", "")
    ask(page, "the film was")
    service = running.service
    with_prompt, bare, itself = page.locator(".side .text").all_inner_texts()
    prompted, _ = service.write("writer", "the film was", 5)
    assert with_prompt == (service.text(prompted.future.result(30).ids).strip() or "(nothing)")
    expected = service.ask("writer", ["the film was"], True).records(30.0)[0]
    assert bare == (expected.text or "(nothing)")  # type: ignore[union-attr]
    raw, _ = service.write("tiny-llama", "the film was", 32)
    assert itself == (service.text(raw.future.result(30).ids).strip() or "(nothing)")


def test_tasks_of_several_fields_get_a_box_for_each(open_page: Open) -> None:
    page = open_page()
    choose(page, "short", "pair")
    names = page.locator("#fields textarea").evaluate_all("its => its.map((t) => t.name)")
    assert sorted(names) == ["a", "b", "text"]
    page.fill("textarea[name=a]", "the cat")
    ask(page, "the film")
    assert page.locator(".problem").count() == 0


def test_an_error_is_shown_where_the_answer_would_be(open_page: Open) -> None:
    page = open_page()
    choose(page, "short")
    ask(page, "   ")
    assert "are empty" in page.locator(".problem").first.inner_text()
    assert "0 of 2 answers" in page.inner_text("#said")


def test_the_keyboard_is_enough(open_page: Open) -> None:
    page = open_page()
    choose(page, "long")
    page.focus("textarea[name=text]")
    page.keyboard.type("the film")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".score")
    page.focus("#tasks input[value=short]")
    page.keyboard.press("Space")
    assert page.is_checked("#tasks input[value=short]")
    page.focus(".theme")
    page.keyboard.press("Enter")
    assert page.get_attribute("html", "data-theme") == "dark"
    assert page.get_attribute(".theme", "aria-pressed") == "true"


def test_what_was_written_is_text_and_no_markup(open_page: Open, running: Running) -> None:
    page = open_page()
    choose(page, "tags")
    ask(page, "<b>good</b> <img src=x onerror=alert(1)>")
    assert page.locator(".answer b, .answer img").count() == 0


@pytest.mark.parametrize("width", [375, 768, 1280])
def test_nothing_is_wider_than_the_page(open_page: Open, width: int) -> None:
    page = open_page(width)
    choose(page, "long", "writer")
    ask(page, "word " * 50 + "x" * 300)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.goto(page.url + "docs")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(open_page: Open, scheme: str) -> None:
    page = open_page(scheme=scheme)
    choose(page, "long", "deep", "tags", "writer")
    ask(page, "the film was good")
    found = page.evaluate(chromium.CONTRAST)
    assert len(found) > 30
    assert [(round(ratio, 2), tag, text) for ratio, tag, text in found if ratio < 4.5] == []
