"""What scripts write beside their numbers: the command line, the machine, and the two files OUT.json and OUT.md."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any


def command_line(script: str, argv: Sequence[str] | None) -> str:
    """What was typed, as it is typed from the root of the repository.

    Args:
        script: the `__file__` of a script in this folder.
        argv: its arguments; None for those of the process.

    >>> command_line("/somewhere/scripts/kill_test.py", ["--out", "a b"])
    "python scripts/kill_test.py --out 'a b'"
    """
    return f"python scripts/{Path(script).name} {shlex.join(sys.argv[1:] if argv is None else argv)}"


def machine(environment: Mapping[str, Any], *packages: str) -> dict[str, Any]:
    """The environment of a run, versions of packages that are needed besides, cores, and the load at this moment."""
    others = {name: version(name) for name in packages}
    return {**environment, **others, "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}


def publish(out: Path, outcome: Any, page: str) -> None:
    """Write OUT.json with the outcome and OUT.md with the page; the folder is made if need be."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(outcome, indent=1) + "\n")
    out.with_suffix(".md").write_text(page)
