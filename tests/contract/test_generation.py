"""What every family that writes promises, checked over the registry; broken families show that each check can fail.

The reference is a loop over whole forward passes of the transformers model, one row at a time: no cache, no padding, no
position ids, none of trimtab's code.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.contract import test_backbone_families as matrix
from tests.contract.test_backbone_families import BROKEN, HiddenReadout, attentions, frozen, sabotaged, table_of
from tests.contract.toy_runs import toy_rendering
from trimtab.backbones import Backbone, Family, load_backbone
from trimtab.backbones import encoder_decoder as decoders
from trimtab.model import PromptedModel
from trimtab.prompt_table import PromptTable
from trimtab.types import Batch, Encoded, Example, Row

family_folder = matrix.family_folder

MODELS = [n for n in matrix.MODELS if matrix.families.get(n.partition(":")[0]).auto_class != Family.auto_class]
DECODERS = [n for n in MODELS if n.partition(":")[0] in ("t5", "mt5", "bart", "mbart")]
DIFFERENT = ("gpt2", "llama", "mistral", "gemma2", "t5", "bart")
"""Models whose code differs; saboteurs are tried on these."""
NEW = 8
WINDOW = 16
"""How many tokens a layer with a sliding window sees."""
PROMPTED = "{prompt} {text} {answer}"
BOTH = "{prompt:2} {text} {decoder_prompt:3} {answer}"
DECODER = "{decoder_prompt} {text} {answer}"

TEXTS = (
    "the film was good",
    "red sun",
    "a cat and a dog and a bird is in the big old tree on the sea and it was not very happy one two three",
    "the book is a sad one and very small",
    "no",
    "ten new blue song . the moon is great ? maybe not , it was awful",
    "moon and sea",
)


def writer(folder: Path, attention: str = "auto") -> Backbone:
    """A loaded backbone that writes on to the last and does not say one thing only.

    A random model whose vocabulary matrix is tied repeats its last word for ever, so each gets one of its own; an
    encoder-decoder that attends to everything alike says the same whatever it reads, so its attention is sharpened.
    """
    backbone = load_backbone(str(folder), dtype="float32", device="cpu", attention=attention)  # type: ignore[arg-type]
    head = backbone.model.get_output_embeddings()
    own = 0.3 * torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(11))
    head.weight = nn.Parameter(own, requires_grad=False)
    if backbone.model.config.is_encoder_decoder:
        backbone.model.get_input_embeddings().weight.mul_(3.0)
        for name, weight in backbone.model.named_parameters():
            if name.endswith(("q_proj.weight", ".q.weight")):
                weight.mul_(4.0)
            elif name.endswith(("out_proj.weight", ".o.weight")):
                weight.mul_(0.3)
    backbone.encoder.end_id = None
    return backbone


@pytest.fixture(params=[(n, a) for n in MODELS for a in attentions(n)], ids="-".join)
def loaded(family_folder: Callable[[str], Path], request: pytest.FixtureRequest) -> Backbone:
    """A writer of each family under each attention implementation that it has."""
    name, attention = request.param
    return writer(family_folder(name), attention)


@pytest.fixture
def fresh(name: str, family_folder: Callable[[str], Path]) -> Backbone:
    """A writer of one family."""
    return writer(family_folder(name))


def rows_of(backbone: Backbone, template: str = PROMPTED) -> list[Row]:
    """Rows of very different lengths for prompts 0 and 1; the last two are bare."""
    rendering = toy_rendering(backbone, template=template)
    bare = replace(rendering, template=rendering.template.without_prompt())
    examples = [Example(str(i), {"text": text}, "positive") for i, text in enumerate(TEXTS)]
    rows = [rendering.row(e, backbone.encoder, prompt=i % 2) for i, e in enumerate(examples[:-2])]
    rows += [bare.row(e, backbone.encoder, prompt=-1) for e in examples[-2:]]
    lengths = [len(r.encoded.opened()) for r in rows]
    assert max(lengths) > WINDOW, "a row must be longer than the window"
    assert len(set(lengths)) > 3, "the rows must need padding"
    return rows


def write(backbone: Backbone, rows: list[Row], table: PromptTable | None, max_tokens: int = 10**6) -> list[Any]:
    return PromptedModel(backbone, HiddenReadout()).generate_rows(rows, table, max_tokens, NEW)


@torch.no_grad()
def own_words(backbone: Backbone, encoded: Encoded, prompt: int, table: PromptTable) -> tuple[int, ...]:
    """The most likely tokens, one whole forward pass for each."""
    written: list[int] = []
    for _ in range(NEW):
        if encoded.decoder:
            longer = replace(encoded, decoder=(*encoded.decoder, *written))
        else:
            longer = replace(encoded, ids=(*encoded.ids, *written))
        written.append(int(matrix.own_logits(backbone, longer, prompt, table)[-1].argmax()))
    return tuple(written)


# The promises --------------------------------------------------------------------------------------------------------


def check_words(backbone: Backbone, template: str = PROMPTED) -> None:
    """Padded rows of several prompts and none, written with a cache, are each what whole passes over the row alone
    write, on each padding side that the family writes on."""
    rows, table = rows_of(backbone, template), table_of(backbone)
    expected = [own_words(backbone, row.encoded.opened(), row.prompt, table) for row in rows]
    assert len(set(expected)) > 3, "the rows must differ"
    assert sum(len(set(words)) > 1 for words in expected) > 3, "the text must not be constant"
    family = type(backbone.family)
    for side in ("left", "right") if rows[0].encoded.decoder else (family.padding_side,):
        if side in family.padding_sides:
            on_side = type(family.__name__, (family,), {"padding_side": side})
            assert write(replace(backbone, family=on_side()), rows, table) == expected
    others = PromptTable(table.inputs.flip(0))
    assert write(backbone, rows, others) != expected, "the prompt must matter"


def check_mates(backbone: Backbone, template: str = PROMPTED) -> None:
    """Neither batch mates nor the budget nor the order change what a row gets."""
    rows, table = rows_of(backbone, template), table_of(backbone)
    together = write(backbone, rows, table)
    assert [write(backbone, [row], table)[0] for row in rows] == together
    assert write(backbone, rows, table, max_tokens=80) == together
    assert write(backbone, rows[::-1], table) == together[::-1]


def check_bare(backbone: Backbone) -> None:
    """A batch of bare rows is `model.generate` on its ids, with or without a table of prompts."""
    rows = [row for row in rows_of(backbone) if row.prompt < 0]
    model = PromptedModel(backbone, HiddenReadout())
    batch = model.collate([replace(row, encoded=row.encoded.opened()) for row in rows])
    assert not batch.attention_mask.all()
    decoder, begun = {}, batch.ids.shape[1]
    if batch.decoder_ids is not None:
        decoder, begun = {"decoder_input_ids": batch.decoder_ids}, batch.decoder_ids.shape[1]
        decoder["decoder_start_token_id"] = batch.decoder_ids[0, 0].item()
    options = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": backbone.pad_id}
    words = backbone.model.generate(batch.ids, attention_mask=batch.attention_mask, **decoder, **options)
    expected = [tuple(its) for its in words[:, begun:].tolist()]
    assert write(backbone, rows, table_of(backbone)) == expected
    assert write(backbone, rows, None) == expected


def check_end(backbone: Backbone) -> None:
    """A row ends before the end token, whatever its mates still write."""
    rows, table = rows_of(backbone), table_of(backbone)
    whole = write(backbone, rows, table)
    ends = {word: [its.index(word) if word in its else NEW for its in whole] for its in whole for word in its}
    end_id, lengths = next((w, n) for w, n in ends.items() if {NEW} < set(n) and any(0 < m < NEW for m in n))
    backbone.encoder.end_id = end_id
    assert write(backbone, rows, table) == [its[:n] for its, n in zip(whole, lengths, strict=True)]


def check_no_traces(backbone: Backbone, template: str) -> None:
    """Writing keeps no graph, moves no weight and leaves no hook behind, also where it fails."""
    rows, leaf = rows_of(backbone, template), table_of(backbone).detached()

    def hooks() -> int:
        return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in backbone.model.modules())

    before = hooks()
    with frozen(backbone):
        write(backbone, rows, leaf)
        broken = replace(rows[0], encoded=replace(rows[0].encoded, ids=(10**6,) * 9, decoder=(0,) * 6))
        with pytest.raises(IndexError):
            write(backbone, [broken], leaf)
    assert hooks() == before
    assert leaf.inputs.grad is None


def test_words_are_those_of_whole_passes_over_each_row_alone(loaded: Backbone) -> None:
    check_words(loaded)


@pytest.mark.parametrize("name", MODELS)
def test_batch_mates_and_budget_change_nothing(fresh: Backbone) -> None:
    check_mates(fresh)


def test_bare_rows_are_the_bare_model_s(loaded: Backbone) -> None:
    check_bare(loaded)


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_text_ends_before_the_end_token(fresh: Backbone) -> None:
    check_end(fresh)


@pytest.mark.parametrize("name", DIFFERENT)
def test_writing_leaves_no_traces(fresh: Backbone) -> None:
    check_no_traces(fresh, PROMPTED)


@pytest.mark.parametrize("template", [BOTH, DECODER], ids=["both", "decoder"])
@pytest.mark.parametrize("name", DECODERS)
class TestPromptsInTheDecoder:
    """The same, where all rows of the prompt or some stand in the decoder."""

    def test_words_are_those_of_whole_passes_over_each_row_alone(self, fresh: Backbone, template: str) -> None:
        check_words(fresh, template)

    def test_batch_mates_and_budget_change_nothing(self, fresh: Backbone, template: str) -> None:
        check_mates(fresh, template)

    def test_writing_leaves_no_traces(self, fresh: Backbone, template: str) -> None:
        check_no_traces(fresh, template)

    def test_a_cache_changes_nothing(self, fresh: Backbone, template: str, monkeypatch: pytest.MonkeyPatch) -> None:
        rows, table = rows_of(fresh, template), table_of(fresh)
        expected, cached = write(fresh, rows, table), decoders.greedy

        def uncached(*args: Any, **special: Any) -> Any:
            config = cached(*args, **special)
            config.use_cache = False
            return config

        monkeypatch.setattr(decoders, "greedy", uncached)
        assert write(fresh, rows, table) == expected


STUBBORN: dict[str, Any] = {
    "do_sample": True, "temperature": 9.0, "top_k": 5, "num_beams": 3, "repetition_penalty": 5.0,
    "no_repeat_ngram_size": 1, "max_length": 3, "min_length": 3, "forced_bos_token_id": 7, "forced_eos_token_id": 8,
    "suppress_tokens": list(range(20, 120)), "early_stopping": True, "length_penalty": 2.0, "use_cache": False,
    "bos_token_id": 3, "eos_token_id": list(range(120)), "pad_token_id": 4, "decoder_start_token_id": 9,
}  # fmt: skip
"""What a checkpoint may wish for its texts."""


@pytest.mark.parametrize("name", DIFFERENT)
def test_the_checkpoint_s_wishes_decide_nothing(
    fresh: Backbone, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = write(fresh, rows_of(fresh), table_of(fresh))
    folder = (matrix.BUILDERS | matrix.VARIANTS)[name](tmp_path / name)
    (folder / "generation_config.json").write_text(json.dumps(STUBBORN))
    stubborn = writer(folder)
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    assert write(stubborn, rows_of(stubborn), table_of(stubborn)) == expected
    assert not caplog.records, "transformers logs a complaint"


# Saboteurs -----------------------------------------------------------------------------------------------------------


class CountsPads(Family):
    """Counts positions from the first pad."""

    def generate(self, model: nn.Module, batch: Batch, *rest: Any) -> Tensor:
        positions = torch.arange(batch.ids.shape[1]).expand_as(batch.ids)
        return super().generate(model, replace(batch, position_ids=positions), *rest)


class AttendsToPads(Family):
    """Forgets the mask."""

    def generate(self, model: nn.Module, batch: Batch, *rest: Any) -> Tensor:
        return super().generate(model, replace(batch, attention_mask=torch.ones_like(batch.ids)), *rest)


class PadsBehind(Family):
    """Goes on after the pads of shorter rows."""

    padding_side = "right"
    padding_sides = ("right",)


class ForgetsThePrompt(Family):
    """Reads the ids where prompts should stand."""

    def generate(self, model: nn.Module, batch: Batch, embeds: Tensor | None, *rest: Any) -> Tensor:
        return super().generate(model, batch, None, *rest)


class RepeatsTheText(Family):
    """Gives back what was read, and then what was written."""

    def generate(self, model: nn.Module, batch: Batch, *rest: Any) -> Tensor:
        return torch.cat([batch.ids, super().generate(model, batch, *rest)], dim=1)


class WritesOn(Family):
    """Does not know an end."""

    def generate(
        self, model: nn.Module, batch: Batch, embeds: Tensor | None, new: int, end_id: int | None, *rest: Any
    ) -> Tensor:
        words = super().generate(model, batch, embeds, new, None, *rest)
        return words if end_id is None else words.masked_fill(words == end_id, 1)


class LetsRowsMeet(Family):
    """Rows with short texts get the longest one's mask."""

    def generate(self, model: nn.Module, batch: Batch, *rest: Any) -> Tensor:
        mask = batch.attention_mask.clone()
        mask[:, : mask.shape[1] // 2] = mask[:, : mask.shape[1] // 2].amax(0)
        return super().generate(model, replace(batch, attention_mask=mask), *rest)


class ForgetsTheDecodersPrompt(Family):
    """Places a prompt in the text only."""

    def generate(self, model: nn.Module, batch: Batch, *rest: Any) -> Tensor:
        return super().generate(model, batch, *rest[:4], None)


class ForgetsToUnhook(Family):
    """Leaves a hook on the decoder."""

    def generate(self, model: Any, batch: Batch, *rest: Any) -> Tensor:
        model.get_decoder().register_forward_pre_hook(lambda module, inputs: None)
        return super().generate(model, batch, *rest)


class HeedsTheCheckpoint(Family):
    """Lets the checkpoint speak: tokens that it does not want to hear, as generation_config.json may list them."""

    def generate(self, model: Any, batch: Batch, *rest: Any) -> Tensor:
        model.generation_config.suppress_tokens = list(range(5, batch.ids.max() + 20, 2))
        return super().generate(model, batch, *rest)


ABSOLUTE = ("gpt2",)
"""Only learned positions show a shift that all of a row's tokens share."""
CAUSAL = tuple(n for n in DIFFERENT if n not in DECODERS)
SABOTAGE = [
    *((n, s, c) for n in DIFFERENT for s in (AttendsToPads, ForgetsThePrompt, RepeatsTheText) for c in (check_words,)),
    *((n, CountsPads, c) for n in ABSOLUTE for c in (check_words, check_mates)),
    *((n, PadsBehind, check_words) for n in CAUSAL),
    *((n, s, check_mates) for n in DIFFERENT for s in (AttendsToPads,)),
    *((n, LetsRowsMeet, check_mates) for n in CAUSAL),
    *((n, RepeatsTheText, check_bare) for n in DIFFERENT),
    *((n, AttendsToPads, check_bare) for n in DIFFERENT),
    *((n, WritesOn, check_end) for n in DIFFERENT),
    *((n, HeedsTheCheckpoint, check_words) for n in DIFFERENT),
]


@pytest.mark.parametrize(("name", "saboteur", "check"), SABOTAGE, ids=lambda value: getattr(value, "__name__", value))
def test_saboteur_is_caught(fresh: Backbone, saboteur: type[Family], check: Callable[[Backbone], None]) -> None:
    with pytest.raises(BROKEN):
        check(sabotaged(fresh, saboteur))


@pytest.mark.parametrize("template", [BOTH, DECODER], ids=["both", "decoder"])
@pytest.mark.parametrize("name", ["t5", "bart"])
@pytest.mark.parametrize(
    ("saboteur", "check"), [(ForgetsTheDecodersPrompt, check_words), (ForgetsToUnhook, check_no_traces)]
)
def test_saboteur_of_the_decoder_is_caught(
    fresh: Backbone, saboteur: type[Family], check: Callable[[Backbone, str], None], template: str
) -> None:
    with pytest.raises(BROKEN):
        check(sabotaged(fresh, saboteur), template)
