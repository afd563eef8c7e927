"""Several processes train one pack: each takes a share of every batch, gradients and losses are summed over them.

`torchrun` and `accelerate launch` start the processes and say in environment variables who is who. The logical batch is
divided, not multiplied, so a run is the same run whatever the number of processes, up to rounding. After the sum every
process computes the same update from the same numbers; parameters are compared now and then, never sent. Process 0
alone writes files and reports.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from typing import Any, TypeVar
from zlib import crc32

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from trimtab.errors import TrimtabError

Item = TypeVar("Item")
Result = TypeVar("Result")

PATIENCE = timedelta(days=1)
"""How long a process waits for the slowest: process 0 scores the test split while the others wait."""

_joined = count()


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this is. Every method but `share` must be called by all of them in the same order.

    Args:
        rank: of this process, from 0.
        size: number of processes.
        local_rank: among those on this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """The process that writes and reports."""
        return self.rank == 0

    def share(self, items: Sequence[Item], costs: Sequence[int]) -> list[Item]:
        """This process's part of the items: sorted by cost and dealt out in turn; empty where there are too few."""
        return [items[i] for i in self._shares(costs)[self.rank]]

    def sum_(self, *tensors: Tensor) -> None:
        """Replace each tensor by its sum over the processes; all of them get the same bits."""
        if self.size > 1:
            with _reaching_others():
                for tensor in tensors:
                    dist.all_reduce(tensor)

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Sum `.grad` over the processes, where any of them has one."""
        if self.size == 1:
            return
        trained = list(parameters)
        holders = torch.tensor([float(p.grad is not None) for p in trained])
        self.sum_(holders)
        for parameter, count_of in zip(trained, holders.tolist(), strict=True):
            if count_of > 0:
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                self.sum_(parameter.grad)

    def gather(self, value: Result) -> list[Result]:
        """The value of every process, in the order of their ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with _reaching_others():
            dist.all_gather_object(values, value)
        return values

    def merged(self, items: Sequence[Item], costs: Sequence[int], compute: Callable[[list[Item]], Any]) -> list[Any]:
        """What `compute` makes of the items, one result each, in their order; every process computes its share."""
        results: list[Any] = [None] * len(items)
        parts = self.gather(self.together(lambda: compute(self.share(items, costs))))
        for mine, part in zip(self._shares(costs), parts, strict=True):
            for i, result in zip(mine, part, strict=True):
                results[i] = result
        return results

    def together(self, do: Callable[[], Result]) -> Result:
        """Do something on every process; what one of them refuses, all refuse."""
        result, refusal = None, None
        try:
            result = do()
        except TrimtabError as error:
            refusal = error
        first = next((r for r in self.gather(refusal) if r is not None), None)
        if first is not None:
            raise refusal or first
        return result  # type: ignore[return-value]

    def on_main(self, do: Callable[[], Result]) -> Result:
        """What process 0 makes of `do`, on every process; its refusal is everybody's."""
        mine = self.together(lambda: do() if self.is_main else None)
        return self.gather(mine)[0]  # type: ignore[return-value]

    def check_equal(self, tensors: Iterable[Tensor]) -> None:
        """Compare checksums of tensors that must be the same, bit by bit, on every process.

        Raises:
            TrimtabError: they are not, so the processes no longer train the same prompt.
        """
        if self.size == 1:
            return
        sums = self.gather([crc32(t.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()) for t in tensors])
        other = next((rank for rank, its in enumerate(sums) if its != sums[0]), None)
        if other is not None:
            raise TrimtabError(
                f"process {other} holds other parameters than process 0, so their arithmetic differs.",
                fix="Use the same hardware and versions for all; the same command continues from the last evaluation.",
            )

    def take_device(self, asked: str) -> str:
        """The device of this process: with `auto` and `cuda`, each takes a GPU of its own.

        Raises:
            TrimtabError: there are too few GPUs, or one is asked for by number.
        """
        if self.size == 1 or not torch.cuda.is_available() or asked == "cpu":
            return asked
        if asked.startswith("cuda:"):
            raise TrimtabError(
                f"{self.size} processes cannot share {asked}.", where="device", fix="Use --device cuda: one GPU each."
            )
        if self.local_rank >= torch.cuda.device_count():
            raise TrimtabError(
                f"each process needs a GPU of its own, there are {torch.cuda.device_count()}.",
                where="device",
                fix="Start fewer processes, or use --device cpu.",
            )
        torch.cuda.set_device(self.local_rank)
        return f"cuda:{self.local_rank}"

    def _shares(self, costs: Sequence[int]) -> list[list[int]]:
        """Indices by process. A single process keeps the order."""
        order = sorted(range(len(costs)), key=lambda i: (-costs[i], i)) if self.size > 1 else list(range(len(costs)))
        return [order[rank :: self.size] for rank in range(self.size)]


ALONE = Processes()


def current_size() -> int:
    """How many processes train together at this moment."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@contextmanager
def joined() -> Iterator[Processes]:
    """The processes that a launcher started (WORLD_SIZE, RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT), connected.

    gloo carries what is on the CPU, nccl what is on GPUs. A process group that exists already is used and left open.

    Raises:
        TrimtabError: they cannot be connected.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if current_size() == 1 and size == "1":
        yield ALONE
        return
    own = not dist.is_initialized()
    if own:
        _connect(size)
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", 0)))
    finally:
        if own:
            dist.destroy_process_group()


def _connect(size: str) -> None:
    # its functions take the group that exists at import as a default, and a group that they hold is never taken down:
    # its threads then run into the end of the interpreter, which aborts the process now and then
    importlib.import_module("torch.distributed.nn.functional")
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    try:
        store, rank, total = next(rendezvous("env://"))
        # torchrun's store outlives a process group: names of its own keep the next group from meeting the last
        store = PrefixStore(f"trimtab-{next(_joined)}", store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=total, timeout=PATIENCE)
    except (ValueError, RuntimeError) as error:
        raise TrimtabError(
            f"the processes of this training cannot be connected ({_first_line(error)}).",
            where=f"WORLD_SIZE={size}",
            fix="Start them with `torchrun --nproc-per-node N -m trimtab run RECIPE`, or unset WORLD_SIZE.",
        ) from error


@contextmanager
def _reaching_others() -> Iterator[None]:
    """torch has no class of its own for a lost connection: it is a RuntimeError."""
    try:
        yield
    except RuntimeError as error:
        raise TrimtabError(
            f"another process of this training ended or cannot be reached ({_first_line(error)}).",
            fix="Its own message says why. The same command continues from the last evaluation.",
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0].split(". This is typically", 1)[0].rstrip(".")
