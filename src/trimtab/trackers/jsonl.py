"""`metrics.jsonl` in the run folder, while the run trains: `tail -f runs/RUN/metrics.jsonl`.

A line per evaluation, the same that the finished run has. A run that goes on drops the lines beyond its checkpoint, and
the end of the run writes the file anew from the loop's own history, so a killed run has the same file as any other. The
file is part of the sealed result, and sealed only then.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import final

from trimtab.files import read_jsonl, write_jsonl
from trimtab.registry import trackers
from trimtab.trackers import ALWAYS, TrackedRun, Tracker


@final
@trackers.register(ALWAYS)
class Jsonl(Tracker):
    """A line of JSON per evaluation in the run folder. Every run has it, unasked."""

    def __init__(self, run: TrackedRun) -> None:
        self._path = run.folder / "metrics.jsonl"
        if run.since is None:
            self._path.unlink(missing_ok=True)
        elif self._path.exists():
            write_jsonl(self._path, [line for line in read_jsonl(self._path) if line["step"] <= run.since])

    def log(self, step: int, values: Mapping[str, float]) -> None:
        dev = {name.removeprefix("dev/"): value for name, value in values.items() if name.startswith("dev/")}
        line = {"step": step, "train_loss": values.get("train/loss"), "dev": dev, "best": bool(values["best"])}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")

    def end(self, status: str, summary: Mapping[str, float]) -> None:
        """The folder has the final file, or is as an error has left it."""
