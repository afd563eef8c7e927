"""Prefixes that are computed once: equal to whole passes, and left alone where they would not be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.contract import test_backbone_families as matrix
from tests.serving_bundles import bundle_of, question, variety
from tests.tiny import tiny_backbone
from trimtab.backbones import Backbone
from trimtab.loading import from_bundle
from trimtab.predictor import Predictor
from trimtab.serving.catalog import Asker
from trimtab.serving.drafts import Draft
from trimtab.serving.engine import Engine, Pace
from trimtab.serving.prefix_cache import PrefixCache, has_prefix, window_of
from trimtab.serving.readers import Readers
from trimtab.serving.scoring import score
from trimtab.serving.tickets import Order, Seat, Writing

family_folder = matrix.family_folder
CAUSAL = ("gpt2", "gpt_neox", "opt", "llama", "mistral", "qwen3", "gemma", "gemma2", "gemma3_text")


@pytest.fixture(params=CAUSAL)
def loaded(family_folder: Callable[[str], Path], request: pytest.FixtureRequest) -> Backbone:
    return tiny_backbone(family_folder(request.param))


def seats_of(predictor: Predictor, texts: list[Any]) -> list[Seat]:
    rows = predictor.rows(predictor.examples(texts))
    return Asker(predictor, Readers(predictor.model.backbone)).seats(rows)


def test_scores_from_a_kept_prefix_are_those_of_the_whole(loaded: Backbone) -> None:
    cache = PrefixCache(loaded, 1 << 20)
    for name in ("short", "long", "phrases", "head", "tags"):
        predictor = from_bundle(variety(loaded)[name], loaded)
        assert has_prefix(predictor), name
        whole = seats_of(predictor, ["the film", "a cat in the sea", "no"])
        short = [cache.shortened(seat) for seat in whole]
        for old, new in zip(whole, short, strict=True):
            assert len(new.row.encoded) < len(old.row.encoded)
            assert new.row.encoded.slots == ()
            assert new.table is not old.table
        for seat, ours, theirs in zip(whole, score(loaded, short), score(loaded, whole), strict=True):
            own = slice(len(seat.row.encoded.answer_at) if ours.ndim == 2 else None)  # behind them is padding
            torch.testing.assert_close(ours[own], theirs[own], atol=1e-5, rtol=1e-5)
    assert (cache.misses, cache.hits) == (5, 10)


def test_texts_behind_a_kept_prefix_are_those_of_the_whole(loaded: Backbone) -> None:
    predictor = from_bundle(variety(loaded)["writer"], loaded)
    cache, texts = PrefixCache(loaded, 1 << 20), []
    for shorten in (False, True):
        writings = [Writing(seat, Order(4, None)) for seat in open_seats(predictor, ["red", "the cat and the dog"])]
        seats = [cache.shortened(w.seat, 4) if shorten else w.seat for w in writings]
        assert all((s.table is not w.seat.table) == shorten for s, w in zip(seats, writings, strict=True))
        draft = Draft(loaded, writings, seats)
        while len(draft):
            draft.step()
        texts.append([w.future.result().ids for w in writings])
    assert texts[0] == texts[1]


def open_seats(predictor: Predictor, texts: list[Any]) -> list[Seat]:
    return Asker(predictor, Readers(predictor.model.backbone)).seats(predictor.open_rows(predictor.examples(texts)))


def test_a_row_longer_than_a_sliding_window_is_computed_whole(family_folder: Callable[[str], Path]) -> None:
    backbone = tiny_backbone(family_folder("mistral"))
    assert window_of(backbone.model.config) == 16
    predictor = from_bundle(variety(backbone)["long"], backbone)
    cache = PrefixCache(backbone, 1 << 20)
    long, short = seats_of(predictor, ["the cat and the dog and the bird and the tree", "red"])
    assert len(long.row.encoded) > 16
    assert cache.shortened(long) is long
    assert cache.shortened(short) is not short
    assert cache.shortened(short, new_tokens=10) is short, "what is written must fit, too"


@pytest.mark.parametrize("name", ["infix", "deep", "gated", "offset", "routed", "shifted"])
def test_other_prompts_are_computed_whole(causal: Backbone, name: str) -> None:
    predictor = from_bundle(variety(causal)[name], causal)
    assert not has_prefix(predictor)
    (seat,) = seats_of(predictor, ["the film"])
    assert PrefixCache(causal, 1 << 20).shortened(seat) is seat


def test_an_encoder_has_no_prefix(backbone: Backbone) -> None:
    assert not has_prefix(from_bundle(variety(backbone)["short"], backbone))


def test_what_was_used_last_is_kept_and_what_was_removed_is_forgotten(causal: Backbone) -> None:
    (one,), (two,), (three,) = (
        seats_of(from_bundle(bundle_of(causal, seed=i), causal), ["the film"]) for i in (1, 2, 3)
    )
    size = PrefixCache(causal, 1 << 20)
    size.shortened(one)
    cache = PrefixCache(causal, 2 * size.bytes)
    for seat in (one, two, one, three, one):
        cache.shortened(seat)
    assert (cache.misses, cache.hits, cache.bytes) == (3, 2, 2 * size.bytes)
    cache.shortened(two)
    assert cache.misses == 4, "the one that was not used was dropped"
    assert two.table is not None
    cache.forget(two.table)
    assert cache.bytes == size.bytes
    none = PrefixCache(causal, 0)
    assert none.shortened(one) is one


def test_the_engine_uses_it(causal: Backbone) -> None:
    predictor = from_bundle(variety(causal)["long"], causal)
    engine = Engine(causal, Pace(latency=0.0))
    seats = seats_of(predictor, [question("long", i) for i in range(3)])
    got = engine.score(seats).future.result(30)
    expected = predictor.score(predictor.examples([question("long", i) for i in range(3)]))
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours[:3], theirs, atol=1e-5, rtol=1e-5)
    assert (engine.prefixes.misses, engine.prefixes.hits) == (1, 2)
    engine.close(5.0)
