"""Prompts that come and go while they are in use."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from tests.contract.test_serving import check_equal
from tests.serving_bundles import bundle_of, question, variety
from tests.unit.refusals import refused
from trimtab.backbones import Backbone
from trimtab.errors import BundleError, ConfigError
from trimtab.loading import from_bundle
from trimtab.serving.catalog import Catalog
from trimtab.serving.engine import Engine, Pace
from trimtab.serving.refusals import OverloadedError, TakenError, UnknownError
from trimtab.serving.service import Service
from trimtab.storage import Bundle


@pytest.fixture
def service(causal: Backbone) -> Iterator[Service]:
    made = Service(causal, Pace(latency=0.0))
    yield made
    made.close(5.0)


def test_names_are_checked(causal: Backbone) -> None:
    engine = Engine(causal)
    catalog, predictor = Catalog(engine, "base"), from_bundle(bundle_of(causal), causal)
    catalog.add("a.b-c_1", predictor)
    with refused(TakenError, "there is a prompt 'a.b-c_1' already", where="name", fix="Choose another"):
        catalog.add("a.b-c_1", predictor)
    with refused(TakenError, "'base' is the backbone", where="name", fix="Choose another"):
        catalog.add("base", predictor)
    for name in ("", "-a", "a/b", "../a", "a b", "x" * 101):
        with refused(ConfigError, "a name has letters, digits", where="name"):
            catalog.add(name, predictor)
    with refused(UnknownError, "there is no prompt 'a.b-c'", where="task", fix="Did you mean 'a.b-c_1'?"):
        catalog.get("a.b-c")
    assert catalog.names == ["a.b-c_1"]
    engine.close(1.0)


def test_removing_waits_until_no_row_uses_the_prompt(service: Service, causal: Backbone) -> None:
    bundle = bundle_of(causal, seed=5)
    service.add("p", bundle)
    hold = threading.Event()
    service.engine.call(lambda: hold.wait(10))
    asked = service.ask("p", ["the film"])
    removing: Future[None] = Future()
    thread = threading.Thread(target=lambda: removing.set_result(service.remove("p", 10.0)))
    thread.start()
    until = time.monotonic() + 5
    while "p" in service.catalog.names and time.monotonic() < until:
        time.sleep(0.01)
    with refused(UnknownError, "there is no prompt 'p'", where="task", fix="None is loaded"):
        service.ask("p", ["the film"])
    assert not removing.done(), "a row still uses it"
    hold.set()
    check_equal(asked.records(10.0)[0], from_bundle(bundle, causal)("the film"))
    removing.result(10)
    assert service.engine.prefixes.bytes == 0


def test_who_will_not_wait_for_the_last_row_is_told(service: Service, causal: Backbone) -> None:
    service.add("p", bundle_of(causal, seed=5))
    loaded, hold = service.catalog.get("p"), threading.Event()
    service.engine.call(lambda: hold.wait(10))
    asked = service.ask("p", ["the film"])
    with refused(OverloadedError, "'p' is removed, but 1 questions", where="task", fix="go with the last"):
        service.remove("p", 0.05)
    assert not loaded.is_closed
    hold.set()
    asked.records(10.0)
    until = time.monotonic() + 5
    while not loaded.is_closed and time.monotonic() < until:
        time.sleep(0.01)
    assert loaded.is_closed


def test_prompts_come_and_go_while_others_are_asked(service: Service, causal: Backbone) -> None:
    all_ = variety(causal)
    service.add("stays", all_["long"])
    expected = [from_bundle(all_["long"], causal)(question("long", i)) for i in range(3)]
    done, broken = threading.Event(), list[BaseException]()

    def ask() -> None:
        try:
            while not done.is_set():
                for i in range(3):
                    check_equal(service.ask("stays", [question("long", i)]).records(20.0)[0], expected[i])
        except BaseException as error:
            broken.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    for name in ("short", "phrases", "head", "deep", "short"):
        service.add("guest", all_[name])
        check_equal(service.ask("guest", ["the film"]).records(20.0)[0], from_bundle(all_[name], causal)("the film"))
        service.remove("guest")
    done.set()
    thread.join(30)
    assert broken == []


def test_a_bundle_with_a_backbone_of_its_own_cannot_share_one(service: Service, causal: Backbone) -> None:
    bundle = bundle_of(causal)
    with refused(BundleError, "own weights were trained with this prompt", where="bundle", fix="frozen backbone"):
        service.add("p", Bundle(bundle.metadata, bundle.tensors, {"x": bundle.prompt}))


def test_a_thousand_prompts_are_not_in_a_batch_of_three(service: Service, causal: Backbone, monkeypatch: Any) -> None:
    from trimtab.serving import scoring

    predictor = from_bundle(bundle_of(causal), causal)
    for i in range(1000):
        service.catalog.add(f"p{i}", predictor if i > 2 else from_bundle(bundle_of(causal, seed=i), causal))
    sizes: list[int] = []
    honest = scoring.joined
    monkeypatch.setattr(scoring, "joined", lambda tables: sizes.append(len(tables)) or honest(tables))
    hold = threading.Event()
    service.engine.call(lambda: hold.wait(10))
    asked = [service.ask(f"p{i}", ["the film"]) for i in range(3)]
    hold.set()
    for its in asked:
        its.records(10.0)
    assert sizes == [3]
    assert len({id(service.catalog.get(f"p{i}").prompted.reader.shelf) for i in range(3)}) == 1
