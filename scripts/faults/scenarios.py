"""Commands that faults fall on, and the folder that they start from: tiny models, eight rows a split."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Scenario:
    """A command, and what it starts from.

    Attributes:
        before: commands that make the folder it starts from.
        change: what is changed there by hand, so that old and new can be told apart.
        command: with which it starts.
        again: what a user would say after a failure; by default the same.
    """

    verb: str
    name: str
    command: str
    before: tuple[str, ...] = ()
    change: Callable[[Path], None] | None = None
    again: str | None = None


RUN = "run recipe.yaml --runs-dir runs --device cpu --quiet"
TUNED = "training.learning_rates={backbone: 1.0e-3} prompt.kind=none"
STUDY = "study study.yaml --studies-dir studies --name films --device cpu --quiet"


def scenarios() -> list[Scenario]:
    """All commands; `{run}` is the only folder below runs/."""
    trained = RUN.replace("recipe", "causal")
    found = [
        Scenario("run", "run", RUN),
        Scenario("run", "run --again", f"{RUN} --again", (RUN,), _another_result, RUN),
        Scenario("run", "run, backbone trained", f"{RUN} '{TUNED.split(' prompt')[0]}'"),
        Scenario("study", "study", STUDY),
        Scenario("study", "study --extend", f"{STUDY} seeds=2 --extend", (f"{STUDY} seeds=1",)),
    ]
    for kind in ("peft", "vllm", "baked", "kv", "card"):
        command = f"export runs/{{run}} --to {kind} --out out"
        found.append(Scenario("export", f"export --to {kind}", command, (trained,), again=f"{command} --again"))
    command = "export runs/{run} --to baked --out out --again"
    found.append(
        Scenario("export", "export --to baked --again", command, (trained, command.removesuffix(" --again")), _mark_out)
    )
    return found


def _another_result(folder: Path) -> None:
    """A finished run with another prompt, as another machine might have left it."""
    import numpy as np

    from trimtab.storage import read_bundle, write_bundle

    (run,) = (folder / "runs").iterdir()
    bundle = read_bundle(run)
    metadata = {k: v for k, v in bundle.metadata.items() if k != "schema"}
    metadata["metrics"]["dev"]["loss"] += 1.0
    write_bundle(run, type(bundle)(metadata, {k: np.float32(2) * v for k, v in bundle.tensors.items()}))


def _mark_out(folder: Path) -> None:
    """An earlier export that is not what the new one will be."""
    (folder / "out" / "earlier.txt").write_text("earlier\n")


def write_inputs(folder: Path) -> None:
    """A tiny masked and a tiny causal model with nano's tokenizers, eight rows a split, two recipes, a study."""
    import torch
    import transformers

    from trimtab.backbones.loading import locate

    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "initializer_range": 0.3}
    models = {
        "masked": ("nano-masked", transformers.BertForMaskedLM, transformers.BertConfig, {"intermediate_size": 16}),
        "causal": ("nano-causal", transformers.LlamaForCausalLM, transformers.LlamaConfig, {"intermediate_size": 16}),
    }
    for name, (embedded, model, config, more) in models.items():
        tokenizer = transformers.AutoTokenizer.from_pretrained(locate(embedded))
        torch.manual_seed(0)
        special = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": tokenizer.bos_token_id,
                   "eos_token_id": tokenizer.eos_token_id}  # fmt: skip
        made = model(config(vocab_size=len(tokenizer), max_position_embeddings=64, **shape, **more, **special))
        made.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    rows = [f"{('good', 'bad')[i % 2]} film {i},{('plus', 'minus')[i % 2]}" for i in range(24)]
    (folder / "films.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    for name, kind in (("recipe", "masked"), ("causal", "causal")):
        recipe = {
            "backbone": {"model": kind, "dtype": "float32"},
            "task": {"kind": "table", "name": "films", "path": "films.csv", "label": "label",
                     "template": "{prompt} {text} {answer}", "label_words": {"plus": "good", "minus": "bad"}},
            "prompt": {"kind": "prompt_tuning", "length": 2},
            "training": {"max_steps": 4, "min_steps": 4, "evaluations": 2, "batch_size": 4, "learning_rate": 0.1},
        }  # fmt: skip
        (folder / f"{name}.yaml").write_text(json.dumps(recipe))
    study = {"recipe": "recipe.yaml", "axes": {"prompt.kind": ["prompt_tuning", "residual"]}, "seeds": 2}
    (folder / "study.yaml").write_text(json.dumps(study))
