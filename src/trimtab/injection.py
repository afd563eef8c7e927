"""How a prompt enters the backbone. Input prompts: their vectors replace the slots of the embedded sequence."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from trimtab.types import Batch, PromptTable


def place_prompt(embeds: Float[Tensor, "B T E"], table: PromptTable, batch: Batch) -> Float[Tensor, "B T E"]:
    """Put each row's prompt into its slots; rows with `prompt_of` -1 stay as they are.

    One gather, so one batch may mix prompts. The result has the dtype of `embeds` (a float32 prompt is rounded once,
    where it enters a bfloat16 backbone); gradients flow to the table in float32, and to `embeds` outside the slots.
    """
    row, slot = ((batch.slots >= 0) & (batch.prompt_of >= 0)[:, None]).nonzero(as_tuple=True)
    vectors = table.inputs[batch.prompt_of[row], slot]
    return embeds.index_put((row, batch.slots[row, slot]), vectors.to(embeds.dtype))
