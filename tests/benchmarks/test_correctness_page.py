"""The page of the correctness matrix, from cells made by hand."""

from __future__ import annotations

import json
from typing import Any

from correctness.page import file, general, page


def cell(family: str, task: str, check: str, outcome: str, deviation: Any = None, said: str = "") -> dict[str, Any]:
    where = {"library": "peft", "method": "prefix tuning", "family": family, "task": task}
    return {**where, "check": check, "outcome": outcome, "deviation": deviation, "said": said, "seconds": 0.1}


CELLS = [
    cell("bert", "head", "trains", "ok", 0.5123),
    cell("bert", "words", "trains", "n/a", None, "no"),
    cell("t5", "words", "trains", "error", None, "RuntimeError: size 12 is not 17 (x.py)"),
    cell("gpt2", "words", "trains", "error", None, "RuntimeError: size 3 is not 5 (x.py)"),
    cell("bert", "words", "effect", "wrong", 0.25, "look out"),
    cell("gpt2", "head", "effect", "silent", "infinite"),
    cell("t5", "head", "effect", "refused", None, "Say | more."),
]
OUTCOME = {
    "command": "python x",
    "environment": {**dict.fromkeys(("trimtab", "peft", "transformers", "torch", "accelerate", "python", "cpu"), "1"),
                    "cores": 2, "threads": 1},
    "seconds": 120,
    "checks": {"trains": "the loss falls", "effect": "it says something"},
    "cells": CELLS,
}  # fmt: skip


def test_the_page_counts_and_groups() -> None:
    text = page(OUTCOME)
    assert "| **peft** | **1** | **1** | **1** | **2** | **1** |" in text
    assert "| trains: peft | 1 |  |  | 2 |  |" in text
    assert "| prefix tuning | words | 0.25 | - | bert |" in text
    assert "| prefix tuning | head | inf | gpt2 | - |" in text
    assert "| peft | RuntimeError: size N is not N (x.py) | 2 | trains | prefix tuning | t5, gpt2 |" in text
    assert "| peft | Say / more. | 1 | effect | prefix tuning | t5 |" in text
    assert "of 6 combinations of method, family and task, 4 hold no check at all; 2 of the errors are theirs" in text
    assert "## What trimtab gets wrong\n\nNothing.\n" in text
    assert "Signs in the order of tasks: head, words." in text
    assert "| bert | `·-` |" in text
    assert "| gpt2 | `E` |" in text, "what was not run is left blank"


def test_the_file_has_what_was_measured_and_each_message_once() -> None:
    found = json.loads(file({**OUTCOME, "cells": [*CELLS, cell("opt", "head", "effect", "wrong", 0.5, "look out")]}))
    assert found["messages"][found["cells"]["peft / prefix tuning / bert"]["words"]["effect"][2]] == "look out"
    assert found["messages"].count("look out") == 1
    assert found["cells"]["peft / prefix tuning / bert"] == {
        "head": {"trains": 0.51},
        "words": {"effect": ["wrong", 0.25, 2]},
    }
    assert found["cells"]["peft / prefix tuning / gpt2"]["head"] == {"effect": ["silent", "infinite", None]}
    assert found["counts"] == {"peft": {"ok": 1, "n/a": 1, "error": 2, "wrong": 2, "silent": 1, "refused": 1}}


def test_messages_that_differ_in_numbers_are_one() -> None:
    assert general("size (12) must be [3] of x2") == "size N must be N of x2"
