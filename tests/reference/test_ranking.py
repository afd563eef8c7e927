"""Scores of label words of any length against whole forward passes of transformers, one for each candidate alone.

Nothing is rendered by templates here: token ids are put together by hand from the tokenizer's, the prompt's vectors are
laid between them, and log-probabilities are added up in double precision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.contract.tiny_families import BUILDERS
from trimtab.backbones import Backbone, load_backbone
from trimtab.model import PromptedModel
from trimtab.prompt_table import PromptTable
from trimtab.registry import readouts
from trimtab.rendering import Rendering
from trimtab.templates import Template
from trimtab.tunings.all import All
from trimtab.types import Example
from trimtab.verbalizers import Verbalizer

SHORT = {"positive": ["good", "great"], "negative": ["bad"]}
LONG = {"positive": ["very good", "yes"], "negative": ["very very bad", "not good", "no"], "neutral": ["maybe not"]}
TEXTS = ["old red book", "dog", "sea and sun in the film"]
LENGTH = 3
OPTIONS: list[dict[str, Any]] = [
    {},
    {"length_normalized": True},
    {"combine": "max"},
    {"combine": "logsumexp", "length_normalized": True},
]
WORDS = pytest.mark.parametrize("words", [SHORT, LONG], ids=["short", "long"])
READ = pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o) or "plain")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def opened(folder: Path, kind: str) -> Backbone:
    place = folder / kind
    if not place.exists():
        BUILDERS[kind](place)
    return load_backbone(str(place), dtype="float32", device="cpu")


def prompt_of(backbone: Backbone) -> Tensor:
    return torch.randn(LENGTH, backbone.embedding_size, generator=torch.Generator().manual_seed(3))


def found(backbone: Backbone, template: str, words: Mapping[str, list[str]], spec: Mapping[str, Any]) -> Tensor:
    """The scores of trimtab, all texts in one batch."""
    readout = readouts.resolve(dict(spec), "readout")
    rendering = Rendering(Template.parse(template, LENGTH), Verbalizer.of(dict(words)), 64, readout)
    rows = [rendering.row(Example(t, {"text": t}, None), backbone.encoder) for t in TEXTS]
    reader = readouts.build(readout, backbone, [rendering.plan(backbone.encoder)])
    return PromptedModel(backbone, reader).score_rows(rows, PromptTable(prompt_of(backbone)[None]), 8192)


def ids_of(backbone: Backbone, text: str) -> list[int]:
    return backbone.encoder.tokenizer(text, add_special_tokens=False)["input_ids"]


def vectors(backbone: Backbone, *parts: Sequence[int] | Tensor) -> Tensor:
    """Embeddings of token ids, and prompts as they are, one after the other: [1,T,E]."""
    table = backbone.model.get_input_embeddings()
    return torch.cat([p if isinstance(p, Tensor) else table(torch.tensor(p, dtype=torch.long)) for p in parts])[None]


def class_scores(likelihoods: Sequence[Sequence[tuple[float, int]]], options: Mapping[str, Any]) -> list[float]:
    """From (log-probability, tokens) of every word of every class."""
    scores = []
    for its in likelihoods:
        values = torch.tensor([v / n if options.get("length_normalized") else v for v, n in its], dtype=torch.float64)
        how = options.get("combine", "mean")
        value = values.mean() if how == "mean" else values.max() if how == "max" else values.exp().sum().log()
        scores.append(float(value))
    return scores


def assert_same(scores: Tensor, expected: list[list[float]], words: Mapping[str, list[str]]) -> None:
    """Words of one token are scored by logits, which are log-probabilities up to one constant per example."""
    wanted = torch.tensor(expected)
    torch.testing.assert_close(scores.log_softmax(1), wanted.log_softmax(1), rtol=1e-4, atol=1e-4)
    if words is LONG:
        torch.testing.assert_close(scores, wanted, rtol=1e-4, atol=1e-4)


@WORDS
@READ
@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2"])
@torch.no_grad()
def test_a_causal_model_is_scored_as_by_whole_passes(
    kind: str, words: dict[str, list[str]], options: dict[str, Any], folder: Path
) -> None:
    backbone = opened(folder, kind)
    start = [backbone.encoder.tokenizer.bos_token_id] if kind in ("llama", "gemma2") else []
    expected = []
    for text in TEXTS:
        context = [start, ids_of(backbone, "the"), prompt_of(backbone), ids_of(backbone, f" {text} was")]
        length = sum(map(len, context))

        def likelihood(word: str, context: Any = context, length: int = length) -> tuple[float, int]:
            ids = ids_of(backbone, f" {word}")
            logits = backbone.model(inputs_embeds=vectors(backbone, *context, ids)).logits[0].double()
            chances = torch.softmax(logits, -1)
            return sum(float(chances[length - 1 + j, i].log()) for j, i in enumerate(ids)), len(ids)

        expected.append(class_scores([[likelihood(w) for w in its] for its in words.values()], options))
    assert_same(
        found(backbone, "the {prompt} {text} was {answer}.", words, {"kind": "ranking", **options}), expected, words
    )


@WORDS
@READ
@pytest.mark.parametrize(
    ("kind", "sentinel"), [("t5", "auto"), ("t5", "yes"), ("t5", "no"), ("bart", "auto"), ("mbart", "no")]
)
@torch.no_grad()
def test_an_encoder_decoder_is_scored_as_by_whole_passes(
    kind: str, sentinel: str, words: dict[str, list[str]], options: dict[str, Any], folder: Path
) -> None:
    backbone = opened(folder, kind)
    tokenizer = backbone.encoder.tokenizer
    named = {
        "t5": ([], ["</s>"], ["<pad>"]),
        "bart": (["<s>"], ["</s>"], ["</s>", "<s>"]),
        "mbart": ([], ["</s>", "en_XX"], ["</s>"]),
    }
    before, behind, head = (tokenizer.convert_tokens_to_ids(names) for names in named[kind])
    hole = tokenizer.convert_tokens_to_ids(["<extra_id_0>"]) if kind == "t5" and sentinel != "no" else []
    expected = []
    for text in TEXTS:
        inputs = vectors(
            backbone, before, ids_of(backbone, "the"), prompt_of(backbone), ids_of(backbone, f" {text} was"), hole,
            ids_of(backbone, "."), behind,
        )  # fmt: skip

        def likelihood(word: str, inputs: Tensor = inputs) -> tuple[float, int]:
            ids = ids_of(backbone, f" {word}")
            decoder = torch.tensor([[*head, *hole, *ids]])
            logits = backbone.model(inputs_embeds=inputs, decoder_input_ids=decoder).logits[0].double()
            first = len(head) + len(hole) - 1
            chances = torch.softmax(logits, -1)
            return sum(float(chances[first + j, i].log()) for j, i in enumerate(ids)), len(ids)

        expected.append(class_scores([[likelihood(w) for w in its] for its in words.values()], options))
    spec = {"kind": "ranking", "sentinel": sentinel, **options}
    assert_same(found(backbone, "the {prompt} {text} was {answer}.", words, spec), expected, words)


@WORDS
@READ
@pytest.mark.parametrize("kind", ["bert", "roberta"])
@torch.no_grad()
def test_a_masked_model_is_scored_as_by_whole_passes(
    kind: str, words: dict[str, list[str]], options: dict[str, Any], folder: Path
) -> None:
    backbone = opened(folder, kind)
    tokenizer = backbone.encoder.tokenizer
    expected = []
    for text in TEXTS:
        context = [
            [tokenizer.cls_token_id], ids_of(backbone, "the"), prompt_of(backbone), ids_of(backbone, f" {text} was")
        ]  # fmt: skip
        behind = [*ids_of(backbone, "."), tokenizer.sep_token_id]
        length = sum(map(len, context))

        def likelihood(
            word: str, context: Any = context, behind: list[int] = behind, length: int = length
        ) -> tuple[float, int]:
            ids = ids_of(backbone, f" {word}")
            inputs = vectors(backbone, *context, [tokenizer.mask_token_id] * len(ids), behind)
            chances = torch.softmax(backbone.model(inputs_embeds=inputs).logits[0].double(), -1)
            return sum(float(chances[length + j, i].log()) for j, i in enumerate(ids)), len(ids)

        expected.append(class_scores([[likelihood(w) for w in its] for its in words.values()], options))
    assert_same(
        found(backbone, "the {prompt} {text} was {answer}.", words, {"kind": "cloze", **options}), expected, words
    )


@pytest.mark.parametrize(("words", "fetched"), [(SHORT, 0), (LONG, 1)], ids=["short", "long"])
def test_the_whole_vocabulary_matrix_is_made_float32_once_and_only_for_words_of_several_tokens(
    words: dict[str, list[str]], fetched: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = opened(folder, "gpt2")
    seen: list[Any] = []
    fetch = type(backbone.family).vocabulary_rows

    def counted(self: Any, model: Any, ids: Any) -> Any:
        seen.append(ids)
        return fetch(self, model, ids)

    monkeypatch.setattr(type(backbone.family), "vocabulary_rows", counted)
    readout = readouts.resolve({"kind": "ranking"}, "readout")
    rendering = Rendering(Template.parse("{prompt} {text} was {answer}", LENGTH), Verbalizer.of(words), 64, readout)
    rows = [rendering.row(Example(t, {"text": t}, None), backbone.encoder) for t in TEXTS]
    model = PromptedModel(backbone, readouts.build(readout, backbone, [rendering.plan(backbone.encoder)]))
    for _ in range(3):
        model.score_rows(rows, PromptTable(prompt_of(backbone)[None]), 8192)
    assert sum(isinstance(ids, slice) for ids in seen) == fetched
    assert len(seen) == 1, "rows of a frozen matrix are fetched once, few or all"


@pytest.mark.parametrize("words", [SHORT, LONG], ids=["short", "long"])
def test_a_matrix_in_training_has_gradients_after_an_evaluation(words: dict[str, list[str]], folder: Path) -> None:
    backbone = opened(folder, "gpt2").trainable(All().open)
    readout = readouts.resolve({"kind": "ranking"}, "readout")
    rendering = Rendering(Template.parse("{prompt} {text} was {answer}", LENGTH), Verbalizer.of(words), 64, readout)
    rows = [rendering.row(Example(t, {"text": t}, None), backbone.encoder) for t in TEXTS]
    model = PromptedModel(backbone, readouts.build(readout, backbone, [rendering.plan(backbone.encoder)]))
    table = PromptTable(prompt_of(backbone)[None])
    model.score_rows(rows, table, 8192)
    found = []
    for readout_now in (model.readout, readouts.build(readout, backbone, [rendering.plan(backbone.encoder)])):
        backbone.model.zero_grad()
        PromptedModel(backbone, readout_now).scores(model.collate(rows), table)[:, 0].sum().backward()
        found.append(backbone.model.get_output_embeddings().weight.grad.clone())
    assert found[0].abs().sum() > 0
    assert torch.equal(*found)
