"""Cloze scores of a prompted model against BERT's forward pass, written out with einsum from its weights."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.contract.toy_runs import one_mask
from trimtab.backbones import Backbone
from trimtab.model import PromptedModel
from trimtab.prompt_table import PromptTable
from trimtab.registry import readouts
from trimtab.templates import Template
from trimtab.types import Row

WORDS = {"good": ["good", "great"], "bad": ["bad"], "so-so": ["maybe", "not", "old"]}
LENGTH = 3


def affine(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return torch.einsum("oi,ti->to", weights[f"{name}.weight"], x) + weights[f"{name}.bias"]


def layer_norm(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    centered = x - x.mean(1, keepdim=True)
    scaled = centered / torch.sqrt((centered**2).mean(1, keepdim=True) + 1e-12)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def bert_logits(weights: dict[str, Tensor], inputs: Tensor, layers: int, heads: int) -> Tensor:
    """Vocabulary logits [T,V] from input vectors [T,E] of one unpadded sequence (Devlin et al. 2019)."""
    length, size = inputs.shape
    table = "bert.embeddings"
    x = inputs + weights[f"{table}.position_embeddings.weight"][:length]
    x = layer_norm(weights, f"{table}.LayerNorm", x + weights[f"{table}.token_type_embeddings.weight"][0])
    for layer in range(layers):
        at = f"bert.encoder.layer.{layer}"
        q, k, v = (
            affine(weights, f"{at}.attention.self.{n}", x).view(length, heads, size // heads)
            for n in ("query", "key", "value")
        )
        mix = torch.softmax(torch.einsum("qhd,khd->hqk", q, k) / math.sqrt(size // heads), -1)
        attended = torch.einsum("hqk,khd->qhd", mix, v).reshape(length, size)
        x = layer_norm(
            weights, f"{at}.attention.output.LayerNorm", x + affine(weights, f"{at}.attention.output.dense", attended)
        )
        inner = gelu(affine(weights, f"{at}.intermediate.dense", x))
        x = layer_norm(weights, f"{at}.output.LayerNorm", x + affine(weights, f"{at}.output.dense", inner))
    head = "cls.predictions"
    x = layer_norm(weights, f"{head}.transform.LayerNorm", gelu(affine(weights, f"{head}.transform.dense", x)))
    return torch.einsum("ve,te->tv", weights[f"{table}.word_embeddings.weight"], x) + weights[f"{head}.bias"]


@pytest.mark.parametrize("how", ["mean", "max", "logsumexp"])
@pytest.mark.parametrize("prompted", [True, False], ids=["prompted", "bare"])
def test_scores_of_a_prompted_batch_equal_the_written_out_model(how: str, prompted: bool, backbone: Backbone) -> None:
    encoder, config = backbone.encoder, backbone.model.config
    template = Template.parse("{prompt:2} the {text} was {prompt:1} {answer}!", LENGTH)
    texts = ["old red book", "dog", "sea and sun in the film"]
    rows = [
        Row(template.render({"text": t}, encoder, 64, t), prompt=i % 2 if prompted else -1) for i, t in enumerate(texts)
    ]
    table = PromptTable(torch.randn(2, LENGTH, backbone.embedding_size, generator=torch.Generator().manual_seed(4)))
    label_ids = [[encoder.encode(f" {w}").ids[0] for w in words] for words in WORDS.values()]
    readout = readouts.build({"kind": "cloze", "combine": how}, backbone, [one_mask(label_ids)])
    found = PromptedModel(backbone, readout).score_rows(rows, table, 8192)

    weights: dict[str, Tensor] = {n: p.detach().double() for n, p in backbone.model.named_parameters()}
    weights.setdefault("cls.predictions.bias", backbone.model.get_output_embeddings().bias.detach().double())
    for row, scores in zip(rows, found, strict=True):
        vectors = weights["bert.embeddings.word_embeddings.weight"][list(row.encoded.ids)].clone()
        if prompted:
            for p, slot in enumerate(row.encoded.slots):
                vectors[slot] = table.inputs[row.prompt, p].double()
        logits = bert_logits(weights, vectors, config.num_hidden_layers, config.num_attention_heads)
        at_answer = logits[row.encoded.answer_at[0]].tolist()
        assert scores.tolist() == pytest.approx(
            [combine(how, [at_answer[i] for i in ids]) for ids in label_ids], rel=1e-4, abs=1e-4
        )


def combine(how: Any, logits: list[float]) -> float:
    if how == "mean":
        return sum(logits) / len(logits)
    return max(logits) if how == "max" else math.log(sum(math.exp(x) for x in logits))
