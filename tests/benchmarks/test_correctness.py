"""The correctness matrix: what it says of libraries that do right or wrong, a slice of it, and its page."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from correctness import trimtab_side
from correctness.checks import Check, all_checks
from correctness.families import FAMILIES, network, tokenizer
from correctness.judging import judged
from correctness.subject import Cell, Library, NotApplicable, Refused, Subject, apart, different
from correctness.trimtab_side import TRIMTAB
from trimtab import injection, model, predictor
from trimtab.backbones import attention
from trimtab.readouts import head, span, tokens
from trimtab.readouts.choice import Choice
from trimtab.registry import families
from trimtab.training.loop import Loop, LoopState

needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="compares with PEFT: extra benchmark")
CHECKS = {check.name: check for check in all_checks()}
CELL = Cell("it", "a method", "bert", "words")


def library(**methods: Any) -> Library:
    """A library whose subjects do nothing but this."""
    kind: Any = type("Fake", (Subject,), {**dict.fromkeys(Subject.__abstractmethods__), **methods})
    return Library("it", "1", {"a method": {}}, kind)


def outcome(measure: Callable[[], float], tolerance: float = 0.1) -> tuple[str, float | None, str]:
    check = Check("x", "it holds", ("words",), lambda build, folder: measure(), tolerance)
    found = judged(check, library(), CELL)
    return found.outcome, found.deviation, found.said


# Outcomes ------------------------------------------------------------------------------------------------------------


def raising(error: Exception) -> Callable[[], float]:
    def measure() -> float:
        raise error

    return measure


def test_what_holds_is_ok_and_what_does_not_is_wrong_or_silent() -> None:
    def logs() -> float:
        logging.getLogger("peft.somewhere").warning("positions are ignored")
        return 0.5

    def warns(category: type[Warning] = UserWarning) -> float:
        warnings.warn("look out", category, stacklevel=1)
        return 0.5

    assert outcome(lambda: 0.1) == ("ok", 0.1, "")
    assert outcome(lambda: 0.5) == ("silent", 0.5, "")
    assert outcome(logs) == ("wrong", 0.5, "positions are ignored")
    assert outcome(warns) == ("wrong", 0.5, "look out")
    assert outcome(lambda: warns(DeprecationWarning)) == ("silent", 0.5, ""), "news for developers"
    assert outcome(lambda: float("nan"))[0] == "silent"


def test_a_warning_that_is_given_once_per_process_is_heard_every_time() -> None:
    from transformers.utils import logging as loud

    def once() -> float:
        loud.get_logger("transformers.x").warning_once("not quite")
        return 1.0

    assert [outcome(once)[0] for _ in range(2)] == ["wrong", "wrong"]


def test_exceptions_are_errors_refusals_are_said_before() -> None:
    kind, deviation, said = outcome(raising(KeyError("cache_position")))
    assert (kind, deviation) == ("error", None)
    assert said == "KeyError: 'cache_position' (test_correctness.py)"
    assert outcome(raising(Refused("no layers"))) == ("refused", None, "no layers")
    assert outcome(raising(NotApplicable("no head"))) == ("n/a", None, "no head")


def test_differences() -> None:
    one = [torch.tensor([1.0, 2.0])]
    assert apart(one, one) == 0.0
    assert apart(one, [torch.tensor([1.0, 1.0])]) == pytest.approx(0.5**0.5)
    assert apart(one, [torch.zeros(3)]) == float("inf"), "another shape"
    assert apart([torch.tensor([1.0, torch.nan])], one) == float("inf")
    assert different([(1, 2), (3,)], [(1, 2), (4,)]) == 0.5


# Families ------------------------------------------------------------------------------------------------------------


def test_every_family_of_trimtab_is_in_the_matrix() -> None:
    assert sorted(FAMILIES) == sorted(families.kinds())


def test_models_are_the_same_every_time_and_have_no_weight_at_its_usual_value() -> None:
    one, two = (network("bert", "AutoModelForMaskedLM").state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    constant = [n for n, v in one.items() if v.is_floating_point() and len(v.unique()) == 1 and v.numel() > 1]
    assert not constant
    assert tokenizer("bert")("the cat")["input_ids"][0] == tokenizer("bert").cls_token_id


# What the checks find ------------------------------------------------------------------------------------------------


def trimtab_outcome(check: str, method: str, family: str, task: str) -> str:
    found = judged(CHECKS[check], TRIMTAB, Cell("trimtab", method, family, task))
    assert found.outcome in ("ok", "wrong", "silent"), found.said
    return found.outcome


def forgets(embeds: Tensor, *rest: Any) -> Tensor:
    return embeds


def counts_pads(rows: Any, pad_id: int, side: str, collate: Any = trimtab_side.collate) -> Any:
    batch = collate(rows, pad_id, side)
    return replace(batch, position_ids=torch.arange(batch.ids.shape[1]).expand_as(batch.ids))


def first_prompt(embeds: Tensor, table: Any, batch: Any, route: Any, place: Any = injection.place_prompt) -> Tensor:
    moved: Tensor = place(embeds, table, replace(batch, prompt_of=batch.prompt_of[:1].expand(len(batch))), route)
    return moved


def next_tag(*given: Any, locate: Any = tokens._locate) -> Any:
    reads, tags = locate(*given)
    return reads, (*tags[1:], tags[0])


def next_token(*given: Any, locate: Any = span._locate) -> Any:
    reads, places = locate(*given)
    return reads, tuple(place + 1 for place in places)


def flipped(self: Any, *given: Any, scores: Any = Choice.scores) -> Tensor:
    turned: Tensor = scores(self, *given).flip(1)
    return turned


def doubled(*given: Any, table_from: Any = predictor.table_from) -> Any:
    table = table_from(*given)
    return replace(table, inputs=2 * table.inputs)


def without_statistics(self: Loop, state: LoopState, load: Any = Loop.load) -> None:
    load(self, replace(state, tensors={n: v for n, v in state.tensors.items() if not n.startswith("optimizer")}))


def lower_right(query: Tensor, keys: int, mask: Any, *rest: Any, added: Any = attention.added) -> Any:
    if mask is None and query.shape[2] > 1:
        length = query.shape[2]
        mask = torch.ones(1, 1, length, keys, dtype=torch.bool).tril(keys - length)
    return added(query, keys, mask, *rest)


SABOTAGE: list[tuple[str, str, str, str, Any, str, Any]] = [
    ("effect", "prompt_tuning", "bert", "words", model, "place_prompt", forgets),
    ("gradient", "prompt_tuning", "bert", "words", model, "place_prompt", lambda e, t, *r: e + 0 * t.inputs.sum()),
    ("left pads", "prompt_tuning", "gpt2", "words", trimtab_side, "collate", counts_pads),
    ("left pads, written", "prompt_tuning", "gpt2", "text", trimtab_side, "collate", counts_pads),
    ("mixed batch", "prompt_tuning", "bert", "words", model, "place_prompt", first_prompt),
    ("own position", "prompt_tuning", "bert", "head", head, "_locate", lambda p, e, *r: ((e.slots[0],), None)),
    ("token labels", "deep", "bert", "tokens", tokens, "_locate", next_tag),
    ("span positions", "deep", "bert", "span", span, "_locate", next_token),
    ("multiple choice", "deep", "bert", "choice", Choice, "scores", flipped),
    ("save, load", "prompt_tuning", "bert", "words", predictor, "table_from", doubled),
    ("best checkpoint", "prompt_tuning", "bert", "words", predictor, "table_from", doubled),
    ("resume", "prompt_tuning", "bert", "words", Loop, "load", without_statistics),
    ("static cache", "deep", "mistral", "text", attention, "added", lower_right),
]


@pytest.mark.parametrize(("check", "method", "family", "task", "place", "name", "broken"), SABOTAGE)
def test_what_is_broken_is_found(
    check: str, method: str, family: str, task: str, place: Any, name: str, broken: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert trimtab_outcome(check, method, family, task) == "ok"
    monkeypatch.setattr(place, name, broken)
    assert trimtab_outcome(check, method, family, task) == "silent"
