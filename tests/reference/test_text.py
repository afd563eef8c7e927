"""Scores of written answers against one forward pass of transformers for each row alone, and what is written against
its own greedy search done by hand.

Nothing is rendered by templates here: token ids are put together by hand from the tokenizer's, the prompt's vectors are
laid between them, and log-probabilities are averaged in double precision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.contract.tiny_families import BUILDERS, VARIANTS
from trimtab import predictor as prediction
from trimtab.backbones import Backbone, load_backbone
from trimtab.errors import TemplateError
from trimtab.model import PromptedModel
from trimtab.predictor import Predictor
from trimtab.prompt_table import PromptTable
from trimtab.readouts import text as written
from trimtab.registry import readouts
from trimtab.rendering import Rendering
from trimtab.templates import Template
from trimtab.types import Batch, Encoded, Example, Fill
from trimtab.verbalizers import Verbalizer

ROWS = [
    ("old red book", "good"),
    ("dog", "the very old cat is not good"),
    ("sea and sun in the film", "bad , bad"),
    ("one two three four five six seven", "sun moon sea"),
]
NEW = 9
"""Tokens that may be written: those of the longest answer and its end."""
LENGTH = 3
DEAF = ("gemma2",)
"""Random models that repeat one word whatever they read."""
MODELS = BUILDERS | VARIANTS
KINDS = [
    *(("auto", kind) for kind in ("gpt2", "llama", "gemma2", "qwen3", "bart", "mbart")),
    *((sentinel, kind) for kind in ("t5", "t5:own_head") for sentinel in ("auto", "yes", "no")),
]
READ = pytest.mark.parametrize(("sentinel", "kind"), KINDS, ids=["-".join(k) for k in KINDS])
PROMPTED = pytest.mark.parametrize("is_prompted", [False, True], ids=["bare", "prompted"])
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.1}
"""In nats per token. The model's own logits are rounded to 8 bits in bfloat16, ours are summed in float32."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def opened(folder: Path, kind: str, dtype: Any = "float32") -> Backbone:
    path = folder / kind.replace(":", "-")
    if not path.exists():
        MODELS[kind](path)
    return load_backbone(str(path), dtype=dtype, device="cpu")


def prompt_of(backbone: Backbone) -> Tensor:
    drawn = torch.randn(LENGTH, backbone.embedding_size, generator=torch.Generator().manual_seed(3))
    return backbone.embedding_rms * drawn


def predictor_of(backbone: Backbone, sentinel: str, is_prompted: bool) -> Predictor:
    spec = readouts.resolve({"kind": "text", "max_new_tokens": NEW, "sentinel": sentinel}, "readout")
    bare = Template.parse("{prompt} the {text} was {answer}.", LENGTH).without_prompt()
    template = Template.parse("the {prompt} {text} was {answer}.", LENGTH) if is_prompted else bare
    rendering = Rendering(template, Verbalizer.free(), backbone.max_positions, spec)
    readout = readouts.build(spec, backbone, [rendering.plan(backbone.encoder)])
    table = PromptTable(prompt_of(backbone)[None]) if is_prompted else None
    return Predictor(PromptedModel(backbone, readout), rendering, table, {})


class Apart:
    """One row as the model itself is given it, by name of its special tokens."""

    def __init__(self, backbone: Backbone, kind: str, sentinel: str, is_prompted: bool, text: str) -> None:
        self.model, self.tokenizer = backbone.model, backbone.encoder.tokenizer
        name = kind.partition(":")[0]
        self.has_decoder = name in ("t5", "bart", "mbart")
        with_sentinel = name == "t5" and sentinel != "no"
        hole = ["<extra_id_0>"] if with_sentinel else []
        head = {"t5": ["<pad>", *hole], "bart": ["</s>", "<s>"], "mbart": ["</s>"]}.get(name, [])
        before = {"llama": ["<s>"], "gemma2": ["<bos>"], "bart": ["<s>"]}.get(name, [])
        behind = {"t5": ["</s>"], "bart": ["</s>"], "mbart": ["</s>", "en_XX"]}.get(name, [])
        ends = {"gpt2": "<|endoftext|>", "qwen3": "<|endoftext|>", "gemma2": "<eos>"}
        self.end = self.named(["<extra_id_1>" if with_sentinel else ends.get(name, "</s>")])[0]
        self.head = self.named(head)
        prompt = prompt_of(backbone) if is_prompted else None
        front = [*self.named(before), *self.ids("the" if is_prompted else f"the {text} was")]
        rest = self.ids(f" {text} was") if is_prompted else []
        after = [*self.named(hole), *self.ids("."), *self.named(behind)] if self.has_decoder else []
        self.parts: list[Any] = [front, *([] if prompt is None else [prompt]), [*rest, *after]]

    def named(self, tokens: Sequence[str]) -> list[int]:
        return [self.tokenizer.convert_tokens_to_ids(token) for token in tokens]

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def next_token(self, answer: Sequence[int]) -> Tensor:
        """Log-probabilities [1 + len(answer), V] of each token of the answer and of the one behind it."""
        table = self.model.get_input_embeddings()
        parts = self.parts if self.has_decoder else [*self.parts, list(answer)]
        vectors = [p.to(table.weight.dtype) if isinstance(p, Tensor) else table(torch.tensor(p).long()) for p in parts]
        inputs = torch.cat(vectors)[None]
        if self.has_decoder:
            logits = self.model(inputs_embeds=inputs, decoder_input_ids=torch.tensor([[*self.head, *answer]])).logits
        else:
            logits = self.model(inputs_embeds=inputs).logits
        return logits[0, -len(answer) - 1 :].double().log_softmax(-1)

    def score(self, answer: str) -> float:
        """Mean log-likelihood of the answer's tokens and its end."""
        ids = self.ids(f" {answer}")
        chances = self.next_token(ids)
        return sum(float(chances[j, i]) for j, i in enumerate([*ids, self.end])) / (len(ids) + 1)

    def writes(self) -> str:
        """Greedy search, every token by a whole pass."""
        answer: list[int] = []
        while len(answer) < NEW:
            token = int(self.next_token(answer)[-1].argmax())
            if token == self.end:
                break
            answer.append(token)
        return str(self.tokenizer.decode(answer, skip_special_tokens=True)).strip()


@torch.no_grad()
def check_scores(backbone: Backbone, kind: str, sentinel: str, is_prompted: bool, dtype: str = "float32") -> None:
    expected = [Apart(backbone, kind, sentinel, is_prompted, text).score(answer) for text, answer in ROWS]
    examples = [Example(str(i), {"text": text}, answer) for i, (text, answer) in enumerate(ROWS)]
    found = predictor_of(backbone, sentinel, is_prompted).score(examples)
    assert found.shape == (len(ROWS), 1)
    torch.testing.assert_close(found[:, 0], torch.tensor(expected), rtol=0, atol=TOLERANCE[dtype])


@torch.no_grad()
def check_written(backbone: Backbone, kind: str, sentinel: str, is_prompted: bool) -> None:
    expected = [Apart(backbone, kind, sentinel, is_prompted, text).writes() for text, _ in ROWS]
    examples = [Example(str(i), {"text": text}, answer) for i, (text, answer) in enumerate(ROWS)]
    found = predictor_of(backbone, sentinel, is_prompted).predict(examples)
    assert [w.text for w in found] == expected  # type: ignore[union-attr]
    assert len(set(expected)) > 1 or kind in DEAF, "rows that all end alike would show little"


@READ
@PROMPTED
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_answer_is_scored_as_by_whole_passes(
    sentinel: str, kind: str, is_prompted: bool, dtype: str, folder: Path
) -> None:
    check_scores(opened(folder, kind, dtype), kind, sentinel, is_prompted, dtype)


@READ
@PROMPTED
def test_what_is_written_is_what_whole_passes_find_likeliest(
    sentinel: str, kind: str, is_prompted: bool, folder: Path
) -> None:
    check_written(opened(folder, kind), kind, sentinel, is_prompted)


# Saboteurs: what a wrong readout does is seen by the checks above ----------------------------------------------------


def changed(monkeypatch: pytest.MonkeyPatch, how: Callable[[Fill], Fill]) -> None:
    """Let every known answer be put into the slot in another way."""
    right = written._write
    monkeypatch.setattr(written, "_write", lambda *given: how(right(*given)))


def forgets_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    changed(monkeypatch, lambda fill: replace(fill, reads=fill.reads[:-1], targets=fill.targets[:-1]))


def reads_one_position_late(monkeypatch: pytest.MonkeyPatch) -> None:
    changed(monkeypatch, lambda fill: replace(fill, reads=(*fill.reads[1:], fill.reads[-1])))


def ends_with_another_token(monkeypatch: pytest.MonkeyPatch) -> None:
    changed(monkeypatch, lambda fill: replace(fill, targets=(*fill.targets[:-1], 7)))


def adds_instead_of_averaging(monkeypatch: pytest.MonkeyPatch) -> None:
    right = written.Text.scores

    def scores(self: Any, hidden: Tensor, batch: Batch, heads: Any = None) -> Tensor:
        assert batch.targets is not None
        return right(self, hidden, batch) * (batch.targets >= 0).sum(1, keepdim=True)

    monkeypatch.setattr(written.Text, "scores", scores)


def normalizes_over_the_answers_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a readout of label words does: all other tokens are impossible."""
    right = written.Text.scores

    def scores(self: Any, hidden: Tensor, batch: Batch, heads: Any = None) -> Tensor:
        assert batch.targets is not None
        known = set(batch.targets.unique().tolist())
        others = [i for i in range(len(self._vocabulary._backbone.embedding_weight)) if i not in known]

        def squash(family: Any, model: Any, logits: Tensor) -> Tensor:
            return logits.index_fill(-1, torch.tensor(others), -torch.inf)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(self._vocabulary._backbone.family), "squash", squash)
            return right(self, hidden, batch)

    monkeypatch.setattr(written.Text, "scores", scores)


SABOTEURS = [
    forgets_the_end,
    reads_one_position_late,
    ends_with_another_token,
    adds_instead_of_averaging,
    normalizes_over_the_answers_only,
]


@pytest.mark.parametrize("sabotage", SABOTEURS)
@pytest.mark.parametrize("kind", ["llama", "t5", "bart"])
def test_a_wrong_score_is_seen(
    kind: str, sabotage: Callable[[pytest.MonkeyPatch], None], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sabotage(monkeypatch)
    with pytest.raises(AssertionError, match="not close"):
        check_scores(opened(folder, kind), kind, "auto", True)


def test_a_forgotten_softcap_is_seen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = opened(folder, "gemma2")
    monkeypatch.setattr(type(backbone.family), "squash", lambda family, model, logits: logits)
    with pytest.raises(AssertionError, match="not close"):
        check_scores(backbone, "gemma2", "auto", True)


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_a_model_that_sees_the_right_answer_before_it_writes_is_seen(
    kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction, "replace", lambda example, **changes: example)
    monkeypatch.setattr(Encoded, "opened", lambda encoded: encoded)
    with pytest.raises(AssertionError):
        check_written(opened(folder, kind), kind, "auto", True)


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_the_released_code_learns_the_end_twice_and_cuts_long_answers(kind: str, folder: Path) -> None:
    encoder = opened(folder, kind).encoder
    once, twice = (written.Text.plan(encoder, [], max_new_tokens=4, as_released=on).write for on in (False, True))
    assert once is not None
    assert twice is not None
    plain, released = (write((7, 8), "row") for write in (once, twice))
    assert released.targets == (*plain.targets, plain.targets[-1])
    assert len(released.reads) == len(plain.reads) + 1 == 4
    assert (released.decoder or released.ids)[-1] == plain.targets[-1], "the first end is read to predict the second"
    with pytest.raises(TemplateError, match="the answer has 5 tokens, its end token included; the model may write 4"):
        once((7, 8, 9, 10), "row")
    end = plain.targets[-1]
    assert twice((7, 8, 9), "row").targets == (7, 8, 9, end), "the second end is cut"
    assert twice((7, 8, 9, 10, 11), "row").targets == (7, 8, 9, end), "so is a long answer"
