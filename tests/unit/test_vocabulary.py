"""The vocabulary matrix: one float32 copy for all readouts of a frozen model, and never one of other weights."""

from __future__ import annotations

import copy
import dataclasses
import gc

import pytest
import torch

from trimtab.backbones import Backbone
from trimtab.readouts import vocabulary as module
from trimtab.readouts.vocabulary import Vocabulary


@pytest.fixture
def own(backbone: Backbone) -> Backbone:
    """A backbone that nobody else uses."""
    return dataclasses.replace(backbone, model=copy.deepcopy(backbone.model))


def features(backbone: Backbone) -> torch.Tensor:
    rows, _ = backbone.family.vocabulary_rows(backbone.model, slice(None))
    return torch.randn(2, rows.shape[1], generator=torch.Generator().manual_seed(0))


def place_of(backbone: Backbone) -> int:
    """Where the rows of a new readout lie."""
    found = Vocabulary(backbone)
    found.logits(features(backbone))
    assert found._kept is not None
    return found._kept[0].data_ptr()


def test_all_readouts_of_a_frozen_model_share_one_copy(own: Backbone) -> None:
    own.model.to(torch.bfloat16)
    first, second = Vocabulary(own), Vocabulary(own)
    torch.testing.assert_close(first.logits(features(own)), second.logits(features(own)), rtol=0, atol=0)
    assert first._kept is not None
    assert second._kept is not None
    assert first._kept[0].dtype == torch.float32
    assert first._kept[0].data_ptr() == second._kept[0].data_ptr()
    few = Vocabulary(own, torch.tensor([3, 5]))
    torch.testing.assert_close(few.logits(features(own)), first.logits(features(own))[:, [3, 5]])


def test_weights_that_have_changed_are_read_anew(own: Backbone) -> None:
    own.model.to(torch.bfloat16)
    x, before = features(own), place_of(own)
    old = Vocabulary(own).logits(x)
    with torch.no_grad():
        own.model.get_output_embeddings().weight.mul_(2.0)
    rows, bias = own.family.vocabulary_rows(own.model, slice(None))
    new = Vocabulary(own).logits(x)
    torch.testing.assert_close(new, x @ rows.T + bias)
    assert not torch.allclose(old, new)
    assert place_of(own) != before


def test_a_model_in_training_shares_nothing(own: Backbone) -> None:
    own.model.requires_grad_(True)
    found = Vocabulary(own)
    found.logits(features(own)).sum().backward()
    assert found._kept is None
    assert own.model not in module._WHOLE
    assert own.model.get_output_embeddings().weight.grad is not None


def test_a_copy_made_while_nothing_was_learned_can_be_learned_through(own: Backbone) -> None:
    own.model.to(torch.bfloat16)
    with torch.inference_mode():
        Vocabulary(own).logits(features(own))
    x = features(own).requires_grad_()
    Vocabulary(own).logits(x).sum().backward()
    assert x.grad is not None


def test_the_copy_goes_with_its_model(own: Backbone) -> None:
    place_of(own)
    held = len(module._WHOLE)
    copied = copy.deepcopy(own.model)
    place_of(dataclasses.replace(own, model=copied))
    assert len(module._WHOLE) == held + 1
    del copied
    gc.collect()
    assert len(module._WHOLE) == held
