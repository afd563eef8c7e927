"""Prompts from PEFT: what its models say, ours say; folders that lie are refused."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.exported_runs import TEXTS, logits, row_of
from tests.unit.exporting.conftest import DEEP, INPUT, RunOf
from tests.unit.refusals import refused
from trimtab import api
from trimtab.errors import BackboneError, BundleError, ConfigError, TrimtabError
from trimtab.exporting import Source, export
from trimtab.exporting.from_peft import Task, import_peft
from trimtab.loading import load
from trimtab.storage import read_bundle

needs_peft = pytest.mark.skipif(find_spec("peft") is None, reason="trains with PEFT: extra lora")
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # by PEFT
WORDS = {"positive": ["good", "great"], "negative": "bad"}
TASK = Task("{prompt} {text} {answer}", WORDS)


# What trimtab exported comes back ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("llama", INPUT),
        ("bart", INPUT),
        ("llama", DEEP),
        ("bert", {"prompt": {**DEEP["prompt"], "shift_positions": True}, "readout": {"kind": "head"}}),
    ],
    ids=["bos", "encoder-decoder", "turned", "head"],
)
def test_what_was_exported_comes_back(run_of: RunOf, tmp_path: Path, name: str, recipe: dict[str, Any]) -> None:
    source = Source.read(run_of(name, recipe))
    export([source], "peft", tmp_path / "peft")
    found = import_peft(tmp_path / "peft", tmp_path / "bundle")
    assert found == {"folder": str(tmp_path / "bundle"), "prompt": recipe["prompt"]["kind"], "notes": []}
    back = read_bundle(tmp_path / "bundle")
    for its in (back, source.bundle):
        del its.metadata["prompt"][
            "sha256"
        ]  # keys that were turned, and turned back, are the same to the last bit but one
    assert back.metadata == source.bundle.metadata
    for part, values in source.bundle.tensors.items():
        torch.testing.assert_close(torch.from_numpy(back.tensors[part]), torch.from_numpy(values), atol=1e-5, rtol=1e-5)
    texts = [{"text": text} for text in TEXTS]
    ours, mine = load(tmp_path / "bundle", device="cpu").predict(texts), source.predictor.predict(texts)
    for a, b in zip(ours, mine, strict=True):
        assert a.as_json()["scores"] == pytest.approx(b.as_json()["scores"], abs=1e-5)


# What PEFT trained ---------------------------------------------------------------------------------------------------


def by_peft(model: Path, folder: Path, kind: str, **options: Any) -> Any:
    """A PEFT model of random vectors, saved."""
    import peft

    is_seq2seq = "t5" in model.name or "bart" in model.name
    loader = transformers.AutoModelForSeq2SeqLM if is_seq2seq else transformers.AutoModelForCausalLM
    task = "SEQ_2_SEQ_LM" if is_seq2seq else "CAUSAL_LM"
    torch.manual_seed(3)
    config = getattr(peft, kind)(task_type=task, num_virtual_tokens=3, **options)
    found = peft.get_peft_model(loader.from_pretrained(model).eval(), config).eval()
    found.save_pretrained(folder)
    return found


CASES = [
    ("llama", "PromptTuningConfig", {}),
    ("gpt2", "PromptEncoderConfig", {"encoder_hidden_size": 16}),
    ("llama", "PrefixTuningConfig", {}),
    ("gpt2", "PrefixTuningConfig", {"prefix_projection": True, "encoder_hidden_size": 16}),
    ("gemma3_text", "PromptTuningConfig", {}),
    ("t5", "PromptTuningConfig", {}),
    ("bart", "PromptTuningConfig", {"num_transformer_submodules": 1}),
]


@needs_peft
@pytest.mark.parametrize(("name", "kind", "options"), CASES, ids=[f"{n}-{k[:6]}-{len(o)}" for n, k, o in CASES])
def test_an_imported_prompt_says_what_peft_says(
    run_of: RunOf, tmp_path: Path, name: str, kind: str, options: dict[str, Any]
) -> None:
    model = run_of(name).parents[1] / name
    theirs = by_peft(model, tmp_path / "peft", kind, **options)
    api.import_prompt(tmp_path / "peft", tmp_path / "bundle", template=TASK.template, label_words=WORDS)
    predictor = load(tmp_path / "bundle", device="cpu")
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    for text in TEXTS:
        row, batch = row_of(predictor, text), tokenizer(text, return_tensors="pt")
        decoder = {"decoder_input_ids": torch.tensor([row.encoded.decoder])} if row.encoded.decoder else {}
        with torch.no_grad():
            out = theirs(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], **decoder).logits[0]
        got = out[row.encoded.answer_at[0] if decoder else -1]
        torch.testing.assert_close(got, logits(predictor, row), atol=1e-4, rtol=1e-4)


@needs_peft
def test_a_prefix_of_an_encoder_decoder_is_refused(run_of: RunOf, tmp_path: Path) -> None:
    by_peft(run_of("t5").parents[1] / "t5", tmp_path / "peft", "PrefixTuningConfig")
    with refused(BundleError, "enters the decoder", where=str(tmp_path / "peft"), fix="prompt.kind=deep"):
        import_peft(tmp_path / "peft", tmp_path / "bundle", TASK)


# Folders that lie ----------------------------------------------------------------------------------------------------


@pytest.fixture
def foreign(run_of: RunOf, tmp_path: Path) -> Path:
    """A folder as PEFT writes it, without trimtab.json."""
    export([Source.read(run_of("llama"))], "peft", tmp_path / "peft")
    (tmp_path / "peft" / "trimtab.json").unlink()
    return tmp_path / "peft"


def config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def weights(make: Callable[[torch.Tensor], dict[str, torch.Tensor]]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "adapter_model.safetensors"
        save_file(make(load_file(path)["prompt_embeddings"]), path)

    return change


def cut(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])


def bomb(folder: Path) -> None:
    (folder / "adapter_model.safetensors").write_bytes((1 << 60).to_bytes(8, "little") + b"{}")


def pickled(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(pickle.dumps({"prompt_embeddings": [1.0]}))


def emptied(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()


WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
LIES: list[tuple[Callable[[Path], None], str, str, str | None]] = [
    (config(peft_type="LORA"), "the key 'peft_type' must be otherwise", CONFIG, "prefix tuning can be imported"),
    (config(num_virtual_tokens=0), "the key 'num_virtual_tokens' must be otherwise", CONFIG, "can be imported"),
    (config(num_virtual_tokens=7), "7 rows of numbers", WEIGHTS, None),
    (weights(lambda v: {"prompt_embeddings": v[0]}), "got shape (32,)", WEIGHTS, None),
    (weights(lambda v: {"prompt_embeddings": v.long()}), "of int64", WEIGHTS, None),
    (weights(lambda v: {"prompt_embeddings": v * torch.inf}), "not finite", WEIGHTS, None),
    (weights(lambda v: {"lora_A": v}), "one tensor `prompt_embeddings` is expected, got lora_A", WEIGHTS, None),
    (weights(lambda v: {"prompt_embeddings": v, "b": v.clone()}), "is expected, got b, prompt", WEIGHTS, None),
    (cut, "truncated or corrupted", WEIGHTS, "Copy it again"),
    (bomb, "truncated or corrupted", WEIGHTS, "Copy it again"),
    (pickled, "a pickle (adapter_model.bin), which could run code", "", "safe_serialization=True"),
    (emptied, "there is no adapter_model.safetensors", "", "safe_serialization=True"),
    (lambda f: (f / CONFIG).unlink(), "there is no adapter_config.json", "", "that PEFT has written"),
    (weights(lambda v: {"prompt_embeddings": v[:, :8].contiguous()}), "have 32 numbers, got 8", "", "--model"),
]  # fmt: skip


@pytest.mark.parametrize(("lie", "what", "file", "fix"), LIES, ids=[what[:30] for _, what, _, _ in LIES])
def test_folders_that_lie_are_refused(
    foreign: Path, tmp_path: Path, lie: Callable[[Path], None], what: str, file: str, fix: str | None
) -> None:
    lie(foreign)
    with refused(BundleError, what, where=str(foreign / file), fix=fix):
        import_peft(foreign, tmp_path / "bundle", TASK)
    assert not (tmp_path / "bundle").exists()


def test_json_that_is_none(foreign: Path, tmp_path: Path) -> None:
    for text in ("{", "[]", "\xff"):
        (foreign / CONFIG).write_text(text, encoding="latin-1")
        with pytest.raises(BundleError, match=r"JSON"):
            import_peft(foreign, tmp_path / "bundle", TASK)


def test_a_file_that_is_too_large(foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimtab.exporting.from_peft._MOST_BYTES", 100)
    with refused(BundleError, "no prompt is as large", where=str(foreign / WEIGHTS)):
        import_peft(foreign, tmp_path / "bundle", TASK)


def test_half_precision_is_read(foreign: Path, tmp_path: Path) -> None:
    weights(lambda v: {"prompt_embeddings": v.bfloat16()})(foreign)
    import_peft(foreign, tmp_path / "bundle", TASK)
    assert read_bundle(tmp_path / "bundle").prompt.dtype == "float32"


def test_a_prefix_of_another_model_is_refused(run_of: RunOf, tmp_path: Path) -> None:
    export([Source.read(run_of("llama", DEEP))], "peft", tmp_path / "peft")
    (tmp_path / "peft" / "trimtab.json").unlink()
    with refused(BundleError, "128 numbers per virtual token", where=str(tmp_path / "peft"), fix="--model"):
        import_peft(tmp_path / "peft", tmp_path / "bundle", TASK, model=str(run_of("gpt2").parents[1] / "gpt2"))


# What a user must say ------------------------------------------------------------------------------------------------


def test_a_template_is_needed_where_the_folder_has_none_and_only_there(
    run_of: RunOf, foreign: Path, tmp_path: Path
) -> None:
    with refused(ConfigError, "no template, as PEFT stores none", where=str(foreign), fix="--template"):
        import_peft(foreign, tmp_path / "bundle")
    export([Source.read(run_of("gpt2"))], "peft", tmp_path / "own")
    with refused(ConfigError, "has its own task", where=str(tmp_path / "own"), fix="trimtab.json"):
        import_peft(tmp_path / "own", tmp_path / "bundle", TASK)
    with refused(ConfigError, "belong to a template", where="import", fix="--template"):
        api.import_prompt(foreign, tmp_path / "bundle", label_words=WORDS)
    with refused(ConfigError, "label words are words for each class", where="--label-words", fix="{class: word"):
        api.import_prompt(foreign, tmp_path / "bundle", template=TASK.template, label_words="good")


@pytest.mark.parametrize("template", ["{text} {prompt} {answer}", "{prompt:1} {text} {prompt:2} {answer}", "{text}"])
def test_the_prompt_must_stand_first(foreign: Path, tmp_path: Path, template: str) -> None:
    with refused(ConfigError, "PEFT puts a prompt before everything", where="--template"):
        import_peft(foreign, tmp_path / "bundle", Task(template, WORDS))


def test_the_model_writes_where_there_are_no_classes(foreign: Path, tmp_path: Path) -> None:
    import_peft(
        foreign, tmp_path / "bundle", Task("{prompt} {text} {answer}", readout={"kind": "text", "max_new_tokens": 3})
    )
    (written,) = load(tmp_path / "bundle", device="cpu").predict(["a dog"])
    assert "text" in written.as_json()


def test_no_base_model(foreign: Path, tmp_path: Path) -> None:
    config(base_model_name_or_path=None)(foreign)
    with refused(ConfigError, "names no base model", where=str(foreign), fix="--model"):
        import_peft(foreign, tmp_path / "bundle", TASK)
    config(base_model_name_or_path=str(tmp_path / "nowhere"))(foreign)
    with pytest.raises(BackboneError, match="there is no folder"):
        import_peft(foreign, tmp_path / "bundle", TASK)


def test_a_template_without_an_answer_is_not_written(foreign: Path, tmp_path: Path) -> None:
    with pytest.raises(TrimtabError, match="exactly one answer slot"):
        import_peft(foreign, tmp_path / "bundle", Task("{prompt} {text}", WORDS))
    assert not (tmp_path / "bundle").exists()


def test_a_bundle_that_is_there_stays(foreign: Path, tmp_path: Path) -> None:
    import_peft(foreign, tmp_path / "bundle", TASK)
    with refused(ConfigError, "there is something already", where=str(tmp_path / "bundle"), fix="--again"):
        import_peft(foreign, tmp_path / "bundle", TASK)
    import_peft(foreign, tmp_path / "bundle", TASK, again=True)


# A record that lies --------------------------------------------------------------------------------------------------


@pytest.fixture
def own(run_of: RunOf, tmp_path: Path) -> Path:
    export([Source.read(run_of("llama"))], "peft", tmp_path / "own")
    return tmp_path / "own"


def record(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    about = json.loads((folder / "trimtab.json").read_text())
    change(about)
    (folder / "trimtab.json").write_text(json.dumps(about))


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.update(schema=2),
        lambda a: a.update(tasks=[]),
        lambda a: a.update(tasks=a["tasks"] * 2),
        lambda a: a.update(tasks=[3]),
        lambda a: a["tasks"][0].update(bundle=None),
        lambda a: a["tasks"][0]["bundle"].update(tasks=[{"name": "toy"}]),
    ],
)
def test_a_record_that_is_none(own: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    record(own, change)
    with refused(
        BundleError, "not what `trimtab export --to peft` writes", where=str(own / "trimtab.json"), fix="Remove"
    ):
        import_peft(own, tmp_path / "bundle")


def test_a_record_that_wants_code_to_run(own: Path, tmp_path: Path) -> None:
    record(own, lambda a: a["tasks"][0]["bundle"]["backbone"]["options"].update(trust_remote_code=True))
    with refused(BundleError, "asks to run code", where=str(own / "trimtab.json"), fix="if you trust it"):
        import_peft(own, tmp_path / "bundle")


def test_a_record_of_a_size_that_no_memory_has(own: Path, tmp_path: Path) -> None:
    record(own, lambda a: a["tasks"][0]["bundle"]["prompt"].update(shape=[1 << 40, 1 << 20]))
    with refused(BundleError, "'inputs' must have the shape", where=str(own), fix="Export it again"):
        import_peft(own, tmp_path / "bundle")


def test_a_damaged_head(run_of: RunOf, tmp_path: Path) -> None:
    recipe = {"prompt": {**DEEP["prompt"], "shift_positions": True}, "readout": {"kind": "head"}}
    export([Source.read(run_of("bert", recipe))], "peft", tmp_path / "own")
    head = tmp_path / "own" / "head.safetensors"
    head.write_bytes(head.read_bytes()[:40])
    with refused(BundleError, "truncated or corrupted", where=str(head), fix="Copy it again"):
        import_peft(tmp_path / "own", tmp_path / "bundle")
    head.unlink()
    with refused(BundleError, "'head.bias' must have the shape", where=str(tmp_path / "own"), fix="Export it again"):
        import_peft(tmp_path / "own", tmp_path / "bundle")


def test_a_record_of_another_shape(own: Path, tmp_path: Path) -> None:
    record(own, lambda a: a["tasks"][0].update(leading=[1, -1]))
    with refused(BundleError, "an entry for each of the 5 vectors", where=str(own / "trimtab.json")):
        import_peft(own, tmp_path / "bundle")
    record(own, lambda a: a["tasks"][0].update(leading=[1, 1, -1, -1, -1]))
    with refused(
        BundleError, "'inputs' must have the shape [4, 32], got [3, 32]", where=str(own), fix="Export it again"
    ):
        import_peft(own, tmp_path / "bundle")


def test_a_record_whose_bundle_lacks_a_key_or_names_another_backbone(own: Path, run_of: RunOf, tmp_path: Path) -> None:
    other = str(run_of("gpt2").parents[1] / "gpt2")
    with pytest.raises(BundleError, match="another backbone than"):
        import_peft(own, tmp_path / "bundle", model=other)
    record(own, lambda a: a["tasks"][0]["bundle"].pop("readout"))
    with refused(BundleError, "the key 'readout' is missing", where=str(own / "trimtab.json"), fix="Copy it again"):
        import_peft(own, tmp_path / "bundle")
    shutil.rmtree(own)
