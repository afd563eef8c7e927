"""The pretraining script on a few kilobytes of text: it learns, resumes, and writes a card of what it measured."""

from __future__ import annotations

import importlib.util
import json
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest

from trimtab.backbones import load_backbone

SCRIPT = Path(__file__).parents[2] / "scripts" / "pretrain_nano.py"
WORDS = "the cat dog bird sees likes chases small big old red green house tree river and near under over in".split()


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pretrain_nano", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["pretrain_nano"] = module
    spec.loader.exec_module(module)
    return module


def arguments(folder: Path, tokens: int, *more: str) -> list[str]:
    draw = random.Random(0)
    for name, n in (("text.txt", 400), ("valid.txt", 100)):
        lines = (" ".join(draw.choices(WORDS, k=12)) + " ." if i % 9 else "" for i in range(n))
        (folder / name).write_text("\n".join(lines) + "\n")
    text, valid, out = folder / "text.txt", folder / "valid.txt", folder / "nano-test"
    size = ["--hidden", "32", "--layers", "1", "--vocabulary", "120", "--batch-tokens", "512", "--minutes", "60"]
    places = ["--corpus", str(text), "--valid", str(valid), "--out", str(out), "--cache", str(folder / "cache")]
    return [*places, *size, "--tokens", str(tokens), *more]


def test_it_learns_resumes_and_writes_a_card_of_what_it_measured(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = script.evaluate
    monkeypatch.setattr(script, "evaluate", lambda model, text, tokenizer: evaluate(model, text, tokenizer, batches=2))
    script.main(arguments(tmp_path, 512 * 10))
    first = json.loads((tmp_path / "nano-test" / "training.json").read_text())
    script.main(arguments(tmp_path, 512 * 40))
    assert "resuming at step 10" in capsys.readouterr().out
    second = json.loads((tmp_path / "nano-test" / "training.json").read_text())
    assert (first["tokens_seen"], second["tokens_seen"]) == (512 * 10, 512 * 40)
    assert second["heldout_loss"] < first["heldout_loss"]
    card = (tmp_path / "nano-test" / "README.md").read_text()
    assert f"{second['heldout_loss']:.3f} nats" in card
    loaded = load_backbone(str(tmp_path / "nano-test"), dtype="bfloat16", device="cpu")
    assert loaded.parameter_count == second["parameters"]
    assert loaded.encoder.mask_id is not None
