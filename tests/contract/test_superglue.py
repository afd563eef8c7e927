"""Presets of SuperGLUE, FewGLUE and FewGLUE_32dev on made-up files in the official formats: what is read, how it is
rendered, what perfect and constant predictions score.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.superglue_files import write_superglue
from tests.unit.refusals import refused
from trimtab.backbones.loading import load_encoder
from trimtab.benchmark_metrics import Judged, benchmark
from trimtab.errors import ConfigError, DataError
from trimtab.grading import Grader
from trimtab.registry import readouts, tasks
from trimtab.tasks import SPLITS, Task
from trimtab.tasks.reading import Places
from trimtab.training.preparing import render_task

GOLDEN = Path(__file__).parents[1] / "golden" / "superglue_templates.json"
"""Rendered rows: preset -> readout -> model -> what it reads, and what it is to write."""
LENGTH = 3
SUITES = ("superglue", "fewglue", "fewglue_32dev")
DIAGNOSTICS = ("superglue/ax_b", "superglue/ax_g")
PRESETS = [k for k in tasks.kinds() if k.split("/")[0] in SUITES and k not in DIAGNOSTICS]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Places:
    return Places(write_superglue(tmp_path_factory.mktemp("data")))


def load(kind: str, data: Places, **options: Any) -> Task:
    task: Task = tasks.build(tasks.resolve({"kind": kind, **options}, "task")).load(0, data)
    return task


def readouts_of(task: Task) -> list[tuple[str, str]]:
    """Model and readout by which a task is shown: masked models by masks or a head, causal ones by what they write."""
    masked = {"class": ["cloze", "head"], "choice": ["choice"], "infill": ["cloze_choice"], "match": ["cloze_span"]}
    template = str(task.template)
    writes = task.answer in ("class", "text", "match") and template.endswith("{answer}")
    writers = [("nano-causal", "text"), ("nano-seq2seq", "text")]
    return [("nano-masked", r) for r in masked.get(task.answer, [])] + writers * writes


def shown(kind: str, data: Places, model: str, readout: str) -> list[str]:
    """The first training rows as a model reads them; `>` is followed by what it is to write there."""
    task = load(kind, data)
    encoder = load_encoder(model)[0]
    rendering = render_task(task, LENGTH, encoder, 256, readout)
    found = []
    for example in tasks.build(tasks.resolve(kind, "task")).examples("train", data)[:4]:
        row = rendering.row(example, encoder)
        texts = []
        for encoded in row.variants:
            tokens = encoder.tokens(encoded.ids)
            for slot in encoded.slots:
                tokens[slot] = "{P}"
            text = " ".join(tokens).replace(" ##", "").replace(" ".join(["{P}"] * LENGTH), "{P}")
            texts.append(text + (f" > {row.gold}" if row.gold and encoded.targets else ""))
        found.append(" || ".join(texts))
    return found


def rendered(data: Places) -> dict[str, dict[str, list[str]]]:
    """All that GOLDEN holds: write it anew with this, and read what has changed."""
    kinds = [k for k in PRESETS if k.startswith("superglue/")]
    return {k: {f"{r} on {m}": shown(k, data, m, r) for m, r in readouts_of(load(k, data))} for k in kinds}


def test_golden_rendering(data: Places) -> None:
    found, expected = rendered(data), json.loads(GOLDEN.read_text())
    assert found.keys() == expected.keys()
    for kind, its in expected.items():
        assert found[kind] == its, kind


@pytest.mark.parametrize("kind", PRESETS)
def test_every_preset_reads_its_files(kind: str, data: Places) -> None:
    task = load(kind, data)
    assert all(task.splits[s] for s in SPLITS)
    assert task.submission is not None
    ids = [e.id for s in SPLITS for e in task.splits[s]]
    assert len(set(ids)) == len(ids)
    if task.candidate is not None:
        assert {e.label for e in task.splits["train"]} == {"true"}
        assert {e.label for e in task.splits["test"]} == {"true", "false"}
    few, many = (load(f"{suite}/{kind.split('/')[1]}", data) for suite in (kind.split("/")[0], "superglue"))
    assert (few.template, few.verbalizer, few.metrics) == (many.template, many.verbalizer, many.metrics)


@pytest.mark.parametrize("kind", [k for k in PRESETS if "multirc" in k or "record" in k])
def test_no_passage_is_in_two_splits(kind: str, data: Places) -> None:
    for options in ({}, {"shots": 2}):
        task = load(kind, data, **options)
        drawn = SPLITS[:2] if kind != "fewglue_32dev/record" else ("train", "dev")
        if kind.startswith("fewglue_32dev") and "multirc" in kind:
            continue  # train and dev have files of their own
        passages = [{e.group[0] for e in task.splits[s]} for s in drawn]
        assert passages[0]
        assert passages[1]
        assert not passages[0] & passages[1]


def test_dev_shots_are_whole_questions(data: Places) -> None:
    built = tasks.build(tasks.resolve("superglue/multirc", "task"))
    sizes = Counter(e.group for e in built.examples("train", data))
    task = load("superglue/multirc", data, shots=2, dev_shots=3)
    assert Counter(e.label for e in task.splits["train"]) == {"true": 2, "false": 2}
    assert len(task.splits["dev"]) >= 6
    for group, n in Counter(e.group for e in task.splits["dev"]).items():
        assert n == sizes[group], "a question is cut"
    assert len(load("superglue/multirc", data, test_rows=2).splits["test"]) in (2, 3), "whole questions"
    with refused(DataError, "1000 rows are asked for in dev", where="task.dev_shots"):
        load("superglue/multirc", data, dev_shots=500)


@pytest.mark.parametrize("kind", [k for k in PRESETS if k.startswith("superglue/")])
def test_perfect_predictions_score_one_and_constant_ones_their_chance(kind: str, data: Places) -> None:
    task = load(kind, data)
    rows, classes = task.splits["test"], task.verbalizer.classes
    names = task.metrics or ("accuracy",)
    if task.answer == "text":
        perfect = [Judged(e, text=e.label) for e in rows]
    else:
        perfect = [Judged(e, e.label, {str(e.label): 1.0}) for e in rows]
    assert set(benchmark(names, perfect, classes).values()) == {1.0}
    if task.metrics:
        chance = Grader(task.verbalizer, task.metrics, task.headline).constant(rows, str(task.headline))
        expected = {"cb": (0.5 + 2 / 9) / 2, "multirc": (8 / 11 + 0) / 2, "record": 1 / 3}
        assert chance == pytest.approx(expected[kind.split("/")[1].removesuffix("_text")])


def test_diagnostics_are_for_runs_of_rte(data: Places) -> None:
    for kind, n in zip(DIAGNOSTICS, (2, 4), strict=True):
        built = tasks.build(tasks.resolve(kind, "task"))
        examples = built.examples("test", data)
        assert len(examples) == n
        assert {"premise", "hypothesis"} <= examples[0].fields.keys()
        with refused(DataError, "the task has a test file only", where="task", fix="trimtab evaluate RUN --task"):
            built.load(0, data)
        with refused(DataError, f"the task '{kind}' has no file of the dev split", where="split", fix="test."):
            built.examples("dev", data)


def test_a_file_of_another_task_is_refused_with_its_line(data: Places) -> None:
    other = "data:superglue/WiC/val.jsonl"
    what = "there is no column 'passage', which the template reads and the training file has"
    with refused(DataError, what, where=f"{other}:1", fix="This file has word, sentence1, sentence2, label, idx"):
        load("superglue/boolq", data, test=other)
    with refused(DataError, "there is no 'passage'", where=f"{other}:1", fix="A line of the form 'multirc' is"):
        load("superglue/multirc", data, test=other)
    with refused(DataError, "there is no such file", where="data:superglue/BoolQ/vall.jsonl", fix="Did you mean"):
        load("superglue/boolq", data, test="data:superglue/BoolQ/vall.jsonl")
    with refused(DataError, "the row has no label in the column 'label'", where="data:superglue/RTE/test.jsonl:1"):
        built = tasks.build(tasks.resolve({"kind": "superglue/rte", "test": "data:superglue/RTE/test.jsonl"}, "task"))
        built.columns.example(next(built.reading.rows(_raw(data))), ["premise", "hypothesis", "label"], "test", 1)


def _raw(data: Places) -> Any:
    from trimtab.tasks.reading import read_table, resolve_path

    name = "data:superglue/RTE/test.jsonl"
    return read_table(resolve_path(name, data), name)


def test_options_that_name_nothing_are_refused(data: Places) -> None:
    with refused(ConfigError, "there is no metric 'f1b'", where="task.metrics", fix="Did you mean 'f1a'?"):
        load("superglue/multirc", data, metrics=["f1b"])
    with refused(ConfigError, "the task names no metric 'score'", where="task.headline", fix="Named: f1a."):
        load("superglue/multirc", data, metrics=["f1a"])
    with refused(ConfigError, "the task names no metric 'score'", where="task.headline", fix="Name it in task.metrics"):
        load("superglue/multirc", data, metrics=[])
    with refused(ConfigError, "there is no class 'yes'", where="task.only.train", fix="Known: false, true."):
        load("superglue/wsc", data, only={"train": ["yes"]})
    with refused(ConfigError, "give either label_words", where="task"):
        load("superglue/wsc", data, target="referent")


def test_all_splits_may_be_cut_to_positive_rows_as_in_released_code(data: Places) -> None:
    task = load("superglue/wsc_text", data, only={s: ["true"] for s in SPLITS})
    assert {e.label for s in SPLITS for e in task.splits[s]} == {"true"}


def test_the_readout_follows_the_template(data: Places) -> None:
    assert [load(f"superglue/copa{v}", data).answer for v in ("", "_cloze", "_text")] == ["choice", "infill", "class"]
    for kind, answer in (("cloze_choice", "infill"), ("cloze_span", "match")):
        assert readouts.get(kind).kinds == (answer,)  # type: ignore[attr-defined]
