"""A fault at the k-th call of this process that changes a file below a folder.

`Faults.install` puts a layer over the calls of Python that write: open for writing, write, truncate, mkdir, rename,
replace, unlink, rmdir, chmod, fsync, and the writer of safetensors files. Each call below the folder is counted and
noted in a journal; at the k-th the fault happens. A write is torn: half of it is on the disk when the fault strikes.
Code in other languages that writes by itself (the tokenizer's) is not seen, but what stands before and after it is.
"""

from __future__ import annotations

import builtins
import datetime as dates
import errno
import io
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KILL, TERM, CLOCK = "kill -9", "SIGTERM", "clock jumps"
ERRORS = {
    "ENOSPC": (errno.ENOSPC, False),
    "ENOSPC once": (errno.ENOSPC, True),
    "EIO": (errno.EIO, False),
    "EIO once": (errno.EIO, True),
    "read-only": (errno.EROFS, False),
}
"""Name -> what the call fails with, and whether only this one does, or all from there on."""
NAMES = (KILL, TERM, *ERRORS, CLOCK)

_NEEDS_SPACE = ("open", "write", "mkdir", "fsync", "rename")
_CALLS = ("mkdir", "rmdir", "unlink", "remove", "rename", "replace", "chmod", "truncate", "symlink", "link")
_YEARS = 20


@dataclass
class Faults:
    """Counts calls below `root`, and does `fault` at number `at`, from 0; None only counts.

    Attributes:
        journal: a line per call: its name and the path, without the folder.
    """

    root: Path
    fault: str | None
    at: int
    journal: Path
    count: int = 0

    def install(self) -> None:
        """From now on, for the rest of this process."""
        if self.fault is not None and self.fault not in NAMES:
            raise ValueError(f"no such fault: {self.fault}")
        self._root = os.path.realpath(self.root)
        self._journal = os.open(self.journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._open, self._os_open = io.open, os.open
        io.open = builtins.open = self._opened  # type: ignore[assignment]
        os.open = self._os_opened  # type: ignore[assignment]
        os.fsync = self._on_descriptor("fsync", os.fsync)
        os.ftruncate = self._on_descriptor("truncate", os.ftruncate)
        for name in _CALLS:
            setattr(os, name, self._on_path(name, getattr(os, name)))
        self._watch_safetensors()

    def call(self, name: str, path: str, tear: Callable[[], Any] | None = None) -> None:
        """One call is about to happen.

        Args:
            tear: does half of it.

        Raises:
            OSError: the fault is one, and this call meets it.
        """
        number, self.count = self.count, self.count + 1
        os.write(self._journal, f"{name} {os.path.relpath(path, self._root)}\n".encode())
        if self.fault is None or number < self.at:
            return
        if self.fault in ERRORS:
            code, once = ERRORS[self.fault]
            spared = code == errno.ENOSPC and name not in _NEEDS_SPACE
            if spared or (once and number > self.at):
                self.at += spared and number == self.at  # the next one that needs space
                return
            if tear is not None:
                tear()
            raise OSError(code, os.strerror(code), path)
        if number > self.at:
            return
        if self.fault == CLOCK:
            _move_clock(_YEARS if number % 2 else -_YEARS)
            return
        if tear is not None:
            tear()
        os.kill(os.getpid(), signal.SIGKILL if self.fault == KILL else signal.SIGTERM)

    def _inside(self, path: Any, folder: int | None = None) -> str | None:
        """The whole path, if it is below the folder."""
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        elif folder is not None:
            path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), os.fspath(path))
        whole = os.path.abspath(os.fsdecode(path))
        return whole if whole.startswith(self._root + os.sep) else None

    def _opened(self, file: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
        path = self._inside(file) if set(mode) & set("wax+") else None
        if path is None:
            return self._open(file, mode, *rest, **options)
        if not isinstance(file, int):
            self.call("open", path)
        return _Watched(self._open(file, mode, *rest, **options), self, path)

    def _os_opened(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        whole = self._inside(path, dir_fd) if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) else None
        if whole is not None:
            self.call("open", whole)
        return self._os_open(path, flags, mode, dir_fd=dir_fd)

    def _on_path(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        short = {"remove": "unlink", "replace": "rename"}.get(name, name)

        def called(path: Any, *rest: Any, **options: Any) -> Any:
            whole = self._inside(path, options.get("dir_fd"))
            if whole is not None:
                self.call(short, whole)
            return real(path, *rest, **options)

        return called

    def _on_descriptor(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def called(descriptor: int, *rest: Any) -> Any:
            whole = self._inside(descriptor)
            if whole is not None:
                self.call(name, whole)
            return real(descriptor, *rest)

        return called

    def _watch_safetensors(self) -> None:
        if (library := sys.modules.get("safetensors.torch")) is None:  # nobody writes with it
            return
        real = library.serialize_file

        def written(tensors: Any, file: Any, *rest: Any, **options: Any) -> None:
            def tear() -> None:
                real(tensors, file, *rest, **options)
                with self._open(file, "r+b") as half:
                    half.truncate(Path(file).stat().st_size // 2)

            if self._inside(file) is not None:
                self.call("write", os.fspath(file), tear)
            real(tensors, file, *rest, **options)

        library.serialize_file = written  # type: ignore[attr-defined]


class _Watched:
    """A file open for writing, whose writes and truncations are calls."""

    def __init__(self, file: Any, faults: Faults, path: str) -> None:
        self._file, self._faults, self._path = file, faults, path

    def write(self, data: Any) -> int:
        def tear() -> None:
            self._file.write(data[: len(data) // 2])
            self._file.flush()

        self._faults.call("write", self._path, tear)
        return self._file.write(data)

    def truncate(self, *size: int) -> int:
        self._faults.call("truncate", self._path)
        return self._file.truncate(*size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __iter__(self) -> Any:
        return iter(self._file)

    def __enter__(self) -> _Watched:
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.close()


def _move_clock(years: int) -> None:
    """The calendar's clock jumps, for whoever asks from now on; clocks that only measure do not."""
    away, now, now_ns, real = years * 365.25 * 86400, time.time, time.time_ns, dates.datetime

    class Moved(real):  # type: ignore[valid-type, misc]
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return real.now(tz) + dates.timedelta(seconds=away)

    time.time, time.time_ns = (lambda: now() + away), (lambda: now_ns() + int(away * 1e9))
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("trimtab") and getattr(module, "datetime", None) is real:
            module.datetime = Moved  # type: ignore[attr-defined]
