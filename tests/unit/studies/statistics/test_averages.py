"""Averages over the tasks of a benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

import numpy as np
import pytest

from tests.unit.refusals import refused
from trimtab.errors import ConfigError, DataError
from trimtab.studies.statistics.averages import FEWGLUE, SUPERGLUE, average, fewglue_average, superglue_average
from trimtab.studies.statistics.bootstrap import bootstrap_interval


def runs(seeds: int, metrics: Mapping[str, tuple[str, ...]], seed: int = 0) -> dict[str, list[dict[str, float]]]:
    rng = np.random.default_rng(seed)
    return {t: [{name: float(rng.uniform()) for name in names} for _ in range(seeds)] for t, names in metrics.items()}


@pytest.mark.parametrize(("compute", "metrics"), [(superglue_average, SUPERGLUE), (fewglue_average, FEWGLUE)])
def test_metrics_of_a_task_are_averaged_first(compute, metrics) -> None:  # type: ignore[no-untyped-def]
    its = runs(3, metrics)
    found = compute(its)
    by_hand = {t: fmean(fmean(run[name] for name in metrics[t]) for run in its[t]) for t in metrics}
    assert found.tasks == pytest.approx(by_hand)
    assert found.mean == pytest.approx(fmean(by_hand.values()))
    flat = fmean(v for of in its.values() for run in of for v in run.values())
    assert found.mean != pytest.approx(flat), "metrics and tasks must not be averaged at once"


def test_fewglue_leaves_record_out_and_superglue_has_eight_tasks() -> None:
    assert len(SUPERGLUE) == 8
    assert set(SUPERGLUE) - set(FEWGLUE) == {"record"}


def test_with_equally_many_seeds_the_interval_is_that_of_all_runs_together() -> None:
    metrics = {"a": ("x",), "b": ("x", "y"), "c": ("x",)}
    its = runs(6, metrics)
    found = average(metrics, its)
    scores = {t: [fmean(run.values()) for run in of] for t, of in its.items()}
    whole = bootstrap_interval(scores, "mean", widen=True)
    assert found.interval is not None
    assert found.interval.estimate == pytest.approx(found.mean) == pytest.approx(whole.estimate)
    assert (found.interval.low, found.interval.high) == pytest.approx((whole.low, whole.high), abs=1e-9)


def test_tasks_weigh_equally_however_many_runs_they_have() -> None:
    its = {"a": [{"x": 1.0}] * 9, "b": [{"x": 0.0}]}
    found = average({"a": ("x",), "b": ("x",)}, its)
    assert found.mean == 0.5
    assert found.interval is None


def test_the_interval_holds_the_true_average_about_as_often_as_it_says() -> None:
    rng, held = np.random.default_rng(5), 0
    for i in range(200):
        its = {t: [{"x": v} for v in rng.normal(0.5, 0.1, 5)] for t in "abc"}
        interval = average(dict.fromkeys("abc", ("x",)), its, resamples=400, seed=i).interval
        assert interval is not None
        held += interval.low <= 0.5 <= interval.high
    assert 180 <= held <= 199


def test_what_is_missing_is_refused() -> None:
    its = runs(2, SUPERGLUE)
    with refused(DataError, "there are no runs of 'wsc'", where="wsc", fix="over all tasks"):
        superglue_average({t: of for t, of in its.items() if t != "wsc"})
    with refused(DataError, "'record' is no task of the benchmark", where="record", fix="Known: "):
        fewglue_average(its)
    with refused(DataError, "a run of 'cb' has no 'macro_f1'", where="cb", fix="Known: accuracy."):
        superglue_average({**its, "cb": [{"accuracy": 1.0}]})
    with refused(ConfigError, "The level of an interval lies between 0 and 1", fix="0.95"):
        superglue_average(its, level=95.0)
