"""The touch-count rule, shown: an encoder, a regularizer, a task and a family, one file each, of which nothing in the
package knows, are found, trained with, kept, loaded by another process, and hold the contracts of their sort.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract import test_backbone_families as of_families
from tests.contract import test_prompt_encoders as of_encoders
from tests.contract import test_regularizers as of_regularizers
from tests.contract import test_tasks as of_tasks
from tests.contract.tiny_families import LAYERS, build, save
from tests.contract.toy_runs import LENGTH
from tests.docs.pages import nothing_stays
from tests.tiny import tiny_tokenizer, toy_rows
from tests.unit.refusals import refused
from trimtab.backbones import Backbone, load_backbone
from trimtab.errors import DataError
from trimtab.registry import families, prompts, regularizers, tasks
from trimtab.tasks.reading import Places

ROOT = Path(__file__).parents[2]
EXTENSIONS = ROOT / "examples" / "extensions"
KINDS = {"one_direction": prompts, "stretch": regularizers, "fasttext": tasks, "ernie": families}
"""What each file is called, and so what it adds."""

scene = of_regularizers.scene


@pytest.fixture
def extensions() -> Iterator[None]:
    """The files, imported as a user would, and forgotten again."""
    with nothing_stays(EXTENSIONS):
        for module in KINDS:
            importlib.import_module(module)
        yield


@pytest.fixture(scope="session")
def ernie_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = build("Ernie", tiny_tokenizer(), **LAYERS, use_task_id=True)
    return save(tmp_path_factory.mktemp("models") / "tiny-ernie", model, tiny_tokenizer())


@pytest.fixture
def ernie(extensions: None, ernie_folder: Path) -> Backbone:
    return load_backbone(str(ernie_folder), dtype="float32", device="cpu")


def fasttext_task(folder: Path) -> dict[str, Any]:
    """The toy in fastText's format, as the `task` section of a recipe."""
    files = {}
    for seed, split in enumerate(("train", "dev", "test")):
        lines = [f"__label__{row['label']} {row['text']}\n" for row in toy_rows(16, seed)]
        (folder / f"{split}.txt").write_text("".join(lines))
        files[split] = str(folder / f"{split}.txt")
    return {"kind": "fasttext", **files, "label_words": {"positive": "yes", "negative": "no"}}


def test_each_is_one_file_and_nothing_else_knows_of_it() -> None:
    assert sorted(path.stem for path in EXTENSIONS.glob("*.py")) == sorted(KINDS)
    for kind, registry in KINDS.items():
        assert kind not in registry.kinds()
        with nothing_stays(EXTENSIONS):
            importlib.import_module(kind)
            assert kind in registry.kinds()
        assert kind not in registry.kinds()


@pytest.mark.usefixtures("extensions")
def test_the_encoder_keeps_the_promises_of_encoders(tmp_path: Path) -> None:
    make = of_encoders.maker({"kind": "one_direction"})
    of_encoders.check_length(make)
    of_encoders.check_gradients(make)
    of_encoders.check_seed(make)
    of_encoders.check_materialize(make)
    of_encoders.check_round_trip(make, tmp_path)
    of_encoders.check_count(make, {})
    of_encoders.check_pack_agrees(make)
    of_encoders.check_randomness_is_declared(make)


@pytest.mark.usefixtures("extensions")
def test_the_regularizer_keeps_the_promises_of_regularizers(scene: of_regularizers.Scene) -> None:
    stretch = of_regularizers.of_kind("stretch")
    of_regularizers.check_values(stretch, scene)
    of_regularizers.check_zero(of_regularizers.without_strength("stretch"), scene)
    of_regularizers.check_does_something(stretch, scene)
    of_regularizers.check_gradient(stretch, scene)
    of_regularizers.check_runs_are_apart(stretch, scene)
    of_regularizers.check_ineligible_untouched(stretch, scene)
    of_regularizers.check_slots_untouched(stretch, scene)
    of_regularizers.check_inputs_kept(stretch, scene)


@pytest.mark.usefixtures("extensions")
def test_the_task_keeps_the_promises_of_tasks(tmp_path: Path, backbone: Backbone) -> None:
    spec = tasks.resolve(fasttext_task(tmp_path), "task")
    case = of_tasks.Case("fasttext", tasks.build(spec).load(0, Places()), backbone.encoder)
    of_tasks.test_perfect_predictions_score_one(case, "test", backbone)
    of_tasks.test_every_example_renders_with_its_slots_intact(case)
    of_tasks.test_every_label_is_verbalizable(case)
    of_tasks.test_every_class_occurs_in_every_split(case)
    of_tasks.test_truncation_never_eats_a_slot(case)


@pytest.mark.usefixtures("extensions")
@pytest.mark.parametrize(
    ("line", "what", "fix"),
    [
        ("good film", "a line must be __label__CLASS, a space and a text, got 'good film'", None),
        ("__label__positive ", "a line must be __label__CLASS", None),
        ("__label__positiv good film", "the class 'positiv' has no label words", "Did you mean 'positive'?"),
    ],
)
def test_the_task_names_the_line_that_it_cannot_read(line: str, what: str, fix: str | None, tmp_path: Path) -> None:
    spec = fasttext_task(tmp_path)
    Path(spec["dev"]).write_text(f"__label__positive good film\n{line}\n")
    with refused(DataError, what, where=f"{spec['dev']}:2", fix=fix):
        tasks.build(tasks.resolve(spec, "task")).load(0, Places())


def test_the_family_keeps_the_promises_of_families(ernie: Backbone, tmp_path: Path) -> None:
    of_families.check_routes_agree(ernie)
    of_families.check_padding_and_mates(ernie)
    of_families.check_sides_agree(ernie)
    of_families.check_bare_rows(ernie)
    of_families.check_scores(ernie)
    of_families.check_long_words(ernie)
    of_families.check_longest(ernie)
    of_families.check_gradient(ernie)
    for prompt in ("prompt_tuning", "deep"):
        (tmp_path / prompt).mkdir()
        of_families.check_frozen(ernie, tmp_path / prompt, {"prompt": {"kind": prompt}})


def installed(place: Path) -> None:
    """A package of another author: the files, and what pip would leave of its entry points."""
    for module in KINDS:
        (place / f"{module}.py").write_text((EXTENSIONS / f"{module}.py").read_text())
    (place / "another-1.0.dist-info").mkdir()
    (place / "another-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: another\nVersion: 1.0\n")
    points = "".join(f"{module} = {module}\n" for module in KINDS)
    (place / "another-1.0.dist-info/entry_points.txt").write_text(f"[trimtab]\n{points}")


def trimtab(place: Path, *arguments: str, **environ: str) -> str:
    """What a fresh process prints that sees the package and a folder of others."""
    path = os.pathsep.join([str(ROOT / "src"), str(place)])
    command = [sys.executable, "-m", "trimtab", *arguments]
    end = subprocess.run(
        command, capture_output=True, text=True, timeout=600, env={**os.environ, "PYTHONPATH": path, **environ}
    )
    assert end.returncode == 0, end.stderr
    return end.stdout


def test_a_run_with_all_four_is_found_by_entry_points_and_read_by_another_process(
    tmp_path: Path, ernie_folder: Path
) -> None:
    place, runs = tmp_path / "site", tmp_path / "runs"
    place.mkdir()
    installed(place)
    recipe = {
        "backbone": {"model": str(ernie_folder), "dtype": "float32"},
        "task": fasttext_task(tmp_path),
        "prompt": {"kind": "one_direction", "length": LENGTH},
        "regularizers": ["stretch"],
        "training": {"max_steps": 4, "min_steps": 1, "evaluations": 1, "batch_size": 8},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    trimtab(place, "run", str(tmp_path / "recipe.yaml"), "--runs-dir", str(runs), "--device", "cpu", "--quiet")
    (run,) = (path.parent for path in runs.glob("*/run.json"))
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "done"
    assert record["parameters"]["trained"] == LENGTH + 32
    assert record["steps"] == 4

    (place / "another-1.0.dist-info/entry_points.txt").unlink()
    texts = [row["text"] for row in toy_rows(16, 2)]
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    asked = ["predict", str(run), "--input", str(tmp_path / "texts.txt"), "--device", "cpu"]
    found = [json.loads(line) for line in trimtab(place, *asked, TRIMTAB_PLUGINS="ernie").splitlines()]
    kept = [json.loads(line) for line in (run / "predictions.test.jsonl").read_text().splitlines()]
    assert [row["scores"] for row in found] == [row["scores"] for row in kept]
