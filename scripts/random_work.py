"""Random rows for the benchmarks: prompt tuning on any masked language model, in trimtab's own loop.

A row is a prompt, a text and a mask at which two label words are compared. Nothing is learned from it; what it costs is
what a run of its sizes costs.
"""

from __future__ import annotations

import gc
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from trimtab.backbones import Backbone, load_backbone
from trimtab.config import Seeds, TrainingConfig
from trimtab.initializers import PromptContext
from trimtab.model import PromptedModel
from trimtab.prompts.prompt_tuning import PromptTuning
from trimtab.registry import readouts
from trimtab.training.encoder_pack import EncoderPack
from trimtab.training.loop import Loop, Member
from trimtab.types import AnswerPlan, Encoded, Fill, Row, WordPlan


@dataclass(frozen=True)
class Work:
    """One optimizer step: `prompts` runs of `rows` rows each, a row being `prompt` virtual tokens, `text` tokens and a
    mask."""

    rows: int = 8
    text: int = 117
    prompt: int = 10
    prompts: int = 1

    @property
    def length(self) -> int:
        """Tokens of a row."""
        return self.prompt + self.text + 1


def base_sized(folder: Path, tokenizer_of: Path) -> str:
    """A folder with the config of BERT-base and another model's tokenizer, for `random_weights`."""
    from transformers import AutoTokenizer, BertConfig

    AutoTokenizer.from_pretrained(tokenizer_of).save_pretrained(folder)
    BertConfig(architectures=["BertForMaskedLM"]).save_pretrained(folder)
    return str(folder)


def opened(name: str, dtype: str, scratch: Path, tokenizer_of: Path) -> Backbone:
    """A backbone on the CPU; `bert-base` has random weights and is made in `scratch`."""
    if name != "bert-base":
        return load_backbone(name, dtype=dtype, device="cpu")  # type: ignore[arg-type]
    shutil.rmtree(scratch / name, ignore_errors=True)
    return load_backbone(base_sized(scratch / name, tokenizer_of), dtype=dtype, device="cpu", random_weights=0)  # type: ignore[arg-type]


def rows_of(backbone: Backbone, work: Work, seed: int = 0) -> list[Row]:
    """Random rows; answers are one of two words."""
    generator = torch.Generator().manual_seed(seed)
    words, mask = torch.tensor(backbone.ordinary_words), backbone.encoder.mask_id
    assert mask is not None, "the benchmarks take masked language models"
    ids = words[torch.randint(len(words), (work.rows, work.text), generator=generator)].tolist()
    labels = torch.randint(2, (work.rows,), generator=generator).tolist()
    slots, end = tuple(range(work.prompt)), work.length - 1
    return [
        Row(Encoded((mask,) * work.prompt + tuple(text) + (mask,), slots, (end,), answer_slot=end), label=label)
        for text, label in zip(ids, labels, strict=True)
    ]


def loop_of(backbone: Backbone, work: Work, max_tokens: int = 0) -> Loop:
    """A pack of `work.prompts` runs; call `step_of` to train it."""
    words, mask = backbone.ordinary_words, backbone.encoder.mask_id
    assert mask is not None, "the benchmarks take masked language models"
    plan = AnswerPlan((Fill((mask,), (0,)),), tuple((WordPlan(0, (word,)),) for word in words[:2]))
    model = PromptedModel(backbone, readouts.build({"kind": "cloze"}, backbone, [plan]))
    context = PromptContext(backbone.embedding_weight, 1.0, words, (), lambda text: [], torch.Generator())
    encoders = [PromptTuning(context, length=work.prompt) for _ in range(work.prompts)]
    tokens = max_tokens or work.prompts * work.rows * work.length
    settings = TrainingConfig(
        learning_rate=1e-3, schedule="constant", warmup=0.0, batch_size=work.rows, max_steps=10**9, min_steps=10**9,
        max_tokens=tokens,
    )  # fmt: skip
    members = [
        Member(Seeds(init=r, data_order=r, subset=r, noise=r), settings, rows, rows[:1])
        for r, rows in enumerate(rows_of(backbone, work, seed) for seed in range(work.prompts))
    ]
    pack = EncoderPack(encoders, list(range(work.prompts))).to(backbone.device)
    gc.collect()
    return Loop(model, pack, members)


def step_of(loop: Loop) -> None:
    """One optimizer step of all runs on all their rows."""
    loop._step({r: list(range(len(member.train))) for r, member in enumerate(loop.members)})
    loop.steps_done += 1
