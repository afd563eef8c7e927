"""A file system that refuses, and what lies in a folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def contents(folder: Path) -> list[str]:
    """The names in a folder, sorted."""
    return sorted(p.name for p in folder.iterdir())


def failing(code: int) -> Any:
    """A call of the operating system that fails with an error number."""

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise OSError(code, os.strerror(code))

    return fail
