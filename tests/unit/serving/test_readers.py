"""Shelves: tasks that are read alike share a readout, and keep their places."""

from __future__ import annotations

import pytest

from tests.serving_bundles import variety
from trimtab.backbones import Backbone
from trimtab.loading import from_bundle
from trimtab.serving import readers as module
from trimtab.serving.readers import Reader, Readers


def opened(readers: Readers, backbone: Backbone, name: str) -> Reader:
    predictor = from_bundle(variety(backbone)[name], backbone)
    return readers.open(predictor.rendering.readout, predictor.rendering.plan(backbone.encoder), predictor.table)


def test_tasks_that_are_read_alike_share_a_readout(backbone: Backbone) -> None:
    readers = Readers(backbone)
    short, long, head, other = (opened(readers, backbone, n) for n in ("short", "long", "head", "head3"))
    assert short.shelf is long.shelf
    assert (short.entry, long.entry) == (0, 1)
    assert head.shelf is not short.shelf
    assert head.shelf is not other.shelf, "heads of other shapes are read apart"
    assert short.shelf.readout is long.shelf.readout


def test_a_place_that_is_given_up_is_taken_by_the_next_and_nobody_else_moves(backbone: Backbone) -> None:
    readers = Readers(backbone)
    one, two = opened(readers, backbone, "short"), opened(readers, backbone, "long")
    before = two.shelf.readout
    one.close()
    assert two.shelf.count == 1
    assert two.shelf.readout is before
    three = opened(readers, backbone, "phrases")
    assert (three.shelf, three.entry) == (two.shelf, 0)
    assert two.shelf.readout is not before


def test_a_shelf_is_short(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LENGTH", 2)
    readers = Readers(backbone)
    places = [opened(readers, backbone, "short") for _ in range(5)]
    assert len({id(p.shelf) for p in places}) == 3
    assert [p.entry for p in places] == [0, 1, 0, 1, 0]
