"""Contracts: on one thread, as tiny models gain nothing from more; and mostly on families that differ in code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.contract.test_backbone_families import ALIKE

FOLDER = Path(__file__).parent
ON_EVERY_FAMILY = ("test_training_leaves_the_backbone_bit_identical", "test_a_bare_row_is_the_bare_model")
"""What is tested on families that share their code with another one, too, without `make test-all`."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if FOLDER in item.path.parents and not item.name.startswith(ON_EVERY_FAMILY):
            given = getattr(getattr(item, "callspec", None), "params", {}).values()
            names = [value[0] if isinstance(value, tuple) and value else value for value in given]
            if any(isinstance(name, str) and name in ALIKE for name in names):
                item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
