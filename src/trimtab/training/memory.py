"""How much memory a piece of work takes, and how much there is."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

_STATUS, _FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_MEMORY, _GROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
_MESSAGES = ("out of memory", "can't allocate memory", "not enough memory")


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Callable[[], int | None]]:
    """Measure the peak of the block, in bytes above what was taken before; None where the system does not tell (on
    CPUs, all but Linux). The function that it gives knows when the block has ended.
    """
    gc.collect()
    found: list[int | None] = [None]
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield lambda: found[0]
        found[0] = torch.cuda.max_memory_allocated(device) - before
        return
    resident = _resident("VmRSS") if _forget_the_peak() else None
    yield lambda: found[0]
    peak = _resident("VmHWM")
    found[0] = None if resident is None or peak is None else max(0, peak - resident)


def _forget_the_peak() -> bool:
    """Let the system measure from now on; False where it cannot."""
    try:
        _FORGET.write_text("5")
    except OSError:
        return False
    return True


def free_memory(device: torch.device) -> int | None:
    """Bytes that are free; None where the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    known = [n for n in (_available(), _left_of_the_container()) if n is not None]
    return min(known) if known else None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory left: on a GPU, or where the system refuses to give more."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(m in str(error).lower() for m in _MESSAGES)


def _resident(field: str) -> int | None:
    """Bytes of a line of /proc/self/status."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(field)), None)


def _available() -> int | None:
    """What the system could give (Linux)."""
    try:
        lines = _MEMORY.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable")), None)


def _left_of_the_container() -> int | None:
    """What the limit of a container leaves (Linux, control groups 2)."""
    try:
        limit, taken = ((_GROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return None
    return None if limit == "max" else max(0, int(limit) - int(taken))
