"""Initializers: first values from the vocabulary, a range, label words, text, or another run."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny import bundle_metadata
from tests.unit.refusals import refused
from trimtab.errors import BundleError, ConfigError
from trimtab.initializers import (
    ClassLabels,
    FromRun,
    Initializer,
    PromptContext,
    SampledVocab,
    Text,
    Uniform,
    fingerprint,
)
from trimtab.registry import initializers
from trimtab.seeding import torch_stream
from trimtab.storage import Bundle, write_bundle

TABLE = torch.arange(20.0)[:, None].repeat(1, 4)  # row i holds i
WORDS = list(range(5, 20))


def context(seed: int = 0, label_ids: list[int] = [7, 9]) -> PromptContext:  # noqa: B006
    return PromptContext(
        embeddings=TABLE,
        embedding_rms=2.0,
        words=WORDS,
        label_ids=label_ids,
        encode=lambda text: [int(t) for t in text.split()],
        generator=torch_stream(seed, "init"),
        backbone="y",
        fingerprint="f1",
    )


def entries(values: torch.Tensor) -> list[int]:
    """Which vocabulary rows these are."""
    assert values.dtype == torch.float32
    assert torch.equal(values, values[:, :1].expand_as(values))
    return [int(v) for v in values[:, 0]]


def test_sampled_vocab_draws_ordinary_entries_without_repetition() -> None:
    drawn = entries(SampledVocab()(context(), 15))
    assert sorted(drawn) == WORDS
    assert drawn != WORDS


def test_sampled_vocab_can_be_limited_to_the_first_entries() -> None:
    assert sorted(entries(SampledVocab(first=3)(context(), 3))) == [5, 6, 7]


@pytest.mark.parametrize(("first", "length"), [(0, 16), (3, 4)])
def test_sampled_vocab_refuses_more_rows_than_entries(first: int, length: int) -> None:
    what = f"{length} entries cannot be drawn from {first or 15} without repetition"
    with refused(ConfigError, what, where="prompt.initializer"):
        SampledVocab(first=first)(context(), length)


def test_a_negative_limit_of_sampled_vocab_is_refused() -> None:
    with refused(ConfigError, "greater than or equal to 0, got -5", where="prompt.initializer.first"):
        initializers.resolve({"kind": "sampled_vocab", "first": -5}, "prompt.initializer")


def test_uniform_fills_its_range() -> None:
    values = Uniform(range=0.5)(context(), 2000)
    assert values.shape == (2000, 4)
    assert 0.49 < values.abs().max() <= 0.5
    assert values.mean().abs() < 0.02


def test_uniform_matches_the_embeddings_scale_by_default() -> None:
    values = Uniform()(context(), 2000)
    assert values.square().mean().sqrt() == pytest.approx(2.0, rel=0.03)
    assert values.abs().max() <= 2 * math.sqrt(3)


def test_class_labels_come_first_and_the_vocabulary_fills_up() -> None:
    drawn = entries(ClassLabels()(context(), 5))
    assert drawn[:2] == [7, 9]
    assert set(drawn[2:]) <= set(WORDS)


def test_surplus_class_labels_are_cut() -> None:
    assert entries(ClassLabels()(context(label_ids=[7, 9, 11]), 2)) == [7, 9]


def test_text_is_repeated_to_the_length() -> None:
    assert entries(Text(text="3 4 5")(context(), 7)) == [3, 4, 5, 3, 4, 5, 3]


def test_text_longer_than_the_prompt_is_refused() -> None:
    what = "the text must give 1 to 2 tokens (prompt.length), got 3"
    with refused(ConfigError, what, where="prompt.initializer.text", fix="Set prompt.length=3"):
        Text(text="3 4 5")(context(), 2)


def test_empty_text_is_refused() -> None:
    with refused(ConfigError, "got 0", where="prompt.initializer.text", fix="Write some text"):
        Text(text=" ")(context(), 2)


def bundle(folder: Path, length: int, size: int, value: float = 0.5, fingerprint: str = "f1") -> str:
    prompt = np.full((length, size), value, np.float32)
    write_bundle(folder, Bundle(bundle_metadata((length, size), fingerprint), {"inputs": prompt}))
    return str(folder)


def test_from_run_takes_another_run_s_prompt(tmp_path: Path) -> None:
    values = FromRun(run=bundle(tmp_path / "r", 3, 4))(context(), 3)
    assert torch.equal(values, torch.full((3, 4), 0.5))


def test_from_run_refuses_another_length_and_says_which_fits(tmp_path: Path) -> None:
    run = bundle(tmp_path / "r", 3, 4)
    what = f"the prompt of {run} has shape (3, 4), this run needs (2, 4)"
    with refused(ConfigError, what, where="prompt.initializer.run", fix="Set prompt.length=3"):
        FromRun(run=run)(context(), 2)


def test_from_run_refuses_a_prompt_of_another_backbone_and_names_both(tmp_path: Path) -> None:
    run = bundle(tmp_path / "r", 3, 4, fingerprint="e" * 64)
    what = f"the prompt of {run} was trained on the backbone 'x' (fingerprint {'e' * 12}), this run uses 'y' (f1)"
    with refused(BundleError, what, where="prompt.initializer.run", fix="a run on 'y'"):
        FromRun(run=run)(context(), 3)


def test_only_an_initializer_that_reads_a_prompt_has_a_fingerprint_and_it_is_that_of_the_values(tmp_path: Path) -> None:
    first, copy, other = (bundle(tmp_path / n, 3, 4, v) for n, v in (("a", 0.5), ("b", 0.5), ("c", 0.6)))
    prints = [fingerprint({"kind": "from_run", "run": run}) for run in (first, copy, other)]
    assert prints[0] == prints[1] != prints[2]
    assert all(len(str(p)) == 64 for p in prints)
    assert fingerprint({"kind": "sampled_vocab", "first": 0}) is None


def test_from_run_refuses_another_embedding_size(tmp_path: Path) -> None:
    with refused(ConfigError, "has shape (3, 5), this run needs (3, 4)", where="prompt.initializer.run"):
        FromRun(run=bundle(tmp_path / "r", 3, 5))(context(), 3)


def test_from_run_refuses_a_missing_run(tmp_path: Path) -> None:
    with refused(BundleError, "there is no such folder", where=str(tmp_path / "r"), fix="trimtab ls runs"):
        FromRun(run=str(tmp_path / "r"))(context(), 3)


@pytest.mark.parametrize("make", [SampledVocab(), Uniform(), ClassLabels(), Text(text="3 4")])
def test_an_initializer_depends_on_the_init_stream_only(make: Initializer) -> None:
    before = torch.get_rng_state()
    first = make(context(1), 4)
    torch.rand(1)
    assert torch.equal(make(context(1), 4), first)
    if not isinstance(make, Text):
        assert not torch.equal(make(context(2), 4), first)
    torch.set_rng_state(before)
    make(context(1), 4)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("make", [SampledVocab(), ClassLabels(), Text(text="7 9")])
def test_training_the_values_does_not_touch_the_backbone_s_embeddings(make: Initializer) -> None:
    before = TABLE.clone()
    make(context(), 3).add_(1.0)
    assert torch.equal(before, TABLE)
