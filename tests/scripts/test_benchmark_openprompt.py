"""The benchmark beside OpenPrompt: both are told the same, take turns, and are held against each other."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

from trimtab.backbones import load_backbone

SCRIPTS = Path(__file__).parents[2] / "scripts"
STAND_IN = """
import json, sys
work = json.loads(sys.stdin.readline())
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    said = {"loss": 0.5} if line.strip() == "train" else {"classes": [0] * len(work["held_out"])}
    print(json.dumps({**said, "wall": 2.0, "processor": 1.0}), flush=True)
"""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("benchmark_openprompt")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    for name in ("openprompt-1.0.1", "transformers-4.30.2"):
        (tmp_path / "site" / f"{name}.dist-info").mkdir(parents=True)
    return tmp_path / "site"


def test_a_row_is_the_prompt_and_what_a_tokenizer_makes_of_the_words(script: ModuleType, tiny_folder: Path) -> None:
    backbone = load_backbone(str(tiny_folder), dtype="float32", device="cpu")
    shape = script.Shape(batch=2, text=6, prompt=3, held_out=5)
    work = script.work_of(backbone, shape, tiny_folder, 1)
    assert {len(r["words"]) for r in work["training"]} == {6}
    assert max(len(r["words"]) for r in work["held_out"]) == 6
    assert len({len(r["words"]) for r in work["held_out"]}) > 1
    row = script.Trimtab(backbone, work)._member.train[1]
    text = " ".join(work["training"][1]["words"]) + " [MASK]"
    assert list(row.encoded.ids[3:]) == backbone.encoder.tokenizer(text)["input_ids"]
    assert row.encoded.ids[row.encoded.answer_slot] == backbone.encoder.mask_id
    assert row.prompt == 0


def test_both_are_asked_in_turns(script: ModuleType, tiny_folder: Path, site: Path, tmp_path: Path) -> None:
    stand_in = tmp_path / "stand_in.py"
    stand_in.write_text(STAND_IN)
    command = ["--model", tiny_folder, "--site", site, "--contestant", stand_in, "--out", tmp_path / "found"]
    small = ["--batch", 2, "--text", 6, "--prompt", 3, "--held-out", 5, "--steps", 3, "--evaluations", 2]
    script.main([str(a) for a in (*command, *small)])
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["openprompt"] == "1.0.1"
    results = found["results"]
    assert [loss for _, loss in results["losses"]] == [0.5] * 4
    assert results["train"]["openprompt_seconds"] == 2.0
    assert results["train"]["ratio"]["median"] == pytest.approx(results["train"]["seconds"] / 2, rel=0.3)
    assert "| a training step | 2.000 |" in (tmp_path / "found.md").read_text()


def test_without_openprompt_it_says_what_to_do(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        script.main(["--site", str(tmp_path)])
    assert f"there is no OpenPrompt in {tmp_path}" in capsys.readouterr().err
