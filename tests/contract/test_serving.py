"""What the engine promises: whatever stands in a batch, every answer is the one that the prompt gives alone."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.contract import test_backbone_families as matrix
from tests.contract.test_generation import writer
from tests.serving_bundles import bundle_of, question, variety
from trimtab.backbones import Backbone, load_backbone
from trimtab.loading import from_bundle
from trimtab.predictor import Predictor
from trimtab.serving import scoring
from trimtab.serving.engine import Pace
from trimtab.serving.service import Service

family_folder = matrix.family_folder
FAMILIES = ("bert", "modernbert", "llama", "gpt2", "gemma3_text", "t5", "bart")
CLIENTS = 4


def loaded(folder: Path) -> Backbone:
    """A backbone that says different things of different texts; a writer that may come to an end."""
    backbone = load_backbone(str(folder), dtype="float32", device="cpu")
    if backbone.family.auto_class == "AutoModelForMaskedLM":
        return backbone
    end_id, backbone = backbone.encoder.end_id, writer(folder)
    backbone.encoder.end_id = end_id
    return backbone


def numbers_of(record: Any) -> dict[str, Any]:
    """An answer as JSON, without its id, which is a place in a request."""
    return {k: v for k, v in record.as_json().items() if k != "id"}


def check_equal(got: Any, expected: Any) -> None:
    ours, theirs = numbers_of(got), numbers_of(expected)
    scores = ours.pop("scores", {}), theirs.pop("scores", {})
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    if scores[0]:
        assert ours.pop("label") in scores[0]
        theirs.pop("label")
    assert ours == theirs


def can_be_bare(predictor: Predictor) -> bool:
    return not predictor.model.readout.trains


@pytest.fixture(params=FAMILIES)
def served(family_folder: Callable[[str], Path], request: pytest.FixtureRequest) -> Any:
    """A service with a variety of prompts, and each of them alone."""
    backbone = loaded(family_folder(request.param))
    service = Service(backbone, Pace(latency=0.02, tokens=2048))
    alone = {}
    for name, bundle in variety(backbone).items():
        alone[name] = from_bundle(bundle, backbone)
        service.add(name, bundle)
    yield service, alone
    service.close(10.0)


def test_mixed_traffic_of_several_clients_gets_the_answers_of_each_prompt_alone(served: Any) -> None:
    service, alone = served
    work = [
        (n, bare, i) for n in alone for bare in (False, True) for i in range(3) if not bare or can_be_bare(alone[n])
    ]
    random.Random(0).shuffle(work)
    expected = {}
    for name, bare, i in work:
        predictor = alone[name].bare if bare else alone[name]
        expected[name, bare, i] = predictor.predict([question(name, i), question(name, i + 1)])
    got: dict[Any, Any] = {}
    broken: list[BaseException] = []

    def client(mine: list[Any]) -> None:
        try:
            waiting = [(key, service.ask(key[0], [question(key[0], key[2]), question(key[0], key[2] + 1)], key[1]))
                       for key in mine]  # fmt: skip
            got.update((key, asked.records(60.0)) for key, asked in waiting)
        except BaseException as error:
            broken.append(error)

    threads = [threading.Thread(target=client, args=(work[i::CLIENTS],)) for i in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert broken == []
    assert len(got) == len(work)
    for key, records in got.items():
        for ours, theirs in zip(records, expected[key], strict=True):
            check_equal(ours, theirs)
    assert service.engine.counts.repeats == 0
    assert service.engine.counts.rows / service.engine.counts.steps > 6, "the rows must have shared their batches"


def test_a_batch_in_which_rows_see_the_prompts_of_others_is_found(
    family_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = loaded(family_folder("llama"))
    honest = scoring.joined
    monkeypatch.setattr(scoring, "joined", lambda tables: honest(list(tables)[::-1]))
    service = Service(backbone, Pace(latency=0.05, prefix_bytes=0))
    bundles = {"a": bundle_of(backbone, seed=1), "b": bundle_of(backbone, seed=2)}
    for name, bundle in bundles.items():
        service.add(name, bundle)
    asked = [service.ask(name, ["the film"]) for name in bundles]
    own = from_bundle(bundles["a"], backbone).predict(["the film"])[0]
    with pytest.raises(AssertionError):
        check_equal(asked[0].records(30.0)[0], own)
    service.close(10.0)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3_text"])
def test_texts_that_begin_and_leave_at_different_times_are_those_of_each_alone(
    family_folder: Callable[[str], Path], name: str
) -> None:
    backbone = loaded(family_folder(name))
    bundles = {n: b for n, b in variety(backbone).items() if n in ("short", "writer", "deep_writer", "infix")}
    service = Service(backbone)
    for n, bundle in bundles.items():
        service.add(n, bundle)
    models = [*bundles, service.name]
    gates = [threading.Event() for _ in range(12)]
    begun, wanted = [], []
    for i, gate in enumerate(gates):
        model, new, text = models[i % len(models)], 3 + 2 * (i % 4), str(question("x", i))
        ticket, _ = service.write(model, text, new, told=lambda _, gate=gate: gate.set())
        begun.append(ticket)
        wanted.append((model, text, new))
        gate.wait(10)  # the next one comes when this one is under way
    lengths = []
    for ticket, (model, text, new) in zip(begun, wanted, strict=True):
        ids = ticket.future.result(30).ids
        assert ids == solo(backbone, bundles.get(model), text, new)
        lengths.append(len(ids))
    assert sum(lengths) > 40, "the texts must not be over at once"
    service.close(10.0)


def solo(backbone: Backbone, bundle: Any, text: str, new_tokens: int) -> tuple[int, ...]:
    """What a prompt alone, or the bare model, writes on."""
    if bundle is None:
        ids = torch.tensor([[*backbone.encoder.prefix, *backbone.encoder.encode(text).ids]])
        options = {"max_new_tokens": new_tokens, "do_sample": False, "pad_token_id": backbone.pad_id}
        return tuple(
            backbone.model.generate(ids, attention_mask=torch.ones_like(ids), **options)[0, ids.shape[1] :].tolist()
        )
    predictor = from_bundle(bundle, backbone)
    rows = predictor.open_rows(predictor.examples([text]))
    return predictor.model.generate_rows(rows, predictor.table, 10**6, new_tokens)[0]
