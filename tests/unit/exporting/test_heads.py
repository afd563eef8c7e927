"""Trained heads lie beside what is exported, and read what they read in the run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

from tests.exported_runs import TEXTS, about, hidden, row_of
from tests.unit.exporting.conftest import RunOf
from trimtab.exporting import Source, export
from trimtab.exporting.heads import write_head

HEAD = {"prompt": {"kind": "prompt_tuning", "length": 4}, "readout": {"kind": "head"}}


@pytest.mark.parametrize("seed", [None, 3])
def test_a_head_on_a_baked_model_reads_what_the_run_reads(seed: int | None, run_of: RunOf, tmp_path: Path) -> None:
    source = Source.read(run_of("bert", {**HEAD, "readout": {"kind": "head", "random_pooler": seed}}))
    found = export([source], "baked", tmp_path / "out")
    assert any("lies beside, in toy.head.safetensors" in note for note in found["notes"])
    model = transformers.AutoModel.from_pretrained(tmp_path / "out").eval()
    tokenizer, head = (
        transformers.AutoTokenizer.from_pretrained(tmp_path / "out"),
        tmp_path / "out/toy.head.safetensors",
    )
    its = load_file(head)
    text = about(tmp_path / "out")["text"].format(text=TEXTS[0])
    batch = tokenizer(text, add_special_tokens=False, return_tensors="pt")
    row = row_of(source.predictor, TEXTS[0])
    with torch.no_grad():
        state = model(**batch).last_hidden_state[0, row.encoded.answer_at[0]]
        mine = source.predictor.score([row.origin])[0]
    torch.testing.assert_close(state, hidden(source.predictor, row), atol=1e-5, rtol=1e-5)
    assert ("pooler" in its) == (seed is not None) == any("tanh(pooler h)" in note for note in found["notes"])
    read = state if seed is None else (its["pooler"] @ state).tanh()
    torch.testing.assert_close(its["weight"] @ read + its["bias"], mine, atol=1e-4, rtol=1e-4)


def test_without_a_head_nothing_is_written(run_of: RunOf, tmp_path: Path) -> None:
    assert write_head(Source.read(run_of("gpt2")), tmp_path, "PEFT") == []
    assert list(tmp_path.iterdir()) == []
