"""What loaded prompts cost: a server of one prompt and one of a thousand, on one backbone, asked in turns.

    OMP_NUM_THREADS=1 python scripts/benchmark_loaded.py --out docs/results/serving-loaded

Three streams of the same texts, in a closed loop: all to the one prompt of the small server; all to one prompt of the
large server; and spread over all prompts of the large server, so that hardly two rows of a batch share one. Ratios are
formed within a round, and 1.05 means 5 % slower than the small server.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import torch

from benchmark_serving import FAR, KINDS, TOLD, Judge, Round, alone, closed_loop, task_names
from measuring import ratios
from publishing import at_least_one, command_line, common_options, footer, machine, publish
from serving_contestants import Ours
from serving_tasks import Job, Kind, jobs, trained, variants
from trimtab.loading import backbone_of, from_bundle
from trimtab.serving.engine import Pace
from trimtab.training.records import environment

ONE, SAME, SPREAD = "one prompt loaded", "all loaded, one asked", "all loaded, all asked"


def measure(kind: Kind, dtype: str, a: argparse.Namespace) -> dict[str, Any]:
    first = trained(kind, dtype)
    backbone = backbone_of(first, dtype=dtype)  # type: ignore[arg-type]
    names = task_names(a.prompts)
    bundles = dict(zip(names, variants(first, backbone, a.prompts), strict=True))
    spread = jobs(names, a.requests)
    single = [replace(job, task=names[0]) for job in spread]
    asked: set[Job] = {*spread, *single}
    predictors = {name: from_bundle(bundles[name], backbone) for name in {job.task for job in asked}}
    judge = Judge(alone(predictors, list(asked)), FAR[dtype])
    pace = Pace(prefix_bytes=a.prefix_cache_mb << 20)
    small, large = Ours(backbone, {names[0]: bundles[names[0]]}, pace), Ours(backbone, bundles, pace)
    streams = {ONE: (small, single), SAME: (large, single), SPREAD: (large, spread)}
    rounds: dict[str, list[Round]] = {name: [] for name in streams}
    try:
        for server, its in streams.values():  # a first round that does not count: readouts and prefixes are made
            closed_loop(server, its, a.clients, judge)
        gc.freeze()
        for turn in range(a.rounds):
            order = list(streams)
            for name in order[turn % 3 :] + order[: turn % 3]:
                server, its = streams[name]
                rounds[name].append(closed_loop(server, its, a.clients, judge))
    finally:
        gc.unfreeze()
        small.close()
        large.close()
    return {
        **summary(rounds, a.requests),
        "furthest_answer": judge.furthest,
        "environment": machine(environment(backbone), "peft"),
    }


def summary(rounds: Mapping[str, Sequence[Round]], requests: int) -> dict[str, Any]:
    """Requests a second and processor time of each stream, and ratios to the small server, by round."""
    base, found = rounds[ONE], {}
    for name, its in rounds.items():
        found[name] = {
            "per_second": median(requests / r.seconds for r in its),
            "processor_ms": 1000 * median(r.processor for r in its) / requests,
            "time": ratios([r.seconds for r in its], [r.seconds for r in base]),
            "processor": ratios([r.processor for r in its], [r.processor for r in base]),
        }
    return found


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--dtypes", nargs="+", choices=list(FAR), default=["bfloat16"])
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=500, help="of a round")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--prefix-cache-mb", type=int, default=1024)
    common_options(parser)
    a = parser.parse_args(argv)
    at_least_one(parser, a, "prompts", "requests", "rounds", "clients", "threads")
    return a


def main(argv: Sequence[str] | None = None) -> None:
    a = parse(argv)
    torch.set_num_threads(a.threads)
    said = command_line(__file__, argv)
    results: dict[str, Any] = {}
    for kind in a.kinds:
        for dtype in a.dtypes:
            results[f"{TOLD[kind]}, {dtype}"] = measure(KINDS[kind], dtype, a)
            outcome = {"command": said, "prompts": a.prompts, "clients": a.clients, "results": results}
            publish(a.out, outcome, page(outcome))


def page(outcome: Mapping[str, Any]) -> list[str]:
    """The markdown page."""
    lines = [
        f"# Serving: 1 and {outcome['prompts']:,} loaded prompts",
        "",
        f"The same texts in a closed loop of {outcome['clients']} clients, in one process, by turns. Times and "
        "processor times as ratios to the server of one prompt, median and quartiles over rounds: 1.05 is 5 % slower. "
        "All answers are those that the prompts give alone.",
        "",
        "| prompts | stream | requests/s | time | processor time |",
        "|---|---|---|---|---|",
    ]
    for name, found in outcome["results"].items():
        for stream in (ONE, SAME, SPREAD):
            its = found[stream]
            times = (f"{r['median']:.2f} ({r['low']:.2f} to {r['high']:.2f})" for r in (its["time"], its["processor"]))
            lines.append(f"| {name} | {stream} | {its['per_second']:.0f} | {' | '.join(times)} |")
    e = next(iter(outcome["results"].values()))["environment"]
    return [*lines, "", *footer(outcome["command"], e)]


if __name__ == "__main__":
    main()
