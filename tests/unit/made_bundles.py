"""Bundles of a backbone, with a prompt that nobody has trained."""

from __future__ import annotations

from typing import Any

import torch

from trimtab.backbones import Backbone
from trimtab.storage import Bundle

WORDS = {"positive": ["yes", "good"], "negative": ["no"]}


def bundle(backbone: Backbone, template: str = "{prompt} {text} {answer}.", **changes: Any) -> Bundle:
    """A bundle with a random prompt of three vectors."""
    metadata = {
        "prompt": {"kind": "prompt_tuning", "shape": [3, 32]},
        "backbone": {
            "model": backbone.name,
            "fingerprint": backbone.fingerprint,
            "options": {
                "dtype": "float32",
                "revision": None,
                "trust_remote_code": False,
                "attention": "auto",
                "quantization": None,
            },
        },
        "tokenizer": {"fingerprint": backbone.tokenizer_fingerprint},
        "task": {"template": template, "truncate": [], "max_length": 32, "label_words": WORDS},
        "readout": {"kind": "cloze", "combine": "mean"},
        **changes,
    }
    prompt = torch.randn(3, 32, generator=torch.Generator().manual_seed(0)).numpy()
    return Bundle({"schema": 1, **metadata}, {"inputs": prompt})
