"""Every regularizer with every readout, every method and every family: the gradient of one step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from tests.contract.test_backbone_families import MODELS, family_folder
from tests.contract.test_matrix import prepared, untouched
from tests.contract.test_regularizers import VISIBLE
from tests.contract.toy_runs import name_of
from tests.ordered_sums import OrderedSums
from trimtab.backbones import load_backbone
from trimtab.errors import ConfigError
from trimtab.prompt_table import PromptTable
from trimtab.readouts import has_distribution
from trimtab.registry import prompts, regularizers
from trimtab.training.objective import check_regularizers
from trimtab.training.packs import assembled
from trimtab.training.preparing import Prepared

__all__ = ["family_folder"]

Spec = Mapping[str, Any]

SWAPS: list[Spec] = [{"kind": "word_swap", **VISIBLE["word_swap"], "loss": loss} for loss in ("ce", "kl")]
OTHERS: list[Spec] = [
    *({"kind": kind, **VISIBLE.get(kind, {})} for kind in regularizers.kinds() if kind != "word_swap"),
    {"kind": "gaussian", "loss": "sym_kl", "target": "both", "sigma_relative": 0.5},
    {"kind": "pgd", "target": "prompt", "epsilon_relative": 0.5},
    {"kind": "pgd", "target": "both", "start": "uniform", "loss": "kl", "epsilon_relative": 0.5},
]
METHODS = [kind for kind in prompts.kinds() if kind not in ("none", "manual")]
SURE = ("cloze_choice",)
"""Readouts by which a random model is sure of an answer to the last bit, so that no divergence can be seen."""


def gradients(run: Prepared, *specs: Spec) -> dict[str, Tensor]:
    """What the first step of a run, on all its rows, puts on its prompt."""
    resolved = tuple(regularizers.resolve(spec, "regularizers") for spec in specs)
    built = [regularizers.build(spec) for spec in resolved]
    check_regularizers(built, [run.config.readout["kind"]], run.rows["train"], has_mask=True)
    training = run.config.training.model_copy(update={"batch_size": len(run.rows["train"])})
    changed = run.config.model_copy(update={"regularizers": resolved, "training": training})
    found: dict[str, Tensor] = {}

    def watch(leaf: PromptTable) -> None:
        found.update({n: v.grad.clone() for n, v in leaf.tensors.items() if v.grad is not None})

    with OrderedSums():
        assembled([replace(run, config=changed)])[0].first_steps(1, watch)
    return found


def check(run: Prepared, spec: Spec, plain: Mapping[str, Tensor]) -> None:
    """A finite gradient, another one than without; or a refusal, where there is no distribution to compare."""
    readout = run.config.readout["kind"]
    compares = regularizers.build(regularizers.resolve(spec, "regularizers")).needs.distribution
    if compares and not has_distribution(readout):
        with pytest.raises(ConfigError, match="no distribution over answers"):
            gradients(run, spec)
        return
    found = gradients(run, spec)
    assert found.keys() == plain.keys()
    assert all(bool(g.isfinite().all()) for g in found.values())
    moved = max(float((found[n] - g).abs().max()) for n, g in plain.items())
    assert moved > 1e-9 or (compares and readout in SURE), "it does nothing"


def check_all(model: Path, folder: Path, method: str, readouts: Sequence[str], specs: Sequence[Spec]) -> None:
    """Every cell.

    Args:
        readouts: all that the family has, where none are given.
    """
    backbone = load_backbone(str(model), dtype="float32", device="cpu")
    with untouched(backbone):
        for readout in readouts or backbone.family.readouts:
            run = prepared(folder, backbone, method, readout, 1)
            plain = gradients(run)
            for spec in specs:
                try:
                    check(run, spec, plain)
                except BaseException as error:
                    error.add_note(f"{name_of(spec)} with {method} and {readout}")
                    raise


@pytest.mark.parametrize(
    ("family", "specs"),
    [
        ("bert", OTHERS),
        pytest.param("bert", SWAPS, marks=pytest.mark.slow),
        pytest.param("gpt2", [*OTHERS, *SWAPS], marks=pytest.mark.slow),
        pytest.param("t5", [*OTHERS, *SWAPS], marks=pytest.mark.slow),
    ],
    ids=["bert", "bert-word_swap", "gpt2", "t5"],
)
def test_every_readout(
    family: str, specs: Sequence[Spec], family_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    check_all(family_folder(family), tmp_path, "prompt_tuning", [], specs)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method(method: str, family_folder: Callable[[str], Path], tmp_path: Path) -> None:
    check_all(family_folder("bert"), tmp_path, method, ["cloze"], [*OTHERS, *SWAPS])


@pytest.mark.slow
@pytest.mark.parametrize("family", MODELS)
def test_every_family(family: str, family_folder: Callable[[str], Path], tmp_path: Path) -> None:
    model = family_folder(family)
    first = load_backbone(str(model), device="cpu").family.readouts[0]
    check_all(model, tmp_path, "prompt_tuning", [first], [*OTHERS, *SWAPS])


def test_all_kinds_are_here() -> None:
    assert {spec["kind"] for spec in [*OTHERS, *SWAPS]} == set(regularizers.kinds())
