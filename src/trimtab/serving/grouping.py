"""Which of the rows that wait share a forward pass.

All of them could, but a pass computes as many tokens as its longest row has, for every row. Rows of like length are put
together, and a pass is cut in two where that saves more tokens of padding than a pass costs by itself:

    minimize  sum over passes ( OVERHEAD + rows of the pass x tokens of its longest row )

over the cuts of the rows in the order of their lengths, at 32 places at most.
"""

from __future__ import annotations

from collections.abc import Sequence

OVERHEAD = 128
"""What a pass costs by itself on a CPU, in tokens: 57 to 75 for its model's small operations alone, as measured on
MiniLM and nano-causal (bfloat16, one thread), the rest for putting the batch together."""
PLACES = 32


def grouped(costs: Sequence[int], most: int, overhead: int | None = OVERHEAD) -> list[list[int]]:
    """Rows by their places, pass by pass, short ones first.

    Args:
        costs: the tokens of each row.
        most: tokens of a pass, padding included; a row that is longer has a pass of its own.
        overhead: as above; None where a pass costs the same whatever stands in it, as on a GPU.

    >>> grouped([50, 3, 50, 4], 1000, overhead=10)
    [[1, 3], [0, 2]]
    """
    if not costs:
        return []
    order = sorted(range(len(costs)), key=lambda i: costs[i])
    lengths = [costs[i] for i in order]
    step = max(1, len(order) // PLACES)
    ends = [*range(step, len(order), step), len(order)]
    alone = len(order) * lengths[-1] if overhead is None else overhead
    best: dict[int, tuple[int, int]] = {0: (0, 0)}  # end -> cost of all before it, where its pass begins
    for end in ends:
        best[end] = min((cost + alone + (end - at) * lengths[end - 1], at) for at, (cost, _) in best.items())
    cuts, end = list[tuple[int, int]](), len(order)
    while end:
        cuts.append((best[end][1], end))
        end = best[end][1]
    return [part for start, end in reversed(cuts) for part in _within(order[start:end], costs, most)]


def _within(rows: Sequence[int], costs: Sequence[int], most: int) -> list[list[int]]:
    """Rows of growing length, cut where a pass would be too large."""
    found: list[list[int]] = []
    for i in rows:
        if found and (len(found[-1]) + 1) * costs[i] <= most:
            found[-1].append(i)
        else:
            found.append([i])
    return found
