"""Structured logs: one JSON object a line, with the time, the level and what happened."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, final

LOGGER = "trimtab.serving"


@final
class JsonLines(logging.Formatter):
    """Records as JSON. What is passed as `extra={"facts": {...}}` stands beside the message."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"time": when, "level": record.levelname.lower(), "event": record.getMessage()}
        line |= getattr(record, "facts", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True, default=str)


def open_journal(level: str = "info", stream: Any = None) -> logging.Logger:
    """The server's own logger and those of uvicorn, all written as JSON lines.

    Args:
        stream: an open text file; stderr by default.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    for name in (LOGGER, "uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level.upper())
    logging.getLogger("uvicorn.access").disabled = True  # requests are told by the guard
    return logging.getLogger(LOGGER)


def tell(event: str, level: int = logging.INFO, **facts: Any) -> None:
    """Write a line."""
    logging.getLogger(LOGGER).log(level, event, extra={"facts": facts})
