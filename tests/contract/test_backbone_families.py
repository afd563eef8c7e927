"""What every backbone family promises, checked over the registry; broken families show that each check can fail."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.contract.tiny_families import BUILDERS, POSITIONS, VARIANTS
from tests.contract.toy_runs import ENCODERS, LENGTH, firsts, name_of, reader, rows_of, searches, toy_rendering, toy_run
from trimtab import loading, predictor, prompt_table
from trimtab.backbones import Backbone, Family, load_backbone
from trimtab.batching import collate
from trimtab.model import PromptedModel
from trimtab.prompt_table import PromptTable
from trimtab.readouts.classes import Classes
from trimtab.readouts.label_words import LabelWords
from trimtab.registry import families
from trimtab.storage import write_bundle
from trimtab.training import judging
from trimtab.training.packs import Trained, train_pack
from trimtab.training.records import make_bundle
from trimtab.types import Batch, Encoded, Row
from trimtab.verbalizers import Verbalizer

MODELS = [*families.kinds(), *VARIANTS]
ALIKE = (
    "xlm-roberta", "camembert", "electra:wide", "deberta-v2:own_head",
    "gpt_neox", "mistral", "qwen2", "qwen3", "gemma", "gemma3_text", "mt5", "mbart", "t5:own_head",
)  # fmt: skip
"""Models that share their encoder's code with another one; the dearest checks leave them out."""
DIFFERENT = [name for name in MODELS if name not in ALIKE]
METHODS = firsts(ENCODERS)
PLAIN = [{"kind": "prompt_tuning"}]
RATES = {"prompt_tuning": 0.1, "p_tuning_lstm": 0.03, "p_tuning_mlp": 0.03, "smop": 0.1}
"""Others learn the toy at 0.05."""


def attentions(name: str) -> tuple[str, ...]:
    """The attention implementations of a model, named `family` or `family:variant`."""
    return ("eager", "sdpa") if families.get(name.partition(":")[0]).fused_attention else ("eager",)


CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def sides(backbone: Backbone) -> tuple[Literal["left", "right"], ...]:
    """The padding sides that the family claims to be free of."""
    return backbone.family.padding_sides


@pytest.fixture(scope="session")
def family_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A tiny model of a family on disk."""
    made: dict[str, Path] = {}
    builders = BUILDERS | VARIANTS

    def folder(name: str) -> Path:
        if name not in builders:
            pytest.fail(f"the family {name!r} is registered, but BUILDERS in tiny_families.py has no tiny model for it")
        if name not in made:
            made[name] = builders[name](tmp_path_factory.mktemp("families") / name)
        return made[name]

    return folder


@pytest.fixture(params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[(n, a) for n in MODELS for a in attentions(n)], ids="-".join)
def loaded(family_folder: Callable[[str], Path], request: pytest.FixtureRequest) -> Backbone:
    """A tiny model of each family under each attention implementation that it has, float32."""
    name, attention = request.param
    return load_backbone(str(family_folder(name)), dtype="float32", device="cpu", attention=attention)


@pytest.fixture
def fresh(name: str, family_folder: Callable[[str], Path]) -> Backbone:
    """A tiny model of each family that a test may damage."""
    return load_backbone(str(family_folder(name)), dtype="float32", device="cpu")


class HiddenReadout(Classes):
    """Returns the hidden state at the answer slot, so that whole vectors can be compared."""

    def scores(self, hidden: Tensor, batch: Batch, heads: Mapping[str, Tensor] = {}) -> Tensor:
        return hidden[:, 0].float()

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        return scores.square().sum(1)


def table_of(backbone: Backbone, prompts: int = 2) -> PromptTable:
    """Random prompts of the embeddings' size."""
    generator = torch.Generator().manual_seed(5)
    values = torch.randn(prompts, LENGTH, backbone.embedding_size, generator=generator)
    return PromptTable(values * backbone.embedding_rms)


def mixed_rows(backbone: Backbone) -> list[Row]:
    """Rows of different lengths for prompts 0, 1, and none, the latter rendered without slots."""
    rendering = toy_rendering(backbone)
    rows = [replace(row, prompt=i % 2) for i, row in enumerate(rows_of(backbone, rendering, 6))]
    return rows + bare_rows(backbone, 3)


def bare_rows(backbone: Backbone, n: int) -> list[Row]:
    rendering = toy_rendering(backbone)
    rendering = replace(rendering, template=rendering.template.without_prompt())
    return rows_of(backbone, rendering, n, seed=1, prompt=-1)


def on_side(backbone: Backbone, rows: list[Row], side: Literal["left", "right"]) -> Batch:
    return collate(rows, backbone.pad_id, side)


def read(backbone: Backbone, rows: list[Row], table: PromptTable | None, side: Literal["left", "right"]) -> Tensor:
    """Hidden states at the answer slots."""
    with torch.no_grad():
        return PromptedModel(backbone, HiddenReadout()).scores(on_side(backbone, rows, side), table)


# The promises --------------------------------------------------------------------------------------------------------


def check_routes_agree(backbone: Backbone) -> None:
    """Word embeddings fed as `inputs_embeds` give what the ids give, whatever the padding side."""
    for side in sides(backbone):
        batch = on_side(backbone, mixed_rows(backbone), side)
        with torch.no_grad():
            embeds = backbone.family.embed(backbone.model, batch.ids)
            one = backbone.family.hidden(backbone.model, batch, embeds)
            two = backbone.family.hidden(backbone.model, batch, None)
        assert not batch.attention_mask.all(), "the rows must need padding"
        real = batch.attention_mask.bool() if batch.decoder_ids is None else torch.ones_like(batch.decoder_ids).bool()
        torch.testing.assert_close(one[real], two[real], **CLOSE)


def check_padding_and_mates(backbone: Backbone) -> None:
    """Neither extra padding nor batch mates nor their prompts change a row, whatever the padding side."""
    rows, table = mixed_rows(backbone), table_of(backbone)
    longest = max(rows, key=lambda r: len(r.encoded))
    filler = longest.encoded
    long_row = replace(longest, encoded=replace(filler, ids=(*filler.ids[:-1], *filler.ids[1:4], filler.ids[-1])))
    n = len(table)
    twice = table.rows(torch.arange(2 * n) % n)
    other_table = twice.with_tensors({name: torch.cat([v[:n], -3 * v[n:]]) for name, v in twice.tensors.items()})
    for side in sides(backbone):
        alone = torch.cat([read(backbone, [row], table, side) for row in rows])
        together = read(backbone, rows, table, side)
        torch.testing.assert_close(together, alone, **CLOSE)
        padded = read(backbone, [*rows, replace(long_row, prompt=3)], other_table, side)[: len(rows)]
        torch.testing.assert_close(padded, alone, **CLOSE)
        torch.testing.assert_close(read(backbone, rows[::-1], table, side).flip(0), alone, **CLOSE)


def check_sides_agree(backbone: Backbone) -> None:
    """A row has the same hidden states whether the pads stand before or behind it."""
    rows, table = mixed_rows(backbone), table_of(backbone)
    first, *others = (read(backbone, rows, table, side) for side in sides(backbone))
    for other in others:
        torch.testing.assert_close(other, first, **CLOSE)


def check_bare_rows(backbone: Backbone) -> None:
    """Rows with prompt_of -1 are the transformers model: bit for bit among their like, to 1e-5 among prompted rows."""
    rows, table, side = bare_rows(backbone, 5), table_of(backbone), backbone.family.padding_side
    batch = on_side(backbone, rows, side)
    positions = {"position_ids": batch.position_ids} if side == "left" else {}
    inputs = {"input_ids": batch.ids, "attention_mask": batch.attention_mask, **positions}
    expected = last_states(backbone, batch.decoder_ids, **inputs)[torch.arange(len(rows)), batch.answer_at[:, 0]]
    assert torch.equal(read(backbone, rows, table, side), expected), "bare rows are not the bare model bit for bit"
    assert torch.equal(read(backbone, rows, None, side), expected)
    mixed = [*mixed_rows(backbone)[:4], *rows]
    torch.testing.assert_close(read(backbone, mixed, table, side)[4:], expected, **CLOSE)
    with_slots = [replace(row, prompt=-1) for row in mixed_rows(backbone)[:2]]
    found = [*expected, *read(backbone, [*mixed, *with_slots], table, side)[-2:]]
    for row, hidden in zip([*rows, *with_slots], found, strict=True):
        decoder = torch.tensor([row.encoded.decoder]) if row.encoded.decoder else None
        alone = last_states(backbone, decoder, input_ids=torch.tensor([row.encoded.ids]))
        torch.testing.assert_close(hidden, alone[0, row.encoded.answer_at[0]], **CLOSE)


@torch.no_grad()
def last_states(backbone: Backbone, decoder: Tensor | None, **inputs: Tensor) -> Tensor:
    """What the transformers model computes last before its head. A cache would lay its tensors out otherwise, which
    changes the last bits."""
    options = {"output_hidden_states": True}
    if backbone.family.readouts[0] == "ranking":
        options["use_cache"] = False
    if decoder is None:
        return backbone.model(**inputs, **options).hidden_states[-1]
    return backbone.model(**inputs, **options, decoder_input_ids=decoder).decoder_hidden_states[-1]


def check_scores(backbone: Backbone) -> None:
    """Scores are the mean label-word logits of the whole model, which sees each row alone: no pads, no mask, and
    positions as it counts them itself."""
    rendering, rows, table = toy_rendering(backbone), mixed_rows(backbone), table_of(backbone)
    label_ids = rendering.label_ids(backbone.encoder)
    logits = [own_logits(backbone, row.encoded, row.prompt, table)[row.encoded.answer_at[0]] for row in rows]
    expected = torch.stack(
        [torch.stack([own[list(ids)].mean() for ids in map(first_tokens, label_ids)]) for own in logits]
    )
    for side in sides(backbone):
        with torch.no_grad():
            found = PromptedModel(backbone, reader(backbone, rendering)).scores(on_side(backbone, rows, side), table)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def first_tokens(words: list[tuple[int, ...]]) -> list[int]:
    """The tokens of words of one token each."""
    return [i for (i,) in words]


@torch.no_grad()
def own_logits(backbone: Backbone, encoded: Encoded, prompt: int, table: PromptTable) -> Tensor:
    """Logits of one sequence, from a call of the model that trimtab has no part in."""
    words = backbone.model.get_input_embeddings()
    vectors, decoder_vectors = (words(torch.tensor([ids], dtype=torch.long)) for ids in (encoded.ids, encoded.decoder))
    for into, slots in ((vectors, encoded.slots), (decoder_vectors, encoded.decoder_slots)):
        for p, slot in enumerate(slots if prompt >= 0 else ()):
            if slot >= 0:
                into[0, slot] = table.inputs[prompt, p]
    decoder: dict[str, Any] = {"decoder_input_ids": torch.tensor([encoded.decoder])} if encoded.decoder else {}
    if encoded.decoder_slots:
        decoder = {"decoder_inputs_embeds": decoder_vectors}
    return backbone.model(inputs_embeds=vectors, **decoder).logits[0]


LONG_WORDS = {"positive": ["very good", "yes"], "negative": ["very very bad", "very bad", "no"]}
"""Words of one, two and three tokens; in a causal model two share the beginning "very"."""


def check_long_words(backbone: Backbone) -> None:
    """A word of several tokens scores the sum of their log-probabilities, each read from its own sequence alone;
    padding and batch mates change nothing."""
    rendering = replace(toy_rendering(backbone), verbalizer=Verbalizer.of(LONG_WORDS))
    rows, table = [replace(r, prompt=i % 2) for i, r in enumerate(rows_of(backbone, rendering, 4))], table_of(backbone)
    plan = rendering.plan(backbone.encoder)
    assert sorted({len(w.ids) for its in plan.words for w in its}) == [1, 2, 3]
    expected = []
    for row in rows:
        chances = [own_logits(backbone, e, row.prompt, table).log_softmax(-1) for e in row.variants]
        places = [e.answer_at for e in row.variants]
        words = [[chances[w.fill][list(places[w.fill]), list(w.ids)].sum() for w in its] for its in plan.words]
        expected.append(torch.stack([torch.stack(its).mean() for its in words]))
    model = PromptedModel(backbone, reader(backbone, rendering))
    for side in sides(backbone):
        for mates in (rows, rows[2:3]):
            with torch.no_grad():
                found = model.scores(on_side(backbone, mates, side), table)
            wanted = torch.stack([expected[rows.index(row)] for row in mates])
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def check_longest(backbone: Backbone) -> None:
    """A row may be as long as the family says, which is all the room that the model has."""
    assert backbone.max_positions == POSITIONS
    row = mixed_rows(backbone)[0]
    encoded, room = row.encoded, backbone.max_positions - len(row.encoded)
    at, shift = encoded.eligible[0], 0 if encoded.decoder else room
    ids = (*encoded.ids[:at], *[encoded.ids[at]] * room, *encoded.ids[at:])
    longest = replace(row, encoded=replace(encoded, ids=ids, answer_at=tuple(a + shift for a in encoded.answer_at)))
    assert len(longest.encoded) == POSITIONS
    found = read(backbone, [longest, row], table_of(backbone), sides(backbone)[0])
    assert bool(found.isfinite().all())
    assert not torch.allclose(found[0], found[1]), "the longer row must differ"


def check_gradient(backbone: Backbone) -> None:
    """Every slot row of every prompt gets a gradient, finite and float32; the backbone gets none."""
    leaf = table_of(backbone, 3).detached()  # no row uses prompt 2
    model = PromptedModel(backbone, HiddenReadout())
    scores = model.scores(on_side(backbone, mixed_rows(backbone), backbone.family.padding_side), leaf)
    assert scores.requires_grad, "no gradient reaches the prompt"
    scores.square().sum().backward()
    grad = leaf.inputs.grad
    assert grad is not None, "no gradient reaches the prompt"
    assert grad.dtype == torch.float32
    assert bool(grad.isfinite().all())
    reached = grad.abs().sum(-1) > 0
    assert bool(reached[:2].all()), f"slot rows without a gradient: {(~reached[:2]).nonzero().tolist()}"
    assert not bool(reached[2].any()), "a prompt that no row uses got a gradient"
    assert all(p.grad is None for p in backbone.model.parameters()), "the backbone got a gradient"


@contextmanager
def frozen(backbone: Backbone) -> Iterator[None]:
    """Every parameter and buffer is the same, bit for bit, at the end as at the beginning."""

    def snapshot() -> dict[str, Tensor]:
        model = backbone.model
        return {n: t.detach().clone() for n, t in (*model.named_parameters(), *model.named_buffers())}

    before = snapshot()
    assert before
    yield
    after = snapshot()
    assert after.keys() == before.keys()
    for name, value in before.items():
        assert torch.equal(after[name], value), f"{name} moved"
    assert not any(p.requires_grad or p.grad is not None for p in backbone.model.parameters())
    assert not any(m.training for m in backbone.model.modules())


def check_frozen(backbone: Backbone, folder: Path, recipe: dict[str, Any]) -> Trained:
    """Training does not touch the backbone."""
    training = {"max_steps": 3, "evaluations": 1, "learning_rate": 0.1, "batch_size": 4}
    prepared = toy_run(folder, backbone, {**recipe, "training": training}, n=8)
    with frozen(backbone):
        trained = train_pack([prepared])[0]
    assert trained.member.step == 3
    assert trained.member.status == "done"
    return trained


def prompt_of(trained: Trained) -> PromptTable:
    """The prompt in memory, as a table of one."""
    return prompt_table.table_of({name: torch.from_numpy(value)[None] for name, value in trained.tensors.items()})


def check_reload(trained: Trained, folder: Path) -> None:
    """A bundle read from disk, on a backbone read from disk, gives the scores of the prompt in memory, bit for bit."""
    prepared = trained.prepared
    backbone, examples = trained.backbone, prepared.task.splits["test"]
    assert make_bundle(trained).slots == LENGTH
    readout = reader(backbone, prepared.rendering)
    expected = PromptedModel(backbone, readout).score_rows(
        prepared.rows["test"], prompt_of(trained), predictor.MAX_TOKENS
    )
    write_bundle(folder, make_bundle(trained))
    assert torch.equal(loading.load(folder, device="cpu").score(examples), expected)


def check_tuned(backbone: Backbone, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """Training the backbone moves every weight of the run's own copy, and none of the shared backbone."""
    later_is_better = iter([0.1, 0.2])
    monkeypatch.setattr(
        judging, "dev_metrics", lambda *args: {"accuracy": next(later_is_better), "macro_f1": 0.0, "loss": 1.0}
    )
    training = {"max_steps": 3, "evaluations": 1, "batch_size": 4, "learning_rates": {"backbone": 1e-3}}
    prepared = toy_run(folder, backbone, {"training": training, "regularizers": ["gaussian"]}, n=8)
    with frozen(backbone):
        trained = train_pack([prepared])[0]
    assert trained.member.best_step == 3
    own, shared = (dict(b.model.named_parameters()) for b in (trained.backbone, backbone))
    still = [n for n, p in shared.items() if torch.equal(own[n], p)]
    assert own.keys() == shared.keys()
    assert not still, f"not trained: {still}"
    assert trained.parameters == trained.prompt.size + sum(p.numel() for p in shared.values())
    return trained


def check_pack(backbone: Backbone, folder: Path) -> None:
    """Two runs packed together have the losses and prompts of each alone."""

    def go(*seeds: int) -> list[Trained]:
        training = {"max_steps": 6, "evaluations": 3, "learning_rate": 0.05, "batch_size": 4}
        return train_pack([toy_run(folder, backbone, {"seed": s, "training": training}, n=8) for s in seeds])

    together = go(1, 2)
    assert not np.allclose(together[0].prompt, together[1].prompt), "the members must differ"
    for packed, alone in zip(together, (*go(1), *go(2)), strict=True):
        np.testing.assert_allclose(packed.prompt, alone.prompt, rtol=1e-4, atol=1e-5)
        losses = [[h["train_loss"] for h in t.member.history[1:]] for t in (packed, alone)]
        np.testing.assert_allclose(*losses, rtol=1e-5)


def check_learns(backbone: Backbone, folder: Path, spec: Mapping[str, Any]) -> None:
    """A prompt learns the two-class toy on it: 0.8 on 64 rows is five standard deviations from chance."""
    training = {"max_steps": 80, "evaluations": 4, "learning_rate": RATES.get(spec["kind"], 0.05), "batch_size": 16}
    prepared = toy_run(folder, backbone, {"prompt": spec, "training": training}, n=64)
    trained = train_pack([prepared])[0]
    model = PromptedModel(backbone, reader(backbone, prepared.rendering))
    scores = model.score_rows(prepared.rows["test"], prompt_of(trained), predictor.MAX_TOKENS)
    gold = torch.tensor([row.label for row in prepared.rows["test"]])
    accuracy = float((scores.argmax(1) == gold).float().mean())
    assert accuracy >= 0.8, f"the toy was not learned: {accuracy}"


# The promises, kept by every family of the registry ------------------------------------------------------------------


def test_embeddings_route_equals_ids_route(loaded: Backbone) -> None:
    check_routes_agree(loaded)


def test_extra_padding_and_batch_mates_change_nothing(loaded: Backbone) -> None:
    check_padding_and_mates(loaded)


def test_padding_sides_agree(loaded: Backbone) -> None:
    check_sides_agree(loaded)


def test_a_bare_row_is_the_bare_model(loaded: Backbone) -> None:
    check_bare_rows(loaded)


def test_scores_are_the_models_own_logits(loaded: Backbone) -> None:
    check_scores(loaded)


def test_scores_of_long_words_are_the_models_own_log_probabilities(loaded: Backbone) -> None:
    check_long_words(loaded)


def test_gradient_reaches_every_slot_row_and_no_weight(loaded: Backbone) -> None:
    check_gradient(loaded)


def test_a_row_may_be_as_long_as_the_family_says(loaded: Backbone) -> None:
    check_longest(loaded)


def matrix(**wanted: list[dict[str, Any]]) -> pytest.MarkDecorator:
    """Models x methods: those listed for a model, or else for `others`."""
    pairs = [(name, spec) for name in MODELS for spec in wanted.get(name, wanted["others"])]
    return pytest.mark.parametrize(
        ("name", "spec"), [pytest.param(n, s, id=f"{n}-{name_of(s)}") for n, s in pairs], indirect=["name"]
    )


@matrix(bert=ENCODERS, **dict.fromkeys(ALIKE, PLAIN), others=METHODS)
def test_training_leaves_the_backbone_bit_identical_and_a_bundle_that_scores_the_same(
    fresh: Backbone, spec: dict[str, Any], tmp_path: Path
) -> None:
    check_reload(check_frozen(fresh, tmp_path, {"prompt": spec}), tmp_path / "bundle")


DESCENDING = [spec for spec in METHODS if not searches(spec["kind"])]
"""Words found by search reach less than vectors: tests/contract/test_baselines.py."""
LEARNERS = dict.fromkeys(("gpt2", "t5"), DESCENDING) | {"albert": DESCENDING[:1]}


@matrix(**LEARNERS, **{name: [] for name in ALIKE}, others=PLAIN)
def test_a_prompt_learns_the_toy(fresh: Backbone, spec: dict[str, Any], tmp_path: Path) -> None:
    check_learns(fresh, tmp_path, spec)


def test_training_the_backbone_leaves_the_shared_one_bit_identical_and_a_bundle_that_scores_the_same(
    fresh: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_reload(check_tuned(fresh, tmp_path, monkeypatch), tmp_path / "bundle")


@pytest.mark.parametrize("name", DIFFERENT, indirect=True)
def test_runs_packed_together_equal_each_alone(fresh: Backbone, tmp_path: Path) -> None:
    check_pack(fresh, tmp_path)


@pytest.mark.parametrize("name", DIFFERENT, indirect=True)
def test_training_with_noise_and_backbone_dropout_leaves_the_backbone_bit_identical(
    fresh: Backbone, tmp_path: Path
) -> None:
    check_frozen(fresh, tmp_path, {"regularizers": ["gaussian"], "backbone": {"dropout": True}})


@matrix(bert=ENCODERS, **{name: [] for name in ALIKE}, others=PLAIN)
def test_float32_prompt_trains_on_a_bfloat16_backbone(
    name: str,
    family_folder: Callable[[str], Path],
    spec: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backbone = load_backbone(str(family_folder(name)), dtype="bfloat16", device="cpu")
    assert {p.dtype for p in backbone.model.parameters()} == {torch.bfloat16}
    gradients = []
    from trimtab.training.optimization import StackedAdamW

    clip = StackedAdamW.clip

    def spy(self: StackedAdamW, largest: float) -> Tensor:
        gradients.extend(p.grad.clone() for p in self.parameters.values() if p.grad is not None)
        return clip(self, largest)

    monkeypatch.setattr(StackedAdamW, "clip", spy)
    training = {"max_steps": 4, "evaluations": 4, "learning_rate": 0.1}
    prepared = toy_run(tmp_path, backbone, {"prompt": spec, "training": training}, n=16)
    assert prepared.config.backbone.dtype == "bfloat16"
    with frozen(backbone):
        trained = train_pack([prepared])[0]
    assert trained.member.status == "done"
    assert trained.prompt.dtype == "float32"
    assert gradients
    assert all(g.dtype == torch.float32 and bool(g.isfinite().all()) for g in gradients)
    last = gradients[-len(gradients) // 4 :]  # of the last step: at first a factor may be zero, and hide the other
    assert all(float(g.abs().sum()) > 0 for g in last)
    losses = [h["train_loss"] for h in trained.member.history[1:]]
    assert len(set(losses)) == len(losses), "the loss does not move"


@pytest.mark.parametrize("name", DIFFERENT, indirect=True)
def test_gradients_in_bfloat16_agree_with_float32(name: str, family_folder: Callable[[str], Path]) -> None:
    directions = []
    for dtype in ("float32", "bfloat16"):
        backbone = load_backbone(str(family_folder(name)), dtype=dtype, device="cpu")
        check_gradient(backbone)
        rendering = toy_rendering(backbone)
        leaf = table_of(backbone, 1).detached()
        model = PromptedModel(backbone, reader(backbone, rendering))
        batch = model.collate(rows_of(backbone, rendering, 8))
        model.readout.loss(model.scores(batch, leaf), batch.labels).sum().backward()
        assert leaf.inputs.grad is not None
        directions.append(leaf.inputs.grad.flatten())
    assert float(torch.cosine_similarity(*directions, dim=0)) > 0.9


# Saboteurs: mixed into a family of the registry, each breaks one thing ------------------------------------------------


def sabotaged(backbone: Backbone, saboteur: type[Family]) -> Backbone:
    """The backbone with its family broken."""
    broken = type(saboteur.__name__, (saboteur, type(backbone.family)), {})
    return replace(backbone, family=broken())


class ShiftsPositions(Family):
    """Counts positions from the first pad."""

    def hidden(self, model: nn.Module, batch: Batch, *embeds: Tensor | None) -> Tensor:
        positions = torch.arange(batch.ids.shape[1]).expand_as(batch.ids)
        return super().hidden(model, replace(batch, position_ids=positions), *embeds)


class IgnoresMask(Family):
    """Attends to pads."""

    def hidden(self, model: nn.Module, batch: Batch, *embeds: Tensor | None) -> Tensor:
        return super().hidden(model, replace(batch, attention_mask=torch.ones_like(batch.ids)), *embeds)


class ScalesEmbeddings(Family):
    """Scales vectors of one route only, as a family with an embedding scale would if treated carelessly. Some elements
    more than others: DeBERTa's first step is a LayerNorm, which would undo a plain factor."""

    def embed(self, model: nn.Module, ids: Tensor) -> Tensor:
        vectors = super().embed(model, ids)
        return vectors * torch.linspace(1.0, 1.02, vectors.shape[-1])


class MixesRows(Family):
    """Lets each row see a little of the batch."""

    def hidden(self, model: nn.Module, batch: Batch, *embeds: Tensor | None) -> Tensor:
        hidden = super().hidden(model, batch, *embeds)
        return hidden + 1e-3 * hidden.mean(0, keepdim=True)


class RoundsBareRows(Family):
    """Off by the last bits where there is no prompt."""

    def hidden(self, model: nn.Module, batch: Batch, *embeds: Tensor | None) -> Tensor:
        hidden = super().hidden(model, batch, *embeds)
        return hidden if embeds[0] is not None else hidden * (1 + 2e-7)


class SkipsTransform(Family):
    """Applies the vocabulary matrix to the raw hidden states."""

    def vocabulary_features(self, model: Any, hidden: Tensor) -> Tensor:
        return hidden


class ForgetsBias(Family):
    """Leaves out the vocabulary bias."""

    def vocabulary_rows(self, model: nn.Module, ids: Tensor) -> tuple[Tensor, Tensor]:
        weight, bias = super().vocabulary_rows(model, ids)
        return weight, bias * 0


class IgnoresPrompt(Family):
    """Reads the ids whatever is placed into the slots."""

    def hidden(self, model: nn.Module, batch: Batch, *embeds: Tensor | None) -> Tensor:
        hidden = super().hidden(model, batch, None)
        return hidden + sum(0 * vectors.sum() for vectors in embeds if vectors is not None)


class HasWhims(Family):
    """Keeps a state of its own, drawn when it is made."""

    def __init__(self) -> None:
        self.whim = torch.rand(())

    def vocabulary_features(self, model: nn.Module, hidden: Tensor) -> Tensor:
        return super().vocabulary_features(model, hidden) + self.whim  # type: ignore[safe-super]


class CutsGradient(Family):
    """Detaches what enters."""

    def hidden(self, model: nn.Module, batch: Batch, *embeds: Tensor | None) -> Tensor:
        return super().hidden(model, batch, *(None if vectors is None else vectors.detach() for vectors in embeds))


class DeafToLastSlot(Family):
    """Hides the last virtual token from attention."""

    def hidden(self, model: nn.Module, batch: Batch, *embeds: Tensor | None) -> Tensor:
        mask = batch.attention_mask.clone()
        rows = (batch.prompt_of >= 0).nonzero()[:, 0]
        mask[rows, batch.slots[rows, -1]] = 0
        return super().hidden(model, replace(batch, attention_mask=mask), *embeds)


class Drifts(Family):
    """Moves one weight by its last bit at each pass."""

    def hidden(self, model: nn.Module, batch: Batch, *embeds: Tensor | None) -> Tensor:
        with torch.no_grad():
            weight = model.get_input_embeddings().weight  # type: ignore[operator]
            weight[7, 3] = torch.nextafter(weight[7, 3], torch.tensor(9.0))
        return super().hidden(model, batch, *embeds)


class CountsSteps(Family):
    """Keeps running statistics in a buffer, as batch normalization would."""

    def hidden(self, model: nn.Module, batch: Batch, *embeds: Tensor | None) -> Tensor:
        next(b for n, b in model.named_buffers() if n.endswith("token_type_ids")).add_(1)
        return super().hidden(replace_buffers(model), batch, *embeds)


class Thaws(Family):
    """Lets the backbone collect gradients."""

    def hidden(self, model: nn.Module, batch: Batch, *embeds: Tensor | None) -> Tensor:
        for parameter in model.parameters():
            parameter.requires_grad_()
        return super().hidden(model, batch, *embeds)


def replace_buffers(model: nn.Module) -> nn.Module:
    """A copy with sane buffers, so that the damaged one is not read."""
    sane = copy.deepcopy(model)
    for name, buffer in sane.named_buffers():
        if name.endswith("token_type_ids"):
            buffer.zero_()
    return sane


class CutsOffTheVocabulary(Family):
    """Reads the rows of the label words without a gradient."""

    def vocabulary_rows(self, model: nn.Module, ids: Tensor) -> tuple[Tensor, Tensor]:
        weight, bias = super().vocabulary_rows(model, ids)
        return weight.detach(), bias.detach()


class CutsOffTheWords(Family):
    """Embeds text without a gradient, which is enough where only the prompt is trained."""

    @torch.no_grad()
    def embed(self, model: nn.Module, ids: Tensor) -> Tensor:
        return super().embed(model, ids)


class ReadsOneTooEarly(Family):
    """Gives each position what the one before it predicts."""

    def hidden(self, model: nn.Module, batch: Batch, *embeds: Tensor | None) -> Tensor:
        return super().hidden(model, batch, *embeds).roll(1, dims=1)


class ForgetsTheScale(Family):
    """T5 read as if its matrices were not tied."""

    def vocabulary_features(self, model: Any, hidden: Tensor) -> Tensor:
        return hidden


class ForgetsTheCap(Family):
    """Gemma 2 with logits as large as they come."""

    def squash(self, model: Any, logits: Tensor) -> Tensor:
        return logits


class PadsOnTheLeftToo(Family):
    """BART claimed to be free of its padding side."""

    padding_sides = ("left", "right")


class CountsFromZero(Family):
    """RoBERTa with BERT's positions."""

    def positions(self, model: nn.Module, batch: Batch) -> Tensor:
        return batch.position_ids


class LetsTheModelCount(Family):
    """RoBERTa counting for itself: right from ids; from `inputs_embeds` it counts pads as well."""

    def hidden(self, model: Any, batch: Batch, embeds: Tensor | None, *rest: None) -> Tensor:
        inputs = {"input_ids": batch.ids} if embeds is None else {"inputs_embeds": embeds}
        return model.base_model(**inputs, attention_mask=batch.attention_mask).last_hidden_state


class ForgetsThePadsPosition(Family):
    """RoBERTa with two positions that are not for tokens."""

    def max_positions(self, config: Any) -> int:
        return int(config.max_position_embeddings)


class ForgetsActivation(Family):
    """A head of dense and LayerNorm only."""

    def vocabulary_features(self, model: Any, hidden: Tensor) -> Tensor:
        head = getattr(model, "lm_head", None) or model.predictions
        norm = head.layer_norm if hasattr(head, "layer_norm") else head.LayerNorm
        return norm(head.dense(hidden))


class SkipsTheLastNorm(Family):
    """ModernBERT read before its final LayerNorm."""

    def hidden(self, model: Any, batch: Batch, *embeds: Tensor | None) -> Tensor:
        kept: list[Tensor] = []
        hook = model.model.final_norm.register_forward_pre_hook(lambda module, inputs: kept.append(inputs[0]))
        super().hidden(model, batch, *embeds)
        hook.remove()
        return kept[0]


class TakesTheOldHead(Family):
    """DeBERTa's own head with the rows that `get_output_embeddings` names."""

    def vocabulary_rows(self, model: nn.Module, ids: Tensor) -> tuple[Tensor, Tensor]:
        return Family.vocabulary_rows(self, model, ids)


BROKEN = (AssertionError, RuntimeError, IndexError)
"""What a check that fails raises; a wrong size or index raises before anything can be asserted."""

RELATIVE = ("modernbert", "deberta-v2", "deberta-v2:own_head", "llama", "gemma2", "t5", "bart")
"""Models for which a shift of all positions is no mistake, because they are relative or nobody tells them any."""

WITHOUT_BIAS = ("gpt2", "opt", "llama", "gemma2", "t5")

EVERYWHERE = [
    (ScalesEmbeddings, check_routes_agree),
    (IgnoresMask, check_padding_and_mates),
    (IgnoresMask, check_sides_agree),
    (MixesRows, check_padding_and_mates),
    (MixesRows, check_bare_rows),
    (RoundsBareRows, check_bare_rows),
    (CutsGradient, check_gradient),
    (IgnoresPrompt, check_gradient),
    (DeafToLastSlot, check_gradient),
    (Thaws, check_gradient),
]
POSITIONAL = [(ShiftsPositions, check_padding_and_mates), (ShiftsPositions, check_sides_agree)]
PARTICULAR = [
    *((n, s, c) for n in DIFFERENT if n not in RELATIVE for s, c in POSITIONAL),
    ("roberta", CountsFromZero, check_scores),
    ("xlm-roberta", CountsFromZero, check_bare_rows),
    ("roberta", LetsTheModelCount, check_sides_agree),
    ("roberta", LetsTheModelCount, check_scores),
    ("camembert", LetsTheModelCount, check_padding_and_mates),
    ("roberta", ForgetsThePadsPosition, check_longest),
    ("roberta", ForgetsActivation, check_scores),
    ("albert", ForgetsActivation, check_scores),
    ("modernbert", SkipsTheLastNorm, check_scores),
    ("modernbert", SkipsTheLastNorm, check_bare_rows),
    ("deberta-v2:own_head", TakesTheOldHead, check_scores),
    ("deberta-v2:own_head", SkipsTransform, check_scores),
    ("deberta-v2:own_head", ForgetsBias, check_scores),
    *((n, SkipsTransform, check_scores) for n in DIFFERENT if "cloze" in families.get(n.partition(":")[0]).readouts),
    *((n, ForgetsBias, c) for n in DIFFERENT if n not in WITHOUT_BIAS for c in (check_scores, check_long_words)),
    *((n, ReadsOneTooEarly, c) for n in ("gpt2", "gemma2", "t5") for c in (check_scores, check_long_words)),
    *((n, IgnoresMask, check_long_words) for n in ("gpt2", "t5", "bart")),
    ("gpt2", ShiftsPositions, check_long_words),
    ("t5", ForgetsTheScale, check_scores),
    ("gemma2", ForgetsTheCap, check_scores),
    ("bart", PadsOnTheLeftToo, check_padding_and_mates),
    ("bart", PadsOnTheLeftToo, check_sides_agree),
]


@pytest.mark.parametrize(
    ("name", "saboteur", "check"),
    [*((n, s, c) for n in DIFFERENT for s, c in EVERYWHERE if (n, c) != ("bart", check_sides_agree)), *PARTICULAR],
    ids=lambda value: getattr(value, "__name__", value),
    indirect=["name"],
)
def test_saboteur_is_caught(fresh: Backbone, saboteur: type[Family], check: Callable[[Backbone], None]) -> None:
    with pytest.raises(BROKEN):
        check(sabotaged(fresh, saboteur))


@pytest.fixture
def bert(family_folder: Callable[[str], Path]) -> Backbone:
    return load_backbone(str(family_folder("bert")), dtype="float32", device="cpu")


def forgets_to_normalize(self: LabelWords, hidden: Tensor, batch: Batch) -> Tensor:
    """Logits for log-probabilities, as a `LabelWords` that forgot the normalizer would give them."""
    log_softmax = Tensor.logsumexp
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "logsumexp", lambda logits, dim: 0 * log_softmax(logits, dim))
        return ITS_OWN(self, hidden, batch)


ITS_OWN = LabelWords._log_probabilities


def answers_where_they_were(rows: list[Row], pad_id: int, side: Literal["left", "right"] = "right") -> Batch:
    """A collation whose answer positions do not move with the pads before them."""
    return replace(collate(rows, pad_id, side), answer_at=collate(rows, pad_id).answer_at)


@pytest.mark.parametrize("name", ["bert", "gpt2", "t5"], indirect=True)
def test_scores_that_are_not_normalized_are_caught(fresh: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LabelWords, "_log_probabilities", forgets_to_normalize)
    with pytest.raises(AssertionError, match="not close"):
        check_long_words(fresh)


@pytest.mark.parametrize("name", ["bert", "gpt2"], indirect=True)
@pytest.mark.parametrize("check", [check_padding_and_mates, check_sides_agree, check_scores, check_long_words])
def test_a_collation_that_forgets_the_pads_before_an_answer_is_caught(
    fresh: Backbone, check: Callable[[Backbone], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "on_side", lambda b, rows, side: answers_where_they_were(rows, b.pad_id, side))
    with pytest.raises(AssertionError, match="not close"):
        check(fresh)


@pytest.mark.parametrize(
    ("saboteur", "message"), [(Drifts, "moved"), (CountsSteps, "moved"), (Thaws, "requires_grad|any")]
)
def test_saboteur_whose_backbone_moves_is_caught(
    saboteur: type[Family], message: str, bert: Backbone, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match=message):
        check_frozen(sabotaged(bert, saboteur), tmp_path, {})


@pytest.mark.parametrize(
    ("name", "saboteur", "weight"),
    [
        ("bert", CutsOffTheVocabulary, "cls.predictions.bias"),
        ("llama", CutsOffTheVocabulary, "lm_head.weight"),
        ("llama", CutsOffTheWords, "model.embed_tokens.weight"),
        ("t5:own_head", CutsOffTheVocabulary, "lm_head.weight"),
    ],
    indirect=["name"],
)
def test_saboteur_that_keeps_a_weight_from_being_trained_is_caught(
    fresh: Backbone, saboteur: type[Family], weight: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AssertionError, match=rf"not trained: \['{weight}'\]"):
        check_tuned(sabotaged(fresh, saboteur), tmp_path, monkeypatch)


def test_saboteur_that_trains_the_shared_backbone_is_caught(
    bert: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backbone, "trainable", lambda self, _: replace(self, model=self.model.requires_grad_(True)))
    with pytest.raises(AssertionError, match="moved"):
        check_tuned(bert, tmp_path, monkeypatch)


def test_saboteur_whose_bundle_forgets_the_trained_weights_is_caught(
    bert: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = check_tuned(bert, tmp_path, monkeypatch)
    monkeypatch.setattr(Backbone, "with_weights", lambda self, opened, weights: self)
    with pytest.raises(AssertionError):
        check_reload(trained, tmp_path / "bundle")


def test_saboteur_whose_scores_do_not_survive_a_reload_is_caught(bert: Backbone, tmp_path: Path) -> None:
    trained = check_frozen(sabotaged(bert, HasWhims), tmp_path, {})
    with pytest.raises(AssertionError):
        check_reload(trained, tmp_path / "bundle")


def test_saboteur_that_lets_members_of_a_pack_meet_is_caught(bert: Backbone, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        check_pack(sabotaged(bert, MixesRows), tmp_path)


def test_saboteur_on_which_nothing_can_be_learned_is_caught(bert: Backbone, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="not learned"):
        check_learns(sabotaged(bert, IgnoresPrompt), tmp_path, {"kind": "prompt_tuning"})


def test_a_family_without_a_tiny_model_fails_loudly(family_folder: Callable[[str], Path]) -> None:
    with pytest.raises(pytest.fail.Exception, match="BUILDERS"):
        family_folder("nosuch")
