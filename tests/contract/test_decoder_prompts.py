"""Prompts in the decoder keep what prompts in the text promise: the same checks, on templates with slots there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from torch import Tensor

from tests.contract import test_backbone_families as matrix
from tests.contract.test_backbone_families import BROKEN, attentions, sabotaged
from tests.contract.toy_runs import LENGTH, reader, rows_of, toy_rendering
from trimtab.backbones import Backbone, Family, load_backbone
from trimtab.model import PromptedModel
from trimtab.tunings.all import All
from trimtab.types import Batch

family_folder = matrix.family_folder

MODELS = ("t5", "t5:own_head", "mt5", "bart", "mbart")
BOTH = "{prompt:2} {text} {decoder_prompt:3} {answer}."
DECODER = "{decoder_prompt} {text} {answer}."
CHECKS = (
    matrix.check_padding_and_mates,
    matrix.check_sides_agree,
    matrix.check_bare_rows,
    matrix.check_scores,
    matrix.check_long_words,
    matrix.check_gradient,
)


@pytest.fixture(params=[BOTH, DECODER], ids=["both", "decoder"])
def template(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The template of all rows that the checks make."""
    monkeypatch.setattr(matrix, "toy_rendering", partial(toy_rendering, template=request.param))
    return str(request.param)


@pytest.fixture
def loaded(family_folder: Callable[[str], Path], name: str, attention: str) -> Backbone:
    return load_backbone(str(family_folder(name)), dtype="float32", device="cpu", attention=attention)  # type: ignore[arg-type]


EVERY = pytest.mark.parametrize(("name", "attention"), [(n, a) for n in MODELS for a in attentions(n)])
ONE = pytest.mark.parametrize(("name", "attention"), [("t5", "sdpa"), ("bart", "sdpa")])


@EVERY
@pytest.mark.parametrize("check", CHECKS)
def test_a_prompt_in_the_decoder_keeps_its_promises(
    loaded: Backbone, check: Callable[[Backbone], None], template: str
) -> None:
    rows = matrix.mixed_rows(loaded)
    assert sum(slot >= 0 for slot in rows[0].encoded.decoder_slots) == (LENGTH if template == DECODER else 3)
    check(loaded)


@pytest.mark.parametrize(("name", "attention"), [("t5", "sdpa"), ("mt5", "sdpa"), ("mbart", "sdpa")])
def test_a_prompt_in_the_decoder_alone_learns_the_toy(
    loaded: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BART's decoder is left out: random and with LayerNorm last, it says the same whatever it reads."""
    monkeypatch.setattr(matrix, "toy_run", partial(matrix.toy_run, template=DECODER))
    monkeypatch.setitem(matrix.RATES, "prompt_tuning", 0.3)
    matrix.check_learns(loaded, tmp_path, {"kind": "prompt_tuning"})


@ONE
def test_training_leaves_the_backbone_bit_identical_and_a_bundle_that_scores_the_same(
    loaded: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrix, "toy_run", partial(matrix.toy_run, template=BOTH))
    recipe = {"prompt": {"kind": "prompt_tuning"}, "regularizers": ["gaussian"]}
    matrix.check_reload(matrix.check_frozen(loaded, tmp_path, recipe), tmp_path / "bundle")


@pytest.mark.parametrize(("name", "attention"), [("t5", "sdpa")])
def test_words_that_the_decoder_alone_reads_are_trained_with_the_backbone(loaded: Backbone) -> None:
    """T5's decoder begins with what stands in no text and is no label word: only the decoder's embedding trains it."""
    own = loaded.trainable(All().open)
    rendering = toy_rendering(own, template=BOTH)
    model = PromptedModel(own, reader(own, rendering))
    batch = model.collate(rows_of(own, rendering, 1))
    start = own.encoder.decoder_start_id
    assert start not in batch.ids
    model.scores(batch, matrix.table_of(own, 1)).sum().backward()
    gradient = own.embedding_weight.grad
    assert gradient is not None
    assert float(gradient[start].abs().sum()) > 0


class DeafDecoder(Family):
    """Reads the ids of the decoder whatever is placed there."""

    def hidden(self, model: object, batch: Batch, embeds: Tensor | None, *rest: Tensor | None) -> Tensor:
        return super().hidden(model, batch, embeds)  # type: ignore[arg-type]


class CutsTheDecodersGradient(Family):
    """Detaches what enters the decoder."""

    def hidden(self, model: object, batch: Batch, embeds: Tensor | None, *rest: Tensor | None) -> Tensor:
        return super().hidden(model, batch, embeds, *(r if r is None else r.detach() for r in rest))  # type: ignore[arg-type]


class ScalesTheDecoder(Family):
    """Gives the decoder vectors that are a little too long."""

    def hidden(self, model: object, batch: Batch, embeds: Tensor | None, *rest: Tensor | None) -> Tensor:
        return super().hidden(model, batch, embeds, *(r if r is None else 1.02 * r for r in rest))  # type: ignore[arg-type]


@ONE
@pytest.mark.parametrize(
    ("saboteur", "check"),
    [
        (DeafDecoder, matrix.check_scores),
        (DeafDecoder, matrix.check_gradient),
        (CutsTheDecodersGradient, matrix.check_gradient),
        (ScalesTheDecoder, matrix.check_scores),
        (ScalesTheDecoder, matrix.check_long_words),
        (ScalesTheDecoder, matrix.check_bare_rows),
        (matrix.MixesRows, matrix.check_padding_and_mates),
        (matrix.IgnoresMask, matrix.check_padding_and_mates),
    ],
)
def test_saboteur_is_caught(
    loaded: Backbone, saboteur: type[Family], check: Callable[[Backbone], None], template: str
) -> None:
    with pytest.raises(BROKEN):
        check(sabotaged(loaded, saboteur))
