"""Folders that appear whole or not at all."""

from __future__ import annotations

import glob
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trimtab.errors import BusyError, ConfigError
from trimtab.files import PART, hold, told

RECORD = "trimtab.json"
"""The file by which an export is known as one."""
_KEYS = {RECORD: {"schema", "trimtab", "export", "tasks"}, "bundle.json": {"schema", "prompt", "backbone"}}
"""What stands in such a file, if it was trimtab that wrote it."""
_ASIDE = ".aside"
"""How the name of an earlier folder ends while its successor takes its place."""


@contextmanager
def whole_folder(place: Path, *, again: bool = False, marks: tuple[str, ...] = (RECORD,)) -> Iterator[Path]:
    """An empty folder to write into, which takes its place when the block ends well and is gone when it does not.

    Args:
        place: where it shall be.
        again: replace what is there, if it was written so: only what has one of `marks`, and no run folder.
        marks: files by which such a folder is known, and by what stands in them.

    Raises:
        ConfigError: something is there, and must not be replaced.
        StorageError: no space, no permission.
    """
    with told("folder", place):
        _tidy(place)
        _check_free(place, again, marks)
        place.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}.", suffix=PART))
        try:
            with hold([scratch], "writing this folder", "--out"):
                yield scratch
                scratch.chmod(0o755)
                _put(scratch, place)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise


def _tidy(place: Path) -> None:
    """Clear up after processes that were killed while they wrote this folder: what was moved aside goes back, if
    nothing has taken its place, and halves go. Of processes that live, everything is held."""
    stem = glob.escape(f".{place.name}.")
    for left in [*place.parent.glob(f"{stem}????????{_ASIDE}"), *place.parent.glob(f"{stem}????????{PART}")]:
        with suppress(BusyError), hold([left], "writing this folder", "--out"):
            if left.suffix == _ASIDE and not place.exists():
                os.replace(left, place)
            else:
                shutil.rmtree(left, ignore_errors=True)


def _check_free(place: Path, again: bool, marks: tuple[str, ...]) -> None:
    if not place.exists() and not place.is_symlink():
        return
    if not again:
        fix = "Give another --out, or --again to replace it."
        raise ConfigError("there is something already.", where=str(place), fix=fix)
    is_ours = place.is_dir() and not place.is_symlink() and any(_is_mark(place / mark) for mark in marks)
    if not is_ours or (place / "run.json").exists():
        raise ConfigError(
            f"only a folder that was written so is replaced, and here is no {' or '.join(marks)} of trimtab's, or a "
            "run.",
            where=str(place),
            fix="Give another --out.",
        )


def _is_mark(path: Path) -> bool:
    """Whether it is a file of ours, not one of that name."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.keys() >= _KEYS[path.name]


def _put(scratch: Path, place: Path) -> None:
    """Move a folder to its place; an old one is moved aside first, and back if that fails."""
    if not place.exists():
        os.replace(scratch, place)
        return
    aside = scratch.with_suffix(_ASIDE)
    with hold([place], "writing this folder", "--out"):
        os.replace(place, aside)
        try:
            os.replace(scratch, place)
        except OSError:
            os.replace(aside, place)
            raise
        shutil.rmtree(aside, ignore_errors=True)
