"""From encoded rows to padded batches: collation, micro-batches under a token budget, epochs in a seeded order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from trimtab.types import Batch, Row


def collate(rows: Sequence[Row], pad_id: int, padding_side: Literal["left", "right"] = "right") -> Batch:
    """Pad rows, each with all its variants, to a batch.

    Lengths are final already, so pads go outside the whole sequence and every position is shifted by at most one
    constant per row. Position ids count real tokens from 0 on either padding side.
    """
    flat = [(x, row, e) for x, row in enumerate(rows) for e in row.variants]
    encoded = [e for _, _, e in flat]
    length, n_slots, n_answers, n_decoder = (
        max(map(len, its)) for its in zip(*((e.ids, e.slots, e.answer_at, e.decoder) for e in encoded), strict=True)
    )
    ids, decoder = np.full((len(flat), length), pad_id), np.full((len(flat), n_decoder), pad_id)
    mask = np.zeros((len(flat), length), dtype=np.int64)
    eligible, text = np.zeros((2, len(flat), length), dtype=bool)
    slots, decoder_slots = np.full((len(flat), n_slots), -1), np.full((len(flat), n_slots), -1)
    answer_at, targets = np.zeros((len(flat), n_answers), dtype=np.int64), np.full((len(flat), n_answers), -1)
    for b, e in enumerate(encoded):
        shift = length - len(e) if padding_side == "left" else 0
        ids[b, shift : shift + len(e)] = e.ids
        mask[b, shift : shift + len(e)] = 1
        slots[b, : len(e.slots)] = [place + shift if place >= 0 else -1 for place in e.slots]
        decoder_slots[b, : len(e.decoder_slots)] = e.decoder_slots
        answer_at[b, : len(e.answer_at)] = e.answer_at if e.decoder else [place + shift for place in e.answer_at]
        decoder[b, : len(e.decoder)] = e.decoder
        targets[b, : len(e.targets)] = e.targets
        eligible[b, [place + shift for place in e.eligible]] = True
        text[b, [place + shift for place in e.text]] = True
    return Batch(
        ids=torch.from_numpy(ids),
        attention_mask=torch.from_numpy(mask),
        position_ids=torch.from_numpy((mask.cumsum(1) - 1).clip(min=0)),
        slots=torch.from_numpy(slots),
        answer_at=torch.from_numpy(answer_at),
        answers=torch.tensor([len(e.answer_at) for e in encoded]),
        eligible=torch.from_numpy(eligible),
        prompt_of=torch.tensor([r.prompt for _, r, _ in flat]),
        keys=torch.tensor([r.key for _, r, _ in flat]),
        example_of=torch.tensor([x for x, _, _ in flat]),
        readout_of=torch.tensor([r.readout for r in rows]),
        labels=labels_of(rows),
        decoder_ids=torch.from_numpy(decoder) if n_decoder else None,
        decoder_slots=torch.from_numpy(decoder_slots) if any(e.decoder_slots for e in encoded) else None,
        targets=torch.from_numpy(targets) if any(e.targets for e in encoded) else None,
        text=torch.from_numpy(text) if text.any() else None,
    )


def labels_of(rows: Sequence[Row], length: int = 0) -> Int[Tensor, "X *Y"]:
    """The labels of rows: [X], or [X,Y] padded with -1 where a row has several, to at least `length`."""
    if not any(isinstance(r.label, tuple) for r in rows):
        return torch.tensor([r.label for r in rows], dtype=torch.long)
    labels = [r.label if isinstance(r.label, tuple) else () for r in rows]
    padded = torch.full((len(rows), max(length, *map(len, labels))), -1)
    for row, label in zip(padded, labels, strict=True):
        row[: len(label)] = torch.tensor(label, dtype=torch.long)
    return padded


def micro_batches(lengths: Sequence[int], max_tokens: int, worth: int | None = None) -> list[list[int]]:
    """Indices grouped so that rows x longest row <= `max_tokens`, similar lengths together, longest group first.

    The length of an example of several rows is the tokens of all of them.

    A row longer than the budget forms a group of its own. A group is divided where that saves more padding than
    `worth` tokens (see `Backbone.pass_cost`); with None nowhere.

    >>> micro_batches([5, 9, 4, 10], 20)
    [[3, 1], [0, 2]]
    >>> micro_batches([90, 10, 10, 80], 400, worth=64)
    [[0, 3], [1, 2]]
    """
    groups: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if groups and (len(groups[-1]) + 1) * lengths[groups[-1][0]] <= max_tokens:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups if worth is None else [part for group in groups for part in _divided(group, lengths, worth)]


def _divided(group: list[int], lengths: Sequence[int], worth: int) -> list[list[int]]:
    """A group, longest row first, cut where shorter rows save the most padding, as long as that is worth a pass."""
    saved = [(len(group) - k) * (lengths[group[0]] - lengths[i]) for k, i in enumerate(group)]
    most = max(saved)
    if most <= worth:
        return [group]
    at = saved.index(most)
    return _divided(group[:at], lengths, worth) + _divided(group[at:], lengths, worth)


def epoch_batches(
    lengths: Sequence[int], batch_size: int, order: np.random.Generator, buckets: int = 1
) -> Iterator[list[int]]:
    """The batches of one epoch: every row once, batch sizes equal to within one.

    With `buckets` > 1 and more than that many batches, rows are shuffled, sorted by length within pools of `buckets`
    batches, cut, and the batches shuffled again: less padding, still random. Depends on (generator, lengths) only.
    """
    permutation = order.permutation(len(lengths))
    n_batches = -(-len(lengths) // batch_size)
    if buckets <= 1 or n_batches <= buckets:
        yield from (part.tolist() for part in np.array_split(permutation, n_batches))
        return
    parts = np.array_split(permutation, n_batches)
    batches: list[list[int]] = []
    for first in range(0, n_batches, buckets):
        pool = parts[first : first + buckets]
        by_length = sorted(np.concatenate(pool).tolist(), key=lambda i: lengths[i])
        batches += [p.tolist() for p in np.array_split(np.array(by_length), len(pool))]
    yield from (batches[i] for i in order.permutation(len(batches)))
