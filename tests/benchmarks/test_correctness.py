"""The correctness matrix: what it says of libraries that do right or wrong, a slice of it, and its page."""

from __future__ import annotations

import importlib.util
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from correctness import trimtab_side
from correctness.checks import Check, all_checks
from correctness.command import main
from correctness.families import FAMILIES, network, tokenizer
from correctness.judging import judged
from correctness.subject import Cell, Library, NotApplicable, Refused, Subject, apart, different
from correctness.trimtab_side import TRIMTAB
from trimtab import injection, loading, model
from trimtab.backbones import attention, checkpointing
from trimtab.readouts import head, span, text, tokens
from trimtab.readouts.choice import Choice
from trimtab.readouts.label_words import LabelWords
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


@pytest.mark.parametrize("family", ["gpt2", "qwen2", "t5"])
def test_trimtab_reads_the_tokens_of_the_tiny_vocabulary(family: str) -> None:
    found = trimtab_side.loaded(family, FAMILIES[family].kind).encoder.tokenizer
    assert found("the cat was good")["input_ids"] == tokenizer(family)("the cat was good")["input_ids"]


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


def doubled(*given: Any, table_from: Any = loading.table_from) -> Any:
    table = table_from(*given)
    return replace(table, inputs=2 * table.inputs)


def without_statistics(self: Loop, state: LoopState, load: Any = Loop.load) -> None:
    load(self, replace(state, tensors={n: v for n, v in state.tensors.items() if not n.startswith("optimizer")}))


def lower_right(query: Tensor, keys: int, mask: Any, *rest: Any, added: Any = attention.added) -> Any:
    if mask is None and query.shape[2] > 1:
        length = query.shape[2]
        mask = torch.ones(1, 1, length, keys, dtype=torch.bool).tril(keys - length)
    return added(query, keys, mask, *rest)


def turned(self: Any, *given: Any, scores: Any = LabelWords.scores) -> Tensor:
    words: Tensor = scores(self, *given).flip(1)
    return words


def no_end(begin: Any, end: Any, *rest: Any, write: Any = text._write) -> Any:
    return write(begin, end * 2, *rest)


def sees_pads(rows: Any, pad_id: int, side: str, collate: Any = trimtab_side.collate) -> Any:
    batch = collate(rows, pad_id, side)
    return replace(batch, attention_mask=torch.ones_like(batch.attention_mask))


def for_everyone(table: Any, batch: Any, attention_of: Any = injection.prefix_attention) -> Any:
    return attention_of(table, replace(batch, prompt_of=batch.prompt_of.clamp(min=0)))


def doubling(forward: Any, *given: Any, use_reentrant: bool, **more: Any) -> Any:
    first, *others = given
    return forward(2 * first - first.detach(), *others, **more)


SABOTAGE: list[tuple[str, str, str, str, Any, str, Any]] = [
    ("effect", "prompt_tuning", "bert", "words", model, "place_prompt", forgets),
    ("gradient", "prompt_tuning", "bert", "words", model, "place_prompt", lambda e, t, *r: e + 0 * t.inputs.sum()),
    ("checkpointing", "prompt_tuning", "bert", "words", checkpointing, "checkpoint", doubling),
    ("label words", "deep", "bert", "words", LabelWords, "scores", turned),
    ("text labels", "deep", "t5", "text", text, "_write", no_end),
    ("right pads", "deep", "bert", "words", trimtab_side, "collate", sees_pads),
    ("off", "deep", "bert", "words", model, "prefix_attention", for_everyone),
    ("left pads", "prompt_tuning", "gpt2", "words", trimtab_side, "collate", counts_pads),
    ("left pads, written", "prompt_tuning", "gpt2", "text", trimtab_side, "collate", counts_pads),
    ("mixed batch", "prompt_tuning", "bert", "words", model, "place_prompt", first_prompt),
    ("own position", "prompt_tuning", "bert", "head", head, "_locate", lambda p, e, *r: ((e.slots[0],), None)),
    ("token labels", "deep", "bert", "tokens", tokens, "_locate", next_tag),
    ("span positions", "deep", "bert", "span", span, "_locate", next_token),
    ("multiple choice", "deep", "bert", "choice", Choice, "scores", flipped),
    ("save, load", "prompt_tuning", "bert", "words", loading, "table_from", doubled),
    ("best checkpoint", "prompt_tuning", "bert", "words", loading, "table_from", doubled),
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


# A slice of it -------------------------------------------------------------------------------------------------------


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


SLICE = ["family=bert,gpt2", "method=prompt_tuning,prompt tuning", "task=head,span"]


@needs_peft
@pytest.mark.usefixtures("one_thread")
def test_a_slice_of_the_matrix_is_kept_and_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "correctness"
    main(["--only", *SLICE, "check=own position,left pads", "--out", str(out)])
    kept = out.with_name("correctness.cells.jsonl")
    first = kept.read_text()
    main(["--only", *SLICE, "check=own position,left pads,span positions", "--out", str(out)])
    assert kept.read_text().startswith(first), "nothing is measured twice"
    found = {
        (c["library"], c["family"], c["check"], c["task"]): c for c in map(json.loads, kept.read_text().splitlines())
    }
    mine = {c["outcome"] for c in found.values() if c["library"] == "trimtab"}
    assert mine == {"ok"}
    outcomes = {key[1:]: c["outcome"] for key, c in found.items() if key[0] == "peft"}
    assert outcomes == {
        ("bert", "own position", "head"): "silent", ("gpt2", "own position", "head"): "ok",
        ("bert", "left pads", "head"): "n/a", ("bert", "left pads", "span"): "n/a",
        ("gpt2", "left pads", "head"): "wrong", ("gpt2", "left pads", "span"): "silent",
        ("bert", "span positions", "span"): "silent", ("gpt2", "span positions", "span"): "silent",
    }  # fmt: skip
    assert "Ignoring position ids" in found["peft", "gpt2", "left pads", "head"]["said"]
    file = json.loads(out.with_name("correctness.json").read_text())
    assert file["counts"]["peft"] == {"ok": 1, "silent": 4, "n/a": 2, "wrong": 1}
    its = file["cells"]["peft / prompt tuning / bert"]
    assert its["head"]["own position"] == ["silent", 1.0, None]
    page = out.with_name("correctness.md").read_text()
    assert "| **peft** | **1** | **1** | **4** | **0** | **0** |" in page
    assert "## What trimtab gets wrong\n\nNothing.\n" in page
    assert "| prompt tuning | head | 1 | bert | - |" in page
    assert "| gpt2 | `··` | `WS` |" in page


@pytest.mark.parametrize(
    ("given", "said"), [("familie=bert", "--only takes library, method"), ("family=birt", "leaves nothing")]
)
@needs_peft
def test_filters_that_name_nothing_are_refused(
    given: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        main(["--only", given, "--out", str(tmp_path / "x")])
    assert said in f"{error.value}{capsys.readouterr().err}"
