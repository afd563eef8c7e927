"""lm-evaluation-harness scores an exported prompt as the run does: a local task file, a local table, no network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.exported_runs import about, logits, model_folder, row_of, trained
from tests.tiny import toy_rows, write_jsonl
from trimtab.exporting import Source, export
from trimtab.types import Example

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # its libraries warn of each other
INPUT = {"prompt": {"kind": "prompt_tuning", "length": 4}}
ROWS = 6

TASK = """\
task: toy
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: {text}
doc_to_choice: ["yes", "no"]
doc_to_target: "{{{{ 0 if label == 'positive' else 1 }}}}"
target_delimiter: " "
metric_list: [{{metric: acc}}]
"""


def scored(tmp_path: Path, arguments: dict[str, Any], text: str) -> tuple[float, list[list[float]]]:
    """Accuracy, and the log-likelihood of each answer to each row."""
    lm_eval = pytest.importorskip("lm_eval")
    from lm_eval.tasks import TaskManager

    (tmp_path / "tasks").mkdir()
    file = write_jsonl(tmp_path / "rows.jsonl", toy_rows(ROWS, 3))
    (tmp_path / "tasks" / "toy.yaml").write_text(TASK.format(file=file, text=json.dumps(text)))
    found = lm_eval.simple_evaluate(
        model="hf",
        model_args={**arguments, "dtype": "float32", "add_bos_token": False},
        tasks=["toy"],
        task_manager=TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False),
        batch_size=4,
        device="cpu",
        log_samples=True,
        bootstrap_iters=0,
    )
    samples = sorted(found["samples"]["toy"], key=lambda s: s["doc_id"])
    return found["results"]["toy"]["acc,none"], [[float(r[0][0]) for r in s["resps"]] for s in samples]


@pytest.mark.parametrize("to", ["peft", "baked"])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_lm_eval_scores_an_exported_prompt_as_the_run_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, to: str
) -> None:
    pytest.importorskip("lm_eval")
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    model = model_folder(tmp_path, name)
    source = Source.read(trained(tmp_path, model, INPUT))
    export([source], to, tmp_path / "out")
    text = about(tmp_path / "out")["text"].replace("{text}", "{{text}}")
    where = (
        {"pretrained": str(model), "peft": str(tmp_path / "out")}
        if to == "peft"
        else {"pretrained": str(tmp_path / "out")}
    )
    accuracy, likelihoods = scored(tmp_path, where, text)
    examples = [Example(r["id"], {"text": r["text"]}, r["label"]) for r in toy_rows(ROWS, 3)]
    predictor = source.predictor
    words = [ids[0][0] for ids in predictor.rendering.label_ids(predictor.model.backbone.encoder)]
    near = 1e-4 if to == "peft" else 0.01  # new words take a little of the softmax, at most 4 in 177 here
    for got, example in zip(likelihoods, examples, strict=True):
        mine = logits(predictor, row_of(predictor, example.fields["text"])).log_softmax(0)[words]
        assert got == pytest.approx(mine.tolist(), abs=near)
    assert accuracy == pytest.approx(source.predictor.evaluate(examples).metrics["accuracy"])
