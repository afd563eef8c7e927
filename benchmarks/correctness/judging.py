"""One check on one subject: the outcome, by how much it is off, and what the library said about it."""

from __future__ import annotations

import logging
import math
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from correctness.checks import Check
from correctness.subject import Cell, Library, NotApplicable, Refused

OUTCOMES = ("ok", "wrong", "silent", "error", "refused", "n/a")
"""`silent`: wrong, and no warning came with it. `refused`: said beforehand, with a reason. `error`: an exception on the
way. `n/a`: transformers, the method or the task does not have what the check is about."""
BESIDE = ("`loss_type=None` was set",)
"""Beginnings of warnings that transformers gives of its own model, too, whatever is around it."""
LOGGERS = ("transformers", "peft", "trimtab", "accelerate")


@dataclass(frozen=True)
class Outcome:
    """What came of a check.

    Attributes:
        deviation: what was measured; None where nothing was, infinite where there is no number.
        said: the reason, the exception or the warnings.
    """

    cell: Cell
    check: str
    outcome: str
    deviation: float | None
    said: str
    seconds: float

    def as_json(self) -> dict[str, Any]:
        found = {**asdict(self.cell), **{k: v for k, v in vars(self).items() if k != "cell"}}
        is_finite = self.deviation is None or math.isfinite(self.deviation)
        return found | {"deviation": self.deviation if is_finite else "infinite", "seconds": round(self.seconds, 2)}


def judged(check: Check, library: Library, cell: Cell) -> Outcome:
    """Carry out a check. Whatever happens is an outcome; only an interruption gets through."""
    begun = time.perf_counter()

    def outcome(kind: str, deviation: float | None, said: str) -> Outcome:
        return Outcome(cell, check.name, kind, deviation, said, time.perf_counter() - begun)

    with tempfile.TemporaryDirectory() as folder, listening() as heard:
        try:
            deviation = check.measure(lambda: library.build(cell), Path(folder))
        except NotApplicable as reason:
            return outcome("n/a", None, str(reason))
        except Refused as reason:
            return outcome("refused", None, str(reason))
        except Exception as error:  # whatever it is, it is the finding
            return outcome("error", None, described(error))
    if deviation <= check.tolerance:
        return outcome("ok", deviation, "")
    return outcome("wrong" if heard else "silent", deviation, " | ".join(dict.fromkeys(heard)))


def described(error: BaseException) -> str:
    """The exception, its first line, and the module that raised it."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    parts = Path(where.filename).parts
    place = "/".join(parts[parts.index("site-packages") + 1 :]) if "site-packages" in parts else parts[-1]
    first = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {first[:200]} ({place})"


class _Keeping(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(record.getMessage())


@contextmanager
def listening() -> Iterator[list[str]]:
    """Collects warnings, those that are logged and those that are given once per process too.

    News for developers of libraries (deprecations) is not about the result and is left out.
    """
    from transformers.utils import logging as loud

    loud.warning_once.cache_clear()
    handler, heard = _Keeping(), list[str]()
    before = [(log, log.propagate) for log in map(logging.getLogger, LOGGERS)]
    for log, _ in before:
        log.addHandler(handler)
        log.propagate = False
    silenced = [h for h in logging.getLogger("transformers").handlers if h is not handler]
    for other in silenced:
        logging.getLogger("transformers").removeHandler(other)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield heard
    finally:
        for log, propagate in before:
            log.removeHandler(handler)
            log.propagate = propagate
        for other in silenced:
            logging.getLogger("transformers").addHandler(other)
        news = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)
        heard += [str(w.message) for w in caught if not issubclass(w.category, news)]
        heard += [text for text in handler.heard if not text.startswith(BESIDE)]
