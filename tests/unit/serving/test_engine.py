"""The engine's manners: who waits for whom, what an error touches, how it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.serving_bundles import variety
from tests.unit.refusals import refused
from tests.unit.serving.test_prefix_cache import open_seats, seats_of
from trimtab.backbones import Backbone
from trimtab.loading import from_bundle
from trimtab.serving import engine as module
from trimtab.serving.engine import Engine, Pace
from trimtab.serving.refusals import ClosingError
from trimtab.serving.tickets import Order, Seat, Writing


@pytest.fixture
def seats(causal: Backbone) -> list[Seat]:
    return seats_of(from_bundle(variety(causal)["long"], causal), ["red", "the cat", "a dog in the sea"])


@pytest.fixture
def engines(causal: Backbone) -> Iterator[Any]:
    made: list[Engine] = []

    def make(**pace: Any) -> Engine:
        made.append(Engine(causal, Pace(**pace)))
        return made[-1]

    yield make
    for engine in made:
        engine.close(0.5)


def test_rows_that_come_soon_after_each_other_share_a_pass(engines: Any, seats: list[Seat]) -> None:
    engine = engines(latency=0.3)
    asked = [engine.score([seat]) for seat in seats]
    for its in asked:
        its.future.result(10)
    assert (engine.counts.steps, engine.counts.rows) == (1, 3)


def test_a_row_waits_no_longer_than_the_latency(engines: Any, seats: list[Seat]) -> None:
    engine = engines(latency=0.05)
    engine.score([seats[0]]).future.result(10)
    began = time.monotonic()
    engine.score([seats[0]]).future.result(10)
    assert 0.05 <= time.monotonic() - began < 5


def test_a_full_batch_does_not_wait(engines: Any, seats: list[Seat]) -> None:
    for pace in ({"rows": 3}, {"tokens": 1}):
        engine = engines(latency=60.0, **pace)
        asked = [engine.score([seat]) for seat in (*seats, *seats)]
        for its in asked[:2]:
            its.future.result(10)


def test_long_questions_are_cut_into_batches(engines: Any, seats: list[Seat]) -> None:
    engine = engines(latency=0.0, rows=2)
    got = engine.score([*seats, *seats]).future.result(10)
    assert engine.counts.steps == 3
    for one, other in zip(got[:3], got[3:], strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_rows_of_like_length_share_a_pass(engines: Any, seats: list[Seat], monkeypatch: pytest.MonkeyPatch) -> None:
    engine, passes = engines(latency=0.2), list[set[int]]()
    lengths = [engine.prefixes.cost(seat) for seat in seats]
    assert len({*lengths}) == 3
    honest = module.score

    def watched(backbone: Backbone, its: Any) -> Any:
        passes.append({s.row.cost for s in its})
        return honest(backbone, its)

    monkeypatch.setattr(module, "score", watched)
    monkeypatch.setattr(module, "OVERHEAD", 1)
    together = engine.score([seats[i % 3] for i in range(30)]).future.result(10)
    assert passes == [{n} for n in sorted(lengths)]
    for i, scores in enumerate(together):
        torch.testing.assert_close(scores, engine.score([seats[i % 3]]).future.result(10)[0], atol=1e-5, rtol=1e-5)


def test_nothing_to_score_is_answered_at_once(engines: Any) -> None:
    assert engines().score([]).future.result(1) == []


def test_an_error_in_a_mixed_batch_is_its_own_requests_alone(
    engines: Any, seats: list[Seat], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, bad = module.score, seats[1]

    def broken(backbone: Backbone, its: Any) -> Any:
        if any(s.row.encoded.ids[-2:] == bad.row.encoded.ids[-2:] for s in its):
            raise RuntimeError("this row breaks everything")
        return honest(backbone, its)

    monkeypatch.setattr(module, "score", broken)
    engine = engines(latency=0.2)
    asked = [engine.score([seat]) for seat in seats]
    assert asked[0].future.result(10)[0].shape == asked[2].future.result(10)[0].shape
    with pytest.raises(RuntimeError, match="this row breaks everything"):
        asked[1].future.result(10)
    assert engine.counts.repeats == 1
    assert engine.score([seats[0]]).future.result(10)


def test_an_error_where_texts_begin_or_go_on_leaves_the_engine_up(
    engines: Any, causal: Backbone, seats: list[Seat], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engines()
    seat = open_seats(from_bundle(variety(causal)["writer"], causal), ["red"])[0]
    family = type(causal.family)
    honest, calls = family.next_logits, [0]

    def broken(self: Any, *given: Any) -> Any:
        calls[0] += 1
        if calls[0] == 3:
            raise RuntimeError("in the middle")
        return honest(self, *given)

    monkeypatch.setattr(family, "next_logits", broken)
    with pytest.raises(RuntimeError, match="in the middle"):
        engine.write(Writing(seat, Order(8, None))).future.result(10)
    assert len(engine.write(Writing(seat, Order(8, None))).future.result(10).ids) == 8
    calls[0] = 2
    assert len(engine.write(Writing(seat, Order(8, None))).future.result(10).ids) == 8, "a text begins again"


def test_a_listener_that_breaks_breaks_its_own_text_alone(engines: Any, causal: Backbone) -> None:
    engine = engines()
    seats = open_seats(from_bundle(variety(causal)["writer"], causal), ["red", "the cat"])
    broken = engine.write(Writing(seats[0], Order(6, None, told=lambda token: 1 // 0)))  # type: ignore[arg-type]
    other = engine.write(Writing(seats[1], Order(6, None)))
    with pytest.raises(ZeroDivisionError):
        broken.future.result(10)
    assert len(other.future.result(10).ids) == 6


def test_a_defect_of_the_engine_leaves_nobody_waiting(
    engines: Any, seats: list[Seat], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engines(latency=0.0)
    monkeypatch.setattr(engine, "_score_some", lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        engine.score(seats).future.result(10)
    monkeypatch.undo()
    assert len(engine.score(seats).future.result(10)) == 3


def test_a_text_that_nobody_waits_for_leaves(engines: Any, causal: Backbone) -> None:
    engine = engines()
    seat = open_seats(from_bundle(variety(causal)["writer"], causal), ["red"])[0]
    begun, go = threading.Event(), threading.Event()

    def told(token: int) -> None:
        begun.set()
        go.wait(10)

    writing = engine.write(Writing(seat, Order(30, None, told=told)))
    other = engine.write(Writing(seat, Order(5, None)))
    begun.wait(10)
    writing.cancel()
    go.set()
    assert len(other.future.result(10).ids) == 5
    engine.call(lambda: None).result(10)
    assert len(writing.written) < 3
    assert engine.waiting == 0


def test_more_texts_than_writers_wait_for_a_place(engines: Any, causal: Backbone) -> None:
    engine = engines(writers=2)
    seats = open_seats(from_bundle(variety(causal)["writer"], causal), ["red", "the cat", "a dog", "sea", "sun"])
    widths: list[int] = []
    asked = [engine.write(Writing(s, Order(4, None, told=lambda _: widths.append(engine.writing)))) for s in seats]
    for its in asked:
        assert len(its.future.result(10).ids) == 4
    assert max(widths) <= 2


def test_work_of_any_sort_has_the_model_to_itself(engines: Any) -> None:
    engine = engines()
    assert engine.call(lambda: threading.current_thread().name).result(10) == "trimtab-engine"
    with pytest.raises(ZeroDivisionError):
        engine.call(lambda: 1 // 0).result(10)


def test_closing_finishes_what_is_there_and_takes_no_more(engines: Any, seats: list[Seat]) -> None:
    engine = engines(latency=60.0)
    asked = engine.score(seats)
    engine.close(10.0)
    assert len(asked.future.result(0)) == 3
    assert not engine.is_open
    with refused(ClosingError, "the server is shutting down", where="server", fix="Ask again"):
        engine.score(seats)


def test_who_still_waits_when_patience_ends_is_told(engines: Any, seats: list[Seat]) -> None:
    engine, hold = engines(latency=60.0), threading.Event()
    engine.call(lambda: hold.wait(3))
    asked = engine.score(seats)
    engine.close(0.05)
    with refused(ClosingError, "the server is shutting down", where="server", fix="Ask again"):
        asked.future.result(5)
    hold.set()
