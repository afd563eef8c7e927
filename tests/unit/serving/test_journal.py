"""Logs: one JSON object a line, whatever is told."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from trimtab.serving.journal import LOGGER, open_journal, tell

NAMES = (LOGGER, "uvicorn", "uvicorn.error", "uvicorn.access")


@pytest.fixture
def journal() -> Iterator[io.StringIO]:
    loggers = [logging.getLogger(name) for name in NAMES]
    before = [(its.handlers, its.propagate, its.level, its.disabled) for its in loggers]
    out = io.StringIO()
    open_journal("info", out)
    yield out
    for logger, (handlers, propagate, level, disabled) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate, logger.disabled = handlers, propagate, disabled
        logger.setLevel(level)


def test_a_line_is_an_object_with_time_level_and_facts(journal: io.StringIO) -> None:
    tell("request", path="/x\n\ud83d", status=200)
    tell("quiet", logging.DEBUG)
    (line,) = journal.getvalue().splitlines()
    found = json.loads(line)
    assert found.pop("time").endswith("+00:00")
    assert found == {"level": "info", "event": "request", "path": "/x\n\ud83d", "status": 200}
    journal.getvalue().encode()


def test_the_server_behind_it_writes_the_same_way(journal: io.StringIO) -> None:
    try:
        1 // 0  # noqa: B018
    except ZeroDivisionError:
        logging.getLogger("uvicorn.error").exception("it broke")
    (line,) = journal.getvalue().splitlines()
    found = json.loads(line)
    assert (found["level"], found["event"]) == ("error", "it broke")
    assert "ZeroDivisionError" in found["traceback"]
