"""Learning rate, length and first values to begin with, for each kind of backbone and prompt method.

They are results, not opinions: `scripts/presets.py` takes them from the dev scores of studies on several tasks and
writes `presets.yaml`, see docs/guide/presets.md. A recipe that names none of these values does not read them: it has
the defaults of the components, so that an old recipe means the same tomorrow. `trimtab init` writes them out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from trimtab.documents import read_yaml

FILE = Path(__file__).with_suffix(".yaml")


@dataclass(frozen=True)
class Preset:
    """What a recipe begins with.

    Attributes:
        learning_rate: `training.learning_rate`.
        length: `prompt.length`, virtual tokens.
        initializer: `prompt.initializer.kind`; None where the method has a start of its own (deep prompts).
    """

    learning_rate: float
    length: int
    initializer: str | None = None

    def prompt(self) -> dict[str, Any]:
        """The options for the section `prompt`; an initializer only where it is not the usual one, `sampled_vocab`."""
        usual = self.initializer in (None, "sampled_vocab")
        return {"length": self.length} | ({} if usual else {"initializer": self.initializer})


@cache
def presets() -> dict[tuple[str, str], Preset]:
    """All there are, by (architecture, prompt method); the architecture as in `Family.architecture`.

    >>> presets()["masked", "residual"].length
    10
    """
    return {
        (architecture, method): Preset(**values)
        for architecture, methods in read_yaml(FILE).items()
        for method, values in methods.items()
    }
