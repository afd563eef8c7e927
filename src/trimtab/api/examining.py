"""The doctor: what may be wrong with a run, before it is started."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from trimtab.api.inputs import Overrides, Recipe, places_of, resolved
from trimtab.diagnosis import Diagnosis
from trimtab.diagnosis.doctor import chosen_checks, diagnose
from trimtab.training.preparing import open_backbone, prepare


def doctor(
    recipe: Recipe,
    overrides: Overrides = (),
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
        What every check found, see `trimtab.diagnosis.Diagnosis`.

    Raises:
        TrimtabError: what `run` would refuse, or a check that does not exist.
    """
    begun, checks = time.perf_counter(), chosen_checks(only, skip)
    config = resolved(recipe, overrides).config
    prepared = prepare(config, open_backbone(config.backbone, device), places_of(data_dir))
    return diagnose(prepared, checks, begun)
