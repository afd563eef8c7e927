"""What every prompt encoder promises, checked over the registry."""

from __future__ import annotations

import pytest

from trimtab.registry import prompts


@pytest.mark.parametrize("kind", prompts.kinds())
def test_placeholder_kinds_are_found(kind: str) -> None:
    assert prompts.get(kind)
