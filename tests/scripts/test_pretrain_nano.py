"""The pretraining script on a few kilobytes of text: it learns, resumes, and writes a card of what it measured."""

from __future__ import annotations

import importlib
import json
import random
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

SCRIPTS = Path(__file__).parents[2] / "scripts"
WORDS = "the cat dog bird sees likes chases small big old red green house tree river and near under over in".split()


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("pretrain_nano")


def arguments(folder: Path, tokens: int, *more: str) -> list[str]:
    draw = random.Random(0)
    for name, n in (("text.txt", 400), ("valid.txt", 100)):
        lines = (" ".join(draw.choices(WORDS, k=12)) + " ." if i % 9 else "" for i in range(n))
        (folder / name).write_text("\n".join(lines) + "\n")
    text, valid, out = folder / "text.txt", folder / "valid.txt", folder / "nano-test"
    size = ["--hidden", "32", "--layers", "1", "--vocabulary", "120", "--batch-tokens", "512", "--minutes", "60"]
    places = ["--corpus", str(text), "--valid", str(valid), "--out", str(out), "--cache", str(folder / "cache")]
    return [*places, *size, "--tokens", str(tokens), *more]


@pytest.mark.parametrize("kind", ["masked", "causal", "seq2seq"])
def test_it_learns_resumes_and_writes_a_card_of_what_it_measured(
    script: ModuleType, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = script.evaluate
    monkeypatch.setattr(script, "evaluate", lambda model, objective, text: evaluate(model, objective, text, batches=2))
    script.main(arguments(tmp_path, 512 * 10, "--kind", kind))
    first = json.loads((tmp_path / "nano-test" / "training.json").read_text())
    script.main(arguments(tmp_path, 512 * 40, "--kind", kind))
    assert "resuming at step 10" in capsys.readouterr().out
    second = json.loads((tmp_path / "nano-test" / "training.json").read_text())
    assert (first["tokens_seen"], second["tokens_seen"]) == (512 * 10, 512 * 40)
    assert second["heldout_loss"] < first["heldout_loss"]
    card = (tmp_path / "nano-test" / "README.md").read_text()
    assert f"{second['heldout_loss']:.3f} nats" in card
    out = tmp_path / "nano-test"
    tokenizer = AutoTokenizer.from_pretrained(out)
    model = AutoModel.from_pretrained(out)
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer) == second["vocabulary"]
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("the cat")["input_ids"])
    specials = [p for p in pieces if p in tokenizer.all_special_tokens]
    assert specials == {"masked": ["[CLS]", "[SEP]"], "causal": ["<s>"], "seq2seq": ["</s>"]}[kind]
    assert (pieces[0] in specials, pieces[-1] in specials) == (kind != "seq2seq", kind != "causal")


def test_span_corruption_loses_no_token_and_keeps_lengths(script: ModuleType, tmp_path: Path) -> None:
    script.main(arguments(tmp_path, 512, "--kind", "seq2seq"))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "nano-test")
    objective = script.OBJECTIVES["seq2seq"](tokenizer)
    row = np.arange(60, 100)
    shapes = set()
    for seed in range(20):
        source, target = objective._corrupt(row, np.random.default_rng(seed))
        shapes.add((len(source), len(target)))
        assert source[-1] == target[-1] == objective.eos
        pieces = {}
        sentinel = -1
        for token in target[:-1].tolist():
            if token in objective.sentinels:
                sentinel = token
            else:
                pieces.setdefault(sentinel, []).append(token)
        rebuilt = [t for token in source[:-1].tolist() for t in pieces.get(token, [token])]
        assert rebuilt == row.tolist()
    assert len(shapes) == 1


def test_relative_rates_are_multiples_of_the_size_of_each_tensor(script: ModuleType) -> None:
    master = {"big": torch.full((3, 2), 2.0), "small": torch.full((2, 2), 0.01), "zero": torch.zeros(4)}
    for relative, expected in ((True, [0.2, 0.001, 0.0001]), (False, [0.1, 0.1])):
        groups = script.optimizer_groups(master, 0.5, relative)
        optimizer = torch.optim.AdamW(groups)
        script.set_rates(optimizer, 0.1, relative)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(expected)
        decay = {p.ndim: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
        assert decay == {2: 0.5, 1: 0.0}
