"""The page in headless Chromium: it asks for nothing, fits a phone, is legible in the dark, obeys the keyboard."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.reports.conftest import STUDIES, Report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("playwright") is None, reason="needs playwright: pip install playwright"
    ),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]

Open = Callable[..., "Page"]
Written = Callable[[str], Report]

CONTRAST = """() => {
  const parse = (text) => {
    const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
    return [r, g, b, a];
  };
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3]));
  const behind = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.push(parse(getComputedStyle(e).backgroundColor));
    let color = [255, 255, 255];
    for (const layer of layers.reverse()) color = over(layer, color);
    return color;
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => {
    const [x, y] = [light(a), light(b)].sort((p, q) => q - p);
    return (x + 0.05) / (y + 0.05);
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    if (!element.checkVisibility() || !element.getClientRects().length) continue;
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || ["SCRIPT", "STYLE", "title", "desc"].includes(element.tagName)) continue;
    const style = getComputedStyle(element);
    const under = behind(element);
    const color = parse(element instanceof SVGElement ? style.fill : style.color);
    found.push([ratio(over(color, under), under), element.tagName, element.textContent.trim().slice(0, 30)]);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@contextmanager
def silent(browser: Browser) -> Iterator[Open]:
    """Opens files; at the end they must have asked for nothing and complained of nothing."""
    contexts, names, asked, complaints = [], set[str](), list[str](), list[str]()

    def open_(file: Path, width: int = 1280, scheme: str = "light", **options: Any) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        names.add(f"/{file.name}")
        page.goto(file.as_uri())
        return page

    yield open_
    for context in contexts:
        context.close()
    assert complaints == []
    assert [url for url in asked if not url.endswith(tuple(names)) and not url.startswith("data:")] == []


@pytest.fixture
def open_page(browser: Browser, written: Written) -> Iterator[Open]:
    """Opens the report of a study."""
    with silent(browser) as open_:
        yield lambda name, *args, **options: open_(written(name).folder / "report.html", *args, **options)


def unfold(page: Page) -> None:
    """Open everything that is folded away."""
    page.evaluate("for (const its of document.querySelectorAll('details')) its.open = true")


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.parametrize("width", [375, 768, 1280])
def test_nothing_is_wider_than_the_page(open_page: Open, name: str, width: int) -> None:
    page = open_page(name, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    unfold(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["rates", "lengths", "tasks"])
def test_text_stands_out(open_page: Open, name: str, scheme: str) -> None:
    page = open_page(name, scheme=scheme)
    unfold(page)
    found = page.evaluate(CONTRAST)
    assert len(found) > 100
    assert [(round(ratio, 2), tag, text) for ratio, tag, text in found if ratio < 4.5] == []


def test_the_check_of_contrast_finds_faint_text(open_page: Open) -> None:
    page = open_page("one")
    page.evaluate("document.querySelector('h1').style.color = '#999'")
    assert [tag for ratio, tag, _ in page.evaluate(CONTRAST) if ratio < 4.5] == ["H1"]


def test_the_keyboard_sorts_the_table(open_page: Open) -> None:
    page = open_page("rates")
    first = "document.querySelector('#headline tbody th').innerText"
    button = page.locator("#headline thead button", has_text="Worst seed")
    head = page.locator("#headline thead th", has_text="Worst seed")
    before = page.evaluate(first)
    assert before.startswith("steady")
    assert page.locator("#headline th[aria-sort=descending]").inner_text().startswith("Test mean")
    button.focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert page.evaluate(first) == before
    page.keyboard.press("Space")
    assert head.get_attribute("aria-sort") == "ascending"
    assert page.evaluate(first) != before
    assert page.locator("#headline th[aria-sort=descending]").count() == 0
    assert "Worst seed, ascending" in str(page.locator("#said").text_content())


def test_numbers_are_sorted_as_numbers_and_gaps_come_last(open_page: Open) -> None:
    page = open_page("rates")
    for _ in range(2):
        page.locator("#cost-table thead button", has_text="Time, all runs").click()
        keys = "[...document.querySelectorAll('#cost-table tbody tr')].map((r) => Number(r.cells[2].dataset.key))"
        found = page.evaluate(keys)
        order = page.locator("#cost-table th[aria-sort$=scending]").get_attribute("aria-sort")
        assert found == sorted(found, reverse=order == "descending")


def test_the_theme_is_chosen_by_the_system_and_by_the_button(open_page: Open) -> None:
    page = open_page("one", scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    button = page.get_by_role("button", name="Dark theme")
    assert button.get_attribute("aria-pressed") == "true"
    button.focus()
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "false"
    assert dark != "rgb(250, 249, 246)"
    assert page.evaluate(background) == "rgb(250, 249, 246)"
    page.reload()
    assert page.evaluate(background) == "rgb(250, 249, 246)"
    button.click()
    assert page.evaluate(background) == dark


def test_focus_is_seen_and_the_first_stop_leads_to_the_verdict(open_page: Open) -> None:
    page = open_page("rates")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.innerText") == "To the verdict"
    page.keyboard.press("Enter")
    page.wait_for_url("**/report.html#verdict")  # the key is answered before the page has moved
    for _ in range(3):
        page.keyboard.press("Tab")
    style = "getComputedStyle(document.activeElement)"
    assert page.evaluate(f"{style}.outlineStyle") == "solid"
    assert float(page.evaluate(f"parseFloat({style}.outlineWidth)")) >= 2


@pytest.mark.parametrize("name", ["rates", "lengths", "many"])
def test_figures_are_images_with_a_name(open_page: Open, name: str) -> None:
    page = open_page(name)
    unfold(page)
    images = page.get_by_role("img")
    assert images.count() > 3
    assert all(its.evaluate("e => e.querySelector('title').textContent.length > 3") for its in images.all())
    named = page.evaluate("[...document.querySelectorAll('figure')].map((f) => "
                          "document.getElementById(f.getAttribute('aria-labelledby')).innerText)")  # fmt: skip
    assert all(named)
    tree = page.locator("main").aria_snapshot()
    assert "- img:" not in tree  # an image without a name
    assert '- img "' in tree


def test_dots_lie_inside_their_plots(open_page: Open) -> None:
    for width in (375, 1280):
        page = open_page("rates", width)
        outside = """[...document.querySelectorAll('#dots .row-plot svg[role=img]')].flatMap((svg) => {
          const box = svg.getBoundingClientRect();
          return [...svg.querySelectorAll('.dot')].filter((d) => {
            const its = d.getBoundingClientRect();
            return its.left < box.left - 6 || its.right > box.right + 6 || its.top < box.top || its.bottom > box.bottom;
          });
        }).length"""
        assert page.evaluate(outside) == 0


def test_what_users_wrote_does_not_run(open_page: Open) -> None:
    page = open_page("rates")
    page.on("dialog", lambda dialog: pytest.fail(f"a dialog: {dialog.message}"))
    assert page.locator("text=<script>alert('x')</script>").count() > 0


def test_without_scripts_everything_can_be_read(open_page: Open) -> None:
    page = open_page("rates", java_script_enabled=False)
    assert page.locator(".theme").is_hidden()
    assert page.locator("#headline tbody tr").count() == 3
    assert page.locator("#dots").is_visible()


def test_print_unfolds_and_is_light(open_page: Open) -> None:
    page = open_page("rates", scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
