"""What a study has found, in plain language: a headline, sentences, and what to be careful about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.metric_names import metric_name
from trimtab.studies.statistics.verdicts import FEWEST_SEEDS

MANY = 6
"""More comparisons than these are summed up instead of told one by one."""
ROOM = 160
"""Letters for a list of names."""

_OUTCOMES = {
    "better": "better",
    "worse": "worse",
    "no_difference": "no visible difference",
    "not_enough_seeds": "not enough seeds to tell",
}


def findings(facts: Mapping[str, Any]) -> dict[str, Any]:
    """`headline`, `sentences` and `cautions` of an analysis."""
    lines = [line for line in facts["lines"] if line["n"]]
    if not lines:
        return {"headline": "No run has ended yet, so there is nothing to report.", "sentences": [], "cautions": []}
    if all(s["imputed"] for line in lines for s in line["scores"]):
        text = f"No run has a result: all {facts['counts']['ended']} failed, or diverged before their first evaluation."
        return {"headline": text, "sentences": [], "cautions": _cautions(facts, lines)}
    versus = facts["comparisons"]["baseline"]
    over_tasks = facts["aggregate"] and len(versus) > MANY
    told = _over_tasks(facts["aggregate"], versus) if over_tasks else _versus_baseline(versus)
    sentences = [*told, *_steadiness(versus)]
    sentences += [s for grid in facts["rates"] for s in _rates(grid)]
    return {
        "headline": _headline(facts, lines),
        "sentences": sentences + _collapses(lines),
        "cautions": _cautions(facts, lines),
    }


def score_text(line: Mapping[str, Any]) -> str:
    """`0.437 ± 0.031 over 5 seeds`."""
    seeds = f"{line['n']} seeds" if line["n"] > 1 else "one seed"
    spread = f" ± {line['sd']:.3f}" if line["sd"] is not None else ""
    return f"{line['mean']:.3f}{spread} over {seeds}"


def _headline(facts: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> str:
    if facts["aggregate"]:
        return _headline_of_tasks(facts["aggregate"])
    best = max(lines, key=lambda line: line["mean"])
    metric = metric_name(best["metric"]) or "score"
    at = f", at {best['setting']}" if best["setting"] else ""
    if len(facts["lines"]) == 1:
        return f"The mean test {metric} is {score_text(best)}{at}."
    text = f"{best['label']} has the highest mean test {metric}: {score_text(best)}{at}."
    seen = {}  # what was planned has the last word
    for pair in [*facts["comparisons"]["pairs"], *facts["comparisons"]["baseline"]]:
        if best["label"] in (pair["a"], pair["b"]):
            other = pair["b"] if pair["a"] == best["label"] else pair["a"]
            won = pair["verdict"]["outcome"] == ("better" if pair["a"] == best["label"] else "worse")
            seen[other] = won
    return f"{text} {_compared(seen)}".strip()


def _compared(won: Mapping[str, bool]) -> str:
    beaten, open_ = ([name for name, its in won.items() if its is flag] for flag in (True, False))
    if not won:
        return ""
    if not open_:
        return f"It is better than {'all others' if len(won) > 1 else beaten[0]}."
    rest = _names(open_)
    if not beaten:
        which = "any of the others" if len(won) > MANY else rest
        return f"These seeds do not show that it is better than {which}."
    return f"It is better than {_names(beaten)}; these seeds do not show that it is better than {rest}."


def _headline_of_tasks(aggregate: Mapping[str, Any]) -> str:
    whole = [m for m in aggregate["methods"] if m["mean"] is not None]
    if not whole:
        return f"No method has runs on all {len(aggregate['tasks'])} tasks yet."
    best = max(whole, key=lambda m: m["mean"])
    text = f"Over {len(aggregate['tasks'])} tasks, {best['label']} has the highest mean test score: {best['mean']:.3f}."
    better = best["improvement"]
    if better:
        text += f" A run of it scores above a run of {best['baseline']} {_chance(better)}, on average over tasks."
    return text


def _chance(better: Mapping[str, Any]) -> str:
    return f"with probability {better['estimate']:.2f} [{better['low']:.2f}, {better['high']:.2f}]"


def _names(names: Sequence[str]) -> str:
    """A list that stays readable: as many names as there is room for, and how many more there are."""
    told = [name for i, name in enumerate(names[:MANY]) if sum(map(len, names[: i + 1])) <= ROOM]
    if len(told) < len(names):
        rest = len(names) - len(told)
        return f"{', '.join(told)} and {rest} more" if told else f"{rest} lines"
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def _versus_baseline(comparisons: Sequence[Mapping[str, Any]]) -> list[str]:
    if len(comparisons) <= MANY:
        return [c["verdict"]["sentence"] for c in comparisons]
    return _summed(comparisons)


def _over_tasks(aggregate: Mapping[str, Any], comparisons: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each method against its baseline: means over tasks, runs over tasks, and the count of verdicts."""
    methods, tasks = {m["label"]: m for m in aggregate["methods"]}, len(aggregate["tasks"])
    sentences = []
    for label, m in methods.items():
        if m["baseline"] is None:
            continue
        base, parts = methods[m["baseline"]], []
        if m["mean"] is not None and base["mean"] is not None:
            less = base["mean"] - m["mean"]
            parts.append(f"its mean over {tasks} tasks is {abs(less):.3f} {'lower' if less > 0 else 'higher'}")
        if better := m["improvement"]:
            parts.append(f"a run of it scores above one of {base['label']} {_chance(better)}")
        its = [c["verdict"]["outcome"] for c in comparisons if c["a"] in m["lines"] and c["b"] in base["lines"]]
        counts = [f"{said} on {its.count(o)}" for o, said in _OUTCOMES.items() if o in its]
        if counts:
            parts.append(f"task by task: {', '.join(counts)}")
        sentences.append(f"{label} against {base['label']}: {'; '.join(parts)}.")
    return sentences


def _summed(comparisons: Sequence[Mapping[str, Any]]) -> list[str]:
    sentences = []
    for base in dict.fromkeys(c["b"] for c in comparisons):
        groups: dict[str, list[str]] = {}
        for c in (c for c in comparisons if c["b"] == base):
            groups.setdefault(c["verdict"]["outcome"], []).append(c["a"])
        told = [f"{said}: {_names(groups[o])}" for o, said in _OUTCOMES.items() if o in groups]
        sentences.append(f"Against {base}: {'; '.join(told)}.")
    return sentences


def _steadiness(comparisons: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which are steadier; of what cannot be told, how much it is."""
    told = [c["spread_verdict"] for c in comparisons if c["spread_verdict"]]
    if len(told) == 1:
        return [told[0]["sentence"]]
    clear = [v for v in told if v["outcome"] in ("better", "worse")]
    unclear = sum(v["outcome"] == "not_enough_seeds" for v in told)
    sentences = [v["sentence"] for v in clear[:MANY]]
    if unclear:
        of = "any" if unclear == len(told) else f"{unclear} of {len(told)}"
        needed = max(v["seeds_needed"] or 0 for v in told)
        hint = f" About {needed} of each would show a spread twice as large." if needed else ""
        sentences.append(f"There are not enough seeds to tell which is steadier in {of} of the comparisons.{hint}")
    return sentences


def _rates(grid: Mapping[str, Any]) -> list[str]:
    curves = [c for c in grid["curves"] if c["test"]]
    if not curves or len(curves) > MANY:
        return []
    low, high = (f(r for c in curves for r in c["test"]["rates"]) for f in (min, max))
    parts = []
    for c in curves:
        its = c["test"]
        ends = f" [{its['loss_low']:.3f}, {its['loss_high']:.3f}]" if its["loss_low"] is not None else ""
        parts.append(f"{c['label']} {its['loss']:.3f}{ends}")
    count = len(curves[0]["test"]["rates"])
    return [
        f"What a learning rate picked blindly between {low:g} and {high:g} costs on average, against the best of the "
        f"{count} tried: {'; '.join(parts)}."
    ]


def _collapses(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    hit = [line for line in lines if line["collapse"]["collapsed"]]
    if not hit:
        return []
    parts = [f"{line['label']} ({line['collapse']['collapsed']} of {line['n']})" for line in hit]
    return [f"Runs collapsed, that is scored no better than always giving the most frequent answer: {_names(parts)}."]


def _at_the_edge(rates: Sequence[Mapping[str, Any]], lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines whose chosen rate is the lowest or the highest that was tried."""
    found = []
    for curves in (r for r in rates if not r["searched"]):
        axis = curves["axis"]
        tried = {c["label"]: sorted(p["value"] for p in c["points"]) for c in curves["curves"]}
        for end, words in ((0, "lowest"), (-1, "highest")):
            its = [
                line["label"] for line in lines
                if len(values := tried.get(line["label"], [])) > 2 and line["setting_cell"].get(axis) == values[end]
            ]  # fmt: skip
            if its:
                other = "lower" if end == 0 else "higher"
                found.append(
                    f"The {words} rate that was tried is the best of {_names(its)}; a {other} one may be better."
                )
    return found


def _cautions(facts: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> list[str]:
    counts, found = facts["counts"], []
    if counts["missing"]:
        found.append(
            f"The study is incomplete: {counts['missing']} of {counts['planned']} runs have not ended. Continue it "
            "with trimtab study; everything here may still change."
        )
    if counts["failed"] or counts["diverged"]:
        its = " and ".join(f"{counts[s]} {s}" for s in ("failed", "diverged") if counts[s])
        found.append(f"Of {counts['ended']} runs {its}; none was dropped, see the list of failed runs.")
    few = [line["label"] for line in lines if line["n"] < FEWEST_SEEDS]
    if few and facts["comparisons"]["baseline"]:
        which = "lines" if len(few) < len(lines) else "these lines"
        found.append(
            f"No comparison of {which} with fewer than {FEWEST_SEEDS} seeds is decided, whatever the numbers look like."
        )
    close = [
        line["label"]
        for line in lines
        if line["no_prompt"] is not None and line["mean_interval"] and line["mean_interval"]["low"] <= line["no_prompt"]
        and line["cost"]["trained"] != 0  # where nothing is trained, the line is that model itself
    ]  # fmt: skip
    if close:
        found.append(f"Not clearly above the same model without any prompt: {_names(close)}.")
    found += _at_the_edge(facts["rates"], lines)
    if len(facts["factors"]) > 1:
        found.append(
            "Seeds are crossed, so runs share levels and are not independent: intervals and p values, other than those "
            "of the variance components, are too optimistic."
        )
    return found
