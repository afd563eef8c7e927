"""Rows that are rendered when they are read: the same rows as those that are held, and few of them alive."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tiny import toy_rows, toy_task, write_jsonl
from trimtab.backbones import Backbone
from trimtab.config import resolve
from trimtab.errors import DataError
from trimtab.training.packs import train_pack
from trimtab.training.preparing import Prepared, prepare
from trimtab.training.rendered import Rerendered, costs_of
from trimtab.types import Encoded, Example, Row

EXAMPLES = [Example(str(i), {"text": "x" * i}, None) for i in range(1, 6)]


def windows(example: Example) -> list[Row]:
    """A row for every two characters, as readouts do that read a text in parts."""
    text = example.fields["text"]
    return [
        Row(Encoded((int(example.id), *range(len(text[i : i + 2]))), (), (0,)), example=example, part=i // 2)
        for i in range(0, len(text), 2)
    ]


def test_rows_are_those_that_would_be_held() -> None:
    held = [row for e in EXAMPLES for row in windows(e)]
    rows = Rerendered(EXAMPLES, windows)
    assert len(rows) == len(held) == 9
    assert [rows[i] for i in range(len(rows))] == held == list(rows)
    assert rows[-1] == held[-1]
    assert rows[2:7:2] == held[2:7:2]
    assert costs_of(rows) == costs_of(held) == [2, 3, 3, 2, 3, 3, 3, 3, 2]
    with pytest.raises(IndexError):
        rows[9]


def test_what_is_wrong_with_an_example_is_found_at_once() -> None:
    def refuse(example: Example) -> list[Row]:
        if example.id == "4":
            raise DataError("nothing of this is known.", where=example.id)
        return windows(example)

    with pytest.raises(DataError, match="nothing of this"):
        Rerendered(EXAMPLES, refuse)


def rows_alive() -> int:
    return sum(type(thing) is Row for thing in gc.get_objects())


def prompt_of(p: Prepared, counts: list[int]) -> np.ndarray:
    """What a run learns; the rows that are alive at each step are counted on the way."""

    def count(event: Mapping[str, Any]) -> None:
        if event["event"] == "step":
            counts.append(rows_alive())

    return train_pack([p], count)[0].prompt


def test_a_large_table_is_trained_on_with_few_rows_alive_and_to_the_same_bits(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = toy_task(tmp_path, n=12)
    train = write_jsonl(tmp_path / "many.jsonl", toy_rows(200, 0))
    training = {"max_steps": 3, "min_steps": 3, "evaluations": 1, "batch_size": 4}
    recipe = {"backbone": {"model": backbone.name}, "task": {**small, "train": str(train)}, "training": training}
    config = resolve(recipe).config
    before, of_held, of_rerendered = rows_alive(), list[int](), list[int]()
    held = prompt_of(first := prepare(config, backbone), of_held)
    name = first.id
    del first
    gc.collect()
    monkeypatch.setattr("trimtab.training.preparing.HELD", 100)
    many = prepare(config, backbone)
    assert isinstance(many.rows["train"], Rerendered)
    assert isinstance(many.rows["dev"], list)
    assert many.id == name
    assert (prompt_of(many, of_rerendered) == held).all()
    assert min(of_held) - before >= 200
    assert max(of_rerendered) - before < 50
