"""Answers cut out of a context on every family: windows, the head that begins and ends them, decoding, "no answer"."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.contract.test_backbone_families import MODELS, family_folder, frozen, sides
from tests.contract.toy_runs import LENGTH, model_of, toy_run
from tests.unit.refusals import refused
from trimtab import predictor
from trimtab.api import show
from trimtab.backbones import Backbone, load_backbone
from trimtab.backbones.loading import load_encoder
from trimtab.batching import collate, labels_of
from trimtab.config import resolve
from trimtab.errors import BundleError, ConfigError, DataError, TemplateError
from trimtab.files import read_json
from trimtab.loading import from_bundle, load
from trimtab.model import PromptedModel, stacked
from trimtab.prompt_table import PromptTable
from trimtab.readouts import first_head
from trimtab.readouts.span import best_pairs
from trimtab.registry import readouts, tasks
from trimtab.rendering import Rendering
from trimtab.span_metrics import extraction
from trimtab.tasks import SPLITS
from trimtab.tasks.reading import Places
from trimtab.templates import Template
from trimtab.training.packs import train_pack
from trimtab.training.preparing import Prepared, prepare, render_task
from trimtab.training.records import make_bundle
from trimtab.training.runs import run_pack
from trimtab.types import Batch, Example, Row
from trimtab.verbalizers import Verbalizer

__all__ = ["family_folder"]
NEUTRAL = ("film", "book", "song", "cat", "dog", "tree", "old", "new", "sun", "moon")
TEMPLATE = "{prompt} {question} : {context}"


def flat(own: str, context: str, answers: Sequence[tuple[str, int]]) -> dict[str, Any]:
    its = {"text": [t for t, _ in answers], "answer_start": [s for _, s in answers]}
    return {"id": own, "question": "not the", "context": context, "answers": its}


def question_rows(
    n: int, seed: int, length: int = 8, unanswerable: float = 0.0, words_of: int = 1
) -> list[dict[str, Any]]:
    """Neutral words; the answer is what stands behind `good`. Contexts of unanswerable questions have no `good`."""
    g = torch.Generator().manual_seed(seed)
    rows = []
    for i in range(n):
        words = [NEUTRAL[int(torch.randint(10, (1,), generator=g))] for _ in range(length)]
        at = int(torch.randint(length - words_of, (1,), generator=g))
        if i < unanswerable * n:
            rows.append(flat(f"{seed}-{i}", " ".join(words), ()))
            continue
        words[at] = "good"
        start = len(" ".join(words[: at + 1])) + 1
        rows.append(flat(f"{seed}-{i}", " ".join(words), [(" ".join(words[at + 1 : at + 1 + words_of]), start)]))
    return rows


def span_sections(
    folder: Path, recipe: dict[str, Any] | None = None, n: int = 8, data: dict[str, Any] | None = None, **task: Any
) -> dict[str, Any]:
    files = {}
    for i, split in enumerate(("train", "dev", "test")):
        files[split] = str(folder / f"{split}.q.jsonl")
        rows = question_rows(n, i, **(data or {}))
        Path(files[split]).write_text("".join(json.dumps(r) + "\n" for r in rows))
    recipe = dict(recipe or {})
    training = {"learning_rate": 0.01, "max_steps": 4, "batch_size": 8, "evaluations": 2, **recipe.pop("training", {})}
    section = {"kind": "squad", "template": TEMPLATE, **files, **task}
    prompt = {"kind": "prompt_tuning", "length": LENGTH, **recipe.pop("prompt", {})}
    return {"task": section, "seed": 1, "prompt": prompt, "training": training, **recipe}


def span_run(folder: Path, backbone: Backbone, recipe: dict[str, Any] | None = None, **options: Any) -> Prepared:
    return prepare(resolve(span_sections(folder, recipe, **options)).config, backbone)


def table_of(backbone: Backbone, prompts: int = 2) -> PromptTable:
    g = torch.Generator().manual_seed(0)
    inputs = backbone.embedding_rms * torch.randn(prompts, LENGTH, backbone.embedding_size, generator=g)
    heads = [first_head("span", backbone.hidden_size, 0, g) for _ in range(prompts)]
    return PromptTable(inputs, heads={n: torch.stack([h[n] for h in heads]) for n in heads[0]})


STRIDE_4: dict[str, Any] = {"readout": {"kind": "span", "stride": 4}}


@pytest.mark.parametrize("name", MODELS)
def test_spans_are_read_on_every_family(name: str, family_folder: Callable[[str], Path], tmp_path: Path) -> None:
    backbone = load_backbone(str(family_folder(name)), dtype="float32")
    p = span_run(tmp_path, backbone, {**STRIDE_4, "training": {"max_steps": 2}}, n=4, data={"length": 70})
    assert p.config.readout["kind"] == "span"
    assert len(p.rows["train"]) > len(p.task.splits["train"])
    model, table = model_of(p), table_of(backbone).detached()
    rows = [replace(row, prompt=i % 2, key=i) for i, row in enumerate(p.rows["train"])]
    with frozen(backbone):
        together = model.scores(model.collate(rows), table)
        model.readout.loss(together, model.collate(rows).labels).sum().backward()
    for name_, value in table.tensors.items():
        assert value.grad is not None
        assert bool(value.grad.isfinite().all())
        assert bool((value.grad.flatten(1).abs().sum(1) > 0).all()), f"a row of {name_} gets no gradient"
    for row, its in zip(rows, together, strict=True):
        alone = model.scores(model.collate([row]), table)[0]
        length = len(row.encoded.answer_at)
        assert alone.shape == (length, 2)
        torch.testing.assert_close(its[:length], alone, rtol=1e-4, atol=1e-4)
        assert bool(its[length:].isneginf().all())
    for side in sides(backbone):
        padded = model.scores(collate(rows[:-1], backbone.pad_id, side), table)
        torch.testing.assert_close(padded, together[:-1, : padded.shape[1]], rtol=1e-4, atol=1e-4)
    trained = train_pack([p])[0]
    again = from_bundle(make_bundle(trained), backbone)
    assert set(trained.tensors) == {"inputs", "head.weight"}
    torch.testing.assert_close(
        again.score(p.task.splits["test"]), model.score_rows(p.rows["test"], again.table, predictor.MAX_TOKENS)
    )
    for example, found in zip(p.task.splits["test"], again.predict(p.task.splits["test"]), strict=True):
        assert found.as_json()["text"] == example.fields["context"][slice(found.start, found.end)]  # type: ignore[union-attr]
        assert found.as_json().keys() == {"id", "text", "start", "end", "score", "gold"}


@pytest.mark.parametrize("name", MODELS)
def test_windows_hold_every_token_and_answers_survive(
    name: str, family_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    backbone = load_backbone(str(family_folder(name)), dtype="float32")
    p = span_run(tmp_path, backbone, STRIDE_4, data={"length": 40, "words_of": 3}, max_length=40)
    tokens = {}
    for row in p.rows["train"]:
        assert row.example is not None
        assert len(row.encoded) <= 40
        assert len(row.encoded.slots) == LENGTH
        assert row.encoded.dropped == 0
        own = tokens.setdefault(row.example.id, {})
        own[row.part] = [(a, b) for _, a, b in row.encoded.spans]
        context, answer = row.example.fields["context"], row.example.answers[0]
        assert isinstance(row.label, tuple)
        first = int(bool(backbone.encoder.prefix) and not backbone.encoder.is_causal)
        start, end = row.label
        if end >= first:
            held = [row.encoded.spans[i - first] for i in (start, end)]
            assert context[held[0][1] : held[1][2]].strip() == answer[0]
            assert context[: held[0][1]].rstrip() == context[: answer[1]].rstrip()
        else:
            assert row.label == ((0, 0) if first else (-1, -1))
            assert not {answer[1], answer[1] + len(answer[0]) - 1} <= {
                c for _, a, b in row.encoded.spans for c in range(a, b)
            }
    rendering = replace(p.rendering, max_length=10**6)
    for example in p.task.splits["train"]:
        (whole,) = rendering.rows(example, backbone.encoder)
        all_tokens = [(a, b) for _, a, b in whole.encoded.spans]
        own = tokens[example.id]
        assert len(own) > 1
        assert own[0] == all_tokens[: len(own[0])]
        for i in range(1, len(own)):
            assert own[i - 1][-4:] == own[i][:4], "windows share `stride` tokens"
        assert [own[0][0], *(t for i in own for t in (own[i] if not i else own[i][4:]))][1:] == all_tokens
        assert isinstance(whole.label, tuple)
        assert whole.label[0] > 0 or whole.encoded.spans[0][1] == example.answers[0][1]


def test_windows_share_at_most_half(tmp_path: Path, backbone: Backbone) -> None:
    p = span_run(tmp_path, backbone, {"readout": {"kind": "span", "stride": 500}}, data={"length": 40}, max_length=30)
    sizes = [len(row.encoded.spans) for row in p.rows["train"] if row.part == 0]
    for before, after in zip(p.rows["train"], p.rows["train"][1:], strict=False):
        if after.part:
            shared = {s[1:] for s in before.encoded.spans} & {s[1:] for s in after.encoded.spans}
            assert len(shared) == sizes[0] // 2


def test_a_context_that_fits_is_one_window(tmp_path: Path, backbone: Backbone) -> None:
    p = span_run(tmp_path, backbone)
    assert [row.part for row in p.rows["train"]] == [0] * 8
    assert p.rendering.max_length == 64, "at most 384, and at most what the backbone has"
    exact = max(len(row.encoded) for row in p.rows["train"])
    assert len(span_run(tmp_path, backbone, max_length=exact).rows["train"]) == 8
    assert len(span_run(tmp_path, backbone, max_length=exact - 1).rows["train"]) > 8


def test_more_positions_than_384_are_not_used_unasked(tmp_path: Path) -> None:
    from tests.tiny import save_tiny_model, tiny_backbone

    large = tiny_backbone(save_tiny_model(tmp_path / "large", positions=500))
    assert span_run(tmp_path, large).rendering.max_length == 384
    assert span_run(tmp_path, large, max_length=450).rendering.max_length == 450


@pytest.mark.parametrize("kind", ["prompt_tuning", "residual"])
def test_spans_learn_the_toy(kind: str, tmp_path: Path, backbone: Backbone) -> None:
    training = {"max_steps": 300, "epochs": 300, "learning_rate": 0.02, "batch_size": 16, "evaluations": 6}
    p = span_run(tmp_path, backbone, {"training": training, "prompt": {"kind": kind}}, n=128, data={"length": 4})
    record = run_pack([p], tmp_path / "runs")[0]
    assert record["metrics"]["test"]["f1"] >= 0.75, "by chance a third at most"
    assert (record["metric"], record["baselines"]) == ("f1", {"majority": None, "no_prompt": None})
    assert record["rows"] == {"train": 128, "dev": 128, "test": 128}
    bundle = read_json(Path(record["run"]) / "bundle.json")
    assert bundle["readout"]["threshold"] is None
    found = load(record["run"], backbone=backbone)
    metrics = found.evaluate(p.task.splits["test"]).metrics
    assert metrics == record["metrics"]["test"]
    assert set(metrics) == {"exact_match", "f1", "rows"}


# Decoding ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("longest", [1, 2, 5, 30])
def test_decoding_equals_brute_force(seed: int, longest: int) -> None:
    scores = torch.randn(1 + 3 * seed, 2, generator=torch.Generator().manual_seed(seed))
    every = sorted(
        ((float(scores[i, 0] + scores[j, 1]), (i, j)) for i in range(len(scores)) for j in range(len(scores))
         if i <= j < i + longest), reverse=True,
    )  # fmt: skip
    values, pairs = best_pairs(scores, longest, 7)
    assert pairs == [pair for _, pair in every[:7]]
    assert values == pytest.approx([value for value, _ in every[:7]])


def asked(backbone: Backbone, examples: Sequence[Example], limit: int, **options: Any) -> tuple[Any, list[Row]]:
    """A readout and the rows of examples."""
    spec = readouts.resolve({"kind": "span", "stride": 2, **options}, "readout")
    template = Template.parse(TEMPLATE, LENGTH)
    rendering = Rendering(template, Verbalizer.free(), limit, spec)
    rows = [row for e in examples for row in rendering.rows(e, backbone.encoder)]
    return readouts.build(spec, backbone, [rendering.plan(backbone.encoder)]), rows


CONTEXTS = ("the cat , the dog and the sun", "a Red  Moon.", "one two three four five six seven eight nine ten")


def examples_of(contexts: Sequence[str] = CONTEXTS) -> list[Example]:
    fields = [{"question": "not the", "context": c} for c in contexts]
    return [Example(str(i), f, "", answers=()) for i, f in enumerate(fields)]


@pytest.mark.parametrize("threshold", [None, -6.0, 6.0])
def test_the_best_answer_over_all_windows_is_given(threshold: float | None, backbone: Backbone) -> None:
    readout, rows = asked(backbone, examples_of(), 15, max_answer_tokens=3, threshold=threshold, n_best=1000)
    assert [row.part for row in rows] == [0, 1, 0, 0, 1, 2]
    g = torch.Generator().manual_seed(3)
    scores = stacked([torch.randn(len(row.encoded.answer_at), 2, generator=g) for row in rows])
    records = readout.records(rows, scores, ())
    assert [r.id for r in records] == ["0", "1", "2"]
    refused_some = False
    for record, example in zip(records, examples_of(), strict=True):
        candidates, nulls = {}, []
        for row, its in zip(rows, scores, strict=True):
            assert row.example is not None
            if row.example.id != example.id:
                continue
            nulls.append(float(its[0].sum()))
            for i, (_, a, _) in enumerate(row.encoded.spans):
                for j, (_, _, b) in enumerate(row.encoded.spans):
                    if i <= j < i + 3:
                        candidates[float(its[i + 1, 0] + its[j + 1, 1])] = (a, b)
        best = max(candidates)
        if threshold is not None and min(nulls) - best > threshold:
            assert (record.text, record.start, record.end) == ("", None, None)
            refused_some = True
            value = min(nulls)
        else:
            assert (record.start, record.end) == candidates[best]
            assert record.text == example.fields["context"][slice(*candidates[best])]
            value = best
        rivals = torch.tensor([*candidates, *([min(nulls)] if threshold is not None else [])], dtype=torch.float64)
        assert record.score == pytest.approx(float((torch.tensor(value) - rivals.logsumexp(0)).exp()), rel=1e-4)
    assert refused_some == (threshold == -6.0) or threshold is None


def test_the_same_question_twice_gets_two_answers(backbone: Backbone) -> None:
    one = examples_of()[0]
    readout, rows = asked(backbone, [one, one], 15)
    scores = stacked([torch.zeros(len(row.encoded.answer_at), 2) for row in rows])
    assert len(readout.decide(scores, rows)) == 2


def test_the_loss_is_the_mean_of_both_ends(backbone: Backbone) -> None:
    readout, rows = asked(backbone, examples_of(), 64)
    scores = torch.randn(2, 4, 2)
    scores[1, 3] = -torch.inf
    losses = readout.loss(scores, torch.tensor([[1, 3], [-1, -1]]))
    expected = -(scores[0, :, 0].log_softmax(0)[1] + scores[0, :, 1].log_softmax(0)[3]) / 2
    torch.testing.assert_close(losses, torch.stack([expected, torch.tensor(0.0)]))
    padded = readout.loss(scores, labels_of([replace(rows[0], label=(1, 3)), replace(rows[1], label=(0, 2))], 4))
    torch.testing.assert_close(padded[0], expected)
    assert bool(padded.isfinite().all())


def test_rows_without_a_head_score_nothing(tmp_path: Path, backbone: Backbone) -> None:
    p = span_run(tmp_path, backbone)
    model = PromptedModel(backbone, model_of(p).readout)
    rows = [replace(p.rows["train"][0], prompt=i) for i in (-1, 1)]
    batch: Batch = model.collate(rows)
    scores = model.scores(batch, table_of(backbone))
    assert scores.isnan().all(-1).all(-1).tolist() == [True, False]


# No answer -----------------------------------------------------------------------------------------------------------


def test_the_threshold_is_chosen_on_dev_and_kept(tmp_path: Path, backbone: Backbone) -> None:
    training = {"max_steps": 60, "learning_rate": 0.05, "batch_size": 16}
    p = span_run(tmp_path, backbone, {"training": training}, n=24, data={"length": 5, "unanswerable": 0.5})
    assert p.rows["train"][0].label == (0, 0), "no answer is at the first token"
    record = run_pack([p], tmp_path / "runs")[0]
    chosen = read_json(Path(record["run"]) / "bundle.json")["readout"]["threshold"]
    assert isinstance(chosen, float)
    found = load(record["run"], backbone=backbone)
    assert {"has_answer", "no_answer"} <= set(record["metrics"]["test"])
    for split in ("dev", "test"):
        assert found.evaluate(p.task.splits[split]).metrics["f1"] == record["metrics"][split]["f1"]
    assert record["metrics"]["dev"]["f1"] == max(h["dev"]["f1"] for h in history(record))
    assert record["metrics"]["dev"]["f1"] >= 0.5 == record["baselines"]["majority"]
    rows, readout = p.rows["dev"], model_of(p).readout
    scores = found.score(p.task.splits["dev"])
    gold = [[t for t, _ in e.answers] for e in p.task.splits["dev"]]
    tried = [-1e9, *(f.odds for f in readout.decide(scores, rows)), 1e9]

    def f1(threshold: float) -> float:
        answers = readout.decide(scores, rows, threshold=threshold)  # type: ignore[call-arg]
        return float(extraction(gold, [a.text for a in answers])["f1"])

    assert f1(chosen) == pytest.approx(max(map(f1, tried)))
    given = span_run(tmp_path, backbone, {"readout": {"kind": "span", "threshold": -1e6}}, data={"unanswerable": 0.5})
    bundle = make_bundle(train_pack([given])[0])
    assert bundle.metadata["readout"]["threshold"] == -1e6
    assert {r.text for r in from_bundle(bundle, backbone).predict(given.task.splits["test"])} == {""}  # type: ignore[union-attr]


def history(record: dict[str, Any]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(record["run"]) / "metrics.jsonl").read_text().splitlines()]


def test_no_answer_needs_a_token_that_sees_the_text(tmp_path: Path, family_folder: Callable[[str], Path]) -> None:
    for name in ("gpt2", "llama", "t5"):
        backbone = load_backbone(str(family_folder(name)), dtype="float32")
        where = f"{tmp_path}/train.q.jsonl:1"
        with refused(TemplateError, "the question has no answer, and this backbone", where=where, fix="=drop"):
            span_run(tmp_path, backbone, data={"unanswerable": 0.5})
        p = span_run(tmp_path, backbone, data={"unanswerable": 0.5}, unanswerable="drop")
        assert len(p.task.splits["train"]) == 4


@pytest.mark.parametrize(("name", "between"), [("bert", "[SEP]"), ("gpt2", "Ċ"), ("t5", "</s>"), ("roberta", "</s>")])
def test_the_default_template_suits_tokenizers_without_a_separator(
    name: str, between: str, tmp_path: Path, family_folder: Callable[[str], Path]
) -> None:
    backbone = load_backbone(str(family_folder(name)), dtype="float32")
    task = span_sections(tmp_path)["task"]
    section = {key: value for key, value in task.items() if key != "template"}
    p = prepare(resolve(span_sections(tmp_path) | {"task": section}).config, backbone)
    encoded = p.rows["train"][0].encoded
    tokens = backbone.encoder.tokens(encoded.ids)
    assert tokens[encoded.spans[0][0] - 1] == between
    assert tokens[: encoded.spans[0][0]].count(between) == 1
    assert p.config.task["template"] == "{prompt} {question} {sep} {context}", "it is part of the run's id"
    trained = train_pack([p])[0]
    again = from_bundle(make_bundle(trained), backbone)
    for example, found in zip(p.task.splits["test"], again.predict(p.task.splits["test"]), strict=True):
        assert found.as_json()["text"] == example.fields["context"][slice(found.start, found.end)]  # type: ignore[union-attr]


# Bad input -----------------------------------------------------------------------------------------------------------


def test_a_question_that_leaves_no_room_is_refused(tmp_path: Path, backbone: Backbone) -> None:
    where = f"{tmp_path}/train.q.jsonl:1"
    what = "take 10 positions of 10 and leave none for the field 'context'"
    with refused(TemplateError, what, where=where, fix="raise task.max_length"):
        span_run(tmp_path, backbone, max_length=10)
    p = span_run(tmp_path, backbone, max_length=11)
    assert all(len(row.encoded.spans) == 1 for row in p.rows["train"])


def test_an_empty_context_is_refused(tmp_path: Path, backbone: Backbone) -> None:
    found = from_bundle(make_bundle(train_pack([span_run(tmp_path, backbone)])[0]), backbone)
    with refused(TemplateError, "the field 'context' is empty", where="1"):
        found.predict([{"question": "not", "context": " "}])
    with refused(DataError, "the question has no answer", where="input 1", fix="Give its label"):
        found.evaluate([Example("1", {"question": "not", "context": "the"}, None)])


def test_an_answer_that_is_not_in_the_context_is_refused(tmp_path: Path, backbone: Backbone) -> None:
    path = tmp_path / "wrong.jsonl"
    path.write_text(json.dumps(flat("1", "the cat sat", [("dog", 4)])))
    with refused(DataError, "it stands nowhere in it", where=f"{path}:1", fix="literal part"):
        span_run(tmp_path, backbone, train=str(path))


def test_other_readouts_and_tasks_are_refused(tmp_path: Path, backbone: Backbone) -> None:
    with refused(ConfigError, "the task 'squad' has (span)", where="readout.kind", fix="span"):
        span_run(tmp_path, backbone, {"readout": {"kind": "head"}})
    with refused(ConfigError, "the task 'toy' has (class)", where="readout.kind", fix="head"):
        toy_run(tmp_path, backbone, {"readout": {"kind": "span"}})
    with refused(TemplateError, "reads the field {context}", where="task.template", fix="Write {context}"):
        span_run(tmp_path, backbone, template="{prompt} {question}")


def test_a_threshold_must_be_a_number(tmp_path: Path, backbone: Backbone) -> None:
    bundle = make_bundle(train_pack([span_run(tmp_path, backbone)])[0])
    metadata = {**bundle.metadata, "readout": {**bundle.metadata["readout"], "threshold": "high"}}
    with pytest.raises((BundleError, ConfigError), match="valid number"):
        from_bundle(replace(bundle, metadata=metadata), backbone)


# Pack, show ----------------------------------------------------------------------------------------------------------


def test_spans_of_a_pack_equal_each_alone(tmp_path: Path, backbone: Backbone) -> None:
    noise = [{"kind": "gaussian", "sigma_relative": 0.5}]
    pack = [
        span_run(tmp_path, backbone, {"seed": seed, "regularizers": noise, "training": {"clip": 0.1}}, n=16)
        for seed in (1, 2)
    ]
    for together, p in zip(train_pack(pack), pack, strict=True):
        alone = train_pack([p])[0]
        for name, value in together.tensors.items():
            torch.testing.assert_close(
                torch.from_numpy(value), torch.from_numpy(alone.tensors[name]), rtol=1e-4, atol=1e-5
            )


def test_every_window_is_shown(tmp_path: Path, tiny_folder: Path) -> None:
    sections = span_sections(tmp_path, data={"length": 60})
    shown = show({**sections, "backbone": {"model": str(tiny_folder)}}, n=1)
    assert [s.part for s in shown.examples] == ["window 1 of 2", "window 2 of 2"]
    assert shown.parameters == {"trained": LENGTH * 32 + 64, "kept": LENGTH * 32 + 64}


def test_preset_xquad(shared: Path) -> None:
    encoder = load_encoder("nano-masked").encoder
    task = tasks.build(tasks.resolve("xquad_en", "task")).load(0, Places(shared / "data"))
    assert sum(len(task.splits[s]) for s in SPLITS) == 1190
    contexts = {s: {e.fields["context"] for e in task.splits[s]} for s in SPLITS}
    assert sum(map(len, contexts.values())) == len(set.union(*contexts.values())) == 240
    rendering = render_task(task, LENGTH, encoder, 256, "span")
    for example in task.splits["test"]:
        rows = rendering.rows(example, encoder)
        held = [row.label for row in rows if row.label != (0, 0)]
        assert held, f"{example.id}: the answer is in no window"
        assert example.label == example.answers[0][0]
