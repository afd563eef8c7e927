"""How a prompt enters the backbone. Input prompts: their vectors replace the slots of the embedded sequence."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from trimtab.types import Batch, PromptTable


def place_prompt(embeds: Float[Tensor, "B T E"], table: PromptTable, batch: Batch) -> Float[Tensor, "B T E"]:
    """Put each row's prompt into its slots; rows with `prompt_of` -1 stay as they are.

    One gather, so one batch may mix prompts. The result has the dtype of `embeds` (a float32 prompt is rounded once,
    where it enters a bfloat16 backbone); gradients flow to the table in float32, and to `embeds` outside the slots.
    """
    return _place(embeds, table, batch.prompt_of, batch.slots)


def place_decoder_prompt(embeds: Float[Tensor, "B U E"], table: PromptTable, batch: Batch) -> Float[Tensor, "B U E"]:
    """The same for what the decoder of an encoder-decoder reads; the rows of a prompt that stand there."""
    return embeds if batch.decoder_slots is None else _place(embeds, table, batch.prompt_of, batch.decoder_slots)


def _place(
    embeds: Float[Tensor, "B T E"], table: PromptTable, prompt_of: Int[Tensor, "B"], slots: Int[Tensor, "B P"]
) -> Float[Tensor, "B T E"]:
    row, slot = ((slots >= 0) & (prompt_of >= 0)[:, None]).nonzero(as_tuple=True)
    vectors = table.inputs[prompt_of[row], slot]
    return embeds.index_put((row, slots[row, slot]), vectors.to(embeds.dtype))
