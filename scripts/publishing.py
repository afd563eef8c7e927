"""What scripts share: options, the command line, the machine, and the two files OUT.json and OUT.md."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
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


def footer(command: str, facts: Mapping[str, Any], more: str = "") -> list[str]:
    """The last lines of a page: the command, versions and hardware.

    Args:
        command: as `command_line` gives it.
        facts: as `machine` gives them.
        more: to be said behind the threads.

    >>> facts = {"trimtab": "0.1.0", "torch": "2.9", "device": "cpu", "cores": 2, "load": 0.4, "threads": 1}
    >>> footer("python scripts/a.py", facts)[-1]
    'trimtab 0.1.0, torch 2.9, cpu, 2 cores (load average 0.4 at the end), 1 threads.'
    """
    named = [f"{name} {facts[name]}" for name in ("trimtab", "peft", "torch", "transformers") if name in facts]
    return [
        f"Command: `{command}`",
        "",
        f"{', '.join(named)}, {facts['device']}, {facts['cores']} cores (load average {facts['load']} at the end), "
        f"{facts['threads']} threads{more}.",
    ]


def publish(out: Path | None, outcome: Any, lines: Sequence[str]) -> None:
    """Print a page, and write OUT.json with the outcome and OUT.md with the page; the folder is made if need be.

    Args:
        out: both files without their suffix; None writes none.
        outcome: what JSON can hold.
        lines: of the page.
    """
    print("\n".join(lines), flush=True)
    if out is None:
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(outcome, indent=1) + "\n")
    out.with_suffix(".md").write_text("\n".join([*lines, ""]))


def common_options(parser: argparse.ArgumentParser, written: str = "writes OUT.json and OUT.md") -> None:
    """`--threads` and `--out`."""
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--out", type=Path, help=written)


def at_least_one(parser: argparse.ArgumentParser, a: argparse.Namespace, *names: str) -> None:
    """Refuse options, or values of lists, below 1; one that a subcommand does not have is passed over."""
    for name in names:
        value = getattr(a, name, 1)
        if min(value if isinstance(value, list) else [value]) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {value}")


def needs_peft(parser: argparse.ArgumentParser) -> None:
    """Refuse to go on without PEFT."""
    if find_spec("peft") is None:
        parser.error("this compares with PEFT, which is not installed: pip install -e '.[benchmark]'")
