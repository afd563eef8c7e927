"""Resume: what a killed pack needs to go on, and who may train it.

After every evaluation the state of the loop is written, atomically, to `resume.safetensors` in the folder of the pack's
first run: parameters, optimizer statistics, best checkpoints, and how far each run has come. Random streams are
functions of (seed, name, counters), so they need no state. The pack is the unit of resume: a checkpoint names its runs
and is used by the same pack only, as other batch mates would change the last bits.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from trimtab.errors import TrimtabError
from trimtab.storage import write_atomically
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
    data = save(tensors, metadata={"facts": facts})
    write_atomically(folder / FILE, lambda file: file.write(data))


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
            facts = json.loads(file.metadata()["facts"])
            tensors: dict[str, torch.Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise TrimtabError(
            f"the checkpoint of an unfinished run cannot be read ({error}).",
            where=str(path),
            fix="Remove the file, or train from the start with --again.",
        ) from None
    return Checkpoint(tuple(facts.pop("runs")), LoopState(tensors, facts))


def remove_checkpoint(folder: Path) -> None:
    """A finished pack needs none, nor the halves that a kill while writing has left."""
    for file in (folder / FILE, *folder.glob(f".{FILE}.*")):
        file.unlink(missing_ok=True)
