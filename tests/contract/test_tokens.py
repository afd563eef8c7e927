"""Tags for words: which token of a word is read, on both padding sides; training and reloading on every family."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from tests.conftest import SHARED
from tests.contract.test_backbone_families import MODELS, family_folder, frozen, sides
from tests.contract.toy_runs import LENGTH, model_of
from tests.tiny import tagged_task
from tests.unit.refusals import refused
from trimtab import predictor
from trimtab.backbones import Backbone, load_backbone
from trimtab.batching import collate, labels_of
from trimtab.config import resolve
from trimtab.errors import DataError
from trimtab.loading import from_bundle
from trimtab.model import stacked
from trimtab.predictions import Entity, Tagged
from trimtab.prompt_table import PromptTable
from trimtab.readouts import first_head
from trimtab.registry import readouts, tasks
from trimtab.rendering import Rendering
from trimtab.tasks.reading import Places
from trimtab.tasks.tagged import with_words
from trimtab.templates import Template
from trimtab.training.packs import train_pack
from trimtab.training.preparing import Prepared, prepare
from trimtab.training.records import make_bundle
from trimtab.training.runs import run_pack
from trimtab.types import Example
from trimtab.verbalizers import Verbalizer

TAGS = ("O", "B-x", "I-x")
__all__ = ["family_folder"]


def tagged_run(
    folder: Path, backbone: Backbone, recipe: Mapping[str, Any] | None = None, n: int = 8, **task: Any
) -> Prepared:
    """A prepared run on the toy of tags."""
    recipe = dict(recipe or {})
    training = {"learning_rate": 0.01, "max_steps": 10, "batch_size": 8, "evaluations": 2, **recipe.pop("training", {})}
    prompt = {"kind": "prompt_tuning", "length": LENGTH}
    sections = {"task": tagged_task(folder, n, **task), "prompt": prompt, "training": training, "seed": 1, **recipe}
    return prepare(resolve(sections).config, backbone)


def rendering(backbone: Backbone, template: str = "{prompt} {text}", most: int = 64, **options: Any) -> Rendering:
    words = Verbalizer.of({t: t for t in TAGS})
    return Rendering(
        Template.parse(template, LENGTH), words, most, readouts.resolve({"kind": "tokens", **options}, "readout")
    )


def example(*words: str, tags: Sequence[str] = (), text: str | None = None) -> Example:
    return Example("e", {"text": " ".join(words) if text is None else text}, None, "f:1", words, tuple(tags))


def table_of(backbone: Backbone, tags: int, prompts: int = 2) -> PromptTable:
    """Prompts and heads of different values."""
    g = torch.Generator().manual_seed(0)
    inputs = backbone.embedding_rms * torch.randn(prompts, LENGTH, backbone.embedding_size, generator=g)
    heads = [first_head("tokens", backbone.hidden_size, tags, g) for _ in range(prompts)]
    return PromptTable(inputs, heads={n: torch.stack([h[n] + r for r, h in enumerate(heads)]) for n in heads[0]})


# Every family


@pytest.mark.parametrize("name", MODELS)
def test_words_are_tagged_on_every_family(name: str, family_folder: Callable[[str], Path], tmp_path: Path) -> None:
    backbone = load_backbone(str(family_folder(name)), dtype="float32")
    p = tagged_run(tmp_path, backbone)
    assert p.config.readout == {"kind": "tokens", "subword": "auto"}
    model, table = model_of(p), table_of(backbone, len(p.task.verbalizer.classes)).detached()
    rows = [replace(row, prompt=i % 2, key=i) for i, row in enumerate(p.rows["train"])]
    assert all(len(r.encoded.answer_at) == len(r.example.words) for r in rows if r.example)
    with frozen(backbone):
        batch = model.collate(rows)
        together = model.scores(batch, table)
        model.readout.loss(together, batch.labels).sum().backward()
    for part, value in table.tensors.items():
        assert value.grad is not None
        assert bool((value.grad.flatten(1).abs().sum(1) > 0).all()), f"a row of {part} gets no gradient"
    for row, its in zip(rows, together, strict=True):
        alone = model.scores(model.collate([row]), table)[0]
        torch.testing.assert_close(its[: len(alone)], alone, rtol=1e-4, atol=1e-4)
    for side in sides(backbone):
        padded = model.scores(collate([*rows, *p.rows["test"]], backbone.pad_id, side), table)
        for row, its, expected in zip(rows, padded, together, strict=False):
            n = len(row.encoded.answer_at)
            torch.testing.assert_close(its[:n], expected[:n], rtol=1e-4, atol=1e-4)
    trained = train_pack([p])[0]
    assert set(trained.tensors) == {"inputs", "head.weight", "head.bias"}
    again = from_bundle(make_bundle(trained), backbone)
    scores = model.score_rows(p.rows["test"], again.table, predictor.MAX_TOKENS)
    torch.testing.assert_close(again.score(p.task.splits["test"]), scores)
    assert again.evaluate(p.task.splits["test"]).metrics["entity_f1"] is not None


@pytest.mark.parametrize("kind", ["prompt_tuning", "deep"])
def test_tags_are_learned(kind: str, tmp_path: Path, backbone: Backbone) -> None:
    """A random model mixes its words, so some are lost to the head. Without learning nothing is found."""
    training = {"max_steps": 300, "learning_rate": 0.1, "batch_size": 16, "evaluations": 3}
    p = tagged_run(tmp_path, backbone, {"training": training, "prompt": {"kind": kind, "length": LENGTH}}, n=256)
    record = run_pack([p], tmp_path / "runs")[0]
    assert record["metric"] == "entity_f1"
    assert record["metrics"]["test"]["entity_f1"] >= 0.7
    assert record["baselines"] == {"majority": None, "no_prompt": None}
    assert "notes" not in record


def test_runs_of_a_pack_equal_each_alone(tmp_path: Path, backbone: Backbone) -> None:
    def run(seed: int, rate: float) -> Prepared:
        recipe = {"seed": seed, "training": {"learning_rates": {"head": rate}}}
        return tagged_run(tmp_path, backbone, recipe, n=16, train_rows=12)

    pack = [run(1, 0.1), run(2, 0.01)]
    first, second = ([row.example for row in p.rows["train"]] for p in pack)
    assert first != second
    for together, p in zip(train_pack(pack), pack, strict=True):
        alone = train_pack([p])[0]
        assert together.member.best_dev == pytest.approx(alone.member.best_dev, rel=1e-4)
        for name, value in together.tensors.items():
            torch.testing.assert_close(
                torch.from_numpy(value), torch.from_numpy(alone.tensors[name]), rtol=1e-4, atol=1e-5
            )


# Which token is read

PLACES = ["{prompt} {text}", "film {prompt:2} {text} was {prompt:3} good", "{text} {prompt}", "red {text}: {prompt}"]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("template", PLACES)
def test_labels_lie_on_the_first_token_of_each_word(
    template: str, side: Literal["left", "right"], backbone: Backbone
) -> None:
    r, encoder = rendering(backbone, template), backbone.encoder
    sentences = [
        example("the", "filmzing", "dogs", "of", "red", tags=["O", "B-x", "I-x", "O", "B-x"]),
        example("cats", tags=["I-x"]),
    ]
    rows = [r.row(e, encoder) for e in sentences]
    batch = collate(rows, backbone.pad_id, side)
    read = batch.ids.gather(1, batch.answer_at)
    assert encoder.tokens(read[0].tolist()) == ["the", "film", "dog", "of", "red"]
    assert encoder.tokens(read[1][:1].tolist()) == ["cat"]
    assert batch.labels.tolist() == [[0, 1, 2, 0, 1], [2, -1, -1, -1, -1]]
    assert batch.answers.tolist() == [5, 1]
    assert not {*batch.answer_at[0].tolist()} & {*batch.slots[0].tolist()}


def read_by(r: Rendering, backbone: Backbone, e: Example) -> list[str]:
    encoded = r.row(e, backbone.encoder).encoded
    return backbone.encoder.tokens([encoded.ids[i] for i in encoded.answer_at])


def test_the_last_token_of_a_word_is_read_where_a_model_reads_from_left_to_right(
    family_folder: Callable[[str], Path], backbone: Backbone
) -> None:
    causal = load_backbone(str(family_folder("gpt2")), dtype="float32")
    e = example("the", "dogs", "of")
    assert read_by(rendering(causal), causal, e) == ["e", "s", "Ġof"]  # without a space "the" is three tokens
    assert read_by(rendering(causal, subword="first"), causal, e) == ["t", "Ġdog", "Ġof"]
    assert read_by(rendering(backbone), backbone, e) == ["the", "dog", "of"]
    assert read_by(rendering(backbone, subword="last"), backbone, e) == ["the", "##s", "of"]


def test_odd_words_are_found_by_their_place(backbone: Backbone) -> None:
    """Words with spaces inside, words that the tokenizer drops, the same word twice, letters that belong together."""
    e = example("a", "red sun", "\u200b", "\u200b\u200b", "a", "a", " sea", "'", "s", tags=["O", "B-x", *["O"] * 7])
    row = rendering(backbone).row(e, backbone.encoder)
    tokens = backbone.encoder.tokens([row.encoded.ids[i] for i in row.encoded.answer_at])
    assert tokens == ["a", "red", "a", "a", "sea", "'", "s"]
    assert row.label == (0, 1, 0, 0, 0, 0, 0)
    (found,) = decided(backbone, e, [1] * 7)
    assert found == ("B-x", "B-x", "O", "O", "B-x", "B-x", "B-x", "B-x", "B-x")


def test_words_are_found_in_a_text_of_another_spacing(backbone: Backbone) -> None:
    e = example("the", "sun", ".", "sun", text="  the\n\nsun. sun ")
    assert read_by(rendering(backbone), backbone, e) == ["the", "sun", ".", "sun"]
    plain = Example("e", {"text": " the  dogs\tof "}, None)
    assert read_by(rendering(backbone), backbone, plain) == ["the", "dog", "of"]
    with refused(DataError, "the word 'moon' is not in the text", where="f:1", fix="Leave the text out"):
        rendering(backbone).row(example("sun", "moon", text="moon sun"), backbone.encoder)
    with refused(DataError, "has 2 words and 1 tags", where="f:1"):
        rendering(backbone).row(example("sun", "moon", tags=["O"]), backbone.encoder)


def test_a_tag_that_is_no_class_is_not_learned_from(backbone: Backbone) -> None:
    assert rendering(backbone).row(example("sun", "sea", tags=["B-y", "I-x"]), backbone.encoder).label == (-1, 2)
    assert rendering(backbone).row(example("sun", "sea"), backbone.encoder).label == -1


# What is left out


def decided(backbone: Backbone, e: Example, best: Sequence[int], most: int = 64) -> list[tuple[str, ...]]:
    """Tags from scores that prefer these classes, in the order of the reads."""
    r = rendering(backbone, most=most)
    row = r.row(e, backbone.encoder)
    readout = readouts.build(r.readout, backbone, [r.plan(backbone.encoder)])
    assert len(best) == len(row.encoded.answer_at)
    scores = torch.nn.functional.one_hot(torch.tensor(best, dtype=torch.long), len(TAGS)).float()[None]
    return [t.tags for t in readout.records([row], scores, TAGS)]


def test_words_that_are_cut_off_are_outside_and_counted(backbone: Backbone) -> None:
    words, tags = ("the", "dogs", "of", "red", "sun"), ("O", "B-x", "O", "B-x", "I-x")
    r = rendering(backbone, most=LENGTH + 2 + 4)  # the dog ##s of
    row = r.row(example(*words, tags=tags), backbone.encoder)
    assert (row.encoded.dropped, row.label) == (2, (0, 1, 0))
    readout = readouts.build(r.readout, backbone, [r.plan(backbone.encoder)])
    scores = torch.eye(3)[[0, 1, 0]][None]
    answers = readout.decide(scores, [row])
    assert answers == [(0, 1, 0, -1, -1)]
    found = readout.measure([row], answers, TAGS)
    assert (found["recall"], found["precision"], found["unread"]) == (0.5, 1.0, 2)
    assert found["token_accuracy"] == 0.6
    (record,) = readout.records([row], scores, TAGS)
    assert record == Tagged("e", words, ("O", "B-x", "O", "O", "O"), (Entity("x", "dogs", 1, 2),), tags)
    assert record.as_json()["entities"] == [{"type": "x", "text": "dogs", "start": 1, "end": 2}]


def test_a_word_cut_in_its_middle_is_still_read(backbone: Backbone) -> None:
    r = rendering(backbone, most=LENGTH + 2 + 2)
    assert read_by(r, backbone, example("the", "dogs", "of")) == ["the", "dog"]


def test_a_sentence_of_which_nothing_is_read(backbone: Backbone) -> None:
    """It is all outside, learns nothing, and disturbs no batch mate."""
    r = rendering(backbone)
    rows = [r.row(example(*w, tags=["B-x"] * len(w)), backbone.encoder) for w in (["\u200b"], ["sun", "sea"])]
    assert rows[0].label == ()
    readout = readouts.build(r.readout, backbone, [r.plan(backbone.encoder)])
    scores = torch.randn(2, 2, 3, requires_grad=True)
    loss = readout.loss(scores, labels_of(rows))
    loss.sum().backward()
    assert loss[0].item() == 0.0 < loss[1].item()
    assert readout.decide(scores.detach(), rows)[0] == (-1,)
    assert readout.loss(torch.randn(1, 0, 3), labels_of(rows[:1])).tolist() == [0.0]


def test_the_loss_is_the_mean_over_the_known_words(backbone: Backbone) -> None:
    r = rendering(backbone)
    readout = readouts.build(r.readout, backbone, [r.plan(backbone.encoder)])
    values = [[[1.0, 0.0, 2.0], [0.5, 0.5, -1.0], [3.0, 1.0, 0.0]], [[0.0, 1.0, 0.0], [9.0, 9.0, 9.0]]]
    scores = stacked([torch.tensor(v) for v in values]).requires_grad_()
    labels = torch.tensor([[2, -1, 0], [1, -1, -1]])
    expected = [
        sum(math.log(sum(map(math.exp, values[x][i]))) - values[x][i][t] for i, t in its) / len(its)
        for x, its in enumerate(([(0, 2), (2, 0)], [(0, 1)]))
    ]
    loss = readout.loss(scores, labels)
    assert loss.tolist() == pytest.approx(expected)
    loss.sum().backward()
    assert scores.grad is not None
    assert bool(scores.grad.isfinite().all())
    assert [(scores.grad[x, i] != 0).any().item() for x, i in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1))] == [
        True, False, True, True, False,
    ]  # fmt: skip


def test_one_tag_for_all_says_nothing_of_entities(backbone: Backbone) -> None:
    r = rendering(backbone)
    readout = readouts.build(r.readout, backbone, [r.plan(backbone.encoder)])
    rows = [r.row(example("sun", "sea", "of", "the", tags=["B-x", "O", "O", "O"]), backbone.encoder)]
    assert readout.constant(rows, "entity_f1") is None
    assert readout.constant(rows, "token_accuracy") == 0.75


# Predictors and presets


def test_predictors_take_texts_words_and_examples(tmp_path: Path, backbone: Backbone) -> None:
    again = from_bundle(make_bundle(train_pack([tagged_run(tmp_path, backbone)])[0]), backbone)
    words = ["the", "cat", "old"]
    given = ["the  cat old", {"tokens": words, "id": "x"}, {"text": "the cat old", "tokens": words}, example(*words)]
    found = [p for p in again.predict(given) if isinstance(p, Tagged)]
    assert [p.id for p in found] == ["1", "x", "3", "e"]
    assert {p.tokens for p in found} == {("the", "cat", "old")}
    assert len({p.tags for p in found}) == 1
    assert {p.gold for p in found} == {None}
    (whole,) = again.predict([{"tokens": ["the", "cat old"]}])
    assert isinstance(whole, Tagged)
    assert whole.tokens == ("the", "cat old")
    with refused(DataError, "the field 'text' is missing", where="input 1"):
        again.predict([{"tokens": []}])
    with refused(DataError, "the example has no tags", where="f:1", fix="needs no labels"):
        again.evaluate([example("sun")])
    unknown = again.evaluate([example("sun", tags=["B-never"])]).metrics
    assert (unknown["entity_f1"], unknown["token_accuracy"]) == (0.0, 0.0)


def test_a_predicate_is_given_by_its_place_or_as_text() -> None:
    bare = Example("e", {}, None, "f:1")
    for given in (1, "eats"):
        found = with_words(bare, {"tokens": ["Ann", "eats"], "predicate": given})
        assert (found.fields, found.words) == ({"text": "Ann eats", "predicate": "eats"}, ("Ann", "eats"))
    with refused(DataError, "the predicate is word 2", where="f:1"):
        with_words(bare, {"tokens": ["Ann", "eats"], "predicate": 2})
    for other in ([], "Ann eats", [1, 2], None):
        assert with_words(bare, {"tokens": other, "predicate": 2}) is bare


PRESETS = [k for k in tasks.kinds() if k != "tagged" and tasks.get(k) is tasks.get("tagged")]


@pytest.mark.parametrize("kind", PRESETS)
def test_presets_score_one_where_all_is_right(kind: str, backbone: Backbone) -> None:
    if not (SHARED / "data").is_dir():
        pytest.skip(f"{kind} reads the data folder {SHARED.name}/ beside the repository (or TRIMTAB_SHARED)")
    task = tasks.build(tasks.resolve(kind, "task")).load(0, Places(SHARED / "data"))
    readout = readouts.build({"kind": "tokens"}, backbone, [])
    for split, examples in task.splits.items():
        wide = Rendering(Template.parse(task.template, LENGTH), task.verbalizer, 4096, {"kind": "tokens"})
        rows = [wide.row(e, backbone.encoder) for e in examples[:300]]
        best = [torch.tensor(r.label, dtype=torch.long).clamp(min=0) for r in rows]
        scores = stacked([torch.nn.functional.one_hot(b, len(task.verbalizer.classes)).float() for b in best])
        found = readout.measure(rows, readout.decide(scores, rows), task.verbalizer.classes)
        assert found["token_accuracy"] > 0.999, split  # but for words without tokens
        assert found["rows"] == len(rows)
