"""The benchmarks of serving: answers are judged, rounds are complete, ratios are formed within rounds."""

from __future__ import annotations

import importlib
import importlib.util
import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="compares with PEFT: extra benchmark")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("benchmark_serving")


class Echo:
    """Answers from a list, in a thread of its own each; says how many were under way at once."""

    def __init__(self, right: Mapping[Any, Mapping[str, float]]) -> None:
        self.right, self.under_way, self.most = right, 0, 0
        self.lock = threading.Lock()

    def ask(self, job: Any, done: Callable[[Any], None]) -> None:
        with self.lock:
            self.under_way += 1
            self.most = max(self.most, self.under_way)

        def answer() -> None:
            with self.lock:
                self.under_way -= 1
            done(self.right[job])

        threading.Timer(0.001, answer).start()

    def close(self) -> None: ...


def asked_and_right(script: ModuleType) -> tuple[list[Any], dict[Any, dict[str, float]]]:
    names = script.task_names(5)
    asked = script.jobs(names, 40)
    return asked, {job: {"a": (names.index(job.task) + 1) / 10, "b": len(job.text) / 1000} for job in asked}


def test_every_request_is_answered_and_timed_in_both_loops(script: ModuleType) -> None:
    asked, right = asked_and_right(script)
    server, judge = Echo(right), script.Judge(right, 1e-4)
    closed = script.closed_loop(server, asked, 3, judge)
    assert len(closed.latencies) == 40
    assert server.most == 3
    assert 0.001 <= min(closed.latencies) <= closed.at(50) <= closed.at(99) <= closed.seconds
    opened = script.open_loop(Echo(right), asked, 400.0, judge, 0)
    assert len(opened.latencies) == 40
    assert opened.seconds > 0.05, "they arrive over a tenth of a second"
    assert judge.furthest == 0.0


def test_an_answer_of_another_task_ends_the_benchmark(script: ModuleType) -> None:
    asked, right = asked_and_right(script)
    other = next(job for job in asked if job.task != asked[7].task)
    for wrong in (right[other], {"a": right[asked[7]]["a"]}, {"x": 0.1, "b": 0.1}):
        with pytest.raises(script.MixedUpError, match="alone it is"):
            script.closed_loop(Echo({**right, asked[7]: wrong}), asked, 3, script.Judge(right, 1e-4))


def test_ratios_say_how_many_times_as_much_the_other_takes(script: ModuleType) -> None:
    def rounds(*seconds: float) -> list[Any]:
        return [script.Round(s, s, [s, s]) for s in seconds]

    found = script.summary({script.US: rounds(1.0, 2.0, 4.0), script.ALONE: rounds(3.0, 6.0, 12.0)}, 12)
    assert found[script.US]["per_second"] == 6.0
    assert {r["median"] for r in found[script.ALONE]["ratios"].values()} == {3.0}


def test_the_task_that_waits_longest_is_next_with_all_that_waits_for_it(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    contestants = importlib.import_module("serving_contestants")
    seen: list[tuple[str, list[str]]] = []
    go = threading.Event()

    class Watched:
        def answers(self, task: str, texts: list[str]) -> list[dict[str, float]]:
            go.wait(5)
            seen.append((task, list(texts)))
            return [{} for _ in texts]

    for most, expected in ((64, [("a", ["1"]), ("b", ["2", "4"]), ("a", ["3"])]),
                           (1, [("a", ["1"]), ("b", ["2"]), ("a", ["3"]), ("b", ["4"])])):  # fmt: skip
        seen.clear()
        go.clear()
        server = contestants.Peft(Watched(), most)
        for i, task in enumerate("abab", 1):
            server.ask(script.Job(task, str(i)), lambda scores: None)
            while i == 1 and server._waiting:  # the first is taken alone
                pass
        go.set()
        server.close()
        assert seen == expected


@needs_peft
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # by PEFT
@pytest.mark.parametrize("kind", ["nano-20", "minilm-20"])
def test_both_sides_give_the_answers_of_each_prompt_alone(script: ModuleType, kind: str, tmp_path: Path) -> None:
    if kind == "minilm-20" and not Path(script.MINILM).exists():
        pytest.skip("needs the data folder beside the repository")
    options = ["--tasks", "3", "--requests", "20", "--rounds", "1", "--clients", "4", "--shares", "0.5"]
    script.main(["--kinds", kind, "--dtypes", "float32", *options, "--out", str(tmp_path / "found")])
    (found,) = json.loads((tmp_path / "found.json").read_text())["results"].values()
    assert found["furthest_answer"] < 1e-4
    assert found["closed"]["4"][script.ALONE]["ratios"]["throughput"]["median"] > 0
    assert "PEFT, by task" in (tmp_path / "found.md").read_text()
