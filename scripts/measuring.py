"""What benchmarks measure in one process: steps by turns, ratios within turns, the peak of memory, how far apart."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Protocol

from torch import Tensor

PAGE = 4 / 1024
"""MiB; the least that a process can grow by."""


class Stepping(Protocol):
    """Whatever can take a step."""

    def step(self) -> None: ...


def difference(a: Tensor, b: Tensor) -> float:
    """|a - b| / |b|."""
    return float((a - b).norm() / b.norm())


def turns(trainings: Sequence[Stepping], steps: int, warmup: int = 2) -> Iterator[list[tuple[float, float]]]:
    """(wall seconds, processor seconds) of a step of each, by turn; who begins a turn changes."""
    for training in trainings:
        for _ in range(warmup):
            training.step()
    gc.collect()
    gc.freeze()  # what was imported and built: collections during a step stay cheap
    for turn in range(steps):
        taken: list[tuple[float, float]] = [(0.0, 0.0)] * len(trainings)
        for k in range(len(trainings)):
            i = (k + turn) % len(trainings)
            wall, processor = time.perf_counter(), time.process_time()
            trainings[i].step()
            taken[i] = (time.perf_counter() - wall, time.process_time() - processor)
        yield taken
    gc.unfreeze()


def ratios(values: Sequence[float], base: Sequence[float]) -> dict[str, float]:
    """Median and quartiles of the ratios within turns.

    >>> ratios([1.0, 2.0, 3.0], [2.0, 2.0, 2.0])
    {'median': 1.0, 'low': 0.5, 'high': 1.5}
    """
    each = [v / b for v, b in zip(values, base, strict=True)]
    low, _, high = quantiles(each, n=4) if len(each) > 1 else each * 3
    return {"median": median(each), "low": low, "high": high}


def peak_while_stepping(training: Stepping, steps: int = 3) -> dict[str, float]:
    """MiB resident before the first step, and the most while stepping. Linux."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading
    loaded = resident("VmRSS")
    for _ in range(steps):
        training.step()
    return {"loaded": loaded, "peak": resident("VmHWM")}


def resident(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024
