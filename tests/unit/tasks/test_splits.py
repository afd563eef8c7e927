"""What task kinds share: which files hold splits, drawing a share, drawing a few."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.refusals import refused
from trimtab.errors import ConfigError, DataError
from trimtab.tasks.splits import check_filled, claim_id, draw, few, files_of


def test_files_are_those_of_the_splits_that_have_one() -> None:
    assert files_of("a.csv", None, None, None) == {"train": "a.csv"}
    assert files_of(None, "a", None, "c") == {"train": "a", "test": "c"}


@pytest.mark.parametrize(
    ("given_files", "what"),
    [
        ((None, None, None, None), "give either path"),
        (("a", "b", None, None), "give either path"),
        ((None, None, "c", None), "give either path"),
        (("a", None, None, "c"), "path holds all splits"),
    ],
)
def test_files_that_contradict_each_other_are_refused(given_files: tuple[str | None, ...], what: str) -> None:
    with refused(ConfigError, what, where="task"):
        files_of(*given_files)


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=4), st.floats(0.05, 0.9), st.integers(0, 60), st.integers(0, 9)
)
def test_a_share_of_every_group_is_drawn_and_never_the_whole(
    sizes: list[int], fraction: float, at_least: int, seed: int
) -> None:
    groups = [[(g, i) for i in range(n)] for g, n in enumerate(sizes)]
    kept, drawn = draw(groups, fraction, at_least, np.random.default_rng(seed))
    assert sorted(kept + drawn) == [row for its in groups for row in its]
    for g, n in enumerate(sizes):
        taken = [i for its, i in drawn if its == g]
        assert taken == sorted(taken)
        assert len(taken) < n or n == 0
        assert taken or n == 1
        assert len(taken) >= min(n - 1, int(fraction * n))


def test_few_keeps_the_order_and_says_what_is_missing() -> None:
    rows = list("abcdefgh")
    picked = few(rows, 4, np.random.default_rng(0), "rows", "dev", "task.dev_rows")
    assert len(picked) == 4
    assert picked == sorted(picked)
    with refused(DataError, "9 rows are asked for in dev, there are 8", where="task.dev_rows"):
        few(rows, 9, np.random.default_rng(0), "rows", "dev", "task.dev_rows")


def test_an_id_has_one_place() -> None:
    seen: dict[str, str] = {}
    claim_id(seen, "a", "x:1", "Change it.")
    with refused(DataError, "the id 'a' stands at x:1 too", where="y:2", fix="Change it."):
        claim_id(seen, "a", "y:2", "Change it.")


def test_every_split_has_rows() -> None:
    check_filled({"train": [1], "dev": [1], "test": [1]})
    with refused(DataError, "the dev split is empty", where="task", fix="Give more rows"):
        check_filled({"train": [1], "dev": [], "test": [1]})
