"""What lies in RUN/landscape/ is read as it was written, or refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.unit.refusals import refused
from trimtab.errors import BundleError
from trimtab.landscape.surface import VIEWS, Paths, Surface, paths_of, read_landscape, views_of, write_landscape
from trimtab.landscape.views import VIEWS as COMPUTED


def surface() -> Surface:
    line = np.linspace(-1, 1, 3, dtype=np.float32)
    return Surface({"view": "text", "run": "r"}, line, 2 * line, np.arange(18, dtype=np.float32).reshape(3, 3, 2))


def paths() -> Paths:
    return Paths({"view": "path", "run": "r"}, np.linspace(0, 1, 4, dtype=np.float32), np.ones((2, 4, 3), np.float32))


def test_the_views_are_those_that_are_computed() -> None:
    assert set(VIEWS) == set(COMPUTED)


@pytest.mark.parametrize("its", [surface(), paths()], ids=["surface", "paths"])
def test_what_is_written_is_read(tmp_path: Path, its: Surface | Paths) -> None:
    files = write_landscape(tmp_path, its)
    view = its.facts["view"]
    assert sorted(files) == [f"{view}.json", f"{view}.safetensors"]
    assert all(Path(f).parent == tmp_path / "landscape" for f in files.values())
    found = read_landscape(tmp_path, view)
    assert type(found) is type(its)
    assert found.facts["run"] == "r"
    assert found.arrays.keys() == its.arrays.keys()
    for name, values in its.arrays.items():
        assert np.array_equal(found.arrays[name], values)
    assert np.array_equal(found.mean, its.losses.mean(-1))
    assert views_of(tmp_path) == [view]


def test_a_view_that_was_not_computed_is_refused(tmp_path: Path) -> None:
    with refused(BundleError, "no landscape of the view 'text'", where=str(tmp_path), fix="trimtab landscape"):
        read_landscape(tmp_path, "text")
    assert views_of(tmp_path) == []


def test_another_schema_is_refused(tmp_path: Path) -> None:
    write_landscape(tmp_path, surface())
    path = paths_of(tmp_path, "text")[1]
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 9}))
    with refused(BundleError, "has schema 9, this version of trimtab reads 1", where=str(path), fix="Compute it again"):
        read_landscape(tmp_path, "text")


def test_halves_of_two_landscapes_are_refused(tmp_path: Path) -> None:
    write_landscape(tmp_path / "a", surface())
    other = surface()
    write_landscape(tmp_path / "b", Surface(other.facts, other.x, other.y, other.losses + 1))
    mixed = paths_of(tmp_path / "a", "text")[0]
    paths_of(tmp_path / "b", "text")[0].replace(mixed)
    with refused(BundleError, "not those that text.json describes", where=str(mixed), fix="Compute them again"):
        read_landscape(tmp_path / "a", "text")


def test_the_landscape_of_a_prompt_that_was_replaced_is_refused(tmp_path: Path) -> None:
    (tmp_path / "prompt.safetensors").write_bytes(b"one")
    write_landscape(tmp_path, surface())
    assert read_landscape(tmp_path, "text").facts["run"] == "r"
    (tmp_path / "prompt.safetensors").write_bytes(b"another")
    with refused(BundleError, "of another prompt", where=str(tmp_path / "landscape" / "text.json"), fix="--view text"):
        read_landscape(tmp_path, "text")
