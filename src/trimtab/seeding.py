"""Named random streams: `init`, `data_order`, `subset`, `noise`.

A stream is a function of (seed, name, counters) and holds no state, so nothing needs to be stored to resume a run, and
a run draws the same numbers whether it trains alone or in a pack.
"""

from __future__ import annotations

from zlib import crc32

import numpy as np
import torch


def stream(seed: int, name: str, *counters: int) -> np.random.Generator:
    """A numpy generator for one purpose.

    >>> int(stream(13, "data_order", 0).integers(1000)) == int(stream(13, "data_order", 0).integers(1000))
    True
    """
    return np.random.default_rng(np.random.SeedSequence([seed, crc32(name.encode()), *counters]))


def torch_seed(seed: int, name: str, *counters: int) -> int:
    """A 63-bit seed for torch from the same family of streams."""
    return int(stream(seed, name, *counters).integers(2**63 - 1))


def torch_stream(seed: int, name: str, *counters: int) -> torch.Generator:
    """A torch generator on the CPU for one purpose."""
    return torch.Generator().manual_seed(torch_seed(seed, name, *counters))
