"""What every page of a report is wrapped in: a head that lets nothing be loaded, styles and scripts within the file."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from trimtab.reports.markup import Html, el

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
"""What the page may load: nothing."""


def document(title: str, body: Sequence[Html], assets: Sequence[str]) -> str:
    """A whole HTML document.

    Args:
        body: its elements, before the scripts.
        assets: names of a `.css` and a `.js` file in this folder, in the order in which they are written out.
    """
    head = [
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", http_equiv="Content-Security-Policy", content=POLICY),
        el("title", title),
        el("link", rel="icon", href="data:,"),
        *[el("style", _asset(f"{name}.css")) for name in assets],
    ]
    scripts = [el("script", _asset(f"{name}.js")) for name in assets]
    return f"<!DOCTYPE html>\n{el('html', el('head', head), el('body', [*body, *scripts]), lang='en')}\n"


def top(over: str, title: str, *more: Html) -> Html:
    """The header of a page: what it is, its title and more below them, and the button that changes the theme."""
    toggle = el("button", "Dark theme", type="button", class_="theme", aria_pressed="false", hidden=True)
    return el("header", el("div", el("p", over, class_="over"), el("h1", title), *more), toggle, class_="top")


def contents(links: Sequence[tuple[str, str]]) -> Html:
    """The navigation: where each link leads on the page, and its name."""
    items = [el("li", el("a", name, href=f"#{slug}")) for slug, name in links]
    return el("nav", el("ul", items), class_="contents", aria_label="Contents")


def _asset(name: str) -> Html:
    return Html("\n" + (files("trimtab.reports") / name).read_text(encoding="utf-8"))
