"""trimtab's command line in a fork of this process, which has loaded everything; with a fault, if asked for."""

from __future__ import annotations

import contextlib
import importlib
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from injection import Faults
from scenarios import RUN, STUDY

SECONDS = 120
"""For one command; a hanging one is a finding."""


@dataclass
class Ended:
    """How a command has ended: exit code (minus the signal, None for too late), stderr, calls, and from which steps its
    trainings have begun."""

    code: int | None
    said: str
    calls: list[str]
    begun: list[int]


@dataclass
class Reference:
    """What a scenario starts from and comes to, undisturbed: snapshots, and the calls that write."""

    start: Path
    old: dict[str, Any]
    new: dict[str, Any]
    calls: list[str]


def carried_out(command: str, folder: Path, fault: str | None = None, at: int = 0) -> Ended:
    """A command in a folder, with a fault at its call number `at`."""
    return ended_with(begun(command, folder, fault, at), folder)


def begun(command: str, folder: Path, fault: str | None = None, at: int = 0) -> int:
    """Start a command in a process of its own; returns its id."""
    (notes := folder.with_name(f"{folder.name}-notes")).mkdir(exist_ok=True)
    for name in ("calls", "begun", "said"):
        (notes / name).write_text("")
    runs = sorted((folder / "runs").glob("*/run.json"))
    words = [word.replace("{run}", runs[0].parent.name if runs else "") for word in shlex.split(command)]
    child = os.fork()
    if child == 0:
        _become(words, folder, notes, Faults(folder, fault, at, notes / "calls"))
    return child


def ended_with(child: int, folder: Path) -> Ended:
    """Wait for a command, and read what it has left beside its folder."""
    code, notes = _wait(child), folder.with_name(f"{folder.name}-notes")
    said, calls, trained = ((notes / name).read_text().splitlines() for name in ("said", "calls", "begun"))
    return Ended(code, "\n".join(said), calls, [int(step) for step in trained])


def _become(words: list[str], folder: Path, notes: Path, faults: Faults) -> None:
    """Be the command line; never returns."""
    code = 70
    try:
        said = os.open(notes / "said", os.O_WRONLY | os.O_APPEND)
        os.dup2(said, 1)
        os.dup2(said, 2)
        os.chdir(folder)
        (folder / "tmp").mkdir(exist_ok=True)
        tempfile.tempdir = str(folder / "tmp")
        begun = os.open(notes / "begun", os.O_WRONLY | os.O_APPEND)
        _tell_of_trainings(lambda step: os.write(begun, f"{step}\n".encode()))
        faults.install()
        from trimtab.cli import main

        main(words)
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _tell_of_trainings(tell: Callable[[int], Any]) -> None:
    from trimtab.training.loop import Loop

    run = Loop.run

    def told(self: Loop) -> None:
        tell(self.steps_done)
        run(self)

    Loop.run = told  # type: ignore[method-assign]


def _wait(child: int) -> int | None:
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def load_all(inputs: Path, scratch: Path) -> None:
    """Import in this process what the commands import, so that no case does. Nothing is trained here: autograd does not
    survive a fork."""
    shutil.copytree(inputs, scratch / "warm")
    names = scratch / "modules"
    child = os.fork()
    if child == 0:
        os.chdir(scratch / "warm")
        import uvicorn.protocols.http.auto  # noqa: F401

        import trimtab.serving.http
        from trimtab.cli import main

        for command in (STUDY, RUN.replace("recipe", "causal"), "export runs/{run} --to baked --out out"):
            run = next((p.name for p in Path("runs").glob("*")), "")
            with open(os.devnull, "w") as nowhere, suppress(SystemExit):
                os.dup2(nowhere.fileno(), 1)
                main(shlex.split(command.replace("{run}", run)))
        names.write_text("\n".join(sys.modules))
        os._exit(0)
    assert _wait(child) == 0, "the commands fail without a fault"
    for name in names.read_text().split():
        with suppress(Exception):
            importlib.import_module(name)
    import trimtab

    for name in ("recipe", "causal"):  # scans the registries, loads what is loaded lazily
        with contextlib.chdir(inputs):
            trimtab.validate(f"{name}.yaml")
