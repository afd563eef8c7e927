"""Trained heads, which lie beside what other programs load."""

from __future__ import annotations

from pathlib import Path

from trimtab.exporting import Source
from trimtab.files import write_tensors
from trimtab.readouts.head import pooler


def write_head(source: Source, folder: Path, to: str, file: str = "head.safetensors") -> list[str]:
    """Write the head of a run, if it has one; returns a note that says so.

    The file holds `weight` [C,H], mostly `bias` [C], and `pooler` [H,H] where hidden states h go through tanh(pooler h)
    first.
    """
    head = {n.removeprefix("head."): v for n, v in source.bundle.tensors.items() if n.startswith("head.")}
    if not head:
        return []
    note = f"{to} knows nothing of the trained head of {source.name!r}; it lies beside, in {file}."
    seed = source.bundle.metadata["readout"].get("random_pooler")
    if (weight := pooler(source.predictor.model.backbone, seed)) is not None:
        head["pooler"] = weight.cpu().numpy()
        note += " Hidden states h go through tanh(pooler h) before it."
    write_tensors(folder / file, head)
    return [note]
