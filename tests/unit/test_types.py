"""What the dataclasses do beside holding values."""

from __future__ import annotations

from trimtab.types import Encoded


def test_a_causal_sequence_is_opened_before_its_answer() -> None:
    whole = Encoded((1, 5, 5, 6, 7, 8, 9), (1, 2), (4, 5), eligible=(3, 4), dropped=2, answer_slot=5)
    assert whole.opened() == Encoded((1, 5, 5, 6, 7), (1, 2), (4,), eligible=(3, 4), dropped=2, answer_slot=5)


def test_what_stands_behind_the_answer_is_left_out() -> None:
    whole = Encoded((5, 1, 4, 5, 6), (0, 3), (1, 2), eligible=(1, 4), answer_slot=2)
    assert whole.opened() == Encoded((5, 1), (0,), (1,), eligible=(1,), answer_slot=2)


def test_a_decoder_is_opened_behind_the_position_that_predicts_the_answer() -> None:
    whole = Encoded((1, 2, 3), (0, -1), (2, 3, 4), (1,), 0, (0, 5, 9, 7, 8), 2, (-1, 1))
    assert whole.opened() == Encoded((1, 2, 3), (0, -1), (2,), (1,), 0, (0, 5, 9), 2, (-1, 1))
