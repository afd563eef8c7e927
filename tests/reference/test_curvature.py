"""Curvature of real models, against the whole Hessian as torch builds it, and against curvlinops where it is there.

curvlinops is not installed with the development tools: it asks for backpack, that for torchvision, and the wheel of
torchvision that fits the pinned torch does not load beside a torch for the CPU. To run its check:
`pip install --no-deps curvlinops-for-pytorch==3.0.1 linear_operator==0.6.1 einops==0.8.2 einconv==0.1.0
opt_einsum==3.4.0`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.contract import tiny_families
from tests.unit.landscape.toy_losses import toy_loss
from trimtab.backbones import load_backbone
from trimtab.landscape.coordinates import around_prompt, around_texts
from trimtab.landscape.eigenvalues import dense, top_eigenvalues
from trimtab.landscape.lanczos import spectrum
from trimtab.landscape.neighborhood import Curvature, Neighborhood
from trimtab.landscape.point import LossAt
from trimtab.landscape.trace import trace

FAMILIES = ["bert", "gpt2", "llama", "deberta-v2", "t5"]
Opened = Callable[..., LossAt]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    """The toy's loss on a tiny model of a family, with a prompt of one vector, or of one key and value a layer."""
    models: dict[str, Any] = {}

    def found(name: str, length: int = 1, deep: int = 0) -> LossAt:
        if name not in models:
            folder = tiny_families.BUILDERS[name](tmp_path_factory.mktemp("curvature") / name)
            models[name] = load_backbone(str(folder), dtype="float32", device="cpu", attention="eager")
        return toy_loss(models[name], 3, length=length, deep=deep)

    return found


def whole(around: Neighborhood) -> np.ndarray:
    """The Hessian of the sum of the losses, by reverse passes of torch alone."""
    found = torch.autograd.functional.hessian(lambda z: around.losses(z).sum(), around.origin())
    return np.asarray(found.double().numpy())


@pytest.mark.parametrize("deep", [False, True], ids=["input", "deep"])
@pytest.mark.parametrize("name", FAMILIES)
def test_numbers_are_those_of_the_whole_hessian(opened: Opened, name: str, deep: bool) -> None:
    around = around_prompt(opened(name, 0 if deep else 3, 1 if deep else 0))
    curvature = Curvature(around)
    matrix = whole(around)
    scale = np.abs(matrix).max()
    assert scale > 1e-4
    exact = np.linalg.eigvalsh(matrix)
    vector = torch.randn(around.size, generator=torch.Generator().manual_seed(1))
    np.testing.assert_allclose(curvature.product(vector).numpy(), matrix @ vector.numpy(), atol=1e-4 * scale, rtol=1e-3)
    np.testing.assert_allclose(top_eigenvalues(curvature, 3).values, exact[::-1][:3], rtol=1e-3, atol=1e-3 * exact[-1])
    its = spectrum(curvature, 24, 1)
    assert its.largest()[0] == pytest.approx(exact[-1], rel=1e-2)
    assert its.smallest()[0] == pytest.approx(exact[0], rel=2e-2, abs=1e-2 * exact[-1])
    found = trace(curvature, 30)
    off = matrix - np.diag(matrix.diagonal())
    assert abs(found.estimate - np.trace(matrix)) < 4 * (2 * (off**2).sum() / 30) ** 0.5


@pytest.mark.parametrize("name", ["bert", "t5"])
def test_examples_are_blocks_of_the_hessian_of_texts(opened: Opened, name: str) -> None:
    around = around_texts(opened(name))
    matrix, block = whole(around), around.block.numpy()
    assert np.abs(matrix[block[:, None] != block]).max() < 1e-6 * np.abs(matrix).max()
    own = [np.linalg.eigvalsh(matrix[np.ix_(block == x, block == x)]) for x in range(3)]
    curvature = Curvature(around)
    np.testing.assert_allclose(spectrum(curvature, 30, 1).largest(), [e[-1] for e in own], rtol=1e-2)
    assert top_eigenvalues(curvature, 1).values[0] == pytest.approx(max(e[-1] for e in own), rel=1e-3)
    exact = float(np.mean([e.sum() for e in own]))
    found = trace(curvature, 30)
    assert abs(found.estimate - exact) < 5 * found.error


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # torch.func's own
def test_forward_over_reverse_finds_the_same_matrix(opened: Opened) -> None:
    """`torch.func.hessian` goes another way than a second backward pass."""
    around = around_prompt(opened("bert"))
    matrix = torch.func.hessian(lambda z: around.losses(z)[0])(around.origin()).numpy()
    np.testing.assert_allclose(dense(Curvature(around)), matrix, atol=1e-4 * np.abs(matrix).max())


class Prompted(nn.Module):
    """A loss as curvlinops wants one: a module whose parameter is the displacement."""

    def __init__(self, around: Neighborhood) -> None:
        super().__init__()
        self.z = nn.Parameter(around.origin())
        self.around = around

    def forward(self, scale: Tensor) -> Tensor:
        return scale * self.around.losses(self.z)[None]


def test_curvlinops_finds_the_same(opened: Opened) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages that it imports
        curvlinops = pytest.importorskip("curvlinops", reason="see the head of this file")
        around = around_prompt(opened("bert", 2))
        module = Prompted(around)
        data = [(torch.ones(1, 1), torch.zeros(1, 1))]
        other = curvlinops.HessianLinearOperator(module, nn.L1Loss(reduction="sum"), [module.z], data)
        theirs = np.stack([(other @ column).detach().numpy() for column in torch.eye(around.size)])
        top = curvlinops.hutchinson_trace(other, num_matvecs=around.size - 1)
    ours = Curvature(around)
    scale = np.abs(theirs).max()
    np.testing.assert_allclose(dense(ours), theirs, atol=1e-4 * scale)
    assert top_eigenvalues(ours, 1).values[0] == pytest.approx(np.linalg.eigvalsh(theirs)[-1], rel=1e-3)
    off = theirs - np.diag(theirs.diagonal())
    assert abs(float(top) - np.trace(theirs)) < 5 * (2 * (off**2).sum() / (around.size - 1)) ** 0.5
