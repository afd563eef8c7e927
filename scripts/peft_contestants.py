"""The two trainings that benchmarks against PEFT let compete: the same model, rows, prompt and loss in both.

A GPT-2 with random weights, the prompt before the text; see `benchmark_peft.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Protocol

import torch
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from publishing import machine
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


def versions(shape: Shape) -> dict[str, Any]:
    tiny = Shape(layers=1, width=8, heads=1, vocabulary=16)
    backbone = TrimtabTraining._backbone(network(tiny, torch.float32, "sdpa"))
    found = {k: v for k, v in environment(backbone).items() if k != "dtype"}
    return machine(found, "peft")
