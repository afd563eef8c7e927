"""Looking rows up in a table that many rows of a batch share, so that the same run gives the same bytes.

Indexing does the same, but the gradients of entries that were read several times are then summed in the order in which
the threads of a processor happen to come: the last bits differ from run to run, and a soft prompt amplifies last bits.
Here each entry is summed by one thread in the order of the index, as with a single thread, and on a GPU after a sort.
"""

from __future__ import annotations

import math

from jaxtyping import Int, Shaped
from torch import Tensor
from torch.nn.functional import embedding


def look_up(table: Shaped[Tensor, "*N"], *index: Int[Tensor, "..."]) -> Shaped[Tensor, "..."]:
    """`table[index]`, its gradient summed in one order.

    >>> import torch
    >>> look_up(torch.arange(6.0).view(3, 2), torch.tensor([2, 0, 2]))
    tensor([[4., 5.],
            [0., 1.],
            [4., 5.]])

    Args:
        table: at least as many dimensions as there are indices.
        index: one for each of the table's first dimensions, >= 0; they are broadcast together.
    """
    if not table.requires_grad:
        return table[index]
    sizes, rest = table.shape[: len(index)], table.shape[len(index) :]
    entry = index[0]
    for size, its in zip(sizes[1:], index[1:], strict=True):
        entry = entry * size + its
    return embedding(entry, table.reshape(math.prod(sizes), math.prod(rest))).view(*entry.shape, *rest)
