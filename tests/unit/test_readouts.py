"""How readouts plan the answer slot: fills, reads, and which word is read where."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.refusals import refused
from trimtab.errors import TemplateError
from trimtab.readouts import plan_answers
from trimtab.registry import readouts
from trimtab.templates import TextEncoder
from trimtab.types import AnswerPlan, Fill, WordPlan

MASK, SENTINEL, START, BOS = 4, 90, 0, 1
ONE = [[(10,), (11,)], [(12,)]]
MANY = [[(10, 11, 12), (10, 13)], [(14,), (15, 16), (10, 17)]]


class Encoder(TextEncoder):
    """What plans know of a tokenizer."""

    def __init__(self, mask: int | None = MASK, sentinel: int | None = None, start: int | None = None) -> None:
        self.mask_id, self.sentinel_id, self.decoder_start_id, self.prefix = mask, sentinel, start, (BOS,)


def plan(kind: str, words: Any, encoder: Encoder, **options: Any) -> AnswerPlan:
    return plan_answers(readouts.resolve({"kind": kind, **options}, "readout"), encoder, words)


def places(made: AnswerPlan) -> list[list[int]]:
    """The fill of every word."""
    return [[w.fill for w in its] for its in made.words]


@pytest.mark.parametrize("words", [ONE, MANY])
@pytest.mark.parametrize("kind", ["cloze", "ranking"])
def test_every_word_is_planned_in_its_place(kind: str, words: Any) -> None:
    assert [[w.ids for w in its] for its in plan(kind, words, Encoder()).words] == words


def test_cloze_has_one_fill_per_length_with_as_many_masks() -> None:
    assert plan("cloze", ONE, Encoder()) == AnswerPlan(
        (Fill((MASK,), (0,)),), ((WordPlan(0, (10,)), WordPlan(0, (11,))), (WordPlan(0, (12,)),))
    )
    made = plan("cloze", MANY, Encoder())
    assert made.fills == tuple(Fill((MASK,) * n, tuple(range(n))) for n in (1, 2, 3))
    assert places(made) == [[2, 1], [0, 1, 1]]


def test_cloze_without_a_mask_token_is_refused() -> None:
    what = "the readout 'cloze' needs a mask token, this tokenizer has none"
    with refused(TemplateError, what, where="readout.kind", fix="ranking"):
        plan("cloze", ONE, Encoder(mask=None))


def test_ranking_has_one_fill_per_beginning_of_a_word() -> None:
    assert plan("ranking", ONE, Encoder()).fills == (Fill((), (-1,), is_last=True),)
    made = plan("ranking", MANY, Encoder())
    assert made.fills == (
        Fill((), (-1,), is_last=True),
        Fill((10,), (-1, 0), is_last=True),
        Fill((10, 11), (-1, 0, 1), is_last=True),
        Fill((15,), (-1, 0), is_last=True),
    )
    assert places(made) == [[2, 1], [0, 3, 1]]


def test_ranking_gives_the_beginning_of_a_word_to_the_decoder() -> None:
    made = plan("ranking", [[(10, 11)], [(12,)]], Encoder(start=START))
    assert made.fills == (Fill((), (1,), (START, BOS)), Fill((), (1, 2), (START, BOS, 10)))
    assert places(made) == [[1], [0]]


@pytest.mark.parametrize("wanted", ["auto", "yes"])
def test_a_sentinel_stands_in_the_slot_and_begins_the_decoder(wanted: str) -> None:
    made = plan("ranking", [[(10, 11)], [(12,)]], Encoder(sentinel=SENTINEL, start=START), sentinel=wanted)
    head = (START, SENTINEL)
    assert made.fills == (Fill((SENTINEL,), (1,), head), Fill((SENTINEL,), (1, 2), (*head, 10)))


def test_a_sentinel_may_be_left_out() -> None:
    made = plan("ranking", ONE, Encoder(sentinel=SENTINEL, start=START), sentinel="no")
    assert made.fills == (Fill((), (1,), (START, BOS)),)


def test_a_sentinel_that_is_not_there_is_refused() -> None:
    with refused(TemplateError, "no sentinel <extra_id_0>", where="readout.sentinel", fix="readout.sentinel=no"):
        plan("ranking", ONE, Encoder(start=START), sentinel="yes")
