"""One forward pass for rows of any tasks: input prompts, deep prompts and none, whatever reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from trimtab.backbones import Backbone
from trimtab.batching import labels_of
from trimtab.model import PromptedBackbone
from trimtab.prompt_table import PromptTable
from trimtab.readouts import Condenses
from trimtab.serving.gathering import heads_of, joined
from trimtab.serving.readers import Shelf
from trimtab.serving.tickets import Seat
from trimtab.types import Batch, Row


@torch.no_grad()
def score(backbone: Backbone, seats: Sequence[Seat]) -> list[Float[Tensor, "*C"]]:
    """Scores of rows in their order, on the CPU: those that each row's own `Predictor` finds, to the last bits.

    The backbone runs once. An encoder-decoder runs twice where some rows are read in the encoder and some in the
    decoder, as rows without a decoder cannot stand beside rows that have one.
    """
    found: dict[int, Tensor] = {}
    for has_decoder in (False, True):
        places = [i for i, seat in enumerate(seats) if bool(seat.row.encoded.decoder) == has_decoder]
        if places:
            found |= zip(places, _score_alike(backbone, [seats[i] for i in places]), strict=True)
    return [found[i] for i in range(len(seats))]


def numbered(seats: Sequence[Seat]) -> tuple[list[Row], list[PromptTable]]:
    """Rows that know which of these prompts is theirs, and the prompts, each once."""
    tables = list({id(s.table): s.table for s in seats if s.table is not None}.values())
    number = {id(table): i for i, table in enumerate(tables)}
    return [replace(s.row, prompt=-1 if s.table is None else number[id(s.table)]) for s in seats], tables


def _score_alike(backbone: Backbone, seats: Sequence[Seat]) -> list[Tensor]:
    shelves: dict[int, tuple[Shelf, list[int]]] = {}
    rows, tables = numbered(seats)
    for i, seat in enumerate(seats):
        assert seat.reader is not None, "rows that are scored are read by somebody"
        rows[i] = replace(rows[i], readout=seat.reader.entry)
        shelves.setdefault(id(seat.reader.shelf), (seat.reader.shelf, []))[1].append(i)
    model = PromptedBackbone(backbone)
    hidden, batch, _ = model.at_reads(model.collate(rows), joined(tables) if tables else None)
    found: dict[int, Tensor] = {}
    for shelf, places in shelves.values():
        examples = torch.tensor(places, device=hidden.device)
        labels = labels_of([rows[i] for i in places]).to(hidden.device)  # of this readout's own width
        part = replace(batch.of(examples), labels=labels)
        own = hidden[batch.rows_of(examples)][:, : part.answer_at.shape[1]]
        found |= zip(places, _read(shelf, own, part, tables), strict=True)
    return [found[i] for i in range(len(seats))]


def _read(
    shelf: Shelf, hidden: Float[Tensor, "B A H"], part: Batch, tables: Sequence[PromptTable]
) -> Float[Tensor, "X *C"]:
    """What one readout makes of its rows, each with the head of its own prompt."""
    used = part.prompt_of[part.prompt_of >= 0].unique()
    number = torch.full((len(tables) + 1,), -1, device=used.device)  # the last is what -1 points to
    number[used] = torch.arange(len(used), device=used.device)
    part = replace(part, prompt_of=number[part.prompt_of])
    readout = shelf.readout
    scores = readout.scores(hidden, part, heads_of([tables[i] for i in used.tolist()]))
    return (readout.condensed(scores, part) if isinstance(readout, Condenses) else scores).cpu()
