"""What all exports have in common: targets by name with options, whole folders, a record."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.exported_runs import about, bundle_folder
from tests.unit.exporting.conftest import RunOf
from tests.unit.refusals import refused
from trimtab.errors import BundleError, ConfigError
from trimtab.exporting import Export, Source, Written, export
from trimtab.registry import exports


@pytest.fixture
def source(run_of: RunOf) -> Source:
    return Source.read(run_of("gpt2"))


class Letter(Export):
    """A target of a third party."""

    def __init__(self, *, to: str = "you", fails: bool = False) -> None:
        self.to, self.fails = to, fails

    def write(self, sources: Sequence[Source], folder: Path) -> Written:
        (folder / "letter.txt").write_text(f"dear {self.to}")
        if self.fails:
            raise BundleError("the ink is out.")
        return Written(({"page": 1},), ("mind the ink",))


@pytest.fixture
def letter(monkeypatch: pytest.MonkeyPatch) -> None:
    exports.kinds()
    monkeypatch.setitem(exports._classes, "letter", Letter)


@pytest.mark.usefixtures("letter")
@pytest.mark.parametrize("to", ["letter: {to: Anna}", {"letter": {"to": "Anna"}}, {"kind": "letter", "to": "Anna"}])
def test_a_target_is_a_class_that_writes_and_its_options_are_its_parameters(
    source: Source, tmp_path: Path, to: Any
) -> None:
    found = export([source], to, tmp_path / "out")
    assert (tmp_path / "out" / "letter.txt").read_text() == "dear Anna"
    assert found == {
        "folder": str(tmp_path / "out"),
        "export": {"kind": "letter", "to": "Anna", "fails": False},
        "files": ["letter.txt", "trimtab.json"],
        "notes": ["mind the ink"],
    }
    its = about(tmp_path / "out")
    assert its["page"] == 1
    assert its["name"] == "toy"
    assert its["bundle"] == source.bundle.metadata
    assert json.loads((tmp_path / "out" / "trimtab.json").read_text())["schema"] == 1


@pytest.mark.usefixtures("letter")
def test_an_export_that_fails_leaves_nothing(source: Source, tmp_path: Path) -> None:
    with refused(BundleError, "the ink is out"):
        export([source], "letter: {fails: true}", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_unknown_targets_and_options_are_refused(source: Source, tmp_path: Path) -> None:
    with refused(ConfigError, "there is no export 'pft'", where="export.kind", fix="Did you mean 'peft'?"):
        export([source], "pft", tmp_path / "out")
    with refused(ConfigError, "there is no such key", where="export.dtyp", fix="Did you mean 'dtype'?"):
        export([source], "baked: {dtyp: float32}", tmp_path / "out")
    for wrong in ("[peft]", "{peft: 3}", "{}"):
        with refused(ConfigError, "this is no export", where="export", fix="baked: {dtype: bfloat16}"):
            export([source], wrong, tmp_path / "out")


def test_several_runs_are_refused_where_one_fits(source: Source, tmp_path: Path) -> None:
    with refused(ConfigError, "takes one run, got 2", where="export", fix="Several fit into: baked."):
        export([source, source], "peft", tmp_path / "out")
    with refused(ConfigError, "takes one run, got 0", where="export", fix="baked"):
        export([], "baked", tmp_path / "out")


def test_a_bundle_of_several_tasks_is_refused(run_of: RunOf, tmp_path: Path) -> None:
    def change(metadata: dict[str, Any]) -> None:
        its = {"metric": "accuracy", "task": metadata.pop("task"), "readout": metadata.pop("readout")}
        metadata["tasks"] = [{"name": "cats", **its}, {"name": "dogs", **its}]

    folder = bundle_folder(run_of("gpt2"), tmp_path / "bundle", change)
    with refused(BundleError, "several tasks: cats, dogs", where=str(folder), fix=f"trimtab take {folder} cats -o"):
        Source.read(folder)


def test_every_target_of_the_issue_is_there() -> None:
    assert {"peft", "vllm", "baked", "kv", "card"} <= set(exports.kinds())
