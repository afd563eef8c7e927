"""Tables of the hub through a stand-in for the library `datasets`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.unit.refusals import refused
from trimtab.errors import DataError
from trimtab.registry import tasks
from trimtab.tasks.hub import hub_file
from trimtab.tasks.reading import Places, read_table, resolve_path


class ClassLabel:
    def int2str(self, number: int) -> str:
        return ("no", "yes")[number]


class Dataset:
    """As much of a dataset as is used."""

    features = {"text": object(), "label": ClassLabel()}  # noqa: RUF012

    def __init__(self, split: str) -> None:
        self._split = split

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for i in range(4):
            yield {"text": f"{self._split} {i}", "label": -1 if self._split == "test" else i % 2}


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    asked: list[tuple[Any, ...]] = []

    def load_dataset(name: str, config: str | None, *, split: str, revision: str | None) -> Dataset:
        asked.append((name, config, split, revision))
        if name == "nobody/nothing":
            raise FileNotFoundError("Dataset 'nobody/nothing'\ndoesn't exist on the Hub.")
        return Dataset(split)

    module = ModuleType("datasets")
    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))
    return asked


def test_a_table_is_written_once_with_labels_by_name(calls: list[Any], tmp_path: Path) -> None:
    path = hub_file("hub:own/toy?split=train&config=rte&revision=abc")
    assert path.parent == tmp_path / "cache" / "hub"
    assert calls == [("own/toy", "rte", "train", "abc")]
    assert read_table(path).rows[1] == {"text": "train 1", "label": "yes"}
    assert hub_file("hub:own/toy?split=train&config=rte&revision=abc") == path
    assert len(calls) == 1, "what is there is read without the library"
    assert hub_file("hub:own/toy?split=train&config=rte&revision=abd") != path
    assert [row["label"] for row in read_table(hub_file("hub:own/toy?split=test")).rows] == [None] * 4


def test_tasks_read_such_tables(calls: list[Any]) -> None:
    address = "hub:own/toy?split=train"
    assert resolve_path(address, Places()).is_file()
    section = {
        "kind": "table", "train": address, "dev": "hub:own/toy?split=validation", "test": "hub:own/toy?split=other",
        "label_words": {"yes": "good", "no": "bad"}, "template": "{prompt} {text} {answer}",
    }  # fmt: skip
    task = tasks.build(tasks.resolve(section, "task")).load(0, Places())
    assert [e.label for e in task.splits["dev"]] == ["no", "yes", "no", "yes"]
    assert task.splits["train"][0].source == f"{address}:1"


@pytest.mark.parametrize(
    ("address", "what", "fix"),
    [
        ("hub:own/toy", "a table of the hub has a name and a split", "?split=train"),
        ("hub:?split=train", "a table of the hub has a name and a split", "OWNER/NAME"),
        ("hub:own/toy?splt=train", "there is no option 'splt'", "Did you mean 'split'?"),
        ("hub:nobody/nothing?split=train", "Dataset 'nobody/nothing' doesn't exist on the Hub.", "Check name"),
    ],
)
def test_what_cannot_be_had(address: str, what: str, fix: str, calls: list[Any], tmp_path: Path) -> None:
    with refused(DataError, what, where=address, fix=fix):
        hub_file(address)
    assert not list((tmp_path / "cache").rglob("*.jsonl"))


def test_without_the_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path))
    address = "hub:own/toy?split=train"
    with refused(DataError, "needs the library datasets", where=address, fix="pip install 'trimtab[hub]'"):
        hub_file(address)
