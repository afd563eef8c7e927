"""All numbers of a run: which function each comes from, what is found where there is nothing, and the file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.unit.landscape.toy_losses import toy_loss
from tests.unit.refusals import refused
from trimtab.backbones import Backbone, load_backbone
from trimtab.backbones.substitutes import substitutes
from trimtab.errors import BackboneError
from trimtab.landscape import sharpness
from trimtab.landscape.coordinates import around_prompt, around_texts, units_of
from trimtab.landscape.eigenvalues import top_eigenvalues
from trimtab.landscape.epsilon_sharpness import epsilon_sharpness
from trimtab.landscape.lanczos import spectrum
from trimtab.landscape.lipschitz import lipschitz
from trimtab.landscape.neighborhood import Curvature
from trimtab.landscape.point import LossAt
from trimtab.landscape.relief import relief
from trimtab.landscape.sharpness import PARTS, Protocol, SpaceSharpness, measure, write_sharpness
from trimtab.landscape.surface import Surface
from trimtab.landscape.trace import trace
from trimtab.landscape.word_jumps import word_jumps
from trimtab.regularizers.swap_candidates import Rules

FAST = Protocol(eigenvalues=2, probes=3, steps=5, starts=2, ascent_steps=2, ascents=2, samples=2, seed=4)


@pytest.fixture(scope="module")
def eager(tiny_folder: Path) -> Backbone:
    return load_backbone(str(tiny_folder), dtype="float32", device="cpu", attention="eager")


def surface() -> Surface:
    x, y = np.linspace(-1, 1, 5, dtype=np.float32), np.linspace(-2, 2, 3, dtype=np.float32)
    losses = (x[None, :] ** 2 + 3 * y[:, None])[..., None].repeat(4, 2).astype(np.float32)
    return Surface({"axes": {"x": {"unit": "step"}}, "scale": {"step": 2.0}}, x, y, losses)


@pytest.fixture
def any_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random embeddings have no neighbours, so all words are some."""
    monkeypatch.setattr(sharpness, "rules", lambda: Rules(500, 256, -1.0))


@pytest.mark.usefixtures("any_words")
def test_every_number_is_that_of_its_function(eager: Backbone) -> None:
    loss, told = toy_loss(eager, deep=2), list[str]()
    lexicon = substitutes(eager).lexicon
    found = measure(loss, lexicon, {"text": surface()}, FAST, told.append)
    places: dict[str, Callable[[LossAt], object]] = {"prompt": around_prompt, "text": around_texts}
    for name, place in places.items():
        around = place(loss)
        its, curvature = getattr(found, name), Curvature(around)  # type: ignore[arg-type]
        assert isinstance(its, SpaceSharpness)
        assert its.coordinates == around.size  # type: ignore[attr-defined]
        largest = top_eigenvalues(curvature, 2, 4)
        assert (its.eigenvalues, its.eigenvalues_converged) == (largest.values, True)
        shape = spectrum(curvature, 5, 2 if name == "prompt" else 1, 4)
        top = largest.values[0] if name == "prompt" else shape.largest().mean()
        assert its.top_eigenvalue == pytest.approx(top)
        assert its.lowest_eigenvalue == pytest.approx(shape.smallest().mean())
        diagonal = trace(curvature, 3, 4)
        assert (its.trace, its.trace_error) == (diagonal.estimate, diagonal.error)
        assert its.epsilon_sharpness == epsilon_sharpness(around, 0.01, 2, 2, 4).percent  # type: ignore[arg-type]
        steepest = lipschitz(around, 0.1, 2, 4)  # type: ignore[arg-type]
        assert (its.lipschitz, its.quotient) == (steepest.gradient, steepest.quotient)
        assert its.gradient_norm == pytest.approx(steepest.at_point)
        at, density = (np.array(its.density[k]) for k in ("at", "density"))
        assert np.trapezoid(density, at) == pytest.approx(1.0, abs=0.02)
        assert at[0] < shape.nodes.min() < shape.nodes.max() < at[-1]
    assert found.text is not None
    assert found.prompt is not None
    assert len(found.text.eigenvalues) == 2
    height = relief(surface().mean.T, surface().x, surface().y)
    assert (found.text.range, found.text.slope) == (pytest.approx(13.0), height.slope)
    assert (found.prompt.range, found.prompt.slope) == (None, None)
    assert lexicon is not None
    assert found.words == word_jumps(loss, lexicon, Rules(500, 256, -1.0))
    assert found.loss == pytest.approx(float(loss.at(loss.text, torch.zeros(1, loss.text.size))[0]), rel=1e-5)
    assert found.units == {**units_of(loss, loss.prompt), "text": eager.embedding_rms}
    assert found.surfaces == {"text": {"axes": {"x": {"unit": "step"}}, "scale": {"step": 2.0}}}
    assert (found.protocol, found.findings) == (FAST, ())
    assert told == [*(f"{space}: {part}" for space in ("prompt", "text") for part in PARTS), "words"]


def test_numbers_of_texts_do_not_depend_on_how_many_there_are(eager: Backbone) -> None:
    """The same examples twice: those of an example stay, where those of the mean loss would be halved."""
    loss = toy_loss(eager, 3)
    twice = LossAt(loss.model, loss.table, [*loss.rows, *loss.rows])
    once, again = (measure(its, None, protocol=replace(FAST, steps=30, probes=60)) for its in (loss, twice))
    assert once.text is not None
    assert again.text is not None
    for name in ("gradient_norm", "top_eigenvalue"):
        assert getattr(again.text, name) == pytest.approx(getattr(once.text, name), rel=1e-2)
    assert abs(again.text.trace - once.text.trace) < 4 * (again.text.trace_error + once.text.trace_error)


def test_seeds_decide_and_are_recorded(eager: Backbone) -> None:
    loss = toy_loss(eager, 2)
    one, same, other = (measure(loss, None, protocol=replace(FAST, seed=s)) for s in (1, 1, 2))
    assert replace(one, seconds=0.0) == replace(same, seconds=0.0)
    assert one.prompt is not None
    assert other.prompt is not None
    assert one.prompt.trace != other.prompt.trace
    assert (one.protocol.seed, other.protocol.seed) == (1, 2)


def test_what_is_not_there_is_said(eager: Backbone) -> None:
    loss = toy_loss(eager, length=0)
    rows = [replace(r, encoded=replace(r.encoded, eligible=())) for r in loss.rows]
    found = measure(LossAt(loss.model, loss.table, rows), substitutes(eager).lexicon, protocol=FAST)
    assert (found.prompt, found.text, found.words) == (None, None, None)
    for told, start in zip(found.findings, ("prompt: the run has no", "text: no field", "words: no word"), strict=True):
        assert told.startswith(start)


def saturated(loss: LossAt, monkeypatch: pytest.MonkeyPatch, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Let the readout's loss become something else."""
    kind = type(loss.model.readout)
    honest = kind.loss
    monkeypatch.setattr(kind, "loss", lambda self, scores, labels: change(honest(self, scores, labels)))


def test_a_gradient_of_zero_is_a_finding(eager: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    loss = toy_loss(eager, 2)
    saturated(loss, monkeypatch, lambda its: its * 0 + 0.25)
    found = measure(loss, None, protocol=FAST)
    assert found.prompt is not None
    assert (found.prompt.gradient_norm, found.prompt.top_eigenvalue, found.prompt.trace) == (0, 0, 0)
    assert [f.partition(" are exactly zero")[0] for f in found.findings] == [
        "prompt: the gradient and the curvature", "text: the gradient and the curvature"
    ]  # fmt: skip
    assert "does not depend on the prompt" in found.findings[0]
    assert "does not depend on the texts" in found.findings[1]


def test_a_stationary_point_is_told_from_a_plane(eager: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    loss = toy_loss(eager, 2)
    saturated(loss, monkeypatch, lambda its: (its - its.detach()).square())
    found = measure(loss, None, protocol=FAST)
    assert found.prompt is not None
    assert found.prompt.top_eigenvalue > 0
    assert all("stationary point" in told for told in found.findings)
    assert len(found.findings) == 2


def test_a_loss_that_is_not_finite_is_refused(eager: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    loss = toy_loss(eager, 2)
    saturated(loss, monkeypatch, lambda its: its * torch.inf)
    with refused(BackboneError, "is not finite", where=eager.name, fix="lower training.learning_rate"):
        measure(loss, None, protocol=FAST)


def test_a_model_in_fused_attention_is_refused(tiny_folder: Path) -> None:
    fused = load_backbone(str(tiny_folder), dtype="float32", device="cpu", attention="sdpa")
    with refused(BackboneError, "differentiated twice", where="backbone.attention", fix="attention: eager"):
        measure(toy_loss(fused, 2), None, protocol=FAST)


def test_eigenvalues_that_did_not_converge_are_a_finding(eager: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = sharpness.top_eigenvalues
    monkeypatch.setattr(sharpness, "top_eigenvalues", lambda *a: replace(honest(*a), values=(1.0,), converged=False))
    found = measure(toy_loss(eager, 2), None, protocol=FAST)
    assert [told.split(" eigenvalues")[0] for told in found.findings] == ["prompt: only 1 of 2", "text: only 1 of 2"]


def test_the_file_has_everything_and_names_the_prompt(eager: Backbone, tmp_path: Path) -> None:
    (tmp_path / "prompt.safetensors").write_bytes(b"values")
    found = measure(toy_loss(eager, 2), None, {"prompt": surface()}, FAST)
    path = write_sharpness(tmp_path, found, {"batch": {"sha256": "b"}})
    its = json.loads(path.read_text())
    assert path == tmp_path / "landscape" / "sharpness.json"
    assert (its["schema"], its["run"], its["batch"]) == (1, tmp_path.name, {"sha256": "b"})
    assert its["prompt_sha256"] == hashlib.sha256(b"values").hexdigest()
    assert its["protocol"]["seed"] == 4
    assert found.prompt is not None
    assert its["prompt"]["eigenvalues"] == list(found.prompt.eigenvalues)
    assert its["text"]["range"] is None
