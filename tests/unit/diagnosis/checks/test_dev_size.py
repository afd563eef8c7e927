"""Dev size: intervals of scores on few rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.diagnosis.cases import seen, toy_case
from trimtab.backbones import Backbone


@pytest.mark.parametrize(("rows", "severity"), [(16, "warning"), (40, "note"), (300, "ok")])
def test_small_splits_are_found(tmp_path: Path, backbone: Backbone, rows: int, severity: str) -> None:
    dev, test = seen("dev_size", toy_case(tmp_path, backbone, n=rows))
    assert (dev.severity, test.severity) == (severity, severity)
    assert ("training.select=loss" in dev.advice) == (severity != "ok")


def test_the_interval_is_wilsons(tmp_path: Path, backbone: Backbone) -> None:
    dev, _ = seen("dev_size", toy_case(tmp_path, backbone, n=40))
    p, n, z = 0.8, 40, 1.959964
    middle, half = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    expected = [(middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)]
    assert [dev.numbers["low"], dev.numbers["high"]] == pytest.approx(expected, abs=1e-6)


def test_who_selects_by_the_loss_is_not_told_to(tmp_path: Path, backbone: Backbone) -> None:
    dev, _ = seen("dev_size", toy_case(tmp_path, backbone, {"training": {"select": "loss"}}, n=16))
    assert "training.select" not in dev.advice
