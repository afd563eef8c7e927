"""The sharpness table: few runs side by side, many below each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trimtab.errors import BundleError
from trimtab.reports.sharpness import CAPTION, read_sharpness, sharpness_table, sharpness_tables


def told(label: str, scale: float = 1.0, **changes: Any) -> dict[str, Any]:
    text = {"top_eigenvalue": 0.02 * scale, "trace": -1.5 * scale, "trace_error": 0.25, "range": None}
    its = {"schema": 1, "label": label, "loss": 0.5, "text": text, "prompt": None, "words": {"mean_absolute": 0.1}}
    return its | changes


def test_few_runs_stand_side_by_side() -> None:
    table = sharpness_table([told("plain"), told("ptp", 0.5, text=None)])
    assert table.caption == CAPTION
    assert [c.name for c in table.columns] == ["Number", "plain", "ptp"]
    assert [[c.text for c in row] for row in table.rows] == [
        ["loss, nats", "0.500", "0.500"],
        ["jump when a word is swapped, nats", "0.1", "0.1"],
        ["top eigenvalue, texts, nats/u²", "0.02", "–"],
        ["Hessian trace, texts, nats/u²", "−1.5 ± 0.25", "–"],
    ]


def test_many_runs_stand_below_each_other_with_what_is_read_first() -> None:
    table = sharpness_table([told(f"run {i}", i) for i in range(5)])
    assert [c.name for c in table.columns] == [
        "Run", "loss, nats", "jump when a word is swapped, nats", "top eigenvalue, texts, nats/u²"
    ]  # fmt: skip
    assert [c.text for c in table.rows[3]] == ["run 3", "0.500", "0.1", "0.06"]


def test_runs_that_were_measured_on_other_examples_stand_in_tables_of_their_own() -> None:
    few = {"task": "sst2", "batch": {"split": "test", "examples": ["a"], "sha256": "1"}}
    many = {"task": "sst2", "batch": {"split": "dev", "examples": ["a", "b"], "sha256": "2"}}
    tables = sharpness_tables([told("plain", **few), told("late", **many), told("ptp", **few)])
    starts = [t.caption.removesuffix(f". {CAPTION}") for t in tables]
    assert starts == ["sst2, 1 example of test", "sst2, 2 examples of dev"]
    assert [[c.name for c in t.columns] for t in tables] == [["Number", "plain", "ptp"], ["Number", "late"]]
    other = told("plain", protocol={"seed": 1}, **few)
    assert len(sharpness_tables([told("plain", **few), other])) == 2
    assert [t.caption for t in sharpness_tables([told("plain", **few), told("ptp", **few)])] == [CAPTION]


def test_files_are_read_where_there_are_any(tmp_path: Path) -> None:
    (tmp_path / "a" / "landscape").mkdir(parents=True)
    path = tmp_path / "a" / "landscape" / "sharpness.json"
    path.write_text(json.dumps(told("a")))
    assert read_sharpness([tmp_path / "a", tmp_path / "b"]) == [told("a")]
    (tmp_path / "a" / "prompt.safetensors").write_bytes(b"another")
    with pytest.raises(BundleError, match="another prompt than that of the run"):
        read_sharpness([tmp_path / "a"])
    path.write_text("{")
    with pytest.raises(BundleError, match="not readable JSON"):
        read_sharpness([tmp_path / "a"])
