"""Cut an excerpt from a corpus: whole articles, drawn at random, small enough to carry to another machine.

    python scripts/corpus_excerpt.py ../shared/corpus/wikipedia-en.txt.xz work/excerpt.txt.xz --megabytes 15

Articles (paragraphs up to an empty line) keep their order. The limit is on the compressed file.
"""

from __future__ import annotations

import argparse
import lzma
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pretrain_nano import read_paragraphs


def articles(corpus: Path) -> Iterator[str]:
    """Articles with their paragraphs, one a line."""
    lines: list[str] = []
    for paragraph in read_paragraphs(corpus):
        if paragraph:
            lines.append(paragraph)
        elif lines:
            yield "\n".join(lines) + "\n\n"
            lines = []
    if lines:
        yield "\n".join(lines) + "\n\n"


def excerpt(corpus: Path, target: Path, limit: int, seed: int) -> tuple[int, int]:
    """Write at most `limit` compressed bytes; returns articles and characters written.

    The share of articles to keep is guessed from sizes; a result that is too large is drawn again with a smaller share.
    """
    size = corpus.stat().st_size if corpus.suffix == ".xz" else compressed_size(corpus)
    share = 0.98 * limit / size
    while True:
        draw = np.random.default_rng(seed)
        kept = [a for a in articles(corpus) if draw.random() < share]
        data = lzma.compress("".join(kept).encode())
        if len(data) <= limit:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            return len(kept), sum(map(len, kept))
        share *= 0.97 * limit / len(data)


def compressed_size(corpus: Path) -> int:
    """What a plain corpus comes to once compressed, guessed from its first megabyte."""
    with corpus.open("rb") as file:
        head = file.read(1 << 20)
    return max(1, round(len(lzma.compress(head)) / max(1, len(head)) * corpus.stat().st_size))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--megabytes", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=13)
    a = parser.parse_args(argv)
    n, characters = excerpt(a.corpus, a.target, int(a.megabytes * 1e6), a.seed)
    print(f"{n:,} articles, {characters / 1e6:.1f} M characters, {a.target.stat().st_size / 1e6:.1f} MB compressed")


if __name__ == "__main__":
    main()
