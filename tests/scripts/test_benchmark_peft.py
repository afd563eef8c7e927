"""The benchmark against PEFT: it compares like with like, and its arithmetic holds."""

from __future__ import annotations

import importlib
import io
import json
import subprocess
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

SCRIPTS = Path(__file__).parents[2] / "scripts"
TINY = {"layers": 2, "width": 32, "heads": 2, "vocabulary": 60, "batch": 3, "text": 7, "prompt": 4, "batches": 2}
ARGUMENTS = [part for name, value in TINY.items() for part in (f"--{name}", str(value))]

needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="compares with PEFT: extra benchmark")
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # by PEFT


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("benchmark_peft")


@pytest.fixture
def contestants(script: ModuleType) -> ModuleType:
    return importlib.import_module("peft_contestants")


@needs_peft
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_both_libraries_have_the_same_gradient_and_take_the_same_steps(
    script: ModuleType, contestants: ModuleType, dtype: str
) -> None:
    found = script.check_gradients(contestants.Shape(**TINY), dtype)
    exact = 1e-5 if dtype == "float32" else 2e-2
    assert found["gradient"] < exact
    assert found["prompt"] < exact
    assert found["prompt_moved"] > 0.01
    assert found.get("peft_to_float32", 0.0) < 0.05
    assert found.get("trimtab_to_float32", 0.0) < 0.05


@needs_peft
def test_another_loss_would_be_found(
    script: ModuleType, contestants: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = contestants.WholeVocabulary.scores

    def warmer(self: Any, hidden: Tensor, batch: Any, heads: Any) -> Tensor:
        return scores(self, hidden, batch, heads) / 1.01

    monkeypatch.setattr(contestants.WholeVocabulary, "scores", warmer)
    found = script.check_gradients(contestants.Shape(**TINY), "float32")
    assert found["gradient"] > 1e-3


@needs_peft
def test_label_words_give_the_gradient_of_their_own_loss(contestants: ModuleType) -> None:
    """Against the whole model, put together here: cross-entropy over two tokens of the vocabulary."""
    shape = contestants.Shape(**TINY)
    ours = contestants.start(contestants.Contestant("trimtab", "label words", "sdpa"), shape, "float32")
    model = contestants.network(shape, torch.float32, "sdpa")
    prompt = ours.prompt.clone().requires_grad_()
    texts, labels = (part[: shape.batch] for part in contestants.data(shape))
    embeds = torch.cat([prompt.expand(len(texts), -1, -1), model.get_input_embeddings()(texts)], 1)
    logits = model(inputs_embeds=embeds).logits[:, -1, :2]
    torch.nn.functional.cross_entropy(logits, labels).backward()
    torch.testing.assert_close(ours.gradient(), prompt.grad, rtol=1e-4, atol=1e-7)


@needs_peft
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from Linux's /proc")
def test_results_are_written_with_command_and_versions(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def here(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """In this process: starting one takes long."""
        with redirect_stdout(io.StringIO()) as out:
            script.main(command[2:])
        return subprocess.CompletedProcess(command, 0, out.getvalue())

    monkeypatch.setattr(subprocess, "run", here)
    threads = torch.get_num_threads()
    script.main([*ARGUMENTS, "--dtypes", "float32", "--steps", "3", "--out", str(tmp_path / "deep" / "peft")])
    torch.set_num_threads(threads)
    outcome = json.loads((tmp_path / "deep" / "peft.json").read_text())
    rows = outcome["results"]["float32"]["contestants"]
    assert len(rows) == 3
    assert rows["PEFT, vocabulary, sdpa"]["ratio"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    assert rows["PEFT, vocabulary, sdpa"]["memory"]["ratio"] == 1.0
    assert all(row["memory"]["peak"] >= row["memory"]["loaded"] > 0 for row in rows.values())
    assert outcome["environment"]["threads"] == 1
    text = (tmp_path / "deep" / "peft.md").read_text()
    assert "--width 32" in text
    assert f"peft {outcome['environment']['peft']}" in text
    assert "| float32 | trimtab, label words, sdpa |" in text
    assert text.splitlines()[0] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt", "0"], "--prompt must be at least 1, got 0"),
        (["--steps", "-1"], "--steps must be at least 1, got -1"),
        (["--width", "10", "--heads", "4"], "--width must be a multiple of --heads, got 10 and 4"),
        (["--text", "1010"], "prompt, text and label must fit in 1024 positions"),
        (["--dtypes", "float16"], "invalid choice: 'float16'"),
    ],
)
def test_wrong_arguments_are_refused(
    script: ModuleType, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        script.parse(arguments)
    assert message in capsys.readouterr().err


def test_without_peft_it_says_what_to_install(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("publishing.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="2"):
        script.parse([])
    assert "pip install -e '.[benchmark]'" in capsys.readouterr().err
