"""How readouts plan the answer slot: fills, reads, and which word is read where."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.refusals import refused
from trimtab.errors import TemplateError
from trimtab.readouts import plan_answers
from trimtab.registry import readouts
from trimtab.text_encoder import TextEncoder
from trimtab.types import AnswerPlan, Fill, WordPlan

MASK, SENTINEL, START, BOS, END = 4, 90, 0, 1, 2
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


# Text


def opened(**encoder: int) -> AnswerPlan:
    made = Encoder(**encoder)
    made.end_id, made.second_sentinel_id = END, None if made.sentinel_id is None else SENTINEL - 1
    return plan("text", [], made, max_new_tokens=4)


def test_text_begins_at_the_slot_and_writes_the_answer_with_its_end() -> None:
    made = opened()
    assert (made.fills, made.words, made.room, made.decoder_room) == ((Fill((), (-1,), is_last=True),), (), 4, 0)
    assert made.write is not None
    assert made.write((7, 8), "row") == Fill((7, 8), (-1, 0, 1), targets=(7, 8, END), is_last=True)


def test_text_is_written_by_the_decoder() -> None:
    made = opened(start=START)
    assert (made.fills, made.room, made.decoder_room) == ((Fill((), (1,), (START, BOS)),), 0, 6)
    assert made.write is not None
    assert made.write((7,), "row") == Fill((), (1, 2), (START, BOS, 7), (7, END))


def test_text_stands_between_two_sentinels() -> None:
    made = opened(start=START, sentinel=SENTINEL)
    head = (START, SENTINEL)
    assert (made.fills, made.room, made.decoder_room) == ((Fill((SENTINEL,), (1,), head),), 1, 6)
    assert made.write is not None
    assert made.write((7, 8), "row") == Fill((SENTINEL,), (1, 2, 3), (*head, 7, 8), (7, 8, SENTINEL - 1))


def test_text_without_sentinels_ends_with_the_end_of_text() -> None:
    encoder = Encoder(start=START, sentinel=SENTINEL)
    encoder.end_id, encoder.second_sentinel_id = END, SENTINEL - 1
    made = plan("text", [], encoder, sentinel="no")
    assert made.write is not None
    assert made.write((7,), "row").targets == (7, END)
    encoder.second_sentinel_id = None
    made = plan("text", [], encoder)
    assert made.write is not None
    assert made.write((7,), "row").targets == (7, END)


@pytest.mark.parametrize("n", [4, 9])
def test_an_answer_that_is_too_long_is_refused(n: int) -> None:
    write = opened().write
    assert write is not None
    assert write((7,) * 3, "row").targets == (7, 7, 7, END)
    what = f"the answer has {n + 1} tokens, its end token included; the model may write 4"
    with refused(TemplateError, what, where="t.csv:3", fix=f"readout.max_new_tokens={n + 1}"):
        write((7,) * n, "t.csv:3")


def test_text_without_an_end_is_refused() -> None:
    encoder = Encoder()
    encoder.end_id = None
    what = "the readout 'text' needs a token that ends a text"
    with refused(TemplateError, what, where="readout.kind", fix="eos_token"):
        plan("text", [], encoder)
