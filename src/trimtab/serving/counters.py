"""What the server has done, as Prometheus reads it (text exposition format 0.0.4)."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from typing import final

from trimtab.serving.service import Service

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper ends of the classes that durations are counted in."""

Key = tuple[tuple[str, str], ...]


@final
class Counters:
    """Requests by route and status, and how long they took."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[Key] = Counter()
        self._seconds: dict[str, list[float]] = {}
        self.in_flight = 0

    def count(self, route: str, status: int, seconds: float) -> None:
        """One request has ended."""
        with self._lock:
            self._requests[("route", route), ("status", str(status))] += 1
            classes = self._seconds.setdefault(route, [0.0] * (len(SECONDS) + 2))
            for i, most in enumerate(SECONDS):
                classes[i] += seconds <= most
            classes[-2] += 1
            classes[-1] += seconds

    def text(self, service: Service) -> str:
        """All numbers, the engine's among them."""
        engine, counts = service.engine, service.engine.counts
        gauges = {
            "prompts_loaded": ("Prompts that are served.", len(service.catalog)),
            "requests_in_flight": ("Requests that are not answered yet.", self.in_flight),
            "engine_waiting": ("Rows and texts that are not done.", engine.waiting),
            "engine_writing": ("Texts that are being written.", engine.writing),
            "prefix_cache_bytes": ("Keys and values of prefix prompts that are kept.", engine.prefixes.bytes),
        }
        totals = {
            "engine_steps_total": ("Forward passes of mixed rows.", counts.steps),
            "engine_rows_total": ("Rows scored.", counts.rows),
            "engine_tokens_total": ("Tokens of rows scored.", counts.tokens),
            "engine_writing_steps_total": ("Forward passes that wrote a token for each text.", counts.writing_steps),
            "engine_written_tokens_total": ("Tokens written.", counts.written),
            "engine_repeats_total": ("Batches that failed and were computed request by request.", counts.repeats),
            "prefix_cache_hits_total": ("Rows whose prefix was kept.", engine.prefixes.hits),
            "prefix_cache_misses_total": ("Prefixes that were computed.", engine.prefixes.misses),
        }
        lines = [line for name, (told, value) in gauges.items() for line in _single(name, "gauge", told, value)]
        lines += [line for name, (told, value) in totals.items() for line in _single(name, "counter", told, value)]
        with self._lock:
            lines += [*self._request_lines(), *self._second_lines()]
        return "\n".join(lines) + "\n"

    def _request_lines(self) -> list[str]:
        lines = _head("requests_total", "counter", "Requests answered, by route and status.")
        return lines + [f"trimtab_requests_total{_labels(key)} {n}" for key, n in sorted(self._requests.items())]

    def _second_lines(self) -> list[str]:
        name = "request_seconds"
        lines = _head(name, "histogram", "Seconds from a request's head to the end of its answer.")
        for route, classes in sorted(self._seconds.items()):
            for most, n in zip((*map(str, SECONDS), "+Inf"), classes, strict=False):
                lines.append(f"trimtab_{name}_bucket{_labels((('route', route), ('le', most)))} {n:g}")
            own = _labels((("route", route),))
            lines += [f"trimtab_{name}_sum{own} {classes[-1]:.6f}", f"trimtab_{name}_count{own} {classes[-2]:g}"]
        return lines


def _head(name: str, kind: str, told: str) -> list[str]:
    return [f"# HELP trimtab_{name} {told}", f"# TYPE trimtab_{name} {kind}"]


def _single(name: str, kind: str, told: str, value: int) -> list[str]:
    return [*_head(name, kind, told), f"trimtab_{name} {value}"]


def _labels(pairs: Sequence[tuple[str, str]]) -> str:
    def escaped(text: str) -> str:
        return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    return "{" + ",".join(f'{name}="{escaped(value)}"' for name, value in pairs) + "}"
