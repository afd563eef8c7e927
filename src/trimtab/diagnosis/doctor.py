"""The doctor: prepares a run as `trimtab run` would, lets every check look at it, and trains nothing to its end."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trimtab.config import read_recipe, resolve
from trimtab.diagnosis import TOPICS, Check, Diagnosis, Finding
from trimtab.diagnosis.case import Case
from trimtab.errors import ConfigError, TrimtabError, suggest
from trimtab.registry import checks
from trimtab.tasks import SPLITS
from trimtab.tasks.reading import Places
from trimtab.training.preparing import Prepared, open_backbone, prepare


def doctor(
    recipe: str | Path | Mapping[str, Any],
    overrides: Sequence[str] | Mapping[str, Any] = (),
    *,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    device: str = "auto",
    data_dir: str | Path | None = None,
) -> Diagnosis:
    """Look for what may be wrong with a run before it is started.

    The backbone is loaded once; a few rows are scored and a few steps are taken and forgotten. Nothing is written but
    to a scratch folder.

    Args:
        recipe: a file, or its content as a mapping.
        overrides: `"key=value"` texts or a mapping dotted key -> value.
        only: the checks that are made; all by default.
        skip: checks that are not made.
        device: `auto`, `cpu` or `cuda`.
        data_dir: where `data:` paths start.

    Returns:
        What every check found, see `Diagnosis`.

    Raises:
        TrimtabError: what `run` would refuse, or a check that does not exist.
    """
    begun, chosen = time.perf_counter(), _chosen(only, skip)
    config = resolve(recipe if isinstance(recipe, Mapping) else read_recipe(Path(recipe)), overrides).config
    given = data_dir or os.environ.get("TRIMTAB_DATA")
    prepared = prepare(config, open_backbone(config.backbone, device), Places(Path(given) if given else None))
    return diagnose(prepared, chosen, begun)


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


def _chosen(only: Sequence[str], skip: Sequence[str]) -> list[str]:
    """The checks to be made."""
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
