"""`trimtab export` and `trimtab import` end to end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.exporting.conftest import RunOf, run_of
from trimtab.cli import main

__all__ = ["run_of"]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.delenv("TRIMTAB_RUNS", raising=False)

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, " ".join(err.split())

    return call


def test_out_and_back(run: Run, run_of: RunOf, tmp_path: Path) -> None:
    folder, out, back = run_of("llama"), str(tmp_path / "peft"), str(tmp_path / "bundle")
    code, text, err = run("export", folder.name, "--runs-dir", str(folder.parent), "--to", "peft", "--out", out)
    assert code == 0
    assert text.splitlines() == [
        f"peft  {out}", "  adapter_config.json", "  adapter_model.safetensors", "  trimtab.json"
    ]  # fmt: skip
    assert "note: PEFT is wrong about rows that are padded on the left" in err
    code, _, err = run("export", str(folder), "--to", "peft", "--out", out)
    assert code == 2
    assert "there is something already. Give another --out, or --again" in err
    code, text, _ = run("export", str(folder), "--to", "peft", "--out", out, "--again", "--json")
    assert code == 0
    assert json.loads(text)["export"] == {"kind": "peft", "base_model": None}
    code, text, _ = run("import", out, "--out", back)
    assert (code, text) == (0, f"bundle  {back}\n")
    (tmp_path / "texts.txt").write_text("a dog\n")
    answers = [run("predict", where, "--input", str(tmp_path / "texts.txt"))[1] for where in (back, str(folder))]
    assert answers[0] == answers[1] != ""


def test_a_folder_of_peft_with_words_from_the_command_line(run: Run, run_of: RunOf, tmp_path: Path) -> None:
    run("export", str(run_of("llama")), "--to", "peft", "--out", str(tmp_path / "peft"))
    (tmp_path / "peft" / "trimtab.json").unlink()
    words = ["--template", "{prompt} {text} {answer}", "--label-words", "{good: great, bad: [awful, poor]}"]
    reading = ["--readout", "{kind: ranking, length_normalized: true}", "--name", "mine", "--json"]
    code, text, _ = run("import", str(tmp_path / "peft"), "--out", str(tmp_path / "bundle"), *words, *reading)
    assert code == 0
    assert json.loads(text)["prompt"] == "prompt_tuning"
    its = json.loads((tmp_path / "bundle" / "bundle.json").read_text())
    assert its["task"]["label_words"] == {"good": ["great"], "bad": ["awful", "poor"]}
    assert its["task"]["name"] == "mine"
    assert its["readout"]["length_normalized"] is True
    code, _, err = run("import", str(tmp_path / "peft"), "--out", str(tmp_path / "other"))
    assert code == 2
    assert "no template" in err


def test_names_for_several_runs(run: Run, run_of: RunOf, tmp_path: Path) -> None:
    folders = [str(run_of("gpt2")), str(run_of("gpt2", {"prompt": {"kind": "prompt_tuning", "length": 2}}))]
    out = ["--to", "baked", "--out", str(tmp_path / "out")]
    code, _, err = run("export", *folders, *out, "--name", "one")
    assert code == 2
    assert "every run needs a name, got 1 for 2 runs" in err
    code, _, _ = run("export", *folders, *out, "--name", "one", "--name", "two")
    assert code == 0
    about = json.loads((tmp_path / "out" / "trimtab.json").read_text())
    assert [task["tokens"][0] for task in about["tasks"]] == ["<|one:0|>", "<|two:0|>"]


def test_exports_are_listed(run: Run) -> None:
    code, text, _ = run("ls", "exports")
    assert code == 0
    assert "peft" in text
    assert "takes_several" not in text


def test_help_names_the_verb_that_is_a_word_of_python(run: Run) -> None:
    code, _, err = run("import")
    assert code == 2
    assert "See trimtab import --help" in err
