"""The excerpt script: whole articles, in order, under the limit."""

from __future__ import annotations

import importlib
import lzma
import random
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.mark.parametrize("suffix", [".txt", ".txt.xz"])
@pytest.mark.parametrize("limit", [2_000, 9_000, 10**9])
def test_whole_articles_in_their_order_under_the_limit(
    suffix: str, limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    script = importlib.import_module("corpus_excerpt")
    draw = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    made = [
        "\n".join("".join(draw.choices(letters, k=60)) for _ in range(draw.randint(1, 4))) + "\n\n" for _ in range(150)
    ]
    corpus, target = tmp_path / f"corpus{suffix}", tmp_path / "deep" / "excerpt.txt.xz"
    data = "".join(made).encode()
    corpus.write_bytes(lzma.compress(data) if suffix.endswith("xz") else data)
    script.main([str(corpus), str(target), "--megabytes", str(limit / 1e6)])
    assert target.stat().st_size <= limit
    kept = list(script.articles(target))
    assert [a for a in made if a in set(kept)] == kept
    assert len(kept) == (150 if limit == 10**9 else len(set(kept)))
    assert len(kept) > (3 if limit == 2_000 else 30)
