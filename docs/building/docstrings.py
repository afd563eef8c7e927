"""A method's docstring, taken apart: title, equations, remarks, deviations; and the options of its constructor."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Iterator
from dataclasses import dataclass

from building.directive import escaped
from trimtab.registry import Registry

LEADS = re.compile(
    r"^(Symbols|Parameters|Cost per step|Cost|Deviations|As in A2T|Not as in A2T|Reparameterizations|A control)\b"
)
WIDE_GAP = re.compile(r"(?<=\S) {4,}(?=[^ =])")


@dataclass(frozen=True)
class Block:
    """A paragraph of a docstring, or an indented block of it."""

    text: str
    is_equation: bool


@dataclass(frozen=True)
class Parts:
    """What a method's docstring says: its first paragraph, what follows, and what differs from the paper."""

    title: str
    body: tuple[Block, ...]
    deviations: tuple[Block, ...]


def parts_of(docstring: str) -> Parts:
    """The parts of a module docstring in the house's order.

    >>> found = parts_of("A method.\\n\\n    x = y\\n\\nSymbols: x.\\n\\nDeviations: none.")
    >>> found.title, [b.text for b in found.body], [b.text for b in found.deviations]
    ('A method.', ['x = y', 'Symbols: x.'], ['Deviations: none.'])
    """
    blocks = list(_blocks(inspect.cleandoc(docstring)))
    differs = [i for i, b in enumerate(blocks) if re.match(r"(Deviations|As in A2T)\b", b.text)]
    cut = differs[0] if differs else len(blocks)
    return Parts(blocks[0].text, tuple(blocks[1:cut]), tuple(blocks[cut:]))


def _blocks(text: str) -> Iterator[Block]:
    for block in re.split(r"\n\s*\n", text):
        lines = block.splitlines()
        is_equation = all(line.startswith("    ") for line in lines)
        yield Block(inspect.cleandoc("\n" + block) if is_equation else " ".join(lines), is_equation)


def folded(equation: str, width: int = 92) -> str:
    """Lines that are too long for a page go on below, from where a wide gap sets a remark apart.

    >>> print(folded("y = f( x )          x in R", width=20))
    y = f( x )
            x in R
    """
    lines = []
    for line in equation.splitlines():
        while len(line) > width and (gaps := [m for m in WIDE_GAP.finditer(line) if m.start() <= width]):
            lines.append(line[: gaps[-1].start()])
            line = " " * 8 + line[gaps[-1].end() :]
        lines.append(line)
    return "\n".join(lines)


def without_lead(text: str) -> str:
    """A section's text without the word that is its heading.

    >>> without_lead("**Deviations**: none.")
    'None.'
    """
    return re.sub(r"^\*\*Deviations\*\*[:.] (\w?)", lambda match: match[1].upper(), text)


def as_markdown(blocks: tuple[Block, ...]) -> str:
    """Blocks as Markdown: equations as they are written, lead words in bold."""
    shown = []
    for block in blocks:
        if block.is_equation:
            shown.append(f"```{{code-block}} text\n:class: equation\n\n{folded(block.text)}\n```")
        else:
            shown.append(LEADS.sub(r"**\1**", escaped(block.text)))
    return "\n\n".join(shown)


def argument_texts(cls: type) -> dict[str, str]:
    """What the docstring of a class says under Args, by the name of the option."""
    section = re.search(r"^Args:\n((?:    .*\n?|\n)+)", inspect.getdoc(cls) or "", re.MULTILINE)
    found = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", section[1] if section else "", re.MULTILINE)
    return {name: re.sub(r"\s+", " ", text).strip() for name, text in found}


def options_of(registry: Registry, kind: str) -> list[list[str]]:
    """A line per option: name, values, default, meaning, as Markdown."""
    texts = argument_texts(registry.get(kind))
    return [
        [f"`{name}`", escaped(values_of(p.annotation)), _default(registry, kind, name), escaped(texts.get(name, ""))]
        for name, p in registry.options(kind).items()
    ]


def _default(registry: Registry, kind: str, name: str) -> str:
    nested = registry.nested(kind, name)
    value = registry.options(kind)[name].default if nested is None else nested[1]
    if value is inspect.Parameter.empty:
        return "required"
    if value is None:
        return "nothing"
    shown = str(value).lower() if isinstance(value, bool) else value if value != "" else repr(value)
    return f"`{value['kind'] if isinstance(value, dict) else shown}`"


def values_of(annotation: typing.Any) -> str:
    """What an option takes, in words.

    >>> values_of(typing.Literal["on", "off"]), values_of(int | None), values_of(list[str])
    ('`on`, `off`', 'int or nothing', 'list of str')
    """
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        registry = next((m for m in annotation.__metadata__ if isinstance(m, Registry)), None)
        if registry is not None:
            return registry.noun
        return " ".join([values_of(inner[0]), *_bounds(annotation.__metadata__)])
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if inner and origin in (list, tuple):
        return f"list of {values_of(inner[0])}"
    if inner:
        return " or ".join(values_of(i) for i in inner)
    return "nothing" if annotation is type(None) else getattr(annotation, "__name__", str(annotation))


def _bounds(metadata: typing.Iterable[typing.Any]) -> Iterator[str]:
    """Limits of a number, such as `≥ 1`."""
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    for field in metadata:
        for limit in getattr(field, "metadata", ()):
            yield from (f"{signs[k]} {getattr(limit, k)}" for k in signs if hasattr(limit, k))
