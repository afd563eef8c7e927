"""Prompt tuning by trimtab and by PEFT's own loop, on one shape: time and peak memory as ratios, gradients checked.

    OMP_NUM_THREADS=1 python scripts/benchmark_peft.py --out docs/results/benchmark-peft

A GPT-2 with random weights (no download), the prompt before the text, AdamW, a loss at the label only, no dropout. A
row is a text and one label token behind it. PEFT reads both, with labels of -100 before the last token, in its usual
loop (`model(**batch).loss.backward()`); its loss is over the whole vocabulary. trimtab trains in its own loop, once
with that same loss (a readout whose classes are the vocabulary: only hidden states at the answer meet the head) and
once with `ranking` over two label words, as users would. PEFT has no masked-LM task type, so it is a causal model.

Time: all contestants in one process, taking turns step by step; ratios are formed within a turn. Memory: each in a
process of its own, the highest resident size while it steps. Everything runs on the CPU, in `--threads` threads.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Protocol

import torch
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from publishing import at_least_one, command_line, common_options, footer, machine, needs_peft, publish
from trimtab.backbones import Backbone
from trimtab.config import Seeds, TrainingConfig
from trimtab.initializers import PromptContext
from trimtab.model import PromptedModel
from trimtab.prompt_table import PromptTable
from trimtab.prompts.prompt_tuning import PromptTuning
from trimtab.readouts import Readout
from trimtab.readouts.classes import Classes
from trimtab.readouts.ranking import Ranking
from trimtab.registry import families
from trimtab.text_encoder import TextEncoder
from trimtab.training.encoder_pack import EncoderPack
from trimtab.training.loop import Loop, Member
from trimtab.training.objective import Part
from trimtab.training.records import environment
from trimtab.types import AnswerPlan, Batch, Encoded, Fill, Row, WordPlan

RATE = 1e-3
PAGE = 4 / 1024
"""MiB; the least that a process can grow by."""


@dataclass(frozen=True)
class Shape:
    """What is trained: the sizes of the model, of a batch, of a text and of the prompt."""

    layers: int = 6
    width: int = 768
    heads: int = 12
    vocabulary: int = 50257
    batch: int = 8
    text: int = 96
    prompt: int = 20
    batches: int = 4


@dataclass(frozen=True)
class Contestant:
    """One way to train. `loss`: over the `vocabulary`, or over two `label words`."""

    library: str
    loss: str
    attention: str

    def __str__(self) -> str:
        return f"{self.library}, {self.loss}, {self.attention}"


PEFT = Contestant("PEFT", "vocabulary", "sdpa")
CONTESTANTS = {
    "float32": [Contestant("trimtab", "vocabulary", "sdpa"), Contestant("trimtab", "label words", "sdpa")],
    "bfloat16": [
        Contestant("PEFT", "vocabulary", "eager"),
        Contestant("trimtab", "vocabulary", "sdpa"),
        Contestant("trimtab", "vocabulary", "eager"),
        Contestant("trimtab", "label words", "eager"),
    ],
}
"""By dtype, all held against PEFT with the attention that transformers takes by itself. trimtab takes eager attention
for bfloat16 on a CPU by itself."""


class Training(Protocol):
    """A training that can be stepped and looked into."""

    def step(self) -> None: ...

    def gradient(self) -> Tensor:
        """Of the first batch's mean loss, [P,E]."""
        ...

    @property
    def prompt(self) -> Tensor: ...


# What both train on --------------------------------------------------------------------------------------------------


def network(shape: Shape, dtype: torch.dtype, attention: str) -> GPT2LMHeadModel:
    """A random GPT-2, the same for everyone."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=shape.vocabulary, n_embd=shape.width, n_layer=shape.layers, n_head=shape.heads,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    config._attn_implementation = attention
    return GPT2LMHeadModel(config).to(dtype).eval()


def data(shape: Shape) -> tuple[Tensor, Tensor]:
    """Texts [N,T], and the label word of each, one of the first two tokens of the vocabulary."""
    generator = torch.Generator().manual_seed(1)
    n = shape.batch * shape.batches
    texts = torch.randint(2, shape.vocabulary, (n, shape.text), generator=generator)
    return texts, torch.randint(2, (n,), generator=generator)


def first_prompt(embeddings: Tensor, shape: Shape) -> Tensor:
    """Embeddings of a few tokens, in float32."""
    ids = torch.randint(shape.vocabulary, (shape.prompt,), generator=torch.Generator().manual_seed(2))
    return embeddings[ids].detach().float()


# PEFT ----------------------------------------------------------------------------------------------------------------


class PeftTraining:
    """The loop of PEFT's examples."""

    def __init__(self, shape: Shape, dtype: torch.dtype, attention: str) -> None:
        from peft import PromptTuningConfig, get_peft_model

        base = network(shape, dtype, attention)
        first = first_prompt(base.get_input_embeddings().weight, shape)
        config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=shape.prompt)
        self.model = get_peft_model(base, config).train()
        self._rows = self.model.prompt_encoder["default"].embedding.weight
        with torch.no_grad():
            self._rows.copy_(first)
        self.optimizer = torch.optim.AdamW([self._rows], lr=RATE, weight_decay=0.0)
        texts, labels = data(shape)
        ids = torch.cat([texts, labels[:, None]], 1)
        targets = torch.full_like(ids, -100)
        targets[:, -1] = labels
        mask = torch.ones_like(ids)
        parts = zip(*(x.split(shape.batch) for x in (ids, mask, targets)), strict=True)
        self._batches = [{"input_ids": i, "attention_mask": m, "labels": t} for i, m, t in parts]
        self._stream = cycle(self._batches)

    def step(self) -> None:
        self.model(**next(self._stream)).loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def gradient(self) -> Tensor:
        self.model(**self._batches[0]).loss.backward()
        assert self._rows.grad is not None
        gradient = self._rows.grad.float().clone()
        self.optimizer.zero_grad()
        return gradient

    @property
    def prompt(self) -> Tensor:
        return self._rows.detach()


# trimtab -------------------------------------------------------------------------------------------------------------


class WholeVocabulary(Classes):
    """A readout whose classes are the vocabulary: -log p(target) is PEFT's loss. The head is the model's own."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone

    def scores(self, hidden: Tensor, batch: Batch, heads: Mapping[str, Tensor] = {}) -> Tensor:
        return self._backbone.model.get_output_embeddings()(hidden[:, 0]).float()


class TrimtabTraining:
    """trimtab's training loop, without its evaluations."""

    def __init__(self, shape: Shape, dtype: torch.dtype, attention: str, loss: str) -> None:
        backbone = self._backbone(network(shape, dtype, attention).requires_grad_(False))
        first = first_prompt(backbone.embedding_weight, shape)
        context = PromptContext(backbone.embedding_weight, 1.0, (), (), lambda text: [], torch.Generator())
        encoder = PromptTuning(context, length=shape.prompt, initializer=lambda context, length: first)
        fill = Fill((), (-1,), is_last=True)
        plan = AnswerPlan((fill,), ((WordPlan(0, (0,)),), (WordPlan(0, (1,)),)))
        readout: Readout = WholeVocabulary(backbone) if loss == "vocabulary" else Ranking(backbone, [plan])
        slots = tuple(range(shape.prompt))
        end = shape.prompt + shape.text
        texts, labels = data(shape)
        rows = [
            Row(Encoded((0,) * shape.prompt + tuple(text), slots, (end - 1,), answer_slot=end), label=label, prompt=0)
            for text, label in zip(texts.tolist(), labels.tolist(), strict=True)
        ]
        settings = TrainingConfig(
            learning_rate=RATE, schedule="constant", warmup=0.0, clip=0.0, batch_size=shape.batch,
            max_steps=10**9, min_steps=10**9, max_tokens=shape.batch * end,
        )  # fmt: skip
        seeds = Seeds(init=0, data_order=0, subset=0, noise=0)
        self._member = Member(seeds, settings, rows, rows[:1])
        self.loop = Loop(PromptedModel(backbone, readout), EncoderPack([encoder], [0]), [self._member])
        self._indices = [list(range(i, i + shape.batch)) for i in range(0, len(rows), shape.batch)]
        self._stream = cycle(self._indices)

    @staticmethod
    def _backbone(model: GPT2LMHeadModel) -> Backbone:
        """Around a model that comes from no folder, with a tokenizer that only knows its padding."""
        words = Tokenizer(models.WordLevel({"a": 0, "<pad>": 1}, unk_token="a"))
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="a", pad_token="<pad>")
        return Backbone("random GPT-2", model, families.build({"kind": "gpt2"}), TextEncoder(tokenizer), "", "")

    def step(self) -> None:
        self.loop._step({0: next(self._stream)})
        self.loop.steps_done += 1

    def gradient(self) -> Tensor:
        rows = [self._member.train[i] for i in self._indices[0]]
        leaf = PromptTable(self.prompt[None].clone().requires_grad_())
        share = torch.full((len(rows),), 1 / len(rows))
        self.loop.objective.backward([Part(self.loop.model.collate(rows), share)], leaf)
        assert leaf.inputs.grad is not None
        return leaf.inputs.grad[0]

    @property
    def prompt(self) -> Tensor:
        return self.loop.pack.stacked["rows"].detach()[0]


def start(who: Contestant, shape: Shape, dtype: str) -> Training:
    kind = getattr(torch, dtype)
    if who.library == "PEFT":
        return PeftTraining(shape, kind, who.attention)
    return TrimtabTraining(shape, kind, who.attention, who.loss)


# Measuring -----------------------------------------------------------------------------------------------------------


def difference(a: Tensor, b: Tensor) -> float:
    """|a - b| / |b|."""
    return float((a - b).norm() / b.norm())


def check_gradients(shape: Shape, dtype: str, steps: int = 5) -> dict[str, float]:
    """How far the two libraries are apart in the first gradient, and in the prompt after a few steps; and, since a
    bfloat16 gradient is a rounded one, how far each of them is from the float32 gradient.
    """
    ours, theirs = start(Contestant("trimtab", "vocabulary", "sdpa"), shape, dtype), start(PEFT, shape, dtype)
    found = {"gradient": difference(ours.gradient(), theirs.gradient())}
    if dtype != "float32":
        exact = start(PEFT, shape, "float32").gradient()
        found["trimtab_to_float32"] = difference(ours.gradient(), exact)
        found["peft_to_float32"] = difference(theirs.gradient(), exact)
    first = theirs.prompt.clone()
    for _ in range(steps):
        ours.step()
        theirs.step()
    found["prompt_moved"] = difference(theirs.prompt, first)
    found["prompt"] = difference(ours.prompt - first, theirs.prompt - first)
    return found


def turns(trainings: Sequence[Training], steps: int, warmup: int = 2) -> Iterator[list[tuple[float, float]]]:
    """(wall seconds, processor seconds) of a step of each, by turn; who begins a turn changes."""
    for training in trainings:
        for _ in range(warmup):
            training.step()
    gc.collect()
    gc.freeze()  # what was imported and built: collections during a step stay cheap
    for turn in range(steps):
        taken: list[tuple[float, float]] = [(0.0, 0.0)] * len(trainings)
        for k in range(len(trainings)):
            i = (k + turn) % len(trainings)
            wall, processor = time.perf_counter(), time.process_time()
            trainings[i].step()
            taken[i] = (time.perf_counter() - wall, time.process_time() - processor)
        yield taken
    gc.unfreeze()


def ratios(values: Sequence[float], base: Sequence[float]) -> dict[str, float]:
    """Median and quartiles of the ratios within turns.

    >>> ratios([1.0, 2.0, 3.0], [2.0, 2.0, 2.0])
    {'median': 1.0, 'low': 0.5, 'high': 1.5}
    """
    each = [v / b for v, b in zip(values, base, strict=True)]
    low, _, high = quantiles(each, n=4) if len(each) > 1 else each * 3
    return {"median": median(each), "low": low, "high": high}


def time_all(shape: Shape, dtype: str, steps: int) -> dict[str, dict[str, Any]]:
    """Seconds per step and their ratios to PEFT's, by contestant."""
    everyone = [PEFT, *CONTESTANTS[dtype]]
    taken = list(turns([start(who, shape, dtype) for who in everyone], steps))
    found = {}
    for i, who in enumerate(everyone):
        wall, base = [t[i][0] for t in taken], [t[0][0] for t in taken]
        processor = ratios([t[i][1] for t in taken], [t[0][1] for t in taken])
        found[str(who)] = {"seconds": median(wall), "ratio": ratios(wall, base), "processor_ratio": processor}
    return found


def peak(shape: Shape, dtype: str, who: Contestant, steps: int = 3) -> dict[str, float]:
    """MiB resident after loading, and the most while stepping. Linux."""
    return peak_while_stepping(start(who, shape, dtype), steps)


def peak_while_stepping(training: Training, steps: int = 3) -> dict[str, float]:
    """MiB resident before the first step, and the most while stepping. Linux."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading
    loaded = _resident("VmRSS")
    for _ in range(steps):
        training.step()
    return {"loaded": loaded, "peak": _resident("VmHWM")}


def _resident(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def peak_of_all(shape: Shape, dtype: str, threads: int) -> dict[str, dict[str, float]]:
    """Peaks by contestant, each in a process of its own, and their ratios to PEFT's."""
    found: dict[str, dict[str, float]] = {}
    for who in [PEFT, *CONTESTANTS[dtype]]:
        task = json.dumps({"shape": asdict(shape), "dtype": dtype, "who": asdict(who)})
        command = [sys.executable, __file__, "--threads", str(threads), "--peak-of", task]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[str(who)] = json.loads(done.stdout.splitlines()[-1])
    base = found[str(PEFT)]
    for mine in found.values():
        mine["ratio"] = mine["peak"] / base["peak"]
        mine["ratio_above_loaded"] = (mine["peak"] - mine["loaded"]) / max(base["peak"] - base["loaded"], PAGE)
    return found


# Command line --------------------------------------------------------------------------------------------------------


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in asdict(Shape()).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtypes", nargs="+", choices=list(CONTESTANTS), default=list(CONTESTANTS))
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each contestant")
    common_options(parser)
    parser.add_argument("--peak-of", type=json.loads, help=argparse.SUPPRESS)
    a = parser.parse_args(argv)
    at_least_one(parser, a, *asdict(Shape()), "steps", "threads")
    if a.width % a.heads:
        parser.error(f"--width must be a multiple of --heads, got {a.width} and {a.heads}")
    if a.prompt + a.text + 1 > GPT2Config().n_positions:
        parser.error(f"prompt, text and label must fit in {GPT2Config().n_positions} positions")
    needs_peft(parser)
    return a


def main(argv: Sequence[str] | None = None) -> None:
    a = parse(argv)
    torch.set_num_threads(a.threads)
    if a.peak_of:
        print(json.dumps(peak(Shape(**a.peak_of["shape"]), a.peak_of["dtype"], Contestant(**a.peak_of["who"]))))
        return
    shape = Shape(**{name: getattr(a, name) for name in asdict(Shape())})
    results: dict[str, Any] = {}
    for dtype in a.dtypes:
        agreement = check_gradients(shape, dtype)
        print(dtype, json.dumps(agreement), flush=True)
        memory = peak_of_all(shape, dtype, a.threads)
        timing = time_all(shape, dtype, a.steps)
        rows = {name: {**timing[name], "memory": memory[name]} for name in timing}
        results[dtype] = {"agreement": agreement, "contestants": rows}
    outcome = {
        "command": command_line(__file__, argv),
        "shape": asdict(shape),
        "environment": versions(shape),
        "results": results,
    }
    publish(a.out, outcome, page(outcome))


def versions(shape: Shape) -> dict[str, Any]:
    tiny = Shape(layers=1, width=8, heads=1, vocabulary=16)
    backbone = TrimtabTraining._backbone(network(tiny, torch.float32, "sdpa"))
    found = {k: v for k, v in environment(backbone).items() if k != "dtype"}
    return machine(found, "peft")


def page(outcome: Mapping[str, Any]) -> list[str]:
    """The markdown page."""
    shape = outcome["shape"]
    lines = [
        "# Prompt tuning: trimtab and PEFT's own loop",
        "",
        "GPT-2 with random weights, {layers} layers, {width} wide, {heads} heads, vocabulary {vocabulary}; batch "
        "{batch}, text of {text} tokens and one label token, prompt of {prompt}; loss at the label.".format(**shape),
        "Ratios to PEFT in the first row: below 1 is faster or smaller. Time: median and quartiles over turns in one "
        "process; processor: the same in processor time. Memory: highest resident size of a process of its own, and "
        "how much of it is above the loaded model.",
        "",
        "| backbone | library, loss over, attention | s/step | time | processor | peak MiB | peak | above the model |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for dtype, found in outcome["results"].items():
        for name, row in found["contestants"].items():
            time_, memory = row["ratio"], row["memory"]
            lines.append(
                f"| {dtype} | {name} | {row['seconds']:.3f} "
                f"| {time_['median']:.2f} ({time_['low']:.2f} to {time_['high']:.2f}) "
                f"| {row['processor_ratio']['median']:.2f} | {memory['peak']:.0f} | {memory['ratio']:.2f} "
                f"| {memory['ratio_above_loaded']:.2f} |"
            )
    lines += ["", "Relative differences, trimtab against PEFT, both with sdpa and the loss over the vocabulary:", ""]
    for dtype, found in outcome["results"].items():
        agreement = found["agreement"]
        rounding = (
            f" (from the float32 gradient: trimtab {agreement['trimtab_to_float32']:.1e}, PEFT "
            f"{agreement['peft_to_float32']:.1e})"
            if "peft_to_float32" in agreement
            else ""
        )
        lines.append(
            f"* {dtype}: gradient of the prompt {agreement['gradient']:.1e}{rounding}; what five steps added to the "
            f"prompt {agreement['prompt']:.1e}"
        )
    return [
        *lines,
        "",
        *footer(outcome["command"], outcome["environment"], ", float32 prompt"),
    ]


if __name__ == "__main__":
    main()
