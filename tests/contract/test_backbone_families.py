"""What every backbone family promises, checked over the registry; broken families show that each check can fail."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from tests.contract.toy_runs import ENCODERS, LENGTH, cloze, name_of, rows_of, toy_rendering, toy_run
from tests.tiny import save_tiny_model
from trimtab.backbones import Backbone, Family, load_backbone
from trimtab.batching import collate
from trimtab.injection import place_prompt
from trimtab.model import PromptedModel
from trimtab.registry import families
from trimtab.training.runs import train_pack
from trimtab.types import Batch, PromptTable, Row

BUILDERS: dict[str, Callable[[Path], Path]] = {"bert": save_tiny_model}
"""model_type -> a function that writes a tiny model of that family, with its tokenizer, to a folder."""

SIDES: tuple[Literal["left", "right"], ...] = ("left", "right")
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="session")
def family_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A tiny model of a family on disk."""
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in BUILDERS:
            pytest.fail(f"the family {kind!r} is registered, but BUILDERS in {__file__} has no tiny model for it")
        if kind not in made:
            made[kind] = BUILDERS[kind](tmp_path_factory.mktemp("families") / kind)
        return made[kind]

    return folder


@pytest.fixture(params=families.kinds())
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["sdpa", "eager"])
def loaded(kind: str, family_folder: Callable[[str], Path], request: pytest.FixtureRequest) -> Backbone:
    """A tiny model of each family under each attention implementation, float32."""
    backbone = load_backbone(str(family_folder(kind)), dtype="float32", device="cpu", attention=request.param)
    return with_vocabulary_bias(backbone)


@pytest.fixture
def fresh(kind: str, family_folder: Callable[[str], Path]) -> Backbone:
    """A tiny model of each family that a test may damage."""
    return load_backbone(str(family_folder(kind)), dtype="float32", device="cpu")


def with_vocabulary_bias(backbone: Backbone) -> Backbone:
    """Random models start with a bias of zeros, beside which forgetting it would not show."""
    bias = backbone.model.get_output_embeddings().bias
    if bias is not None:
        with torch.no_grad():
            bias.copy_(torch.linspace(-1, 1, len(bias)))
    return backbone


class HiddenReadout:
    """Returns the hidden state at the answer slot, so that whole vectors can be compared."""

    def scores(self, hidden: Tensor, batch: Batch) -> Tensor:
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
    """Word embeddings fed as `inputs_embeds` give what the ids give, on both padding sides."""
    for side in SIDES:
        batch = on_side(backbone, mixed_rows(backbone), side)
        with torch.no_grad():
            embeds = backbone.family.embed(backbone.model, batch.ids)
            one = backbone.family.hidden(backbone.model, batch, embeds)
            two = backbone.family.hidden(backbone.model, batch, None)
        real = batch.attention_mask.bool()
        assert not real.all(), "the rows must need padding"
        torch.testing.assert_close(one[real], two[real], **CLOSE)


def check_padding_and_mates(backbone: Backbone) -> None:
    """Neither extra padding nor batch mates nor their prompts change a row, on both padding sides."""
    rows, table = mixed_rows(backbone), table_of(backbone)
    longest = max(rows, key=lambda r: len(r.encoded))
    filler = longest.encoded
    long_row = replace(longest, encoded=replace(filler, ids=(*filler.ids[:-1], *filler.ids[1:4], filler.ids[-1])))
    other_table = PromptTable(torch.cat([table.inputs, -3 * table.inputs]))
    for side in SIDES:
        alone = torch.cat([read(backbone, [row], table, side) for row in rows])
        together = read(backbone, rows, table, side)
        torch.testing.assert_close(together, alone, **CLOSE)
        padded = read(backbone, [*rows, replace(long_row, prompt=3)], other_table, side)[: len(rows)]
        torch.testing.assert_close(padded, alone, **CLOSE)
        torch.testing.assert_close(read(backbone, rows[::-1], table, side).flip(0), alone, **CLOSE)


def check_sides_agree(backbone: Backbone) -> None:
    """A row has the same hidden states whether the pads stand before or behind it."""
    rows, table = mixed_rows(backbone), table_of(backbone)
    torch.testing.assert_close(read(backbone, rows, table, "left"), read(backbone, rows, table, "right"), **CLOSE)


def check_bare_rows(backbone: Backbone) -> None:
    """Rows with prompt_of -1 are the transformers model: bit for bit among their like, to 1e-5 among prompted rows."""
    rows, table, side = bare_rows(backbone, 5), table_of(backbone), backbone.family.padding_side
    batch = on_side(backbone, rows, side)
    positions = {"position_ids": batch.position_ids} if side == "left" else {}
    with torch.no_grad():
        out = backbone.model(
            input_ids=batch.ids, attention_mask=batch.attention_mask, output_hidden_states=True, **positions
        )
    expected = out.hidden_states[-1][torch.arange(len(rows)), batch.answer_at[:, 0]]
    assert torch.equal(read(backbone, rows, table, side), expected), "bare rows are not the bare model bit for bit"
    assert torch.equal(read(backbone, rows, None, side), expected)
    mixed = [*mixed_rows(backbone)[:4], *rows]
    torch.testing.assert_close(read(backbone, mixed, table, side)[4:], expected, **CLOSE)
    with_slots = [replace(row, prompt=-1) for row in mixed_rows(backbone)[:2]]
    found = [*expected, *read(backbone, [*mixed, *with_slots], table, side)[-2:]]
    for row, hidden in zip([*rows, *with_slots], found, strict=True):
        ids = torch.tensor([row.encoded.ids])
        with torch.no_grad():
            alone = backbone.model(input_ids=ids, output_hidden_states=True).hidden_states[-1]
        torch.testing.assert_close(hidden, alone[0, row.encoded.answer_at[0]], **CLOSE)


def check_cloze(backbone: Backbone) -> None:
    """Cloze scores are the mean label-word logits of the model's own forward pass over the whole vocabulary."""
    rendering, rows, table = toy_rendering(backbone), mixed_rows(backbone), table_of(backbone)
    batch = on_side(backbone, rows, backbone.family.padding_side)
    label_ids = rendering.label_ids(backbone.encoder)
    with torch.no_grad():
        found = PromptedModel(backbone, cloze(backbone, rendering)).scores(batch, table)
        embeds = place_prompt(backbone.model.get_input_embeddings()(batch.ids), table, batch)
        logits = backbone.model(
            inputs_embeds=embeds, attention_mask=batch.attention_mask, position_ids=batch.position_ids
        ).logits
    at_answer = logits[torch.arange(len(rows)), batch.answer_at[:, 0]]
    expected = torch.stack([torch.stack([row[i] for i in ids]).mean() for row in at_answer for ids in label_ids])
    torch.testing.assert_close(found, expected.view(len(rows), len(label_ids)), rtol=1e-4, atol=1e-5)


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


def check_frozen(backbone: Backbone, folder: Path, recipe: dict[str, Any]) -> None:
    """Training does not touch the backbone."""
    training = {"max_steps": 3, "evaluations": 1, "learning_rate": 0.1, "batch_size": 4}
    prepared = toy_run(folder, backbone, {**recipe, "training": training}, n=8)
    with frozen(backbone):
        trained = train_pack([prepared])[0]
    assert trained.member.step == 3
    assert trained.member.status == "done"


# The promises, kept by every family of the registry ------------------------------------------------------------------


def test_embeddings_route_equals_ids_route(loaded: Backbone) -> None:
    check_routes_agree(loaded)


def test_extra_padding_and_batch_mates_change_nothing(loaded: Backbone) -> None:
    check_padding_and_mates(loaded)


def test_both_padding_sides_agree(loaded: Backbone) -> None:
    check_sides_agree(loaded)


def test_a_bare_row_is_the_bare_model(loaded: Backbone) -> None:
    check_bare_rows(loaded)


def test_cloze_scores_are_the_models_own_logits(loaded: Backbone) -> None:
    check_cloze(loaded)


def test_gradient_reaches_every_slot_row_and_no_weight(loaded: Backbone) -> None:
    check_gradient(loaded)


@pytest.mark.parametrize("spec", ENCODERS, ids=name_of)
def test_training_leaves_the_backbone_bit_identical(fresh: Backbone, spec: dict[str, Any], tmp_path: Path) -> None:
    check_frozen(fresh, tmp_path, {"prompt": spec})


def test_training_with_noise_and_backbone_dropout_leaves_the_backbone_bit_identical(
    fresh: Backbone, tmp_path: Path
) -> None:
    check_frozen(fresh, tmp_path, {"regularizers": ["gaussian"], "backbone": {"dropout": True}})


@pytest.mark.parametrize("spec", ENCODERS, ids=name_of)
def test_float32_prompt_trains_on_a_bfloat16_backbone(
    kind: str,
    family_folder: Callable[[str], Path],
    spec: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backbone = load_backbone(str(family_folder(kind)), dtype="bfloat16", device="cpu")
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
    assert all(float(g.abs().sum()) > 0 for g in gradients)
    losses = [h["train_loss"] for h in trained.member.history[1:]]
    assert len(set(losses)) == len(losses), "the loss does not move"


def test_gradients_in_bfloat16_agree_with_float32(kind: str, family_folder: Callable[[str], Path]) -> None:
    directions = []
    for dtype in ("float32", "bfloat16"):
        backbone = load_backbone(str(family_folder(kind)), dtype=dtype, device="cpu")
        check_gradient(backbone)
        rendering = toy_rendering(backbone)
        leaf = table_of(backbone, 1).detached()
        model = PromptedModel(backbone, cloze(backbone, rendering))
        batch = model.collate(rows_of(backbone, rendering, 8))
        model.readout.loss(model.scores(batch, leaf), batch.labels).sum().backward()
        assert leaf.inputs.grad is not None
        directions.append(leaf.inputs.grad.flatten())
    assert float(torch.cosine_similarity(*directions, dim=0)) > 0.9


# Saboteurs -----------------------------------------------------------------------------------------------------------


class Sound(Family):
    """A correct BERT family, the base of the broken ones."""

    head_prefix = "cls.predictions"

    def vocabulary_features(self, model: Any, hidden: Tensor) -> Tensor:
        return model.cls.predictions.transform(hidden)


class ShiftsPositions(Sound):
    """Counts positions from the first pad."""

    def hidden(self, model: nn.Module, batch: Batch, embeds: Tensor | None) -> Tensor:
        positions = torch.arange(batch.ids.shape[1]).expand_as(batch.ids)
        return super().hidden(model, replace(batch, position_ids=positions), embeds)


class IgnoresMask(Sound):
    """Attends to pads."""

    def hidden(self, model: nn.Module, batch: Batch, embeds: Tensor | None) -> Tensor:
        return super().hidden(model, replace(batch, attention_mask=torch.ones_like(batch.ids)), embeds)


class ScalesEmbeddings(Sound):
    """Scales the vectors of one route only, as a family with an embedding scale would if treated carelessly."""

    def embed(self, model: nn.Module, ids: Tensor) -> Tensor:
        return super().embed(model, ids) * 1.01


class MixesRows(Sound):
    """Lets each row see a little of the batch."""

    def hidden(self, model: nn.Module, batch: Batch, embeds: Tensor | None) -> Tensor:
        hidden = super().hidden(model, batch, embeds)
        return hidden + 1e-3 * hidden.mean(0, keepdim=True)


class RoundsBareRows(Sound):
    """Off by the last bits where there is no prompt."""

    def hidden(self, model: nn.Module, batch: Batch, embeds: Tensor | None) -> Tensor:
        hidden = super().hidden(model, batch, embeds)
        return hidden if embeds is not None else hidden * (1 + 2e-7)


class SkipsTransform(Sound):
    """Applies the vocabulary matrix to the raw hidden states."""

    def vocabulary_features(self, model: Any, hidden: Tensor) -> Tensor:
        return hidden


class ForgetsBias(Sound):
    """Leaves out the vocabulary bias."""

    def vocabulary_rows(self, model: nn.Module, ids: Tensor) -> tuple[Tensor, Tensor]:
        weight, bias = super().vocabulary_rows(model, ids)
        return weight, bias * 0


class CutsGradient(Sound):
    """Detaches what enters."""

    def hidden(self, model: nn.Module, batch: Batch, embeds: Tensor | None) -> Tensor:
        return super().hidden(model, batch, None if embeds is None else embeds.detach())


class DeafToLastSlot(Sound):
    """Hides the last virtual token from attention."""

    def hidden(self, model: nn.Module, batch: Batch, embeds: Tensor | None) -> Tensor:
        mask = batch.attention_mask.clone()
        rows = (batch.prompt_of >= 0).nonzero()[:, 0]
        mask[rows, batch.slots[rows, -1]] = 0
        return super().hidden(model, replace(batch, attention_mask=mask), embeds)


class Drifts(Sound):
    """Moves one weight by its last bit at each pass."""

    def hidden(self, model: nn.Module, batch: Batch, embeds: Tensor | None) -> Tensor:
        with torch.no_grad():
            weight = model.get_input_embeddings().weight  # type: ignore[operator]
            weight[7, 3] = torch.nextafter(weight[7, 3], torch.tensor(9.0))
        return super().hidden(model, batch, embeds)


class CountsSteps(Sound):
    """Keeps running statistics in a buffer, as batch normalization would."""

    def hidden(self, model: nn.Module, batch: Batch, embeds: Tensor | None) -> Tensor:
        next(b for n, b in model.named_buffers() if n.endswith("token_type_ids")).add_(1)
        return super().hidden(replace_buffers(model), batch, embeds)


class Thaws(Sound):
    """Lets the backbone collect gradients."""

    def hidden(self, model: nn.Module, batch: Batch, embeds: Tensor | None) -> Tensor:
        for parameter in model.parameters():
            parameter.requires_grad_()
        return super().hidden(model, batch, embeds)


def replace_buffers(model: nn.Module) -> nn.Module:
    """A copy with sane buffers, so that the damaged one is not read."""
    sane = copy.deepcopy(model)
    for name, buffer in sane.named_buffers():
        if name.endswith("token_type_ids"):
            buffer.zero_()
    return sane


@pytest.fixture
def bert(family_folder: Callable[[str], Path]) -> Backbone:
    return with_vocabulary_bias(load_backbone(str(family_folder("bert")), dtype="float32", device="cpu"))


def test_the_base_of_the_saboteurs_keeps_every_promise(bert: Backbone, tmp_path: Path) -> None:
    sound = replace(bert, family=Sound())
    for check in (check_routes_agree, check_padding_and_mates, check_sides_agree, check_bare_rows, check_cloze):
        check(sound)
    check_gradient(sound)
    check_frozen(sound, tmp_path, {})


@pytest.mark.parametrize(
    ("saboteur", "check"),
    [
        (ScalesEmbeddings, check_routes_agree),
        (ShiftsPositions, check_padding_and_mates),
        (ShiftsPositions, check_sides_agree),
        (IgnoresMask, check_padding_and_mates),
        (IgnoresMask, check_sides_agree),
        (MixesRows, check_padding_and_mates),
        (MixesRows, check_bare_rows),
        (RoundsBareRows, check_bare_rows),
        (SkipsTransform, check_cloze),
        (ForgetsBias, check_cloze),
        (CutsGradient, check_gradient),
        (DeafToLastSlot, check_gradient),
        (Thaws, check_gradient),
    ],
    ids=lambda value: value.__name__,
)
def test_saboteur_is_caught(saboteur: type[Family], check: Callable[[Backbone], None], bert: Backbone) -> None:
    with pytest.raises(AssertionError):
        check(replace(bert, family=saboteur()))


@pytest.mark.parametrize(
    ("saboteur", "message"), [(Drifts, "moved"), (CountsSteps, "moved"), (Thaws, "requires_grad|any")]
)
def test_saboteur_whose_backbone_moves_is_caught(
    saboteur: type[Family], message: str, bert: Backbone, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match=message):
        check_frozen(replace(bert, family=saboteur()), tmp_path, {})


def test_a_family_without_a_tiny_model_fails_loudly(family_folder: Callable[[str], Path]) -> None:
    with pytest.raises(pytest.fail.Exception, match="BUILDERS"):
        family_folder("nosuch")
