"""Baselines that are runs like any other: the template as it is, and words found by search."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.contract.toy_runs import toy_run
from tests.unit.refusals import refused
from tests.unit.training.test_resume import Killed, killer
from trimtab.backbones import Backbone
from trimtab.config import resolve
from trimtab.errors import ConfigError
from trimtab.files import read_jsonl
from trimtab.loading import load
from trimtab.training.packs import rehearse, train_pack
from trimtab.training.preparing import Prepared, prepare
from trimtab.training.runs import run_pack

# manual --------------------------------------------------------------------------------------------------------------


def as_it_is(folder: Path, backbone: Backbone, seed: int = 1) -> Prepared:
    run = toy_run(folder, backbone, {"seed": seed}, n=16)
    config = resolve({**run.config.as_dict(), "prompt": "manual"}).config
    return prepare(config, backbone)


def test_manual_scores_what_the_bare_model_scores_and_takes_no_step(backbone: Backbone, tmp_path: Path) -> None:
    events = []
    (record,) = run_pack([as_it_is(tmp_path, backbone)], tmp_path / "runs", report=events.append)
    assert (record["status"], record["steps"], record["best_step"]) == ("done", 0, 0)
    assert record["parameters"] == {"trained": 0, "kept": 0}
    assert record["metrics"]["test"]["accuracy"] == record["baselines"]["no_prompt"]
    assert [e["event"] for e in events] == ["evaluation", "end"]
    loaded = load(Path(record["run"]), backbone=str(backbone.name))
    assert loaded.evaluate(as_it_is(tmp_path, backbone).task.splits["test"]).metrics == record["metrics"]["test"]


def test_manual_runs_pack_with_each_other(backbone: Backbone, tmp_path: Path) -> None:
    pack = [as_it_is(tmp_path, backbone, seed) for seed in (1, 2)]
    assert [t.member.status for t in train_pack(pack)] == ["done", "done"]
    assert rehearse(pack).seconds > 0


@pytest.mark.parametrize("more", [{"readout": "head"}, {"training": {"learning_rates": {"backbone": 0.1}}}])
def test_manual_with_something_to_train_is_refused(more: dict[str, object]) -> None:
    with refused(ConfigError, "nothing is trained", where="prompt.kind", fix="prompt.kind=none"):
        resolve({"task": "support_desk", "prompt": "manual", **more})


# discrete_search -----------------------------------------------------------------------------------------------------

SEARCH = {"kind": "discrete_search", "candidates": 8, "judges": 12}


def searched(folder: Path, backbone: Backbone, seed: int = 1, **more: object) -> Prepared:
    training = {"max_steps": 12, "evaluations": 4}
    return toy_run(folder, backbone, {"prompt": {**SEARCH, **more}, "training": training, "seed": seed}, n=16)


def is_made_of_words(backbone: Backbone, prompt: torch.Tensor) -> bool:
    matrix = backbone.embedding_rows.detach().float()
    return all(bool((matrix == row).all(1).any()) for row in prompt)


def test_what_is_found_are_words_and_the_loss_falls(backbone: Backbone, tmp_path: Path) -> None:
    (record,) = run_pack([searched(tmp_path, backbone)], tmp_path / "runs")
    found = read_jsonl(Path(record["run"]) / "words.jsonl")
    assert found
    losses = [f["loss"] for f in found]
    assert min(losses) < losses[0]
    predictor = load(Path(record["run"]), backbone=str(backbone.name))
    assert predictor.table is not None
    prompt = predictor.table.inputs[0]
    assert is_made_of_words(backbone, prompt)
    vocabulary = backbone.encoder.tokenizer.get_vocab()
    steps = [f for f in found if f["step"] < record["best_step"]]
    if steps:
        ids = torch.tensor([vocabulary[w] for w in steps[-1]["words"]])
        torch.testing.assert_close(backbone.embedding_rows.detach()[ids], prompt)
    label_words = {w for words in predictor.rendering.verbalizer.words for w in words}
    assert label_words
    assert not {w for f in found for w in f["words"]} & label_words


def test_every_swap_lowers_the_loss_of_the_rows_that_judge(backbone: Backbone, tmp_path: Path) -> None:
    """With all rows as judges the loss of what is accepted never rises."""
    (trained,) = train_pack([searched(tmp_path, backbone, judges=1000)])
    losses = [f["loss"] for f in trained.member.findings["words"]]
    assert len(losses) > 3
    assert losses == sorted(losses, reverse=True)


def test_search_learns_the_toy(backbone: Backbone, tmp_path: Path) -> None:
    """Two classes; vectors reach more than 0.9."""
    training = {"max_steps": 60, "evaluations": 6, "batch_size": 32}
    prompt = {**SEARCH, "judges": 32}
    pack = [toy_run(tmp_path, backbone, {"prompt": prompt, "training": training, "seed": s}, n=128) for s in (1, 2)]
    found = [t.member.best_dev["accuracy"] for t in train_pack(pack)]
    assert sum(found) / 2 > 0.65, found


def test_members_of_a_pack_search_as_alone(backbone: Backbone, tmp_path: Path) -> None:
    pack = [searched(tmp_path, backbone, seed) for seed in (1, 2, 3)]
    together = train_pack(pack)
    for run, its in zip(pack, together, strict=True):
        (alone,) = train_pack([run])
        assert [f["words"] for f in alone.member.findings["words"]] == [
            f["words"] for f in its.member.findings["words"]
        ]
        assert alone.prompt.tolist() == its.prompt.tolist()
    assert together[0].prompt.tolist() != together[1].prompt.tolist()


def test_a_killed_search_ends_as_if_undisturbed(backbone: Backbone, tmp_path: Path) -> None:
    run = searched(tmp_path, backbone)
    (whole,) = run_pack([run], tmp_path / "whole")
    for after in (3, 9):
        with pytest.raises(Killed):
            run_pack([run], tmp_path / "killed", report=killer(after))
    (again,) = run_pack([run], tmp_path / "killed")
    assert read_jsonl(Path(again["run"]) / "words.jsonl") == read_jsonl(Path(whole["run"]) / "words.jsonl")
    assert again["metrics"] == whole["metrics"]


def test_a_head_is_trained_beside_the_search(backbone: Backbone, tmp_path: Path) -> None:
    training = {"max_steps": 12, "evaluations": 4}
    recipe = {"prompt": SEARCH, "readout": {"kind": "head"}, "training": training}
    run = toy_run(tmp_path, backbone, recipe, n=16)
    (trained,) = train_pack([run])
    assert is_made_of_words(backbone, torch.tensor(trained.prompt))
    (plain,) = train_pack([toy_run(tmp_path, backbone, {**recipe, "training": {**training, "max_steps": 1}}, n=16)])
    assert trained.tensors["head.weight"].tolist() != plain.tensors["head.weight"].tolist()
