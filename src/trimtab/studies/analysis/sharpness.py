"""Sharpness of the loss against spread and score of lines, from what `trimtab landscape` has left in run folders.

PTP's story is causal: a rugged loss makes scores vary over seeds, a smoother one makes them steady (Chen et al. 2023,
arXiv 2305.02423). What a study can check of it is whether lines whose loss is sharper vary more, or score less. Lines
of different tasks are not compared with each other. Plain data, read from run folders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from trimtab.documents import read_yaml
from trimtab.errors import BundleError, DataError
from trimtab.files import understood
from trimtab.storage import prompt_sha256
from trimtab.studies.analysis.lines import Line, build_lines, fixed
from trimtab.studies.analysis.pairs import attempt
from trimtab.studies.definition import check_study
from trimtab.studies.folder import SHARPNESS_FILE as FILE
from trimtab.studies.folder import StudyFolder, StudyRun
from trimtab.studies.statistics.correlation import rank_correlation
from trimtab.studies.statistics.stability import summary

SCHEMA = 1

MEASURES: dict[str, tuple[str, str]] = {
    "words.mean_absolute": ("jump when a word is swapped", "nats"),
    "text.epsilon_sharpness": ("ε-sharpness, texts", "%"),
    "text.top_eigenvalue": ("top eigenvalue, texts", "nats/u²"),
    "text.trace": ("Hessian trace, texts", "nats/u²"),
    "text.lipschitz": ("Lipschitz estimate, texts", "nats/u"),
    "text.gradient_norm": ("gradient norm, texts", "nats/u"),
    "text.range": ("max − min, texts", "nats"),
    "text.slope": ("mean slope of the grid, texts", "nats/step"),
    "prompt.epsilon_sharpness": ("ε-sharpness, prompt", "%"),
    "prompt.top_eigenvalue": ("top eigenvalue, prompt", "nats/u²"),
    "prompt.trace": ("Hessian trace, prompt", "nats/u²"),
    "prompt.lipschitz": ("Lipschitz estimate, prompt", "nats/u"),
    "prompt.gradient_norm": ("gradient norm, prompt", "nats/u"),
    "prompt.range": ("max − min, prompt", "nats"),
    "prompt.slope": ("mean slope of the grid, prompt", "nats/step"),
}
"""Number of sharpness.json -> what people call it, and its unit."""


def stability(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """For every task whose runs have been measured: lines as points, and rank correlations over lines.

    Raises:
        BundleError: a file is of another schema, or of another prompt than that of its run.
        DataError: runs of one task were measured on different examples, or in different ways.
    """
    found = []
    for task in dict.fromkeys(line.task for line in lines):
        own = [line for line in lines if line.task == task]
        files = {r.run.key: its for line in own for r in line.reported if (its := read(r.run)) is not None}
        if files:
            _check_alike(list(files.values()))
            found.append(_of_task(task, own, files))
    return found


def runs_to_measure(folder: StudyFolder) -> list[list[Path]]:
    """Folders of the finished runs that the report shows, in groups that can be measured together: those of one task,
    with the same data and backbone.

    Raises:
        TrimtabError: not a study folder, or a run folder that was changed.
        DataError: no run has finished yet.
    """
    runs = folder.read()
    study = check_study(read_yaml(folder.path / "study.yaml"))
    groups: dict[str, list[Path]] = {}
    for line in build_lines(study, runs):
        for run in (r.run for r in line.reported):
            if run.folder is not None and (run.folder / "bundle.json").exists():
                prints = run.record.get("fingerprints") or {}
                group = fixed([line.task, prints.get("data"), prints.get("backbone")])
                groups.setdefault(group, []).append(run.folder)
    if not groups:
        raise DataError(
            "no run of the study has finished yet, so there is no prompt to look around.",
            where=str(folder.path),
            fix="Train it first: trimtab study.",
        )
    return list(groups.values())


def read(run: StudyRun) -> dict[str, Any] | None:
    """What was measured of a run; None if nothing was.

    Raises:
        BundleError: as `stability`.
    """
    its = run.sharpness()
    if its is None:
        return None
    if run.folder is None:
        check_measured(its, f"{run.name}/{FILE}", its.get("prompt_sha256"))
    else:
        check_measured(its, str(run.folder / FILE), prompt_sha256(run.folder))
    return its


def check_measured(its: Mapping[str, Any], where: str, prompt: str | None) -> None:
    """Refuse numbers that cannot be read, or that belong to something else.

    Args:
        its: the content of a sharpness.json.
        where: it lies.
        prompt: SHA-256 of the prompt that it should be of.

    Raises:
        BundleError: they are of another schema, of another prompt, or no numbers.
    """
    if its.get("schema") != SCHEMA:
        raise BundleError(
            f"the sharpness has schema {its.get('schema')!r}, this version of trimtab reads {SCHEMA}.",
            where=where,
            fix="Measure it again: trimtab landscape.",
        )
    if its.get("prompt_sha256") != prompt:
        raise BundleError(
            "what was measured is another prompt than that of the run.",
            where=where,
            fix="Measure it again: trimtab landscape.",
        )
    with understood(Path(where)):
        numbers(its), way_of(its)


def way_of(its: Mapping[str, Any]) -> str:
    """How a run was measured: equal for those whose numbers may stand side by side."""
    return fixed([(its.get("batch") or {}).get("sha256"), its.get("protocol")])


def numbers(its: Mapping[str, Any]) -> dict[str, float]:
    """The measures that a file has."""
    found = {}
    for name in MEASURES:
        part, _, key = name.partition(".")
        value = (its.get(part) or {}).get(key)
        if value is not None:
            found[name] = float(value)
    return found


def _check_alike(files: Sequence[Mapping[str, Any]]) -> None:
    """Refuse numbers that mean different things."""
    ways = {way_of(its): str(its.get("run")) for its in files}
    if len(ways) > 1:
        raise DataError(
            f"sharpness is compared on the same examples, measured in the same way; these runs differ in that: "
            f"{', '.join(list(ways.values())[:3])}.",
            where=FILE,
            fix="Measure them together: trimtab landscape --study.",
        )


def _of_task(task: str, lines: Sequence[Line], files: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    points = [_point(line, files) for line in lines]
    points = [p for p in points if p["measured"]]
    measures = [m for m in MEASURES if any(m in p["values"] for p in points)]
    first = next(iter(files.values()))
    return {
        "task": task,
        "metric": next((line.metric for line in lines if line.metric), ""),
        "examples": len((first.get("batch") or {}).get("examples") or ()),
        "protocol": first.get("protocol"),
        "measures": measures,
        "points": points,
        "correlations": {m: {side: _correlated(points, m, side) for side in ("sd", "mean")} for m in measures},
    }


def _point(line: Line, files: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """A line: its scores over all reported runs, its sharpness over those that were measured."""
    tests = [r.test for r in line.reported]
    each = [numbers(files[r.run.key]) for r in line.reported if r.run.key in files]
    values = {}
    for name in MEASURES:
        its = [n[name] for n in each if name in n]
        if its:
            values[name] = {"mean": fmean(its), "sd": stdev(its) if len(its) > 1 else None, "n": len(its)}
    return {
        "label": line.label,
        "n": len(tests),
        "measured": len(each),
        "mean": fmean(tests) if tests else None,
        "sd": summary(tests).sd if tests else None,
        "values": values,
    }


def _correlated(points: Sequence[Mapping[str, Any]], measure: str, side: str) -> dict[str, Any] | None:
    """Rank correlation over lines; None where fewer than three have both numbers."""
    both = [(p["values"][measure]["mean"], p[side]) for p in points if measure in p["values"] and p[side] is not None]
    found = attempt(lambda: rank_correlation([x for x, _ in both], [y for _, y in both]))
    return asdict(found) if found else None
