"""Telling one backbone from another: hashes of weights and tokenizers."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from torch import nn

_WHOLE_FILE_BYTES = 1 << 30
_SAMPLE_BYTES = 1 << 20


def weight_files(place: str, revision: str | None = None) -> list[Path]:
    """The safetensors files of a model folder or cached Hugging Face id, sorted."""
    folder = Path(place)
    if not folder.is_dir():
        from transformers.utils import cached_file

        options = {"revision": revision, "_raise_exceptions_for_missing_entries": False}
        single = cached_file(place, "model.safetensors", **options)
        index = single or cached_file(place, "model.safetensors.index.json", **options)
        folder = Path(index).parent  # type: ignore[arg-type]
    index_file = folder / "model.safetensors.index.json"
    if index_file.exists() and not (folder / "model.safetensors").exists():  # which is what transformers takes first
        return sorted({folder / name for name in json.loads(index_file.read_text())["weight_map"].values()})
    return sorted(folder.glob("*.safetensors"))


def fingerprint_of(paths: list[Path]) -> str:
    """SHA-256 over weight files; of files over 1 GiB their size and 64 samples of 1 MiB."""
    digest = hashlib.sha256()
    for path in paths:
        size = path.stat().st_size
        digest.update(f"{path.name}:{size};".encode())
        with path.open("rb") as file:
            if size <= _WHOLE_FILE_BYTES:
                while block := file.read(_SAMPLE_BYTES):
                    digest.update(block)
            else:
                for i in range(64):
                    file.seek(i * (size - _SAMPLE_BYTES) // 63)
                    digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def drawn_fingerprint(model: nn.Module) -> str:
    """SHA-256 over weights that no file holds."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name}:{tuple(value.shape)};".encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """SHA-256 over vocabulary, merges, normalization and special tokens, free of padding and truncation state."""
    definition = json.loads(tokenizer.backend_tokenizer.to_str())
    definition.pop("padding", None)
    definition.pop("truncation", None)
    special = {k: str(v) for k, v in tokenizer.special_tokens_map.items()}
    text = json.dumps([definition, special], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
