"""Label words for a table that nobody has written a recipe for: per class a few words that the tokenizer has whole.

The first word of a class, in this order: the class's name; a part or the stem of it; the usual word for it, such as
`thing` for ENTY; the word most typical of the class's rows; the name whatever it is; any word. Words are never shared
between classes. Where the names together form a well-known scale (yes/no, ratings, ...) and not all of them are whole
words, the scale is worded as one, so that its words fit each other. After it, unless the names form a scale, stand
the words most typical of the class's training rows: for topics, the mean over a few words beats one word of a small
model (figures in docs/LOG.md).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from trimtab.errors import DataError
from trimtab.text_encoder import TextEncoder

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_CAMEL = re.compile(r"(?<=[^\W\d_A-Z])(?=[A-Z])")
_NUMBER = re.compile(r"[-+]?\d+(\.0)?")
_RATING = re.compile(r"star|rating|score|rate|satisf|sentiment|review", re.IGNORECASE)
_NO_RATING = re.compile(
    r"priori|sever|urgen|level|class|categ|type|topic|group|cluster|code|queue|tier|stage|id$", re.I
)
_STARS = re.compile(r"([1-5])(?:\.0)?(?:\s*(?:stars?|★|/\s*5))?", re.IGNORECASE)
_MOST_ROWS = 4000
_PRIOR_ROWS = 10.0
_LEAST_Z = 1.0
_MORE_WORDS = 4

_STOP_TEXT = """
a about after again all also although always am an and any are as at away be because been before being both but by
came can cannot come could did do does doing done down during each either else even ever every few for from further
get gets getting give given go goes going gone got had has have having he her here hers herself him himself his how
however if in instead into is it its itself just keep kept let like made make makes many may me might mine more
most much must my myself neither never no nor not now of off often on once one only onto or other our ours out over
own per put quite rather really said same say says see seem seems she should since so some something still such
take taken takes than that the their theirs them themselves then there therefore these they thing things this those
though through thus to too took two under until up upon us use used uses using very was way we well went were what
when where whether which while who whole whom whose why will with within without would yet you your yours yourself
"""
STOP_WORDS = frozenset(_STOP_TEXT.split())


@dataclass(frozen=True)
class Choice:
    """The first label word of a class, why it was chosen, and the typical words after it."""

    word: str
    reason: str
    more: tuple[str, ...] = ()

    @property
    def words(self) -> str | list[str]:
        """As a recipe has them."""
        return [self.word, *self.more] if self.more else self.word


@dataclass(frozen=True)
class _Scale:
    """Classes that belong together: other names of each, and wordings from best to least, in the order of `names`."""

    names: tuple[str, ...]
    wordings: tuple[str, ...]


_SCALES = (
    _Scale(
        ("yes y true t 1 on", "no n false f 0 off", "maybe unsure unknown"),
        ("yes no maybe", "yes no perhaps", "true false unknown", "right wrong unclear"),
    ),
    _Scale(
        ("positive pos + 1 +1 good", "negative neg - -1 bad", "neutral neu 0 mixed"),
        ("positive negative neutral", "good bad ok", "good bad average"),
    ),
    _Scale(
        ("entailment entailed entails", "contradiction contradicts", "neutral"),
        ("yes no maybe", "true false perhaps", "true false unknown", "right wrong unclear"),
    ),
    _Scale(("spam", "ham notspam nospam normal legitimate"), ("spam ham", "junk normal", "fake real", "bad normal")),
    _Scale(
        ("toxic abusive hate hateful offensive", "nontoxic nottoxic clean neutral normal ok none nothate nonhate"),
        ("toxic clean", "hate normal", "rude polite", "bad good"),
    ),
    _Scale(("high", "low", "medium normal"), ("high low medium", "high low middle", "big small middle")),
)
_SHORT_FORMS = {"pos", "neg", "neu"}
_NEUTRAL = (
    "first second third fourth fifth sixth seventh eighth ninth tenth one two three four five six seven eight nine ten"
).split()
_STAR_WORDINGS = ("terrible bad okay good great", "awful bad ok good great", "worst bad fair good great")
_USUAL = {
    "abbr": "short abbreviation",
    "anger": "angry",
    "bug": "error broken",
    "complaint": "bad wrong",
    "compliment": "good thanks",
    "contradiction": "false no",
    "cancellation": "cancel end stop",
    "desc": "description meaning",
    "disgust": "disgusting ugly",
    "entailment": "true yes",
    "enty": "thing object",
    "feature": "new wish",
    "ham": "normal real",
    "hum": "human person",
    "hr": "staff people",
    "it": "computer software",
    "joy": "happy",
    "loc": "location place",
    "negative": "bad poor",
    "neutral": "average ok",
    "num": "number",
    "positive": "good great",
    "praise": "good thanks",
    "question": "ask",
    "refund": "money return",
    "request": "ask wish",
    "sadness": "sad",
    "sci": "science",
    "spam": "junk fake",
    "surprise": "surprised sudden",
    "tech": "technology technical",
    "toxic": "hate rude",
    "urgent": "quick fast",
}


def choose_words(texts: Mapping[str, Sequence[str]], encoder: TextEncoder, column: str) -> dict[str, Choice]:
    """Words for every class, each a single piece of the tokenizer and no two the same piece.

    Args:
        texts: class -> the texts of its training rows.
        encoder: the backbone's tokenizer.
        column: name of the label column; numbers in a column called `rating` are read as stars.

    Raises:
        DataError: the vocabulary has fewer whole words than there are classes.
    """
    state = _Words(encoder, {label: _parts(label) for label in texts})
    _take_names(state)
    if state.open:
        _take_scale(state, column)
    for step in (_take_parts, _take_usual):
        step(state)
    _take_typical(state, texts)
    _take_anything(state)
    if not is_scale(list(texts), column):
        _add_typical(state, texts)
    return {label: state.chosen[label] for label in texts}


@dataclass
class _Words:
    """Words chosen so far."""

    encoder: TextEncoder
    parts: Mapping[str, list[str]]
    chosen: dict[str, Choice] = field(default_factory=dict)
    taken: dict[int, str] = field(default_factory=dict)

    @property
    def open(self) -> list[str]:
        """Classes that have no word yet."""
        return [label for label in self.parts if label not in self.chosen]

    def piece(self, word: str) -> int | None:
        """The token id of a word after a space; None where it is unknown or falls into pieces."""
        ids = self.encoder.encode(f" {word}").ids if word.strip() == word and word else []
        return ids[0] if len(ids) == 1 and ids[0] != self.encoder.unk_id else None

    def free_piece(self, word: str) -> int | None:
        """The same; None also where another word has it."""
        piece = self.piece(word)
        return None if piece in self.taken else piece

    def take(self, label: str, words: Iterable[str], reason: str) -> bool:
        """Give `label` the first word that is whole and free."""
        for word in words:
            piece = self.free_piece(word)
            if piece is not None:
                self.chosen[label] = Choice(word, reason)
                self.taken[piece] = label
                return True
        return False

    def clear(self) -> None:
        self.chosen.clear()
        self.taken.clear()


def _parts(label: str) -> list[str]:
    """The words of a class name: `lateDelivery`, `late_delivery` -> late, delivery."""
    return [w.lower() for w in _WORD.findall(_CAMEL.sub(" ", label).replace("_", " "))]


def is_scale(labels: Sequence[str], column: str) -> bool:
    """Whether class names together form a well-known scale: yes/no, positive/negative, stars, ...

    >>> is_scale(["negative", "positive"], "label"), is_scale(["sports", "politics"], "label")
    (True, False)
    """
    return next(_scale_wordings(labels, column), None) is not None


def _take_names(state: _Words) -> None:
    for label, parts in state.parts.items():
        if (
            len(parts) == 1
            and len(parts[0]) > 1
            and parts[0] == label.lower()
            and (_is_telling(parts[0]) or parts[0] == "no")
        ):
            state.take(label, parts, "its name")


def _is_telling(word: str) -> bool:
    return word not in STOP_WORDS and word not in _SHORT_FORMS


def _take_scale(state: _Words, column: str) -> None:
    """Word the whole scale where the classes form one and a wording exists whose words are all whole."""
    for words in _scale_wordings(list(state.parts), column):
        pieces = [state.piece(w) for w in words.values()]
        if None not in pieces and len(set(pieces)) == len(pieces):
            state.clear()
            for label, word in words.items():
                state.take(label, [word], f"usual word for {label!r}" if label.lower() != word else "its name")
            return


def _scale_wordings(labels: Sequence[str], column: str) -> Iterator[dict[str, str]]:
    stars = [_STARS.fullmatch(label) for label in labels]
    if looks_like_rating(labels, column):
        for wording in _STAR_WORDINGS:
            yield {a: wording.split()[int(m[1]) - 1] for a, m in zip(labels, stars, strict=True) if m}
        return
    for scale in _SCALES:
        place = {label: i for label in labels for i, names in enumerate(scale.names) if _plain(label) in names.split()}
        if len(place) == len(labels) == len(set(place.values())):
            for wording in scale.wordings:
                words = wording.split()
                if all(i < len(words) for i in place.values()):
                    yield {label: words[i] for label, i in place.items()}
    for positive, negative in (labels, labels[::-1]) if len(labels) == 2 else ():
        if _plain(negative) in {f"{prefix}{_plain(positive)}" for prefix in ("not", "no", "non")}:
            for yes, no in (("yes", "no"), ("true", "false"), ("right", "wrong")):
                yield {positive: yes, negative: no}


def _plain(label: str) -> str:
    """A class name without case, spaces and punctuation; numbers and signs as they are."""
    text = label.lower()
    return text.removesuffix(".0") if _NUMBER.fullmatch(text) else re.sub(r"[\W_]", "", text) or text


def looks_like_rating(labels: Sequence[str], column: str) -> bool:
    """Whether classes are 1 to 5 stars: they say so, or the column's name does, or all five are there."""
    stars = {m[1] for label in labels if (m := _STARS.fullmatch(label))}
    if len(stars) != len(labels):
        return False
    if "star" in labels[0].lower() or _RATING.search(column):
        return True
    return len(stars) == 5 and not _NO_RATING.search(column)


def _take_parts(state: _Words) -> None:
    """A part that no other class has; one-word names first, as their only part names them alone."""
    shared = Counter(part for parts in state.parts.values() for part in set(parts))
    for label in sorted(state.open, key=lambda k: len(state.parts[k]) > 1):
        own = [p for p in state.parts[label] if len(p) > 2 and _is_telling(p)]
        if len(state.parts[label]) > 1:
            own = [p for p in own if shared[p] == 1]
        if state.take(label, own, "part of its name"):
            continue
        state.take(label, (stem for part in own for stem in _stems(part)), "from its name")


_ENDINGS = {
    "ies": ("y",), "es": ("",), "s": ("",), "ing": ("", "e"), "ed": ("", "e"), "ment": ("",), "ation": ("", "e"),
    "al": ("",), "ly": ("",), "y": ("",),
}  # fmt: skip


def _stems(word: str) -> Iterator[str]:
    """Shorter words behind an English ending: billing -> bill, shipping -> ship, delivery -> deliver."""
    for ending, replacements in _ENDINGS.items():
        stem = word.removesuffix(ending)
        if stem == word or len(stem) < (3 if len(ending) > 2 else 4) or not re.search("[aeiouy]", stem):
            continue
        yield from (stem + r for r in replacements)
        if stem[-1] == stem[-2] and ending in ("ing", "ed", "ation"):
            yield stem[:-1]


def _take_usual(state: _Words) -> None:
    for label in state.open:
        parts = state.parts[label]
        words = (w for part in parts for w in _USUAL.get(part, "").split())
        state.take(label, words, "usual word for " + " ".join(parts))


def _take_typical(state: _Words, texts: Mapping[str, Sequence[str]]) -> None:
    if not state.open:
        return
    for typical in _typical(texts, state.open):
        if typical.label not in state.chosen:
            state.take(typical.label, [typical.word], f"typical: in {typical.rows} of {typical.of} of its rows")


def _add_typical(state: _Words, texts: Mapping[str, Sequence[str]]) -> None:
    """Up to `_MORE_WORDS` more words for each class."""
    for typical in _typical(texts, list(texts)):
        choice = state.chosen[typical.label]
        piece = state.free_piece(typical.word)
        if piece is not None and len(choice.more) < _MORE_WORDS:
            state.chosen[typical.label] = replace(choice, more=(*choice.more, typical.word))
            state.taken[piece] = typical.label


@dataclass(frozen=True)
class _Typical:
    """A word that stands in `rows` of the `of` rows of a class, far more than elsewhere."""

    label: str
    word: str
    rows: int
    of: int


def _typical(texts: Mapping[str, Sequence[str]], labels: Sequence[str]) -> list[_Typical]:
    """Words by their log-odds (Monroe et al. 2008, equations 16 to 22): the strongest pair of class and word first."""
    rows = {label: _evenly(its, _MOST_ROWS) for label, its in texts.items()}
    counts = {label: Counter(w for text in its for w in set(_words(text))) for label, its in rows.items()}
    ranked = sorted(
        ((z, label, word) for label in labels for word, z in _log_odds(counts, label).items()),
        key=lambda entry: (-entry[0], entry[1:]),
    )
    return [_Typical(label, word, counts[label][word], len(rows[label])) for _, label, word in ranked]


def _words(text: str) -> list[str]:
    return [
        w for w in _WORD.findall(text.lower()) if len(w) > 2 and w not in STOP_WORDS and "'" not in w and "’" not in w
    ]


def _evenly(items: Sequence[str], most: int) -> list[str]:
    step = max(1, math.ceil(len(items) / most))
    return list(items[::step])


def _log_odds(counts: Mapping[str, Counter[str]], label: str) -> dict[str, float]:
    """z of each word's log-odds ratio, this class against the others, with a Dirichlet prior shaped like the table.

    delta = log((y + a) / (n + A - y - a)) - log((y' + a) / (n' + A - y' - a));   z = delta / sqrt(1/(y+a) + 1/(y'+a))
    """
    total: Counter[str] = Counter()
    for its in counts.values():
        total.update(its)
    everything = max(1, sum(total.values()))
    prior = _PRIOR_ROWS * len(counts)
    n = sum(counts[label].values())
    result = {}
    for word, y in counts[label].items():
        other, a = total[word] - y, prior * total[word] / everything
        rest = (n + prior - y - a, everything - n + prior - other - a)
        if y < 2 or min(rest) <= 0:
            continue
        delta = math.log((y + a) / rest[0]) - math.log((other + a) / rest[1])
        z = delta / math.sqrt(1 / (y + a) + 1 / (other + a))
        if z >= _LEAST_Z:
            result[word] = z
    return result


def _take_anything(state: _Words) -> None:
    """The name as it is (a number, a letter), then parts, then ordinary words of the vocabulary."""
    for label in state.open:
        state.take(label, [label.lower(), *state.parts[label]], "its name")
    if not state.open:
        return
    vocabulary = state.encoder.tokenizer.get_vocab()
    tokens = (token.lstrip("Ġ▁") for token in sorted(vocabulary, key=vocabulary.__getitem__))
    words = chain(_NEUTRAL, (w for w in tokens if w.isalpha() and len(w) > 2 and w.lower() not in STOP_WORDS))
    for label in state.open:
        if not state.take(label, words, "arbitrary: no better word found"):
            raise DataError(
                f"the tokenizer has too few whole words for {len(state.parts)} classes.",
                where="task.label_words",
                fix="Use another backbone.",
            )
