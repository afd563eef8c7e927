"""A manual prompt: the words of the template, and nothing that is trained (zero-shot; Brown et al. 2020,
arXiv 2005.14165; the column MP of P-tuning's LAMA table, Liu et al. 2021, arXiv 2103.10385).

    scores = readout( M( template(x) ) )        with the slots for virtual tokens left out

Parameters: none, and no optimizer step is taken: the dev split is scored once, then test. It is the baseline that says
what any training adds. What it scores equals `baselines.no_prompt` of every run on the same template; a task that has
another one for the bare model (LAMA) is asked by it with `task.template: manual`.
"""

from __future__ import annotations

from typing import final

from trimtab.prompts import Wordless
from trimtab.registry import prompts


@final
@prompts.register("manual")
class Manual(Wordless):
    """The template as it is, nothing trained: the zero-shot baseline."""

    default_learning_rate = 1e-2
    is_fixed = True
