"""A dozen examples of every task in words of the tiny vocabulary, each in a text of its own length."""

from __future__ import annotations

from dataclasses import dataclass

NEUTRAL = ("the", "film", "was", "big", "old", "and", "red", "song", "in", "two", "small", "blue")
CLASSES = ("positive", "negative")
WORDS = {"positive": "yes", "negative": "no"}
ANSWERS = {"positive": "very good", "negative": "not so bad"}
ANIMALS = ("cat", "dog", "bird")
TAGS = ("O", "B-animal")


@dataclass(frozen=True)
class Example:
    """What every task makes of the same words.

    Attributes:
        words: a text; the word at `animal` is one.
        label: its class.
        choices: how it may go on; the right one is that of the label.
    """

    words: tuple[str, ...]
    animal: int
    label: str
    choices: tuple[str, str]
    question: str = "who is old"

    @property
    def text(self) -> str:
        return " ".join(self.words)

    @property
    def tags(self) -> list[str]:
        return [TAGS[1] if i == self.animal else TAGS[0] for i in range(len(self.words))]

    @property
    def number(self) -> int:
        """Of the label among the classes."""
        return CLASSES.index(self.label)


def _example(i: int) -> Example:
    length, label = 2 + 3 * i % 7, CLASSES[i % 2]
    filling = [NEUTRAL[(5 * i + j * (1 + i % 3)) % len(NEUTRAL)] for j in range(length)]
    at = i % (length + 1)
    words = [*filling[:at], ANIMALS[i % 3], *filling[at:], "good" if label == "positive" else "bad"]
    return Example(tuple(words), at, label, ("is good", ("was bad", "is very bad", "was bad and very sad")[i % 7 % 3]))


EXAMPLES = tuple(_example(i) for i in range(12))
SEVERAL = (0, 1, 2, 3)
"""Rows of different lengths."""
ALIKE = (0, 7)
"""Rows of the same length, so that a batch of them has no pads."""
assert len({len(EXAMPLES[i].words) for i in SEVERAL}) == len(SEVERAL)
assert len({len(EXAMPLES[i].words) for i in ALIKE}) == 1
