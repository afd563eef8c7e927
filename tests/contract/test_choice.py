"""Multiple choice on every family: each choice in a sequence of its own, scored by one trained vector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.contract.test_backbone_families import MODELS, family_folder, frozen, sides
from tests.contract.toy_runs import LENGTH, model_of, toy_run
from tests.tiny import write_jsonl
from tests.unit.refusals import refused
from trimtab import loading, predictor
from trimtab import model as models
from trimtab.api import show
from trimtab.backbones import Backbone, load_backbone
from trimtab.backbones.loading import load_encoder
from trimtab.batching import collate
from trimtab.errors import ConfigError, DataError, TemplateError
from trimtab.loading import from_bundle
from trimtab.perturbations import add_to_text
from trimtab.predictions import Prediction
from trimtab.prompt_table import PromptTable
from trimtab.readouts import first_head
from trimtab.registry import tasks
from trimtab.tasks import SPLITS
from trimtab.tasks.reading import Places
from trimtab.training.packs import train_pack
from trimtab.training.preparing import Prepared, render_task
from trimtab.training.records import make_bundle
from trimtab.training.runs import run_pack
from trimtab.types import Batch

__all__ = ["family_folder"]
NAMES = ["first", "second", "third"]
NEUTRAL = ("film", "book", "song", "cat", "dog", "tree", "old", "new")


def choice_rows(n: int, seed: int) -> list[dict[str, Any]]:
    """Two or three choices of a few words; the right one says `good`, the others `bad`."""
    generator = torch.Generator().manual_seed(seed)

    def pick(top: int) -> int:
        return int(torch.randint(top, (1,), generator=generator))

    rows = []
    for i in range(n):
        count, right = 2 + i % 2, pick(2)
        texts = [f"{NEUTRAL[pick(8)]} {'good' if c == right else 'bad'}" for c in range(count)]
        texts += [""] * (3 - count)
        rows.append({"id": f"{seed}-{i}", "text": "the " + NEUTRAL[pick(8)], **dict(zip(NAMES, texts, strict=True))})
        rows[-1]["label"] = right
    return rows


def choice_run(
    folder: Path, backbone: Backbone, recipe: dict[str, Any] | None = None, n: int = 8, **task: Any
) -> Prepared:
    files = {
        s: str(write_jsonl(folder / f"{s}.c.jsonl", choice_rows(n, i))) for i, s in enumerate(("train", "dev", "test"))
    }
    section = {"template": "{prompt} {text} {choice}", "choices": NAMES, "label_words": None, **files, **task}
    return toy_run(folder, backbone, recipe, n=4, **section)


def table_of(backbone: Backbone, prompts: int = 2) -> PromptTable:
    g = torch.Generator().manual_seed(0)
    inputs = backbone.embedding_rms * torch.randn(prompts, LENGTH, backbone.embedding_size, generator=g)
    heads = [first_head("choice", backbone.hidden_size, 3, g) for _ in range(prompts)]
    return PromptTable(inputs, heads={n: torch.stack([h[n] for h in heads]) for n in heads[0]})


@pytest.mark.parametrize("name", MODELS)
def test_choices_are_read_on_every_family(name: str, family_folder: Callable[[str], Path], tmp_path: Path) -> None:
    backbone = load_backbone(str(family_folder(name)), dtype="float32")
    p = choice_run(tmp_path, backbone, {"training": {"max_steps": 3}})
    assert p.config.readout["kind"] == "choice"
    model, table = model_of(p), table_of(backbone).detached()
    rows = [replace(row, prompt=i % 2, key=i) for i, row in enumerate(p.rows["train"])]
    with frozen(backbone):
        together = model.scores(model.collate(rows), table)
        model.readout.loss(together, model.collate(rows).labels).sum().backward()
    assert together.isneginf().sum(1).tolist() == [1, 0] * 4
    for name_, value in table.tensors.items():
        assert value.grad is not None
        assert bool((value.grad.flatten(1).abs().sum(1) > 0).all()), f"a row of {name_} gets no gradient"
        assert bool(value.grad.isfinite().all())
    for row, its in zip(rows, together, strict=True):
        alone = model.scores(model.collate([row]), table)[0]
        torch.testing.assert_close(its[: len(alone)], alone, rtol=1e-4, atol=1e-5)
    for side in sides(backbone):
        padded = model.scores(collate([*rows, *p.rows["test"]], backbone.pad_id, side), table)[: len(rows)]
        torch.testing.assert_close(padded, together, rtol=1e-4, atol=1e-4)
    trained = train_pack([p])[0]
    again = from_bundle(make_bundle(trained), backbone)
    assert set(trained.tensors) == {"inputs", "head.weight"}
    torch.testing.assert_close(
        again.score(p.task.splits["test"]), model.score_rows(p.rows["test"], again.table, predictor.MAX_TOKENS)
    )


@pytest.mark.parametrize("position", ["first", "last", "answer", "mean"])
def test_choices_learn_the_toy(position: str, tmp_path: Path, backbone: Backbone) -> None:
    training = {"max_steps": 150, "learning_rate": 0.03, "batch_size": 16}
    recipe = {"readout": {"kind": "choice", "position": position}, "training": training}
    p = choice_run(tmp_path, backbone, recipe, n=64, template="{prompt} {text} {choice} {answer}")
    record = run_pack([p], tmp_path / "runs")[0]
    assert record["metrics"]["test"]["accuracy"] >= 0.9
    assert record["metric"] == "accuracy"
    assert record["baselines"]["no_prompt"] is None
    assert 0.5 <= record["baselines"]["majority"] < 0.7
    kept = 32 + LENGTH * 32
    assert record["parameters"] == {"trained": kept, "kept": kept}
    assert record["rows"] == {"train": 64, "dev": 64, "test": 64}
    found = loading.load(record["run"], backbone=backbone)
    row = {"text": "the cat", "first": "dog bad", "second": "film good"}
    two, three = found.predict([row, {**row, "third": "cat bad", "label": "x"}])
    assert isinstance(two, Prediction)
    assert isinstance(three, Prediction)
    assert two.as_json().keys() == {"id", "label", "text", "scores"}
    assert (two.label, two.text, list(two.scores)) == ("second", "film good", ["first", "second"])
    assert list(three.scores) == NAMES
    assert sum(three.scores.values()) == pytest.approx(1)
    evaluation = found.evaluate(p.task.splits["test"])
    assert evaluation.metrics["accuracy"] == record["metrics"]["test"]["accuracy"]


def test_choices_of_a_pack_equal_each_alone(tmp_path: Path, backbone: Backbone) -> None:
    noise = [{"kind": "gaussian", "sigma_relative": 0.5}]
    pack = [
        choice_run(tmp_path, backbone, {"seed": seed, "regularizers": noise, "training": {"clip": 0.1}}, n=16)
        for seed in (1, 2)
    ]
    for together, p in zip(train_pack(pack), pack, strict=True):
        alone = train_pack([p])[0]
        for name, value in together.tensors.items():
            torch.testing.assert_close(
                torch.from_numpy(value), torch.from_numpy(alone.tensors[name]), rtol=1e-4, atol=1e-5
            )


def test_noise_is_shared_by_the_choices_of_an_example(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Tensor] = []

    def recorded(embeds: Tensor, delta: Tensor, batch: Batch) -> Tensor:
        moved = add_to_text(embeds, delta, batch)
        noise = moved - embeds
        for x in range(len(batch.labels)):
            its = [row[e] for row, e in zip(noise, batch.eligible, strict=True)]
            its = [one for one, of in zip(its, batch.example_of.tolist(), strict=True) if of == x]
            common = min(len(one) for one in its)
            assert common > 0
            for one in its:
                torch.testing.assert_close(one[:common], its[0][:common], rtol=0, atol=1e-6)
            given.append(its[0][0])
        return moved

    monkeypatch.setattr(models, "add_to_text", recorded)
    noise = [{"kind": "gaussian", "sigma_relative": 0.5}]
    train_pack([choice_run(tmp_path, backbone, {"training": {"max_steps": 1}, "regularizers": noise})])
    assert len(given) > 1
    assert not torch.equal(given[0], given[1]), "examples must differ"


def test_scores_are_a_vector_times_each_choice(tmp_path: Path, backbone: Backbone) -> None:
    p = choice_run(tmp_path, backbone)
    model, table = model_of(p), table_of(backbone)
    rows = [replace(row, prompt=i) for i, row in enumerate([*p.rows["train"][:2], p.rows["train"][2]][:2])]
    hidden = torch.randn(5, 1, 32)
    found = model.readout.scores(hidden, model.collate(rows), table.heads)
    w = table.heads["weight"][:, 0]
    expected = [hidden[i, 0] @ w[r] for i, r in enumerate([0, 0, 1, 1, 1])]
    torch.testing.assert_close(found[0], torch.stack([*expected[:2], torch.tensor(-torch.inf)]))
    torch.testing.assert_close(found[1], torch.stack(expected[2:]))
    bare = model.readout.scores(hidden, model.collate([replace(rows[0], prompt=-1), rows[1]]), table.heads)
    assert bare.isnan().sum(1).tolist() == [2, 0]


def test_each_choice_stands_in_the_template(tmp_path: Path, backbone: Backbone) -> None:
    task = {"template": "{prompt} {text} {sep} {choice}", "replace": {"text": _because(8)}}
    p = choice_run(tmp_path, backbone, **task)
    row = p.rows["train"][1]
    assert row.example is not None
    texts = [backbone.encoder.decode(v.ids) for v in row.variants]
    assert [t.split()[-2:] for t in texts] == [row.example.fields[n].split() for n in NAMES]
    assert all("yes no" in t and "the" not in t for t in texts)
    assert row.label == int(choice_rows(8, 0)[1]["label"])


def _because(n: int) -> dict[str, str]:
    return {r["text"]: "yes no" for s in range(3) for r in choice_rows(n, s)}


def test_every_choice_is_shown(tmp_path: Path, tiny_folder: Path) -> None:
    backbone = load_backbone(str(tiny_folder), dtype="float32")
    config = choice_run(tmp_path, backbone).config.as_dict()
    shown = show({**config, "backbone": {"model": str(tiny_folder)}}, n=2).examples
    assert [s.part for s in shown] == ["first", "second", "first", "second", "third"]
    assert [s.encoded.answer_slot for s in shown] == [-1] * 5


@pytest.mark.parametrize(
    ("label", "right"), [("first", "first"), (0, "first"), (1, "second"), ("red sun", "second"), ("0", "first")]
)
def test_a_label_names_a_choice(label: Any, right: str, tmp_path: Path, backbone: Backbone) -> None:
    p = labelled(
        tmp_path, backbone, [{"text": "a", "first": "blue sea", "second": "red sun", "third": "", "label": label}]
    )
    assert p.rows["train"][0].label == NAMES.index(right)
    assert p.task.splits["train"][0].label == right


def labelled(folder: Path, backbone: Backbone, rows: Sequence[dict[str, Any]], **task: Any) -> Prepared:
    path = write_jsonl(folder / "own.jsonl", rows)
    return choice_run(folder, backbone, train=str(path), **task)


ROW = {"text": "a", "first": "blue", "second": "red", "third": "", "label": 0}


@pytest.mark.parametrize(
    ("change", "what", "fix"),
    [
        ({"label": 2}, "the label '2' is no choice of the row", "first, second. Numbers count from 0"),
        ({"label": "third"}, "the label 'third' is no choice of the row", "first, second"),
        ({"label": "1", "first": "1"}, "may mean first or second", "the column of the right choice"),
        ({"label": "red", "first": "red"}, "may mean first or second", "the column of the right choice"),
        ({"label": None}, "no label in the column 'label'", None),
        ({"second": ""}, "at least two choices, got 1", "Fill the columns first, second."),
        ({"second": "", "third": "x"}, "the choice 'second' is empty, and 'third' is not", None),
        ({"text": "b"}, "the field 'text' holds 'b', and task.replace.text does not say", "a"),
    ],
)
def test_bad_rows_are_refused(
    change: dict[str, Any], what: str, fix: str | None, tmp_path: Path, backbone: Backbone
) -> None:
    task = {"replace": {"text": {"a": "sun", **_because(8)}}}
    with refused(DataError, what, where=f"{tmp_path}/own.jsonl:2", fix=fix):
        labelled(tmp_path, backbone, [ROW, {**ROW, **change}], **task)


def test_a_label_that_several_ways_agree_on_is_clear(tmp_path: Path, backbone: Backbone) -> None:
    p = labelled(tmp_path, backbone, [{**ROW, "first": "0", "label": 0}])
    assert p.rows["train"][0].label == 0


@pytest.mark.parametrize(
    ("task", "error", "what", "where", "fix"),
    [
        ({"choices": ["first"]}, ConfigError, "at least two columns", "task.choices", None),
        ({"choices": ["first", "first"]}, ConfigError, "each once", "task.choices", None),
        ({"label_words": {"a": "x", "b": "y"}}, ConfigError, "give either label_words", "task", None),
        ({"template": "{prompt} {text}"}, TemplateError, "reads the field {choice}", "task.template", "Write {choice}"),
    ],
)
def test_bad_options_are_refused(
    task: dict[str, Any],
    error: Any,
    what: str,
    where: str,
    fix: str | None,
    tmp_path: Path,
    backbone: Backbone,
) -> None:
    with refused(error, what, where=where, fix=fix):
        choice_run(tmp_path, backbone, **task)


@pytest.mark.parametrize(("option", "value"), [("choices", ["first", "secnd"]), ("replace", {"secnd": {}})])
def test_columns_must_exist(option: str, value: Any, tmp_path: Path, backbone: Backbone) -> None:
    where = str(tmp_path / "train.c.jsonl")
    with refused(DataError, "there is no column 'secnd'", where=where, fix="second"):
        choice_run(tmp_path, backbone, **{option: value})


def test_a_column_called_choice_is_refused(tmp_path: Path, backbone: Backbone) -> None:
    where = str(tmp_path / "own.jsonl")
    with refused(DataError, "there is a column 'choice'", where=where, fix="Rename the column."):
        labelled(tmp_path, backbone, [{**ROW, "choice": "x"}])


def test_a_choice_is_read_by_no_other_readout(tmp_path: Path, backbone: Backbone) -> None:
    with refused(
        ConfigError, "no answers of the sort that the task 'toy' has (choice)", where="readout.kind", fix="choice"
    ):
        choice_run(tmp_path, backbone, {"readout": {"kind": "head"}})
    with refused(
        ConfigError, "no answers of the sort that the task 'toy' has (class)", where="readout.kind", fix="head"
    ):
        toy_run(tmp_path, backbone, {"readout": {"kind": "choice"}})


def test_a_missing_choice_is_named(tmp_path: Path, backbone: Backbone) -> None:
    found = from_bundle(make_bundle(train_pack([choice_run(tmp_path, backbone)])[0]), backbone)
    with refused(DataError, "the field 'second' is missing; the template needs text, first, second", where="input 1"):
        found.predict([{"text": "a", "first": "b", "third": "c"}])


def test_choices_are_drawn_as_one_group(tmp_path: Path, backbone: Backbone) -> None:
    p = choice_run(tmp_path, backbone, n=12, shots=5, dev_shots=4)
    assert {s: len(p.task.splits[s]) for s in ("train", "dev")} == {"train": 5, "dev": 4}
    path = write_jsonl(tmp_path / "all.jsonl", [{**r, "label": 0} for r in choice_rows(40, 3)])
    p = choice_run(tmp_path, backbone, train=None, dev=None, test=None, path=str(path))
    assert sum(len(p.task.splits[s]) for s in ("train", "dev", "test")) == 40


@pytest.mark.parametrize("kind", ["superglue/copa", "fewglue_32dev/copa"])
def test_presets_of_copa(kind: str, shared: Path) -> None:
    encoder = load_encoder("nano-masked").encoder
    task = tasks.build(tasks.resolve(kind, "task")).load(0, Places(shared / "data"))
    sizes = {"superglue/copa": (350, 50, 100), "fewglue_32dev/copa": (32, 32, 100)}[kind]
    assert tuple(len(task.splits[s]) for s in SPLITS) == sizes
    rendering = render_task(task, LENGTH, encoder, 256, "choice")
    for split in SPLITS:
        for example in task.splits[split]:
            row = rendering.row(example, encoder)
            assert row.label in (0, 1)
            assert len(row.variants) == 2
            assert all(v.dropped == 0 and len(v.slots) == LENGTH for v in row.variants)
            joined = {"cause": "because", "effect": "so"}[example.fields["question"]]
            assert all(f" {joined} " in encoder.decode(v.ids) for v in row.variants)
    if kind == "superglue/copa":
        first = encoder.tokens(rendering.row(task.splits["train"][0], encoder).encoded.ids)
        assert " ".join(first[LENGTH + 1 :]) == (
            "my body cast a shad ##ow over the grass . because [SEP] the sun was rising . [SEP]"
        )
