"""What is computed anew in the backward pass: the same bits, and less that is kept until then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from tests.contract.test_backbone_families import family_folder
from tests.contract.toy_studies import toy_recipe
from trimtab.backbones import load_backbone
from trimtab.backbones.checkpointing import composed_activations, recomputing_activations
from trimtab.backbones.compiling import compile_layers
from trimtab.config import resolve
from trimtab.training.packs import train_pack
from trimtab.training.preparing import prepare

__all__ = ["family_folder"]


def gradient(model: torch.nn.Module, embeds: Tensor) -> tuple[Tensor, int]:
    """Of a pass at its input, and how many numbers autograd saved for it."""
    leaf, saved = embeds.clone().requires_grad_(), []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor.numel())
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        out = model.base_model(inputs_embeds=leaf).last_hidden_state  # type: ignore[operator]
    out.square().sum().backward()
    assert leaf.grad is not None
    return leaf.grad, sum(saved)


@pytest.mark.parametrize("family", ["gpt2", "albert"])
def test_composed_activations_keep_less_and_change_no_bit(family: str, family_folder: Callable[[str], Path]) -> None:
    backbone = load_backbone(str(family_folder(family)), dtype="float32", device="cpu")
    model, config = backbone.model, backbone.model.config
    embeds = torch.randn(2, 7, backbone.embedding_size, generator=torch.Generator().manual_seed(0))
    plain, whole = gradient(model, embeds)
    with recomputing_activations(model):
        anew, kept = gradient(model, embeds)
    again, after = gradient(model, embeds)
    assert torch.equal(anew, plain)
    assert torch.equal(again, plain)
    width = getattr(config, "n_inner", None) or config.intermediate_size
    assert whole - kept >= 3 * config.num_hidden_layers * 14 * width
    assert after == whole, "nothing stays behind"


def test_activations_of_one_operation_and_compiled_layers_are_left_alone(family_folder: Callable[[str], Path]) -> None:
    bert, gpt2 = (load_backbone(str(family_folder(f)), dtype="float32", device="cpu").model for f in ("bert", "gpt2"))
    assert composed_activations(bert) == []
    assert len(composed_activations(gpt2)) == gpt2.config.num_hidden_layers
    compile_layers(gpt2, "eager")
    assert composed_activations(gpt2) == []


@pytest.mark.parametrize("kind", ["pgd", "smart", "freelb", "sam"])
def test_penalties_that_ask_a_pass_twice_see_the_same_bits(
    kind: str, family_folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = load_backbone(str(family_folder("gpt2")), dtype="float32", device="cpu")
    config = resolve(toy_recipe(tmp_path, Path(backbone.name)), [f"regularizers=[{kind}]"]).config
    anew = train_pack([prepare(config, backbone)])[0].prompt
    monkeypatch.setattr("trimtab.backbones.checkpointing.composed_activations", lambda model: [])
    assert (train_pack([prepare(config, backbone)])[0].prompt == anew).all()
