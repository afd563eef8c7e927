"""Label words: what the tokenizer makes of them.

A vocabulary of bytes has other pieces for a word behind a space than for one without; words of several tokens get
smaller scores than words of one; and where the tokens of a word begin another's, the longer one can hardly win.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

from trimtab.diagnosis import Check, Finding
from trimtab.diagnosis.case import Case
from trimtab.metrics import normalized
from trimtab.registry import checks, readouts

Ids = tuple[int, ...]


@final
@checks.register("label_words")
class LabelWords(Check):
    """Are label words single tokens, in the form that the slot asks for, and apart from each other?"""

    topic = "text"
    of_each_task = True

    def examine(self, case: Case) -> Iterator[Finding]:
        rendering, encoder = case.rendering, case.encoder
        if not rendering.has_words:
            return
        classes, texts, ids = rendering.verbalizer.classes, rendering.verbalizer.words, rendering.label_ids(encoder)
        words = [(c, w, i) for c, ws, its in zip(classes, texts, ids, strict=True)
                 for w, i in zip(ws, its, strict=True)]  # fmt: skip
        yield from self._form(case, words)
        yield from self._prefixes(words)
        yield from self._same(case, words)
        yield self._lengths(case, words)

    def _form(self, case: Case, words: list[tuple[str, str, Ids]]) -> Iterator[Finding]:
        """Words that would be fewer tokens with the space that is not there, or without the one that is."""
        spaced = case.rendering.template.answer_is_spaced
        other = {w: case.encoder.answer(w, spaced=not spaced) for _, w, _ in words}
        longer = [(w, len(i), len(other[w])) for _, w, i in words if 0 < len(other[w]) < len(i)]
        if longer:
            word, now, then = longer[0]
            way = (
                "Write a space before {answer}, behind a word" if not spaced else "Leave out the space before {answer}"
            )
            yield Finding(
                "warning",
                f"{len(longer)} label words have more tokens {'with' if spaced else 'without'} a space before them, as "
                f"the template has it: {word!r} is {now} tokens, else {then}",
                f"{way} in task.template.",
                {"longer": [w for w, _, _ in longer]},
            )

    def _prefixes(self, words: list[tuple[str, str, Ids]]) -> Iterator[Finding]:
        """Words whose tokens begin those of a word of another class."""
        for c, w, i in words:
            for d, v, j in words:
                if c != d and len(i) < len(j) and j[: len(i)] == i:
                    yield Finding(
                        "warning",
                        f"the tokens of {w!r} ({c}) begin those of {v!r} ({d}), which can then hardly score higher",
                        f"Choose another word: task.label_words.{d}=...",
                        {"short": w, "long": v},
                    )

    def _same(self, case: Case, words: list[tuple[str, str, Ids]]) -> Iterator[Finding]:
        """Words of two classes that a written answer cannot tell apart but by case and punctuation."""
        if not readouts.get(case.config.readout["kind"]).writes:  # type: ignore[attr-defined]
            return
        owners: dict[str, str] = {}
        for c, w, _ in words:
            if owners.setdefault(normalized(w), c) != c:
                what = f"written answers name {w!r} ({c}) and a word of {owners[normalized(w)]!r} by the same letters"
                yield Finding("warning", what, f"Choose another word: task.label_words.{c}=...", {"word": w})

    def _lengths(self, case: Case, words: list[tuple[str, str, Ids]]) -> Finding:
        """How many tokens words have."""
        several = {w: case.encoder.tokens(i) for _, w, i in words if len(i) > 1}
        numbers = {"tokens": {w: len(i) for _, w, i in words}}
        if not several:
            form = "with" if case.rendering.template.answer_is_spaced else "without"
            return Finding(
                "ok", f"{len(words)} label words, each one token ({form} a space before it)", numbers=numbers
            )
        word, pieces = next(iter(several.items()))
        seen = f"{len(several)} of {len(words)} label words have several tokens, such as {word!r}: {' '.join(pieces)}"
        is_mixed = len({len(i) for _, _, i in words}) > 1
        if is_mixed and case.config.readout.get("length_normalized") is False:
            advice = "Longer words score lower: take words of one token, or readout.length_normalized=true."
            return Finding("note", seen, advice, numbers)
        return Finding("ok", seen, numbers=numbers)
