"""Parts of speech by nltk's tagger, where nltk and its data are installed. English only."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def find_tagger() -> Callable[[Sequence[str]], list[str]] | None:
    """From the words of a sentence to their parts of speech: the first two letters of the Penn tags, so that number,
    tense and degree do not matter. None where there is no tagger.
    """
    try:
        import nltk

        nltk.pos_tag(["word"])
    except (ImportError, LookupError):
        return None
    return lambda words: [tag[:2] for _, tag in nltk.pos_tag(list(words))]
