"""Gradients: every row of the prompt, and every parameter behind it, learns something."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

from jaxtyping import Float
from torch import Tensor

from trimtab.diagnosis import Check, Finding
from trimtab.diagnosis.case import FIRST_STEPS, Case
from trimtab.registry import checks
from trimtab.training.tuning import PREFIX

_WITHIN = {"inputs": 1, "deep": 2, "gate": 2, "router": 1, "head": 1}
"""How many dimensions number the rows of a part: layers and virtual tokens of a deep prompt, for one."""


@final
@checks.register("gradients")
class Gradients(Check):
    """Does every trained row get a gradient, a finite one, in the first steps?"""

    topic = "training"

    def examine(self, case: Case) -> Iterator[Finding]:
        if not case.is_trained:
            return
        first = case.first
        if len(first.losses) < min(FIRST_STEPS, case.steps) or not all(
            g.isfinite().all() for g in first.gradients.values()
        ):
            yield Finding(
                "problem",
                f"the loss or a gradient is not finite after {len(first.losses)} steps",
                "Use backbone.dtype=float32, or a lower training.learning_rate.",
                {"losses": list(first.losses)},
            )
            return
        rows = {name: by_row(name, g) for name, g in first.gradients.items() if g.numel()}
        yield from self._offsets(case, rows)
        dead = {n: (its == 0).nonzero().tolist() for n, its in rows.items() if n in _judged(rows) and (its == 0).any()}
        silent = _silent(case)
        numbers = {"losses": list(first.losses), "without": dead, "parameters_without": silent}
        if dead and not silent and case.table.routing is not None and dead.keys() <= {"inputs", "router"}:
            seen = f"prompts that the router did not choose in {FIRST_STEPS} steps got no gradient: {_counted(dead)}"
            yield Finding("note", seen, "Watch whether they are chosen later; prompt.noise shakes the router.", numbers)
        elif dead or silent:
            what = [_counted(dead)] if dead else []
            what += [f"parameters {', '.join(silent)}"] if silent else []
            yield Finding(
                "problem",
                f"no gradient in {FIRST_STEPS} steps reaches {' and '.join(what)}",
                "See that the prompt stands before what is read ({answer} last for causal models): `trimtab show`.",
                numbers,
            )
        else:
            ratio = {n: float(its.max() / its.min()) for n, its in rows.items() if n in _judged(rows)}
            many = sum(rows[n].numel() for n in _judged(rows))
            spread = max(ratio.values(), default=1.0)
            seen = (
                f"all {many} rows have a gradient in {FIRST_STEPS} steps, the largest {spread:.3g} times the smallest"
            )
            yield Finding("ok", seen, numbers={**numbers, "largest_to_smallest": ratio})

    def _offsets(self, case: Case, rows: dict[str, Tensor]) -> Iterator[Finding]:
        """Offsets of text tokens that no text is long enough for."""
        if "text_offset" in rows:
            longest = max(len(v.text) for row in case.rows("train") for v in row.variants)
            length = len(rows["text_offset"])
            if length > longest:
                yield Finding(
                    "note",
                    f"offsets of tokens {longest + 1} to {length} are never trained: no training text is that long",
                    f"Set prompt.text_length={longest}, if no other text will be longer.",
                    {"longest": longest, "length": length},
                )


def _silent(case: Case) -> list[str]:
    """Parameters without a gradient. Of a trained backbone a part may be unused, such as its vocabulary head."""
    silent = list(case.first.silent)
    own = [name for name in case.loop.pack.names if name.startswith(PREFIX)]
    is_deaf = bool(own) and set(own) <= set(silent)
    return [name for name in silent if is_deaf or name not in own]


def by_row(name: str, gradient: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The gradient of each row of a part; of a deep prompt by layer and virtual token."""
    if name.startswith("deep."):  # [N,2,P,K,D]
        return gradient.permute(0, 2, 1, 3, 4).flatten(2).sum(-1)
    kept = _WITHIN.get(name.partition(".")[0], 1)
    return gradient.flatten(kept).sum(-1) if gradient.ndim > kept else gradient


def _judged(rows: dict[str, Tensor]) -> list[str]:
    """Parts of which every row must learn; offsets depend on the length of a text."""
    return [name for name in rows if name != "text_offset"]


def _counted(dead: dict[str, list[list[int]]]) -> str:
    return ", ".join(f"{len(its)} rows of {name}" for name, its in dead.items())
