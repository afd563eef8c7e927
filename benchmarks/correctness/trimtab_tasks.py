"""The examples as files and task sections of a recipe."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from correctness.examples import ANSWERS, EXAMPLES, WORDS, Example
from correctness.subject import Cell

READOUTS = {
    **{
        (task, kind): task for task in ("head", "tokens", "span", "choice") for kind in ("encoder", "causal", "seq2seq")
    },
    ("words", "encoder"): "cloze",
    ("words", "causal"): "ranking",
    ("words", "seq2seq"): "ranking",
    ("text", "causal"): "text",
    ("text", "seq2seq"): "text",
}
TEMPLATES = {
    "head": "{prompt} {text}", "span": "{prompt} {question} ? {context}", "choice": "{prompt} {text} {choice}",
    "words": "{prompt} {text} {answer}", "text": "{prompt} {text} {answer}",
}  # fmt: skip


def section(cell: Cell) -> dict[str, Any]:
    """The `task` section for a cell; all splits have the same examples under other names."""
    task = cell.task
    files = {split: _file(task, split) for split in ("train", "dev", "test")}
    if task == "tokens":
        return {"kind": "tagged", "name": "animals", **files}
    if task == "span":
        return {"kind": "squad", "name": "who", **files, "template": TEMPLATES[task]}
    more: dict[str, Any] = {"choice": {"choices": ["one", "two"]}, "text": {"target": "answer"}}.get(task, {})
    if task in ("head", "words"):
        more = {"label_words": WORDS}
    return {"kind": "table", "name": task, **files, "template": TEMPLATES[task], **more}


@cache
def _file(task: str, split: str) -> str:
    """Written once per process."""
    path = Path(mkdtemp(prefix="correctness-")) / f"{task}-{split}.jsonl"
    rows = [{"id": f"{split}-{i}", **_row(task, example)} for i, example in enumerate(EXAMPLES)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def _row(task: str, example: Example) -> dict[str, Any]:
    if task == "tokens":
        return {"tokens": list(example.words), "tags": example.tags}
    if task == "span":
        start = len(" ".join([*example.words[: example.animal], ""]))
        answers = {"text": [example.words[example.animal]], "answer_start": [start]}
        return {"question": example.question, "context": example.text, "answers": answers}
    if task == "choice":
        return {"text": example.text, "one": example.choices[0], "two": example.choices[1], "label": example.number}
    if task == "text":
        return {"text": example.text, "answer": ANSWERS[example.label]}
    return {"text": example.text, "label": example.label}
