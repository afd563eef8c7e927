"""Prompt encoders against loops over single numbers, written from the papers' equations."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trimtab.initializers import PromptContext
from trimtab.prompts import PromptEncoder
from trimtab.registry import prompts

SIZE, LENGTH = 6, 4

Vector = list[float]
Matrix = list[list[float]]


def build(kind: str, **options: Any) -> PromptEncoder:
    """A small encoder whose parameters are all random, those that start at zero or one included."""
    embeddings = torch.randn(30, SIZE, generator=torch.Generator().manual_seed(1))
    context = PromptContext(
        embeddings=embeddings,
        embedding_rms=0.7,
        words=range(30),
        label_ids=[1, 2],
        encode=lambda text: [3],
        generator=torch.Generator().manual_seed(2),
    )
    encoder = prompts.build(prompts.resolve({"kind": kind, "length": LENGTH, **options}, "prompt"), context)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return encoder.eval()


def listed(tensor: Tensor) -> Any:
    return tensor.detach().double().tolist()


def affine(weight: Matrix, bias: Vector, x: Vector) -> Vector:
    """W x + b, one number at a time."""
    return [sum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in zip(weight, bias, strict=True)]


def relu(x: Vector) -> Vector:
    return [v if v > 0 else 0.0 for v in x]


def sigmoid(v: float) -> float:
    return 1 / (1 + math.exp(-v))


def normalized(x: Vector, gain: Vector, shift: Vector) -> Vector:
    """LayerNorm with the usual 1e-5."""
    mean = sum(x) / len(x)
    variance = sum((v - mean) ** 2 for v in x) / len(x)
    return [(v - mean) / math.sqrt(variance + 1e-5) * g + s for v, g, s in zip(x, gain, shift, strict=True)]


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "separate"])
@pytest.mark.parametrize("layer_norm", ["scaled", "on", "off"])
def test_residual_is_the_papers_equation_row_by_row(shared: bool, layer_norm: str) -> None:
    """P'_i = p_i + LayerNorm(W_up relu(W_down p_i + b1) + b2), Residual Prompt Tuning, section 3."""
    encoder: Any = build("residual", bottleneck=3, shared=shared, layer_norm=layer_norm)
    found = listed(encoder())
    for i in range(LENGTH):
        own = 0 if shared else i
        row = listed(encoder.rows[i])
        inner = relu(affine(listed(encoder.down[own]), listed(encoder.down_bias[own]), row))
        branch = affine(listed(encoder.up[own]), listed(encoder.up_bias[own]), inner)
        if layer_norm != "off":
            branch = normalized(branch, listed(encoder.gain[own]), listed(encoder.shift[own]))
        assert found[i] == pytest.approx([r + b for r, b in zip(row, branch, strict=True)], rel=1e-5, abs=1e-6)


def test_residual_with_shared_network_commutes_with_permutations_of_the_rows() -> None:
    encoder: Any = build("residual", bottleneck=3)
    before, order = encoder().detach(), [2, 0, 3, 1]
    with torch.no_grad():
        encoder.rows.copy_(encoder.rows[order].clone())
    torch.testing.assert_close(encoder().detach(), before[order])


def test_residual_gain_starts_where_the_option_says() -> None:
    context = PromptContext(torch.ones(30, SIZE), 0.7, range(30), [1], lambda text: [3], torch.Generator())
    for option, start in (("scaled", 0.7), ("on", 1.0)):
        encoder: Any = prompts.build(prompts.resolve({"kind": "residual", "layer_norm": option}, "prompt"), context)
        torch.testing.assert_close(encoder.gain.detach(), torch.full((1, SIZE), start))
        assert float(encoder.shift.detach().abs().sum()) == 0.0


def test_residual_branch_starts_at_the_size_of_the_embeddings() -> None:
    """LayerNorm makes the branch's root mean square that of its gain (methods.md A.1.8)."""
    embeddings = 0.05 * torch.randn(30, SIZE, generator=torch.Generator().manual_seed(1))
    rms = float(embeddings.square().mean().sqrt())
    context = PromptContext(embeddings, rms, range(30), [1], lambda text: [3], torch.Generator().manual_seed(0))
    encoder: Any = prompts.build(prompts.resolve("residual", "prompt"), context)
    branch = (encoder() - encoder.rows).detach()
    assert float(branch.square().mean().sqrt()) == pytest.approx(rms, rel=0.05)


def test_residual_dropout_stands_before_layer_norm_and_only_in_training() -> None:
    """With a rate near 1 the branch is dropped whole, and LayerNorm of zeros leaves its shift."""
    encoder: Any = build("residual", bottleneck=3, dropout=0.999999)
    torch.manual_seed(0)
    torch.testing.assert_close(encoder.train()(), encoder.rows + encoder.shift)
    assert not torch.allclose(encoder.eval()(), encoder.rows + encoder.shift)


@pytest.mark.parametrize("width", [0, 5])
def test_p_tuning_mlp_is_two_layers_per_row(width: int) -> None:
    encoder: Any = build("p_tuning_mlp", width=width)
    linears = [m for m in encoder.modules() if isinstance(m, nn.Linear)]
    assert [m.out_features for m in linears] == [width or SIZE, SIZE]
    found = listed(encoder())
    for i in range(LENGTH):
        x = relu(affine(listed(linears[0].weight), listed(linears[0].bias), listed(encoder.rows[i])))
        assert found[i] == pytest.approx(
            affine(listed(linears[1].weight), listed(linears[1].bias), x), rel=1e-5, abs=1e-6
        )


def recurrence(inputs: list[Vector], parameters: dict[str, Any]) -> list[Vector]:
    """One LSTM layer in one direction, from a zero state (Hochreiter and Schmidhuber 1997, with forget gate).

    Torch stacks the gates in the order input, forget, cell, output and has two biases.
    """
    units = len(parameters["weight_hh"][0])
    state, cell, outputs = [0.0] * units, [0.0] * units, []
    for x in inputs:
        gates = [
            a + b
            for a, b in zip(
                affine(parameters["weight_ih"], parameters["bias_ih"], x),
                affine(parameters["weight_hh"], parameters["bias_hh"], state),
                strict=True,
            )
        ]
        enter, forget, new, leave = (gates[k * units : (k + 1) * units] for k in range(4))
        cell = [sigmoid(f) * c + sigmoid(i) * math.tanh(g) for f, c, i, g in zip(forget, cell, enter, new, strict=True)]
        state = [sigmoid(o) * math.tanh(c) for o, c in zip(leave, cell, strict=True)]
        outputs.append(state)
    return outputs


@pytest.mark.parametrize(("width", "units"), [("half", SIZE // 2), ("full", SIZE)])
def test_p_tuning_lstm_is_two_recurrent_layers_in_both_directions_and_an_mlp(width: str, units: int) -> None:
    encoder: Any = build("p_tuning_lstm", width=width)
    raw = {n.removeprefix("lstm."): listed(p) for n, p in encoder.named_parameters() if n.startswith("lstm.")}
    assert len(raw) == 2 * 2 * 4, "two layers, two directions, four tensors"
    assert len(raw["weight_hh_l0"][0]) == units
    sequence: list[Vector] = listed(encoder.rows)
    for layer in (0, 1):
        named = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        forward = recurrence(sequence, {n: raw[f"{n}_l{layer}"] for n in named})
        backward = recurrence(sequence[::-1], {n: raw[f"{n}_l{layer}_reverse"] for n in named})[::-1]
        sequence = [f + b for f, b in zip(forward, backward, strict=True)]
    first, second = (m for m in encoder.modules() if isinstance(m, nn.Linear))
    found = listed(encoder())
    for i, x in enumerate(sequence):
        inner = relu(affine(listed(first.weight), listed(first.bias), x))
        expected = affine(listed(second.weight), listed(second.bias), inner)
        assert found[i] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_prompt_tuning_is_its_rows() -> None:
    encoder = build("prompt_tuning")
    assert torch.equal(encoder(), encoder.rows)
