"""Many runs, and what they have shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from trimtab.api.inputs import places_of
from trimtab.studies.definition import name_of, read_study
from trimtab.studies.driver import Course, Driver, executor_of
from trimtab.studies.folder import StudyFolder
from trimtab.trackers import Spec, check_trackers
from trimtab.training.loop import Report


def study(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    studies_dir: str | Path = "studies",
    name: str | None = None,
    on: str = "local",
    address: str | None = None,
    workers: int | None = None,
    device: str = "auto",
    data_dir: str | Path | None = None,
    extend: bool = False,
    retry: bool = False,
    results: str | Path | None = None,
    track: Sequence[Spec] = (),
    report: Report | None = None,
) -> dict[str, Any]:
    """Train every run of a study that has not ended yet, and write its report.

    A study that was killed goes on where it stopped: with the same packs, from their last checkpoints.

    Args:
        path: a study file, see `trimtab.studies.definition`.
        overrides: `"key=value"`, of the study (`seeds=3`) or of its recipe.
        studies_dir: where study folders go.
        name: of the folder; by default the file's, and of a `study.yaml` that of the folder it lies in.
        on: `local`, or `ray` for a cluster.
        address: of the cluster; none for one of this machine alone.
        workers: processes on this machine; by default one, or one per GPU.
        device: `auto`, `cpu` or `cuda`.
        data_dir: where `data:` paths start.
        extend: take the new plan where the folder holds another; its finished runs that the new one has too are kept.
        retry: train failed runs again.
        results: the `results.jsonl.gz` of a study of the same plan, from which this one goes on.
        track: as of `run`; the workers make the trackers, and services that have groups put the study's runs in one.
        report: receives progress events, see `trimtab.studies.driver.Driver`.

    Returns:
        The content of study.json and `folder`.

    Raises:
        TrimtabError: something in the study, its recipe, the data or the model must be changed, or the disk is full.
    """
    config, folder = read_study(Path(path), overrides), _study_folder(path, studies_dir, name)
    course = _course(device, data_dir, retry, check_trackers(track))
    events = report or (lambda event: None)
    with executor_of(on, course, events, address=address, workers=workers, limits=config.pack) as executor:
        driver = Driver(config, folder, executor, course, events)
        driver.run(extend=extend, results=None if results is None else Path(results))
    return _written(folder)


def plan(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    studies_dir: str | Path = "studies",
    name: str | None = None,
    on: str = "local",
    address: str | None = None,
    workers: int | None = None,
    device: str = "auto",
    data_dir: str | Path | None = None,
    report: Report | None = None,
) -> dict[str, Any]:
    """What a study would do: its runs, packs, memory and time. Nothing is written but to a scratch folder.

    Arguments, errors: as `study`. A few steps of every group of runs are taken to see what they need.

    Returns:
        `name`, `digest`, `lines`, `expected` runs by stage, and `groups`: for each its `cells`, `runs`, runs of a
        `pack`, `packs`, `bytes` of a pack and `seconds` in all. With a search, the groups are of one batch of trials.
    """
    config, folder = read_study(Path(path), overrides), _study_folder(path, studies_dir, name)
    course = _course(device, data_dir)
    events = report or (lambda event: None)
    with (
        TemporaryDirectory() as scratch,
        executor_of(on, course, events, address=address, workers=workers, limits=config.pack) as executor,
    ):
        driver = Driver(config, StudyFolder(Path(scratch)), executor, course, events)
        return {"folder": str(folder.path), **driver.plan(folder.path.name)}


def report(study: str | Path) -> dict[str, Any]:
    """Write the report of a study from its files, whether it has ended or not: nothing is trained.

    Args:
        study: the folder of a study.

    Returns:
        The content of study.json, `folder`, and `files` by name.

    Raises:
        TrimtabError: not a study folder, one of another schema version, a run folder that was changed by hand, or a
            disk that refuses.
    """
    return _written(StudyFolder(Path(study)))


def _study_folder(path: str | Path, studies_dir: str | Path, name: str | None) -> StudyFolder:
    return StudyFolder(Path(studies_dir) / (name or name_of(Path(path))))


def _written(folder: StudyFolder) -> dict[str, Any]:
    from trimtab.reports.study import paths, write_report

    return {**write_report(folder), "folder": str(folder.path), "files": paths(folder.path)}


def _course(
    device: str, data_dir: str | Path | None, retry: bool = False, track: tuple[dict[str, Any], ...] = ()
) -> Course:
    data = places_of(data_dir).data
    return Course(None if data is None else str(data), device, retry, track)
