"""Readouts of many tasks, shared: tasks that are read alike stand on one shelf, and a shelf is one readout.

After the one forward pass of a mixed batch each readout is asked once for all its rows, not once per task. Shelves are
short, so a task that comes or goes rebuilds little, and a batch touches no more of them than it must.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any, final

from trimtab.backbones import Backbone
from trimtab.prompt_table import PromptTable
from trimtab.readouts import Readout
from trimtab.registry import readouts
from trimtab.types import AnswerPlan

LENGTH = 256
"""Tasks on a shelf. A thousand tasks are four calls behind a pass; a task that comes has its shelf built anew, in some
10 ms."""


@final
class Shelf:
    """One readout for the tasks that stand here. Entries keep their number as long as they stay."""

    def __init__(self, backbone: Backbone, spec: Mapping[str, Any]) -> None:
        self._backbone, self._spec = backbone, spec
        self._plans: list[AnswerPlan | None] = []
        self._readout: Readout | None = None
        self._lock = threading.Lock()

    @property
    def readout(self) -> Readout:
        """The readout of all entries, built when it is asked for; gaps are filled with another entry's plan."""
        with self._lock:
            if self._readout is None:
                known = [p for p in self._plans if p is not None]
                plans = [known[0] if p is None else p for p in self._plans]
                self._readout = readouts.build(self._spec, self._backbone, plans)
            return self._readout

    @property
    def count(self) -> int:
        """How many tasks stand here."""
        return sum(p is not None for p in self._plans)

    def add(self, plan: AnswerPlan) -> int:
        """Put a task on the shelf; returns the number of its entry."""
        with self._lock:
            entry = next((i for i, p in enumerate(self._plans) if p is None), len(self._plans))
            self._plans[entry : entry + 1] = [plan]
            self._readout = None
            return entry

    def remove(self, entry: int) -> None:
        """Take a task off; what others' entries mean does not change."""
        with self._lock:
            self._plans[entry] = None


@final
class Reader:
    """Where a task is read: a shelf and an entry on it."""

    def __init__(self, shelf: Shelf, entry: int) -> None:
        self.shelf, self.entry = shelf, entry

    def close(self) -> None:
        """Give the entry up."""
        self.shelf.remove(self.entry)


@final
class Readers:
    """All shelves of one backbone."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._shelves: dict[str, list[Shelf]] = {}
        self._lock = threading.Lock()

    def open(self, spec: Mapping[str, Any], plan: AnswerPlan, table: PromptTable | None) -> Reader:
        """A place for a task.

        Args:
            spec: its resolved readout.
            plan: how its answers are read.
            table: its prompt; tasks whose heads have other shapes are read apart.
        """
        heads = {} if table is None else {name: list(v.shape[1:]) for name, v in sorted(table.heads.items())}
        key = json.dumps([dict(spec), heads], sort_keys=True)
        with self._lock:
            shelves = self._shelves.setdefault(key, [])
            shelf = next((s for s in shelves if s.count < LENGTH), None)
            if shelf is None:
                shelf = Shelf(self._backbone, spec)
                shelves.append(shelf)
            return Reader(shelf, shelf.add(plan))
