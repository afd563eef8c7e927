"""Scores of ranked answers to facts (Petroni et al. 2019, LAMA), as means over relations. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

MOST = 10
"""P@10."""


@dataclass(frozen=True)
class RankedFact:
    """Where the right object of a fact stands among all that may be answers.

    Attributes:
        group: the relation.
        rank: from 1; None where the object is no single token of the vocabulary, or none that may be an answer.
        prior: the rank of the object among those of the relation's training facts by frequency, 0 where it is none of
            them; None where that is not known.
    """

    group: str
    rank: int | None
    prior: int | None = None


def ranked_facts(facts: Sequence[RankedFact]) -> dict[str, Any]:
    """P@1, P@10 and the mean reciprocal rank: per relation, then the mean over relations (macro).

    Facts whose object cannot be ranked are left out, as in the papers, and counted; in `p_at_1_all` they count as
    wrong. A prompt can learn which object is frequent, so P@1 is also given for facts whose object is not the most
    frequent of train, and for those whose object no training fact has; each over the relations that have such facts.

    Returns:
        `{"p_at_1", "p_at_10", "mrr", "p_at_1_all", "rows"}`; where they are known, `p_at_1_not_majority` and
        `p_at_1_new_objects` with the numbers of such facts, `rows_not_majority` and `rows_new_objects`; `unreachable`,
        where some cannot be ranked; `relations` by name, where there are several.

    >>> found = ranked_facts([RankedFact("a", 1), RankedFact("a", 4), RankedFact("b", 20), RankedFact("b", None)])
    >>> [found[k] for k in ("p_at_1", "p_at_10", "mrr", "p_at_1_all", "unreachable")]
    [0.25, 0.5, 0.3375, 0.25, 1]
    """
    reached = [f for f in facts if f.rank is not None]
    out: dict[str, Any] = {name: macro(reached, of) for name, of in _SCORES.items()}
    out |= {"p_at_1_all": macro(facts, _at(1)), "rows": len(facts)}
    known = [f for f in reached if f.prior is not None]
    for name, its in (
        ("not_majority", [f for f in known if f.prior != 1]),
        ("new_objects", [f for f in known if f.prior == 0]),
    ):
        if its:
            out |= {f"p_at_1_{name}": macro(its, _at(1)), f"rows_{name}": len(its)}
    if len(reached) < len(facts):
        out["unreachable"] = len(facts) - len(reached)
    groups = _by_group(facts)
    if len(groups) > 1:
        out["relations"] = {g: _of_relation(its) for g, its in groups.items()}
    return out


def most_frequent(facts: Sequence[RankedFact]) -> dict[str, float] | None:
    """What it scores to answer with the objects of a relation's training facts, the most frequent first, whatever the
    subject: the same keys as `ranked_facts` has for metrics. None where these are not known.

    >>> most_frequent([RankedFact("a", 9, 1), RankedFact("a", 9, 2), RankedFact("a", 9, 0), RankedFact("a", 9, 4)])
    {'p_at_1': 0.25, 'p_at_10': 0.75, 'mrr': 0.4375, 'p_at_1_all': 0.25}
    """
    if not facts or any(f.prior is None for f in facts):
        return None
    answered = [RankedFact(f.group, f.prior or _NEVER, f.prior) for f in facts if f.rank is not None]
    everywhere = [RankedFact(f.group, f.prior or _NEVER, f.prior) for f in facts]
    return {**{name: macro(answered, of) for name, of in _SCORES.items()}, "p_at_1_all": macro(everywhere, _at(1))}


_NEVER = 1 << 60
"""A rank that no vocabulary has."""


def macro(facts: Iterable[RankedFact], of: Callable[[RankedFact], float]) -> float:
    """The mean over relations of the mean over their facts; 0 where there is none."""
    return fmean([fmean(map(of, its)) for its in _by_group(facts).values()] or [0.0])


def _by_group(facts: Iterable[RankedFact]) -> dict[str, list[RankedFact]]:
    groups: dict[str, list[RankedFact]] = {}
    for fact in facts:
        groups.setdefault(fact.group, []).append(fact)
    return groups


def _of_relation(facts: Sequence[RankedFact]) -> dict[str, float | int]:
    reached = [f for f in facts if f.rank is not None]
    return {**{name: macro(reached, of) for name, of in _SCORES.items()}, "rows": len(facts)}


def _at(most: int) -> Callable[[RankedFact], float]:
    return lambda fact: float(fact.rank is not None and fact.rank <= most)


def _reciprocal(fact: RankedFact) -> float:
    return 0.0 if fact.rank is None or fact.rank == _NEVER else 1 / fact.rank


_SCORES: Mapping[str, Callable[[RankedFact], float]] = {"p_at_1": _at(1), "p_at_10": _at(MOST), "mrr": _reciprocal}
