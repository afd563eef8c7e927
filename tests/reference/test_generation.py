"""Text written after a prompt against a loop over whole forward passes of transformers, one row at a time.

Nothing is rendered by templates here: token ids are put together by hand, and the prompt's vectors are laid between
them, in the encoder and in the decoder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.contract.test_generation import writer
from tests.contract.tiny_families import BUILDERS, VARIANTS
from trimtab.model import PromptedModel
from trimtab.prompt_table import PromptTable
from trimtab.readouts.ranking import Ranking
from trimtab.rendering import Rendering
from trimtab.templates import Template
from trimtab.types import Example
from trimtab.verbalizers import Verbalizer

TEXTS = ["old red book", "dog", "sea and sun in the film was not a very good one"]
LENGTH, NEW = 5, 9
ENCODER_DECODERS = ["t5", "t5:own_head", "mt5", "bart", "mbart"]
CAUSAL = ["gpt2", "gpt_neox", "opt", "llama", "gemma2"]


def found(backbone: Any, template: str, prompts: Tensor) -> list[tuple[int, ...]]:
    """What trimtab writes, all texts in one batch, each with a prompt of its own."""
    words = Verbalizer.of({"positive": ["good"], "negative": ["bad"]})
    rendering = Rendering(Template.parse(template, LENGTH), words, 64, {"kind": "ranking"})
    rows = [rendering.row(Example(t, {"text": t}, None), backbone.encoder, prompt=i) for i, t in enumerate(TEXTS)]
    readout = Ranking(backbone, [rendering.plan(backbone.encoder)])
    return PromptedModel(backbone, readout).generate_rows(rows, PromptTable(prompts), 10**6, NEW)


def drawn(backbone: Any) -> Tensor:
    shape = (len(TEXTS), LENGTH, backbone.embedding_size)
    return backbone.embedding_rms * torch.randn(shape, generator=torch.Generator().manual_seed(3))


def vectors(backbone: Any, *parts: list[int] | tuple[int, ...] | Tensor) -> Tensor:
    """Ids and vectors, one after the other, as vectors [1,T,E]."""
    words = backbone.model.get_input_embeddings()
    return torch.cat([p if isinstance(p, Tensor) else words(torch.tensor(p, dtype=torch.long)) for p in parts])[None]


@torch.no_grad()
def greedy(backbone: Any, encoder: Tensor | None, *parts: Any) -> tuple[int, ...]:
    """The likeliest next token, NEW times, each from a pass over all that stands before it."""
    written: list[int] = []
    for _ in range(NEW):
        read = vectors(backbone, *parts, written)
        inputs = {"inputs_embeds": read}
        if encoder is not None:
            inputs = {"inputs_embeds": encoder, "decoder_inputs_embeds": read}
        written.append(int(backbone.model(**inputs, use_cache=False).logits[0, -1].argmax()))
    return tuple(written)


@pytest.mark.parametrize("kind", CAUSAL)
def test_causal_models(kind: str, tmp_path: Path) -> None:
    backbone = writer(BUILDERS[kind](tmp_path))
    prompts, tokenizer = drawn(backbone), backbone.encoder.tokenizer
    expected = []
    for prompt, text in zip(prompts, TEXTS, strict=True):
        begin = list(backbone.encoder.prefix)
        words = tokenizer(text, add_special_tokens=False)["input_ids"]
        first = greedy(backbone, None, begin, prompt, words)
        expected.append((first, greedy(backbone, None, begin, prompt[:2], words, prompt[2:])))
    assert found(backbone, "{prompt}{text}{answer}", prompts) == [first for first, _ in expected]
    assert found(backbone, "{prompt:2}{text}{prompt:3}{answer}", prompts) == [around for _, around in expected]


@pytest.mark.parametrize("kind", ENCODER_DECODERS)
@pytest.mark.parametrize(
    ("template", "text_rows", "decoder_rows"),
    [
        ("{prompt:2}{text}{decoder_prompt:3}{answer}", [0, 1], [2, 3, 4]),
        ("{decoder_prompt:3}{prompt:2}{text}{answer}", [3, 4], [0, 1, 2]),
        ("{decoder_prompt:1}{prompt:2}{text}{decoder_prompt:2}{answer}", [1, 2], [0, 3, 4]),
        ("{decoder_prompt}{text}{answer}", [], [0, 1, 2, 3, 4]),
        ("{prompt}{text}{answer}", [0, 1, 2, 3, 4], []),
    ],
)
def test_encoder_decoders(
    kind: str, template: str, text_rows: list[int], decoder_rows: list[int], tmp_path: Path
) -> None:
    backbone = writer((BUILDERS | VARIANTS)[kind](tmp_path))
    prompts, tokenizer = drawn(backbone), backbone.encoder.tokenizer
    sentinel = tokenizer.convert_tokens_to_ids(["<extra_id_0>"]) if kind.startswith(("t5", "mt5")) else []
    start = backbone.model.config.decoder_start_token_id
    begin, end = [tokenizer.bos_token_id] if kind == "bart" else [], [tokenizer.eos_token_id]
    if kind == "mbart":
        end.append(backbone.encoder.suffix[-1])  # the language
    expected = []
    for prompt, text in zip(prompts, TEXTS, strict=True):
        words = tokenizer(text, add_special_tokens=False)["input_ids"]
        encoder = vectors(backbone, begin, prompt[text_rows], words, sentinel, end)
        expected.append(greedy(backbone, encoder, [start], prompt[decoder_rows], sentinel or begin))
    assert len(set(expected)) > 1
    assert found(backbone, template, prompts) == expected
