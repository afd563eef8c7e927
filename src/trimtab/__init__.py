"""trimtab: soft prompts for frozen language models.

>>> import trimtab
>>> trimtab.__version__
'0.1.0'

The verbs of the command line are functions here: `run`, `evaluate`, `predict`, `load`, `show`, `validate`,
`doctor`, `init`, `ls`. Importing trimtab imports nothing heavy; torch is loaded on first use of a verb.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trimtab.api import doctor, evaluate, init, ls, predict, run, show, validate
    from trimtab.config import RunConfig
    from trimtab.errors import TrimtabError
    from trimtab.loading import load
    from trimtab.predictions import Prediction, Tagged, Written
    from trimtab.predictor import Predictor

__version__ = "0.1.0"

_HOMES = {
    "run": "trimtab.api",
    "evaluate": "trimtab.api",
    "predict": "trimtab.api",
    "show": "trimtab.api",
    "validate": "trimtab.api",
    "doctor": "trimtab.api",
    "init": "trimtab.api",
    "ls": "trimtab.api",
    "load": "trimtab.loading",
    "Predictor": "trimtab.predictor",
    "Prediction": "trimtab.predictions",
    "Tagged": "trimtab.predictions",
    "Written": "trimtab.predictions",
    "RunConfig": "trimtab.config",
    "TrimtabError": "trimtab.errors",
}

__all__ = [
    "Prediction",
    "Predictor",
    "RunConfig",
    "Tagged",
    "TrimtabError",
    "Written",
    "__version__",
    "doctor",
    "evaluate",
    "init",
    "load",
    "ls",
    "predict",
    "run",
    "show",
    "validate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'trimtab' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
