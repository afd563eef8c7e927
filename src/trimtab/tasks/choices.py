"""The choices of an example: columns of a table, of which the last may be empty, and which of them is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trimtab.errors import DataError


def choices_of(fields: Mapping[str, str], columns: Sequence[str], where: str) -> dict[str, str]:
    """The choices that an example has, by column; empty cells after the last are choices that it lacks.

    Raises:
        DataError: fewer than two, or an empty one before another.
    """
    texts = {c: fields.get(c, "").strip() for c in columns}
    found = {c: text for c, text in texts.items() if text}
    if list(found) != list(columns[: len(found)]):
        missing = next(c for c in columns if c not in found)
        raise DataError(f"the choice {missing!r} is empty, and {list(found)[-1]!r} is not.", where=where)
    if len(found) < 2:
        raise DataError(
            f"an example needs at least two choices, got {len(found)}.",
            where=where,
            fix=f"Fill the columns {', '.join(columns[:2])}.",
        )
    return found


def right_choice(label: str, choices: Mapping[str, str], where: str) -> str:
    """The column of the right choice, which the label names by its column, by its text or by its number from 0.

    Raises:
        DataError: it names none of the example's choices, or different ones in different ways.

    >>> right_choice("1", {"choice1": "It rained.", "choice2": "It snowed."}, "rows.csv:2")
    'choice2'
    """
    if label in choices:
        return label
    named = [c for c, text in choices.items() if text == label]
    if label.isdecimal() and int(label) < len(choices):
        named.append(list(choices)[int(label)])
    if len(set(named)) == 1:
        return named[0]
    known = f"Write the column of the right choice: {', '.join(choices)}."
    if named:
        what = f"the label {label!r} may mean {' or '.join(dict.fromkeys(named))}: choices are named by text or number."
        raise DataError(what, where=where, fix=known)
    what = f"the label {label!r} is no choice of the row: no column, no text, and no number below {len(choices)}."
    raise DataError(what, where=where, fix=f"{known} Numbers count from 0.")
