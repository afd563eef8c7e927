"""Run folders: train what is not finished, continue what was killed, write what has come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from trimtab.errors import TrimtabError
from trimtab.files import hold
from trimtab.storage import RunFolder
from trimtab.trackers import TrackedRun
from trimtab.training.loop import Report
from trimtab.training.packs import Trained, check_pack, train_pack
from trimtab.training.parallel import ALONE, Processes
from trimtab.training.preparing import Prepared
from trimtab.training.records import bare_score, opening, rescue, write_run
from trimtab.training.resume import read_checkpoint, remove_checkpoint
from trimtab.training.tracking import Following

_ENDED = ("done", "diverged")


def run_pack(
    pack: Sequence[Prepared],
    runs_dir: Path,
    *,
    again: bool = False,
    report: Report | None = None,
    track: Sequence[Mapping[str, Any]] = (),
    group: str | None = None,
    processes: Processes = ALONE,
) -> list[dict[str, Any]]:
    """Train what is not finished yet, write run folders, return the records (run.json) in the order given.

    A run whose loss was not finite has the status `diverged`: it keeps its last good state or, where there was none,
    has no metrics and no bundle.

    Several processes that are given the same runs train them together. Process 0 does all reading and writing of run
    folders; what it refuses, all refuse.

    Args:
        again: train runs that are finished, too.
        report: receives the events of the loop, `run` being the number in `pack`, and notes of trackers that failed.
        track: resolved trackers, see `trimtab.trackers.check_trackers`; `group` is the study that they may name.

    Raises:
        BackboneError: the backbone alone gives scores that are not numbers; nothing was written.
        TrimtabError: a run folder could not be written; the trained prompt was saved elsewhere, the message says where.
    """
    check_pack(pack, processes)
    folders = [RunFolder(runs_dir / p.id) for p in pack]
    todo = processes.on_main(lambda: [i for i, f in enumerate(folders) if again or f.status != "done"])
    if todo:
        report = report or (lambda event: None)
        tracked = {i: TrackedRun(pack[i].id, pack[i].config.as_dict(), folders[i].path, group) for i in todo}
        with ExitStack() as held:
            bare, place, ids = processes.on_main(lambda: _begin(pack, folders, todo, again, held))
            trained_together = [[p.id for p in pack].index(run) for run in ids]
            following = held.enter_context(Following(tracked, track, report))

            def told(event: Mapping[str, Any]) -> None:
                event = {**event, "run": trained_together[event["run"]]}
                following(event)
                report(event)

            results = train_pack([pack[i] for i in trained_together], told, place, processes)
            trained = {i: t for i, t in zip(trained_together, results, strict=True) if i in todo}
            processes.on_main(lambda: _write_all(folders, trained, bare, place, following))
    else:
        processes.on_main(lambda: _forget(folders))
    return processes.on_main(lambda: [{"run": str(f.path), **f.record} for f in folders])


def _begin(
    pack: Sequence[Prepared], folders: Sequence[RunFolder], todo: Sequence[int], again: bool, held: ExitStack
) -> tuple[float | None, Path, tuple[str, ...]]:
    """Lock and open the folders of `todo`. Returns the bare score, the folder of the checkpoint, and the ids of the
    runs to train together: those of `todo`, or of the pack that was killed, if all its runs are in `pack`."""
    bare = bare_score(pack[todo[0]])
    held.enter_context(hold([folders[i].path for i in todo], "training this run", "--runs-dir"))
    if again:
        remove_checkpoint(folders[0].path)
    for i in todo:
        size = 4 * pack[i].backbone.parameter_count if pack[i].config.training.tunes_backbone else 0
        folders[i].begin(pack[i].config.as_dict(), opening(pack[i]), size)
    ids = [p.id for p in pack]
    for folder in (f.path for f in folders):
        found = read_checkpoint(folder)
        if found is not None and {ids[i] for i in todo} <= set(found.runs) <= set(ids):
            return bare, folder, found.runs
    return bare, folders[todo[0]].path, tuple(ids[i] for i in todo)


def _write_all(
    folders: Sequence[RunFolder], results: Mapping[int, Trained], bare: float | None, place: Path, following: Following
) -> None:
    """Write run folders, and say so; a prompt whose folder cannot be written is saved elsewhere."""
    written, failed = list[int](), list[TrimtabError]()
    for i, trained in results.items():
        try:
            write_run(folders[i], trained, bare)
            written.append(i)
        except TrimtabError as error:
            failed.append(rescue(trained, error))
    if not failed:
        remove_checkpoint(place)
    for i in written:
        following.finished(i, folders[i].record)
    if failed:
        raise failed[0]


def _forget(folders: Sequence[RunFolder]) -> None:
    """Remove checkpoints that were killed between the end of their last run and their own; nobody trains those runs."""
    for folder in folders:
        with suppress(TrimtabError):
            found = read_checkpoint(folder.path)
            if found is not None and all(RunFolder(folder.path.parent / run).status in _ENDED for run in found.runs):
                remove_checkpoint(folder.path)
