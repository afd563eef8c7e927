"""Notes: what a user should know of a run, in sentences, as events: {"event": "note", "run": r, "text": ...}."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from trimtab.regularizers import Regularizer, notes_of


@runtime_checkable
class Noted(Protocol):
    """What is asked of a member of the pack."""

    regularizers: Sequence[Regularizer]


def note(run: int, text: str) -> dict[str, Any]:
    """The event."""
    return {"event": "note", "run": run, "text": text}


def say(
    members: Sequence[Noted], report: Callable[[Mapping[str, Any]], None], said: Sequence[str] = ()
) -> tuple[str, ...]:
    """Report what the regularizers of a pack note, to each run in which they weigh something.

    Args:
        members: the regularizers of the first act for all.
        said: notes that were reported before, and are not again.

    Returns:
        All that was said by now.
    """
    known = list(said)
    for k, regularizer in enumerate(members[0].regularizers):
        runs = [r for r, m in enumerate(members) if m.regularizers[k].weight]
        for text in notes_of([regularizer]) if runs else ():
            if text not in known:
                known.append(text)
                for r in runs:
                    report(note(r, text))
    return tuple(known)
