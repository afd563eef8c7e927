"""Answers of a trained prompt by trimtab and by PEFT's usual loop: rows a second in evaluation and in generation.

    OMP_NUM_THREADS=1 python scripts/benchmark_inference.py --out docs/results/inference

The model, the prompt and the contestants are those of `benchmark_peft.py`; texts have unequal lengths, as texts have.
PEFT's loop takes the rows as they come, `--batch` at a time, padded to the longest of the batch: on the right for
evaluation (`model(**batch).logits`, the two label words compared at each row's last token), on the left for generation
(`model.generate(...)`, greedy). trimtab scores and writes the same rows under a budget of as many tokens as PEFT's
largest batch has. Both take turns in one process, who begins changes, and ratios are formed within a turn.

The page says in how many rows both give the same answers. In generation they do where a batch has no pads (a test
checks it): PEFT drops the positions that transformers hands it ("Position ids are not supported"), so the texts of
its padded rows depend on their batch mates.
"""

from __future__ import annotations

import argparse
import gc
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmark_packs import turns
from measuring import ratios
from peft_contestants import PeftTraining, Shape, TrimtabTraining, versions
from publishing import at_least_one, command_line, common_options, footer, needs_peft, publish
from trimtab.prompt_table import PromptTable
from trimtab.types import Encoded, Row

Text = Sequence[int]


def texts_of(shape: Shape, rows: int) -> list[Text]:
    """Texts of unequal lengths, `shape.text` tokens at most and about half of that in the middle."""
    generator = torch.Generator().manual_seed(3)
    lengths = torch.empty(rows).log_normal_(math.log(shape.text / 2), 0.4, generator=generator)
    sizes = lengths.round().long().clamp(min(4, shape.text), shape.text).tolist()
    return [torch.randint(2, shape.vocabulary, (n,), generator=generator).tolist() for n in sizes]


class PeftAnswers:
    """The loop of PEFT's examples, without gradients."""

    def __init__(self, shape: Shape, dtype: torch.dtype, attention: str = "sdpa") -> None:
        self._batch = shape.batch
        self._model = PeftTraining(shape, dtype, attention).model.eval()

    def _batches(self, texts: Sequence[Text], side: str) -> list[tuple[Tensor, Tensor]]:
        """Ids and masks, padded on one side."""
        found = []
        for first in range(0, len(texts), self._batch):
            part = [torch.tensor(text) for text in texts[first : first + self._batch]]
            padded = [
                torch.nn.utils.rnn.pad_sequence(its, batch_first=True, padding_value=value, padding_side=side)
                for its, value in ((part, 1), ([torch.ones_like(text) for text in part], 0))
            ]
            found.append((padded[0], padded[1]))
        return found

    @torch.no_grad()
    def evaluate(self, texts: Sequence[Text]) -> list[int]:
        """The likelier of two label words behind each text."""
        chosen = []
        for ids, mask in self._batches(texts, "right"):
            logits = self._model(input_ids=ids, attention_mask=mask).logits
            last = logits.shape[1] - ids.shape[1] + mask.sum(1) - 1
            chosen += logits[torch.arange(len(ids)), last][:, :2].argmax(1).tolist()
        return chosen

    @torch.no_grad()
    def generate(self, texts: Sequence[Text], new_tokens: int) -> list[tuple[int, ...]]:
        """So many likeliest tokens behind each text."""
        written = []
        for ids, mask in self._batches(texts, "left"):
            out = self._model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=new_tokens, do_sample=False, eos_token_id=None,
                pad_token_id=1,
            )  # fmt: skip
            written += [tuple(row) for row in out[:, -new_tokens:].tolist()]
        return written


class TrimtabAnswers:
    """trimtab's scoring and writing."""

    def __init__(self, shape: Shape, dtype: torch.dtype, attention: str = "sdpa") -> None:
        training = TrimtabTraining(shape, dtype, attention, "label words")
        self._shape, self._model = shape, training.loop.model
        self._table = PromptTable(training.prompt[None].clone())

    def _rows(self, texts: Sequence[Text]) -> list[Row]:
        size = self._shape.prompt
        ends = [size + len(text) for text in texts]
        return [
            Row(Encoded((0,) * size + tuple(text), tuple(range(size)), (end - 1,), answer_slot=end), prompt=0)
            for text, end in zip(texts, ends, strict=True)
        ]

    def _budget(self, texts: Sequence[Text], new_tokens: int = 0) -> int:
        return self._shape.batch * (self._shape.prompt + max(map(len, texts)) + new_tokens)

    def evaluate(self, texts: Sequence[Text]) -> list[int]:
        """As PEFT's."""
        scores = self._model.score_rows(self._rows(texts), self._table, self._budget(texts))
        return [int(i) for i in scores.argmax(1)]

    def generate(self, texts: Sequence[Text], new_tokens: int) -> list[tuple[int, ...]]:
        """As PEFT's."""
        budget = self._budget(texts, new_tokens)
        return self._model.generate_rows(self._rows(texts), self._table, budget, new_tokens)


def agreement(ours: Sequence[Any], theirs: Sequence[Any]) -> float:
    """Share of rows with the same answer.

    >>> agreement([1, 0], [1, 1])
    0.5
    """
    return sum(a == b for a, b in zip(ours, theirs, strict=True)) / len(ours)


def compare(shape: Shape, dtype: str, counts: Mapping[str, int], new_tokens: int, repeats: int) -> dict[str, Any]:
    """Rows a second of both and their ratio in seconds, by what they do.

    Args:
        counts: rows of `evaluation` and of `generation`.
    """
    kind = getattr(torch, dtype)
    ours, theirs = TrimtabAnswers(shape, kind, "eager" if dtype == "bfloat16" else "sdpa"), PeftAnswers(shape, kind)
    texts = {what: texts_of(shape, count) for what, count in counts.items()}
    asked: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "evaluation": (lambda: ours.evaluate(texts["evaluation"]), lambda: theirs.evaluate(texts["evaluation"])),
        "generation": (
            lambda: ours.generate(texts["generation"], new_tokens),
            lambda: theirs.generate(texts["generation"], new_tokens),
        ),
    }
    found = {}
    gc.collect()
    gc.freeze()
    for what, both in asked.items():
        same = agreement(*(answer() for answer in both))
        taken = list(turns(both, repeats, torch.device("cpu")))
        seconds = [[turn[i] for turn in taken] for i in (0, 1)]
        found[what] = {
            "rows": counts[what], "trimtab": counts[what] / median(seconds[0]),
            "peft": counts[what] / median(seconds[1]), "ratio": ratios(*seconds), "same": same,
        }  # fmt: skip
    gc.unfreeze()
    return found


def page(outcome: Mapping[str, Any]) -> list[str]:
    """The markdown page."""
    shape, facts = outcome["shape"], outcome["environment"]
    lines = [
        "# Evaluation and generation: trimtab and PEFT's usual loop",
        "",
        "GPT-2 with random weights, {layers} layers, {width} wide, vocabulary {vocabulary}; texts of up to {text} "
        "tokens, prompt of {prompt}; batches of {batch} rows, or as many tokens.".format(**shape),
        f"Generation: {outcome['new_tokens']} tokens a row, greedy. Time: trimtab / PEFT, median and quartiles over "
        "turns in one process: below 1 trimtab is faster.",
        "",
        "| backbone | what | rows | trimtab, rows/s | PEFT, rows/s | time | same answers |",
        "|---|---|---|---|---|---|---|",
    ]
    for dtype, found in outcome["results"].items():
        for what, its in found.items():
            spread = "{median:.2f} ({low:.2f} to {high:.2f})".format(**its["ratio"])
            lines.append(
                f"| {dtype} | {what} | {its['rows']} | {its['trimtab']:.2f} | {its['peft']:.2f} | {spread} "
                f"| {its['same']:.0%} |"
            )
    return [
        *lines,
        "",
        "Answers of generation agree where a batch has no pads (a test checks it): PEFT drops the positions of "
        "left-padded rows, so their texts depend on their batch mates.",
        "",
        *footer(outcome["command"], facts),
    ]


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in asdict(replace(Shape(), batches=1)).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtypes", nargs="+", choices=["float32", "bfloat16"], default=["float32"])
    parser.add_argument("--rows", type=int, default=48, help="that are evaluated")
    parser.add_argument("--written", type=int, default=16, help="rows that are written for")
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5, help="turns")
    common_options(parser)
    a = parser.parse_args(argv)
    at_least_one(parser, a, *asdict(Shape()), "rows", "written", "new_tokens", "repeats", "threads")
    needs_peft(parser)
    return a


def main(argv: Sequence[str] | None = None) -> None:
    a = parse(argv)
    torch.set_num_threads(a.threads)
    shape = Shape(**{name: getattr(a, name) for name in asdict(Shape())})
    counts = {"evaluation": a.rows, "generation": a.written}
    results = {dtype: compare(shape, dtype, counts, a.new_tokens, a.repeats) for dtype in a.dtypes}
    outcome = {
        "command": command_line(__file__, argv), "shape": asdict(shape),
        "new_tokens": a.new_tokens, "environment": versions(shape), "results": results,
    }  # fmt: skip
    publish(a.out, outcome, page(outcome))


if __name__ == "__main__":
    main()
