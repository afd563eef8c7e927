"""One assertion for all errors of ours: class, what, where and what to do, each checked on its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from trimtab.errors import TrimtabError


@contextmanager
def refused(kind: type[TrimtabError], what: str, *, where: str | None = None, fix: str | None = None) -> Iterator[None]:
    """The block must raise exactly `kind`; `what` and `fix` must occur in its parts, `where` must be equal.

    `fix=None` demands that there is no advice, `where=None` that no place is named.
    """
    with pytest.raises(TrimtabError) as caught:
        yield
    error = caught.value
    assert type(error) is kind, f"{type(error).__name__}: {error}"
    assert what in error.what, error.what
    assert error.where == where, error.where
    assert (error.fix is None) if fix is None else (error.fix is not None and fix in error.fix), error.fix
    assert "\n" not in str(error), "an error is one paragraph"
    for part in (error.what, error.where, error.fix):
        assert part is None or part in str(error)
