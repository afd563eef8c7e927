"""Text that is embedded twice, as by the released code of P-tuning v2, against that code's way done by hand.

By hand each row is alone: the embedding layer reads its text without slots and counts positions by itself, the prompt's
vectors are put between, and the transformers model is given all of it as `inputs_embeds`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor

from tests.contract.test_backbone_families import (
    bare_rows,
    check_bare_rows,
    check_padding_and_mates,
    family_folder,  # noqa: F401
    last_states,
    table_of,
)
from tests.contract.tiny_families import BUILDERS
from tests.contract.toy_runs import rows_of, toy_rendering
from tests.tiny import toy_task
from tests.unit.refusals import refused
from trimtab import api, load
from trimtab.backbones import Backbone, load_backbone
from trimtab.backbones.words import Words
from trimtab.batching import collate
from trimtab.config import resolve
from trimtab.errors import BackboneError, BundleError, ConfigError
from trimtab.model import PromptedBackbone
from trimtab.prompt_table import PromptTable
from trimtab.registry import families
from trimtab.serving.fitting import fitted
from trimtab.storage import read_bundle
from trimtab.training.preparing import prepare
from trimtab.types import Row

ABLE = [kind for kind in families.kinds() if families.get(kind).embeds_whole]  # type: ignore[attr-defined]
TEMPLATES = ("{prompt:2} {text} {prompt:3} {answer}.", "{text} {answer} {prompt}")
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture
def twice(request: pytest.FixtureRequest, family_folder: Callable[[str], Path]) -> Backbone:  # noqa: F811
    return load_backbone(str(family_folder(request.param)), dtype="float32", device="cpu", embed_twice=True)


def every(kinds: list[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("twice", kinds, indirect=True)


def rows_with_prompts(backbone: Backbone) -> list[Row]:
    """Rows of several lengths and two prompts, which stand before, in and behind the text, or before all of it."""
    rows = [row for t in TEMPLATES for row in rows_of(backbone, toy_rendering(backbone, template=t), 3)]
    encoded = rows[-1].encoded
    said = tuple(token for i, token in enumerate(encoded.ids) if i not in encoded.slots)
    first = replace(encoded, ids=(0,) * 5 + said, slots=(0, 1, 2, 3, 4), answer_at=(5,), eligible=(), text=())
    return [replace(row, prompt=i % 2) for i, row in enumerate([*rows, replace(rows[-1], encoded=first)])]


def read(backbone: Backbone, rows: list[Row], table: PromptTable, side: Literal["left", "right"]) -> Tensor:
    with torch.no_grad():
        return PromptedBackbone(backbone).at_reads(collate(rows, backbone.pad_id, side), table)[0][:, 0]


def by_hand(backbone: Backbone, row: Row, table: PromptTable) -> Tensor:
    """The hidden state at a row's answer, as the released code computes it."""
    encoded = row.encoded
    if row.prompt < 0:
        return last_states(backbone, None, input_ids=torch.tensor([encoded.ids]))[0, encoded.answer_at[0]]
    said = [i for i in range(len(encoded)) if i not in encoded.slots]
    with torch.no_grad():
        text = backbone.model.base_model.embeddings(torch.tensor([[encoded.ids[i] for i in said]]))[0]
    embeds = torch.empty(len(encoded), backbone.embedding_size)
    embeds[said], embeds[list(encoded.slots)] = text, table.inputs[row.prompt]
    return last_states(backbone, None, inputs_embeds=embeds[None])[0, encoded.answer_at[0]]


@every(ABLE)
@pytest.mark.parametrize("side", ["left", "right"])
def test_text_beside_a_prompt_is_embedded_twice(twice: Backbone, side: Literal["left", "right"]) -> None:
    rows, table = [*rows_with_prompts(twice), *bare_rows(twice, 2)], table_of(twice)
    expected = torch.stack([by_hand(twice, row, table) for row in rows])
    torch.testing.assert_close(read(twice, rows, table, side), expected, **CLOSE)
    once = read(replace(twice, embed_twice=False), rows, table, side)
    torch.testing.assert_close(once[-2:], expected[-2:], **CLOSE)
    assert float((once - expected)[:-2].abs().amax(1).min()) > 1e-2, "once is something else"


@every(["bert", "roberta"])
def test_padding_mates_and_bare_rows_are_as_ever(twice: Backbone) -> None:
    check_padding_and_mates(twice)
    check_bare_rows(twice)


@every(["roberta"])
def test_words_that_are_swapped_are_weighed_as_they_would_be_read(twice: Backbone) -> None:
    rows = [*rows_with_prompts(twice), *bare_rows(twice, 1)]
    batch, words = collate(rows, twice.pad_id, "left"), torch.tensor(twice.ordinary_words[:4])
    with torch.no_grad():
        for b in (0, 3, len(rows) - 1):
            position = int(batch.eligible[b].nonzero()[-1])
            found = Words(twice).embed(words, batch, b, position)
            for word, its in zip(words, found, strict=True):
                swapped = replace(batch, ids=batch.ids.index_put((torch.tensor(b), torch.tensor(position)), word))
                torch.testing.assert_close(its, twice.embed(swapped)[b, position], **CLOSE)


# A run and its bundle -------------------------------------------------------------------------------------------------


def recipe_of(folder: Path, model: Path, embed_twice: bool) -> dict[str, object]:
    backbone = {"model": str(model), "dtype": "float32", **({"embed_twice": True} if embed_twice else {})}
    training = {"learning_rate": 0.05, "max_steps": 3, "batch_size": 8, "evaluations": 1}
    return {
        "backbone": backbone, "task": toy_task(folder), "prompt": {"kind": "prompt_tuning", "length": 3},
        "training": training,
    }  # fmt: skip


def test_a_run_and_its_bundle_remember_it(tmp_path: Path, tiny_folder: Path, backbone: Backbone) -> None:
    once, twice = (
        api.run(recipe_of(tmp_path, tiny_folder, embed_twice), runs_dir=tmp_path / "runs", device="cpu")
        for embed_twice in (False, True)
    )
    assert once["id"] != twice["id"]
    assert once["metrics"]["dev"] != twice["metrics"]["dev"]
    assert once["baselines"] == twice["baselines"], "the bare model is the bare model"
    again = load(twice["run"], device="cpu")
    assert again.model.backbone.embed_twice
    config = resolve(recipe_of(tmp_path, tiny_folder, True)).config
    opened = load_backbone(str(tiny_folder), dtype="float32", device="cpu", embed_twice=True)
    examples = prepare(config, opened).task.splits["test"]
    assert again.evaluate(examples).metrics == twice["metrics"]["test"] != once["metrics"]["test"]
    bundles = {name: read_bundle(Path(run["run"])) for name, run in (("once", once), ("twice", twice))}
    what = "the prompt was trained with backbone.embed_twice=true, and"
    with refused(BundleError, what, where=twice["run"], fix="load_backbone(..., embed_twice=True)"):
        load(twice["run"], backbone=backbone)
    with refused(BundleError, "embed_twice=false", where="once", fix="serve such prompts by themselves"):
        fitted(bundles["once"], opened, "once")
    assert fitted(bundles["twice"], opened, "twice").model.backbone is opened


def test_a_config_and_its_backbone_must_agree(tmp_path: Path, tiny_folder: Path, backbone: Backbone) -> None:
    config = resolve(recipe_of(tmp_path, tiny_folder, True)).config
    with refused(ConfigError, "the config says true", where="backbone.embed_twice", fix="embed_twice=True"):
        prepare(config, backbone)


@pytest.mark.parametrize("kind", ["gpt2", "modernbert"])
def test_a_family_without_such_a_layer_refuses(kind: str, tmp_path: Path) -> None:
    folder = BUILDERS[kind](tmp_path / kind)
    with refused(BackboneError, "no embedding layer", where="backbone.embed_twice", fix="albert, bert, camembert"):
        load_backbone(str(folder), embed_twice=True)
    with refused(BackboneError, "no embedding layer", where="backbone.embed_twice", fix="albert, bert, camembert"):
        api.validate(recipe_of(tmp_path, folder, True))
