"""The page of landscapes in headless Chromium: it draws, turns, tells losses, fits a phone, and needs no mouse."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.unit.reports.made_landscapes import HOSTILE, paths, surface
from tests.unit.reports.test_page_in_browser import CONTRAST, browser, pytestmark, silent, unfold
from trimtab.reports.surface_page import surface_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["browser", "pytestmark"]

Open = Callable[..., "Page"]

PIXELS = """(canvas) => {
  const copy = document.createElement('canvas');  // the browser warns of canvases that are drawn on and read
  [copy.width, copy.height] = [canvas.width, canvas.height];
  const pen = copy.getContext('2d', { willReadFrequently: true });
  pen.drawImage(canvas, 0, 0);
  const its = pen.getImageData(0, 0, copy.width, copy.height).data;
  let sum = 0;
  const colors = new Set();
  for (let i = 0; i < its.length; i += 4) {
    sum = (sum * 31 + its[i] + 7 * its[i + 1] + 13 * its[i + 2] + its[i + 3]) % 1000003;
    if (its[i + 3]) colors.add((its[i] >> 4) * 256 + (its[i + 1] >> 4) * 16 + (its[i + 2] >> 4));
  }
  return [sum, colors.size];
}"""


WATCHED = """() => {  // what is written onto each canvas, with its box, until the canvas is cleared
  const pen = CanvasRenderingContext2D.prototype, [write, clear] = [pen.fillText, pen.clearRect];
  window.written = new Map();
  pen.clearRect = function (...box) { window.written.set(this.canvas, []); clear.apply(this, box); };
  pen.fillText = function (text, x, y) {
    const wide = this.measureText(text).width;
    const left = x - { left: 0, center: wide / 2, right: wide }[this.textAlign];
    const ends = [[left, y - 8], [left + wide, y]].map(([a, b]) => this.getTransform().transformPoint({ x: a, y: b }));
    const [a, b] = ['x', 'y'].map((axis) => ends.map((end) => end[axis]).sort((u, v) => u - v));
    window.written.get(this.canvas).push([text, a[0], b[0], a[1], b[1]]);
    write.call(this, text, x, y);
  };
}"""


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    its = [
        surface("a", "prompt_tuning"),
        surface("b", "prompt_tuning + pgd", bend=2.0),
        surface("a", HOSTILE, "plane", marks=3),
        paths("a", ["b", "c"]),
    ]
    path = tmp_path_factory.mktemp("page") / "compare.html"
    path.write_text(surface_page(its), encoding="utf-8")
    return path


@pytest.fixture
def open_page(browser: Browser, page_file: Path) -> Iterator[Open]:
    """Opens the page."""
    with silent(browser) as open_:
        yield partial(open_, page_file)


def settled(page: Page) -> None:
    """Wait for the next frame, in which things are drawn."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def picture(page: Page, name: str, number: int = 0) -> list[int]:
    settled(page)
    found: list[int] = page.locator(f"canvas.{name}").nth(number).evaluate(PIXELS)
    return found


def test_surfaces_and_maps_are_drawn_in_color(open_page: Open) -> None:
    page = open_page()
    for name in ("relief", "map"):
        assert page.locator(f"canvas.{name}").count() == 3
        assert all(picture(page, name, i)[1] > 40 for i in range(3))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280])
def test_it_fits_and_is_legible(open_page: Open, width: int, scheme: str) -> None:
    page = open_page(width, scheme)
    unfold(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    faint = [(round(ratio, 2), tag, text) for ratio, tag, text in page.evaluate(CONTRAST) if ratio < 4.5]
    assert faint == []


@pytest.mark.parametrize("width", [375, 1280])
def test_no_text_of_a_canvas_stands_on_another(browser: Browser, tmp_path: Path, width: int) -> None:
    its = [replace(s, x=s.x / 2, y=s.y / 2) for s in (surface("a"), surface("b"), surface("c"))]  # longer numbers
    (tmp_path / "page.html").write_text(surface_page(its), encoding="utf-8")
    with silent(browser) as open_:
        looked_at(open_(tmp_path / "page.html", width))


def looked_at(page: Page) -> None:
    """Turn the surfaces, and hold all that is written on canvases against each other."""
    page.evaluate(WATCHED)
    page.locator("canvas.relief").first.focus()
    for key in ("0", "ArrowLeft", "ArrowLeft", "ArrowUp", "ArrowUp"):
        page.keyboard.press(key)
        settled(page)
        canvases = page.evaluate("[...window.written.values()]")
        assert len(canvases) == 6
        for texts in canvases:
            assert len(texts) > 7
            for i, (text, left, top, right, bottom) in enumerate(texts):
                over = [t for t, x, y, u, v in texts[:i] if left < u and x < right and top < v and y < bottom]
                assert over == [], f"{text} after {key}"


def test_canvases_are_drawn_anew_in_the_other_theme(open_page: Open) -> None:
    page = open_page()
    before = picture(page, "map")
    page.get_by_role("button", name="Dark theme").click()
    assert picture(page, "map") != before


def test_the_arrow_keys_turn_all_surfaces_of_a_view(open_page: Open) -> None:
    page = open_page()
    before = [picture(page, "relief", i) for i in range(3)]
    page.locator("canvas.relief").first.focus()
    page.keyboard.press("ArrowLeft")
    after = [picture(page, "relief", i) for i in range(3)]
    assert [a != b for a, b in zip(after, before, strict=True)] == [True, True, False]
    page.keyboard.press("ArrowUp")
    page.keyboard.press("+")
    assert picture(page, "relief") != after[0]
    page.keyboard.press("0")
    assert picture(page, "relief") == before[0]


def test_dragging_turns_the_surface(open_page: Open) -> None:
    page = open_page()
    box = page.locator("canvas.relief").first.bounding_box()
    assert box is not None
    before = picture(page, "relief")
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 160, box["y"] + 110)
    page.mouse.up()
    turned = picture(page, "relief")
    assert turned != before
    page.mouse.move(box["x"] + 10, box["y"] + 10)
    assert picture(page, "relief") == turned


def test_the_keyboard_reads_the_map_of_every_run_at_one_point(open_page: Open) -> None:
    page = open_page()
    said = page.locator(".readout")
    assert said.nth(0).inner_text() == "the run: loss 0.5 nats"
    page.locator("canvas.map").first.focus()
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    settled(page)
    assert said.nth(0).inner_text() == "x 0.5, y −0.333: loss 0.972 nats, +0.472 from the run"
    assert said.nth(1).inner_text() == "x 0.5, y −0.333: loss 1.44 nats, +0.944 from the run"
    assert said.nth(2).inner_text().startswith("A: ")
    for _ in range(9):
        page.keyboard.press("ArrowRight")
    settled(page)
    assert said.nth(0).inner_text().startswith("x 1, y −0.333")
    page.keyboard.press("Escape")
    settled(page)
    assert said.nth(0).inner_text() == "the run: loss 0.5 nats"


def test_the_pointer_reads_the_map(open_page: Open) -> None:
    page = open_page()
    chart = page.locator("canvas.map").first
    box = chart.bounding_box()
    assert box is not None
    chart.hover(position={"x": 56 + (box["width"] - 68) / 2, "y": 10 + (box["height"] - 50) / 4})
    settled(page)
    text = page.locator(".readout").first.inner_text()
    x, y, loss = (float(v) for v in re.findall(r"-?\d+(?:\.\d+)?(?:e-\d+)?", text.replace("−", "-"))[:3])
    assert x == pytest.approx(0.0, abs=0.01)
    assert y == pytest.approx(0.5, abs=0.02)
    assert loss == pytest.approx(1.0, abs=0.1)


def test_scales_are_shared_unless_asked_otherwise(open_page: Open) -> None:
    page = open_page()
    high = page.locator(".high")
    assert [high.nth(i).inner_text() for i in range(2)] == ["6.5 nats", "6.5 nats"]
    own = page.get_by_label("a scale for each run")
    own.focus()
    page.keyboard.press("Space")
    settled(page)
    assert [high.nth(i).inner_text() for i in range(2)] == ["3.5 nats", "6.5 nats"]
    page.get_by_role("button", name="Reset").first.click()
    settled(page)
    assert high.nth(0).inner_text() == "6.5 nats"
    assert not own.is_checked()


def test_a_logarithmic_scale_changes_the_pictures(open_page: Open) -> None:
    page = open_page()
    before = picture(page, "relief"), picture(page, "map")
    page.get_by_label("logarithmic").first.check()
    assert picture(page, "relief") != before[0]
    assert picture(page, "map") != before[1]


def test_canvases_have_names_and_focus_is_seen(open_page: Open) -> None:
    page = open_page()
    assert page.get_by_role("img", name="prompt_tuning: surface, mean loss 0.500 to 3.500 nats").count() == 1
    assert page.get_by_role("img", name="Across: along the gradient; upward: along a random direction").count() >= 2
    relief = page.locator("canvas.relief").first
    relief.focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "map"
    style = "getComputedStyle(document.activeElement)"
    assert page.evaluate(f"{style}.outlineStyle") == "solid"


def test_without_scripts_there_are_numbers(open_page: Open) -> None:
    page = open_page(java_script_enabled=False)
    assert page.locator("noscript").first.is_visible()
    assert page.locator("#text-table tbody tr").count() == 2
    assert page.locator("#path-0").is_visible()
