"""Prompts that differ in everything, for one backbone: random values, as a server does not care how they came about."""

from __future__ import annotations

from typing import Any

import numpy as np

from trimtab.backbones import Backbone
from trimtab.storage import Bundle

WORDS = {"positive": ["yes", "good"], "negative": ["no"]}
OTHERS = {"red": ["red"], "blue": ["blue"], "green": ["green"]}
LONG = {"fine": ["very good", "fine"], "awful": ["not very good"], "none": ["maybe"]}
"""Label words of several tokens."""


def values(seed: int, *shape: int, scale: float = 0.5) -> np.ndarray:
    """Random float32."""
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def bundle_of(
    backbone: Backbone,
    *,
    length: int = 3,
    template: str = "{prompt} {text} {answer}",
    words: dict[str, list[str]] | None = None,
    readout: dict[str, Any] | None = None,
    prompt: dict[str, Any] | None = None,
    task: dict[str, Any] | None = None,
    seed: int = 0,
    more: dict[str, np.ndarray] | None = None,
    rows: int | None = None,
) -> Bundle:
    """A bundle for a loaded backbone.

    Args:
        length: virtual tokens.
        rows: of the tensor `inputs`, where that is another number.
    """
    tensors = {"inputs": values(seed, length if rows is None else rows, backbone.embedding_size), **(more or {})}
    stated = {name: list(v.shape) for name, v in tensors.items() if name != "inputs"}
    shape = list(tensors["inputs"].shape)
    metadata = {
        "schema": 1,
        "prompt": {"kind": "prompt_tuning", "shape": shape, "tensors": stated, **(prompt or {})},
        "backbone": {
            "model": backbone.name,
            "fingerprint": backbone.fingerprint,
            "options": {"dtype": "float32", "revision": None, "trust_remote_code": False, "attention": "auto",
                        "quantization": None},
        },
        "tokenizer": {"fingerprint": backbone.tokenizer_fingerprint},
        "task": {"template": template, "truncate": [], "max_length": 40,
                 "label_words": WORDS if words is None else words, **(task or {})},
        "readout": readout or {"kind": backbone.family.readouts[0]},
    }  # fmt: skip
    return Bundle(metadata, tensors)


def deep_parts(backbone: Backbone, layers: list[int], length: int, seed: int, *, gated: bool = False) -> dict[str, Any]:
    """`prompt` and `more` of a bundle with keys and values at every site of the backbone."""
    more: dict[str, np.ndarray] = {}
    for i, (name, site) in enumerate(backbone.sites.items()):
        more[f"deep.{name}"] = values(seed + i, len(layers), 2, length, site.heads, site.size)
        if gated:
            more[f"gate.{name}"] = values(seed + 50 + i, len(layers), site.queries)
    return {"prompt": {"layers": dict.fromkeys(backbone.sites, layers)}, "more": more}


def variety(backbone: Backbone) -> dict[str, Bundle]:
    """Bundles by name: input prompts of several lengths and places, deep ones, gated ones, some that look at the text,
    trained heads; short and long label words; two fields; on models that write also free text."""
    width, hidden = backbone.embedding_size, backbone.hidden_size
    free = {"words": {}, "readout": {"kind": "text", "max_new_tokens": 5}, "task": {"answer": "text"}}
    head = {"head.weight": values(7, 2, hidden), "head.bias": values(8, 2)}
    found = {
        "short": bundle_of(backbone, length=1, seed=1),
        "long": bundle_of(backbone, length=7, seed=2, words=OTHERS),
        "phrases": bundle_of(backbone, length=2, seed=3, words=LONG),
        "infix": bundle_of(backbone, length=4, seed=4, template="{prompt:2} {text} {prompt:2} {answer}"),
        "pair": bundle_of(backbone, length=3, seed=5, template="{prompt} {a} and {b} ? {answer}"),
        "offset": bundle_of(backbone, length=2, seed=6, more={"text_offset": values(60, 5, width, scale=0.3)}),
        "routed": bundle_of(backbone, length=2, rows=6, seed=7, more={"router": values(61, 3, width)}),
        "head": bundle_of(backbone, length=3, seed=8, readout={"kind": "head"}, more=head),
        "head3": bundle_of(
            backbone, length=3, seed=9, readout={"kind": "head"}, words=OTHERS,
            more={"head.weight": values(9, 3, hidden), "head.bias": values(10, 3)},
        ),
        "tags": bundle_of(
            backbone, length=3, seed=10, readout={"kind": "tokens"}, template="{prompt} {text}",
            words={"O": ["O"], "B-x": ["B-x"]}, task={"answer": "tags"},
            more={"head.weight": values(11, 2, hidden), "head.bias": values(12, 2)},
        ),
        "deep": bundle_of(backbone, length=0, seed=11, **deep_parts(backbone, [0, 1], 4, 20)),
        "deep1": bundle_of(backbone, length=0, seed=12, words=OTHERS, **deep_parts(backbone, [1], 2, 30)),
        "gated": bundle_of(backbone, length=0, seed=13, **deep_parts(backbone, [0, 1], 3, 40, gated=True)),
    }  # fmt: skip
    if backbone.family.takes_positions:
        parts = deep_parts(backbone, [0, 1], 3, 45)
        parts["prompt"] = {**parts["prompt"], "shift": 3}
        found["shifted"] = bundle_of(backbone, length=0, seed=14, **parts)
    if "text" in backbone.family.readouts:
        found["writer"] = bundle_of(backbone, length=3, seed=15, **free)
        found["deep_writer"] = bundle_of(backbone, length=0, seed=16, **free | deep_parts(backbone, [0, 1], 3, 55))
    return found


def question(name: str, i: int) -> Any:
    """The i-th input for a task of `variety`."""
    nouns, more = ("film", "book", "cat", "dog", "sea"), ("was very good", "is bad and old", "in the big red tree")
    text = f"the {nouns[i % 5]} {' '.join(more[: i % 4])} {('yes', 'no')[i % 2]}"
    return {"a": text, "b": f"a {nouns[(i + 1) % 5]}"} if name == "pair" else text
