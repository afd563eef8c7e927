"""What the dataclasses do beside holding values."""

from __future__ import annotations

import torch

from trimtab.batching import collate
from trimtab.types import Encoded, Row


def test_a_causal_sequence_is_opened_before_its_answer() -> None:
    whole = Encoded((1, 5, 5, 6, 7, 8, 9), (1, 2), (4, 5), eligible=(3, 4), dropped=2, answer_slot=5)
    assert whole.opened() == Encoded((1, 5, 5, 6, 7), (1, 2), (4,), eligible=(3, 4), dropped=2, answer_slot=5)


def test_what_stands_behind_the_answer_is_left_out() -> None:
    whole = Encoded((5, 1, 4, 5, 6), (0, 3), (1, 2), eligible=(1, 4), answer_slot=2, text=(1, 3, 4))
    assert whole.opened() == Encoded((5, 1), (0,), (1,), eligible=(1,), answer_slot=2, text=(1,))


def test_a_decoder_is_opened_behind_the_position_that_predicts_the_answer() -> None:
    whole = Encoded((1, 2, 3), (0, -1), (2, 3, 4), (1,), 0, (0, 5, 9, 7, 8), 2, (-1, 1))
    assert whole.opened() == Encoded((1, 2, 3), (0, -1), (2,), (1,), 0, (0, 5, 9), 2, (-1, 1))


def test_a_part_of_a_batch_is_as_a_batch_of_its_own() -> None:
    long, short = Encoded((1, 2, 3, 4), (0,), (1, 2), targets=(7, 8)), Encoded((1, 2), (0,), (1,), targets=(9,))
    rows = [Row(short, 0, key=0), Row(long, 1, key=1, others=(short,)), Row(short, 1, key=2, readout=1)]
    whole = collate(rows, 0)
    assert whole.rows_of(torch.tensor([1])).tolist() == [1, 2]
    for examples in ([0, 2], [1], [1, 2]):
        found, alone = whole.of(torch.tensor(examples)), collate([rows[i] for i in examples], 0)
        width = alone.ids.shape[1]
        assert torch.equal(found.ids[:, :width], alone.ids)
        assert not bool(found.attention_mask[:, width:].any())
        for name in ("answer_at", "answers", "targets", "keys", "example_of", "readout_of", "labels", "prompt_of"):
            assert torch.equal(getattr(found, name), getattr(alone, name)), name
