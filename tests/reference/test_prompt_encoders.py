"""Prompt encoders against loops over single numbers, written from the papers' equations."""

from __future__ import annotations

import math
from dataclasses import replace
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


@pytest.mark.parametrize("rank", [1, 3, 7])
def test_dpt_is_a_sum_of_outer_products(rank: int) -> None:
    """P_ij = sum over b of A_ib B_bj, DPT, equation 1, transposed."""
    encoder: Any = build("dpt", rank=rank)
    left, right, found = listed(encoder.left), listed(encoder.right), listed(encoder())
    for i in range(LENGTH):
        expected = [sum(left[i][b] * right[b][j] for b in range(rank)) for j in range(SIZE)]
        assert found[i] == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert torch.linalg.matrix_rank(encoder()) == min(rank, LENGTH)


def first_dpt(size: int = 400, rms: float = 0.7, **options: Any) -> Any:
    context = PromptContext(torch.ones(30, size), rms, range(30), [1], lambda text: [3], torch.Generator())
    return prompts.build(prompts.resolve({"kind": "dpt", "length": 400, **options}, "prompt"), context)


@pytest.mark.parametrize("rank", [4, 25])
def test_dpt_starts_at_the_size_of_the_embeddings_or_as_in_the_paper(rank: int) -> None:
    """An element is a sum of b products of two variables of variance h^2 / 3."""
    assert float(first_dpt(rank=rank)().detach().square().mean().sqrt()) == pytest.approx(0.7, rel=0.1)
    paper = first_dpt(rank=rank, range=0.5)
    for factor in (paper.left, paper.right):
        assert 0.49 < float(factor.detach().abs().max()) <= 0.5
    assert float(paper().detach().square().mean().sqrt()) == pytest.approx(rank**0.5 * 0.25 / 3, rel=0.1)


@pytest.mark.parametrize("rank", [1, 2, 4, 9])
def test_dpt_starts_at_the_nearest_rows_that_its_rank_allows(rank: int) -> None:
    """Eckart and Young: what is left of the rows are the singular values behind the first b."""
    context = PromptContext(
        torch.randn(30, SIZE, generator=torch.Generator().manual_seed(1)), 0.7, range(30), [1], lambda text: [3],
        torch.Generator().manual_seed(2),
    )  # fmt: skip
    spec = {"kind": "dpt", "length": 3, "rank": rank, "initializer": {"kind": "text", "text": "x"}}
    text = [context.embeddings[3] * k for k in (1, 2, 3)]
    rows = torch.stack([row + 0.1 * context.embeddings[k] for k, row in enumerate(text)])
    encoder: Any = prompts.build(
        prompts.resolve(spec, "prompt"), replace(context, embeddings=rows, encode=lambda t: [0, 1, 2])
    )
    left_over = torch.linalg.svdvals(rows)[rank:].square().sum().sqrt()
    assert float((encoder() - rows).detach().norm()) == pytest.approx(float(left_over), abs=1e-5)
    encoder().sum().backward()
    assert bool((encoder.left.grad.abs().sum(0) + encoder.right.grad.abs().sum(1) > 0).all()), "a dead direction"


@pytest.mark.parametrize("tuned", [False, True], ids=["frozen", "tuned"])
def test_superpos_is_a_weighted_sum_of_the_embeddings_of_words(tuned: bool) -> None:
    """p_i = sum over j of w_ij e_j."""
    encoder: Any = build("superpos", words=5, tune_words=tuned)
    weights, words, found = listed(encoder.weights), listed(encoder.rows), listed(encoder())
    for i in range(LENGTH):
        expected = [sum(weights[i][j] * words[j][k] for j in range(5)) for k in range(SIZE)]
        assert found[i] == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert [n for n, _ in encoder.named_parameters()] == ["weights", *(["rows"] if tuned else [])]


def test_superpos_sums_up_distinct_words_of_the_vocabulary_and_starts_at_their_size() -> None:
    embeddings = torch.randn(500, 64, generator=torch.Generator().manual_seed(1)) * 0.2
    context = PromptContext(embeddings, 0.2, range(30, 500), [1], lambda text: [3], torch.Generator().manual_seed(2))
    encoder: Any = prompts.build(prompts.resolve({"kind": "superpos", "length": 50}, "prompt"), context)
    drawn = [int((embeddings == row).all(1).nonzero()) for row in encoder.rows]
    assert len(set(drawn)) == 128
    assert min(drawn) >= 30
    assert float(encoder().detach().square().mean().sqrt()) == pytest.approx(0.2, rel=0.1)
