"""What may be wrong with a run, found before it is started: checks, and what they have seen.

A check looks at a prepared run (see `trimtab.diagnosis.case`) and yields findings. It refuses nothing and changes
nothing: what `trimtab run` would refuse is refused before any check looks. One check is one file in
`trimtab.diagnosis.checks`; docs/doctor.md says of each what it asks and what its findings mean.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

from trimtab.diagnosis.case import Case

Severity = Literal["ok", "note", "warning", "problem"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
"""From the mildest: all is well; good to know; likely to spoil the result; the result would mean nothing."""

Topic = Literal["data", "text", "training", "model"]
TOPICS: tuple[Topic, ...] = get_args(Topic)
"""What checks look at, in the order in which they are made."""


@dataclass(frozen=True)
class Finding:
    """What a check has seen.

    Attributes:
        seen: a sentence, with the numbers that matter.
        advice: what to do, as it is typed where that is possible; empty where nothing is to be done.
        numbers: what was measured, as plain data.
        check: which check it was, and `task` of which task, where a run has several. The doctor fills both in.
    """

    severity: Severity
    seen: str
    advice: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    check: str = ""
    task: str = ""

    def as_json(self) -> dict[str, Any]:
        """`{check[, task], severity, seen[, advice], numbers}`."""
        of = {"task": self.task} if self.task else {}
        advice = {"advice": self.advice} if self.advice else {}
        return {"check": self.check, **of, "severity": self.severity, "seen": self.seen, **advice,
                "numbers": dict(self.numbers)}  # fmt: skip


class Check(ABC):
    """One thing that may be wrong. The first line of its docstring says what it asks.

    Attributes:
        topic: what it looks at.
        of_each_task: whether it looks at the tasks of a run one by one.
    """

    topic: ClassVar[Topic]
    of_each_task: ClassVar[bool] = False

    @abstractmethod
    def examine(self, case: Case) -> Iterator[Finding]:
        """What it sees; nothing where the question does not arise."""


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor found.

    Attributes:
        about: of the run: `id`, `task`, `prompt`, `readout`, `backbone`, `dtype`, `device`, `steps`, `rows`.
        findings: of all checks, in their order.
        unasked: checks whose question does not arise with this recipe.
        seconds: that it took.
    """

    about: Mapping[str, Any]
    findings: tuple[Finding, ...]
    unasked: tuple[str, ...]
    seconds: float

    @property
    def counts(self) -> dict[Severity, int]:
        """How many findings there are of each severity."""
        found = Counter(its.severity for its in self.findings)
        return {severity: found[severity] for severity in SEVERITIES}

    @property
    def worst(self) -> Severity:
        """The gravest severity."""
        return max((its.severity for its in self.findings), key=SEVERITIES.index, default="ok")

    def is_fit(self, *, strict: bool = False) -> bool:
        """Whether nothing is worse than a warning, or than a note where it is `strict`."""
        return SEVERITIES.index(self.worst) < SEVERITIES.index("warning" if strict else "problem")

    def of(self, check: str) -> tuple[Finding, ...]:
        """The findings of one check."""
        return tuple(its for its in self.findings if its.check == check)

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**self.about, "worst": self.worst, "counts": self.counts,
                "findings": [its.as_json() for its in self.findings], "unasked": list(self.unasked),
                "seconds": round(self.seconds, 2)}  # fmt: skip
