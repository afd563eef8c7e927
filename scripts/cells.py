"""Studies that belong together as one table, carried out or not: a row for each task, a column for each method.

A cell without a reported run stays empty, and how many of the planned runs are done stands beside it. All of it is read
from the study files and from the `study.json` of their published reports.

    python scripts/cells.py minilm --out docs/results/minilm
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from publishing import command_line, publish
from trimtab.metric_names import metric_name
from trimtab.reports.numbers import mean_sd
from trimtab.studies.definition import ARM, StudyConfig, read_study
from trimtab.studies.driver import plan_of, planned_runs
from trimtab.studies.plan import lines

ROOT = Path(__file__).resolve().parents[1]
TASK, METHOD = "task.kind", "prompt.kind"


@dataclass(frozen=True)
class Score:
    """What the runs of a cell scored on test, with the setting that dev chose; `sd` is None for one seed."""

    mean: float
    sd: float | None
    seeds: int
    setting: str

    def __str__(self) -> str:
        return mean_sd(self.mean, self.sd)


@dataclass(frozen=True)
class Row:
    """A task of a study.

    Attributes:
        study: the stem of its file.
        planned: runs of the whole study, shared by its tasks; `done` of these.
        metric: that stands for a run; "" before there is one.
        majority: the best constant answer on test.
        scores: method -> score, None where there is none yet.
        seconds: of all runs of this task, trials included.
    """

    study: str
    task: str
    planned: int
    done: int
    metric: str
    majority: float | None
    scores: Mapping[str, Score | None]
    seconds: float


def rows(folder: str, root: Path = ROOT) -> list[Row]:
    """All tasks of the study files in recipes/FOLDER, with what docs/results/FOLDER/STUDY/study.json has of them."""
    found = []
    for file in sorted((root / "recipes" / folder).glob("*.yaml")):
        study = read_study(file)
        facts = report(folder, file.stem, root)
        plan = plan_of(study, planned_runs(study), file.stem)
        planned, done = sum(plan["expected"].values()), facts["counts"]["done"] if facts else 0
        tasks: dict[str, dict[str, Mapping[str, Any] | None]] = {}
        for cell in lines(study):
            its = tasks.setdefault(task_of(study, cell), {})
            its[method_of(cell)] = next((x for x in reported(facts) if same(x["cell"], cell)), None)
        for task, methods in tasks.items():
            known = [line for line in methods.values() if line]
            found.append(
                Row(
                    study=file.stem,
                    task=task,
                    planned=planned,
                    done=done,
                    metric=next((line["metric"] for line in known), ""),
                    majority=next((line["majority"] for line in known if line["majority"] is not None), None),
                    scores={name: score(line) for name, line in methods.items()},
                    seconds=sum(line["cost"]["seconds"] or 0.0 for line in known),
                )
            )
    return found


def report(folder: str, study: str, root: Path = ROOT) -> dict[str, Any] | None:
    """The published study.json, if there is one."""
    file = root / "docs/results" / folder / study / "study.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def reported(facts: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    return [line for line in facts["lines"] if line["n"]] if facts else []


def same(reported: Mapping[str, Any], planned: Mapping[str, Any]) -> bool:
    """Whether a line of a report is a planned one; a report may have been made with some values of an axis only."""
    return all(reported.get(axis) == value for axis, value in planned.items())


def task_of(study: StudyConfig, cell: Mapping[str, Any]) -> str:
    """The data set: the task's kind without its form, as the arms of a study read the same rows in several."""
    kind = str(cell.get(TASK) or study.recipe["task"]["kind"])
    return kind.removesuffix("_cloze").removesuffix("_span")


def method_of(cell: Mapping[str, Any]) -> str:
    return str(cell.get(ARM) or cell[METHOD])


def score(line: Mapping[str, Any] | None) -> Score | None:
    return None if line is None else Score(line["mean"], line["sd"], line["n"], line["setting"])


def page(folder: str, found: Sequence[Row], command: str, root: Path = ROOT) -> list[str]:
    """The Markdown of the table."""
    methods = list(dict.fromkeys(name for row in found for name in row.scores))
    planned = {row.study: (row.done, row.planned) for row in found}
    done, of = (sum(numbers) for numbers in zip(*planned.values(), strict=True))
    head = ["study", "task", "metric", "majority", *methods, "runs", "hours"]
    out = [
        f"# {folder}: {done:,} of {of:,} runs are done",
        "",
        "Mean and sample standard deviation over seeds, on test, of the setting that dev chose for each cell.",
        "What is empty has not been carried out; its study goes on where it stands:",
        f"`trimtab study recipes/{folder}/STUDY.yaml --data-dir ../shared/data`.",
        "Hours are of one processor core, trials included.",
        "",
        f"| {' | '.join(head)} |",
        "|" + "---|" * len(head),
    ]
    for row in found:
        link = f"[{row.study}]({folder}/{row.study}/report.md)" if row.done else row.study
        cells = [link, row.task, metric_name(row.metric), "" if row.majority is None else f"{row.majority:.3f}"]
        cells += [str(row.scores.get(name) or "") for name in methods]
        cells += [f"{row.done} of {row.planned}", f"{row.seconds / 3600:.1f}" if row.seconds else ""]
        out.append(f"| {' | '.join(cells)} |")
    facts = [its for study in planned if (its := report(folder, study, root))]
    if facts:
        rule = "\n".join(f"* {text}" for text in dict.fromkeys(text for its in facts for text in its["rule"]))
        out += ["", "How a setting is chosen, and what is reported:", "", rule]
    out += ["", f"Command: `{command}`", ""]
    return [*out, environment(facts)] if facts else out


def environment(facts: Sequence[Mapping[str, Any]]) -> str:
    """Versions and hardware of all runs, each value once."""
    values: dict[str, dict[str, None]] = {}
    for its in facts:
        for name, seen in its["environment"].items():
            values.setdefault(name, {}).update(dict.fromkeys(map(str, seen)))
    return "; ".join(f"{name} {', '.join(seen)}" for name, seen in values.items()) + "."


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="below recipes and docs/results")
    parser.add_argument("--out", type=Path, help="writes OUT.json and OUT.md")
    a = parser.parse_args(argv)
    found = rows(a.folder)
    publish(a.out, {"rows": [asdict(row) for row in found]}, page(a.folder, found, command_line(__file__, argv)))


if __name__ == "__main__":
    main()
