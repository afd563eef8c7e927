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
    factors,
    fingerprint,
    part_of,
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
    prints = [fingerprint({"initializer": {"kind": "from_run", "run": run}}) for run in (first, copy, other)]
    assert prints[0] == prints[1] != prints[2]
    assert all(len(str(p)) == 64 for p in prints)
    assert fingerprint({"initializer": {"kind": "sampled_vocab", "first": 0}}) is None
    assert fingerprint({"kind": "dpt", "initializer": None}) is None


def test_the_fingerprint_is_that_of_all_parts_and_of_prompts_inside_a_prompt(tmp_path: Path) -> None:
    specs = {
        name: {"initializer": {"kind": "from_run", "run": of_parts(tmp_path / name, **parts)}}
        for name, parts in {
            "rows": {}, "offset": {"text_offset": np.zeros((2, 4))}, "other": {"text_offset": np.ones((2, 4))},
            "head": {"head.weight": np.ones((2, 4))},
        }.items()
    }  # fmt: skip
    rows, offset, other, head = (fingerprint(spec) for spec in specs.values())
    assert len({rows, offset, other}) == 3
    assert head == rows, "a head is not carried over"
    assert fingerprint({"kind": "deep", "input": specs["offset"]}) == offset
    assert fingerprint({**specs["rows"], "input": specs["offset"]}) == f"{rows}+{offset}"


def of_parts(folder: Path, rows: int = 3, **parts: np.ndarray) -> str:
    """A run of random rows and other parts."""
    values = np.random.default_rng(0).normal(size=(rows, 4))
    tensors = {n: np.asarray(v, np.float32) for n, v in {"inputs": values, **parts}.items()}
    metadata = bundle_metadata((rows, 4))
    metadata["prompt"] |= {"kind": "other", "tensors": {n: list(v.shape) for n, v in tensors.items()}}
    write_bundle(folder, Bundle(metadata, tensors))
    return str(folder)


def test_from_run_refuses_several_prompts_where_one_is_needed(tmp_path: Path) -> None:
    run = of_parts(tmp_path / "r", 6, router=np.zeros((2, 4)))
    what = f"the prompt of {run} is 2 prompts that a router chooses from"
    with refused(ConfigError, what, where="prompt.initializer.run", fix="set prompt.kind=other"):
        FromRun(run=run)(context(), 3)


def test_from_run_refuses_a_prompt_without_rows(tmp_path: Path) -> None:
    run = of_parts(tmp_path / "r", 0, **{"deep.self": np.zeros((1, 2, 3, 1, 4))})
    what = f"the prompt of {run} has no rows that stand in the text"
    with refused(ConfigError, what, where="prompt.initializer.run", fix="a run with an input prompt"):
        FromRun(run=run)(context(), 3)


def test_parts_of_another_run_are_there_or_not_and_must_fit(tmp_path: Path) -> None:
    run = FromRun(run=of_parts(tmp_path / "r", text_offset=np.full((2, 4), 0.5)))
    found = part_of(run, context(), "text_offset", (2, 4), "prompt.text_length")
    assert found is not None
    assert torch.equal(found, torch.full((2, 4), 0.5))
    assert part_of(run, context(), "router", (2, 4), "prompt.prompts") is None
    assert part_of(SampledVocab(), context(), "text_offset", (2, 4), "prompt.text_length") is None
    what = "the text_offset of " + run.run + " has shape (2, 4), this run needs (5, 4)"
    with refused(ConfigError, what, where="prompt.initializer.run", fix="Set prompt.text_length to fit."):
        part_of(run, context(), "text_offset", (5, 4), "prompt.text_length")


@pytest.mark.parametrize(("rank", "start"), [(2, 2), (3, 5)])
def test_factors_are_those_of_the_nearest_matrix_and_leave_no_dead_direction(rank: int, start: int) -> None:
    draw = torch.Generator().manual_seed(0)
    values = torch.randn(6, rank, generator=draw) @ torch.randn(rank, 4, generator=draw)
    left, right = factors(values, torch.ones(6, start))
    torch.testing.assert_close(left @ right, values, rtol=1e-4, atol=1e-5)
    assert bool((left.abs().sum(0) > 0).all())
    one, other = factors(values, torch.ones(6, 1))
    u, s, v = torch.linalg.svd(values)
    torch.testing.assert_close(one @ other, s[0] * u[:, :1] @ v[:1], rtol=1e-4, atol=1e-5)


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
