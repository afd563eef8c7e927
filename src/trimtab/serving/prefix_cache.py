"""The keys and values of causal prefix prompts, computed once.

What stands before the end of such a prompt (BOS, literals and the virtual tokens) is the same for every text, and a
causal model sees nothing behind it. So the keys and values that it gives in each layer can be kept, and enter as a deep
prompt with the text at the positions behind them: the prompt then costs no positions of the batch, and nothing but
attention to it.

Exact for prompts before the text alone, and as long as the whole sequence fits a sliding window: a deep prompt is seen
from everywhere. Other rows are computed as they are. So are prompts that have keys and values of their own, offsets or
routers, whose input depends on more than the prefix.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, final

import torch

from trimtab.backbones import Backbone
from trimtab.backbones.attention import Recorder
from trimtab.errors import BackboneError
from trimtab.model import PromptedBackbone
from trimtab.predictor import Predictor
from trimtab.prompt_table import DeepPrompt, PromptTable
from trimtab.serving.tickets import Seat
from trimtab.types import Encoded, Row


def has_prefix(predictor: Predictor) -> bool:
    """Whether a task's prompt is such a prefix: on a causal backbone, and no field stands before a slot."""
    table, backbone, pieces = predictor.table, predictor.model.backbone, predictor.rendering.template.pieces
    if table is None or not backbone.family.is_causal or not backbone.family.takes_positions:
        return False
    last = max((i for i, piece in enumerate(pieces) if piece.kind == "prompt"), default=-1)
    if last < 0 or any(piece.kind in ("field", "answer") for piece in pieces[:last]):
        return False
    others = (table.shifts, table.offsets, table.routing)
    return not table.deep and all(part is None for part in others) and _is_open(backbone)


def _is_open(backbone: Backbone) -> bool:
    """Whether keys and values can enter the model's attention."""
    try:
        return bool(backbone.sites)
    except BackboneError:
        return False


def window_of(config: Any) -> int | None:
    """How many tokens the narrowest layer sees; None where all see all."""
    return getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None


@final
class PrefixCache:
    """Keys and values of the prompts that were used last, up to a number of bytes. For one thread.

    Attributes:
        hits: rows whose prefix was there.
        misses: prefixes that were computed.
        bytes: held now.
    """

    def __init__(self, backbone: Backbone, max_bytes: int) -> None:
        self._backbone, self._max_bytes = backbone, max_bytes
        self._window = window_of(backbone.model.config)
        self._kept: OrderedDict[int, tuple[PromptTable, PromptTable]] = OrderedDict()
        self.hits = self.misses = self.bytes = 0

    def shortened(self, seat: Seat, new_tokens: int = 0) -> Seat:
        """The same question without its prefix, whose keys and values stand in for it; as it was where that would not
        be exact.

        Args:
            new_tokens: how much will be written behind it.
        """
        length = self._length(seat, new_tokens)
        if not length:
            return seat
        assert seat.table is not None
        cut = [_without(e, length) for e in seat.row.variants]
        table = self._of(seat.row, seat.table)
        return replace(seat, row=replace(seat.row, encoded=cut[0], others=tuple(cut[1:])), table=table)

    def cost(self, seat: Seat) -> int:
        """Tokens that are computed for a row that is scored."""
        return seat.row.cost - self._length(seat) * len(seat.row.variants)

    def _length(self, seat: Seat, new_tokens: int = 0) -> int:
        """Tokens of the prefix that can be left out; 0 where that would not be exact."""
        row = seat.row
        if not seat.has_prefix or seat.table is None or not row.encoded.slots or not self._max_bytes:
            return 0
        length = max(row.encoded.slots) + 1
        longest = max(map(len, row.variants)) + new_tokens
        reads_inside = any(place < length for e in row.variants for place in e.answer_at)
        if reads_inside or any(len(e) <= length for e in row.variants):
            return 0
        return 0 if self._window is not None and longest > self._window else length

    def forget(self, table: PromptTable) -> None:
        """Let go of a prompt that was removed."""
        known = self._kept.pop(id(table), None)
        if known is not None:
            self.bytes -= _size(known[1])

    def _of(self, row: Row, table: PromptTable) -> PromptTable:
        known = self._kept.get(id(table))
        if known is not None:
            self.hits += 1
            self._kept.move_to_end(id(table))
            return known[1]
        self.misses += 1
        computed = self._computed(row.encoded, table)
        self._kept[id(table)] = table, computed  # the table is kept too, so that no other one gets its id
        self.bytes += _size(computed)
        while self.bytes > self._max_bytes and len(self._kept) > 1:
            _, (_, dropped) = self._kept.popitem(last=False)
            self.bytes -= _size(dropped)
        return computed

    @torch.no_grad()
    def _computed(self, encoded: Encoded, table: PromptTable) -> PromptTable:
        """A pass over the prefix alone."""
        backbone, length = self._backbone, max(encoded.slots) + 1
        model = PromptedBackbone(backbone)
        prefix = Encoded(encoded.ids[:length], encoded.slots, (length - 1,))
        batch, embeds, _, _ = model.entered(model.collate([Row(prefix, prompt=0)]), table)
        recorder = Recorder()
        backbone.family.hidden(backbone.model, batch, embeds, None, recorder)
        found = recorder.by_site(backbone.sites)["self"].to(backbone.device, backbone.dtype)  # as they were computed
        visible = torch.ones(1, len(found), length, dtype=torch.bool, device=backbone.device)
        deep = DeepPrompt(found[None], tuple(range(len(found))), visible)
        shifts = torch.tensor([length], device=backbone.device)
        return PromptTable(table.inputs[:, :0], {"self": deep}, table.heads, shifts)


def _size(table: PromptTable) -> int:
    return sum(v.numel() * v.element_size() for name, v in table.tensors.items() if name.startswith("deep."))


def _without(encoded: Encoded, length: int) -> Encoded:
    """The sequence of a causal model without its first tokens."""

    def moved(places: Sequence[int]) -> tuple[int, ...]:
        return tuple(p - length for p in places if p >= length)

    return replace(
        encoded,
        ids=encoded.ids[length:],
        slots=(),
        answer_at=moved(encoded.answer_at),
        eligible=moved(encoded.eligible),
        text=moved(encoded.text),
        spans=tuple((p - length, a, b) for p, a, b in encoded.spans),
        answer_slot=encoded.answer_slot - length if encoded.answer_slot >= 0 else -1,
    )
