"""Verbalizers: class -> label words -> token ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trimtab.errors import ConfigError, TemplateError
from trimtab.metrics import normalized
from trimtab.text_encoder import TextEncoder


@dataclass(frozen=True)
class Verbalizer:
    """The classes of a task in their order, and the words that stand for each.

    >>> Verbalizer.of({"positive": ["great", "good"], "negative": "bad"}).classes
    ('positive', 'negative')
    """

    classes: tuple[str, ...]
    words: tuple[tuple[str, ...], ...]

    @classmethod
    def free(cls) -> Verbalizer:
        """Of a task without classes, whose answers are free text."""
        return cls((), ())

    @property
    def is_free(self) -> bool:
        """There are no classes: any text may be an answer."""
        return not self.classes

    def class_of(self, text: str) -> str | None:
        """The class that a written answer names by one of its label words: as it stands, else with case, punctuation
        and articles aside. None where that is no class, or several.

        >>> Verbalizer.of({"yes": ["True"], "no": ["False"]}).class_of("true.")
        'yes'
        """
        for form in (str.strip, normalized):
            pairs = zip(self.classes, self.words, strict=True)
            named = [label for label, its in pairs if form(text) in map(form, its)]
            if len(named) == 1:
                return named[0]
        return None

    @classmethod
    def of(cls, label_words: Mapping[str, list[str] | str], where: str = "task.label_words") -> Verbalizer:
        """From a mapping class -> word or words.

        Raises:
            ConfigError: fewer than two classes, a class without words, or a word that stands for two classes.
        """
        words = {str(c): (w,) if isinstance(w, str) else tuple(w) for c, w in label_words.items()}
        if len(words) < 2:
            raise ConfigError(f"at least two classes are needed, got {list(words)}.", where=where)
        owner: dict[str, str] = {}
        for label, its in words.items():
            if not its or not all(w.strip() for w in its):
                raise ConfigError("a class needs at least one label word.", where=f"{where}.{label}")
            for word in its:
                if owner.setdefault(word, label) != label:
                    raise ConfigError(
                        f"the word {word!r} stands for both {owner[word]!r} and {label!r}.", where=f"{where}.{label}"
                    )
        return cls(tuple(words), tuple(words.values()))

    def encode(
        self, encoder: TextEncoder, *, spaced: bool, lead: str | None = None, where: str = "task.label_words"
    ) -> list[list[tuple[int, ...]]]:
        """Token ids of the label words: `ids[c][w]`, one or several tokens each.

        Args:
            encoder: the backbone's text encoder.
            spaced: whether the answer slot follows a space; byte-level vocabularies have other pieces then.
            lead: the text that the answer continues, see `TextEncoder.answer`.

        Raises:
            TemplateError: the tokenizer does not know a word or drops all of it, or maps words of two classes to the
                same tokens (an uncased tokenizer does so with "US" and "us").
        """
        owner: dict[tuple[int, ...], str] = {}
        result: list[list[tuple[int, ...]]] = []
        for label, its in zip(self.classes, self.words, strict=True):
            ids = []
            for word in its:
                pieces = encoder.answer(word, spaced=spaced, lead=lead)
                at = f"{where}.{label}"
                if not pieces or encoder.unk_id in pieces:
                    becomes = "the unknown token" if pieces else "nothing"
                    raise TemplateError(
                        f"the tokenizer cannot produce the label word {word!r}; it becomes {becomes}.",
                        where=at,
                        fix="Choose another word.",
                    )
                if owner.setdefault(pieces, label) != label:
                    raise TemplateError(
                        f"the label word {word!r} has the same tokens as a word of class {owner[pieces]!r}.", where=at
                    )
                ids.append(pieces)
            result.append(ids)
        return result
