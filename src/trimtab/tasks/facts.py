"""Reading facts: who or what (the subject), in which relation, to what (the object). A fact a line, as JSON.

| source | what a line has | beside the object `obj_label` |
|---|---|---|
| T-REx, and what AutoPrompt and P-tuning drew from it | `sub_label`, maybe `predicate_id` and `evidences` | subject |
| Google-RE | `sub_label`, `judgments`, `masked_sentences` | subject |
| SQuAD | `masked_sentences`; `sub_label` says "Squad" | a sentence with `[MASK]` in the object's place |

Relations have templates such as "[X] was born in [Y] .", in a file `relations.jsonl` (`relation`, `template`, `label`)
or in the recipe. A relation without one has sentences. The formats are those of the released LAMA data (Petroni et al.
2019); T-REx was read from such files, Google-RE and SQuAD from single lines of them and the code that reads them.

As in that code, of two equal facts one counts, and a fact of Google-RE that more raters deny than confirm is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trimtab.errors import DataError, TrimtabError, suggest
from trimtab.tasks.reading import as_text, parse_json, read_lines, read_table

MASK = "[MASK]"


@dataclass(frozen=True)
class Fact:
    """One fact. `sentence` has `[MASK]` in the place of the object; empty where the relation has a template."""

    id: str
    relation: str
    subject: str
    object: str
    sentence: str
    source: str

    @property
    def key(self) -> str:
        """What must not be in two splits: the subject, however it is written, or the sentence."""
        return " ".join((self.sentence or self.subject).casefold().split())


@dataclass(frozen=True)
class Relation:
    """A relation: its template with `[X]` for the subject and `[Y]` for the object, and what it is called."""

    id: str
    template: str = ""
    label: str = ""

    def around(self, fact: Fact) -> tuple[str, str]:
        """The text before the object and the text after it."""
        before, _, after = (fact.sentence or self.template).partition(MASK if fact.sentence else "[Y]")
        return tuple(part.replace("[X]", fact.subject).strip() for part in (before, after))  # type: ignore[return-value]


def read_relations(path: Path, shown: str | None = None) -> dict[str, Relation]:
    """The relations of a file, by id.

    Raises:
        DataError: a line that is none, or a template without [X] or [Y].
    """
    table = read_table(path, shown)
    found = {}
    for row, at in zip(table.rows, table.sources, strict=True):
        own, template = _required(row, "relation", at), _required(row, "template", at)
        found[own] = Relation(own, checked_template(template, at), as_text(row.get("label"), "label", at))
    return found


def checked_template(template: str, where: str, error: type[TrimtabError] = DataError) -> str:
    """A template of a relation.

    Raises:
        TrimtabError: of the sort `error`: [X] or [Y] does not stand in it just once.
    """
    for mark, what in (("[X]", "subject"), ("[Y]", "object")):
        if template.count(mark) != 1:
            raise error(
                f"the template of a relation has {mark} once, for the {what}; got {template!r}.",
                where=where,
                fix="Write it as in LAMA: [X] was born in [Y] .",
            )
    return template


def read_facts(path: Path, relation: Relation, shown: str | None = None) -> tuple[list[Fact], dict[str, int]]:
    """The facts of one relation, and how many lines were left out: `denied` by raters, or `equal` to another.

    Raises:
        DataError: see `trimtab.tasks.reading`; also a line without subject, object or sentence, of another relation, or
            without just one [MASK].
    """
    table = read_table(path, shown)
    facts: list[Fact] = []
    seen: set[tuple[str, str, str]] = set()
    names: set[str] = set()
    left_out = {"denied": 0, "equal": 0}
    for number, (row, at) in enumerate(zip(table.rows, table.sources, strict=True), 1):
        fact = _fact(row, relation, at)
        content = (fact.subject, fact.object, fact.sentence)
        if _is_denied(row, at):
            left_out["denied"] += 1
        elif content in seen:
            left_out["equal"] += 1
        else:
            seen.add(content)
            name = fact.id if fact.id and fact.id not in names else f"{relation.id}-{number}"
            names.add(name)
            facts.append(replace(fact, id=name))
    return facts, left_out


def _fact(row: Mapping[str, Any], relation: Relation, at: str) -> Fact:
    stated = row.get("predicate_id")
    if stated not in (None, relation.id):
        raise DataError(
            f"the fact is of the relation {stated!r}, and the file is read as {relation.id!r}.",
            where=at,
            fix="Give each relation its own file, with {relation} in task.path.",
        )
    own = as_text(row.get("uuid", row.get("id")), "uuid", at)
    answer = _required(row, "obj_label", at)
    if relation.template:
        return Fact(own, relation.id, _required(row, "sub_label", at), answer, "", at)
    return Fact(own, relation.id, "", answer, _sentence(row, relation, at), at)


def _required(row: Mapping[str, Any], key: str, at: str) -> str:
    if key not in row:
        raise DataError(f"there is no {key!r}.", where=at, fix=suggest(key, row) or None)
    value = as_text(row[key], key, at).strip()
    if not value:
        raise DataError(f"{key!r} is empty.", where=at)
    return value


def _sentence(row: Mapping[str, Any], relation: Relation, at: str) -> str:
    given = row.get("masked_sentences")
    if not isinstance(given, list) or not all(isinstance(part, str) for part in given):
        raise DataError(
            f"the relation {relation.id!r} has no template, so a fact needs 'masked_sentences', a list of texts.",
            where=at,
            fix=f"Give a template: task.templates={{{relation.id}: '[X] was born in [Y] .'}}.",
        )
    sentence = " ".join(given)
    if sentence.count(MASK) != 1:
        raise DataError(f"{MASK} must stand once in the sentence, got {sentence!r}.", where=at)
    return sentence


def _is_denied(row: Mapping[str, Any], at: str) -> bool:
    """More raters than not did not say yes."""
    judgments = row.get("judgments", [])
    if not isinstance(judgments, list) or not all(isinstance(j, dict) and "judgment" in j for j in judgments):
        raise DataError("'judgments' must be a list of objects with 'judgment'.", where=at)
    yes = sum(j["judgment"] == "yes" for j in judgments)
    return len(judgments) - yes > yes


def read_words(path: Path, entry: str | None, shown: str | None = None) -> tuple[str, ...]:
    """A list of words: a text file with a word a line, as LAMA's common vocabulary, or JSON, as P-tuning's: a list of
    words or tokens, or such lists by the name of a model, of which `entry` is one. A mark of a space before a word
    (`Ġ`, `▁`) is left out.

    Raises:
        DataError: not such a file, no such entry, or no words.
    """
    name = shown or str(path)
    lines = read_lines(path, name)
    if path.suffix.lower() != ".json":
        words = [line.strip() for line in lines]
        if entry is not None:
            raise DataError(f"only a JSON file has entries, got {entry!r}.", where=name, fix="Leave the entry out.")
    else:
        value = parse_json("\n".join(lines), name)
        if isinstance(value, dict) and all(isinstance(its, list | dict) for its in value.values()):
            if entry not in value:
                what = f"the file has lists for {len(value)} models; got task.vocabulary_entry={entry!r}."
                raise DataError(what, where=name, fix=suggest(entry or "", value))
            value = value[str(entry)]
        words = list(value) if isinstance(value, list | dict) else []
    if not words or not all(isinstance(word, str) for word in words):
        raise DataError("a vocabulary is a list of words, a text file with a word a line or JSON.", where=name)
    return tuple(dict.fromkeys(w for w in (word.lstrip("Ġ▁").strip() for word in words) if w))
