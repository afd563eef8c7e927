"""The site: built without a warning, asks for nothing from elsewhere, fits a phone, and can be read in the dark."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.docs.pages import DOCS, pages
from tests.unit.reports import test_page_in_browser as chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).parents[2]
browser = chromium.browser
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="needs sphinx: pip install 'trimtab[docs]'"),
]
LOOKED_AT = ("index.html", "tour.html", "methods/residual.html", "regularizers/pgd.html", "results/index.html",
             "reference/commands.html", "reference/python.html", "footguns.html", "journal.html")  # fmt: skip

IN_BOXES = """() => {
  const light = (color) => {
    const [r, g, b] = color.match(/[\\d.]+/g).map(Number)
      .map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  for (const box of document.querySelectorAll("svg.slots rect")) {
    const [under, text] = [getComputedStyle(box).fill, box.nextElementSibling];
    if (under === "none") continue;
    const [x, y] = [light(under), light(getComputedStyle(text).fill)].sort((p, q) => q - p);
    found.push([(x + 0.05) / (y + 0.05), text.textContent]);
  }
  return found;
}"""
"""Contrast of the words of a picture with the boxes that they stand in."""


def build(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-b", "html", str(source), str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment, cwd=ROOT)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = build(DOCS, out)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return out


def test_every_page_is_there(site: Path) -> None:
    for page in [*pages(), DOCS / "LOG.md", DOCS / "reproducing.md", *(DOCS / "results").rglob("*.md")]:
        made = site / page.relative_to(DOCS).with_suffix(".html")
        assert made.is_file(), page
        assert 'class="problematic"' not in made.read_text(encoding="utf-8"), page
    assert (site / "results/support_desk/report.html").is_file()


def test_pages_of_methods_say_what_the_code_says(site: Path) -> None:
    text = (site / "methods/residual.html").read_text(encoding="utf-8")
    assert "LayerNorm( Dropout(" in text
    assert "bottleneck" in text
    assert "0.427\u00a0±\u00a00.026" in text


def test_nothing_is_named_that_only_one_machine_has(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8", errors="replace")
        assert str(ROOT) not in text, page


def test_a_link_that_leads_nowhere_fails_the_build(tmp_path: Path) -> None:
    (tmp_path / "conf.py").write_text("extensions = ['myst_parser']\n")
    (tmp_path / "index.md").write_text("# A\n\n[b](b.md)\n")
    assert build(tmp_path, tmp_path / "out").returncode != 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_in_a_browser(site: Path, browser: Browser, width: int, scheme: str) -> None:
    asked, complaints = [], []
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    for name in LOOKED_AT:
        page.goto((site / name).as_uri())
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{name} is wider than the window at {width}"
        faint = [f for f in page.evaluate(chromium.CONTRAST) if f[0] < 3 and f[1] != "text"]
        assert faint == [], name
        assert [f for f in page.evaluate(IN_BOXES) if f[0] < 4.5] == [], name
    context.close()
    assert complaints == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


test_pages_in_a_browser = pytest.mark.skipif(chromium.CHROMIUM is None, reason="needs Chromium")(
    test_pages_in_a_browser
)
