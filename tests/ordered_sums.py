"""Finds sums that a processor's threads may carry out in any order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

PUTS = (
    torch.ops.aten.index_put, torch.ops.aten.index_put_, torch.ops.aten._index_put_impl_,
    torch.ops.aten._unsafe_index_put,
)  # fmt: skip


class OrderedSums(TorchDispatchMode):
    """While it is entered, indexing whose gradient adds several numbers to one entry fails: `look_up` has an order."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func._overloadpacket in PUTS and len(args) > 3 and args[3] and args[2].is_floating_point():
            _check(*args[:2])
        call: Callable[..., Any] = func
        return call(*args, **(kwargs or {}))


def _check(table: Tensor, indices: Sequence[Tensor | None]) -> None:
    whole = [torch.arange(size) if its is None else its for size, its in zip(table.shape, indices, strict=False)]
    if any(its is None for its in indices) or whole[0].dtype == torch.bool:
        return  # slices and masks name each entry once
    entry = torch.stack(torch.broadcast_tensors(*whole)).flatten(1)
    named = entry.unique(dim=1).shape[1]
    if named < entry.shape[1]:
        raise AssertionError(
            f"{entry.shape[1]} gradients are added to {named} entries of a table of {tuple(table.shape)} in no order: "
            "read it with trimtab.lookup.look_up"
        )
