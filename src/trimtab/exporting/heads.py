"""Trained heads, which lie beside what other programs load."""

from __future__ import annotations

from pathlib import Path

from trimtab.exporting import Source
from trimtab.files import write_tensors


def write_head(source: Source, folder: Path, to: str, file: str = "head.safetensors") -> list[str]:
    """Write the head of a run, if it has one (`weight` [C,H], mostly with `bias` [C]); returns a note that says so."""
    head = {n.removeprefix("head."): v for n, v in source.bundle.tensors.items() if n.startswith("head.")}
    if not head:
        return []
    write_tensors(folder / file, head)
    return [f"{to} knows nothing of the trained head of {source.name!r}; it lies beside, in {file}."]
