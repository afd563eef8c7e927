"""Which training rows an epoch has, where several tasks do not share it in proportion to their rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.seeding import stream


@dataclass(frozen=True)
class Mixture:
    """How epochs are dealt.

    Attributes:
        sizes: training rows of each task; those of the first come first.
        counts: how many of them an epoch takes.
    """

    sizes: tuple[int, ...]
    counts: tuple[int, ...]

    def rows(self, seed: int, epoch: int, once: bool = False) -> list[int]:
        """Numbers of training rows, task by task. Depends on (seed, sizes, counts) only.

        The rows of a task are shuffled anew for every pass over them, and dealt one pass after the other.

        Args:
            once: every pass has the order of the first.

        >>> Mixture((2, 4), (3, 3)).rows(13, 0)[:3]
        [0, 1, 0]
        """
        dealt, first = list[int](), 0
        for task, (size, count) in enumerate(zip(self.sizes, self.counts, strict=True)):
            begin, end = epoch * count, (epoch + 1) * count
            for number in range(begin // size, -(-end // size)):
                order = stream(seed, "data_order:task", task, 0 if once else number).permutation(size)
                dealt += [first + int(i) for i in order[max(0, begin - number * size) : end - number * size]]
            first += size
        return dealt


def mixture(sizes: Sequence[int], shares: Sequence[float]) -> Mixture | None:
    """Epochs of as many rows as there are, with these shares of the tasks; None where no shares are asked for.

    Each task has at least one row in an epoch; what rounding leaves goes to the largest remainders.
    """
    if not shares:
        return None
    total = sum(sizes)
    wanted = [share * (total - len(sizes)) for share in shares]
    counts = [1 + int(w) for w in wanted]
    by_remainder = sorted(range(len(sizes)), key=lambda k: (int(wanted[k]) - wanted[k], k))
    for k in by_remainder[: total - sum(counts)]:
        counts[k] += 1
    return Mixture(tuple(sizes), tuple(counts))
