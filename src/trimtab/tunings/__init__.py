"""How a backbone is trained, where it is: which of its weights, one file per way.

`training.learning_rates.backbone` says whether a backbone is trained at all; `backbone.tuning` says how. What is
trained is kept beside the prompt (`backbone.safetensors`), and nothing else of the backbone.
"""

from __future__ import annotations

from typing import Any, Protocol


class Tuning(Protocol):
    """One way to train a backbone. Construct as `Tuning(**options)`."""

    def open(self, model: Any) -> None:
        """Let what is trained require gradients, in a private copy of a model that is frozen.

        Weights may be added. Their random first values come from torch's default generator.

        Raises:
            ConfigError: the model has no such weights; what is needed is not installed.
        """
        ...
