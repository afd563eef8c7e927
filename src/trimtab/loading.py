"""From a bundle to a predictor: the backbone that it wants, the checks that it fits, its prompt as a table."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from trimtab.backbones import Backbone, load_backbone
from trimtab.errors import BackboneError, BundleError
from trimtab.grading import Graders
from trimtab.model import PromptedModel
from trimtab.predictor import Predictor, Predictors
from trimtab.prompt_table import PromptTable, table_of
from trimtab.registry import readouts, tunings
from trimtab.rendering import Rendering
from trimtab.storage import Bundle, read_bundle
from trimtab.templates import Template
from trimtab.verbalizers import Verbalizer

TRUST = "TRIMTAB_TRUST_REMOTE_CODE"


def load(
    path: str | Path,
    *,
    task: str | None = None,
    backbone: Backbone | str | None = None,
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16"] | None = None,
    attention: Literal["auto", "eager", "sdpa"] | None = None,
    trust_remote_code: bool = False,
) -> Predictor:
    """Load a run folder or bundle, ready to predict.

    Args:
        path: the folder.
        task: which one, if it is of several.
        backbone: a loaded backbone, or where the model lies now; by default the one the bundle names.
        device: `auto`, `cpu` or `cuda`.
        dtype: of the backbone; by default that of training.
        attention: its implementation; by default that of training.
        trust_remote_code: let a bundle that asks for it run the code that comes with its model.

    Raises:
        BundleError: unreadable, trained on another backbone or tokenizer, of several tasks and none is named, or one
            that asks to run code and may not.
        BackboneError: the backbone cannot be loaded.
    """
    bundle = read_bundle(Path(path))
    if task is not None:
        bundle = bundle.of_task(task)
    if bundle.tasks:
        raise BundleError(
            f"the prompt is of several tasks: {', '.join(bundle.tasks)}.",
            where=str(path),
            fix=f"Say which one: --task {bundle.tasks[0]}, or load(path, task={bundle.tasks[0]!r}).",
        )
    return from_bundle(bundle, backbone_of(bundle, backbone, device, dtype, attention, trust_remote_code), str(path))


def load_tasks(
    path: str | Path,
    *,
    backbone: Backbone | str | None = None,
    device: str = "auto",
    trust_remote_code: bool = False,
) -> Predictors:
    """Load a run folder or bundle of several tasks, each ready to predict; arguments and errors as of `load`."""
    bundle = read_bundle(Path(path))
    loaded = backbone_of(bundle, backbone, device, trust_remote_code=trust_remote_code)
    parts = {name: from_bundle(bundle.of_task(name), loaded, str(path)) for name in bundle.tasks}
    metrics = {its["name"]: its["metric"] for its in bundle.metadata["tasks"]}
    graders = {name: replace(its.rendering.grader, headline=metrics[name]) for name, its in parts.items()}
    return Predictors(parts, Graders(graders))


def backbone_of(
    bundle: Bundle,
    backbone: Backbone | str | None = None,
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16"] | None = None,
    attention: Literal["auto", "eager", "sdpa"] | None = None,
    trust_remote_code: bool = False,
) -> Backbone:
    """The backbone that a bundle wants, or the one that is given; arguments and errors as `load`.

    A bundle may come from anybody, and may say that code beside its model is to be run. That takes a word of the user:
    `trust_remote_code`, or the environment variable TRIMTAB_TRUST_REMOTE_CODE=1.
    """
    if isinstance(backbone, Backbone):
        return backbone
    stated = bundle.metadata["backbone"]
    check_code(stated, trust_remote_code)
    options = {k: stated["options"][k] for k in ("revision", "trust_remote_code", "attention", "quantization")}
    options |= {"random_weights": stated["options"].get("random_weights"), "embed_twice": bundle.embed_twice}
    options["attention"] = attention or options["attention"]
    return load_backbone(
        backbone or stated["model"], dtype=dtype or stated["options"]["dtype"], device=device, **options
    )


def check_code(stated: Mapping[str, Any], trusted: bool = False) -> None:
    """Refuse to run a model's code because the section `backbone` of a bundle says so: a bundle may come from anybody.

    Raises:
        BundleError: it wants code to be run, and neither `trusted` nor the environment allows that.
    """
    may_run = trusted or os.environ.get(TRUST) == "1"
    if stated["options"]["trust_remote_code"] and not may_run:
        raise BundleError(
            f"the prompt was trained with code that comes with {stated['model']!r}, and asks to run it.",
            where="backbone.options.trust_remote_code",
            fix=f"If you trust that code: --trust-remote-code (predict, serve), trust_remote_code=True, or {TRUST}=1.",
        )


def from_bundle(bundle: Bundle, backbone: Backbone, where: str = "bundle") -> Predictor:
    """A predictor from a bundle and the backbone it was trained on.

    Raises:
        BundleError: fingerprints differ, one embeds text once and the other twice, or trained weights that do not fit.
    """
    meta = bundle.metadata
    for what, got, stated in (
        ("backbone", backbone.fingerprint, meta["backbone"]["fingerprint"]),
        ("tokenizer", backbone.tokenizer_fingerprint, meta["tokenizer"]["fingerprint"]),
    ):
        if got != stated:
            raise BundleError(
                f"the prompt was trained on another {what} than {backbone.name!r} "
                f"(fingerprint {stated[:12]}, got {got[:12]}).",
                where=where,
                fix=f"Use the {what} of {meta['backbone']['model']!r} that it was trained with.",
            )
    if backbone.embed_twice != bundle.embed_twice:
        raise BundleError(
            f"the prompt was trained with backbone.embed_twice={str(bundle.embed_twice).lower()}, and "
            f"{backbone.name!r} was opened with the opposite.",
            where=where,
            fix=f"Open it with load_backbone(..., embed_twice={bundle.embed_twice}); serve such prompts by themselves.",
        )
    if bundle.tuned:
        backbone = _tuned(backbone, bundle, where)
    task = meta["task"]
    rendered = task.get("rendered")
    template = Template.parse(
        rendered or task["template"], bundle.slots, task["truncate"], is_verbatim=rendered is not None
    )
    readout = readouts.resolve(meta["readout"], "readout")
    verbalizer = Verbalizer.of(task["label_words"]) if task["label_words"] else Verbalizer.free()
    rendering = Rendering(
        template,
        verbalizer,
        int(task["max_length"]),
        readout,
        task.get("replace", {}),
        task.get("answer") or "class",
        task.get("candidate"),
        tuple(task.get("metrics", ())),
        task.get("headline"),
        {group: tuple(words) for group, words in task.get("allowed", {}).items()},
        task.get("rewrite", {}),
        task.get("nothing_matches", False),
    )
    reader = readouts.build(readout, backbone, [rendering.plan(backbone.encoder)])
    return Predictor(PromptedModel(backbone, reader), rendering, table_from(bundle, backbone.device), meta)


def table_from(bundle: Bundle, device: torch.device) -> PromptTable:
    """The prompt of a bundle, as a table of one.

    Raises:
        BundleError: it has a part that this version knows no use for, so it would not say what it was trained to.
    """
    stated = bundle.metadata["prompt"]
    parts = {n: torch.from_numpy(v)[None].to(device) for n, v in bundle.tensors.items()}
    layers = {site: tuple(its) for site, its in stated.get("layers", {}).items()}
    table = table_of(parts, layers, stated.get("shift", 0))
    unknown = sorted(parts.keys() - table.tensors.keys())
    if unknown:
        raise BundleError(
            f"the prompt has a part {unknown[0]!r}, which this version of trimtab knows no use for.",
            where="bundle.json",
            fix="Use the version that bundle.json names under provenance.environment.",
        )
    return table


def _tuned(backbone: Backbone, bundle: Bundle, where: str) -> Backbone:
    """A private copy of the backbone with the weights that were trained with the prompt."""
    tuning = tunings.build(bundle.metadata["backbone"]["options"].get("tuning", {"kind": "all"}))
    try:
        return backbone.with_weights(tuning.open, {n: torch.from_numpy(v) for n, v in bundle.tuned.items()})
    except BackboneError as error:
        raise BundleError(error.what, where=where, fix=error.fix) from None
