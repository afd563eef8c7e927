"""How much of what a backbone reads is padding: in evaluation, and in training at several batch sizes.

    python scripts/benchmark_padding.py --model ../shared/models/minilm-l6-mlm \\
        --data-dir ../shared/data --out docs/results/padding

Nothing is trained and nothing is timed: examples are rendered as a run would render them, and the batches of one epoch
and the micro-batches of every step are those that the loop would take, with the recipe defaults of `training`. So the
numbers are the same on every machine.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from publishing import at_least_one, command_line, publish
from trimtab.batching import micro_batches
from trimtab.config import TrainingConfig, resolve
from trimtab.tasks.reading import Places
from trimtab.training.loop import Member
from trimtab.training.preparing import Preparer, open_backbone
from trimtab.types import Row

WORTH = 64
"""Of a CPU, see `Backbone.pass_cost`."""

Groups = Sequence[Sequence[int]]


def share(groups: Groups, lengths: Sequence[int]) -> float:
    """How much of what is read is padding.

    >>> share([[0, 1]], [10, 6])
    0.2
    """
    read = sum(len(group) * max(lengths[i] for i in group) for group in groups)
    return 1 - sum(lengths[i] for group in groups for i in group) / read


def of_steps(steps: Groups, lengths: Sequence[int], training: TrainingConfig, worth: int | None) -> dict[str, float]:
    """Padding and passes of steps, as the loop cuts each of them."""
    cut = [
        [step[i] for i in group]
        for step in steps
        for group in micro_batches([lengths[i] for i in step], training.tokens_per_pass("cpu"), worth)
    ]
    return {"padding": share(cut, lengths), "passes": len(cut) / len(steps)}


def epoch(member: Member) -> list[list[int]]:
    """The batches of a run's first epoch."""
    batches: Iterator[list[int]] = member.batches()
    return list(islice(batches, -(-len(member.train) // member.training.batch_size)))


def measure(rows: Mapping[str, Sequence[Row]], prepared: Any, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """One line per split that is scored, and per batch size of training."""
    found = []
    for split in ("dev", "test"):
        lengths = [row.cost for row in rows[split]]
        found.append(_line(f"evaluation of {split}", [range(len(lengths))], lengths, prepared.config.training))
    lengths = [row.cost for row in rows["train"]]
    for size in sizes:
        training = prepared.config.training.model_copy(update={"batch_size": size})
        steps = epoch(Member(prepared.config.seeds, training, rows["train"], []))
        found.append(_line(f"training, {size} rows a step", steps, lengths, training))
    return found


def _line(what: str, steps: Groups, lengths: Sequence[int], training: TrainingConfig) -> dict[str, Any]:
    whole, cut = (of_steps(steps, lengths, training, worth) for worth in (None, WORTH))
    undivided = {f"{name}_undivided": value for name, value in whole.items()}
    return {"what": what, "rows": len(lengths), **cut, **undivided}


def page(outcome: Mapping[str, Any]) -> list[str]:
    """The markdown page."""
    lines = [
        "# Padding",
        "",
        f"{outcome['task']}, tokens of {outcome['model']}, {outcome['max_tokens']:,} tokens a pass. Padding is the "
        "share of what the backbone reads; passes are those of a step, or of the whole split. `undivided`: the same if "
        "every pass took as many rows as the budget allows.",
        "",
        "| what | rows | padding | passes | padding, undivided | passes, undivided |",
        "|---|---|---|---|---|---|",
    ]
    rows = [
        f"| {its['what']} | {its['rows']:,} | {its['padding']:.1%} | {its['passes']:.2f} "
        f"| {its['padding_undivided']:.1%} | {its['passes_undivided']:.2f} |"
        for its in outcome["results"]
    ]
    return [*lines, *rows, "", f"Command: `{outcome['command']}`"]


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", type=json.loads, default='"superglue/boolq"', help="a section `task` in JSON")
    parser.add_argument("--model", default="nano-masked")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[4, 8, 16, 32, 64], help="rows per optimizer step")
    parser.add_argument("--out", type=Path, help="writes OUT.json and OUT.md")
    a = parser.parse_args(argv)
    at_least_one(parser, a, "sizes")
    return a


def main(argv: Sequence[str] | None = None) -> None:
    a = parse(argv)
    recipe = {"prompt": "prompt_tuning", "backbone": {"model": a.model, "dtype": "float32"}, "task": a.task}
    config = resolve(recipe).config
    prepared = Preparer(open_backbone(config.backbone, "cpu"), Places(data=a.data_dir)).prepare(config)
    outcome = {
        "command": command_line(__file__, argv),
        "task": prepared.task.name,
        "model": Path(a.model).name,
        "max_tokens": prepared.config.training.max_tokens,
        "results": measure(prepared.rows, prepared, a.sizes),
    }
    publish(a.out, outcome, page(outcome))


if __name__ == "__main__":
    main()
