"""The report of a study as one HTML page that needs nothing else: no network, no fonts, no library."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from trimtab.metric_names import metric_name
from trimtab.reports import comparison_tables, curve_tables, figures, tables
from trimtab.reports.html_tables import html_table
from trimtab.reports.markup import Html, el
from trimtab.reports.numbers import DASH, count, duration, prose
from trimtab.reports.shell import contents, document, top
from trimtab.reports.stability import stability_section
from trimtab.reports.study_surfaces import surfaces_section
from trimtab.studies.analysis.lines import fixed

Facts = Mapping[str, Any]

STATISTICS = (
    "Intervals are 95 % percentile intervals of a bootstrap over seeds, those of means, IQMs and differences widened "
    "for small numbers of seeds (Hesterberg 2015). IQM after Agarwal et al. 2021, several comparisons after Holm 1979, "
    "spread after Brown and Forsythe 1974."
)


def page(facts: Facts) -> str:
    """The content of report.html."""
    parts = _sections(facts)
    links = contents([(slug, name) for slug, name, _ in parts])
    sections = [_section(slug, name, its) for slug, name, its in parts]
    body = [
        el("a", "To the verdict", href="#verdict", class_="skip"),
        el("div", _top(facts), el("div", links, el("main", _verdict(facts), sections), class_="columns"), _footer(),
           class_="page"),
        el("p", id="said", class_="only-read", aria_live="polite"),
    ]  # fmt: skip
    return document(f"{facts['study']} – study report", body, ["report", *(["surface"] if facts["surfaces"] else [])])


def _section(slug: str, name: str, its: Any) -> Html:
    return el("section", el("h2", name, id=slug), its, aria_labelledby=slug)


def _top(facts: Facts) -> Html:
    c, cost = facts["counts"], facts["cost"]
    its = [
        (str(len(facts["lines"])), "lines" if len(facts["lines"]) > 1 else "line"),
        (str(max((line["n"] for line in facts["lines"]), default=0)), "seeds each"),
        (count(c["planned"]), "runs" if not c["missing"] else f"runs, {c['missing']} missing"),
        (duration(cost["seconds"]), "of training"),
    ]
    chips = [el("li", el("b", value), f" {name}") for value, name in its]
    chips.append(el("li", ", ".join([*facts["tasks"], *facts["backbones"]])))
    return top("Study report", facts["study"], el("ul", chips, class_="facts"))


def _verdict(facts: Facts) -> Html:
    v = facts["verdict"]
    cautions = None
    if v["cautions"]:
        cautions = el(
            "div", el("h3", "Keep in mind"), el("ul", [el("li", prose(c)) for c in v["cautions"]]), class_="cautions"
        )
    sentences = el("ul", [el("li", prose(s)) for s in v["sentences"]]) if v["sentences"] else None
    return el("section", el("h2", "Verdict", id="verdict"), el("p", prose(v["headline"]), class_="headline"), sentences,
              cautions, class_="verdict", aria_labelledby="verdict")  # fmt: skip


def _sections(facts: Facts) -> list[tuple[str, str, Any]]:
    """Slug, name and content of what the study has."""
    has_runs = any(line["n"] for line in facts["lines"])
    found: list[tuple[str, str, Any]] = [("results", "Results", _results(facts))]
    if has_runs:
        found.append(("seeds", "Seeds", figures.seed_dots(facts)))
    if facts["aggregate"]:
        lead = "Tasks weigh equally in the mean; in the IQM every run counts, and seeds are redrawn within tasks."
        others = comparison_tables.other_scores(facts)
        found.append(("tasks", "Tasks", [_lead(lead), html_table("tasks-table", comparison_tables.aggregate(facts)),
                                         html_table("others-table", others) if others else None]))  # fmt: skip
    if facts["comparisons"]["pairs"]:
        found.append(("comparisons", "Comparisons", _comparisons(facts)))
    if facts["rates"]:
        found.append(("rates", "Learning rates", _rates(facts)))
    if any(c["seeds"] for c in facts["curves"]):
        found.append(("curves", "Learning curves", figures.learning(facts)))
    if facts["lengths"]:
        found.append(("length", "Prompt length", figures.length_curves(facts)))
    if facts["components"]:
        found.append(("sources", "Sources of variance", _components(facts)))
    if facts["surfaces"]:
        found.append(("landscape", "Loss landscape", surfaces_section(facts["surfaces"])))
    if facts["stability"]:
        found.append(("stability", "Stability", stability_section(facts["stability"])))
    if facts["confusion"]:
        found.append(("classes", "Confusion", figures.confusions(facts)))
    found.append(("cost", "Cost", _cost(facts)))
    if facts["problems"]:
        found.append(("problems", "Failed runs", _problems(facts)))
    found.append(("method", "How this was made", _method(facts)))
    return found


def _lead(text: str) -> Html:
    return el("p", text, class_="lead")


def _results(facts: Facts) -> list[Html]:
    lead = (
        f"Test {tables.metric(facts)}. For every line the setting that was best on dev; IQM is the mean of the middle "
        "half of the seeds. Click a heading to sort."
    )
    shared = tables.of_tasks(facts)
    single = len({line["task"] for line in facts["lines"]}) == 1
    return [
        _lead(lead),
        html_table("headline", tables.headline(facts), sorted_by=2 if single and len(facts["lines"]) > 1 else None),
        *([html_table("each-task", shared)] if shared else []),
    ]


def _comparisons(facts: Facts) -> list[Any]:
    c = facts["comparisons"]
    lead = (
        f"A difference counts as shown when its 95 % interval leaves out 0, its p value, corrected for the number of "
        f"comparisons by {c['correction']}'s method, is at most 0.05, and there are 5 seeds or more. Differences under "
        f"{c['matters']:g} are held not to matter."
    )
    parts: list[Any] = [_lead(lead), html_table("versus", comparison_tables.comparisons(facts, "baseline"))]
    sentences = [x[k]["sentence"] for x in c["baseline"] for k in ("verdict", "spread_verdict") if x[k]]
    parts.append(
        el("details", el("summary", "The verdicts in words"), el("ul", [el("li", prose(s)) for s in sentences]))
    )
    if len(c["pairs"]) > len(c["baseline"]):
        pairs = html_table("pairs", comparison_tables.comparisons(facts, "pairs"))
        parts.append(el("details", el("summary", f"All {len(c['pairs'])} pairs"), pairs))
    return parts


def _rates(facts: Facts) -> list[Any]:
    parts: list[Any] = []
    for i, grid in enumerate(facts["rates"]):
        parts += [figures.rate_curves(facts, i), html_table(f"rates-table-{i}", curve_tables.rates(grid))]
    note = (
        f"Area is the average of the mean scores over the logarithmic grid: what a rate picked blindly gives. Good "
        f"rates come within {facts['matters']:g} of the best. The best of noisy means is a little too good, and so is "
        "what the others lose against it."
    )
    return [*parts, _lead(note)]


def _components(facts: Facts) -> list[Any]:
    holds = list(dict.fromkeys(line["found"]["residual_holds"] for line in facts["components"] if line["found"]))
    note = f"The residual holds {' or '.join(holds)}.".replace(" x ", " × ").replace("_", " ") if holds else ""
    return [_lead(note) if note else None, figures.variance(facts)]


def _cost(facts: Facts) -> list[Any]:
    c = facts["cost"]
    timed = "" if c["timed_runs"] == facts["counts"]["ended"] else f" (of {c['timed_runs']} runs that were timed)"
    packs = f", in {c['packs']} pack{'s' if c['packs'] > 1 else ''}" if c["packs"] else ""
    lead = f"{duration(c['seconds'])} of training in all{timed}{packs}."
    return [_lead(lead), html_table("cost-table", tables.cost(facts))]


def _problems(facts: Facts) -> list[Any]:
    lead = "None of these was dropped: what stands in their place is in every number above."
    return [_lead(lead), html_table("problems-table", tables.problems(facts))]


def method_facts(facts: Facts) -> list[tuple[str, str]]:
    """Where the numbers come from, as name and value; for the page and for Markdown."""
    e, c = facts["environment"], facts["counts"]
    seeds = facts["seeds"]
    if isinstance(seeds, dict):
        said = "crossed: " + ", ".join(f"{k.replace('_', ' ')} {fixed(v)}" for k, v in seeds.items())
    else:
        said = ", ".join(str(s) for s in (seeds if isinstance(seeds, list) else range(seeds)))
    known = ("trimtab", "python", "torch", "transformers", "device", "threads", "processes", "dtype")
    rows = "; ".join(f"{split} {' or '.join(count(n) for n in its)}" for split, its in facts["rows"].items())
    trials = f", {c['trials']} trials" if c["trials"] else ""
    return [
        ("Runs", f"{c['planned']} planned, {c['done']} done, {c['diverged']} diverged, {c['failed']} failed, "
                 f"{c['missing']} missing{trials}"),
        ("Compared", ", ".join(facts["compared"]) or DASH),
        ("Tuned on dev", ", ".join(facts["tuned"]) or DASH),
        ("Seeds", said),
        ("Metric", ", ".join(metric_name(m) for m in facts["metrics"]) or DASH),
        ("Tasks", ", ".join(facts["tasks"]) or DASH),
        ("Rows", rows or DASH),
        ("Backbones", ", ".join(facts["backbones"]) or DASH),
        *[(k.capitalize() if k != "trimtab" else k, ", ".join(str(v) for v in e[k])) for k in known if k in e],
        *[(f"Fingerprint, {k}", ", ".join(str(v)[:12] for v in its)) for k, its in facts["fingerprints"].items()],
        ("Plan", facts["plan"]),
        ("Started", DASH if not facts["cost"]["first_started"] else
         " to ".join(dict.fromkeys((facts["cost"]["first_started"], facts["cost"]["last_started"])))),
    ]  # fmt: skip


def commands(facts: Facts) -> str:
    """What makes the study and its report again."""
    folder = shlex.quote(facts["folder"])
    return f"trimtab study {shlex.quote(facts['folder'] + '/study.yaml')}\ntrimtab report {folder}"


def _method(facts: Facts) -> list[Any]:
    facts_list = [[el("dt", k), el("dd", v)] for k, v in method_facts(facts)]
    return [
        el("h3", "Selection rule"),
        [el("p", rule) for rule in facts["rule"]],
        el("h3", "Statistics"),
        el("p", STATISTICS),
        el("h3", "Seeds, versions, hardware"),
        el("dl", facts_list, class_="facts-list"),
        el("h3", "To make it again"),
        el("pre", el("code", commands(facts)), tabindex=0),
    ]  # fmt: skip


def _footer() -> Html:
    text = "Beside this page: study.json has every number, runs.csv a row for each run, report.md the tables as text."
    return el("footer", el("p", text))
