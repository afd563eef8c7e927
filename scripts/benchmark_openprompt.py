"""Prompt tuning of a masked language model by trimtab and by OpenPrompt: the same rows, loss and prompt, in turns.

OpenPrompt's last release, 1.0.1 of 2022, cannot be imported beside a transformers of today. It still runs beside one of
its time, in a folder of its own:

    pip install --no-deps --target openprompt openprompt==1.0.1 transformers==4.30.2 tokenizers==0.13.3 \\
        huggingface_hub==0.25.2 datasets==2.14.7 dill==0.3.7 multiprocess==0.70.15 fsspec==2023.10.0 pyarrow pandas \\
        pyarrow_hotfix pytz six python-dateutil xxhash aiohttp yacs rouge nltk tensorboardX sentencepiece protobuf
    OMP_NUM_THREADS=1 python scripts/benchmark_openprompt.py --site openprompt --out docs/results/openprompt

A row is [soft tokens][CLS] words [MASK] [SEP]; two label words are compared at the mask. Training rows have equal
lengths, so OpenPrompt pads nothing; rows that are scored have unequal ones, and its loader pads all of them to the
longest. Both begin with the same prompt, so the first losses must agree, and the classes of the held-out rows after
as many steps. Processes take turns, so ratios are formed within a turn; the other one waits meanwhile.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from measuring import ratios
from publishing import command_line, machine, publish
from trimtab.backbones import Backbone, load_backbone
from trimtab.config import Seeds, TrainingConfig
from trimtab.initializers import PromptContext
from trimtab.model import PromptedModel
from trimtab.prompts.prompt_tuning import PromptTuning
from trimtab.registry import readouts
from trimtab.training.encoder_pack import EncoderPack
from trimtab.training.loop import Loop, Member
from trimtab.training.records import environment
from trimtab.types import AnswerPlan, Encoded, Fill, Row, WordPlan

RATE = 1e-3


@dataclass(frozen=True)
class Shape:
    """Rows of a step, words of a training row and of the longest row that is scored, soft tokens, rows to be scored."""

    batch: int = 8
    text: int = 93
    prompt: int = 20
    held_out: int = 128

    @property
    def longest(self) -> int:
        """Tokens of a row without the prompt: [CLS], words, [MASK], [SEP]."""
        return self.text + 3


def rows_of(words: Sequence[str], lengths: Sequence[int], seed: int) -> list[dict[str, Any]]:
    """Rows of random words, and labels."""
    generator = torch.Generator().manual_seed(seed)
    picks = [torch.randint(len(words), (n,), generator=generator).tolist() for n in lengths]
    labels = torch.randint(2, (len(lengths),), generator=generator).tolist()
    return [{"words": [words[i] for i in its], "label": label} for its, label in zip(picks, labels, strict=True)]


def work_of(backbone: Backbone, shape: Shape, model: Path, threads: int) -> dict[str, Any]:
    """What both are told to do, as plain data."""
    tokenizer = backbone.encoder.tokenizer
    words = [w for w in tokenizer.convert_ids_to_tokens(list(backbone.ordinary_words)) if w.isascii() and w.isalpha()]
    drawn = torch.empty(shape.held_out).log_normal_(
        math.log(shape.text / 2), 0.4, generator=torch.Generator().manual_seed(3)
    )
    lengths = [shape.text, *drawn.round().long().clamp(min(4, shape.text), shape.text).tolist()[1:]]
    return {
        "model": str(model), "threads": threads, "batch": shape.batch, "prompt": shape.prompt, "rate": RATE,
        "longest": shape.longest, "label_words": words[:2],
        "training": rows_of(words, [shape.text] * (2 * shape.batch), 0), "held_out": rows_of(words, lengths, 1),
    }  # fmt: skip


class Trimtab:
    """trimtab's training loop and scoring."""

    def __init__(self, backbone: Backbone, work: dict[str, Any]) -> None:
        self._encoder, self._size = backbone.encoder.tokenizer, work["prompt"]
        mask = self._encoder.mask_token_id
        first, second = ((WordPlan(0, (i,)),) for i in self._encoder.convert_tokens_to_ids(work["label_words"]))
        readout = readouts.build({"kind": "cloze"}, backbone, [AnswerPlan((Fill((mask,), (0,)),), (first, second))])
        own = backbone.embedding_weight[: self._size].detach().float().clone()
        context = PromptContext(backbone.embedding_weight, 1.0, (), (), lambda text: [], torch.Generator())
        prompt = PromptTuning(context, length=self._size, initializer=lambda context, length: own)
        rows, self._held_out = self._rows(work["training"]), self._rows(work["held_out"])
        self._budget = work["batch"] * (self._size + work["longest"])
        settings = TrainingConfig(
            learning_rate=work["rate"], schedule="constant", warmup=0.0, clip=0.0, batch_size=work["batch"],
            max_steps=10**9, min_steps=10**9, max_tokens=self._budget,
        )  # fmt: skip
        self._member = Member(Seeds(init=0, data_order=0, subset=0, noise=0), settings, rows, rows[:1])
        self._loop = Loop(PromptedModel(backbone, readout), EncoderPack([prompt], [0]), [self._member])
        self._batch = work["batch"]

    def _rows(self, given: Sequence[dict[str, Any]]) -> list[Row]:
        found = []
        for its in given:
            ids = self._encoder.convert_tokens_to_ids(["[CLS]", *its["words"], "[MASK]", "[SEP]"])
            at, slots = self._size + len(its["words"]) + 1, tuple(range(self._size))
            whole = Encoded((0,) * self._size + tuple(ids), slots, (at,), answer_slot=at)
            found.append(Row(whole, label=its["label"], prompt=0))
        return found

    def ask(self, what: str) -> dict[str, Any]:
        """One step, or the classes of the held-out rows, with the seconds that it took."""
        wall, processor = time.perf_counter(), time.process_time()
        found = self._train() if what == "train" else self._evaluate()
        return {**found, "wall": time.perf_counter() - wall, "processor": time.process_time() - processor}

    def _train(self) -> dict[str, Any]:
        at = self._loop.steps_done * self._batch % len(self._member.train)
        self._loop._step({0: list(range(at, at + self._batch))})
        self._loop.steps_done += 1
        return {"loss": self._member.recent[-1]}

    def _evaluate(self) -> dict[str, Any]:
        table = self._loop.pack.table(training=False, step=self._loop.steps_done).detached()
        return {"classes": self._loop.model.score_rows(self._held_out, table, self._budget).argmax(1).tolist()}


class Contestant:
    """The other process, asked line by line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def tell(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    ask = tell


@contextmanager
def contestant(script: Path, site: Path, work: dict[str, Any]) -> Iterator[Contestant]:
    """OpenPrompt with the packages in `site`, ready."""
    environment = {**os.environ, "PYTHONPATH": str(site.resolve())}
    command = [sys.executable, "-W", "ignore", str(script)]
    with subprocess.Popen(
        command, stdin=-1, stdout=-1, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        its = Contestant(process)
        its.tell(json.dumps(work))
        yield its
        assert process.stdin is not None
        process.stdin.close()


def of_its_time(model: Path, folder: Path) -> Path:
    """The model's files with the word list that a tokenizer of that time reads, in another folder."""
    from transformers import AutoTokenizer

    for path in model.resolve().iterdir():
        (folder / path.name).symlink_to(path)
    if not (folder / "vocab.txt").exists():
        words = AutoTokenizer.from_pretrained(model).get_vocab()
        (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in sorted(words, key=words.__getitem__)))
    return folder


def compare(ours: Trimtab, theirs: Contestant, steps: int, evaluations: int) -> dict[str, Any]:
    """Seconds and ratios by what is done, and how far both agree."""
    found: dict[str, Any] = {}
    for what, turns in (("train", steps), ("evaluate", evaluations)):
        first = ours.ask(what), theirs.ask(what)  # not timed: both warm up
        taken = []
        for turn in range(turns):
            pair = [its.ask(what) for its in ((ours, theirs) if turn % 2 else (theirs, ours))]
            taken.append(pair if turn % 2 else pair[::-1])
        wall, processor = ([[its[k] for its in pair] for pair in taken] for k in ("wall", "processor"))
        found[what] = {
            "seconds": median(t[0] for t in wall), "openprompt_seconds": median(t[1] for t in wall),
            "ratio": ratios([t[0] for t in wall], [t[1] for t in wall]),
            "processor_ratio": ratios([t[0] for t in processor], [t[1] for t in processor]),
        }  # fmt: skip
        if what == "train":
            found["losses"] = [[a["loss"], b["loss"]] for a, b in (first, *taken)]
        else:
            found["same_classes"] = sum(a == b for a, b in zip(*(its["classes"] for its in first), strict=True))
    return found


PAGE = """# Prompt tuning: trimtab and OpenPrompt

A step of {batch} rows of {prompt} soft tokens, {text} words and a mask, and the scoring of {held_out} rows of unequal
lengths; two label words, AdamW, float32, {model}.

Ratios are trimtab's time over OpenPrompt's: below 1 is faster. Median and quartiles over turns.

| what | OpenPrompt, s | trimtab, s | ratio | of processor time |
|---|---|---|---|---|
{lines}

Losses of {steps} steps are at most {apart:.1e} apart, relatively; afterwards both give {same} of {held_out} rows the
same class.

Command: `{command}`

trimtab {trimtab}, torch {torch}, transformers {transformers}, {device}, {cores} cores (load average {load} at the end),
{threads} threads; OpenPrompt {openprompt} with transformers {its_transformers} and the same torch.
"""


def page(outcome: dict[str, Any]) -> str:
    """The Markdown page."""
    found, lines = outcome["results"], []
    for what, name in (("train", "a training step"), ("evaluate", "scoring the rows")):
        row = found[what]
        seconds = f"{row['openprompt_seconds']:.3f} | {row['seconds']:.3f}"
        shares = " | ".join(
            f"{r['median']:.2f} ({r['low']:.2f} to {r['high']:.2f})" for r in (row["ratio"], row["processor_ratio"])
        )
        lines.append(f"| {name} | {seconds} | {shares} |")
    losses = found["losses"]
    return PAGE.format(
        **outcome["shape"], **outcome["environment"], **{k: v for k, v in outcome.items() if isinstance(v, str)},
        lines="\n".join(lines), steps=len(losses), apart=max(abs(a - b) / b for a, b in losses),
        same=found["same_classes"],
    )  # fmt: skip


def version_in(site: Path, package: str) -> str:
    """The version of a package in a folder."""
    return next(site.glob(f"{package}-*.dist-info")).name.removeprefix(f"{package}-").removesuffix(".dist-info")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in asdict(Shape()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    parser.add_argument("--model", type=Path, default=Path("../shared/models/minilm-l6-mlm"), help="a folder of BERT")
    parser.add_argument("--site", type=Path, required=True, help="the folder with OpenPrompt and its packages")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--evaluations", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--contestant", type=Path, default=Path(__file__).with_name("openprompt_contestant.py"),
                        help=argparse.SUPPRESS)  # fmt: skip
    parser.add_argument("--out", type=Path, help="writes OUT.json and OUT.md")
    a = parser.parse_args(argv)
    if not list(a.site.glob("openprompt-*.dist-info")):
        parser.error(f"there is no OpenPrompt in {a.site}: see above how to install it")
    return a


def main(argv: Sequence[str] | None = None) -> None:
    a = parse(argv)
    torch.set_num_threads(a.threads)
    shape = Shape(**{name: getattr(a, name) for name in asdict(Shape())})
    backbone = load_backbone(str(a.model), dtype="float32", device="cpu")
    with tempfile.TemporaryDirectory() as scratch:
        work = work_of(backbone, shape, of_its_time(a.model, Path(scratch)), a.threads)
        with contestant(a.contestant, a.site, work) as theirs:
            results = compare(Trimtab(backbone, work), theirs, a.steps, a.evaluations)
    outcome = {
        "command": command_line(__file__, argv), "shape": asdict(shape), "model": a.model.name, "results": results,
        "openprompt": version_in(a.site, "openprompt"), "its_transformers": version_in(a.site, "transformers"),
        "environment": machine(environment(backbone)),
    }  # fmt: skip
    publish(a.out, outcome, page(outcome).splitlines())


if __name__ == "__main__":
    main()
