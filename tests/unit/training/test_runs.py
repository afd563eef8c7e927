"""From config to run folder: what is checked before anything is written, what is written, and what a failure leaves."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tests.contract.tiny_families import BUILDERS
from tests.tiny import save_tiny_model, tiny_backbone, toy_rows, toy_task, write_jsonl
from tests.unit.refusals import refused
from trimtab import api
from trimtab.backbones import Backbone
from trimtab.config import resolve
from trimtab.documents import read_yaml
from trimtab.errors import BackboneError, BundleError, ConfigError, DataError, StorageError, TemplateError, TrimtabError
from trimtab.files import read_json, read_tensors
from trimtab.loading import load
from trimtab.readouts import classes
from trimtab.seeding import stream
from trimtab.storage import RunFolder, read_bundle, write_bundle
from trimtab.training import judging, runs
from trimtab.training.encoders import build_encoder, prompt_context
from trimtab.training.objective import Objective
from trimtab.training.packs import train_pack
from trimtab.training.preparing import Prepared, prepare, render_task
from trimtab.training.records import make_bundle
from trimtab.training.runs import run_pack
from trimtab.verbalizers import Verbalizer

TRAINING = {"learning_rate": 0.01, "max_steps": 6, "batch_size": 8, "evaluations": 6}


def prepared(folder: Path, backbone: Backbone, *overrides: str, n: int = 16, **task: Any) -> Prepared:
    """A run on the toy that is ready to train."""
    recipe = {
        "task": toy_task(folder, n, **task),
        "prompt": {"kind": "prompt_tuning", "length": 3},
        "training": TRAINING,
    }
    return prepare(resolve(recipe, overrides).config, backbone)


# Preparation: everything wrong with the input is found here


def test_prepare_resolves_readout_and_dtype_and_renders_all_splits(tmp_path: Path, backbone: Backbone) -> None:
    p = prepared(tmp_path, backbone)
    assert p.config.readout == {"kind": "cloze", "combine": "mean", "length_normalized": False}
    assert p.config.backbone.dtype == "float32"
    assert {s: len(r) for s, r in p.rows.items()} == {"train": 16, "dev": 16, "test": 16}
    assert {row.label for row in p.rows["train"]} == {0, 1}


@pytest.mark.parametrize(
    ("overrides", "kind", "what", "where", "fix"),
    [
        (["task.template='{prompt} {txt} {answer}'"], TemplateError, "uses the field {txt}", "task.template", "'text'"),
        (["task.template='{prompt} {text}'"], TemplateError, "exactly one answer slot", "task.template", "{answer}"),
        (["task.template='{prompt:2} {text} {answer}'"], TemplateError, "sum to 2", "task.template", "prompt.length=2"),
        (["task.truncate=[txt]"], TemplateError, "'txt' is not a field", "task.truncate", "'text'"),
        (
            ["task.label_words.positive=中"],
            TemplateError,
            "cannot produce",
            "task.label_words.positive",
            "another word",
        ),
        (["task.label_words.positive=NO"], TemplateError, "the same tokens", "task.label_words.negative", None),
        (["task.label_words.other=maybe"], DataError, "no row in train", "task.label_words.other", "Remove"),
        (["task.label=lable"], DataError, "no column 'lable'", "{folder}/train.jsonl", "'label'"),
        (["task.max_length=100"], ConfigError, "the backbone has 64 positions, got 100", "task.max_length", None),
        (["prompt.length=100"], TemplateError, "there are 64", "{folder}/train.jsonl:1", "Shorten the prompt"),
        (["task.max_length=6"], TemplateError, "there are 6", "{folder}/train.jsonl:1", "Shorten the prompt"),
        (
            ["regularizers=[{kind: gaussian, sigma: 1, sigma_relative: 1}]"],
            ConfigError,
            "not both",
            "regularizers",
            None,
        ),
        (
            ["prompt.initializer={kind: text, text: a a a a}"],
            ConfigError,
            "got 4",
            "prompt.initializer.text",
            "length=4",
        ),
        (["prompt.initializer={kind: sampled_vocab, first: 2}"], ConfigError, "from 2", "prompt.initializer", None),
        (["prompt.initializer={kind: from_run, run: /no/run}"], BundleError, "no such folder", "/no/run", "ls runs"),
        (["task.shots=99"], DataError, "99 rows of class 'positive'", "task.shots", None),
    ],
)
def test_wrong_input_is_refused_before_anything_is_written(
    tmp_path: Path, backbone: Backbone, overrides: list[str], kind: type[TrimtabError], what: str, where: str,
    fix: str | None,
) -> None:  # fmt: skip
    toy_task(tmp_path, 16)
    before = sorted(tmp_path.iterdir())
    with refused(kind, what, where=where.replace("{folder}", str(tmp_path)), fix=fix):
        prepared(tmp_path, backbone, *overrides)
    assert sorted(tmp_path.iterdir()) == before


def test_label_words_are_checked_without_loading_a_model(tmp_path: Path, backbone: Backbone) -> None:
    task = prepared(tmp_path, backbone).task
    wrong = replace(task, verbalizer=Verbalizer.of({"positive": "中", "negative": "no"}))
    with refused(TemplateError, "cannot produce", where="task.label_words.positive", fix="another word"):
        render_task(wrong, 3, backbone.encoder, 64)


@pytest.mark.parametrize(("kind", "wrong", "right"), [("bert", "ranking", "cloze"), ("gpt2", "cloze", "ranking")])
def test_a_readout_that_the_backbone_cannot_do_is_refused(kind: str, wrong: str, right: str, tmp_path: Path) -> None:
    place = tmp_path / kind
    BUILDERS[kind](place)
    sections = {"task": toy_task(tmp_path, 4), "backbone": {"model": str(place)}, "readout": {"kind": wrong}}
    advice = {"where": "readout.kind", "fix": f"Use {right}"}
    with refused(ConfigError, f"cannot be read by {wrong!r}", **advice):
        prepare(resolve(sections).config, tiny_backbone(place))
    with refused(ConfigError, f"cannot be read by {wrong!r}", **advice):
        api.validate(sections)
    assert (
        prepare(resolve({**sections, "readout": "auto"}).config, tiny_backbone(place)).config.readout["kind"] == right
    )


def test_a_text_after_the_answer_is_refused_on_a_causal_backbone(tmp_path: Path) -> None:
    BUILDERS["gpt2"](tmp_path / "gpt2")
    task = toy_task(tmp_path, 4, template="{prompt} {answer}: {text}")
    with refused(TemplateError, "{answer} must come last", where="task.template", fix="to the end"):
        prepare(resolve({"task": task}).config, tiny_backbone(tmp_path / "gpt2"))


def test_shots_are_drawn_with_the_subset_seed(tmp_path: Path, backbone: Backbone) -> None:
    def drawn(*overrides: str) -> list[str]:
        return [e.id for e in prepared(tmp_path, backbone, "task.shots=3", *overrides).task.splits["train"]]

    base = drawn("seed=1")
    assert drawn("seed=2", "seeds.subset=1") == base
    assert drawn("seed=1", "seeds.subset=2") != base


def test_an_example_with_empty_text_is_refused_with_its_line(tmp_path: Path, backbone: Backbone) -> None:
    task = toy_task(tmp_path, 16)
    write_jsonl(tmp_path / "dev.jsonl", [*toy_rows(4, 1), {"id": "x", "text": " ", "label": "positive"}])
    with refused(TemplateError, "all fields of the template (text) are empty", where=f"{tmp_path / 'dev.jsonl'}:5"):
        prepare(resolve({"task": task}).config, backbone)


def test_an_encoder_that_does_not_fit_the_backbone_is_refused(tmp_path: Path, backbone: Backbone) -> None:
    odd = replace(backbone, name="odd")
    object.__setattr__(odd, "model", _Narrow(31))
    p = prepared(tmp_path, backbone, "prompt.kind=p_tuning_lstm")
    with refused(ConfigError, "half of an odd embedding size (31) is not whole", where="prompt.width"):
        build_encoder(p.config, p.rendering, odd)


class _Narrow:
    """A model of which only the input embeddings exist."""

    def __init__(self, size: int) -> None:
        self.table = torch.nn.Embedding(200, size)
        self.config = SimpleNamespace(hidden_size=size)

    def get_input_embeddings(self) -> torch.nn.Embedding:
        return self.table


def test_ids_tell_runs_apart_and_suit_file_names(tmp_path: Path, backbone: Backbone) -> None:
    base = prepared(tmp_path, backbone, name="odd/name: ü").id
    assert base.startswith("odd_name__ü-prompt_tuning-")
    assert prepared(tmp_path, backbone, name="odd/name: ü").id == base
    assert prepared(tmp_path, backbone, "seed=99", name="odd/name: ü").id != base
    write_jsonl(tmp_path / "more.jsonl", toy_rows(16, 9))
    assert prepared(tmp_path, backbone, "task.test=" + str(tmp_path / "more.jsonl"), name="odd/name: ü").id != base
    other = replace(backbone, fingerprint="0" * 64)
    assert prepared(tmp_path, other, name="odd/name: ü").id != base


def test_the_context_offers_ordinary_words_only(tmp_path: Path, backbone: Backbone) -> None:
    context = prompt_context(prepared(tmp_path, backbone).rendering, backbone, 0)
    tokens = backbone.encoder.tokens(context.words)
    assert not [t for t in tokens if t.startswith("[")]
    assert len(tokens) == len(backbone.encoder.tokenizer) - 5
    assert backbone.encoder.tokens(context.label_ids) == ["yes", "no"]
    assert context.encode("cat") == backbone.encoder.encode("cat").ids


def test_the_first_prompt_depends_on_the_init_seed_only(tmp_path: Path, backbone: Backbone) -> None:
    def first(*overrides: str) -> Tensor:
        p = prepared(tmp_path, backbone, "prompt.kind=residual", *overrides)
        return build_encoder(p.config, p.rendering, backbone).materialize()["inputs"]

    before = torch.get_rng_state()
    base = first("seed=1")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first("seed=2", "seeds.init=1"), base)
    assert not torch.equal(first("seed=1", "seeds.init=2"), base)


# A finished run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, backbone: Backbone) -> dict[str, Any]:
    """A run of six steps that keeps its encoder."""
    folder = tmp_path_factory.mktemp("finished")
    events: list[dict[str, Any]] = []
    p = prepared(folder, backbone, "training.keep_encoder=true")
    record = run_pack([p], folder / "runs", report=lambda e: events.append(dict(e)))[0]
    return {"prepared": p, "record": record, "path": Path(record["run"]), "events": events}


def test_a_run_folder_holds_config_history_predictions_and_bundle(finished: dict[str, Any]) -> None:
    names = sorted(p.name for p in finished["path"].iterdir())
    assert names == [
        "bundle.json", "config.yaml", "encoder.safetensors", "metrics.jsonl", "predictions.dev.jsonl",
        "predictions.test.jsonl", "prompt.safetensors", "run.json",
    ]  # fmt: skip
    assert finished["path"].name == finished["prepared"].id


def test_the_record_says_what_was_done(finished: dict[str, Any]) -> None:
    record, p = finished["record"], finished["prepared"]
    assert (record["status"], record["steps"], record["task"], record["prompt"]) == ("done", 6, "toy", "prompt_tuning")
    assert record["parameters"] == {"trained": 96, "kept": 96}
    assert record["rows"] == {"train": 16, "dev": 16, "test": 16}
    assert record["truncated"] == {"train": 0, "dev": 0, "test": 0}
    assert record["baselines"]["majority"] == 0.5
    assert 0 <= record["best_step"] <= 6
    assert record["fingerprints"]["backbone"] == p.backbone.fingerprint
    assert record["environment"]["torch"] == torch.__version__
    assert record["seconds"] > 0
    assert record["seconds_per_step"] > 0
    assert {**read_json(finished["path"] / "run.json"), "run": record["run"]} == record


def test_the_saved_config_repeats_the_run(finished: dict[str, Any]) -> None:
    config = resolve(read_yaml(finished["path"] / "config.yaml")).config
    assert config == finished["prepared"].config
    assert prepare(config, finished["prepared"].backbone).id == finished["prepared"].id


def test_history_begins_before_the_first_step_and_marks_the_kept_checkpoint(finished: dict[str, Any]) -> None:
    history = [json.loads(line) for line in (finished["path"] / "metrics.jsonl").read_text().splitlines()]
    assert [h["step"] for h in history] == [0, 1, 2, 3, 4, 5, 6]
    best = [h for h in history if h["best"]][-1]
    record = finished["record"]
    assert best["step"] == record["best_step"]
    assert best["dev"]["loss"] == record["metrics"]["dev"]["loss"]
    assert best["dev"]["accuracy"] == pytest.approx(record["metrics"]["dev"]["accuracy"])


def test_predictions_agree_with_the_metrics(finished: dict[str, Any]) -> None:
    for split in ("dev", "test"):
        lines = (finished["path"] / f"predictions.{split}.jsonl").read_text().splitlines()
        predictions = [json.loads(line) for line in lines]
        accuracy = np.mean([p["label"] == p["gold"] for p in predictions])
        assert accuracy == pytest.approx(finished["record"]["metrics"][split]["accuracy"])
        assert all(sum(p["scores"].values()) == pytest.approx(1, abs=1e-5) for p in predictions)
        assert [p["id"] for p in predictions] == [e.id for e in finished["prepared"].task.splits[split]]


def test_the_bundle_says_what_the_prompt_needs(finished: dict[str, Any]) -> None:
    bundle = read_bundle(finished["path"])
    assert bundle.metadata["task"]["label_words"] == {"positive": ["yes"], "negative": ["no"]}
    assert bundle.metadata["metrics"] == finished["record"]["metrics"]
    assert bundle.metadata["provenance"]["run"] == finished["prepared"].id
    assert np.array_equal(read_tensors(finished["path"] / "encoder.safetensors")["rows"], bundle.prompt)


def test_an_encoder_is_kept_with_what_it_has_beside_parameters(tmp_path: Path, backbone: Backbone) -> None:
    given = ["prompt={kind: superpos, length: 3, words: 7}", "training.keep_encoder=true"]
    folder = Path(run_pack([prepared(tmp_path, backbone, *given)], tmp_path / "runs")[0]["run"])
    kept = read_tensors(folder / "encoder.safetensors")
    assert {name: value.shape for name, value in kept.items()} == {"weights": (3, 7), "rows": (7, 32)}
    np.testing.assert_allclose(kept["weights"] @ kept["rows"], read_bundle(folder).prompt, rtol=1e-5, atol=1e-6)


def test_reported_events_tell_steps_evaluations_and_the_end(finished: dict[str, Any]) -> None:
    kinds = [e["event"] for e in finished["events"]]
    assert kinds == ["evaluation", *["step", "evaluation"] * 6, "end"]
    assert finished["events"][-1] == {"event": "end", "run": 0, "status": "done", "step": 6}


def test_a_finished_run_is_not_repeated_unless_asked(finished: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    p, folder = finished["prepared"], finished["path"].parent

    def fail(*args: Any) -> Any:
        raise AssertionError("trained again")

    with monkeypatch.context() as patch:
        patch.setattr(runs, "train_pack", fail)
        assert run_pack([p], folder)[0] == finished["record"]
        with pytest.raises(AssertionError, match="trained again"):
            run_pack([p], folder, again=True)
    run_pack([p], folder, again=True)


def test_a_run_keeps_the_time_at_which_it_started(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening, calls = runs.opening, []

    def dated(p: Prepared) -> dict[str, Any]:
        calls.append(p)
        return {**opening(p), "started": f"call {len(calls)}"}

    monkeypatch.setattr(runs, "opening", dated)
    assert run_pack([prepared(tmp_path, backbone)], tmp_path / "runs")[0]["started"] == "call 1"


# Prompt transfer


def test_a_run_that_begins_from_another_gets_a_new_id_when_that_one_is_trained_again(
    tmp_path: Path, backbone: Backbone
) -> None:
    source = tmp_path / "source"
    write_bundle(source, make_bundle(train_pack([prepared(tmp_path, backbone, "seed=1")])[0]))
    start = f"prompt.initializer={{kind: from_run, run: {source}}}"
    first = prepared(tmp_path, backbone, start)
    assert prepared(tmp_path, backbone, start).id == first.id
    assert run_pack([first], tmp_path / "runs")[0]["fingerprints"]["initializer"] == first.initializer_fingerprint
    write_bundle(source, make_bundle(train_pack([prepared(tmp_path, backbone, "seed=2")])[0]))
    again = prepared(tmp_path, backbone, start)
    assert again.config == first.config
    assert again.id != first.id


def test_the_id_of_a_run_that_reads_no_other_is_over_config_data_backbone_tokenizer_and_schema(
    tmp_path: Path, backbone: Backbone
) -> None:
    p = prepared(tmp_path, backbone)
    digest = p.config.digest(p.task.fingerprint, backbone.fingerprint, backbone.tokenizer_fingerprint, "1")
    assert p.id == f"toy-prompt_tuning-{digest}"


def test_a_run_cannot_begin_from_a_prompt_of_another_backbone(tmp_path: Path, backbone: Backbone) -> None:
    other = tiny_backbone(save_tiny_model(tmp_path / "other", seed=1))
    write_bundle(tmp_path / "source", make_bundle(train_pack([prepared(tmp_path, other)])[0]))
    what = f"was trained on the backbone {other.name!r} (fingerprint {other.fingerprint[:12]}), this run uses "
    with refused(BundleError, what, where="prompt.initializer.run", fix=f"a run on {backbone.name!r}"):
        prepared(tmp_path, backbone, f"prompt.initializer={{kind: from_run, run: {tmp_path / 'source'}}}")


# Packs


@pytest.mark.parametrize(
    "override",
    [
        "prompt.length=4",
        "prompt.kind=residual",
        "training.batch_size=4",
        "task.shots=4",
        "readout={kind: cloze, combine: max}",
    ],
)
def test_runs_that_differ_in_more_than_seeds_and_rates_do_not_pack(
    tmp_path: Path, backbone: Backbone, override: str
) -> None:
    pack = [prepared(tmp_path, backbone), prepared(tmp_path, backbone, override)]
    for train in (train_pack, lambda p: run_pack(p, tmp_path / "runs")):
        with refused(ConfigError, "runs of one pack may differ only in seeds", where="pack"):
            train(pack)
    assert not (tmp_path / "runs").exists()


def test_runs_on_two_loaded_backbones_do_not_pack(tmp_path: Path, backbone: Backbone, tiny_folder: Path) -> None:
    pack = [prepared(tmp_path, backbone), prepared(tmp_path, tiny_backbone(tiny_folder))]
    with refused(ConfigError, "runs of one pack may differ only in seeds", where="pack"):
        train_pack(pack)


def test_backbone_dropout_refuses_a_pack(tmp_path: Path, backbone: Backbone) -> None:
    pack = [prepared(tmp_path, backbone, "backbone.dropout=true", f"seed={s}") for s in (1, 2)]
    with refused(ConfigError, "backbone dropout needs a pack of one run", where="backbone.dropout"):
        train_pack(pack)


def test_only_the_unfinished_runs_of_a_pack_are_trained(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = [prepared(tmp_path, backbone, f"seed={s}", "training.learning_rate=0.01") for s in (1, 2)]
    first = run_pack(pack[:1], tmp_path / "runs")
    trained: list[int] = []
    train = runs.train_pack
    monkeypatch.setattr(runs, "train_pack", lambda p, *rest: trained.append(len(p)) or train(p, *rest))
    records = run_pack(pack, tmp_path / "runs")
    assert trained == [1]
    assert records[0] == first[0]
    assert [Path(r["run"]).name for r in records] == [p.id for p in pack]


# Divergence


def poison(monkeypatch: pytest.MonkeyPatch, when: Callable[[int], bool], training_only: bool = True) -> None:
    """Make the loss NaN in the passes for which `when(count)` is true."""
    count = 0

    def loss(scores: Tensor, labels: Tensor, reduction: str) -> Tensor:
        nonlocal count
        values = cross_entropy(scores, labels, reduction=reduction)
        if training_only and not torch.is_grad_enabled():
            return values
        count += 1
        return values * torch.nan if when(count) else values

    monkeypatch.setattr(classes, "cross_entropy", loss)


def test_a_loss_that_is_not_a_number_stops_the_run_and_keeps_the_last_good_state(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, lambda count: count == 4)
    record = run_pack(
        [prepared(tmp_path, backbone, "training.max_steps=9", "training.evaluations=9")], tmp_path / "runs"
    )[0]
    assert (record["status"], record["steps"]) == ("diverged", 3)
    history = [json.loads(line) for line in (Path(record["run"]) / "metrics.jsonl").read_text().splitlines()]
    assert [h["step"] for h in history] == [0, 1, 2, 3]
    assert record["best_step"] == [h for h in history if h["best"]][-1]["step"]
    monkeypatch.undo()
    loaded = load(record["run"], backbone=backbone)
    assert np.isfinite(read_bundle(Path(record["run"])).prompt).all()
    assert len(loaded.predict(["the film is good"])) == 1


def test_the_state_before_divergence_is_that_of_a_run_that_stopped_there(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    constant = ["training.schedule=constant", "training.warmup=0"]
    short = prepared(tmp_path, backbone, *constant, "training.max_steps=3", "training.evaluations=3")
    good = train_pack([short])[0]
    poison(monkeypatch, lambda count: count == 4)
    long = prepared(tmp_path, backbone, *constant, "training.max_steps=9", "training.evaluations=9")
    stopped = train_pack([long])[0]
    assert np.array_equal(stopped.prompt, good.prompt)
    assert stopped.member.best_step == good.member.best_step


def test_the_prompt_kept_is_that_of_the_best_evaluation_not_the_last(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    constant = ["training.schedule=constant", "training.warmup=0"]
    accuracies = iter([0.1, 0.2, 0.9, 0.3, 0.9, 0.3, 0.1])
    measure = judging.dev_metrics

    def staged(*args: Any) -> dict[str, float]:
        return {**measure(*args), "accuracy": next(accuracies), "loss": 1.0}

    with monkeypatch.context() as patch:
        patch.setattr(judging, "dev_metrics", staged)
        best = train_pack([prepared(tmp_path, backbone, *constant)])[0]
    assert (best.member.best_step, best.member.step) == (2, 6)
    accuracies = iter([0.1, 0.2, 0.9])
    monkeypatch.setattr(judging, "dev_metrics", staged)
    short = train_pack([prepared(tmp_path, backbone, *constant, "training.max_steps=2", "training.evaluations=2")])[0]
    assert np.array_equal(best.prompt, short.prompt)
    assert not np.array_equal(best.prompt, np.zeros_like(best.prompt))


def test_one_diverging_run_does_not_stop_its_pack(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = [prepared(tmp_path, backbone, f"seed={s}") for s in (1, 2)]
    alone = train_pack(pack[1:])[0]

    def first_run_is_nan(scores: Tensor, labels: Tensor, reduction: str) -> Tensor:
        values = cross_entropy(scores, labels, reduction=reduction)
        return values * torch.where(rows_of["prompt"] == 0, torch.nan, 1.0) if torch.is_grad_enabled() else values

    rows_of: dict[str, Tensor] = {}
    clean_pass = Objective._clean_pass

    def remember(self: Any, part: Any, *args: Any) -> Any:
        rows_of["prompt"] = part.batch.prompt_of
        return clean_pass(self, part, *args)

    monkeypatch.setattr(classes, "cross_entropy", first_run_is_nan)
    monkeypatch.setattr(Objective, "_clean_pass", remember)
    both = train_pack(pack)
    assert [t.member.status for t in both] == ["diverged", "done"]
    assert both[0].member.step == 0
    assert both[1].member.step == 6
    np.testing.assert_allclose(both[1].prompt, alone.prompt, atol=1e-4)


def all_json(folder: Path) -> None:
    """Every file of a run folder that is JSON must be so for any reader."""

    def refuse(constant: str) -> Any:
        raise AssertionError(constant)

    for file in folder.glob("*.json*"):
        for text in file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]:
            json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("cause", ["loss", "initializer"])
def test_a_run_that_is_not_finite_from_the_start_keeps_no_prompt_and_says_so(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch, cause: str
) -> None:
    overrides = ["prompt.initializer={kind: uniform, range: 3e38}"] if cause == "initializer" else []
    if cause == "loss":
        poison(monkeypatch, lambda count: True, training_only=False)
    record = run_pack([prepared(tmp_path, backbone, *overrides)], tmp_path / "runs")[0]
    assert (record["status"], record["steps"], record["best_step"]) == ("diverged", 0, None)
    assert record["metrics"] == {}
    assert set(record["baselines"]) == {"majority", "no_prompt"}
    folder = Path(record["run"])
    assert sorted(p.name for p in folder.iterdir()) == ["config.yaml", "run.json"]
    all_json(folder)
    with refused(BundleError, "the run has the status 'diverged' and no bundle", where=str(folder), fix="trimtab run"):
        read_bundle(folder)


def test_results_of_an_earlier_try_do_not_outlive_a_run_that_keeps_no_prompt(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = prepared(tmp_path, backbone, "training.keep_encoder=true")
    folder = Path(run_pack([p], tmp_path / "runs")[0]["run"])
    poison(monkeypatch, lambda count: True, training_only=False)
    run_pack([p], tmp_path / "runs", again=True)
    assert sorted(p.name for p in folder.iterdir()) == ["config.yaml", "run.json"]


def test_a_run_that_is_not_finite_from_the_start_does_not_stop_its_pack(tmp_path: Path, backbone: Backbone) -> None:
    huge = "prompt.initializer={kind: uniform, range: 3e38}"
    pack = [prepared(tmp_path, backbone, huge), prepared(tmp_path, backbone)]
    lost, good = run_pack(pack, tmp_path / "runs")
    assert (lost["status"], good["status"]) == ("diverged", "done")
    all_json(Path(good["run"]))
    assert good["metrics"]["test"] == run_pack(pack[1:], tmp_path / "alone")[0]["metrics"]["test"]


def test_a_backbone_that_gives_no_numbers_is_refused_before_anything_is_written(
    tmp_path: Path, tiny_folder: Path
) -> None:
    broken = tiny_backbone(tiny_folder)
    broken.model.get_output_embeddings().weight.data.fill_(torch.nan)
    with refused(BackboneError, "are not finite", where=f"{tmp_path}/test.jsonl:1", fix="float32"):
        run_pack([prepared(tmp_path, broken)], tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_diverged_run_is_tried_again(tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    p = prepared(tmp_path, backbone)
    with monkeypatch.context() as patch:
        poison(patch, lambda count: count == 1)
        assert run_pack([p], tmp_path / "runs")[0]["status"] == "diverged"
    assert run_pack([p], tmp_path / "runs")[0]["status"] == "done"


# Disks


def fill_up_at(monkeypatch: pytest.MonkeyPatch, name: str, call: str) -> None:
    """From the file `name` on, the disk is full."""
    real, full = getattr(os, call), []

    def fail(first: Any, *rest: Any) -> Any:
        target = str(rest[0]) if call == "replace" else os.readlink(f"/proc/self/fd/{first}")
        full.extend([1] if name in target else [])
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(first, *rest)

    monkeypatch.setattr(os, call, fail)


@pytest.mark.parametrize("call", ["replace", "fsync"])
@pytest.mark.parametrize("name", ["config.yaml", "run.json"])
def test_a_disk_that_is_full_at_the_start_leaves_nothing(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch, name: str, call: str
) -> None:
    p = prepared(tmp_path, backbone)
    monkeypatch.setattr(runs, "train_pack", lambda *a: pytest.fail("trained with a full disk"))
    fill_up_at(monkeypatch, name, call)
    with refused(StorageError, "no space left", where=str(tmp_path / "runs" / p.id / name), fix="Free some space"):
        run_pack([p], tmp_path / "runs")
    assert not (tmp_path / "runs" / p.id).exists()


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("prompt.safetensors", []),
        ("bundle.json", ["prompt.safetensors"]),
        ("predictions.test.jsonl", ["bundle.json", "predictions.dev.jsonl", "prompt.safetensors"]),
    ],
)
def test_a_disk_that_fills_up_at_the_end_leaves_whole_files_and_an_unfinished_run(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch, name: str, left: list[str]
) -> None:
    p = prepared(tmp_path, backbone)
    path = tmp_path / "runs" / p.id
    with monkeypatch.context() as patch:
        fill_up_at(patch, name, "replace")
        with refused(StorageError, "no space left", where=str(path / name), fix="Free some space"):
            run_pack([p], tmp_path / "runs")
    always = ["config.yaml", "metrics.jsonl", "resume.safetensors", "run.json"]
    assert sorted(f.name for f in path.iterdir()) == sorted([*always, *left])
    assert RunFolder(path).status == "running"
    assert run_pack([p], tmp_path / "runs")[0]["status"] == "done"


def test_training_batches_depend_on_the_data_order_seed_only(tmp_path: Path, backbone: Backbone) -> None:
    def order(*overrides: str) -> list[list[int]]:
        member = train_pack([prepared(tmp_path, backbone, "training.max_steps=1", *overrides)])[0].member
        batches = member.batches()
        return [next(batches) for _ in range(6)]

    base = order("seed=1")
    assert order("seed=2", "seeds.data_order=1") == base
    assert order("seed=1", "seeds.data_order=2") != base
    assert base[:2] != base[2:4]
    assert sorted(i for b in base[:2] for i in b) == list(range(16))
    assert stream(1, "data_order", 0).permutation(16)[:8].tolist() == base[0]
    assert order("seed=1", "training.shuffle=once") == base[:2] * 3, "the first epoch again and again"
