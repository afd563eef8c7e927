"""The page and the file of results: counts, a table per check, and what happens in the cells that are wrong."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from correctness.checks import TASKS, all_checks
from correctness.families import FAMILIES
from correctness.judging import OUTCOMES
from correctness.reasons import DIRECT, HAPPENS

Found = Mapping[str, Any]
SIGNS = {"ok": "·", "wrong": "W", "silent": "S", "error": "E", "refused": "R", "n/a": "-"}
MEANING = {
    "ok": "holds",
    "wrong": "does not hold, and some warning came with it, whatever it said",
    "silent": "does not hold, and nothing said so",
    "error": "an exception on the way",
    "refused": "refused beforehand, with a reason",
    "n/a": "transformers, the method or the task does not have what the check is about",
}


def page(outcome: Found) -> str:
    """The markdown page."""
    cells = outcome["cells"]
    lines = [
        "# Correctness: trimtab and PEFT under the same checks",
        "",
        *_introduction(outcome),
        *_counts(cells),
        *_wrong("peft", cells),
        *_wrong("trimtab", cells),
        *_said("error", cells),
        *_said("refused", cells),
        *(line for name, holds in outcome["checks"].items() for line in _table(name, holds, cells)),
    ]
    return "\n".join(lines) + "\n"


def _introduction(outcome: Found) -> list[str]:
    e = outcome["environment"]
    versions = ", ".join(f"{name} {e[name]}" for name in ("trimtab", "peft", "transformers", "torch", "accelerate"))
    return [
        f"Tiny random models of {len(_in(outcome['cells'], 'family'))} families (two layers, 32 wide, every weight "
        "drawn, no dropout), float32. A *cell* is one check on one method of one library on one family for one task. "
        "Deviations are relative differences (above 0.0001 is wrong) unless a check says otherwise.",
        "",
        "PEFT is used as its documentation and examples have it, each call with its reason in "
        "`benchmarks/correctness/peft_side.py`. Where it does not find a model's sizes and lets a user state them "
        "(ALBERT, ELECTRA, DistilBERT, mT5), they are stated, except in `trains`, which is about defaults. What "
        "transformers' own model does not bear either (left pads without positions, say) is not counted. Windows of "
        "sliding attention are longer than the texts here.",
        "",
        *DIRECT,
        "",
        f"Command: `{outcome['command']}`",
        "",
        f"{versions}; Python {e['python']}, cpu ({e['cpu']}), {e['cores']} cores, {e['threads']} thread; "
        f"{outcome['seconds'] / 60:.0f} minutes in all on a machine with other work.",
        "",
    ]


def _counts(cells: Sequence[Found]) -> list[str]:
    names = [o for o in OUTCOMES if o != "n/a"]
    lines = ["## Counts", "", f"| | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for library in _in(cells, "library"):
        count = Counter(c["outcome"] for c in cells if c["library"] == library)
        lines.append(f"| **{library}** | {' | '.join(f'**{count[o]}**' for o in names)} |")
    for check in (c.name for c in all_checks()):
        for library in _in(cells, "library"):
            count = Counter(c["outcome"] for c in cells if c["library"] == library and c["check"] == check)
            if count.keys() - {"n/a"}:
                lines.append(f"| {check}: {library} | {' | '.join(str(count[o] or '') for o in names)} |")
    return [*lines, "", *(f"* *{o}*: {MEANING[o]}" for o in OUTCOMES), "", *_hopeless(cells), ""]


def _hopeless(cells: Sequence[Found]) -> list[str]:
    """How many errors are those of methods that do nothing right on a family and task."""
    lines = []
    for (library,), its in _grouped(cells, lambda c: (c["library"],)):
        groups = _grouped([c for c in its if c["outcome"] != "n/a"], lambda c: (c["method"], c["family"], c["task"]))
        dead = [group for _, group in groups if all(c["outcome"] in ("error", "refused", "silent") for c in group)]
        errors = sum(c["outcome"] == "error" for group in dead for c in group)
        lines.append(
            f"* {library}: of {len(groups)} combinations of method, family and task, {len(dead)} hold no check at all; "
            f"{errors} of the errors are theirs."
        )
    return lines


def _wrong(library: str, cells: Sequence[Found]) -> list[str]:
    """What is wrong, check by check: by how much, in which families."""
    wrong = [c for c in cells if c["library"] == library and c["outcome"] in ("wrong", "silent")]
    lines = [f"## What {library} gets wrong", ""]
    if not wrong:
        return [*lines, "Nothing.", ""]
    for check in (c.name for c in all_checks()):
        mine = [c for c in wrong if c["check"] == check]
        if mine:
            lines += [f"**{check}**: {HAPPENS.get((library, check), '')}", ""]
            lines += ["| method | task | deviation | silent in | with a warning in |", "|---|---|---|---|---|"]
            for (method, task), its in _grouped(mine, lambda c: (c["method"], c["task"])):
                places = (_families(its, "silent"), _families(its, "wrong"))
                lines.append(f"| {method} | {task} | {_range(its)} | {' | '.join(places)} |")
            lines.append("")
    return lines


def _families(cells: Iterable[Found], outcome: str) -> str:
    return ", ".join(dict.fromkeys(c["family"] for c in cells if c["outcome"] == outcome)) or "-"


def _range(cells: Sequence[Found]) -> str:
    values = [float("inf") if c["deviation"] == "infinite" else c["deviation"] for c in cells]
    low, high = min(values), max(values)
    return f"{low:.2g}" if f"{low:.2g}" == f"{high:.2g}" else f"{low:.2g} to {high:.2g}"


def _said(outcome: str, cells: Sequence[Found]) -> list[str]:
    """The messages of an outcome, by library: how many cells, and where."""
    title = {"error": "Errors on the way", "refused": "Refused beforehand"}[outcome]
    lines = [
        f"## {title}",
        "",
        "| library | message | cells | checks | methods | families |",
        "|---|---|---|---|---|---|",
    ]
    mine = [c for c in cells if c["outcome"] == outcome]
    for (library, text), its in _grouped(mine, lambda c: (c["library"], general(c["said"]))):
        where = (", ".join(_in(its, axis)) for axis in ("check", "method", "family"))
        lines.append(f"| {library} | {text} | {len(its)} | {' | '.join(where)} |")
    return [*lines, ""]


def general(message: str) -> str:
    """A message without its numbers, so that those of tensors of other sizes are the same."""
    words = " ".join("N" if word.strip("()[].,'").isdigit() else word for word in message.split())
    return words.replace("|", "/").replace("<", "&lt;")


def _table(name: str, holds: str, cells: Sequence[Found]) -> list[str]:
    """One check: a family per row, a method per column, a sign per task."""
    mine = {(c["library"], c["method"], c["family"], c["task"]): c["outcome"] for c in cells if c["check"] == name}
    tasks = [task for task in TASKS if any(key[3] == task for key in mine)]
    methods = list(dict.fromkeys(key[:2] for key in mine))
    if not mine:
        return []
    lines = [
        f"## {name}", "", f"Must hold: {holds}. Signs in the order of tasks: {', '.join(tasks)}.", "",
        f"| | {' | '.join(': '.join(method) for method in methods)} |", f"|---|{'---|' * len(methods)}",
    ]  # fmt: skip
    for family in (f for f in FAMILIES if any(key[2] == f for key in mine)):
        signs = ("".join(SIGNS.get(mine.get((*m, family, task), ""), "") for task in tasks) for m in methods)
        lines.append(f"| {family} | {' | '.join(f'`{s}`' if s else '' for s in signs)} |")
    return [*lines, "", ", ".join(f"`{sign}` {o}" for o, sign in SIGNS.items()) + ", blank: not run.", ""]


def _in(cells: Iterable[Found], axis: str) -> list[str]:
    """The names on an axis, in their order."""
    return list(dict.fromkeys(c[axis] for c in cells))


def _grouped(cells: Sequence[Found], of: Callable[[Found], Any]) -> list[tuple[Any, list[Found]]]:
    groups: dict[Any, list[Found]] = {}
    for cell in cells:
        groups.setdefault(of(cell), []).append(cell)
    return list(groups.items())


def file(outcome: Found) -> str:
    """The results as JSON: "library / method / family", task, check -> what came of it. What holds is its deviation
    alone; else [outcome, deviation, number of the message]. What is not applicable is left out."""
    messages: dict[str, int] = {}
    tree: dict[str, Any] = {}
    for cell in outcome["cells"]:
        if cell["outcome"] == "n/a":
            continue
        place = tree
        for axis in ("library", "method", "family", "task"):
            place = place.setdefault(cell[axis], {})
        deviation = cell["deviation"] if not isinstance(cell["deviation"], float) else float(f"{cell['deviation']:.2g}")
        number = messages.setdefault(cell["said"], len(messages)) if cell["said"] else None
        place[cell["check"]] = deviation if cell["outcome"] == "ok" else [cell["outcome"], deviation, number]
    head = {k: v for k, v in outcome.items() if k != "cells"}
    counts = {n: Counter(c["outcome"] for c in outcome["cells"] if c["library"] == n) for n in tree}
    head |= {"counts": counts, "messages": list(messages)}
    flat = {
        " / ".join((library, method, family)): its
        for library, methods in tree.items()
        for method, families in methods.items()
        for family, its in families.items()
    }
    rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(its)}" for name, its in flat.items())
    return json.dumps(head, indent=1)[:-2] + ',\n "cells": {\n' + rows + "\n }\n}\n"
