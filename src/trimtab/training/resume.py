"""Resume: what a killed pack needs to go on, and who may train it.

After every evaluation the state of the loop is written, atomically, to `resume.safetensors` in the folder of the pack's
first run: parameters, optimizer statistics, best checkpoints, and how far each run has come. Random streams are
functions of (seed, name, counters), so they need no state. The pack is the unit of resume: a checkpoint names its runs
and is used by the same pack only, as other batch mates would change the last bits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from trimtab.errors import TrimtabError
from trimtab.files import told, write_atomically
from trimtab.training.loop import LoopState

FILE = "resume.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """The state of a pack and the ids of its runs, in the order of the pack."""

    runs: tuple[str, ...]
    state: LoopState


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint to the folder of the pack's first run; a kill leaves the old one or the new one."""
    facts = json.dumps({"runs": checkpoint.runs, **checkpoint.state.facts})
    tensors = {k: v.detach().cpu().contiguous() for k, v in checkpoint.state.tensors.items()}
    data = save(tensors, metadata={"facts": facts, "crc32": _sum(tensors, facts)})
    write_atomically(folder / FILE, lambda file: file.write(data))


def _sum(tensors: Mapping[str, torch.Tensor], facts: str) -> str:
    """A checksum of all that a checkpoint holds: safetensors has none of its own."""
    found = crc32(facts.encode())
    for name in sorted(tensors):
        found = crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, crc32(name.encode(), found))
    return str(found)


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """The checkpoint in a run folder, if there is one.

    Raises:
        TrimtabError: it cannot be read.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            stated = file.metadata()
            tensors: dict[str, torch.Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if stated["crc32"] != _sum(tensors, stated["facts"]):
            raise ValueError("its checksum is another")
        facts = json.loads(stated["facts"])
        runs = tuple(facts.pop("runs"))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrimtabError(
            f"the checkpoint of an unfinished run cannot be read ({error}).",
            where=str(path),
            fix="Remove the file, or train from the start with --again.",
        ) from None
    return Checkpoint(runs, LoopState(tensors, facts))


def remove_checkpoint(folder: Path) -> None:
    """A finished pack needs none.

    Raises:
        StorageError: the file system refuses.
    """
    with told("folder", folder):
        (folder / FILE).unlink(missing_ok=True)
