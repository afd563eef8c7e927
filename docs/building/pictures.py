"""Pictures of where virtual tokens stand and what a method does to them: one drawing for all methods, told by data.

From below: what is trained, the sequence of the input, the frozen backbone, the answer. Colors are classes of
docs/_static/site.css, so that a picture follows the light or dark mode of the page.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

CELL, GAP, HIGH = 46, 6, 30
TEXT = ("my", "card", "was", "charged", "twice")


@dataclass(frozen=True)
class Picture:
    """What differs from one method to another.

    Attributes:
        caption: the picture in words, for those who do not see it.
        slots: virtual tokens in the text.
        slot: what stands in a slot.
        source: what makes the virtual tokens and is thrown away afterwards, if anything.
        raw: what goes into `source`; none means that the slots themselves are trained.
        skips: the raw rows also go around `source`.
        layers: keys and values of its own in every layer.
        spare: further prompts beside the one that a router chose.
        words: the text as the backbone gets it in the clean pass.
        second: the input of a second, perturbed pass, if there is one: its words, and its slots.
        moved_slots: in that pass it is the prompt that is moved.
        alone: there is no clean pass beside it.
        note: beside that pass, or beside what goes into `source`.
    """

    caption: str
    slots: int = 3
    slot: str = "P"
    source: str = ""
    raw: tuple[str, ...] = ()
    skips: bool = False
    layers: bool = False
    spare: int = 0
    words: tuple[str, ...] = TEXT
    second: tuple[str, ...] = ()
    moved_slots: bool = False
    alone: bool = False
    note: str = "trained; only the result is kept"


def _noisy(sign: str) -> tuple[str, ...]:
    return tuple(f"{word}{sign}" for word in TEXT)


PROMPTS = {
    "prompt_tuning": Picture("Three trained vectors stand before the text, in the places of words."),
    "p_tuning_lstm": Picture(
        "Raw rows go through a bi-LSTM and an MLP; what comes out stands before the text.",
        source="bi-LSTM, then MLP", raw=("e1", "e2", "e3"),
    ),
    "p_tuning_mlp": Picture(
        "Raw rows go through a small network; what comes out stands before the text.",
        source="MLP", raw=("e1", "e2", "e3"),
    ),
    "residual": Picture(
        "Raw rows go through a narrow network and around it; the sum stands before the text.",
        source="W_down, ReLU, W_up, norm", raw=("p1", "p2", "p3"), skips=True,
    ),
    "dpt": Picture(
        "Two thin matrices are multiplied; the rows of the product stand before the text.",
        source="A · B, rank b", raw=("A", "B"),
    ),
    "superpos": Picture(
        "Embeddings of sampled words, which are frozen, are summed with trained weights.",
        source="sums with weights w", raw=("=tea", "=run", "=blue", "=of"),
        note="frozen words; the weights are trained",
    ),
    "dept": Picture(
        "A short prompt stands before the text, and a trained offset is added to every word.",
        slots=2, words=_noisy(" +o"),
    ),
    "smop": Picture(
        "A router reads the text and chooses one of several short prompts.",
        slots=2, slot="P2", spare=3, source="router: which prompt for this text?",
    ),
    "deep": Picture(
        "No virtual token stands in the text; every layer has trained keys and values that the text attends to.",
        slots=0, layers=True,
    ),
    "discrete_search": Picture(
        "Three words of the vocabulary, found by search, stand before the text.",
        slot="=word", source="swap a word if the loss falls",
    ),
    "manual": Picture("The words of the template alone; nothing is trained.", slots=0),
    "none": Picture("No prompt: a head, or the backbone itself, is what is trained.", slots=0),
}  # fmt: skip

REGULARIZERS = {
    "duplicate": Picture("The same input, once more.", second=TEXT, note="the same loss again"),
    "gaussian": Picture("A second pass reads the text with random noise.", second=_noisy("~"), note="+ Gaussian noise"),
    "random_mask": Picture(
        "A second pass reads the text with some words hidden.",
        second=("my", "[M]", "was", "charged", "twice"), note="hidden at random",
    ),
    "pgd": Picture(
        "A second pass reads the text, moved a little in the direction that hurts most.",
        second=_noisy("↑"), note="+ uphill in a ball",
    ),
    "word_swap": Picture(
        "A second pass reads the text with a word swapped for one of like meaning that raises the loss.",
        second=("my", "*bill", "was", "charged", "twice"), note="a swap that hurts",
    ),
    "r3f": Picture(
        "A second pass reads noisy text; its answer is held against that of the clean pass.",
        second=_noisy("~"), note="noise; same answer?",
    ),
    "smart": Picture(
        "A second pass reads the text, moved uphill; its answer is held against that of the clean pass.",
        second=_noisy("↑"), note="uphill; same answer?",
    ),
    "freelb": Picture(
        "Every point of an ascent trains, in the place of the clean pass.",
        second=_noisy("↑"), note="K points, all train", alone=True,
    ),
    "neftune": Picture(
        "The text is read with noise, in the place of the clean pass.",
        second=_noisy("~"), note="uniform noise only", alone=True,
    ),
    "sam": Picture(
        "A second pass has the prompt a step uphill; the text is as it was.",
        second=TEXT, moved_slots=True, note="the prompt, uphill",
    ),
}  # fmt: skip


def svg(picture: Picture) -> str:
    """The drawing as SVG."""
    rows = list(_drawing(picture))
    width = max(x + w for _, x, _, w in rows) + 12
    height = max(y for _, _, y, _ in rows) + 14
    title = f"<title>{escape(picture.caption)}</title>"
    body = "".join(markup for markup, *_ in rows)
    return (
        f'<svg class="slots" role="img" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'xmlns="http://www.w3.org/2000/svg">{title}{body}</svg>'
    )


Drawn = tuple[str, int, int, int]
"""Markup, its left edge, its lower edge, its width."""


def _cell(x: int, y: int, text: str, kind: str, width: int = CELL, high: int = HIGH) -> Drawn:
    middle, center = x + width // 2, y + high // 2 + 4
    markup = (
        f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{high}" rx="5"/>'
        f'<text class="on-{kind}" x="{middle}" y="{center}">{escape(text)}</text>'
    )
    return markup, x, y + high, width


def _words(x: int, y: int, picture: Picture, words: tuple[str, ...], moved: bool = False) -> Iterator[Drawn]:
    """A sequence: [CLS], the slots, the answer slot, the words."""
    yield _cell(x, y, "[CLS]", "fixed")
    for i in range(picture.slots):
        x += CELL + GAP
        if picture.slot.startswith("="):
            yield _cell(x, y, picture.slot[1:], "found")
        else:
            name = picture.slot if picture.spare else f"{picture.slot}{i + 1}"
            yield _cell(x, y, name + ("↑" if moved else ""), "slot")
    x += CELL + GAP
    yield _cell(x, y, "[?]", "answer")
    for word in words:
        x += CELL + GAP
        kind = "word" if word in TEXT else "found" if word.endswith("+o") else "touched"
        yield _cell(x, y, word.lstrip("*"), kind, CELL + _more(words))
        x += _more(words)


def _more(words: tuple[str, ...]) -> int:
    """How much wider than others the cells of words are."""
    return 8 if max(map(len, words)) < 9 else 28


def _drawing(picture: Picture) -> Iterator[Drawn]:
    left, top = 12, 12
    span = (CELL + GAP) * (2 + picture.slots + len(TEXT)) + _more(picture.words) * len(TEXT) - GAP
    answer_at = left + (CELL + GAP) * (1 + picture.slots)
    yield _cell(answer_at - 20, top, "answer", "answer", CELL + 40)
    yield _arrow(answer_at + CELL // 2, top + HIGH + 14, top + HIGH + 2)
    y = top + HIGH + 16
    if picture.layers:
        for i, name in enumerate(("layer 3", "layer 2", "layer 1")):
            yield _cell(left, y + i * 34, "K V", "slot", 2 * CELL + GAP)
            yield _cell(left + 2 * (CELL + GAP), y + i * 34, f"frozen {name}", "frozen", span - 2 * (CELL + GAP))
        y += 3 * 34 + 4
    else:
        yield _cell(left, y, "frozen backbone", "frozen", span, 40)
        y += 44
    for at in range(left + CELL // 2, left + span, (CELL + GAP) * 2):
        yield _arrow(at, y + 14, y + 2)
    y += 16
    if not picture.alone:
        yield from _words(left, y, picture, picture.words)
    if picture.second and not picture.alone:
        yield _label(left + span + 10, y + 19, "clean")
        y += HIGH + 10
    if picture.second:
        yield from _words(left, y, picture, picture.second, picture.moved_slots)
        yield _label(left + span + 10, y + 19, picture.note)
    elif picture.source:
        yield from _beneath(left + CELL + GAP, y + HIGH, picture)


def _beneath(x: int, y: int, picture: Picture) -> Iterator[Drawn]:
    """What makes the virtual tokens, under them."""
    wide = max(picture.slots, len(picture.raw), picture.spare + 1) * (CELL + GAP) - GAP
    network = max(wide, 8 * len(picture.source) + 16)
    for i in range(picture.slots):
        yield _arrow(x + i * (CELL + GAP) + CELL // 2, y + 16, y + 4)
    yield _cell(x, y + 18, picture.source, "gone" if picture.raw else "tool", network, 28)
    below = y + 18 + 28
    shown = picture.raw or tuple(f"P{i + 1}" for i in range(picture.spare + 1) if picture.spare)
    for i, raw in enumerate(shown):
        at = x + i * (CELL + GAP)
        yield _arrow(at + CELL // 2, below + 16, below + 4)
        yield _cell(at, below + 18, raw.lstrip("="), "found" if raw.startswith("=") else "slot")
    if picture.skips:
        yield _around(x - GAP, below + 18 + HIGH // 2, y + 10)
        yield _label(x + network + 10, y + 36, "and around it (+)")
    if picture.raw:
        yield _label(x + max(network, wide) + 10, below + 37, picture.note)


def _arrow(x: int, start: int, end: int) -> Drawn:
    markup = f'<path class="arrow" d="M{x} {start}V{end}M{x - 3} {end + 4}L{x} {end}L{x + 3} {end + 4}"/>'
    return markup, x, start, 4


def _around(x: int, start: int, end: int) -> Drawn:
    line = f"M{x + 6} {start}H{x - 8}V{end}H{x + 24}"
    head = f"M{x + 20} {end - 3}L{x + 24} {end}L{x + 20} {end + 3}"
    return f'<path class="arrow" d="{line}{head}"/>', x - 8, start, 8


def _label(x: int, y: int, text: str) -> Drawn:
    return f'<text class="label" x="{x}" y="{y}">{escape(text)}</text>', x, y, 8 * len(text)
