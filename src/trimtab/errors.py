"""Errors that teach: what must hold, what was got, where, and what to do.

Everything raised on purpose derives from `TrimtabError`. The command line prints it as one paragraph and exits with
code 2; any other exception is a defect of trimtab and exits with code 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class TrimtabError(ValueError):
    """The user can fix this.

    Args:
        what: what must hold and what was got, one or two sentences.
        where: configuration path, `file:line` or example id.
        fix: what to do about it.
    """

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(" ".join(part for part in (f"{where}: {what}" if where else what, fix) if part))


class ConfigError(TrimtabError):
    """A recipe, an override or an option is wrong."""


class TemplateError(TrimtabError):
    """A template or verbalizer cannot be parsed, or an example does not fit it."""


class DataError(TrimtabError):
    """A table is missing, malformed or does not suit the task."""


class BackboneError(TrimtabError):
    """A model cannot be loaded, or cannot do what is asked of it."""


class BundleError(TrimtabError):
    """A run folder or bundle is unreadable, or belongs to another backbone."""


class StorageError(TrimtabError):
    """The disk refuses: it is full, or may not be written."""


class BusyError(StorageError):
    """Another process holds the folder."""


class DivergedError(TrimtabError):
    """Training produced a loss that is not a number; the last good state was kept."""


def suggest(got: str, known: Iterable[str]) -> str:
    """'Did you mean ...?' for a misspelt name, or the list of known names.

    >>> suggest("residul", ["residual", "prompt_tuning"])
    "Did you mean 'residual'?"
    """
    names = sorted(known)
    close = get_close_matches(got, names, n=1, cutoff=0.6)
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"Known: {', '.join(names)}." if names else ""
