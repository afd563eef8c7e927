"""What the site is built with: the parts of pages that come from the code, from docs/results and from the log."""

from __future__ import annotations

import doctest
import importlib
import json
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Literal

import pytest

from building import commands, docstrings, journal, letters, measured, methods, outside, pictures, results_index
from building.methods import counted
from trimtab.registry import initializers, prompts, regularizers

ROOT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("name", ["commands", "directive", "docstrings", "journal", "letters", "plain_docstrings"])
def test_examples_in_docstrings_give_their_output(name: str) -> None:
    if name in ("commands", "directive", "docstrings", "journal", "letters"):
        pytest.importorskip("sphinx")
    result = doctest.testmod(importlib.import_module(f"building.{name}"))
    assert result.attempted > 0
    assert result.failed == 0


# Methods -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*prompts.kinds(), *regularizers.kinds()])
def test_every_method_has_a_picture_with_its_words(kind: str) -> None:
    picture = {**pictures.PROMPTS, **pictures.REGULARIZERS}[kind]
    drawn = ET.fromstring(pictures.svg(picture))
    title = drawn.find(f"{SVG}title")
    assert title is not None
    assert title.text == picture.caption
    width, height = float(drawn.attrib["width"]), float(drawn.attrib["height"])
    rects = [{k: float(r.attrib[k]) for k in ("x", "y", "width", "height")} for r in drawn.iter(f"{SVG}rect")]
    assert rects
    assert all(r["x"] >= 0 and r["x"] + r["width"] <= width and r["y"] + r["height"] <= height for r in rects)
    for i, a in enumerate(rects):
        for b in rects[i + 1 :]:
            apart = a["x"] + a["width"] <= b["x"] or b["x"] + b["width"] <= a["x"]
            assert apart or a["y"] + a["height"] <= b["y"] or b["y"] + b["height"] <= a["y"], "boxes lie on one another"
    texts = [t.text for t in drawn.iter(f"{SVG}text")]
    assert texts.count("answer") == 1
    assert sum(t in ("P1", "P2", "P3", "word") for t in texts) >= (picture.slots if not picture.spare else 1)


def test_pictures_are_of_methods_that_exist() -> None:
    assert set(pictures.PROMPTS) == set(prompts.kinds())
    assert set(pictures.REGULARIZERS) == set(regularizers.kinds())


@pytest.mark.parametrize("registry", [prompts, regularizers], ids=["prompts", "regularizers"])
def test_every_option_of_every_method_is_explained(registry: object) -> None:
    from trimtab.registry import Registry

    assert isinstance(registry, Registry)
    for kind in registry.kinds():
        for name, values, default, meaning in docstrings.options_of(registry, kind):
            assert meaning, f"{kind}: Args says nothing of {name}"
            assert values
            assert default


def test_a_docstring_is_taken_apart() -> None:
    text = "Title\nof two lines.\n\n    x = y\n    z\n\nSymbols: `x_1` is * it.\n\nDeviations. None.\n\nMore of them."
    found = docstrings.parts_of(text)
    assert found.title == "Title of two lines."
    assert [b.is_equation for b in found.body] == [True, False]
    assert found.body[0].text == "x = y\nz"
    assert len(found.deviations) == 2
    shown = docstrings.as_markdown(found.body)
    assert "x = y\nz\n```" in shown
    assert "**Symbols**: `x_1` is \\* it." in shown


def test_methods_that_deviate_say_so_on_their_pages() -> None:
    module = importlib.import_module("trimtab.prompts.residual")
    found = docstrings.parts_of(module.__doc__ or "")
    assert found.body[0].is_equation
    assert found.deviations[0].text.startswith("Deviations: LayerNorm")


def test_values_of_options_in_words() -> None:
    options = prompts.options("residual")
    assert docstrings.values_of(options["length"].annotation) == "int ≥ 1"
    assert docstrings.values_of(options["dropout"].annotation) == "float ≥ 0 < 1"
    assert docstrings.values_of(options["initializer"].annotation) == initializers.noun
    assert docstrings.values_of(Literal["a", 2]) == "`a`, `2`"


def test_parameters_are_counted() -> None:
    assert "| nano-masked | 2,560 | 2,560 |" in counted(prompts.get("prompt_tuning"), "prompt_tuning")
    assert "| BERT-base | 7,680 | 7,680 |" in counted(prompts.get("prompt_tuning"), "prompt_tuning")
    assert counted(prompts.get("none"), "none") == ""


# Results -------------------------------------------------------------------------------------------------------------


def test_scores_are_read_from_the_data_beside_the_pages(tmp_path: Path) -> None:
    run = {"backbone": "nano", "metrics": {"test": {"rows": 3, "accuracy": 0.5, "f1": 0.25}}}
    lines = [
        {"task": "a", "method": "deep: {length: 3}", "test": [0.5, 0.7], "runs": [run]},
        {"task": "a", "method": "none", "test": [0.25], "runs": [run]},
    ]
    (tmp_path / "x.json").write_text(json.dumps({"command": "python s.py readout.kind=head", "results": lines}))
    (tmp_path / "other.json").write_text(json.dumps({"command": "c", "results": {"float32": 1}}))
    first, second = measured.scores(tmp_path)
    assert (first.kind, first.options, first.metric, first.readout) == ("deep", "{length: 3}", "accuracy", "head")
    assert (str(first), first.seeds, first.page) == ("0.600 ± 0.141", 2, "x.md")
    assert (str(second), second.metric, second.sd) == ("0.250", "f1", None)


def test_of_a_study_only_lines_that_are_about_the_method_alone_are_taken(tmp_path: Path) -> None:
    cells = [
        {"arm": "none", "prompt.kind": "deep", "task.kind": "sst2"},
        {"arm": "pgd", "prompt.kind": "deep", "task.kind": "sst2"},
        {"arm": "none", "prompt.kind": "deep", "task.kind": "sst2", "training.select": "loss"},
        {"arm": "none"},  # an arm without a regularizer is not the method `none`
        {"arm": "discrete_search"},
    ]
    line = {"label": "none", "task": "sst2 (shots 16)", "metric": "accuracy", "mean": 0.5, "sd": 0.25, "n": 3}
    study = {
        "verdict": {},
        "tasks": ["trec", "sst2"],
        "backbones": ["../models/mini"],
        "rows": {"train": [32, 96]},
        "lines": [{**line, "cell": cell} for cell in cells],
        "compared": ["task.kind", "arm", "prompt.kind"],
        "aggregate": None,
    }
    (tmp_path / "study.json").write_text(json.dumps(study))
    found, named = measured.scores(tmp_path)
    assert (found.kind, found.task, found.backbone, found.rows) == ("deep", "sst2", "mini", None)
    assert named.kind == "discrete_search"
    (tmp_path / "study.json").write_text(json.dumps({**study, "backbones": ["a", "b"]}))  # which one is not said
    assert measured.scores(tmp_path) == []


def test_a_study_of_relations_is_told_by_its_means(tmp_path: Path) -> None:
    cell = {"task.relation": "P19", "prompt.kind": "residual"}
    line = {"label": "P19, residual", "task": "P19", "metric": "p_at_1", "mean": 0.5, "sd": 0.25, "n": 3, "cell": cell}
    whole = {"tasks": ["P19", "P20"], "metrics": ["p_at_1"]}
    study = {
        "verdict": {},
        "tasks": ["lama/trex/P19", "lama/trex/P20"],
        "backbones": ["mini"],
        "rows": {"train": [32]},
        "lines": [line],
        "compared": ["task.relation", "prompt.kind"],
        "aggregate": {**whole, "methods": [{"label": "residual", "mean": 0.375, "runs": 6}]},
    }
    (tmp_path / "study.json").write_text(json.dumps(study))
    (found,) = measured.scores(tmp_path)
    assert (found.kind, found.task, str(found), found.seeds) == ("residual", "mean of 2 relations of LAMA", "0.375", 3)


def test_scores_of_pages_are_those_that_the_pages_show() -> None:
    found = measured.scores()
    assert len(found) > 30
    assert {"prompt_tuning", "residual", "deep", "none"} <= {score.kind for score in found}
    for score in found:
        page = (measured.RESULTS / score.page).read_text(encoding="utf-8")
        assert str(score) in page, f"{score.page} does not show {score} of {score.kind}"


def test_every_page_of_results_is_in_the_index() -> None:
    listed = {result.page for result in results_index.results()}
    there = {p.relative_to(measured.RESULTS).as_posix() for p in measured.RESULTS.rglob("*.md")}
    assert listed == there - {"index.md"}
    by_page = {result.page: result for result in results_index.results()}
    assert by_page["quickstart.md"].backbones == ("nano-masked",)
    assert by_page["quickstart.md"].title.startswith("support_desk: ")
    assert by_page["ptp/sst2/report.md"].title == "PTP (2305.02423): do perturbations steady prompt tuning? (sst2)"
    assert by_page["support_desk/report.md"].title.startswith("Four methods, five learning rates, ten seeds on")
    assert by_page["quickstart.md"].parts == ("quickstart.json",)
    assert "support_desk/report.html" in by_page["support_desk/report.md"].parts


def test_a_method_without_a_number_names_the_study_that_would_give_it_one() -> None:
    known = {score.kind for score in measured.scores()}
    for kind in prompts.kinds():
        if kind not in known:
            assert "trimtab study recipes/" in methods.unmeasured(kind), f"no study has {kind!r}"
    assert "recipes/" not in methods.unmeasured("brand_new")


# Log, commands, letters, links ---------------------------------------------------------------------------------------


def test_entries_of_the_log_have_the_day_of_their_heading(tmp_path: Path) -> None:
    def git(*words: str, date: str = "2024-01-01T12:00:00+0000") -> None:
        identity = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER")
                    for what, value in (("NAME", "a"), ("EMAIL", "a@b"), ("DATE", date))}  # fmt: skip
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True, env=identity, capture_output=True, timeout=30)

    log = tmp_path / "LOG.md"
    git("init", "-q")
    log.write_text("# Log\n\n## Old\n\ntext\n")
    git("add", "-A")
    git("commit", "-qm", "one")
    log.write_text("# Log\n\n## New\n\n## Old\n\nother text\n")
    git("commit", "-qam", "two", date="2024-02-03T12:00:00+0000")
    assert journal.days(log) == {"New": "2024-02-03", "Old": "2024-01-01"}


def test_without_history_entries_have_no_day(tmp_path: Path) -> None:
    (tmp_path / "LOG.md").write_text("## Old\n")
    assert journal.days(tmp_path / "LOG.md") == {}


def test_all_sections_of_the_log_are_listed() -> None:
    text = journal.LOG.read_text(encoding="utf-8")
    assert len(journal.sections(text)) == text.count("\n## ")


def test_every_verb_has_a_section_with_all_its_options() -> None:
    verbs = commands.verbs()
    assert {"run", "study", "serve", "export"} <= set(verbs)
    shown = commands.section("run", verbs["run"])
    assert shown.startswith("## run\n")
    assert "\ntrimtab run [OPTIONS] RECIPE [KEY=VALUE]...\n" in shown
    for written in ("`RECIPE`", "`--runs-dir`", "`--again`", "`--quiet, -q`", "`TRIMTAB_RUNS`"):
        assert written in shown, written


def test_only_a_dollar_begins_a_command() -> None:
    pytest.importorskip("sphinx")
    from pygments.token import Generic

    from building.console import Console

    tokens = list(Console().get_tokens("$ cat a.yaml\n# a remark\n(3 seeds) of it\n"))
    assert tokens[0] == (Generic.Prompt, "$ ")
    assert tokens[-2:] == [(Generic.Output, "# a remark\n"), (Generic.Output, "(3 seeds) of it\n")]


def test_letters_are_those_of_the_types() -> None:
    import trimtab.types

    found = dict(letters.letters(trimtab.types.__doc__ or ""))
    assert found["B"] == "rows of a batch"
    assert found["R"] == "prompts in the table"
    assert len(found) >= 20


def test_links_out_of_the_site_are_their_text(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    (docs / "results").mkdir(parents=True)
    for file in ("README.md", "docs/a.md"):
        (tmp_path / file).write_text("x")
    text = "[read](../README.md) [two words](../README.md) [r](results) [a](a.md#x) [w](https://x.y) [gone](gone.md)"
    shown = outside.without_links_outside(text, docs, docs)
    assert shown == "`read` two words `r` [a](a.md#x) [w](https://x.y) [gone](gone.md)"
