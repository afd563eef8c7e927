"""Prompt encoders against loops over single numbers, written from the papers' equations."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trimtab.batching import collate
from trimtab.initializers import PromptContext
from trimtab.injection import choose, place_prompt
from trimtab.prompt_table import table_of
from trimtab.prompts import PromptEncoder
from trimtab.registry import prompts
from trimtab.types import Batch, Encoded, Row

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


# Encoders that look at the text --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scale", "unit"), [("scaled", 0.7), ("paper", 1.0)])
def test_dept_is_a_prompt_and_a_low_rank_offset_per_token(scale: str, unit: float) -> None:
    """Row n of alpha / sqrt(r) A B, DePT, section 2; 0.7 is the embeddings' root mean square here."""
    encoder: Any = build("dept", rank=3, text_length=5, alpha=2.0, scale=scale)
    left, right, parts = listed(encoder.left), listed(encoder.right), encoder()
    assert torch.equal(parts["inputs"], encoder.rows)
    found = listed(parts["text_offset"])
    assert len(found) == 5
    for n in range(5):
        product = [sum(left[n][b] * right[b][j] for b in range(3)) for j in range(SIZE)]
        assert found[n] == pytest.approx([2.0 / math.sqrt(3) * unit * v for v in product], rel=1e-5, abs=1e-6)


def test_dept_starts_without_an_offset_and_with_a_random_factor() -> None:
    context = PromptContext(torch.ones(30, SIZE), 0.7, range(30), [1], lambda text: [3], torch.Generator())
    encoder: Any = prompts.build(prompts.resolve({"kind": "dept", "rank": 4}, "prompt"), context)
    assert float(encoder()["text_offset"].detach().abs().max()) == 0.0
    assert encoder.left.shape == (256, 4)
    assert 0.45 < float(encoder.left.detach().abs().max()) <= 0.5, "kaiming with a = sqrt 5: 1 / sqrt r"


WORDS = [
    [0.5, -1.0, 0.2, 0.0, 1.5, -0.3],
    [1.0, 0.4, -0.7, 0.9, -0.2, 0.1],
    [9.0] * SIZE,
    [-0.6, 0.8, 0.3, 0.7, 0.2, 2.0],
]
"""Embeddings of a row: two tokens of text, a slot, and one more of text."""


def one_row(jitter: Vector | None = None) -> Batch:
    batch = collate([Row(Encoded((5, 6, 7, 8), (2,), (0,), text=(0, 1, 3)), prompt=0)], 0)
    return batch if jitter is None else replace(batch, jitter=torch.tensor([jitter]))


def smop(k: int, **options: Any) -> Any:
    encoder: Any = build("smop", prompts=k, **{"length": 1, **options})
    return encoder


@pytest.mark.parametrize("jitter", [None, [0.3, -1.7, 0.9]], ids=["evaluation", "training"])
def test_smop_is_the_papers_equation(jitter: Vector | None) -> None:
    """softmax(W mean E(x)), in training with factors 1 + sigma z; the likeliest prompt, times its probability."""
    encoder, sigma = smop(3, noise=0.8), 0.8
    assert encoder.router_noise == sigma
    parts = {name: part[None] for name, part in encoder().items()}
    table = table_of(parts, noise=sigma)
    embeds = torch.tensor([WORDS])
    placed = place_prompt(embeds, table, one_row(jitter), choose(embeds, table, one_row(jitter)))

    mean = [(WORDS[0][j] + WORDS[1][j] + WORDS[3][j]) / 3 for j in range(SIZE)]
    router, rows = listed(encoder.router), listed(encoder.rows)
    scores = [sum(w * m for w, m in zip(its, mean, strict=True)) for its in router]
    shaken = [s * (1 + sigma * z) for s, z in zip(scores, jitter or [0.0] * 3, strict=True)]
    total = sum(math.exp(s) for s in shaken)
    shares = [math.exp(s) / total for s in shaken]
    best = shares.index(max(shares))
    assert listed(placed[0, 2]) == pytest.approx([shares[best] * v for v in rows[best]], rel=1e-5)
    assert torch.equal(placed[0, [0, 1, 3]], embeds[0, [0, 1, 3]])

    # d s_best / d w_i = s_best (1[i = best] - s_i) mean: the noise is held constant
    placed[0, 2].sum().backward()
    for i in range(3):
        slope = sum(rows[best]) * shares[best] * ((i == best) - shares[i])
        assert listed(encoder.router.grad[i]) == pytest.approx([slope * m for m in mean], rel=1e-4, abs=1e-6)


def test_smop_starts_at_words_and_with_an_orthogonal_router_in_units_of_the_embeddings() -> None:
    embeddings = 0.1 * torch.randn(50, SIZE, generator=torch.Generator().manual_seed(1))
    context = PromptContext(embeddings, 0.1, range(50), [1], lambda text: [3], torch.Generator().manual_seed(2))
    for option, gain in (("scaled", 10.0), ("paper", 1.0)):
        encoder: Any = prompts.build(prompts.resolve({"kind": "smop", "router": option}, "prompt"), context)
        weights = encoder.router.detach()
        torch.testing.assert_close(weights @ weights.T, gain**2 * torch.eye(4), rtol=1e-4, atol=1e-4)
        drawn = [int((embeddings == row).all(1).nonzero()) for row in encoder.rows.detach()]
        assert len({tuple(drawn[i : i + 5]) for i in range(0, 20, 5)}) == 4
