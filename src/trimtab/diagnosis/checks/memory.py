"""Memory: what a run will take, and what is there.

    weights            of the backbone, and of the copy of a run that trains it
    training           trained parameters with gradients, moments and the best checkpoint
    activations        what the clean pass of the largest micro-batch keeps for its backward pass

Activations are counted on the longest row, by what autograd saves, and scaled to the tokens of a micro-batch; what
operations need while they run comes on top. What the process has taken already is not asked for again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import final

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from trimtab.backbones.checkpointing import recomputing
from trimtab.batching import collate, micro_batches
from trimtab.diagnosis import Check, Finding
from trimtab.diagnosis.case import Case
from trimtab.registry import checks
from trimtab.sizes import of_memory
from trimtab.training.memory import free_memory
from trimtab.training.rendered import costs_of
from trimtab.types import Row

_TIGHT = 0.8
"""Share of what is free from which on a warning is due."""


@final
@checks.register("memory")
class Memory(Check):
    """Will the run fit into memory?"""

    topic = "model"

    def examine(self, case: Case) -> Iterator[Finding]:
        backbone, loop = case.backbone, case.loop
        weights = _bytes([*backbone.model.parameters(), *backbone.model.buffers()])
        own = _bytes(loop.model.backbone.model.parameters()) if case.config.training.tunes_backbone else 0
        trained = _bytes(loop.pack.stacked.values())
        training = 3 * trained + _bytes(loop.optimizer.state.values()) - (trained if own else 0)
        activations = self._activations(case)
        free = free_memory(backbone.device)
        needed = training + activations
        numbers = {"weights": weights, "copy": own, "training": training, "activations": activations, "free": free}
        copied = f", a copy that is trained {of_memory(own)}" if own else ""
        seen = (
            f"backbone {of_memory(weights)}{copied}, prompt and optimizer {of_memory(training)}, activations "
            f"{of_memory(activations)}; free: {'not known' if free is None else of_memory(free)}"
        )
        if free is None or needed < _TIGHT * free:
            yield Finding("ok", seen, numbers=numbers)
            return
        tokens = case.config.training.max_tokens
        yield Finding(
            "problem" if needed > free else "warning",
            seen,
            f"Take smaller passes (training.max_tokens={max(1, tokens // 4)}; results stay the same), "
            "training.recompute_layers=true, or backbone.dtype=bfloat16.",
            numbers,
        )

    @staticmethod
    def _activations(case: Case) -> int:
        """Bytes that the largest micro-batch keeps."""
        training, rows = case.config.training, case.rows("train")
        longest = sorted(costs_of(rows), reverse=True)[: training.batch_size]
        tokens = max(len(group) * longest[group[0]] for group in micro_batches(longest, training.max_tokens))
        row = case.sample[max(range(len(case.sample)), key=lambda i: case.sample[i].cost)]
        return round(saved_bytes(case, [row]) * tokens / row.cost)


def saved_bytes(case: Case, rows: Sequence[Row]) -> int:
    """What autograd saves of a training pass over some rows, weights aside."""
    backbone, loop = case.loop.model.backbone, case.loop
    known = {p.untyped_storage().data_ptr() for p in (*backbone.model.parameters(), *backbone.model.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    leaf = loop.pack.table(training=True).detached()
    batch = collate(rows, backbone.pad_id, backbone.family.padding_side).to(backbone.device)
    with (
        saved_tensors_hooks(keep, lambda tensor: tensor),
        recomputing(backbone.model) if case.config.training.recompute_layers else nullcontext(),
    ):
        loss = loop.model.readout.loss(loop.model.scores(batch, leaf), batch.labels)
    del loss
    return sum(kept.values())


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)
