"""Schemes of tags: what they become, and that entities stay what seqeval says they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from tests.unit.refusals import refused
from trimtab.errors import DataError
from trimtab.tasks.bio import as_bio2, parts, repaired

HYPHEN = "Write B-type, I-type with a hyphen, or O."


def scheme_of(*sentences: str) -> tuple[list[str], str, int]:
    """Sentences and their BIO2, tags separated by spaces; the scheme; how many tags are broken."""
    tags, scheme, broken = as_bio2([s.split() for s in sentences], "t.conll")
    return [" ".join(t) for t in tags], scheme, broken


@pytest.mark.parametrize(
    ("tags", "expected", "broken"),
    [
        ("B-x I-x O B-x B-x", "B-x I-x O B-x B-x", 0),
        ("I-x I-x", "B-x I-x", 1),
        ("O I-x", "O B-x", 1),
        ("B-x I-y I-y", "B-x B-y I-y", 1),
        ("B-x I-y I-x", "B-x B-y B-x", 2),
        ("B-creative-work I-creative-work", "B-creative-work I-creative-work", 0),
        ("S-x E-x", "B-x B-x", 1),
        ("B-x E-x I-x", "B-x I-x B-x", 1),
        ("B-x L-x U-x", "B-x I-x B-x", 0),
        ("", "", 0),
    ],
)
def test_a_tag_that_continues_nothing_begins_an_entity(tags: str, expected: str, broken: int) -> None:
    assert repaired(tags.split()) == (tuple(expected.split()), broken)


@given(st.lists(st.sampled_from(["O", *(f"{p}-{t}" for p in "BIES" for t in ("x", "y", "x-y", "_"))]), max_size=9))
def test_entities_of_repaired_tags_are_those_of_seqeval(tags: list[str]) -> None:
    found, broken = repaired(tags)
    assert get_entities(list(found)) == get_entities(tags)
    assert repaired(found) == (found, 0)
    assert {t[0] for t in found} <= set("OBI")
    if not {t[0] for t in tags} & set("ES"):
        assert broken == sum(a != b for a, b in zip(tags, found, strict=True))


@pytest.mark.parametrize(
    ("sentences", "expected", "scheme"),
    [
        (["B-x I-x O", "B-y"], ["B-x I-x O", "B-y"], "BIO2"),
        (["O O"], ["O O"], "BIO2"),
        (["I-x I-x B-x I-x O I-y", "I-x"], ["B-x I-x B-x I-x O B-y", "B-x"], "IOB1"),
        (["O I-x I-x"], ["O B-x I-x"], "IOB1"),
        (["I-x E-x E-x O E-y"], ["B-x I-x B-x O B-y"], "IOE"),
        (["B-x I-x E-x S-x O S-y"], ["B-x I-x I-x B-x O B-y"], "IOBES"),
        (["B-x I-x L-x U-x"], ["B-x I-x I-x B-x"], "BILOU"),
        (["B-x M-x E-x S-x"], ["B-x I-x I-x B-x"], "BMES"),
        (["B-x M-x E-x W-x"], ["B-x I-x I-x B-x"], "BMEWO"),
    ],
)
def test_schemes_are_recognized_and_converted_and_nothing_counts_as_broken(
    sentences: list[str], expected: list[str], scheme: str
) -> None:
    assert scheme_of(*sentences) == (expected, scheme, 0)


def test_broken_tags_among_sound_ones_are_counted() -> None:
    assert scheme_of("B-x I-x", "I-x O I-y", "B-x") == (["B-x I-x", "B-x O B-y", "B-x"], "BIO2", 2)
    assert scheme_of("S-x", "B-x E-x", "O I-x") == (["B-x", "B-x I-x", "O B-x"], "IOBES", 1)


def test_one_b_that_iob1_would_not_need_makes_it_bio2() -> None:
    assert scheme_of("I-x B-x")[1:] == ("IOB1", 0)
    assert scheme_of("I-x B-y")[1:] == ("BIO2", 1)
    assert scheme_of("I-x O B-x")[1:] == ("BIO2", 1)


def test_prefixes_of_several_schemes_are_refused() -> None:
    with refused(DataError, "the tags begin with B, L, S, which no scheme does", where="t.conll", fix="Write B-"):
        scheme_of("B-x L-x", "S-x")


@pytest.mark.parametrize(
    ("tag", "what", "fix"),
    [
        ("person", "'person' is no tag of an entity", HYPHEN),
        ("B_person", "'B_person' is no tag of an entity", HYPHEN),
        ("b-person", "'b-person' is no tag of an entity", HYPHEN),
        ("X-person", "'X-person' is no tag of an entity", HYPHEN),
        ("O-person", "'O-person' is no tag of an entity", HYPHEN),
        ("B", "'B' is no tag of an entity", "Name the type: B-entity."),
        ("I-", "'I-' is no tag of an entity", "Name the type: I-entity."),
        ("", "the word has no tag", HYPHEN),
        ("B-group,B-person", "the tag 'B-group,B-person' names several entities", "emerging.test.annotated"),
    ],
)
def test_what_is_no_tag_is_refused(tag: str, what: str, fix: str) -> None:
    with refused(DataError, what, where="t.conll:3", fix=fix):
        parts(tag, "t.conll:3")
    with refused(DataError, what, fix=fix):
        repaired(["O", tag])


def test_a_tag_has_a_prefix_and_a_type() -> None:
    assert (parts("O"), parts("B-creative-work"), parts("I-C,D")) == (("O", ""), ("B", "creative-work"), ("I", "C,D"))
