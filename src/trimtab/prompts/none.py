"""No prompt: what a head learns on the frozen backbone alone (linear probing), or a backbone that is trained without.

Parameters: none; the readout or the backbone has them. This is the baseline that says what a prompt adds.
"""

from __future__ import annotations

from typing import final

from trimtab.prompts import Wordless
from trimtab.registry import prompts


@final
@prompts.register("none")
class NoPrompt(Wordless):
    """No prompt: the baseline of a head, or of a backbone, that is trained alone."""

    default_learning_rate = 1e-2
