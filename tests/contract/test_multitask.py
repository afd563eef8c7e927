"""Runs on several tasks: everything that a run on one task can do, they can."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch

from tests.contract.test_packs import MEMBERS, check_members_equal_alone, member, record
from tests.contract.tiny_families import BUILDERS
from tests.contract.toy_runs import LENGTH, RecordingLoop, toy_run
from tests.tiny import tagged_task, tiny_backbone, toy_task, written_task
from tests.unit.refusals import refused
from tests.unit.training.test_resume import Killed, killer, outcome
from trimtab import api
from trimtab.backbones import Backbone
from trimtab.config import resolve
from trimtab.errors import BundleError, ConfigError, DataError, TemplateError
from trimtab.loading import load, load_tasks
from trimtab.storage import read_bundle
from trimtab.training import packs
from trimtab.training.preparing import Prepared, encoder_of, prepare
from trimtab.training.runs import run_pack
from trimtab.types import Example

Options = dict[str, Any]


def tasks_of(folder: Path, n: int = 16, **options: Any) -> Options:
    """A toy read at a mask, the same toy of fewer rows read by a head, and tags."""
    twin = {**toy_task(folder, n), "name": "twin", "shots": 4, "dev_shots": 4}
    return {"kind": "multitask", "tasks": [toy_task(folder, n), twin, tagged_task(folder, n)], **options}


READ = {"kind": "by_task", "readouts": {"twin": "head"}}
TRAINING = {"learning_rate": 0.02, "max_steps": 12, "batch_size": 6, "evaluations": 6}


def several(folder: Path, backbone: Backbone, *overrides: str, **sections: Any) -> Prepared:
    recipe = {
        "backbone": {"model": backbone.name, "dtype": "float32"}, "task": tasks_of(folder), "readout": READ,
        "prompt": {"kind": "prompt_tuning", "length": 3}, "training": TRAINING, "seed": 1, **sections,
    }  # fmt: skip
    return prepare(resolve(recipe, overrides).config, backbone)


# Packs, prompts, regularizers

SLOW = ("smart", "freelb", "random_mask", "word_swap")

DEEP = {"kind": "deep", "reparameterization": "none", "input": None}
SPECS: list[Options] = [{"kind": "prompt_tuning"}, {"kind": "p_tuning_lstm"}, {"kind": "smop"}, DEEP]


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s["kind"])
def test_each_member_of_a_pack_equals_the_same_run_alone(
    spec: Options, tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packs, "Loop", RecordingLoop)
    more = {"task": tasks_of(tmp_path, mixing="equal"), "readout": READ}
    members = [{**m, "initializer": None} if spec is DEEP else m for m in MEMBERS]
    check_members_equal_alone([member(tmp_path, backbone, spec, m, noisy=True, **more) for m in members])


def test_micro_batches_change_nothing(tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "Loop", RecordingLoop)

    def go(max_tokens: int) -> RecordingLoop:
        training = {"max_tokens": max_tokens, "batch_size": 12, "max_steps": 6, "evaluations": 1}
        more = {"task": tasks_of(tmp_path), "readout": READ, "training": training}
        return record([member(tmp_path, backbone, {"kind": "prompt_tuning"}, m, noisy=True, **more) for m in MEMBERS])[
            0
        ]

    whole, parts = go(8192), go(40)
    for r in range(len(MEMBERS)):
        torch.testing.assert_close(parts.losses[r], whole.losses[r], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["pgd", "r3f", "sam", *(pytest.param(k, marks=pytest.mark.slow) for k in SLOW)])
def test_regularizers_work_beside_several_tasks(kind: str, tmp_path: Path, backbone: Backbone) -> None:
    p = several(tmp_path, backbone, regularizers=[{"kind": kind}], training={**TRAINING, "max_steps": 3})
    record_ = run_pack([p], tmp_path / "runs")[0]
    assert record_["status"] == "done"
    plain = run_pack([several(tmp_path, backbone, training={**TRAINING, "max_steps": 3})], tmp_path / "runs")[0]
    assert record_["metrics"]["dev"]["loss"] != plain["metrics"]["dev"]["loss"]


def test_a_regularizer_that_compares_distributions_needs_one_of_each_task(tmp_path: Path) -> None:
    writer = tiny_backbone(BUILDERS["llama"](tmp_path / "llama"))
    both = {"kind": "multitask", "tasks": [toy_task(tmp_path, 8), written_task(tmp_path, 8)]}
    what = "the readout 'text' gives no distribution over answers"
    with refused(ConfigError, what, where="regularizers.0", fix="Use a readout with classes"):
        several(tmp_path, writer, task=both, readout="auto", regularizers=["r3f"])


def test_label_words_of_all_tasks_are_known_to_initializers(tmp_path: Path, backbone: Backbone) -> None:
    tasks = tasks_of(tmp_path)
    tasks["tasks"][1]["label_words"] = {"positive": "happy", "negative": "sad"}
    spec = {"kind": "prompt_tuning", "length": 4, "initializer": "class_labels"}
    p = several(tmp_path, backbone, task=tasks, readout="auto", prompt=spec)
    words = backbone.encoder.tokenizer.convert_tokens_to_ids(["yes", "no", "happy", "sad"])
    found = encoder_of(p).materialize()["inputs"]
    torch.testing.assert_close(found, backbone.embedding_rows[torch.tensor(words)])


# Families


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_tasks_that_are_ranked_and_written_share_a_prompt(kind: str, tmp_path: Path) -> None:
    backbone = tiny_backbone(BUILDERS[kind](tmp_path / kind))
    both = {"kind": "multitask", "tasks": [toy_task(tmp_path, 8), written_task(tmp_path, 8)]}
    p = several(tmp_path, backbone, task=both, readout="auto")
    run = run_pack([p], tmp_path / "runs")[0]
    test = run["metrics"]["test"]
    assert test["score"] == pytest.approx(fmean([test["toy.accuracy"], test["written.exact_match"]]))
    assert run["baselines"]["majority"] == 0.5
    assert run["baselines"]["no_prompt"] is not None
    p = several(tmp_path, backbone, "training.select=loss", task=both, readout="auto")
    history = lines(run_pack([p], tmp_path / "runs")[0], "metrics.jsonl")
    assert set(history[0]["dev"]) == {"loss", "toy.loss", "written.loss", "toy.accuracy", "toy.macro_f1"}


# What selects


def test_the_mean_over_tasks_selects(tmp_path: Path, backbone: Backbone) -> None:
    p = several(tmp_path, backbone)
    run = run_pack([p], tmp_path / "runs")[0]
    history = lines(run, "metrics.jsonl")
    assert p.config.training.select == run["metric"] == "score"
    for line in history:
        dev = line["dev"]
        own = (dev["toy.accuracy"], dev["twin.accuracy"], dev["names.entity_f1"])
        assert dev["score"] == pytest.approx(fmean(own))
        assert dev["loss"] == pytest.approx(fmean(dev[f"{t}.loss"] for t in ("toy", "twin", "names")))
    best = max(history, key=lambda line: (line["dev"]["score"], -line["dev"]["loss"]))
    assert run["best_step"] == best["step"]
    assert run["metrics"]["dev"]["score"] == pytest.approx(best["dev"]["score"])
    assert run["metrics"]["dev"]["twin.loss"] == best["dev"]["twin.loss"]


@pytest.mark.parametrize("select", ["loss", "names.token_accuracy"])
def test_something_else_may_select(select: str, tmp_path: Path, backbone: Backbone) -> None:
    run = run_pack([several(tmp_path, backbone, f"training.select={select}")], tmp_path / "runs")[0]
    history = lines(run, "metrics.jsonl")
    sign = -1 if select == "loss" else 1
    assert run["best_step"] == max(history, key=lambda h: (sign * h["dev"][select], -h["dev"]["loss"]))["step"]
    assert run["metric"] == "score"


def test_what_no_task_has_cannot_select(tmp_path: Path, backbone: Backbone) -> None:
    with refused(ConfigError, "has no metric 'accuracy'", where="training.select", fix="Use auto, score, toy.accuracy"):
        several(tmp_path, backbone, "training.select=accuracy")


def test_a_run_that_does_not_move_stops_early(tmp_path: Path, backbone: Backbone) -> None:
    still = {**TRAINING, "learning_rate": 1e-12, "patience": 2}
    run = run_pack([several(tmp_path, backbone, training=still)], tmp_path / "runs")[0]
    assert run["steps"] == 4


def test_shares_decide_which_rows_are_learned_from(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packs, "Loop", RecordingLoop)
    taken: dict[str, list[int]] = {}
    for mixing in ("proportional", "equal"):
        p = several(tmp_path, backbone, task=tasks_of(tmp_path, mixing=mixing), training={**TRAINING, "max_steps": 1})
        packs.train_pack([p])
        rows, (loop_member,) = p.rows["train"], RecordingLoop.latest.members
        epoch = [next(stream) for stream in [loop_member.batches()] for _ in range(-(-len(rows) // 6))]
        taken[mixing] = [sum(rows[i].readout == k for batch in epoch for i in batch) for k in range(3)]
    sizes = [len(part.rows["train"]) for part in p.parts]
    assert taken["proportional"] == sizes
    assert max(taken["equal"]) - min(taken["equal"]) <= 1
    assert sum(taken["equal"]) == sum(sizes)


# Resume


@pytest.mark.parametrize("mixing", ["proportional", "equal"])
def test_a_killed_pack_ends_as_if_undisturbed(mixing: str, tmp_path: Path, backbone: Backbone) -> None:
    def pack() -> list[Prepared]:
        sections = {"task": tasks_of(tmp_path, mixing=mixing), "regularizers": ["gaussian"]}
        return [several(tmp_path, backbone, f"seeds.init={s}", **sections) for s in (1, 2)]

    expected = outcome(run_pack(pack(), tmp_path / "undisturbed"))
    for after in (9, 17):
        with pytest.raises(Killed):
            run_pack(pack(), tmp_path / "killed", report=killer(after))
    assert outcome(run_pack(pack(), tmp_path / "killed")) == expected


# What a run leaves


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, backbone: Backbone) -> tuple[Prepared, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("several")
    p = several(folder, backbone)
    return p, run_pack([p], folder / "runs")[0]


def lines(run: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(run["run"], name).read_text().splitlines()]


def test_metrics_are_of_each_task_and_their_mean(done: tuple[Prepared, dict[str, Any]]) -> None:
    _, run = done
    for split in ("dev", "test"):
        metrics = run["metrics"][split]
        of = metrics["tasks"]
        assert set(of) == {"toy", "twin", "names"}
        own = (of["toy"]["accuracy"], of["twin"]["accuracy"], of["names"]["entity_f1"])
        assert metrics["score"] == pytest.approx(fmean(own))
        assert metrics["rows"] == sum(its["rows"] for its in of.values()) == run["rows"][split]
        assert metrics["names.entity_f1"] == of["names"]["entity_f1"]
        assert "confusion" in of["toy"]
    assert run["task"] == "toy+twin+names"
    assert run["baselines"] == {"majority": None, "no_prompt": None}, "of tags there is no constant answer"
    assert run["parameters"]["trained"] == 3 * 32 + 2 * 33 + 33 * len(of_tags(done[0]))


def of_tags(p: Prepared) -> tuple[str, ...]:
    return p.task.parts["names"].verbalizer.classes


def test_predictions_say_their_task(done: tuple[Prepared, dict[str, Any]]) -> None:
    p, run = done
    for split in ("dev", "test"):
        found = lines(run, f"predictions.{split}.jsonl")
        wanted = [(e.id, name) for name, part in p.task.parts.items() for e in part.splits[split]]
        assert [(line["id"], line["task"]) for line in found] == wanted
        right = [line["label"] == line["gold"] for line in found if line["task"] == "toy"]
        assert fmean(right) == run["metrics"][split]["toy.accuracy"]


def test_validation_tells_what_the_run_has(done: tuple[Prepared, dict[str, Any]]) -> None:
    p, run = done
    v = api.validate(p.config.as_dict())
    assert v.parameters == {k: v for k, v in run["parameters"].items() if k in ("trained", "kept")}
    told = v.as_json()
    assert told["rows"] == run["rows"]
    assert told["classes"] == {name: list(part.verbalizer.classes) for name, part in p.task.parts.items()}
    shown = api.show(p.config.as_dict(), n=2).examples
    assert [s.task for s in shown] == ["toy"] * 2 + ["twin"] * 2 + ["names"] * 2
    assert shown[4].tags


def test_an_evaluation_repeats_the_run(done: tuple[Prepared, dict[str, Any]]) -> None:
    _, run = done
    whole = api.evaluate(run["run"])
    assert whole.metrics == run["metrics"]["test"]
    assert [x.as_json() for x in whole.predictions] == lines(run, "predictions.test.jsonl")
    one = api.evaluate(run["run"], task="names")
    assert one.metrics == run["metrics"]["test"]["tasks"]["names"]
    what = "the run is on several tasks (toy, twin, names), and this is none of them: 'sst2'"
    with refused(ConfigError, what, where="task", fix="trimtab take RUN TASK"):
        api.evaluate(run["run"], task="sst2")


def test_a_prediction_is_told_its_task(done: tuple[Prepared, dict[str, Any]], backbone: Backbone) -> None:
    _, run = done
    rows = [{"text": "the good cat", "task": "twin"}, {"text": "a bad film", "task": "toy", "id": "x"},
            {"tokens": ["the", "cat"], "task": "names"}]  # fmt: skip
    found = load_tasks(run["run"], backbone=backbone).predict(
        [*rows, Example("e", {"text": "it", "task": "toy"}, None)]
    )
    assert [(x.id, x.task) for x in found] == [("1", "twin"), ("x", "toy"), ("3", "names"), ("e", "toy")]
    alone = load(run["run"], task="twin", backbone=backbone).predict(["the good cat"])
    assert found[0].record.as_json() == alone[0].as_json()
    assert [x.as_json() for x in api.predict(run["run"], rows)] == [x.as_json() for x in found[:3]]
    assert api.predict(run["run"], ["the good cat"], task="twin")[0].as_json() == alone[0].as_json()


@pytest.mark.parametrize(
    ("given", "what", "where"),
    [
        ("text", "the input does not say which task it is of", "input 2"),
        ({"text": "x", "task": "tooy"}, "there is no task 'tooy'", "input 2"),
        (Example("e", {"text": "x"}, None, "a.csv:7"), "the input does not say which task it is of", "a.csv:7"),
    ],
)
def test_an_input_that_does_not_say_its_task_is_refused(
    given: Any, what: str, where: str, done: tuple[Prepared, dict[str, Any]], backbone: Backbone
) -> None:
    with refused(DataError, what, where=where, fix="Name one in the field `task`: toy, twin, names."):
        load_tasks(done[1]["run"], backbone=backbone).predict([{"text": "x", "task": "toy"}, given])


def test_a_bundle_of_several_is_loaded_task_by_task(
    done: tuple[Prepared, dict[str, Any]], backbone: Backbone, tmp_path: Path
) -> None:
    run = str(done[1]["run"])
    with refused(BundleError, "the prompt is of several tasks: toy, twin, names", where=run, fix="--task toy"):
        load(run, backbone=backbone)
    with refused(BundleError, "the bundle has no task 'tins'", where="task", fix="Did you mean 'twin'?"):
        load(run, task="tins", backbone=backbone)
    alone = toy_run(tmp_path, backbone, {"training": {"max_steps": 1}}, n=4)
    only = str(run_pack([alone], tmp_path / "runs")[0]["run"])
    with refused(BundleError, "the bundle is of one task only", where="task", fix="Leave the task out"):
        load(only, task="toy", backbone=backbone)


def test_a_bundle_of_one_task_can_be_taken_out(
    done: tuple[Prepared, dict[str, Any]], backbone: Backbone, tmp_path: Path
) -> None:
    p, run = done
    api.take_task(run["run"], "twin", tmp_path / "twin")
    taken, whole = read_bundle(tmp_path / "twin"), read_bundle(Path(run["run"]))
    assert set(taken.tensors) == {"inputs", "head.weight", "head.bias"}
    assert (taken.tensors["head.bias"] == whole.tensors["head.1.bias"]).all()
    examples = p.task.parts["twin"].splits["test"]
    found = load(tmp_path / "twin", backbone=backbone).evaluate(examples)
    assert found.metrics == run["metrics"]["test"]["tasks"]["twin"]
    other = api.evaluate(tmp_path / "twin", task=toy_task(tmp_path, 16))
    assert other.metrics["rows"] == 16
    with refused(ConfigError, "holds a bundle already", where=str(tmp_path / "twin"), fix="another -o"):
        api.take_task(run["run"], "toy", tmp_path / "twin")


@pytest.mark.parametrize("kind", ["prompt_tuning", "deep"])
def test_a_task_begins_where_several_ended(kind: str, tmp_path: Path, backbone: Backbone) -> None:
    spec = {"kind": kind, "length": LENGTH}
    run = run_pack([several(tmp_path, backbone, prompt=spec)], tmp_path / "runs")[0]
    begin = {**spec, "initializer": {"kind": "from_run", "run": run["run"]}}
    p = toy_run(tmp_path, backbone, {"prompt": begin, "readout": "head"}, n=8)
    bundle = read_bundle(Path(run["run"]))
    for name, value in encoder_of(p).materialize().items():
        torch.testing.assert_close(value, torch.from_numpy(bundle.tensors[name]))
    again = several(tmp_path, backbone, prompt=begin, seed=2)
    torch.testing.assert_close(
        next(iter(encoder_of(again).materialize().values())), next(iter(encoder_of(p).materialize().values()))
    )
    assert p.initializer_fingerprint == again.initializer_fingerprint


# Baselines, refusals


def test_templates_as_they_are_have_a_mean_score(tmp_path: Path, backbone: Backbone) -> None:
    twins = {"kind": "multitask", "tasks": [toy_task(tmp_path, 8), {**toy_task(tmp_path, 12), "name": "twin"}]}
    run = run_pack([several(tmp_path, backbone, task=twins, readout="auto", prompt="manual")], tmp_path / "runs")[0]
    assert (run["steps"], run["parameters"]["trained"]) == (0, 0)
    assert run["baselines"]["majority"] == 0.5
    assert run["baselines"]["no_prompt"] == pytest.approx(run["metrics"]["test"]["score"])
    what = "with the prompt 'manual' nothing is trained"
    with refused(ConfigError, what, where="prompt.kind", fix="prompt.kind=none"):
        several(tmp_path, backbone, task=twins, readout=READ, prompt="manual")
    with refused(ConfigError, "trains nothing", where="prompt.kind", fix="readout.kind=head"):
        several(tmp_path, backbone, task=twins, readout="auto", prompt="none")


def test_heads_on_the_bare_backbone_train_together(tmp_path: Path, backbone: Backbone) -> None:
    twins = {"kind": "multitask", "tasks": [toy_task(tmp_path, 8), {**toy_task(tmp_path, 12), "name": "twin"}]}
    run = run_pack([several(tmp_path, backbone, task=twins, readout="head", prompt="none")], tmp_path / "runs")[0]
    assert run["parameters"]["trained"] == 2 * 2 * 33


def test_a_rate_of_heads_needs_a_head(tmp_path: Path, backbone: Backbone) -> None:
    twins = {"kind": "multitask", "tasks": [toy_task(tmp_path, 8), {**toy_task(tmp_path, 12), "name": "twin"}]}
    training = {**TRAINING, "learning_rates": {"head": 0.1}}
    several(tmp_path, backbone, task=twins, readout=READ, training=training)
    what = "no parameters of the group 'head'"
    with refused(ConfigError, what, where="training.learning_rates.head", fix="Its groups: prompt, backbone"):
        several(tmp_path, backbone, task=twins, readout="auto", training=training)


def test_what_is_wrong_with_a_template_names_its_task(tmp_path: Path, backbone: Backbone) -> None:
    tasks = tasks_of(tmp_path)
    tasks["tasks"][1]["template"] = "{prompt} {txt} {answer}"
    with refused(TemplateError, "uses the field {txt}", where="task.template (the task 'twin')", fix="text"):
        several(tmp_path, backbone, task=tasks)
