"""What the documents show works: code blocks run, verbs exist, every recipe is valid."""

from __future__ import annotations

import doctest
import importlib
import json
import os
import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import SHARED
from trimtab import api
from trimtab.backbones.family import Family
from trimtab.backbones.sentencepiece import load_tokenizer
from trimtab.cli import app
from trimtab.config import RunConfig, resolve
from trimtab.documents import parse_yaml
from trimtab.registry import families, tasks
from trimtab.studies.definition import read_study
from trimtab.studies.driver import plan_of, planned_runs
from trimtab.studies.plan import grid_runs, lines, planned, planned_seeds
from trimtab.tasks import SPLITS, Task
from trimtab.tasks.reading import Places, resolve_path
from trimtab.text_encoder import TextEncoder
from trimtab.training.preparing import ask, slots_of

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs/LOG.md", ROOT / "docs/reproducing.md"]
"""What is no page of the site that a reader follows; those are read and run by test_pages.py."""
"""The pages of the site are read by tests.docs.pages."""
STUDIES = [p for p in sorted((ROOT / "recipes").rglob("*.yaml")) if "\nrecipe:" in p.read_text()]
RECIPES = sorted({*(ROOT / "recipes").rglob("*.yaml")} - {*STUDIES})
DOCTESTED = (
    "errors",
    "metrics",
    "span_metrics",
    "fact_metrics",
    "tasks.lama",
    "tasks.bio",
    "batching",
    "seeding",
    "verbalizers",
    "training.optimization",
    "studies.definition",
    "studies.plan",
    "studies.statistics.bootstrap",
    "studies.statistics.stability",
    "studies.statistics.comparison",
    "studies.statistics.correlation",
    "studies.statistics.spread",
    "studies.statistics.multiplicity",
    "studies.statistics.variance",
    "studies.statistics.verdicts",
    "metric_names",
    "studies.analysis.lines",
    "landscape.point",
    "landscape.views",
    "reports.colors",
    "reports.stability",
    "reports.markup",
    "reports.numbers",
    "reports.tables",
    "reports.charts",
    "reports.markdown",
    "sizes",
    "cli.data",
    "__init__",
)


def blocks(language: str) -> list[str]:
    """Fenced blocks of one language in all documents."""
    pattern = re.compile(rf"^```{language}\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [block for path in DOCUMENTS for block in pattern.findall(path.read_text())]


def test_the_counts_of_what_is_checked() -> None:
    assert len(blocks("python")) >= 1
    assert len(blocks("sh")) >= 2
    assert len(RECIPES) >= 3
    assert len(STUDIES) >= 2


@pytest.mark.parametrize("block", blocks("python"))
def test_python_blocks_run(block: str) -> None:
    exec(compile(block, "document", "exec"), {})


@pytest.mark.parametrize("block", blocks("sh"))
def test_shell_blocks_name_real_verbs_and_targets(block: str) -> None:
    verbs = {c.name for c in app.registered_commands}
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in block.splitlines():
        words = shlex.split(line, comments=True)
        if words and words[0] == "make":
            assert words[1] in targets, line
        elif words:
            assert words[0].endswith("trimtab"), line
            assert words[1] in verbs, line


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_recipe_is_valid_and_begins_with_its_command(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    relative = path.relative_to(ROOT)
    assert f"trimtab run {relative}" in path.read_text().split("\n", 1)[0]
    task = resolve(parse_yaml(path.read_text(), str(path))).config.task
    if "data:" in str(task) and not SHARED.is_dir():
        pytest.skip("needs the data folder beside the repository")
    monkeypatch.chdir(ROOT)
    monkeypatch.setitem(os.environ, "TRIMTAB_DATA", str(SHARED / "data"))
    assert api.validate(path).truncated == {"train": 0, "dev": 0, "test": 0}


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_study_is_valid_and_begins_with_its_command(path: Path) -> None:
    assert f"trimtab study {path.relative_to(ROOT)}" in path.read_text().split("\n", 1)[0]
    study = read_study(path)
    expected = plan_of(study, planned_runs(study), path.stem)["expected"]
    stated = re.search(r"(?:(\d+) trials and )?(\d+) runs", path.read_text().split("\nrecipe:")[0])
    if stated:
        planned = (expected["trial"], expected["final"]) if stated[1] else (sum(expected.values()),)
        assert tuple(int(n) for n in stated.groups() if n) == planned, "the header states another number of runs"


PAPERS = [path for path in STUDIES if "papers" in path.parts]
PLACES = Places(SHARED / "data", ROOT)
TOKENIZERS = {"t5": ("t5", 10_000), "gpt2": ("gpt2", 1024), "bert": ("bert-base-uncased", 512)}
"""By family: the tokenizer at hand that stands for all of it, and positions. Other families have BERT's."""
SOME = 8


@cache
def text_side(family: str) -> tuple[Family, TextEncoder, int]:
    name, positions = TOKENIZERS[family]
    of: Family = families.get(family)()
    tokenizer = load_tokenizer(str(SHARED / "models" / "tokenizers" / name))
    return of, TextEncoder(tokenizer, 0 if family == "t5" else None, of.is_causal), positions


@cache
def task_of(told: str, subset_seed: int) -> Task | None:
    """The task of a config's section; None where its files are not at hand."""
    built = tasks.build(json.loads(told))
    at_hand = all(resolve_path(name, PLACES).is_file() for name in built.files.values())
    return built.load(subset_seed, PLACES) if at_hand and built.files else None


def rendered(config: RunConfig) -> int:
    """How many rows of a run are rendered: all of short splits and of phrases, else the first."""
    task = task_of(json.dumps(config.task, sort_keys=True), config.seeds.subset)
    if task is None:
        return 0
    model = config.backbone.model
    family, encoder, positions = text_side(next((f for f in TOKENIZERS if f in model), "bert"))
    most = None if task.candidate else SOME
    return sum(
        len(its.rendering.rows(e, encoder))
        for its in ask(config, task, family, encoder, positions)[1]
        for split in SPLITS
        for e in its.task.splits[split][:most]
    )


@pytest.mark.slow
@pytest.mark.parametrize("path", PAPERS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_cell_of_the_papers_tables_can_be_read(path: Path) -> None:
    if not SHARED.is_dir():
        pytest.skip("needs the data folder beside the repository")
    study = read_study(path)
    seeds = planned_seeds(study)[0]
    runs = grid_runs(study) if study.search is None else [planned(study, "trial", its, seeds) for its in lines(study)]
    configs = [run.config for run in runs]
    asked = {json.dumps([c.task, c.readout, slots_of(c)], sort_keys=True): c for c in configs}
    if not sum(map(rendered, asked.values())):
        pytest.skip("its data are not at hand")


@pytest.mark.parametrize("name", DOCTESTED)
def test_examples_in_docstrings_give_their_output(name: str) -> None:
    module = importlib.import_module("trimtab" if name == "__init__" else f"trimtab.{name}")
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
