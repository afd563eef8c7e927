"""The text of a drafted recipe: YAML with a comment on every line that a person may want to change."""

from __future__ import annotations

import json
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from trimtab.drafting.label_words import Choice
from trimtab.tasks import SPLITS, Task

_WIDTH = 92
_FURTHEST_COMMENT = 44
_TASK_COMMENTS = {
    "name": "how results call it",
    "path": "seen from the folder where you run trimtab",
    "label": "the column to predict",
    "target": "the column that the model learns to write",
    "split_column": "says train, dev or test",
    "id_column": "names the rows in predictions",
}
_FRACTION_COMMENTS = {
    "test_fraction": "share of all rows that is kept for the report",
    "dev_fraction": "share of the rest that picks the checkpoint; about 50 rows if it can be",
    "split_seed": "another number draws other rows",
}
_PROMPT_COMMENTS = {
    "kind": "or another method: trimtab ls prompts",
    "length": "learned vectors",
    "initializer": "their first values",
}
_TRAINING_COMMENTS = {
    "epochs": "passes over the training rows",
    "min_steps": "but at least so many steps; try more if the score still rises",
    "batch_size": "rows per step",
    "select": "which dev score picks the checkpoint: accuracy or macro_f1",
    "learning_rate": "chosen by studies on such models; others: trimtab ls presets",
}
_TEXT_COMMENTS = {
    "select": "which dev score picks the checkpoint: exact_match, token_f1, rouge_l, or loss (fast)",
}


def write_recipe(
    data: Mapping[str, Any], task: Task, sizes: Mapping[str, int], words: Mapping[str, Choice], output: Path
) -> str:
    """Commented YAML that reads back as `data`.

    Args:
        data: the recipe.
        task: the same, loaded: for the sizes of its splits.
        sizes: rows per class.
        words: label words with the reason for each.
        output: where the recipe will be.
    """
    return "\n".join([*_head(data["task"], task, sizes, output), "", *_sections(data, words)]) + "\n"


def _head(options: Mapping[str, Any], task: Task, sizes: Mapping[str, int], output: Path) -> list[str]:
    recipe = _one_line(shlex.quote(output.as_posix()))
    counts = ", ".join(f"{quoted(name)} {n}" for name, n in sizes.items())
    n = {s: len(task.splits[s]) for s in SPLITS}
    drawn = [s for s in ("dev", "test") if f"{s}_fraction" in options]
    target = options.get("target")
    if "split_column" not in options:
        how = f"drawn {'at random' if target else 'class by class'}, the same in every run"
    else:
        how = f"as the column {quoted(options['split_column'])} says"
        how += f", {' and '.join(drawn)} drawn from its train rows" if drawn else ""
    return [
        *_comment(
            f"{'Write' if target else 'Predict'} {quoted(target or options['label'])} in {_one_line(options['path'])} "
            "with a soft prompt on a frozen model."
        ),
        "#",
        f"#   trimtab run {recipe}         train it, then score it on rows it has not seen",
        f"#   trimtab show {recipe} -n 2   see what the model reads",
        "#",
        *_comment(
            f"{sum(sizes.values())} rows in {len(sizes)} classes: {counts}." if sizes else f"{sum(n.values())} rows."
        ),
        *_comment(
            f"Splits, {how}: train {n['train']} rows, dev {n['dev']} (picks the checkpoint), test {n['test']} "
            "(reported, used for nothing else)."
        ),
    ]


def _sections(data: Mapping[str, Any], words: Mapping[str, Choice]) -> list[str]:
    task, prompt, training = data["task"], data["prompt"], data["training"]
    model = "the frozen model: embedded, a folder or a Hugging Face id"
    label_words = [
        (f"    {quoted(name)}: {_listed(its)}", _one_line(words[name].reason))
        for name, its in task.get("label_words", {}).items()
    ]
    explained = [
        "  # words for each class, averaged: any that fit the template and are one piece of the",
        "  # model's vocabulary; the first for the reason beside it, the others because they are",
        "  # typical of the class's training rows",
        "  label_words:",
        *_aligned(label_words),
    ]
    comments = _TRAINING_COMMENTS if label_words else _TRAINING_COMMENTS | _TEXT_COMMENTS
    fills = "the word the model fills in" if label_words else "where the model writes"
    return [
        *_aligned([(f"seed: {data['seed']}", "try a few: scores differ from seed to seed")]),
        "",
        "backbone:",
        *_aligned([(f"  model: {quoted(data['backbone']['model'])}", model)]),
        "",
        "task:",
        f"  kind: {task['kind']}",
        *_aligned([(f"  {k}: {quoted(task[k])}", note) for k, note in _TASK_COMMENTS.items() if k in task]),
        f"  # {{prompt}}: learned vectors; {{answer}}: {fills}; other braces: columns",
        f"  template: {quoted(task['template'])}",
        *(explained if label_words else []),
        *_aligned([(f"  {k}: {task[k]}", note) for k, note in _FRACTION_COMMENTS.items() if k in task]),
        "",
        "prompt:",
        *_aligned([(f"  {k}: {_shown(prompt[k])}", note) for k, note in _PROMPT_COMMENTS.items() if k in prompt]),
        *_readout(data.get("readout")),
        "",
        "training:",
        *_aligned([(f"  {k}: {training[k]}", note) for k, note in comments.items() if k in training]),
    ]


def _readout(readout: Mapping[str, Any] | None) -> list[str]:
    """The section of a readout that writes; the others are found by themselves."""
    if readout is None:
        return []
    lines = [(f"  kind: {readout['kind']}", "the model writes its answer")]
    most = "tokens that it may write: those of the longest answer and the end token"
    return ["", "readout:", *_aligned([*lines, (f"  max_new_tokens: {readout['max_new_tokens']}", most)])]


def _shown(value: Any) -> str:
    """An option of the prompt: a kind by its name, which is short for a component without options."""
    return quoted(value) if isinstance(value, str) else str(value)


def _listed(words: str | Sequence[str]) -> str:
    return quoted(words) if isinstance(words, str) else f"[{', '.join(map(quoted, words))}]"


def _aligned(lines: Sequence[tuple[str, str]]) -> list[str]:
    """Comments behind their lines, below each other unless a line is very long."""
    column = min(_FURTHEST_COMMENT, max((len(code) for code, _ in lines), default=0))
    return [f"{code.ljust(column)}  # {note}" for code, note in lines]


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False)]


def _one_line(text: str) -> str:
    """Text that may stand in a comment."""
    return text if text.isprintable() else quoted(text)


def quoted(text: str) -> str:
    """A double-quoted YAML scalar on one line."""
    if text.isprintable():
        return json.dumps(text, ensure_ascii=False)
    return str(yaml.safe_dump(text, default_style='"', allow_unicode=True, width=float("inf"))).strip("\n")
