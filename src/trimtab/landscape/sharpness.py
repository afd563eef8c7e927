"""All numbers of how sharp the loss is around a finished run, in its prompt, in its texts and under other words.

| number | formula | unit | source |
|---|---|---|---|
| gradient_norm | || grad f(0) || | nats / u | |
| top_eigenvalue | lambda_1 of the Hessian H | nats / u^2 | `lanczos`; in prompt space `eigenvalues` |
| eigenvalues | the k largest of H, of all examples together | nats / u^2 | `eigenvalues` (ARPACK) |
| lowest_eigenvalue | the smallest node of the density | nats / u^2 | `lanczos` |
| trace, trace_error | tr H and its standard error | nats / u^2 | `trace` (Hutchinson 1990) |
| density | phi(t) = 1/M sum_k delta(t - lambda_k), smoothed | 1 / (nats / u^2) | `lanczos` (Ghorbani et al. 2019) |
| epsilon_sharpness | 100 (max_box f - f(0)) / (1 + f(0)) | percent | `epsilon_sharpness` (Keskar et al. 2017) |
| lipschitz, quotient | steepest slope in a ball | nats / u | `lipschitz` |
| range | max - min over the grid of the surface | nats | `relief` |
| slope | mean gradient norm over that grid | nats / step of the grid | `relief` |
| words.mean_absolute | mean of |jump of the loss| when a word is swapped | nats | `word_jumps` |

u is a unit of length (see `trimtab.landscape.coordinates`), the same for all runs on a backbone and a batch. In prompt
space f is the mean loss over the batch. In input space (`text`) every number is that of an example, averaged over
examples: it does not shrink when the batch grows, as derivatives of the mean loss would; `eigenvalues` are the largest
of any. Everything is float32 with eager attention; H acts on the materialized prompt, not on an encoder's parameters.

What cannot be measured is None, and `findings` say why. Smaller is smoother; nothing here says that smoother is better.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trimtab.errors import BackboneError
from trimtab.files import write_json
from trimtab.landscape.coordinates import around_prompt, around_texts, units_of
from trimtab.landscape.eigenvalues import top_eigenvalues
from trimtab.landscape.epsilon_sharpness import epsilon_sharpness
from trimtab.landscape.lanczos import Spectrum, spectrum
from trimtab.landscape.lipschitz import lipschitz
from trimtab.landscape.neighborhood import Curvature, Neighborhood
from trimtab.landscape.point import LossAt
from trimtab.landscape.relief import relief
from trimtab.landscape.surface import FOLDER, Surface
from trimtab.landscape.trace import trace
from trimtab.landscape.word_jumps import WordJumps, rules, word_jumps
from trimtab.perturbations import Lexicon
from trimtab.storage import prompt_sha256

SCHEMA = 1
FILE = "sharpness.json"
"""In RUN/landscape/."""
DENSITY_POINTS = 121
PARTS = ("eigenvalues", "trace", "density", "epsilon", "lipschitz")

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Protocol:
    """How sharpness is measured; numbers of different protocols are not compared.

    Attributes:
        eigenvalues: how many of the largest.
        probes: of the trace.
        steps: of Lanczos, for the density.
        starts: random vectors of the density in prompt space; in input space every example is one.
        epsilon: of the box, see `trimtab.landscape.epsilon_sharpness`.
        ascent_steps: within the box.
        ascents: within the box.
        radius: of the ball, root mean square per coordinate in units, see `trimtab.landscape.lipschitz`.
        samples: places in the ball.
        seed: of all of these.
    """

    eigenvalues: int = 5
    probes: int = 16
    steps: int = 20
    starts: int = 2
    epsilon: float = 0.01
    ascent_steps: int = 10
    ascents: int = 2
    radius: float = 0.1
    samples: int = 12
    seed: int = 0


@dataclass(frozen=True)
class SpaceSharpness:
    """The numbers of one space, see above. `coordinates` is M; `density` has `at`, `density` and `width`, of which the
    first two are as long as each other."""

    coordinates: int
    gradient_norm: float
    top_eigenvalue: float
    eigenvalues: tuple[float, ...]
    eigenvalues_converged: bool
    lowest_eigenvalue: float
    trace: float
    trace_error: float
    epsilon_sharpness: float
    lipschitz: float
    quotient: float
    range: float | None
    slope: float | None
    density: Mapping[str, Any]


@dataclass(frozen=True)
class Sharpness:
    """All numbers of a run. `loss` is the mean over the examples, in nats; `units` say what u is, by name."""

    loss: float
    prompt: SpaceSharpness | None
    text: SpaceSharpness | None
    words: WordJumps | None
    units: Mapping[str, float]
    protocol: Protocol
    findings: tuple[str, ...] = ()
    seconds: float = 0.0
    surfaces: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def measure(
    loss: LossAt,
    lexicon: Lexicon | None,
    surfaces: Mapping[str, Surface] = {},
    protocol: Protocol = Protocol(),
    tell: Tell = lambda part: None,
) -> Sharpness:
    """Measure a run.

    Args:
        loss: of the run, in float32 with eager attention.
        lexicon: the words of its backbone without label words; None leaves word swaps out.
        surfaces: that were computed, by view: `text` and `prompt` give `range` and `slope`.
        tell: is told each part that is done: `prompt: trace`.

    Raises:
        BackboneError: the model cannot be differentiated twice, or its loss is not finite.
    """
    begun, findings = time.monotonic(), list[str]()
    spaces = {"prompt": (loss.prompt, around_prompt), "text": (loss.text, around_texts)}
    found: dict[str, SpaceSharpness | None] = {}
    for name, (space, around) in spaces.items():
        if not space.size:
            findings.append(_MISSING[name])
            found[name] = None
            continue
        found[name] = _of_space(name, around(loss), loss, surfaces.get(name), protocol, findings, tell)
    jumps = None if lexicon is None else word_jumps(loss, lexicon, rules())
    if lexicon is not None:
        tell("words")
    if jumps is None and lexicon is not None:
        findings.append("words: no word of the examples has a substitute, so none was swapped.")
    with torch.no_grad():
        clean = float(loss.mean({"inputs": torch.zeros_like(loss.table.inputs)})[0])
    return Sharpness(
        loss=clean,
        prompt=found["prompt"],
        text=found["text"],
        words=jumps,
        units={**units_of(loss, loss.prompt), **units_of(loss, loss.text)},
        protocol=protocol,
        findings=tuple(findings),
        seconds=round(time.monotonic() - begun, 3),
        surfaces={view: {"axes": s.facts["axes"], "scale": s.facts["scale"]} for view, s in surfaces.items()},
    )


_MISSING = {
    "prompt": "prompt: the run has no prompt vectors, keys or values, so there is nothing to move.",
    "text": "text: no field of the template has a token left beside label words, so there is nothing to move.",
}


def _of_space(
    name: str,
    around: Neighborhood,
    loss: LossAt,
    surface: Surface | None,
    protocol: Protocol,
    findings: list[str],
    tell: Tell,
) -> SpaceSharpness:
    curvature, seed = Curvature(around), protocol.seed
    if not bool(curvature.losses.isfinite().all()) or not bool(curvature.gradient.isfinite().all()):
        raise BackboneError(
            "the loss of the run, or its gradient, is not finite, so nothing around it can be measured.",
            where=loss.model.backbone.name,
            fix="The run has diverged; train it again with a lower training.learning_rate.",
        )
    largest = top_eigenvalues(curvature, protocol.eigenvalues, seed)
    tell(f"{name}: eigenvalues")
    diagonal = trace(curvature, protocol.probes, seed)
    tell(f"{name}: trace")
    shape = spectrum(curvature, protocol.steps, protocol.starts if around.blocks == 1 else 1, seed)
    tell(f"{name}: density")
    rise = epsilon_sharpness(around, protocol.epsilon, protocol.ascent_steps, protocol.ascents, seed)
    tell(f"{name}: epsilon")
    steepest = lipschitz(around, protocol.radius, protocol.samples, seed)
    tell(f"{name}: lipschitz")
    if not bool(curvature.gradient.any()):
        findings.append(_flat(name, bool(np.abs(shape.nodes).max() > 0)))
    if not largest.converged:
        told = f"{len(largest.values)} of {protocol.eigenvalues} eigenvalues have converged"
        findings.append(f"{name}: only {told}; they are too close to each other.")
    its = None if surface is None else relief(surface.mean.T, surface.x, surface.y)
    one = around.blocks == 1 and bool(largest.values)
    return SpaceSharpness(
        coordinates=around.size,
        gradient_norm=around.mean(around.norms(curvature.gradient)),
        top_eigenvalue=largest.values[0] if one else float(shape.largest().mean()),
        eigenvalues=largest.values,
        eigenvalues_converged=largest.converged,
        lowest_eigenvalue=float(shape.smallest().mean()),
        trace=diagonal.estimate,
        trace_error=diagonal.error,
        epsilon_sharpness=rise.percent,
        lipschitz=steepest.gradient,
        quotient=steepest.quotient,
        range=None if its is None else its.range,
        slope=None if its is None else its.slope,
        density=_drawn(shape),
    )


def _flat(name: str, curved: bool) -> str:
    """What a gradient of zero says."""
    if curved:
        return f"{name}: the gradient is exactly zero, but the loss is curved: the run lies on a stationary point."
    what = "prompt" if name == "prompt" else "texts"
    return (
        f"{name}: the gradient and the curvature are exactly zero: in float32 the loss on these examples does not "
        f"depend on the {what}. It may be saturated; more examples, or other ones, may show more."
    )


def _drawn(shape: Spectrum) -> dict[str, Any]:
    """The density as a curve from a little below the smallest node to a little above the largest."""
    low, high = float(shape.nodes.min()), float(shape.nodes.max())
    width = max((high - low) / 60, 1e-9)
    at = np.linspace(low - 3 * width, high + 3 * width, DENSITY_POINTS)
    return {"at": at.tolist(), "density": shape.density(at, width).tolist(), "width": width}


def write_sharpness(folder: Path, found: Sharpness, facts: Mapping[str, Any]) -> Path:
    """Write RUN/landscape/sharpness.json: the numbers, the facts that are given (the batch above all), and the SHA-256
    of the prompt that was measured.

    Raises:
        TrimtabError: the disk refuses, or a number is not finite.
    """
    path = folder / FOLDER / FILE
    prompt = prompt_sha256(folder)
    write_json(path, {"schema": SCHEMA, "run": folder.name, **facts, "prompt_sha256": prompt, **asdict(found)})
    return path
