"""Memory: what a block takes at its peak, what is free, and which errors say that there is none left."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from trimtab.training import memory
from trimtab.training.memory import free_memory, is_out_of_memory, peak_memory

CPU = torch.device("cpu")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells of peaks")


@linux
def test_the_peak_of_a_block_is_measured_above_what_was_there() -> None:
    kept = torch.ones(16 << 20)  # 64 MiB that do not count
    with peak_memory(CPU) as small:
        torch.ones(4 << 20)
    with peak_memory(CPU) as large:
        torch.ones(48 << 20)
    assert kept.sum() > 0
    assert small() is not None
    assert large() is not None
    assert 150 << 20 < large() < 260 << 20
    assert small() < 64 << 20, "a peak of before is forgotten"


def test_where_the_system_does_not_tell_there_is_no_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("_STATUS", "_FORGET", "_MEMORY", "_GROUP"):
        monkeypatch.setattr(memory, name, tmp_path / "no" / name)
    with peak_memory(CPU) as peak:
        pass
    assert peak() is None
    assert free_memory(CPU) is None


def test_free_memory_is_what_system_and_container_leave(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 100 kB\nMemFree: 5 kB\nMemAvailable: 40 kB\n")
    monkeypatch.setattr(memory, "_MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_GROUP", tmp_path)
    assert free_memory(CPU) == 40 << 10
    (tmp_path / "memory.max").write_text("30720\n")
    (tmp_path / "memory.current").write_text("10240\n")
    assert free_memory(CPU) == 20 << 10
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory(CPU) == 40 << 10


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError(), True),
        (torch.cuda.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("shapes do not match"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_errors_that_say_there_is_no_memory(error: Exception, is_memory: bool) -> None:
    assert is_out_of_memory(error) is is_memory
