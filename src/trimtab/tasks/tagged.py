"""Reading sentences whose words carry tags: columns as in CoNLL, rows of JSON, rows with a predicate (semantic roles).

Tags come out as BIO2, see `trimtab.tasks.bio`; `Tagged` says what was changed, so that a caller can say so once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trimtab.errors import DataError, suggest
from trimtab.tasks.bio import as_bio2, parts
from trimtab.tasks.reading import as_text, read_lines, read_table, row_fields
from trimtab.types import Example


@dataclass(frozen=True)
class Sentence:
    """Words and their tags, as many as words.

    Attributes:
        words: never empty texts; some hold only characters that a tokenizer removes, such as zero-width spaces.
        tags: BIO2.
        extra: other cells of the row, as text; `predicate` for semantic roles.
        source: `file:line` of the first word.
    """

    id: str
    words: tuple[str, ...]
    tags: tuple[str, ...]
    extra: Mapping[str, str]
    source: str


@dataclass(frozen=True)
class Tagged:
    """The sentences of a file.

    Attributes:
        scheme: that of the file: BIO2, IOB1, IOE, IOBES, BILOU, BMES or BMEWO.
        repaired: how many tags continued no entity and were read as its beginning.
    """

    sentences: tuple[Sentence, ...]
    scheme: str
    repaired: int

    @property
    def types(self) -> tuple[str, ...]:
        """The types of entities, sorted; none where all tags are O."""
        return tuple(sorted({t[2:] for s in self.sentences for t in s.tags if t != "O"}))

    @property
    def remark(self) -> str:
        """What was changed, in a sentence or two for the user; empty where nothing was."""
        said = []
        if self.scheme != "BIO2":
            said.append(f"The tags are {self.scheme} and were read as BIO2.")
        if self.repaired:
            one = "1 tag continues no entity and is read as a beginning"
            many = f"{self.repaired} tags continue no entity and are read as beginnings"
            said.append(f"{one if self.repaired == 1 else many}, as in seqeval.")
        return " ".join(said)


def read_conll(
    path: Path, name: str | None = None, *, word_column: int = 0, tag_column: int = -1, stem: str = "sentence"
) -> Tagged:
    """Read one word a line, its columns separated by tabs or, where the first line has none, by spaces.

    Sentences end at lines that are empty or hold only white space, and at `-DOCSTART-` lines, which are skipped. In a
    tab-separated file a word may hold spaces.

    Args:
        path: the file, UTF-8.
        name: how errors call it; the path by default.
        word_column: which column holds the words, counted from 0; negative from the end.
        tag_column: which holds the tags.
        stem: sentences are called `<stem>-1`, `<stem>-2`, ...

    Raises:
        DataError: a file that is missing, empty, binary or not UTF-8; a line with another number of columns than the
            first, as words would shift into tags; a word or tag that is missing; a tag that is none.
    """
    shown = name or str(path)
    sentences: list[Sentence] = []
    words: list[str] = []
    tags: list[str] = []
    for number, cells in _columns([*read_lines(path, name), ""], shown):
        at = f"{shown}:{number}"
        if cells is not None:
            words.append(_cell(cells, word_column, "words", at))
            tags.append(_cell(cells, tag_column, "tags", at).strip())
            if not words[-1]:
                raise DataError("the word is empty.", where=at, fix="Remove the line, or let it end the sentence.")
            parts(tags[-1], at)
        elif words:
            source = f"{shown}:{number - len(words)}"
            sentences.append(Sentence(f"{stem}-{len(sentences) + 1}", tuple(words), tuple(tags), {}, source))
            words, tags = [], []
    if not sentences:
        raise DataError("the file has no words.", where=shown)
    return _tagged(sentences, shown)


def _cell(cells: Sequence[str], column: int, what: str, at: str) -> str:
    if not -len(cells) <= column < len(cells):
        raise DataError(f"there is no column {column} for the {what}; the line has {len(cells)} columns.", where=at)
    return cells[column]


def _columns(lines: Sequence[str], shown: str) -> Iterator[tuple[int, list[str] | None]]:
    """Numbered lines as cells, None where a sentence ends. The first says what separates them and how many they are."""
    tabs, width = False, 0
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("-DOCSTART-"):
            yield number, None
            continue
        at = f"{shown}:{number}"
        if "\r" in line:
            raise DataError("a carriage return stands within the line.", where=at, fix="End lines with \\n or \\r\\n.")
        tabs = tabs if width else "\t" in line
        cells = line.split("\t") if tabs else re.split("[ \t]+", line.strip(" \t"))
        width = width or len(cells)
        if width == 1:
            raise DataError(
                "the line has one column; a word needs a tag.",
                where=at,
                fix="Give one word a line and its tag behind it, separated by a tab or spaces.",
            )
        if len(cells) != width:
            raise DataError(
                f"the first line has {width} columns, this line has {len(cells)}.",
                where=at,
                fix="Give a word and its tag in every line; separate them by tabs where words hold spaces.",
            )
        yield number, cells


def read_rows(
    path: Path,
    name: str | None = None,
    *,
    words: str = "tokens",
    tags: str = "tags",
    predicate: str | None = None,
    stem: str = "sentence",
) -> Tagged:
    """Read one sentence a row of JSONL (or Parquet): `{"tokens": [...], "tags": [...]}`; other cells become `extra`.

    For semantic roles a row has one predicate, so a sentence stands once for each; a template can then write the
    sentence, a separator and `{predicate}`, as P-tuning v2 does.

    Args:
        path: the file.
        name: how errors call it; the path by default.
        words: the column of words.
        tags: the column of tags, by name, not by number.
        predicate: the column of the predicate: its position among the words, from 0, or its text. Either way
            `extra["predicate"]` is the text.
        stem: sentences without an `id` are called `<stem>-1`, `<stem>-2`, ...

    Raises:
        DataError: see `read_table`; a missing column, a cell of another kind, another number of tags than of words, a
            tag that is none, a predicate that is no word, an id that stands twice.
    """
    shown = name or str(path)
    table = read_table(path, name)
    for column in (words, tags, predicate):
        if column is not None and column not in table.columns:
            raise DataError(f"there is no column {column!r}.", where=shown, fix=suggest(column, table.columns))
    sentences: list[Sentence] = []
    seen: dict[str, str] = {}
    for row, at in zip(table.rows, table.sources, strict=True):
        its_words, its_tags = _texts(row.get(words), words, "words", at), _texts(row.get(tags), tags, "tags", at)
        if len(its_words) != len(its_tags):
            raise DataError(f"the sentence has {len(its_words)} words and {len(its_tags)} tags.", where=at)
        for tag in its_tags:
            parts(tag, at)
        extra = row_fields({c: row.get(c) for c in table.columns}, skip=(words, tags, predicate, "id"))
        if predicate is not None:
            extra["predicate"] = _predicate(row.get(predicate), predicate, its_words, at)
        own = as_text(row.get("id"), "id", at) or f"{stem}-{len(sentences) + 1}"
        if own in seen:
            raise DataError(f"the id {own!r} stands at {seen[own]} too.", where=at, fix="Make the ids unique.")
        seen[own] = at
        sentences.append(Sentence(own, its_words, its_tags, extra, at))
    return _tagged(sentences, shown)


def _texts(cell: Any, column: str, what: str, at: str) -> tuple[str, ...]:
    if not isinstance(cell, list):
        raise DataError(f"the column {column!r} must hold a list of {what}, got {type(cell).__name__}.", where=at)
    for i, text in enumerate(cell):
        if not isinstance(text, str):
            raise DataError(
                f"{what} must be texts, got {text!r} in the column {column!r}.",
                where=at,
                fix="Write the names of the tags, such as B-person, not their numbers." if what == "tags" else None,
            )
        if not text:
            raise DataError(f"position {i} of the column {column!r}, counted from 0, is empty.", where=at)
    if not cell:
        raise DataError(f"the column {column!r} holds no {what}.", where=at)
    return tuple(cell)


def _predicate(cell: Any, column: str, words: Sequence[str], at: str) -> str:
    """The text of a predicate that is given by position or as text."""
    if isinstance(cell, int) and not isinstance(cell, bool):
        if 0 <= cell < len(words):
            return words[cell]
        raise DataError(f"the predicate is word {cell}, counted from 0; there are {len(words)} words.", where=at)
    if isinstance(cell, str) and cell.strip():
        return cell
    raise DataError(
        f"the column {column!r} must hold the position of a word or its text, got {cell!r}.",
        where=at,
        fix="Give a row for each predicate, with tags of its own.",
    )


def _tagged(sentences: Sequence[Sentence], shown: str) -> Tagged:
    tags, scheme, broken = as_bio2([s.tags for s in sentences], shown)
    return Tagged(tuple(replace(s, tags=t) for s, t in zip(sentences, tags, strict=True)), scheme, broken)


def with_words(example: Example, row: Mapping[str, Any]) -> Example:
    """An example with the words of its row, where that has them as a list `tokens` of texts.

    They are its `text` where the row has none. A `predicate` that is given by position becomes text, as in `read_rows`.
    """
    words = row.get("tokens")
    if not isinstance(words, list | tuple) or not words or not all(isinstance(w, str) for w in words):
        return example
    fields = {"text": " ".join(words), **example.fields}
    if "predicate" in row:
        fields["predicate"] = _predicate(row["predicate"], "predicate", words, example.source or example.id)
    return replace(example, fields=fields, words=tuple(words))
