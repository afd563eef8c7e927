"""The loss around finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trimtab.api.inputs import check_split, split_again
from trimtab.errors import ConfigError
from trimtab.landscape.measuring import measure_all
from trimtab.landscape.point import MAX_TOKENS
from trimtab.landscape.sharpness import Protocol
from trimtab.landscape.survey import check_views, open_subjects, sampled, survey
from trimtab.landscape.views import Settings
from trimtab.storage import find_run
from trimtab.studies.analysis.sharpness import runs_to_measure
from trimtab.studies.folder import StudyFolder
from trimtab.training.loop import Report


def landscape(
    runs: Sequence[str | Path],
    views: Sequence[str] | None = None,
    *,
    study: str | Path | None = None,
    sharpness: bool = True,
    points: int = 17,
    radius: float | None = None,
    directions: str = "auto",
    unit: str = "common",
    split: str = "test",
    task: str | None = None,
    examples: int = 24,
    seed: int = 0,
    log: bool = False,
    redraw: bool = False,
    out: str | Path | None = None,
    max_tokens: int = MAX_TOKENS,
    runs_dir: str | Path = "runs",
    device: str = "auto",
    data_dir: str | Path | None = None,
    report: Report | None = None,
) -> dict[str, Any]:
    """The loss around finished runs, written to RUN/landscape/ as arrays, pictures and a page.

    Runs that are given together are compared: the same examples, grid, random directions, units and colors.

    Args:
        runs: run folders, or ids under `runs_dir`.
        views: `text`, `prompt`, `path` and `plane`, see `trimtab.landscape.views`; text and prompt by default, of a
            study none.
        study: a study folder, whose reported runs are taken in the place of `runs`, those of one task and backbone at
            a time; its report then has a section on stability.
        sharpness: measure how sharp the loss is, too, see `trimtab.landscape.sharpness`.
        points, radius, directions, unit, seed, max_tokens: see `trimtab.landscape.views.Settings`.
        split: where the examples come from.
        task: of runs on several tasks, the one whose loss is looked at.
        examples: on how many the loss is taken; they are drawn with `seed`.
        log: logarithmic colors and heights in pictures.
        redraw: draw again what was computed before; nothing is computed, and all views are drawn that there are.
        out: where pictures and pages of several runs go; by default to the first run's folder.
        report: receives events, see `trimtab.landscape.survey.survey`.

    Returns:
        `surfaces` and `pairs`: what was computed, in numbers; `sharpness`: of each run that has been measured, the
        content of its sharpness.json; `files` that were written; `notes`.

    Raises:
        BundleError, DataError: a run, or its data, is not there or not what it was.
        ConfigError: options or runs that do not go together, a gradient that is zero, or not enough memory.
    """
    from trimtab.reports.landscapes import write_pictures
    from trimtab.reports.sharpness import read_sharpness

    groups = _groups(runs, study, Path(runs_dir))
    chosen = list(views or (() if redraw or study is not None else ("text", "prompt")))
    check_views(chosen)
    check_split(split)
    if not redraw:
        settings, tell = Settings(points, radius, directions, unit, seed, max_tokens), report or (lambda event: None)
        for folders in groups:
            splits = [split_again(folder, split, data_dir, task) for folder in folders]
            sample = sampled(splits, split, examples, seed)
            subjects = open_subjects(folders, sample, task=task, device=device, max_tokens=max_tokens)
            survey(subjects, chosen, settings, tell)
            if sharpness:
                measure_all(subjects, Protocol(seed=seed), tell)
    found: dict[str, Any] = {"surfaces": [], "pairs": [], "files": [], "notes": [], "sharpness": []}
    for folders in groups:
        if chosen or study is None:
            its = write_pictures(folders, chosen or None, log=log, out=None if out is None else Path(out))
            found |= {key: [*found[key], *(i for i in value if i not in found[key])] for key, value in its.items()}
        found["sharpness"] += read_sharpness(folders)
    return found


def _groups(runs: Sequence[str | Path], study: str | Path | None, runs_dir: Path) -> list[list[Path]]:
    """Folders of runs that are looked at together."""
    if (study is None) == (not runs):
        raise ConfigError(
            f"name runs or a study, {'not both' if runs else 'got neither'}.",
            where="runs",
            fix="trimtab landscape RUN [RUN ...], or trimtab landscape --study DIR.",
        )
    if study is not None:
        return runs_to_measure(StudyFolder(Path(study)))
    return [[find_run(str(run), runs_dir) for run in runs]]
