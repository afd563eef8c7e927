"""Serving many tasks from one backbone: trimtab's mixed batches and PEFT switching adapters, on the same requests.

    OMP_NUM_THREADS=1 python scripts/benchmark_serving.py --out docs/results/serving-peft

Every request is one text for one of `--tasks` tasks, drawn at random. Both sides have the same prompts on the same
backbone (trimtab's own exports to PEFT) and read the same label words or heads. Each answer is held against that of its
prompt when it is asked alone: one that is lost, or of another task, ends the benchmark.

* PEFT, one by one: `set_adapter`, then one forward pass, for every request in the order of arrival.
* PEFT, by task: the same for all requests that wait of one task, the one whose request waits longest first. Rows are
  padded on the right, the vocabulary head runs where it is read, attention is the faster implementation.
* trimtab: `Service.ask`, as the server's routes call it. Nothing is told to it beforehand.

All in one process, taking turns round by round; ratios are formed within a round. Closed loop: each of `--clients` has
one request under way at any time. Open loop: requests arrive at random (Poisson) at shares of what PEFT by task did in
the closed loop; a latency begins when a request is due. Tokenizing counts on both sides, HTTP on neither.
"""

from __future__ import annotations

import argparse
import gc
import json
import queue
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
import torch

from measuring import ratios
from publishing import at_least_one, command_line, common_options, footer, machine, needs_peft, publish
from serving_contestants import Adapters, Ours, Peft, Scores, Server
from serving_tasks import CAUSAL, Job, Kind, jobs, trained, variants
from trimtab.backbones import Backbone
from trimtab.loading import backbone_of, from_bundle
from trimtab.serving.engine import Pace
from trimtab.training.records import environment

MINILM = "../shared/models/minilm-l6-mlm"
KINDS = {
    "nano-20": Kind("nano-causal", {"kind": "prompt_tuning", "length": 20}, {"kind": "ranking"}, CAUSAL),
    "nano-100": Kind("nano-causal", {"kind": "prompt_tuning", "length": 100}, {"kind": "ranking"}, CAUSAL),
    "minilm-20": Kind(MINILM, {"kind": "deep", "length": 20, "shift_positions": True}, {"kind": "head"}, "{text}"),
}
TOLD = {
    "nano-20": "nano-causal, prompt of 20, label words",
    "nano-100": "nano-causal, prompt of 100, label words",
    "minilm-20": "MiniLM, deep prompt of 20, head",
}
FAR = {"float32": 1e-4, "bfloat16": 0.15}
"""How far a probability may be from the one that is found alone."""
US, ALONE, BY_TASK = "trimtab", "PEFT, one by one", "PEFT, by task"


@dataclass
class Round:
    """What one server did with a stream of requests."""

    seconds: float = 0.0
    processor: float = 0.0
    latencies: list[float] = field(default_factory=list)

    def at(self, percent: float) -> float:
        return float(np.percentile(self.latencies, percent))


class MixedUpError(Exception):
    """An answer that is not the one that its prompt gives alone."""


class Judge:
    """Knows what each prompt answers when it is asked alone."""

    def __init__(self, expected: Mapping[Job, Scores], far: float) -> None:
        self._expected, self._far = expected, far
        self.furthest = 0.0

    def check(self, job: Job, scores: Scores) -> None:
        expected = self._expected[job]
        far = max(abs(scores[c] - p) for c, p in expected.items()) if scores.keys() == expected.keys() else 1.0
        self.furthest = max(self.furthest, far)
        if far > self._far:
            raise MixedUpError(f"{job} was answered {dict(scores)}, alone it is {dict(expected)}")


def closed_loop(server: Server, asked: Sequence[Job], clients: int, judge: Judge) -> Round:
    """Every client has one request under way, and sends the next one when it is answered."""
    return _drive(server, asked, judge, clients=clients)


def open_loop(server: Server, asked: Sequence[Job], rate: float, judge: Judge, seed: int) -> Round:
    """Requests come as they come, `rate` a second on average."""
    due = np.random.default_rng(seed).exponential(1 / rate, len(asked)).cumsum()
    return _drive(server, asked, judge, due=due.tolist())


def _drive(
    server: Server, asked: Sequence[Job], judge: Judge, clients: int = 0, due: Sequence[float] | None = None
) -> Round:
    answers: queue.SimpleQueue[tuple[int, float, Scores]] = queue.SimpleQueue()
    begun, found = [0.0] * len(asked), Round()
    gc.collect()
    processor, start = time.process_time(), time.perf_counter()

    def send(i: int) -> None:
        begun[i] = time.perf_counter() if due is None else start + due[i]
        server.ask(asked[i], lambda scores: answers.put((i, time.perf_counter(), scores)))

    def take() -> None:
        i, when, scores = answers.get(timeout=120)
        found.latencies.append(when - begun[i])
        judge.check(asked[i], scores)

    sent = 0
    for sent in range(len(asked)):
        if due is None and sent >= clients:
            take()
        if due is not None:
            time.sleep(max(0.0, start + due[sent] - time.perf_counter()))
        send(sent)
    while len(found.latencies) < len(asked):
        take()
    found.seconds, found.processor = time.perf_counter() - start, time.process_time() - processor
    return found


# One kind of prompt --------------------------------------------------------------------------------------------------


@dataclass
class Bench:
    """Both sides with the same prompts, and what is right."""

    servers: dict[str, Server]
    judge: Judge
    names: list[str]
    backbone: Backbone


def opened(kind: Kind, dtype: str, tasks: int, pool: Sequence[Job], pace: Pace) -> Bench:
    first = trained(kind, dtype)
    backbone = backbone_of(first, dtype=dtype)  # type: ignore[arg-type]
    bundles = dict(zip(task_names(tasks), variants(first, backbone, tasks), strict=True))
    predictors = {name: from_bundle(bundle, backbone) for name, bundle in bundles.items()}
    judge = Judge(alone(predictors, pool), FAR[dtype])
    adapters = Adapters(bundles, predictors)
    servers: dict[str, Server] = {
        US: Ours(backbone, bundles, pace), ALONE: Peft(adapters, 1), BY_TASK: Peft(adapters, 64),
    }  # fmt: skip
    return Bench(servers, judge, list(bundles), backbone)


def task_names(count: int) -> list[str]:
    return [f"task-{i}" for i in range(count)]


def alone(predictors: Mapping[str, Any], pool: Sequence[Job]) -> dict[Job, Scores]:
    """The answers of each prompt by itself."""
    found: dict[Job, Scores] = {}
    for name, predictor in predictors.items():
        its = sorted({job.text for job in pool if job.task == name})
        answers = predictor.predict(its)
        found |= {Job(name, text): answer.scores for text, answer in zip(its, answers, strict=True)}
    return found


def measure(kind: Kind, dtype: str, a: argparse.Namespace) -> dict[str, Any]:
    pool = jobs(task_names(a.tasks), a.requests)
    bench = opened(kind, dtype, a.tasks, pool, Pace(latency=a.latency_ms / 1000))
    found: dict[str, Any] = {"closed": {}, "open": {}}
    try:
        for server in bench.servers.values():  # a first round that does not count
            closed_loop(server, pool, 64, bench.judge)
        gc.freeze()
        for clients in a.clients:
            rounds = turns(bench, lambda s, _: closed_loop(s, pool, clients, bench.judge), a.rounds)  # noqa: B023
            found["closed"][str(clients)] = summary(rounds, len(pool))
        capacity = found["closed"][str(max(a.clients))][BY_TASK]["per_second"]
        for share in a.shares:
            rate = share * capacity
            rounds = turns(bench, lambda s, i: open_loop(s, pool, rate, bench.judge, i), a.rounds)  # noqa: B023
            found["open"][str(share)] = {"rate": rate, **summary(rounds, len(pool))}
    finally:
        gc.unfreeze()
        for server in bench.servers.values():
            server.close()
    return {
        **found,
        "furthest_answer": bench.judge.furthest,
        "environment": machine(environment(bench.backbone), "peft"),
    }


def turns(bench: Bench, play: Any, rounds: int) -> dict[str, list[Round]]:
    """Rounds of each; who begins a turn changes."""
    names, found = list(bench.servers), {name: [] for name in bench.servers}
    for turn in range(rounds):
        for k in range(len(names)):
            name = names[(k + turn) % len(names)]
            found[name].append(play(bench.servers[name], turn))
    return found


def summary(rounds: Mapping[str, Sequence[Round]], requests: int) -> dict[str, Any]:
    """Requests a second and latencies of each; how many times as good trimtab is, by round."""
    found: dict[str, Any] = {}
    ours = rounds[US]
    for name, its in rounds.items():
        found[name] = {
            "per_second": median(requests / r.seconds for r in its),
            "p50_ms": 1000 * median(r.at(50) for r in its),
            "p99_ms": 1000 * median(r.at(99) for r in its),
            "processor_ms": 1000 * median(r.processor for r in its) / requests,
        }
        if name != US:
            found[name]["ratios"] = {
                "throughput": ratios([r.seconds for r in its], [r.seconds for r in ours]),
                "processor": ratios([r.processor for r in its], [r.processor for r in ours]),
                "p50": ratios([r.at(50) for r in its], [r.at(50) for r in ours]),
                "p99": ratios([r.at(99) for r in its], [r.at(99) for r in ours]),
            }
    return found


# Command line --------------------------------------------------------------------------------------------------------


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--dtypes", nargs="+", choices=list(FAR), default=["bfloat16", "float32"])
    parser.add_argument("--tasks", type=int, default=40)
    parser.add_argument("--requests", type=int, default=1000, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, nargs="+", default=[40, 256])
    parser.add_argument("--shares", type=float, nargs="*", default=[0.7, 2.0], help="of PEFT's throughput by task")
    parser.add_argument("--latency-ms", type=float, default=3.0, help="how long trimtab's rows wait for mates")
    common_options(parser, "writes OUT.json and OUT.md; adds to OUT.json what it does not have")
    a = parser.parse_args(argv)
    at_least_one(parser, a, "tasks", "requests", "rounds", "threads")
    needs_peft(parser)
    return a


def main(argv: Sequence[str] | None = None) -> None:
    a = parse(argv)
    torch.set_num_threads(a.threads)
    results: dict[str, Any] = {}
    if a.out and a.out.with_suffix(".json").exists():
        results = json.loads(a.out.with_suffix(".json").read_text())["results"]
    said = command_line(__file__, argv)
    for kind in a.kinds:
        for dtype in a.dtypes:
            results[f"{TOLD[kind]}, {dtype}"] = {"command": said, **measure(KINDS[kind], dtype, a)}
            publish(a.out, {"results": results}, page(results, a.tasks))


def page(results: Mapping[str, Any], tasks: int) -> list[str]:
    """The markdown page."""
    lines = [
        "# Serving many tasks: trimtab, and PEFT switching adapters",
        "",
        f"{tasks} tasks mixed at random in one stream, the same prompts, backbone and process on both sides, by turns; "
        "every answer is that of its prompt alone. Ratios say how many times as much PEFT takes as trimtab, median and "
        "quartiles over rounds: of time for all requests, of processor time, of latencies. Closed: so many clients, "
        "each with one request under way. Open: requests that come at random, at a share of what PEFT by task did with "
        "the most clients.",
    ]
    for name, found in results.items():
        lines += [
            "",
            f"## {name}",
            "",
            "| load | server | requests/s | p50 ms | p99 ms | time | processor | p50 | p99 |",
        ]
        lines.append("|---" * 9 + "|")
        for load, rows in [(f"closed, {n} clients", its) for n, its in found["closed"].items()] + [
            (f"open, {share} ({its['rate']:.0f}/s)", its) for share, its in found["open"].items()
        ]:
            lines += [_line(load, who, row) for who, row in rows.items() if who != "rate"]
        apart = f"Answers differ by at most {found['furthest_answer']:.1e} from those found alone."
        lines += ["", apart, "", *footer(found["command"], found["environment"])]
    return lines


def _line(load: str, who: str, row: Mapping[str, Any]) -> str:
    said = row.get("ratios", {})
    cells = [f"{r['median']:.1f} ({r['low']:.1f} to {r['high']:.1f})" for r in said.values()] or ["1"] * 4
    numbers = f"{row['per_second']:.0f} | {row['p50_ms']:.0f} | {row['p99_ms']:.0f}"
    return f"| {load} | {who} | {numbers} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
