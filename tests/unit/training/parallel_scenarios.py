"""What several processes do together, as functions that also run in one: `python -m ... FOLDER` under torchrun.

Each scenario returns plain data; process r writes all of them to `FOLDER/<r>.json`.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.tiny import tiny_backbone, toy_task
from trimtab.backbones import Backbone
from trimtab.config import resolve
from trimtab.errors import TrimtabError
from trimtab.storage import RunFolder, read_prompt
from trimtab.training.parallel import Processes, joined
from trimtab.training.preparing import Prepared, prepare
from trimtab.training.runs import run_pack

CASES: dict[str, dict[str, Any]] = {
    "pack with noise": {"regularizers": [{"kind": "gaussian"}]},
    "encoder with dropout": {"prompt": {"kind": "residual", "length": 3, "bottleneck": 8, "dropout": 0.3}},
    "fewer rows than processes": {"training": {"batch_size": 1}, "seeds": 1},
    "trained backbone": {"training": {"batch_size": 1, "learning_rates": {"backbone": 1e-4}}, "seeds": 1},
}


class Killed(BaseException):
    """As if by kill -9, on all processes at once."""


@dataclass(frozen=True)
class Watched(Processes):
    """Keeps the sums of gradients and losses as plain data; may die after some of them, or not sum at all."""

    gradients: list[list[float]] = field(default_factory=list)
    losses: list[list[float]] = field(default_factory=list)
    dies_after: int | None = None
    sums: bool = True

    def sum_(self, *tensors: Tensor) -> None:
        if self.sums:
            super().sum_(*tensors)
        self.losses.extend(t.tolist() for t in tensors if t.dtype == torch.float64)

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        if self.dies_after is not None and len(self.gradients) == self.dies_after:
            raise Killed
        trained = list(parameters)
        super().sum_gradients(trained)
        found = [p.grad.flatten() for p in trained if p.grad is not None]
        self.gradients.append([x for g in found for x in g[:: max(1, len(g) // 200)].tolist()])

    @property
    def seen(self) -> dict[str, list[list[float]]]:
        """By step; of large parameters some 200 entries."""
        return {"gradients": self.gradients, "losses": self.losses}


def watched(processes: Processes, **options: Any) -> Watched:
    return Watched(processes.rank, processes.size, processes.local_rank, **options)


def write_data(folder: Path) -> None:
    """The toy, once for all processes."""
    folder.mkdir()
    (folder / "task.json").write_text(json.dumps(toy_task(folder, 16)))


def pack_of(data: Path, backbone: Backbone, case: str, *overrides: str) -> list[Prepared]:
    """A run or two of 20 steps on the toy."""
    recipe = {"prompt": {"kind": "prompt_tuning", "length": 3}, **CASES[case]}
    seeds = range(recipe.pop("seeds", 2))
    training = {"learning_rate": 0.005, "max_steps": 20, "batch_size": 6, "evaluations": 5, "max_tokens": 40}
    recipe["training"] = {**training, **recipe.get("training", {})}
    recipe["task"] = json.loads((data / "task.json").read_text())
    return [prepare(resolve({**recipe, "seed": seed}, overrides).config, backbone) for seed in seeds]


def outcome(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What a run folder holds: names of files, history, predictions, metrics, prompt."""
    found = []
    for record in records:
        folder = Path(record["run"])
        lines = {p.name: [json.loads(line) for line in p.read_text().splitlines()] for p in folder.glob("*.jsonl")}
        kept = {k: record[k] for k in ("id", "status", "metrics", "best_step", "steps", "rows", "baselines")}
        files = sorted(p.name for p in folder.iterdir())
        config = (folder / "config.yaml").read_text()
        found.append({**kept, **lines, "files": files, "config": config, "prompt": read_prompt(folder).tolist()})
    return found


def train(data: Path, runs: Path, backbone: Backbone, case: str, processes: Watched) -> dict[str, Any]:
    """Run folders, and the summed gradients and losses of every step."""
    records = run_pack(pack_of(data, backbone, case), runs, processes=processes)
    return {"outcome": outcome(records), "seen": processes.seen}


def killed(data: Path, runs: Path, backbone: Backbone, processes: Processes) -> None:
    """A training that dies in step 14; the last checkpoint is of step 12."""
    try:
        run_pack(pack_of(data, backbone, "pack with noise"), runs, processes=watched(processes, dies_after=13))
    except Killed:
        return
    raise AssertionError("it was not killed")


def refusal(do: Callable[[], Any]) -> list[str | None]:
    try:
        do()
    except TrimtabError as error:
        return [type(error).__name__, error.what, error.where, error.fix]
    return ["nothing was refused"]


def refusals(data: Path, runs: Path, backbone: Backbone, processes: Processes) -> dict[str, Any]:
    pack = pack_of(data, backbone, "pack with noise")
    found = {}
    if processes.is_main:
        folder = runs / pack[0].id
        folder.mkdir(parents=True)
        lock = os.open(folder, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
    found["locked"] = refusal(lambda: run_pack(pack, runs, processes=processes))
    if processes.is_main:
        os.close(lock)
    own = pack[: processes.rank + 1]
    found["different runs"] = refusal(lambda: run_pack(own, runs, processes=processes))
    dropout = pack_of(data, backbone, "pack with noise", "backbone.dropout=true")[:1]
    found["dropout"] = refusal(lambda: run_pack(dropout, runs, processes=processes))

    def refused_by_the_last(items: Sequence[int] = ()) -> Sequence[int]:
        if processes.rank == processes.size - 1:
            raise TrimtabError("not here.", where="there", fix="Go.")
        return items

    found["one of them"] = refusal(lambda: processes.together(refused_by_the_last))
    found["scoring"] = refusal(lambda: processes.merged([1, 2], [1, 1], refused_by_the_last))
    found["parameters"] = refusal(lambda: processes.check_equal([torch.zeros(2), torch.ones(1) * processes.rank]))
    found["sums"] = refusal(lambda: run_pack(pack, runs / "sums", processes=watched(processes, sums=False)))
    found["statuses"] = processes.on_main(lambda: [RunFolder(runs / p.id).status for p in pack])
    return found


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    backbone = tiny_backbone(folder / "model")
    data = folder / "data"
    found: dict[str, Any] = {}
    for case in CASES:
        with joined() as processes:  # and again: one process group after the other
            found[case] = train(data, folder / "together" / case, backbone, case, watched(processes))
    with joined() as processes:
        found["size"] = processes.size
        broken = watched(processes, sums=False)
        refusal(lambda: train(data, folder / "broken", backbone, "pack with noise", broken))
        found["not summed"] = broken.seen
        killed(data, folder / "killed together", backbone, processes)
        for runs in ("killed together", "killed alone"):
            found[runs] = train(data, folder / runs, backbone, "pack with noise", watched(processes))["outcome"]
        killed(data, folder / "continued alone", backbone, processes)
        found["refusals"] = refusals(data, folder / "refused", backbone, processes)
        found["others write nothing"] = processes.is_main or not (folder / "elsewhere").exists()
        if processes.rank == processes.size - 1:
            write(folder, processes, found)
            os._exit(0)  # without a farewell
        found["refusals"]["lost"] = refusal(lambda: processes.sum_(torch.zeros(1)))
        write(folder, processes, found)


def write(folder: Path, processes: Processes, found: dict[str, Any]) -> None:
    (folder / f"{processes.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
