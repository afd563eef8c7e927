"""The doctor lets every check look at a run that is prepared, and trains nothing to its end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from trimtab.diagnosis import TOPICS, Check, Diagnosis, Finding
from trimtab.diagnosis.case import Case
from trimtab.errors import ConfigError, TrimtabError, suggest
from trimtab.registry import checks
from trimtab.tasks import SPLITS
from trimtab.training.preparing import Prepared


def diagnose(prepared: Prepared, chosen: Sequence[str], begun: float | None = None) -> Diagnosis:
    """What some checks find in a prepared run.

    Args:
        chosen: their kinds, in their order.
        begun: when the clock was started; now by default.
    """
    begun = time.perf_counter() if begun is None else begun
    case = Case(prepared)
    findings = {kind: tuple(_made(kind, case)) for kind in chosen}
    its = prepared.config
    about = {
        "id": prepared.id,
        "task": prepared.task.name,
        "prompt": its.prompt["kind"],
        "readout": its.readout["kind"],
        "backbone": prepared.backbone.name,
        "dtype": str(prepared.backbone.dtype).removeprefix("torch."),
        "device": str(prepared.backbone.device),
        "steps": case.steps,
        "rows": {split: len(prepared.task.splits[split]) for split in SPLITS},
    }
    unasked = tuple(kind for kind, found in findings.items() if not found)
    return Diagnosis(about, tuple(f for found in findings.values() for f in found), unasked,
                     time.perf_counter() - begun)  # fmt: skip


def in_order() -> list[str]:
    """The kinds of all checks, topic by topic."""
    return sorted(checks.kinds(), key=lambda kind: (TOPICS.index(checks.get(kind).topic), kind))  # type: ignore[attr-defined]


def chosen_checks(only: Sequence[str], skip: Sequence[str]) -> list[str]:
    """The kinds of the checks to be made, in their order.

    Args:
        only: these; all where there are none.
        skip: but not these.

    Raises:
        ConfigError: there is no such check.
    """
    known = in_order()
    for name in (*only, *skip):
        if name not in known:
            raise ConfigError(f"there is no check {name!r}.", where="doctor", fix=suggest(name, known))
    return [kind for kind in known if (not only or kind in only) and kind not in skip]


def _made(kind: str, case: Case) -> Iterator[Finding]:
    """What one check finds. What it is refused is a problem, too."""
    check: Check = checks.build({"kind": kind})
    for part in case.each if check.of_each_task else (case,):
        try:
            for finding in check.examine(part):
                yield replace(finding, check=kind, task=part.task)
        except TrimtabError as error:
            what = f"{error.where}: {error.what}" if error.where else error.what
            yield Finding("problem", what, error.fix or "", check=kind, task=part.task)
