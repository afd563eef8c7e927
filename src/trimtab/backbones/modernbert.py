"""ModernBERT (Warner et al. 2024): rotary positions, and layers that see `local_attention` tokens only.

Most layers attend to a window (64 tokens to each side in the published models), every third to the whole sequence: a
prompt that stands farther from the answer than the window acts through the global layers and through the text between.
The window is counted in columns, and pads lie outside the sequence, so padding does not change it.
"""

from __future__ import annotations

from typing import Any, final

from jaxtyping import Float
from torch import Tensor

from trimtab.backbones.family import Family
from trimtab.registry import families


@final
@families.register("modernbert")
class ModernBert(Family):
    """ModernBERT: rotary positions, local and global attention."""

    head_prefix = ("head.", "decoder.")

    def vocabulary_features(self, model: Any, hidden: Float[Tensor, "B A H"]) -> Float[Tensor, "B A F"]:
        return model.head(hidden)
