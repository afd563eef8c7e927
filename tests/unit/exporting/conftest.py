"""Runs that several tests export, trained once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.exported_runs import model_folder, trained

RunOf = Callable[..., Path]

INPUT: dict[str, Any] = {"prompt": {"kind": "prompt_tuning", "length": 4}}
DEEP: dict[str, Any] = {"prompt": {"kind": "deep", "length": 4}}


@pytest.fixture(scope="session")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> RunOf:
    """`run_of(family, recipe, **task)`: the folder of such a run; the same each time."""
    folder, known = tmp_path_factory.mktemp("exports"), dict[str, Path]()

    def found(name: str, recipe: Mapping[str, Any] = INPUT, **task: Any) -> Path:
        key = json.dumps([name, recipe, task])
        if key not in known:
            known[key] = trained(folder, model_folder(folder, name), recipe, **task)
        return known[key]

    return found
