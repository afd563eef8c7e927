"""Runs with `word_swap`: when texts are attacked, what a killed run remembers, packs, every family, and swaps.jsonl."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.contract.tiny_families import BUILDERS
from tests.contract.toy_runs import toy_run
from tests.tiny import tagged_task, tiny_backbone, toy_task, written_task
from trimtab.api import run as api_run
from trimtab.backbones import Backbone, words
from trimtab.errors import ConfigError
from trimtab.files import read_jsonl
from trimtab.perturbations import TrainStep
from trimtab.registry import regularizers
from trimtab.regularizers import word_swap
from trimtab.regularizers.swap_attack import Attacked, Limits, attack
from trimtab.regularizers.swap_candidates import Rules
from trimtab.regularizers.word_swap import NO_SWAPS, NO_TAGGER, WordSwap
from trimtab.training.packs import train_pack
from trimtab.training.preparing import Prepared
from trimtab.training.runs import run_pack
from trimtab.types import Encoded

ANYTHING: dict[str, Any] = {
    "kind": "word_swap", "rate": 0.5, "similarity": -1.0, "neighbours": 256, "proposals": 500, "stop_words": "none",
    "opposites": "none", "part_of_speech": "off",
}  # fmt: skip
"""Random embeddings have no neighbours, so all words are some."""


def prepared(folder: Path, model: Backbone, /, n: int = 16, seed: int = 1, **options: Any) -> Prepared:
    """Four batches an epoch, twelve steps."""
    training = {
        "learning_rate": 0.02,
        "max_steps": 12,
        "batch_size": 4,
        "evaluations": 6,
        **options.pop("training", {}),
    }
    more = {k: options.pop(k) for k in ("prompt", "backbone", "task") if k in options}
    recipe = {"seed": seed, "regularizers": [{**ANYTHING, **options}], "training": training, **more}
    return toy_run(folder, model, recipe, n=n)


def swaps_of(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    return read_jsonl(Path(record["run"]) / "swaps.jsonl")


@pytest.fixture
def attacks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """(epoch, run, key) of every example that is attacked."""
    seen: list[tuple[int, int, int]] = []

    def watched(step: TrainStep, examples: Collection[int], limits: Limits, rules: Rules) -> dict[int, Attacked]:
        runs, keys = step.batch.prompt_of_example.tolist(), step.batch.keys[step.batch.first_row].tolist()
        seen.extend((step.epochs[x], runs[x], keys[x]) for x in examples)
        return attack(step, examples, limits, rules)

    monkeypatch.setattr(word_swap, "attack", watched)
    return seen


# When ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("every", "epochs"), [(1, [0, 1, 2]), (2, [0, 2]), (3, [0])])
def test_each_example_is_attacked_once_a_refresh(
    every: int, epochs: list[int], backbone: Backbone, tmp_path: Path, attacks: list[tuple[int, int, int]]
) -> None:
    train_pack([prepared(tmp_path, backbone, refresh_every=every)])
    assert Counter(attacks) == Counter({(e, 0, key): 1 for e in epochs for key in range(16)})


def test_members_of_a_pack_have_epochs_of_their_own(
    backbone: Backbone, tmp_path: Path, attacks: list[tuple[int, int, int]]
) -> None:
    """One member has half the rows of the other, so twice the epochs."""
    sizes = []
    for seed, n in ((1, 16), (2, 8)):
        place = tmp_path / str(seed)
        place.mkdir()
        sizes.append(prepared(place, backbone, n=n, seed=seed))
    loops = [len(p.rows["train"]) for p in sizes]
    pack = [sizes[0], Prepared(sizes[0].config.model_copy(update={"seeds": sizes[1].config.seeds}),
                               backbone, sizes[0].task, sizes[0].rendering,
                               {**sizes[0].rows, "train": sizes[1].rows["train"]})]  # fmt: skip
    train_pack(pack)
    assert loops == [16, 8]
    assert {r: {e for e, run, _ in attacks if run == r} for r in (0, 1)} == {0: {0, 1, 2}, 1: {0, 1, 2, 3, 4, 5}}


def test_swaps_are_kept_until_the_next_refresh(backbone: Backbone, tmp_path: Path) -> None:
    """With one refresh in all, the swaps found in the first epoch are those that are scored in the last."""
    shown: dict[int, list[list[int]]] = {}
    original = WordSwap.penalties

    def watched(self: WordSwap, step: TrainStep) -> Any:
        yield from original(self, step)
        for key, its in self._kept[0].found.items():
            assert shown.setdefault(key, its) == its

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WordSwap, "penalties", watched)
        train_pack([prepared(tmp_path, backbone, refresh_every=3)])
    assert sum(map(bool, shown.values())) > 8


# What it changes -----------------------------------------------------------------------------------------------------


def test_rate_of_zero_is_the_clean_loss_once_more(backbone: Backbone, tmp_path: Path) -> None:
    (twice,) = train_pack([toy_run(tmp_path, backbone, {"regularizers": ["duplicate"]}, n=16)])
    (none,) = train_pack([toy_run(tmp_path, backbone, {"regularizers": [{**ANYTHING, "rate": 0.0}]}, n=16)])
    (some,) = train_pack([toy_run(tmp_path, backbone, {"regularizers": [ANYTHING]}, n=16)])
    torch.testing.assert_close(torch.tensor(none.prompt), torch.tensor(twice.prompt), rtol=1e-4, atol=1e-5)
    assert not none.member.findings
    assert abs(some.prompt - none.prompt).max() > 1e-3


def test_weight_of_zero_attacks_nothing_and_leaves_nothing(
    backbone: Backbone, tmp_path: Path, attacks: list[tuple[int, int, int]]
) -> None:
    (plain,) = train_pack([toy_run(tmp_path, backbone, {"regularizers": []}, n=16)])
    (off,) = train_pack([toy_run(tmp_path, backbone, {"regularizers": [{**ANYTHING, "weight": 0.0}]}, n=16)])
    assert off.prompt.tolist() == plain.prompt.tolist()
    assert attacks == []
    pack = [prepared(tmp_path, backbone, seed=s, weight=w) for s, w in ((1, 1.0), (2, 0.0))]
    assert [bool(t.member.findings) for t in train_pack(pack)] == [True, False]


# Packs and micro-batches ---------------------------------------------------------------------------------------------


def compared(findings: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[tuple[int, str], Any]:
    """Swaps by refresh and example."""
    return {(f["refresh"], f["example"]): f["swaps"] for f in findings["swaps"]}


@pytest.mark.parametrize("prompt", [{"kind": "prompt_tuning"}, {"kind": "deep"}], ids=["input", "deep"])
def test_each_member_attacks_its_own_prompt_as_alone(
    prompt: dict[str, Any], backbone: Backbone, tmp_path: Path
) -> None:
    pack = [
        prepared(tmp_path, backbone, seed=s, weight=w, prompt=prompt, training={"learning_rate": rate})
        for s, w, rate in ((1, 1.0, 0.01), (2, 0.5, 0.02), (3, 2.0, 0.005))
    ]
    together = train_pack(pack)
    found = [compared(t.member.findings) for t in together]
    assert found[0] != found[1] != found[2]
    for run, its, trained in zip(pack, found, together, strict=True):
        (alone,) = train_pack([run])
        assert compared(alone.member.findings) == its
        for name, value in alone.tensors.items():
            torch.testing.assert_close(torch.tensor(trained.tensors[name]), torch.tensor(value), rtol=1e-3, atol=1e-4)


def test_micro_batches_change_nothing(backbone: Backbone, tmp_path: Path) -> None:
    whole, parts = (
        train_pack([prepared(tmp_path, backbone, training={"batch_size": 8, "max_tokens": n})])[0] for n in (8192, 40)
    )
    assert compared(parts.member.findings) == compared(whole.member.findings)
    torch.testing.assert_close(torch.tensor(parts.prompt), torch.tensor(whole.prompt), rtol=1e-3, atol=1e-4)


# Killed and resumed --------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """As if by kill -9: nothing of ours catches it."""


def killer(after: int) -> Callable[[Mapping[str, Any]], None]:
    """Dies at the `after`-th event of the loop."""
    seen = 0

    def report(event: Mapping[str, Any]) -> None:
        nonlocal seen
        seen += 1
        if seen == after:
            raise Killed

    return report


def outcome(records: Sequence[Mapping[str, Any]]) -> list[Any]:
    files = ("metrics.jsonl", "swaps.jsonl", "predictions.test.jsonl")
    texts = [[(Path(r["run"]) / f).read_text() for f in files] for r in records]
    prompts = [(Path(r["run"]) / "prompt.safetensors").read_bytes() for r in records]
    return [*zip(texts, prompts, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 2])
def test_a_pack_killed_again_and_again_ends_as_if_undisturbed(every: int, backbone: Backbone, tmp_path: Path) -> None:
    """Six evaluations in three epochs, so kills fall into epochs that have begun."""
    pack = [prepared(tmp_path, backbone, n=48, seed=s, refresh_every=every, training={"max_steps": 36}) for s in (1, 2)]
    expected = outcome(run_pack(pack, tmp_path / "undisturbed"))
    kills = 0
    for after in (17, 25, 23, 14, 21):
        try:
            run_pack(pack, tmp_path / "killed", report=killer(after))
            break
        except Killed:
            kills += 1
    assert kills >= 3, "it must be killed in the middle"
    assert outcome(run_pack(pack, tmp_path / "killed")) == expected


# What is left to be read ---------------------------------------------------------------------------------------------


def test_twenty_swaps_of_every_refresh_are_written(backbone: Backbone, tmp_path: Path) -> None:
    run = prepared(tmp_path, backbone, n=40, training={"max_steps": 25, "batch_size": 4})
    (record,) = run_pack([run], tmp_path / "runs")
    lines, texts = swaps_of(record), {e.id: e.fields["text"] for e in run.task.splits["train"]}
    assert Counter(line["refresh"] for line in lines) == {0: 20, 1: 20, 2: 20}
    for line in lines:
        assert list(line) == ["step", "example", "refresh", "before", "after", "swaps", "loss_before", "loss_after"]
        assert line["refresh"] == line["step"] // 10
        assert line["loss_after"] > line["loss_before"]
        before, after = line["before"].split(), line["after"].split()
        assert " ".join(before).startswith(texts[line["example"]])
        changed = [[a, b] for a, b in zip(before, after, strict=True) if a != b]
        assert sorted(changed) == sorted(line["swaps"]) != []
    assert len({(line["refresh"], line["example"]) for line in lines}) == 60


def test_a_run_without_swaps_leaves_no_file_and_says_so(backbone: Backbone, tmp_path: Path) -> None:
    events: list[Mapping[str, Any]] = []
    (record,) = run_pack([prepared(tmp_path, backbone, similarity=1.0)], tmp_path / "runs", report=events.append)
    assert not (Path(record["run"]) / "swaps.jsonl").exists()
    assert [e["text"] for e in events if e["event"] == "note"] == [NO_SWAPS]


# Parts of speech -----------------------------------------------------------------------------------------------------


def test_a_run_without_a_tagger_says_so(backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nltk", None)  # as if it were not installed
    events: list[Mapping[str, Any]] = []
    pack = [prepared(tmp_path, backbone, seed=s, part_of_speech="auto") for s in (1, 2)]
    records = run_pack(pack, tmp_path / "runs", report=events.append)
    notes = [(e["run"], e["text"]) for e in events if e["event"] == "note"]
    assert notes == [(0, NO_TAGGER), (1, NO_TAGGER)]
    assert [e["event"] for e in events[:3]] == ["note", "note", "evaluation"], "before anything is done"
    assert all(r["notes"] == [NO_TAGGER] for r in records)
    (off,) = run_pack([prepared(tmp_path, backbone)], tmp_path / "runs")
    assert "notes" not in off


def test_a_note_is_in_the_answer_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nltk", None)
    recipe = {
        "seed": 1, "backbone": {"model": str(BUILDERS["bert"](tmp_path / "bert"))}, "task": toy_task(tmp_path, 8),
        "prompt": {"length": 2}, "regularizers": [{**ANYTHING, "part_of_speech": "auto"}],
        "training": {"max_steps": 2, "min_steps": 0, "evaluations": 1},
    }  # fmt: skip
    assert api_run(recipe, runs_dir=tmp_path / "runs", device="cpu")["notes"] == [NO_TAGGER]


def test_a_tagger_that_is_installed_is_asked(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here a word's part of speech is its first letter."""
    sentences: list[list[str]] = []

    def pos_tag(words: list[str]) -> list[tuple[str, str]]:
        sentences.append(words)
        return [(word, word[:1] * 3) for word in words]

    monkeypatch.setitem(sys.modules, "nltk", SimpleNamespace(pos_tag=pos_tag))
    (record,) = run_pack([prepared(tmp_path, backbone, part_of_speech="auto")], tmp_path / "runs")
    swaps = [pair for line in swaps_of(record) for pair in line["swaps"]]
    assert swaps
    assert all(old[0] == new[0] for old, new in swaps)
    assert ["the", "book", "bad", "."] in sentences or any(s[0] == "the" and s[-1] == "." for s in sentences[1:])


def test_a_tagger_without_its_data_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def pos_tag(words: list[str]) -> list[tuple[str, str]]:
        raise LookupError("averaged_perceptron_tagger_eng")

    monkeypatch.setitem(sys.modules, "nltk", SimpleNamespace(pos_tag=pos_tag))
    assert WordSwap().notes == (NO_TAGGER,)


# Every family, readout and prompt ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.mark.parametrize("kind", BUILDERS)
def test_every_family_is_attacked(kind: str, folder: Path, tmp_path: Path) -> None:
    backbone = tiny_backbone(BUILDERS[kind](folder / kind))
    before = {n: p.clone() for n, p in backbone.model.named_parameters()}
    run = prepared(tmp_path, backbone, n=8, training={"max_steps": 3, "evaluations": 1})
    (trained,) = train_pack([run])
    assert trained.member.status == "done"
    assert len(trained.member.findings["swaps"]) >= 4
    assert all(torch.equal(p, before[n]) and p.grad is None for n, p in backbone.model.named_parameters())


@pytest.mark.parametrize("task", ["written", "tagged"])
def test_other_answers(task: str, folder: Path, tmp_path: Path) -> None:
    kind = {"written": "t5", "tagged": "bert"}[task]
    backbone = tiny_backbone(BUILDERS[kind](folder / f"{kind}-{task}"))
    made = {"written": written_task, "tagged": tagged_task}[task](tmp_path, 16)
    training = {"max_steps": 4, "evaluations": 1, "select": "loss"}
    (trained,) = train_pack([prepared(tmp_path, backbone, task=made, training=training)])
    assert trained.member.status == "done"
    assert trained.member.findings["swaps"]


def test_trained_backbone(backbone: Backbone, tmp_path: Path) -> None:
    training = {"learning_rates": {"backbone": 0.001}, "max_steps": 6}
    (trained,) = train_pack([prepared(tmp_path, backbone, training=training)])
    assert trained.member.status == "done"
    assert trained.member.findings["swaps"]


def asked_words(monkeypatch: pytest.MonkeyPatch) -> list[Encoded]:
    """What the bare model is asked, every time."""
    seen: list[Encoded] = []
    original = words.propose

    def watched(backbone: Backbone, asked: Encoded) -> Any:
        seen.append(asked)
        return original(backbone, asked)

    monkeypatch.setattr(words, "propose", watched)
    return seen


def test_a_frozen_model_is_asked_for_a_word_once(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attacks: list[tuple[int, int, int]]
) -> None:
    seen = asked_words(monkeypatch)
    train_pack([prepared(tmp_path, backbone)])
    assert len(attacks) == 48, "three attacks on every example"
    assert len(seen) == len(set(seen)) > 16


def test_what_is_remembered_has_an_end(backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (whole,) = train_pack([prepared(tmp_path, backbone)])
    monkeypatch.setattr(words, "_REMEMBERED", 3)
    seen = asked_words(monkeypatch)
    (forgetful,) = train_pack([prepared(tmp_path, backbone)])
    assert len(seen) > len(set(seen))
    assert forgetful.member.findings == whole.member.findings
    assert forgetful.prompt.tolist() == whole.prompt.tolist()


def test_a_model_that_is_trained_is_asked_anew(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = asked_words(monkeypatch)
    train_pack([prepared(tmp_path, backbone, training={"learning_rates": {"backbone": 0.001}})])
    assert len(seen) > len(set(seen))


def test_backbone_dropout_is_off_while_the_model_proposes(backbone: Backbone, tmp_path: Path) -> None:
    modes: list[bool] = []
    hook = backbone.model.base_model.register_forward_pre_hook(lambda module, args: modes.append(module.training))
    proposing: list[bool] = []
    original = words.propose

    def watched(*args: Any) -> Any:
        begun = len(modes)
        found = original(*args)
        proposing.extend(modes[begun:])
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "propose", watched)
        train_pack([prepared(tmp_path, backbone, backbone={"dropout": True})])
    hook.remove()
    assert proposing
    assert not any(proposing)
    assert any(modes)


# Refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{"rate": -0.1}, {"rate": 1.0}, {"similarity": 1.1}, {"refresh_every": 0}, {"tries": 0}]
)
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        regularizers.resolve({"kind": "word_swap", **options}, "regularizers.0")


def test_needs() -> None:
    needs = WordSwap().needs
    assert (needs.gradient, needs.text, needs.one_process, needs.distribution) == ("text", True, True, False)
    assert WordSwap(until="mistake").needs.distribution
    compares = WordSwap(loss="kl").needs
    assert (compares.gradient, compares.graph, compares.distribution) == ("text", True, True)


def test_state_survives_json() -> None:
    one, other = WordSwap(), WordSwap()
    one._kept = {3: word_swap.Kept(2, 7, {11: [[0, 5], [4, 9]], 12: []})}
    one._attacked, one._swapped = 30, 8
    other.load(json.loads(json.dumps(one.state)))
    assert other._kept == one._kept
    assert other.state == one.state
