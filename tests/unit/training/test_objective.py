"""What regularizers a run may have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.tiny import toy_task
from tests.unit.refusals import refused
from trimtab.config import RunConfig, resolve
from trimtab.errors import ConfigError
from trimtab.registry import regularizers
from trimtab.training.objective import check_regularizers
from trimtab.training.preparing import check_components
from trimtab.types import Encoded, Row


def config(folder: Path, prompt: str, specs: list[Any]) -> RunConfig:
    sections = {"task": toy_task(folder), "prompt": prompt, "readout": "head", "seed": 1, "regularizers": specs}
    return resolve(sections).config


@pytest.mark.parametrize(
    "spec", [{"kind": "sam"}, *({"kind": k, "target": "prompt"} for k in ("gaussian", "pgd", "r3f", "smart", "freelb"))]
)
def test_a_prompt_that_is_not_there_cannot_be_perturbed(spec: dict[str, Any], tmp_path: Path) -> None:
    kind, fix = spec["kind"], "Perturb the text instead, or train a prompt."
    with refused(ConfigError, f"no prompt that {kind!r} could perturb", where="regularizers.1", fix=fix):
        check_components(config(tmp_path, "none", ["duplicate", spec]))
    check_components(config(tmp_path, "none", [{**spec, "target": "both"}] if kind != "sam" else ["gaussian"]))
    check_components(config(tmp_path, "prompt_tuning", [spec]))
    check_components(config(tmp_path, "deep", [spec]))


@pytest.mark.parametrize("kind", ["pgd", "smart", "freelb", "sam"])
def test_a_radius_is_given_in_one_way(kind: str) -> None:
    with refused(ConfigError, "give epsilon or epsilon_relative, not both", where="regularizers"):
        regularizers.build(
            regularizers.resolve({"kind": kind, "epsilon": 0.1, "epsilon_relative": 0.1}, "regularizers.0")
        )


@pytest.mark.parametrize("kind", ["gaussian", "r3f"])
def test_a_size_of_noise_is_given_in_one_way(kind: str) -> None:
    with refused(ConfigError, "give sigma or sigma_relative, not both", where="regularizers"):
        regularizers.build(regularizers.resolve({"kind": kind, "sigma": 0.1, "sigma_relative": 0.1}, "regularizers.0"))


def test_no_more_than_the_clean_loss_is_replaced() -> None:
    rows = [Row(Encoded(ids=(1, 2), slots=(), answer_at=(1,), eligible=(0,)))]

    def check(*weights: float) -> None:
        built = [
            regularizers.build(regularizers.resolve({"kind": kind, "weight": w}, "regularizers"))
            for kind, w in zip(("neftune", "freelb", "sam", "neftune"), weights, strict=False)
        ]
        check_regularizers(built, ["cloze"], rows, has_mask=True)

    check(0.01, 0.2, 0.68, 0.11)  # more than 1 in binary
    with refused(ConfigError, "may weigh 1 together, got 1.1", where="regularizers", fix="Lower their weights."):
        check(0.5, 0.6)


@pytest.mark.parametrize("kind", ["freelb", "neftune", "sam"])
def test_one_of_them_cannot_replace_more_than_all(kind: str) -> None:
    with refused(ConfigError, "less than or equal to 1, got 1.5", where="regularizers.0.weight"):
        regularizers.resolve({"kind": kind, "weight": 1.5}, "regularizers.0")
