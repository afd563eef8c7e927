"""What every prompt encoder promises, checked over the registry; broken encoders show that each check can fail."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.contract.toy_runs import (
    ENCODERS,
    LENGTH,
    TINY,
    build,
    context,
    name_of,
    others_slow,
    reader,
    rows_of,
    searches,
    toy_rendering,
)
from trimtab.backbones import Backbone
from trimtab.config import Seeds, TrainingConfig
from trimtab.files import read_tensors, write_tensors
from trimtab.model import PromptedModel
from trimtab.prompt_table import table_of
from trimtab.prompts import PromptEncoder
from trimtab.registry import prompts
from trimtab.training.encoder_pack import EncoderPack
from trimtab.training.loop import Loop, Member

MakeEncoder = Callable[[int], PromptEncoder]
SIZE = 32
TOY_RATES = {"prompt_tuning": 0.1, "p_tuning_lstm": 0.03, "p_tuning_mlp": 0.03, "residual": 0.05}

every_encoder = pytest.mark.parametrize("spec", ENCODERS, ids=name_of)


def maker(spec: Mapping[str, Any]) -> MakeEncoder:
    """seed -> encoder, from the registry."""
    return lambda seed: build(spec, seed, SIZE)


# The promises --------------------------------------------------------------------------------------------------------


def check_length(make: MakeEncoder) -> None:
    """A call returns P vectors of size E, of each prompt that a router chooses from, in training and in evaluation; all
    parts are float32."""
    for training in (True, False):
        parts = make(0).train(training).parts()
        assert parts["inputs"].shape == (LENGTH * len(parts.get("router", [0])), SIZE)
        assert {part.dtype for part in parts.values()} == {torch.float32}


def check_gradients(make: MakeEncoder) -> None:
    """Every parameter has an element that the prompt depends on.

    With a prompt of one row this would be impossible for an LSTM's recurrent weights (their input is the zero state),
    so the contract is stated for LENGTH rows. The loss weighs elements at random: a plain sum is blind to whatever
    LayerNorm holds constant. All parameters are drawn first: one that starts at zero hides what it is multiplied with.
    """
    encoder, generator = make(0).eval(), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    weighed = [(part * torch.randn(part.shape, generator=generator)).sum() for part in encoder.parts().values()]
    torch.stack(weighed).sum().backward()
    assert dict(encoder.named_parameters()), "an encoder must have parameters"
    for name, parameter in encoder.named_parameters():
        assert parameter.numel() > 0, name
        assert parameter.grad is not None, f"{name} gets no gradient"
        assert parameter.grad.shape == parameter.shape, name
        assert bool(parameter.grad.isfinite().all()), name
        assert float(parameter.grad.abs().sum()) > 0, f"the gradient of {name} is zero"


def check_seed(make: MakeEncoder) -> None:
    """The seed decides all first values, and different seeds give different ones."""
    torch.manual_seed(1)
    one = make(4)
    torch.manual_seed(2)
    two, other = make(4), make(5)
    for (name, a), b in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
        assert torch.equal(a, b), f"{name} is not decided by the seed"
    assert same(one.eval().parts(), two.eval().parts())
    assert not torch.equal(one.parts()["inputs"], other.eval().parts()["inputs"])


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether two prompts are equal in all their parts."""
    return one.keys() == other.keys() and all(torch.equal(part, other[name]) for name, part in one.items())


def check_materialize(make: MakeEncoder) -> None:
    """`materialize()` is the evaluation-mode output, detached, a copy, and leaves the mode alone.

    Bit for bit without gradients; torch's LSTM has another kernel for calls that record them.
    """
    encoder = make(0)
    with torch.no_grad():
        expected = {name: part.clone() for name, part in encoder.eval().parts().items()}
    for name, part in encoder.parts().items():
        torch.testing.assert_close(part.detach(), expected[name], rtol=1e-5, atol=1e-6)
    encoder.train()
    found = encoder.materialize()
    assert encoder.training, "materialize must not change the mode"
    assert same(found, expected), "materialize differs from the eval() output"
    assert same(encoder.materialize(), found), "materialize is random"
    assert not any(part.requires_grad for part in found.values())
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(1.0)
    assert same(found, expected), "the materialized prompt shares memory with the encoder"


def check_round_trip(make: MakeEncoder, folder: Path) -> None:
    """The parameters, written to safetensors and read into another encoder, give the same prompt."""
    source, target = make(0), make(1)
    write_tensors(folder / "encoder.safetensors", {k: v.numpy() for k, v in source.state_dict().items()})
    target.load_state_dict({k: torch.from_numpy(v) for k, v in read_tensors(folder / "encoder.safetensors").items()})
    assert same(target.materialize(), source.materialize()), "the state does not carry the whole encoder"


def check_count(make: MakeEncoder, options: Mapping[str, Any]) -> None:
    """The stated numbers of parameters that are trained and kept are the real ones."""
    encoder = make(0)
    stated = encoder.count(LENGTH, SIZE, **options)
    assert stated == sum(p.numel() for p in encoder.parameters() if p.requires_grad)
    assert encoder.kept(LENGTH, SIZE, **options) == sum(part.numel() for part in encoder.materialize().values())


def check_pack_agrees(make: MakeEncoder) -> None:
    """Stacked in a pack, each member gives what it gives alone, in evaluation."""
    encoders = [make(seed).eval() for seed in (0, 1, 2)]
    table = EncoderPack(encoders, [0, 1, 2]).table(training=False).tensors
    for r, encoder in enumerate(encoders):
        for name, part in encoder.parts().items():
            torch.testing.assert_close(table[name][r], part, rtol=1e-5, atol=1e-6)


def check_randomness_is_declared(make: MakeEncoder) -> None:
    """`is_random` is true exactly where training-mode calls differ from each other."""
    encoder = make(0).train()
    torch.manual_seed(0)
    assert encoder.is_random == (not same(encoder.parts(), encoder.parts()))


def check_learns(make: MakeEncoder, backbone: Backbone, rate: float) -> None:
    """Trained on the two-class toy, two seeds average a test accuracy of at least 0.9 (chance is 0.5)."""
    rendering = toy_rendering(backbone)
    model = PromptedModel(backbone, reader(backbone, rendering))
    train, dev, test = (rows_of(backbone, rendering, n, seed=s) for s, n in ((0, 256), (1, 64), (2, 64)))
    settings = TrainingConfig(
        learning_rate=rate, epochs=1, min_steps=120, batch_size=32, evaluations=6, select="accuracy"
    )
    seeds = (1, 2)
    members = [Member(Seeds(init=s, data_order=s, subset=s, noise=s), settings, train, dev) for s in seeds]
    pack = EncoderPack([make(s) for s in seeds], seeds)
    Loop(model, pack, members).run()
    gold = torch.tensor([r.label for r in test])
    accuracy = []
    for r in range(len(seeds)):
        parts = {name: part[None] for name, part in pack.materialize(r).items()}
        scores = model.score_rows(test, table_of(parts), 8192)
        accuracy.append(float((scores.argmax(1) == gold).float().mean()))
    assert sum(accuracy) / len(accuracy) >= 0.9, f"the toy was not learned: {accuracy}"


# The promises, kept by every encoder of the registry -----------------------------------------------------------------


@every_encoder
def test_has_the_configured_length(spec: dict[str, Any]) -> None:
    check_length(maker(spec))


@every_encoder
def test_every_parameter_gets_a_gradient(spec: dict[str, Any]) -> None:
    check_gradients(maker(spec))


@every_encoder
def test_same_seed_gives_the_same_encoder(spec: dict[str, Any]) -> None:
    check_seed(maker(spec))


@every_encoder
def test_materialize_equals_the_eval_output(spec: dict[str, Any]) -> None:
    check_materialize(maker(spec))


@every_encoder
def test_state_round_trip_gives_the_same_prompt(spec: dict[str, Any], tmp_path: Path) -> None:
    check_round_trip(maker(spec), tmp_path)


@every_encoder
def test_stated_count_is_the_real_one(spec: dict[str, Any]) -> None:
    options = prompts.resolve({**spec, "length": LENGTH}, "prompt")
    check_count(maker(spec), {k: v for k, v in options.items() if k not in ("kind", "length", "initializer")})


@every_encoder
def test_a_pack_gives_what_each_encoder_gives_alone(spec: dict[str, Any]) -> None:
    check_pack_agrees(maker(spec))


@every_encoder
def test_randomness_in_training_is_declared(spec: dict[str, Any]) -> None:
    check_randomness_is_declared(maker(spec))


DESCENDING = [spec for spec in ENCODERS if not searches(spec["kind"])]
"""Words found by search reach less than vectors: tests/contract/test_baselines.py."""


@pytest.mark.parametrize("spec", others_slow(DESCENDING), ids=name_of)
def test_learns_the_toy(spec: dict[str, Any], backbone: Backbone) -> None:
    check_learns(maker(spec), backbone, TOY_RATES.get(spec["kind"], 0.03))


def test_length_of_one_row_works_for_every_kind() -> None:
    for kind in {spec["kind"] for spec in ENCODERS}:
        parts = build({"kind": kind, **TINY.get(kind, {})}, length=1).parts()
        assert parts["inputs"].shape == (len(parts.get("router", [0])), SIZE)


@pytest.mark.parametrize(
    ("kind", "size", "length", "options", "published"),
    [
        # P-tuning, LAMA code: methods.md A.3.2, template (3,3,3)
        ("p_tuning_lstm", 768, 9, {}, 8_278_272),
        ("p_tuning_lstm", 1024, 9, {}, 14_707_712),
        ("p_tuning_lstm", 1600, 9, {}, 35_883_200),
        # P-tuning, SuperGLUE code: methods.md A.3.3
        ("p_tuning_lstm", 128, 1, {"width": "full"}, 708_992),
        # Residual: methods.md A.1.4, with biases
        ("residual", 768, 10, {"bottleneck": 400}, 624_784),
        ("residual", 768, 100, {"bottleneck": 400}, 693_904),
        ("residual", 768, 10, {"bottleneck": 800}, 1_239_584),
        ("residual", 768, 10, {"bottleneck": 50}, 86_834),
        ("residual", 1024, 10, {"bottleneck": 400}, 832_912),
        ("residual", 1024, 100, {}, 925_072),
        ("residual", 1024, 100, {"bottleneck": 800}, 1_744_672),
        ("prompt_tuning", 768, 100, {}, 76_800),
        # DPT: figure 1, "11.2K" for T5-large
        ("dpt", 1024, 100, {}, 11_240),
        # DePT: as many as 100 vectors (methods.md D)
        ("dept", 768, 40, {"rank": 45}, 76_800),
    ],
)
def test_formula_gives_the_published_count(
    kind: str, size: int, length: int, options: dict[str, Any], published: int
) -> None:
    assert prompts.get(kind).count(length, size, **options) == published  # type: ignore[attr-defined]


def test_numbers_in_docstrings_are_those_of_the_formula() -> None:
    import trimtab.prompts.dept as dept
    import trimtab.prompts.dpt as dpt
    import trimtab.prompts.p_tuning_lstm as lstm
    import trimtab.prompts.residual as residual
    import trimtab.prompts.smop as smop
    import trimtab.prompts.superpos as superpos

    assert f"{dept.DePT.count(40, 768, rank=45):,}" in str(dept.__doc__)
    assert f"{smop.SMoP.count(5, 768):,}" in str(smop.__doc__)
    assert f"{dpt.DPT.count(100, 1024):,}" in str(dpt.__doc__)
    assert f"{superpos.SuperPos.count(10, 768):,}" in str(superpos.__doc__)
    assert f"{lstm.PTuningLSTM.count(9, 768):,}" in str(lstm.__doc__)
    assert f"{residual.Residual.count(100, 1024):,}" in str(residual.__doc__)


# Saboteurs: each breaks one promise, and the check of that promise must notice ---------------------------------------


class Plain(PromptEncoder):
    """A correct encoder, the base of the broken ones."""

    default_learning_rate = 0.1

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(context(SIZE, seed).rows(range(seed + 5, seed + 5 + LENGTH)))

    def forward(self) -> Tensor:
        return self.rows * 1.0

    @staticmethod
    def count(length: int, size: int, **options: object) -> int:
        return length * size


class ReturnsItsRows(Plain):
    """Correct too: its output is the parameter itself, so the copy is up to `materialize`."""

    def forward(self) -> Tensor:
        return self.rows


class TooShort(Plain):
    def forward(self) -> Tensor:
        return self.rows[:-1] * 1.0


class HalfPrecision(Plain):
    def forward(self) -> Tensor:
        return self.rows.bfloat16()


class DeadParameter(Plain):
    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.unused = nn.Parameter(torch.zeros(3))


class DetachedParameter(Plain):
    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self) -> Tensor:
        return self.rows * self.scale.detach()


class ZeroedParameter(Plain):
    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.shift = nn.Parameter(torch.zeros(SIZE))

    def forward(self) -> Tensor:
        return self.rows + 0.0 * self.shift


class Unseeded(Plain):
    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        entropy = int.from_bytes(os.urandom(4))
        self.rows = nn.Parameter(torch.from_numpy(np.random.default_rng(entropy).normal(size=(LENGTH, SIZE))).float())


class DeafToSeed(Plain):
    def __init__(self, seed: int) -> None:
        super().__init__(0)


class DropoutLeftOn(Plain):
    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.drop = nn.Dropout(0.5)

    def forward(self) -> Tensor:
        return self.drop(self.rows)

    def materialize(self) -> dict[str, Tensor]:
        return {"inputs": self.train()().detach().clone()}


class StuckInEval(Plain):
    def materialize(self) -> dict[str, Tensor]:
        return {"inputs": self.eval()().detach().clone()}


class SharedMemory(Plain):
    def materialize(self) -> dict[str, Tensor]:
        return {"inputs": self.rows.detach()}


class HiddenState(Plain):
    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.offset = torch.full((SIZE,), float(seed))

    def forward(self) -> Tensor:
        return self.rows + self.offset


class WrongCount(Plain):
    @staticmethod
    def count(length: int, size: int, **options: object) -> int:
        return length * size + 1


class SecretlyRandom(Plain):
    def forward(self) -> Tensor:
        return self.rows + torch.randn(LENGTH, SIZE) if self.training else self.rows * 1.0


class NotStackable(Plain):
    """Remembers its first output, so a pack would give every member the prompt of one."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.offset = torch.full((SIZE,), float(seed))

    def forward(self) -> Tensor:
        return self.rows + self.offset


class NeverLearns(Plain):
    def forward(self) -> Tensor:
        return self.rows.detach() + 0.0 * self.rows


def test_the_base_of_the_saboteurs_keeps_every_promise(tmp_path: Path, backbone: Backbone) -> None:
    check_length(Plain)
    check_gradients(Plain)
    check_seed(Plain)
    check_materialize(Plain)
    check_round_trip(Plain, tmp_path)
    check_count(Plain, {})
    check_pack_agrees(Plain)
    check_randomness_is_declared(Plain)
    check_learns(Plain, backbone, 0.1)


def test_materialize_copies_where_the_output_is_the_parameter_itself() -> None:
    check_materialize(ReturnsItsRows)


@pytest.mark.parametrize(
    ("saboteur", "check"),
    [
        (TooShort, check_length),
        (HalfPrecision, check_length),
        (DeadParameter, check_gradients),
        (DetachedParameter, check_gradients),
        (ZeroedParameter, check_gradients),
        (NeverLearns, check_gradients),
        (Unseeded, check_seed),
        (DeafToSeed, check_seed),
        (DropoutLeftOn, check_materialize),
        (StuckInEval, check_materialize),
        (SharedMemory, check_materialize),
        (SecretlyRandom, check_randomness_is_declared),
        (NotStackable, check_pack_agrees),
    ],
    ids=lambda value: value.__name__,
)
def test_saboteur_is_caught(saboteur: type[Plain], check: Callable[[MakeEncoder], None]) -> None:
    with pytest.raises(AssertionError):
        check(saboteur)


def test_saboteur_with_state_outside_its_parameters_is_caught(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="whole encoder"):
        check_round_trip(HiddenState, tmp_path)


def test_saboteur_with_a_wrong_count_is_caught() -> None:
    with pytest.raises(AssertionError):
        check_count(WrongCount, {})


def test_saboteur_that_cannot_learn_is_caught(backbone: Backbone) -> None:
    with pytest.raises(AssertionError, match="not learned"):
        check_learns(NeverLearns, backbone, 0.1)
