"""Directives for pages of methods: `slots` draws, `from-code` says what the code says, `measured` what was measured."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from building import measured
from building.directive import WrittenByCode, escaped, table
from building.docstrings import as_markdown, options_of, parts_of, without_lead
from building.pictures import PROMPTS, REGULARIZERS, svg
from trimtab.drafting.presets import presets
from trimtab.registry import Registry, prompts, regularizers

ROOT = Path(__file__).parents[2]
REGISTRIES: dict[str, Registry] = {"prompts": prompts, "regularizers": regularizers}
SIZES = (("nano-masked", 256), ("BERT-base", 768))
"""Backbones that parameters are counted for, and their embedding sizes."""


class Slots(SphinxDirective):
    """The picture of a method."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        picture = {**PROMPTS, **REGULARIZERS}[self.arguments[0]]
        figure = f'<figure class="slots">{svg(picture)}<figcaption>{picture.caption}</figcaption></figure>'
        return [nodes.raw("", figure, format="html")]


class FromCode(WrittenByCode):
    """Source, equation, symbols, costs, options and deviations, from the docstring and the constructor."""

    required_arguments = 2

    def markdown(self) -> str:
        sort, kind = self.arguments
        cls = REGISTRIES[sort].get(kind)
        module = importlib.import_module(cls.__module__)
        self.env.note_dependency(inspect.getfile(cls))
        found = parts_of(module.__doc__ or "")
        options = options_of(REGISTRIES[sort], kind)
        shown = ["## Equation", escaped(found.title), as_markdown(found.body)]
        if options:
            shown += ["## Options", table(["option", "values", "default", "meaning"], options)]
        if sort == "prompts":
            if kind == "deep" or cls.count(10, 256):
                rate = f"Learning rate, where the recipe names none: `{cls.default_learning_rate:g}`."
                chosen = any(method == kind for _, method in presets())
                shown.append(rate + " What studies chose by backbone: [presets](/guide/presets.md)." * chosen)
            shown.append(counted(cls, kind))
        if found.deviations:
            shown += ["## Deviations", without_lead(as_markdown(found.deviations))]
        file = module.__name__.replace(".", "/")
        shown.append(f"Written from the docstring of `src/{file}.py`.")
        return "\n\n".join(part for part in shown if part)


def counted(cls: Any, kind: str) -> str:
    """Parameters with P = 10 on two backbones; nothing where attention decides on them, or where there are none."""
    if kind == "deep" or cls.count(10, 256) == 0:
        return ""
    rows = [[name, f"{cls.count(10, size):,}", f"{cls.kept(10, size):,}"] for name, size in SIZES]
    return table(["10 virtual tokens on", "trained", "kept"], rows)


class Measured(WrittenByCode):
    """What docs/results holds of a method."""

    required_arguments = 2

    def markdown(self) -> str:
        sort, kind = self.arguments
        if sort == "regularizers":
            return costs(kind)
        for file in measured.RESULTS.rglob("*.json"):
            self.env.note_dependency(str(file))
        found = [score for score in measured.scores() if score.kind == kind]
        if not found:
            return unmeasured(kind)
        rows: dict[tuple[str, ...], str] = {}
        for s in sorted(found, key=lambda score: score.task):
            cells = (
                f"`{s.task}`",
                (f"{s.metric.replace('_', ' ')} " if s.metric != "accuracy" else "") + str(s).replace(" ", "\u00a0"),
                str(s.seeds),
                "" if s.rows is None else f"{s.rows:,}",
                f"`{s.backbone}`",
                ", ".join([f"`{s.options.strip('{}')}`"] * bool(s.options) + [s.readout] * bool(s.readout)),
            )
            name = re.sub("(?<=[/_])", "\u200b", s.page.removesuffix(".md").removesuffix("/report"))
            rows.setdefault(cells, f"[{name}](/results/{s.page})")  # what several pages show is that of the first
        columns = ["task", "test accuracy", "seeds", "rows", "backbone", "with", "page"]
        told = [i for i in range(len(columns) - 1) if any(cells[i] for cells in rows)]
        shown = [[*(cells[i] for i in told), page] for cells, page in rows.items()]
        said = (
            "Mean and standard deviation over seeds, on test. The backbones are frozen, `rows` are those of train; how "
            "the learning rate was chosen stands on the page."
        )
        return said + "\n\n" + table([*(columns[i] for i in told), columns[-1]], shown)


def unmeasured(kind: str) -> str:
    """What is said of a method without a number: the study of the repository that would give it one."""
    said = "Nothing in [the results](/results/index.md) has a line for this method yet."
    studies = (ROOT / "recipes").rglob("*.yaml")
    for file in sorted(studies, key=lambda path: ("papers" in path.parts, path)):  # papers need large backbones
        text = file.read_text(encoding="utf-8")
        if "\nrecipe:" in text and re.search(rf"\b{kind}\b", text):
            return f"{said} This study would:\n\n```sh\ntrimtab study {file.relative_to(ROOT)}\n```"
    return said


def costs(kind: str) -> str:
    """What a regularizer costs in plain steps."""
    rows = []
    for page in ("regularizer-costs", "regularizer-costs-minilm"):
        raw = measured.read(f"{page}.json")
        for line in raw["found"]:
            if line["spec"]["kind"] == kind:
                options = ", ".join(f"{k} {v}" for k, v in line["spec"].items() if k != "kind")
                when = {"first": "first epoch", "later": "later epochs"}.get(line["epoch"], "")
                rows.append([
                    f"`{kind}`" + (f" ({options})" if options else "") + (f", {when}" if when else ""),
                    f"`{raw['model']}`", f"{line['ratio']['median']:.2f}", str(line["passes"]),
                    f"[page](/results/{page}.md)",
                ])  # fmt: skip
    if not rows:
        return "Nothing in [the results](/results/index.md) has a line for this regularizer yet."
    return table(["regularizer", "backbone", "a step, in plain steps", "passes", "how"], rows)


class Methods(WrittenByCode):
    """A table of all methods of a sort, each with a link to its page."""

    required_arguments = 1

    def markdown(self) -> str:
        registry = REGISTRIES[self.arguments[0]]
        rows = [[f"[`{kind}`]({kind}.md)", escaped(registry.summary(kind))] for kind in registry.kinds()]
        return table(["`kind`", "what it is"], rows)


def setup(app: Any) -> dict[str, Any]:
    """Make the directives known to Sphinx."""
    for name, directive in (("slots", Slots), ("from-code", FromCode), ("measured", Measured), ("methods", Methods)):
        app.add_directive(name, directive)
    return {"parallel_read_safe": True}
