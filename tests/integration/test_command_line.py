"""The command line end to end, on a tiny model in a temporary folder, as a user types it."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.contract.fake_services import pretend
from tests.contract.test_choice import choice_rows
from tests.contract.test_span import span_sections
from tests.contract.tiny_families import BUILDERS
from tests.tiny import ANSWERS, tagged_rows, tagged_task, tiny_bert, toy_rows, toy_task, write_jsonl, written_task
from tests.tiny_chats import CHATML, chatml, save_tiny_chat_model
from trimtab.cli import console, main
from trimtab.cli.console import shown_metrics
from trimtab.documents import dump_yaml
from trimtab.sizes import of_file
from trimtab.storage import RunFolder
from trimtab.training.loop import Loop


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Trimtab = Callable[..., Outcome]


@pytest.fixture
def trimtab(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trimtab:
    """Run a command in an empty folder; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Outcome:
        with pytest.raises(SystemExit) as stopped:
            main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return Outcome(int(stopped.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture
def recipe(tmp_path: Path, tiny_folder: Path) -> Path:
    """A recipe that learns the toy in a second."""
    content = {
        "backbone": {"model": str(tiny_folder), "dtype": "float32"},
        "task": toy_task(tmp_path, n=16),
        "prompt": {"kind": "prompt_tuning", "length": 4},
        "training": {"max_steps": 60, "min_steps": 60, "evaluations": 4, "learning_rate": 0.05},
    }
    path = tmp_path / "toy.yaml"
    path.write_text(dump_yaml(content))
    return path


def test_run_learns_and_ends_with_one_json_object(trimtab: Trimtab, recipe: Path) -> None:
    done = trimtab("run", recipe, "--json")
    assert done.code == 0
    record = done.json
    assert {"run", "task", "prompt", "backbone", "parameters", "metrics", "seconds", "seconds_per_step"} <= set(record)
    assert record["parameters"] == {"trained": 4 * 32, "kept": 4 * 32}
    assert record["metrics"]["test"]["accuracy"] > 0.8 > record["baselines"]["majority"]
    assert "step" in done.err


def test_a_run_that_trains_the_backbone_says_how_much_it_keeps(trimtab: Trimtab, recipe: Path) -> None:
    done = trimtab("run", recipe, "training.learning_rates.backbone=1e-4", "training.max_steps=2", "-q")
    assert done.code == 0
    n = tiny_bert().num_parameters()
    assert f"{n + 4 * 32:,} trained, {n + 4 * 32:,} kept" in done.out
    assert f"{n:,} of them, trained with the prompt and kept: {of_file(4 * n)}" in done.out
    assert "of them" not in trimtab("run", recipe, "-q").out


def test_a_finished_run_is_not_repeated_unless_asked(trimtab: Trimtab, recipe: Path) -> None:
    first = trimtab("run", recipe, "--json", "-q").json
    prompt = Path(first["run"]) / "prompt.safetensors"
    written = prompt.stat().st_mtime_ns
    second = trimtab("run", recipe, "--json", "-q").json
    assert second["reused"]
    assert not first["reused"]
    assert prompt.stat().st_mtime_ns == written
    again = trimtab("run", recipe, "--json", "-q", "--again").json
    assert prompt.stat().st_mtime_ns > written
    assert again["metrics"] == first["metrics"], "the same seeds on the same machine give the same numbers"


def test_a_copied_bundle_gives_the_predictions_of_the_run(trimtab: Trimtab, recipe: Path, tmp_path: Path) -> None:
    folder = Path(trimtab("run", recipe, "--json", "-q").json["run"])
    bundle = tmp_path / "elsewhere"
    bundle.mkdir()
    for name in ("bundle.json", "prompt.safetensors"):
        (bundle / name).write_bytes((folder / name).read_bytes())
    done = trimtab("predict", bundle, "--input", tmp_path / "test.jsonl", "-o", "out.jsonl")
    assert done.code == 0
    predicted = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    recorded = [json.loads(line) for line in (folder / "predictions.test.jsonl").read_text().splitlines()]
    assert [(p["id"], p["label"], p["scores"]) for p in predicted] == [
        (r["id"], r["label"], r["scores"]) for r in recorded
    ]


def test_evaluate_gives_the_recorded_score_from_another_folder(
    trimtab: Trimtab, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = recipe.read_text().replace(f"{tmp_path}/", "")
    recipe.write_text(text)
    record = trimtab("run", recipe.name, "--json", "-q").json
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    for split in ("dev", "test"):
        found = trimtab("evaluate", tmp_path / record["run"], "--split", split, "--json")
        assert found.json["metrics"]["accuracy"] == record["metrics"][split]["accuracy"]
    assert "gold" in trimtab("evaluate", tmp_path / record["run"]).out


def test_evaluate_refuses_data_that_changed(trimtab: Trimtab, recipe: Path, tmp_path: Path) -> None:
    record = trimtab("run", recipe, "--json", "-q").json
    lines = (tmp_path / "test.jsonl").read_text().splitlines()
    (tmp_path / "test.jsonl").write_text("\n".join(lines[:-1]))
    refused = trimtab("evaluate", record["run"])
    assert refused.code == 2
    assert "data has changed" in refused.err


def test_predict_reads_plain_lines_and_json_from_standard_input(
    trimtab: Trimtab, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trimtab("run", recipe, "--json", "-q").json["run"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("the cat good\n\nthe film bad\n"))
    plain = [json.loads(line) for line in trimtab("predict", run, "--input", "-").out.splitlines()]
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"id": "a", "text": "the cat good"}\n{"text": "the film bad"}\n'))
    from_json = [json.loads(line) for line in trimtab("predict", run, "--input", "-").out.splitlines()]
    assert [p["id"] for p in plain] == ["1", "2"]
    assert [p["id"] for p in from_json] == ["a", "2"]
    assert [p["scores"] for p in plain] == [p["scores"] for p in from_json]
    assert all(abs(sum(p["scores"].values()) - 1) < 1e-5 for p in plain)


def test_predict_names_the_line_that_lacks_a_field(trimtab: Trimtab, recipe: Path, tmp_path: Path) -> None:
    run = trimtab("run", recipe, "--json", "-q").json["run"]
    (tmp_path / "in.jsonl").write_text('{"text": "the cat good"}\n{"txt": "the film"}\n')
    refused = trimtab("predict", run, "--input", "in.jsonl", "--output", "out.jsonl")
    assert refused.code == 2
    assert "in.jsonl:2" in refused.err
    assert not (tmp_path / "out.jsonl").exists()


def test_predict_refuses_text_that_is_no_unicode(
    trimtab: Trimtab, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trimtab("run", recipe, "--json", "-q").json["run"]
    for text in ("the cat good\nthe \udcff film\n", '{"text": "the cat good"}\n{"text": "the \\ud83d film"}\n'):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        refused = trimtab("predict", run, "--input", "-")
        assert (refused.code, refused.out) == (2, "")
        assert "half of a surrogate pair" in refused.err
        assert "input 2" in refused.err or "standard input:2" in refused.err
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"the cat\nthe \xff film\n"), "utf-8"))
    refused = trimtab("predict", run, "--input", "-")
    assert refused.code == 2
    assert "standard input: the text is not UTF-8" in refused.err


def test_predict_refuses_a_bundle_that_lacks_a_key(trimtab: Trimtab, recipe: Path) -> None:
    run = Path(trimtab("run", recipe, "--json", "-q").json["run"])
    metadata = json.loads((run / "bundle.json").read_text())
    del metadata["backbone"]["fingerprint"]
    (run / "bundle.json").write_text(json.dumps(metadata))
    refused = trimtab("predict", run, "--input", "test.jsonl")
    assert refused.code == 2
    assert "bundle.json: the key 'backbone.fingerprint' is missing" in refused.err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("prompt.lenght=3", "prompt.lenght: there is no such key. Did you mean 'length'?"),
        ("task.train=nowhere.jsonl", "nowhere.jsonl: there is no such file"),
        ("task.label=lable", "there is no column 'lable'. Did you mean 'label'?"),
        ("task.template={prompt} {txt} {answer}", "{txt}, the data has no such column. Did you mean 'text'?"),
        ("task.label_words={positive: yes}", "at least two classes are needed"),
        (
            "task.label_words={positive: yes, negative: 中}",
            "task.label_words.negative: the tokenizer cannot produce the label word '中'",
        ),
        ("task.template={prompt:3} {text} {answer}", "the slots sum to 3, prompt.length is 4"),
        ("backbone.model=./nowhere", "there is no folder './nowhere'"),
        ("task.max_length=6", "needs at least"),
    ],
)
def test_a_mistake_is_one_paragraph_exit_2_and_nothing_written(
    trimtab: Trimtab, recipe: Path, tmp_path: Path, override: str, message: str
) -> None:
    refused = trimtab("run", recipe, override)
    assert refused.code == 2
    assert message in refused.err
    assert refused.err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_diverged_run_says_so_and_keeps_its_last_good_state(trimtab: Trimtab, recipe: Path) -> None:
    stopped = trimtab(
        "run", recipe, "training.learning_rate=1e30", "training.warmup=0", "training.clip=0", "--json", "-q"
    )
    assert stopped.code == 2
    assert "not finite" in stopped.err
    record = json.loads(stopped.out)
    assert record["status"] == "diverged"
    assert trimtab("predict", record["run"], "--input", "test.jsonl").code == 0


def test_a_run_that_is_not_finite_from_the_start_says_what_may_be_wrong(
    trimtab: Trimtab, recipe: Path, tmp_path: Path
) -> None:
    huge = "prompt.initializer={kind: uniform, range: 3e38}"
    stopped = trimtab("run", recipe, huge, "--json", "-q")
    assert stopped.code == 2
    record = json.loads(stopped.out)
    assert (record["status"], record["metrics"]) == ("diverged", {})
    assert "the loss was not finite before the first step, so there is no prompt to keep" in stopped.err
    assert "prompt.initializer" in stopped.err
    plain = trimtab("run", recipe, huge, "-q")
    assert (plain.code, "run folder" in plain.out) == (2, True)
    assert "diverged" in trimtab("ls").out
    assert trimtab("predict", record["run"], "--input", "test.jsonl").code == 2


def test_a_full_disk_after_training_does_not_lose_the_prompt(
    trimtab: Trimtab, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def full(source: str, target: Path) -> None:
        if "runs" in target.parts:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    begin = RunFolder.begin

    def then_full(self: RunFolder, *given: Any) -> None:
        begin(self, *given)
        monkeypatch.setattr(os, "replace", full)

    monkeypatch.setattr(RunFolder, "begin", then_full)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "spare"))
    (tmp_path / "spare").mkdir()
    failed = trimtab("run", recipe, "-q")
    assert failed.code == 2
    assert "no space left on the disk" in failed.err
    bundle = next((tmp_path / "spare").iterdir())
    assert str(bundle) in failed.err
    monkeypatch.setattr(os, "replace", replace)
    assert trimtab("predict", bundle, "--input", "test.jsonl").code == 0


def test_the_listing_verbs_answer(trimtab: Trimtab, recipe: Path) -> None:
    assert trimtab("ls").out.startswith("no runs")
    trimtab("run", recipe, "-q")
    assert "done" in trimtab("ls").out
    for what in ("tasks", "prompts", "readouts", "regularizers", "backbones", "trackers"):
        assert trimtab("ls", what, "--json").json, what
    assert trimtab("ls", "promts").code == 2
    assert "is valid" in trimtab("validate", recipe).out
    shown = trimtab("show", recipe, "-n", 1)
    assert "<P4>" in shown.out
    assert "<answer: yes>" in shown.out
    assert trimtab("show", recipe, "-n", 3, "--json").json["examples"][2]["slots"] == [1, 2, 3, 4]


def test_show_marks_all_tokens_of_the_answer(trimtab: Trimtab, recipe: Path) -> None:
    words = "task.label_words={positive: very good, negative: very bad}"
    shown = trimtab("show", recipe, words, "-n", 1)
    assert "<answer: very good>" in shown.out
    assert "[MASK]" not in shown.out
    record = trimtab("show", recipe, words, "-n", 1, "--json").json["examples"][0]
    assert [record["tokens"][i] for i in record["answer_at"]] == ["[MASK]", "[MASK]"]


def test_show_marks_the_answer_of_a_causal_model_behind_the_text(
    trimtab: Trimtab, recipe: Path, tmp_path: Path
) -> None:
    BUILDERS["gpt2"](tmp_path / "gpt2")
    model = f"backbone.model={tmp_path / 'gpt2'}"
    shown = trimtab("show", recipe, model, "-n", 1)
    assert shown.code == 0, shown.out
    assert shown.out.rstrip().endswith("<answer: yes>")
    record = trimtab("show", recipe, model, "-n", 1, "--json").json["examples"][0]
    assert record["answer_at"] == [len(record["tokens"]) - 1]


def test_show_gives_the_slots_of_a_decoder(trimtab: Trimtab, recipe: Path, tmp_path: Path) -> None:
    BUILDERS["t5"](tmp_path / "t5")
    both = "task.template={prompt:1} {text} {decoder_prompt:3} {answer}"
    shown = trimtab("show", recipe, both, f"backbone.model={tmp_path / 't5'}", "-n", 1)
    assert shown.code == 0, shown.err
    text, decoder = shown.out.splitlines()[-2:]
    assert "<P1>" in text
    assert "<P2>" not in text
    assert decoder.split() == ["decoder:", "<pad>", "<P2>", "<P3>", "<P4>", "<extra_id_0>"]
    record = trimtab("show", recipe, both, f"backbone.model={tmp_path / 't5'}", "--json").json["examples"][0]
    assert (record["slots"], record["decoder_slots"]) == ([0, -1, -1, -1], [-1, 1, 2, 3])
    assert record["decoder_tokens"][0] == "<pad>"


def test_a_slot_in_a_decoder_that_is_not_there_is_refused_before_training(trimtab: Trimtab, recipe: Path) -> None:
    for verb in ("validate", "run"):
        failed = trimtab(verb, recipe, "task.template={decoder_prompt} {text} {answer}")
        assert failed.code == 2
        assert "task.template: {decoder_prompt} needs an encoder-decoder" in " ".join(failed.err.split())
    assert "no runs" in trimtab("ls").out


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_chat_model(tmp_path_factory.mktemp("models") / "chat", chatml())


@pytest.fixture
def chat_recipe(tmp_path: Path, chat_model: Path) -> Path:
    """The toy on a random chat model: slots in two messages, the answer behind text of the assistant's."""
    chat = [
        {"role": "system", "content": "{prompt:3} good or bad?"},
        {"role": "user", "content": "{text}{prompt:1}"},
        {"role": "assistant", "content": "it is {answer}."},
    ]
    content = {
        "backbone": {"model": str(shutil.copytree(chat_model, tmp_path / "chat")), "dtype": "float32"},
        "task": toy_task(tmp_path, n=16, template={"chat": chat}),
        "prompt": {"kind": "prompt_tuning", "length": 4},
        "training": {"max_steps": 20, "min_steps": 20, "evaluations": 2, "learning_rate": 0.05},
    }
    path = tmp_path / "chat.yaml"
    path.write_text(dump_yaml(content))
    return path


def test_a_chat_model_from_recipe_to_predictions(trimtab: Trimtab, chat_recipe: Path, tmp_path: Path) -> None:
    shown = trimtab("show", chat_recipe, "-n", 1).out
    assert "<|im_start|> s y s t e m Ċ <P1> <P2> <P3> Ġgood" in shown
    assert "<P4> <|im_end|>" in shown
    assert shown.rstrip().endswith("i t Ġis <answer: yes>")
    record = trimtab("show", chat_recipe, "-n", 1, "--json").json["examples"][0]
    assert {record["tokens"][i] for i in record["special"]} == {"<|im_start|>", "<|im_end|>"}
    assert "is valid" in trimtab("validate", chat_recipe).out

    done = trimtab("run", chat_recipe, "--json", "-q")
    assert done.code == 0, done.err
    run = Path(done.json["run"])
    assert done.json["status"] == "done"
    assert 0 <= done.json["baselines"]["no_prompt"] <= 1
    metadata = json.loads((run / "bundle.json").read_text())
    task = metadata["task"]
    assert metadata["tokenizer"]["add_special_tokens"] is False
    assert task["template"]["chat"][1] == {"role": "user", "content": "{text}{prompt:1}"}
    assert task["rendered"].startswith("{special:<|im_start|>}system\n{prompt:3} good or bad?{special:<|im_end|>}")

    bundle = tmp_path / "elsewhere"
    bundle.mkdir()
    for name in ("bundle.json", "prompt.safetensors"):
        (bundle / name).write_bytes((run / name).read_bytes())
    recorded = [json.loads(line)["scores"] for line in (run / "predictions.test.jsonl").read_text().splitlines()]
    for _ in range(2):  # the second time with another chat template
        done = trimtab("predict", bundle, "--input", tmp_path / "test.jsonl")
        assert [json.loads(line)["scores"] for line in done.out.splitlines()] == recorded
        (tmp_path / "chat" / "chat_template.jinja").write_text(CHATML.replace("m.role }}", "m.role }}:"))
    other = trimtab("run", chat_recipe, "--json", "-q").json
    assert other["run"] != str(run), "another chat template is another run"
    assert not other["reused"]


def test_a_chat_on_the_command_line(trimtab: Trimtab, chat_recipe: Path) -> None:
    for override in (
        "task.template.chat={prompt} is it {text}?",
        "task.template.chat='{prompt} is it {text}?'",
        "task.template={chat: '{prompt} is it {text}?'}",
        "task.template.chat=[{role: user, content: '{prompt} is it {text}?'}]",
    ):
        shown = trimtab("show", chat_recipe, override, "-n", 1)
        assert shown.code == 0, shown.err
        assert "<P4> Ġ i s" not in shown.out
        assert "<P4> Ġis Ġit" in shown.out
        assert shown.out.rstrip().endswith("a s s i s t a n t Ċ <answer: yes>")
    one = "task.template.chat.1.content={text}{prompt:1} good"
    assert "<P4> Ġgood <|im_end|>" in trimtab("show", chat_recipe, one, "-n", 1).out
    plain = trimtab("show", chat_recipe, "task.template={prompt} {text} {answer}", "-n", 1).out
    assert "im_start" not in plain


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task.template.chat={prompt} {text} {answer}", "{answer} must stand in the last message, the assistant's"),
        ("task.template.option={}", "task.template.option: there is no such key. Did you mean 'options'?"),
        ("task.template.chat.0.rol=x", "task.template.chat.0.rol: there is no such key"),
        ("task.template=[1]", "there is no prompt slot"),
        ("task.template.options.enable_thinkin=false", "Did you mean 'enable_thinking'?"),
        (
            "task.template.chat={prompt} {txt}",
            "{txt}, the data has no such column. Did you mean 'text'?",
        ),
        ("backbone.model=nano-masked", "has no chat template. Use an instruction-tuned checkpoint"),
    ],
)
def test_a_mistake_in_a_chat_is_one_paragraph_and_nothing_written(
    trimtab: Trimtab, chat_recipe: Path, tmp_path: Path, override: str, message: str
) -> None:
    refused = trimtab("run", chat_recipe, override)
    assert refused.code == 2
    assert message in refused.err
    assert refused.err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_dropped_option_is_named(trimtab: Trimtab, recipe: Path) -> None:
    text = recipe.read_text().replace("kind: prompt_tuning", "kind: residual\n  bottleneck: 8")
    recipe.write_text(text)
    done = trimtab("validate", recipe, "prompt.kind=prompt_tuning")
    assert done.code == 0
    assert "prompt.bottleneck" in done.err


def test_init_run_predict_on_a_new_table(trimtab: Trimtab, tmp_path: Path, tiny_folder: Path) -> None:
    rows = toy_rows(60, 5)
    lines = ["message,mood", *(f'"{r["text"]}",{r["label"]}' for r in rows)]
    (tmp_path / "mail.csv").write_text("\n".join(lines) + "\n")
    made = trimtab("init", "mail.csv", "--label", "mood", "-o", "mail.yaml", "--backbone", tiny_folder)
    assert made.code == 0, made.err
    assert trimtab("init", "mail.csv", "--label", "mood", "-o", "mail.yaml", "--backbone", tiny_folder).code == 2
    done = trimtab("run", "mail.yaml", "training.max_steps=60", "training.learning_rate=0.05", "-q", "--json")
    assert done.code == 0, done.err
    predicted = trimtab("predict", done.json["run"], "--input", "mail.csv")
    assert len(predicted.out.splitlines()) == 60


def test_init_run_predict_evaluate_on_free_text(trimtab: Trimtab, tmp_path: Path) -> None:
    writer = BUILDERS["llama"](tmp_path / "llama")
    rows = [{"message": r["text"], "reply": ANSWERS[r["label"]]} for r in toy_rows(60, 5)]
    write_jsonl(tmp_path / "mail.jsonl", rows)
    made = trimtab("init", "mail.jsonl", "--target", "reply", "-o", "mail.yaml", "--backbone", writer)
    assert made.code == 0, made.err
    assert "2 different answers" in made.err
    small = (
        "prompt.kind=prompt_tuning",
        "training.max_steps=60",
        "training.learning_rate=0.1",
        "backbone.dtype=float32",
    )
    done = trimtab("run", "mail.yaml", *small)
    assert done.code == 0, done.err
    assert "exact match" in done.out
    assert "most frequent answer" in done.out
    assert "accuracy" not in done.out
    record = trimtab("run", "mail.yaml", *small, "--json", "-q").json
    assert record["reused"]
    assert record["metrics"]["test"]["token_f1"] > record["baselines"]["no_prompt"]
    predicted = [json.loads(s) for s in trimtab("predict", record["run"], "--input", "mail.jsonl").out.splitlines()]
    assert [set(p) for p in predicted] == [{"id", "text"}] * 60
    found = trimtab("evaluate", record["run"], "--json").json["metrics"]
    assert found == record["metrics"]["test"]
    plain = trimtab("evaluate", record["run"]).out
    assert plain == f"test: {shown_metrics(found, ', ')}, 12 rows\n"
    assert "exact_match" in trimtab("ls").out
    assert trimtab("ls", "--json").json[0]["test"] == found["exact_match"]


def test_init_wants_one_column(trimtab: Trimtab, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "t.jsonl", toy_rows(20, 0))
    for given in ((), ("--label", "label", "--target", "text")):
        refused = trimtab("init", "t.jsonl", *given)
        assert refused.code == 2
        assert "name one column: either of classes (--label) or of free text (--target)" in refused.err


def test_show_and_validate_of_free_text(trimtab: Trimtab, tmp_path: Path) -> None:
    writer = BUILDERS["llama"](tmp_path / "llama")
    recipe = {"backbone": {"model": str(writer)}, "task": written_task(tmp_path), "prompt": {"kind": "prompt_tuning"}}
    (tmp_path / "w.yaml").write_text(dump_yaml(recipe))
    shown = trimtab("show", "w.yaml", "-n", 2)
    for line, answer in zip(shown.out.splitlines()[2::2], ("yes", "not good"), strict=True):
        assert line.rstrip().endswith(f"<answer: {answer}>")
    record = trimtab("show", "w.yaml", "-n", 1, "--json").json["examples"][0]
    assert (record["label"], record["label_words"]) == ("yes", ["yes"])
    checked = trimtab("validate", "w.yaml", "--json").json
    assert checked["classes"] == []
    assert checked["config"]["readout"]["kind"] == "text"
    assert checked["config"]["training"]["select"] == "exact_match"


def test_a_classification_recipe_is_written_where_asked(trimtab: Trimtab, recipe: Path, tmp_path: Path) -> None:
    writer = BUILDERS["llama"](tmp_path / "llama")
    given = (f"backbone.model={writer}", "readout={kind: text, max_new_tokens: 3}", "training.max_steps=4")
    done = trimtab("run", recipe, *given)
    assert done.code == 0, done.err
    for name in ("accuracy", "macro-F1", "exact match", "token F1", "ROUGE-L", "majority class"):
        assert name in done.out, name
    record = trimtab("run", recipe, *given, "--json", "-q").json
    lost = record["metrics"]["test"].get("unanswered", 0)
    assert lost > 0, "a prompt of four steps writes something else"
    assert f"{lost} name no class" in done.out
    evaluated = trimtab("evaluate", record["run"])
    assert f"{lost} name no class" in evaluated.out
    assert "gold" in evaluated.out
    predicted = [json.loads(s) for s in trimtab("predict", record["run"], "--input", "test.jsonl").out.splitlines()]
    assert sum(p["label"] is None for p in predicted) == lost
    assert [set(p) for p in predicted] == [{"id", "label", "text"}] * 16


def test_no_arguments_show_the_help(trimtab: Trimtab) -> None:
    for given in ((), ("--debug",), ("--help",)):
        shown = trimtab(*given)
        assert (shown.code, shown.err) == (0, "")
        assert "Soft prompts for frozen language models" in shown.out


@pytest.mark.parametrize(
    ("given", "what", "see"),
    [
        (("--zzz",), "No such option", "trimtab --help"),
        (("fly",), "No such command 'fly'", "trimtab --help"),
        (("run",), "Missing argument 'recipe'", "trimtab run --help"),
        (("run", "x.yaml", "--zzz"), "No such option", "trimtab run --help"),
        (("predict", "x"), "Missing option '--input'", "trimtab predict --help"),
        (("show", "x.yaml", "-n", "none"), "Invalid value for '-n'", "trimtab show --help"),
    ],
)
def test_a_command_line_that_cannot_be_read_is_the_users_mistake(
    trimtab: Trimtab, given: tuple[str, ...], what: str, see: str
) -> None:
    refused = trimtab(*given)
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.startswith(f"error: {what}")
    assert refused.err.rstrip().endswith(f"See {see}.")
    assert refused.err.count("\n") == 1


def test_debug_shows_the_traceback_and_a_defect_exits_1(
    trimtab: Trimtab, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise RuntimeError("wires crossed")

    monkeypatch.setattr("trimtab.api.validate", broken)
    failed = trimtab("validate", recipe)
    assert failed.code == 1
    assert "wires crossed" in failed.err
    with pytest.raises(RuntimeError):
        main(["validate", str(recipe), "--debug"])


@pytest.mark.parametrize(
    "given",
    [
        ("run", "{recipe}", "backbone.model=./{name}"),
        ("run", "{recipe}", "--runs-dir", "{name}"),
        ("evaluate", "{name}"),
        ("serve", "{name}"),
        ("landscape", "{name}"),
    ],
    ids=lambda given: given[0],
)
def test_what_no_file_can_be_called_is_no_defect(trimtab: Trimtab, recipe: Path, given: tuple[str, ...]) -> None:
    refused = trimtab(*(part.format(recipe=recipe, name="x" * 300) for part in given))
    assert refused.code == 2
    assert "xxx" in refused.err
    assert "defect" not in refused.err


TELLS_ITS_LAST_THREADS = """
import atexit, os, pathlib, trimtab.cli
def tell():
    names = [p.read_text() for p in pathlib.Path("/proc/self/task").glob("*/comm")]
    pathlib.Path("threads-" + os.environ["RANK"]).write_text("".join(names))
atexit.register(tell)
trimtab.cli.main()
"""


@pytest.mark.slow
def test_two_processes_speak_with_one_voice(recipe: Path, tmp_path: Path) -> None:
    script = tmp_path / "launched.py"
    script.write_text(TELLS_ITS_LAST_THREADS)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script]
    options = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 300, "check": False}
    done = subprocess.run([*launch, "run", recipe, "--json"], **options)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert (record["status"], record["environment"]["processes"], record["steps"]) == ("done", 2, 60)
    assert record["metrics"]["test"]["accuracy"] > 0.8
    assert done.stderr.count("step 60/60") == 1
    for rank in (0, 1):
        last = (tmp_path / f"threads-{rank}").read_text()
        assert "gloo" not in last, "threads that outlive the process group abort the process at its end, now and then"
    refused = subprocess.run([*launch, "run", recipe, "prompt.lenght=3", "--runs-dir", "other"], **options)
    assert refused.stderr.count("error: prompt.lenght: there is no such key.") == 1
    assert "exitcode  : 2" in refused.stderr, "torchrun says how the first process ended"
    assert not (tmp_path / "other").exists()


def test_a_defect_of_any_process_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(console.err, "quiet", True)
    console.complain("what all know")
    console.complain("what only this process knows", always=True)
    assert capsys.readouterr().err == "error: what only this process knows\n"


def test_a_killed_run_says_where_it_continues(trimtab: Trimtab, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Loop._step

    def interrupted(self: Loop, *batches: Any) -> None:
        if self.steps_done == 20:
            raise KeyboardInterrupt
        step(self, *batches)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_step", interrupted)
        assert trimtab("run", recipe).code == 130
    lines = trimtab("run", recipe).err.splitlines()
    assert lines[0] == "toy: continuing at step 15 of 60"
    assert lines[1].startswith("toy: step 30/60")
    assert len(lines) == 4


def test_help_needs_no_torch() -> None:
    call = "import sys, trimtab.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: pass\n"
    code = call + "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_tagged_sentences_from_recipe_to_entities(trimtab: Trimtab, tmp_path: Path, tiny_folder: Path) -> None:
    names = tmp_path / "new.conll"
    names.write_text("the\tO\nred\tB-color\nsun\tB-sky\n\nfilm\tO\ncat\tB-animal\n" + "a\tO\n" * 80)
    content = {
        "backbone": {"model": str(tiny_folder), "dtype": "float32"},
        "task": {**tagged_task(tmp_path, n=16), "test": str(names)},
        "prompt": {"kind": "prompt_tuning", "length": 4},
        "training": {"max_steps": 40, "min_steps": 40, "evaluations": 2, "learning_rate": 0.05},
    }
    recipe = tmp_path / "names.yaml"
    recipe.write_text(dump_yaml(content))
    note = "note: In test 1 word has a tag that train lacks, which cannot be learned: B-color."
    checked = trimtab("validate", recipe)
    assert note in checked.err
    assert trimtab("validate", recipe, "--json").json["notes"] == [note.removeprefix("note: ")]
    shown = trimtab("show", recipe, "-n", "1").out
    assert "words read" in shown
    assert "old/I-" in shown
    assert "answer" not in shown
    one = trimtab("show", recipe, "-n", "1", "--json").json["examples"][0]
    assert len(one["tags"]) == len(one["answer_at"]) == one["tags"].count("O") + sum(t != "O" for t in one["tags"])

    done = trimtab("run", recipe, "-q")
    assert done.code == 0
    assert note in done.err
    assert "entity F1" in done.out
    assert "words not read" in done.out
    assert "truncated   1 rows" in done.out
    record = trimtab("run", recipe, "-q", "--json").json
    assert (record["reused"], record["metric"]) == (True, "entity_f1")
    assert record["notes"] == [note.removeprefix("note: ")]
    assert "color" in record["metrics"]["test"]["per_type"]

    scored = trimtab("evaluate", record["run"])
    assert f"entity F1 {record['metrics']['test']['entity_f1']:.3f}" in scored.out
    assert "color" in scored.out
    again = trimtab("evaluate", record["run"], "--json").json["metrics"]
    assert again == record["metrics"]["test"]

    own = {"kind": "tagged", "test": str(names)}
    assert trimtab("evaluate", record["run"], "--task", json.dumps(own), "--json").json["metrics"] == again
    other = {"kind": "tagged", "test": str(write_jsonl(tmp_path / "other.jsonl", tagged_rows(5, 9)))}
    elsewhere = trimtab("evaluate", record["run"], "--task", json.dumps(other), "--json").json["metrics"]
    assert elsewhere["rows"] == 5
    assert elsewhere["per_type"].keys() != again["per_type"].keys()
    table = write_jsonl(tmp_path / "table.jsonl", [{"text": "the cat", "label": "a"}])
    wrong = {"kind": "table", "test": str(table), "label_words": {"a": "a", "b": "b"}}
    refused = trimtab("evaluate", record["run"], "--task", json.dumps(wrong))
    assert (refused.code, refused.out) == (2, "")
    assert "table.jsonl:1: the example has no tags" in refused.err

    rows = write_jsonl(tmp_path / "in.jsonl", [{"id": "a", "tokens": ["the", "cat", "old"]}])
    (line,) = trimtab("predict", record["run"], "-i", rows).out.splitlines()
    found = json.loads(line)
    assert list(found) == ["id", "tokens", "tags", "entities"]
    assert (found["id"], found["tokens"], len(found["tags"])) == ("a", ["the", "cat", "old"], 3)
    for entity in found["entities"]:
        assert entity["text"] == " ".join(found["tokens"][entity["start"] : entity["end"]])
    (tmp_path / "in.txt").write_text("the cat  old\n")
    (line,) = trimtab("predict", record["run"], "-i", "in.txt").out.splitlines()
    assert {**json.loads(line), "id": "a"} == found


def test_choices_from_recipe_to_the_best_one(trimtab: Trimtab, tmp_path: Path, tiny_folder: Path) -> None:
    splits = enumerate(("train", "dev", "test"))
    files = {s: str(write_jsonl(tmp_path / f"{s}.jsonl", choice_rows(8, i))) for i, s in splits}
    task = {"kind": "table", "name": "choices", **files, "choices": ["first", "second", "third"]}
    config = {
        "backbone": {"model": str(tiny_folder), "dtype": "float32"},
        "task": {**task, "template": "{prompt} {text} {choice}"},
        "prompt": {"kind": "prompt_tuning", "length": 2},
        "training": {"max_steps": 2, "batch_size": 4},
    }
    recipe = tmp_path / "choices.yaml"
    recipe.write_text(dump_yaml(config))
    assert trimtab("validate", recipe).code == 0
    shown = trimtab("show", recipe, "-n", 1).out
    assert ", first, " in shown
    assert ", second, " in shown
    parts = [s["part"] for s in trimtab("show", recipe, "-n", 2, "--json").json["examples"]]
    assert parts == ["first", "second", "first", "second", "third"]
    done = trimtab("run", recipe, "--json")
    assert done.code == 0, done.err
    assert done.json["metric"] == "accuracy"
    assert set(done.json["metrics"]["test"]) == {"accuracy", "rows"}
    text = trimtab("run", recipe).out
    assert "accuracy" in text
    assert "most frequent choice 0." in text
    for absent in ("no prompt", "majority class", "macro-F1"):
        assert absent not in text, absent
    asked = write_jsonl(tmp_path / "asked.jsonl", [{"text": "the", "first": "cat", "second": "dog"}])
    (line,) = map(json.loads, trimtab("predict", "choices", "-i", asked).out.splitlines())
    assert set(line["scores"]) == {"first", "second"}
    assert line["text"] == {"first": "cat", "second": "dog"}[line["label"]]
    assert trimtab("evaluate", "choices").out.startswith("test: accuracy")
    wrong = trimtab("predict", "choices", "-i", write_jsonl(tmp_path / "wrong.jsonl", [{"text": "a", "first": "b"}]))
    assert (wrong.code, wrong.out) == (2, "")
    assert "wrong.jsonl:1: the field 'second' is missing" in wrong.err


def test_questions_from_recipe_to_answers(trimtab: Trimtab, tmp_path: Path, tiny_folder: Path) -> None:
    sections = span_sections(tmp_path, data={"length": 60, "unanswerable": 0.25})
    recipe = tmp_path / "questions.yaml"
    recipe.write_text(dump_yaml({**sections, "backbone": {"model": str(tiny_folder), "dtype": "float32"}}))
    assert trimtab("validate", recipe, "--json").json["rows"] == {"train": 8, "dev": 8, "test": 8}
    assert "window 2 of 2" in trimtab("show", recipe, "-n", 1).out
    done = trimtab("run", recipe, "--json")
    assert done.code == 0, done.err
    assert (done.json["metric"], done.json["rows"]["train"]) == ("f1", 8)
    text = trimtab("run", recipe).out
    assert "exact match" in text
    assert "F1" in text
    context = "the sun , the moon and a " + "new " * 60 + "tree"
    asked = write_jsonl(tmp_path / "asked.jsonl", [{"id": "q7", "question": "not the", "context": context}])
    (line,) = map(json.loads, trimtab("predict", "squad", "-i", asked).out.splitlines())
    assert list(line) == ["id", "text", "start", "end", "score"]
    assert line["id"] == "q7"
    assert line["text"] == ("" if line["start"] is None else context[line["start"] : line["end"]])
    assert trimtab("evaluate", "squad").out.startswith("test: exact match")
    scores = trimtab("evaluate", "squad", "--json").json["metrics"]
    assert scores["no_answer"]["rows"] == 2
    assert scores == done.json["metrics"]["test"]
    files = {split: json.dumps({"kind": "squad", "test": sections["task"][split]}) for split in ("test", "dev")}
    of_file = {split: trimtab("evaluate", "squad", "--task", file, "--json") for split, file in files.items()}
    assert of_file["test"].json["metrics"] == scores
    assert of_file["dev"].json["metrics"] == trimtab("evaluate", "squad", "--split", "dev", "--json").json["metrics"]


def test_a_run_is_followed_by_trackers(
    trimtab: Trimtab, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pretend(monkeypatch, "wandb")
    monkeypatch.setitem(sys.modules, "trackio", None)
    missing = trimtab("run", recipe, "--track", "trackio")
    assert missing.code == 2
    assert "track: trackio: this tracker needs a library that is not installed" in missing.err
    assert "pip install 'trimtab[trackio]'" in missing.err
    assert not (tmp_path / "runs").exists()
    (tmp_path / "a file").write_text("")
    track = ("--track", "wandb: {project: x}", "--track", "tensorboard: {folder: a file}")
    done = trimtab("run", recipe, "training.max_steps=2", "training.min_steps=2", "-q", "--json", *track)
    assert done.code == 0
    (shown,) = wandb.records.values()
    assert (shown.name, shown.place, shown.group) == (done.json["id"], "x", None)
    assert shown.summary["final/test/accuracy"] == done.json["metrics"]["test"]["accuracy"]
    assert done.err.count("note: the tracker tensorboard failed and is left out") == 1
    assert "tensorboard failed" in done.json["notes"][0]
