"""Tags of entities in their many spellings, read as BIO2.

BIO2 (Tjong Kim Sang & Veenstra 1999): `B-type` for the first word of an entity, `I-type` for its further words, `O` for
all others. The other schemes are converted, as nothing is lost; a tag that continues no entity begins one, which is how
seqeval and conlleval read it.

* IOB1 (Ramshaw & Marcus 1995): B only where an entity follows another of its type; I begins all others.
* IOE (Tjong Kim Sang & Veenstra 1999): entities end with E, always or only before another of their type.
* IOBES, BILOU, BMES, BMEWO: the last word of an entity (E, L) and entities of one word (S, U, W) are marked too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from trimtab.errors import DataError

_ROLES = {"B": "B", "I": "I", "M": "I", "E": "E", "L": "E", "S": "S", "U": "S", "W": "S"}
_SCHEMES = {"BIO2": "BI", "IOE": "IE", "IOBES": "BIES", "BILOU": "BILU", "BMES": "BMES", "BMEWO": "BMEW"}


def as_bio2(sentences: Sequence[Sequence[str]], name: str) -> tuple[list[tuple[str, ...]], str, int]:
    """The tags of a whole file as BIO2.

    Args:
        sentences: the tags of each sentence.
        name: how errors call the file.

    Returns:
        The tags; the scheme of the file, which is IOB1 where no B is there that IOB1 would not need; and how many tags
        continue no entity, against the scheme.

    Raises:
        DataError: a tag that is none, or prefixes of several schemes.
    """
    letters = {parts(t)[0] for tags in sentences for t in tags} - {"O"}
    scheme = next((s for s, known in _SCHEMES.items() if letters <= set(known)), None)
    if scheme is None:
        raise DataError(
            f"the tags begin with {', '.join(sorted(letters))}, which no scheme does.",
            where=name,
            fix="Write B- for the first word of an entity and I- for its others.",
        )
    found = [repaired(tags) for tags in sentences]
    broken = sum(n for _, n in found)
    if scheme == "BIO2" and broken and not any(map(_begins, sentences)):
        scheme = "IOB1"
    return [tags for tags, _ in found], scheme, 0 if scheme in ("IOB1", "IOE") else broken


def repaired(tags: Sequence[str]) -> tuple[tuple[str, ...], int]:
    """The tags of one sentence as BIO2, and how many of them continued no entity. Entities stay those of seqeval.

    Raises:
        DataError: a tag that is none.

    >>> repaired(["I-person", "I-person", "O", "B-group", "I-person"])
    (('B-person', 'I-person', 'O', 'B-group', 'B-person'), 2)
    """
    found, broken = [], 0
    role_before = type_before = "O"
    for tag in tags:
        letter, kind = parts(tag)
        role = _ROLES.get(letter, "O")
        continues = role in ("I", "E") and role_before in ("B", "I") and type_before == kind
        broken += role in ("I", "E") and not continues
        found.append("O" if role == "O" else f"{'I' if continues else 'B'}-{kind}")
        role_before, type_before = role, kind
    return tuple(found), broken


def parts(tag: str, at: str | None = None) -> tuple[str, str]:
    """The prefix of a tag and the type of its entity, which is empty for O.

    Raises:
        DataError: at `at` there is no tag of an entity, or there are several.
    """
    if tag == "O":
        return "O", ""
    letter, _, kind = tag.partition("-")
    if re.search(",[A-Z]-", kind):
        raise DataError(
            f"the tag {tag!r} names several entities.",
            where=at,
            fix="A word has one tag: use a file whose annotations agree (of WNUT-17: emerging.test.annotated).",
        )
    if letter in _ROLES and kind:
        return letter, kind
    what = "the word has no tag." if not tag else f"{tag!r} is no tag of an entity."
    advice = "Write B-type, I-type with a hyphen, or O."
    fix = f"Name the type: {tag.rstrip('-')}-entity." if letter in _ROLES else advice
    raise DataError(what, where=at, fix=fix)


def _begins(tags: Sequence[str]) -> bool:
    """Some B is not needed to tell two entities of one type apart, so it marks beginnings."""
    return any(t[0] == "B" and (i == 0 or tags[i - 1][1:] != t[1:]) for i, t in enumerate(tags))
