"""Fine-tuning: every weight of the backbone (Devlin et al. 2019, arXiv 1810.04805, section 3.2).

Parameters: all, kept in a copy of the backbone's size per task. Cost per step: gradients of the weights, about a third
more than a frozen backbone's step, and four more copies of the weights in memory (see `trimtab.training.tuning`).
"""

from __future__ import annotations

from typing import Any, final

from trimtab.registry import tunings


@final
@tunings.register("all")
class All:
    """Every weight."""

    def open(self, model: Any) -> None:
        """All parameters require gradients."""
        model.requires_grad_(True)
