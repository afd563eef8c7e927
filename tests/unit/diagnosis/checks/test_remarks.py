"""Remarks: what was noted while the data was read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.contract.toy_runs import toy_run
from tests.unit.diagnosis.cases import only, seen, toy_case
from trimtab.backbones import Backbone
from trimtab.diagnosis.case import Case


def test_notes_of_the_task_are_told(tmp_path: Path, backbone: Backbone) -> None:
    p = toy_run(tmp_path, backbone)
    noted = replace(p, task=replace(p.task, notes=("3 lines were put right.",)))
    found = only("remarks", Case(noted))
    assert (found.severity, found.seen) == ("note", "3 lines were put right.")


def test_where_nothing_was_noted_nothing_is_said(tmp_path: Path, backbone: Backbone) -> None:
    assert seen("remarks", toy_case(tmp_path, backbone)) == []
