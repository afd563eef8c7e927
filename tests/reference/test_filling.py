"""Masks filled one after the other against a derivation of its own: whole sequences by hand, one at a time, the model's
own vocabulary head, loops.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.contract.tiny_families import BUILDERS
from tests.tiny import write_jsonl
from tests.unit.refusals import refused
from trimtab.backbones import Backbone, load_backbone
from trimtab.config import resolve
from trimtab.errors import ConfigError, TemplateError
from trimtab.loading import from_bundle
from trimtab.model import PromptedModel
from trimtab.predictor import Predictor
from trimtab.prompt_table import PromptTable
from trimtab.readouts import cloze_choice, cloze_span, filling
from trimtab.registry import readouts
from trimtab.rendering import Rendering
from trimtab.templates import Template
from trimtab.training.packs import train_pack
from trimtab.training.preparing import Prepared, prepare
from trimtab.training.records import make_bundle
from trimtab.types import Example
from trimtab.verbalizers import Verbalizer

LENGTH = 2
CHOICES = Verbalizer.of({"one": "one", "two": "two"})
TRUTH = Verbalizer.of({"false": "false", "true": "true"})
FAMILIES = ["bert", "roberta", "albert"]
INFILL = [
    Example("a", {"text": "the cat was", "one": "good", "two": "a very bad dog"}, "two"),
    Example("b", {"text": "a film is", "one": "not a very good old book", "two": "bad"}, "one"),
    Example("c", {"text": "the sun", "one": "red moon", "two": "blue sea"}, None),
]
MATCH = [
    Example("a", {"text": "the cat saw the dog and it was big", "who": "the dog"}, "true"),
    Example("b", {"text": "a bird saw a tree and it was old", "who": "a small bird"}, "false"),
    Example("c", {"text": "the moon and the sun", "who": "moon"}, "true"),
    Example("d", {"text": "it was a song in a film", "who": "one very old and sad song in a film"}, "true"),
    Example("e", {"text": "six cat and seven dog", "who": "not the big dog of the poor bird"}, "false"),
]


@pytest.fixture(scope="module", params=FAMILIES)
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    folder = tmp_path_factory.mktemp(str(request.param))
    return load_backbone(str(BUILDERS[request.param](folder)), dtype="float32", device="cpu")


def rendering_of(kind: str, **options: Any) -> Rendering:
    spec = readouts.resolve({"kind": kind, **options}, "readout")
    if kind == "cloze_choice":
        template = Template.parse("{text} {prompt} {answer}.", LENGTH)
        return Rendering(template, CHOICES, 64, spec, answer="infill")
    template = Template.parse("{text} {prompt} {answer}.", LENGTH, ["text"])
    return Rendering(template, TRUTH, 64, spec, answer="match", candidate="who")


def predictor_of(backbone: Backbone, rendering: Rendering) -> Predictor:
    g = torch.Generator().manual_seed(4)
    table = PromptTable(backbone.embedding_rms * torch.randn(1, LENGTH, backbone.embedding_size, generator=g))
    readout = readouts.build(rendering.readout, backbone, [rendering.plan(backbone.encoder)])
    return Predictor(PromptedModel(backbone, readout), rendering, table, {})


class ByHand:
    """A sequence with a prompt and masks in it, tokenized and read without the library's code."""

    def __init__(self, backbone: Backbone, prompt: Tensor, text: str) -> None:
        self.backbone, self.prompt, self.tokenizer = backbone, prompt, backbone.encoder.tokenizer
        self.before = self.tokenizer(text)["input_ids"][:-1]
        self.after = self.tokenizer(".", add_special_tokens=False)["input_ids"] + [self.tokenizer.sep_token_id]

    def ids_of(self, text: str) -> list[int]:
        return list(self.tokenizer(" " + text, add_special_tokens=False)["input_ids"])

    @torch.no_grad()
    def log_p(self, slot: list[int]) -> Tensor:
        """Log-probabilities at every token of the slot, [N,V]."""
        model, n = self.backbone.model, len(self.before)
        ids = torch.tensor([*self.before, *[0] * LENGTH, *slot, *self.after])
        embeds = model.get_input_embeddings()(ids)
        embeds[n : n + LENGTH] = self.prompt
        logits = model(inputs_embeds=embeds[None], attention_mask=torch.ones(1, len(ids))).logits[0]
        return logits[n + LENGTH : n + LENGTH + len(slot)].log_softmax(-1)


def by_hand(backbone: Backbone, predictor: Predictor, example: Example) -> ByHand:
    assert predictor.table is not None
    return ByHand(backbone, predictor.table.inputs[0], example.fields["text"])


def own_words_in_passes(its: ByHand, text: str) -> float:
    """Sum of log-probabilities of a choice, its surest token put in first."""
    wanted = its.ids_of(text)
    slot, left, total = [its.tokenizer.mask_token_id] * len(wanted), set(range(len(wanted))), 0.0
    while left:
        found = its.log_p(slot)
        best = max(left, key=lambda k: float(found[k, wanted[k]]))
        total += float(found[best, wanted[best]])
        slot[best] = wanted[best]
        left.remove(best)
    return total


def check_choices(backbone: Backbone) -> None:
    predictor = predictor_of(backbone, rendering_of("cloze_choice"))
    found = predictor.score(INFILL)
    for example, scores in zip(INFILL, found, strict=True):
        its = by_hand(backbone, predictor, example)
        expected = torch.tensor([own_words_in_passes(its, example.fields[c]) for c in ("one", "two")])
        torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)


def check_hinge(backbone: Backbone) -> None:
    rendering = rendering_of("cloze_choice")
    predictor = predictor_of(backbone, rendering)
    rows = [rendering.row(e, backbone.encoder) for e in INFILL]
    model = predictor.model
    batch = model.collate(rows)
    losses = model.readout.loss(model.scores(batch, predictor.table), batch.labels)
    for example, loss in zip(INFILL, losses.tolist(), strict=True):
        if example.label is None:
            assert loss == 0.0
            continue
        its = by_hand(backbone, predictor, example)
        ids = {c: its.ids_of(example.fields[c]) for c in ("one", "two")}
        open_masks = its.log_p([its.tokenizer.mask_token_id] * max(map(len, ids.values())))
        cross_entropy = {c: -sum(float(open_masks[k, w]) for k, w in enumerate(of)) / len(of) for c, of in ids.items()}
        wrong = next(c for c in ids if c != example.label)
        expected = max(0.0, 1 + cross_entropy[example.label] - cross_entropy[wrong])
        assert loss == pytest.approx(expected, rel=1e-4, abs=1e-4)


def check_hinge_of_the_batch(backbone: Backbone) -> None:
    rendering = rendering_of("cloze_choice", batch_hinge=True)
    predictor = predictor_of(backbone, rendering)
    model, totals, counts = predictor.model, {True: 0.0, False: 0.0}, {True: 0, False: 0}
    batch = model.collate([rendering.row(e, backbone.encoder) for e in INFILL])
    losses = model.readout.loss(model.scores(batch, predictor.table), batch.labels).tolist()
    for example in INFILL[:2]:
        its = by_hand(backbone, predictor, example)
        ids = {c: its.ids_of(example.fields[c]) for c in ("one", "two")}
        open_masks = its.log_p([its.tokenizer.mask_token_id] * max(map(len, ids.values())))
        for choice, tokens in ids.items():
            totals[choice == example.label] -= sum(float(open_masks[k, w]) for k, w in enumerate(tokens))
            counts[choice == example.label] += len(tokens)
    expected = max(0.0, 1 + totals[True] / counts[True] - totals[False] / counts[False])
    assert losses == pytest.approx([expected, expected, 0.0], rel=1e-4, abs=1e-4)


def check_phrases(backbone: Backbone, extra: int = 1) -> None:
    predictor = predictor_of(backbone, rendering_of("cloze_span", extra_masks=extra))
    found = predictor.predict(MATCH)
    for example, record in zip(MATCH, found, strict=True):
        its = by_hand(backbone, predictor, example)
        n = len(its.ids_of(example.fields["who"])) + extra
        slot, left = [its.tokenizer.mask_token_id] * n, set(range(n))
        while left:
            log_p = its.log_p(slot)
            best = max(left, key=lambda k: float(log_p[k].max()))
            slot[best] = int(log_p[best].argmax())
            left.remove(best)
        pad = its.tokenizer.pad_token_id
        assert record.text == its.tokenizer.decode([t for t in slot if t != pad], skip_special_tokens=True).strip()


def check_span_loss(backbone: Backbone) -> None:
    rendering = rendering_of("cloze_span")
    predictor = predictor_of(backbone, rendering)
    rows = [rendering.row(e, backbone.encoder) for e in MATCH]
    batch = predictor.model.collate(rows)
    losses = predictor.model.readout.loss(predictor.model.scores(batch, predictor.table), batch.labels)
    for example, row, loss in zip(MATCH, rows, losses.tolist(), strict=True):
        if example.label == "false":
            assert loss == 0.0, "a wrong phrase is not learned"
            continue
        its = by_hand(backbone, predictor, example)
        phrase = its.ids_of(example.fields["who"])
        pads = len(row.encoded.answer_at) - len(phrase)
        assert 0 <= pads <= 3
        wanted = [*phrase, *[its.tokenizer.pad_token_id] * pads]
        log_p = its.log_p([its.tokenizer.mask_token_id] * len(wanted))
        expected = -sum(float(log_p[k, w]) for k, w in enumerate(wanted)) / len(wanted)
        assert loss == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_choices_are_scored_as_by_hand(opened: Backbone) -> None:
    check_choices(opened)


def test_the_hinge_is_that_of_the_equation(opened: Backbone) -> None:
    check_hinge(opened)


def test_the_hinge_may_be_that_of_the_batch(opened: Backbone) -> None:
    check_hinge_of_the_batch(opened)


@pytest.mark.parametrize("extra", [0, 1])
def test_phrases_are_written_as_by_hand(extra: int, opened: Backbone) -> None:
    check_phrases(opened, extra)


def test_phrases_and_the_pads_behind_them_are_learned(opened: Backbone) -> None:
    check_span_loss(opened)


def test_the_number_of_pads_varies_and_depends_on_the_example_alone(backbone: Backbone) -> None:
    rendering = rendering_of("cloze_span")
    examples = [Example(str(i), {"text": "the cat", "who": "dog"}, "true") for i in range(40)]
    counts = [len(rendering.row(e, backbone.encoder).encoded.answer_at) - 1 for e in examples]
    assert set(counts) == {0, 1, 2, 3}
    assert counts == [len(rendering.row(e, backbone.encoder).encoded.answer_at) - 1 for e in examples]


def test_more_masks_than_while_training_fit_into_the_longest_rows(backbone: Backbone) -> None:
    rendering = rendering_of("cloze_span", most_pads=0, extra_masks=3)
    long = Example("a", {"text": " ".join(["cat"] * 200), "who": "the dog"}, "true")
    assert len(rendering.row(long, backbone.encoder).encoded) == 64 - 3
    predictor_of(backbone, rendering).predict([long])


def test_runs_with_a_hinge_of_the_batch_train_alone(tmp_path: Path, backbone: Backbone) -> None:
    rows = [{**e.fields, "label": str(e.label)} for e in INFILL[:2]]
    files = {split: str(write_jsonl(tmp_path / f"{split}.jsonl", rows)) for split in ("train", "dev", "test")}
    task = {"kind": "table", "choices": ["one", "two"], "template": "{text} {prompt} {answer}.", **files}
    training = {"max_steps": 4, "batch_size": 2, "evaluations": 2}

    def run(of_batch: bool, seed: int = 1) -> Prepared:
        readout = {"kind": "cloze_choice", "batch_hinge": of_batch}
        return prepare(resolve({"task": task, "readout": readout, "training": training, "seed": seed}).config, backbone)

    with refused(ConfigError, "a hinge of whole batches", where="readout.batch_hinge", fix="one after the other"):
        train_pack([run(True), run(True, seed=2)])
    (own,), (plain,) = train_pack([run(True)]), train_pack([run(False)])
    assert own.member.history[0]["dev"]["loss"] != plain.member.history[0]["dev"]["loss"]
    assert from_bundle(make_bundle(own), backbone).rendering.readout["batch_hinge"]
    assert "batch_hinge" not in from_bundle(make_bundle(plain), backbone).rendering.readout


# Saboteurs: what a wrong readout does is seen by the checks above ----------------------------------------------------


def fills_from_the_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(rows: Any, wanted: Any, look: Any, mask_id: int) -> Any:
        slots = [[mask_id] * len(tokens) for tokens in wanted]
        scores = [[0.0] * len(tokens) for tokens in wanted]
        for i, row in enumerate(rows):
            for k, token in enumerate(wanted[i]):
                (seen,) = look([filling._opened(row, slots[i], {k: token})])
                slots[i][k], scores[i][k] = int(seen[0, 0]), float(seen[0, 1])
        return [list(zip(a, b, strict=True)) for a, b in zip(slots, scores, strict=True)]

    monkeypatch.setattr(cloze_choice, "fill", fill)
    monkeypatch.setattr(cloze_span, "fill", fill)


def fills_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(rows: Any, wanted: Any, look: Any, mask_id: int) -> Any:
        opened = [filling._opened(r, [mask_id] * len(w), dict(enumerate(w))) for r, w in zip(rows, wanted, strict=True)]
        seen = look(opened)
        return [[(int(t), float(p)) for t, p in its[: len(w)]] for its, w in zip(seen, wanted, strict=True)]

    monkeypatch.setattr(cloze_choice, "fill", fill)
    monkeypatch.setattr(cloze_span, "fill", fill)


def adds_instead_of_averaging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloze_choice, "_sizes", lambda labels: labels[:, 1:].clamp(max=1))


@pytest.mark.parametrize(
    ("sabotage", "check"),
    [
        (fills_from_the_left, check_choices),
        (fills_all_at_once, check_choices),
        (fills_from_the_left, check_phrases),
        (fills_all_at_once, check_phrases),
        (adds_instead_of_averaging, check_hinge),
        (adds_instead_of_averaging, check_hinge_of_the_batch),
    ],
)
def test_a_wrong_order_is_seen(
    sabotage: Callable[[pytest.MonkeyPatch], None],
    check: Callable[[Backbone], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backbone = load_backbone(str(BUILDERS["bert"](tmp_path)), dtype="float32", device="cpu")
    sabotage(monkeypatch)
    with pytest.raises(AssertionError):
        check(backbone)


@pytest.mark.parametrize("kind", ["cloze_choice", "cloze_span"])
def test_models_without_a_mask_are_refused(kind: str, tmp_path: Path) -> None:
    causal = load_backbone(str(BUILDERS["gpt2"](tmp_path)), dtype="float32", device="cpu")
    what = f"the readout {kind!r} needs a mask token"
    with refused(TemplateError, what, where="readout.kind", fix="Use a masked language model."):
        rendering_of(kind).plan(causal.encoder)
