"""Deep prompts by trimtab and prefix tuning by PEFT: on which families each works, and the same training by both.

    python scripts/peft_prefix.py families --out docs/results/peft-prefix-families
    OMP_NUM_THREADS=1 python scripts/peft_prefix.py wnut17 --backbone ../shared/models/minilm-l6-mlm \
        --data-dir ../shared/data --out docs/results/peft-prefix

`families`: tiny random models. Does a step work, does a gradient reach the prefix of every layer, is it the same when
layers are recomputed in the backward pass, is a left-padded row computed as the unpadded one, and do both libraries
make the same hidden states of the same keys and values. PEFT puts a prefix into the cache that generation uses, trimtab
into the attention function.

`wnut17`: entities (the readout `tokens`) on a masked language model, backbone frozen and without dropout. PEFT's token
classification wrapper in an ordinary PyTorch loop: rows, batches and their order, the head and its first values, the
loss, AdamW, schedule, clipping, evaluations, choice of the checkpoint and the metric are trimtab's own. The prefix is
N(0,1) in both; PEFT draws its own (`--first own`) or gets trimtab's (`--first copied`). The rate is chosen per arm by
the mean dev score. Besides: the first gradient and the first steps from the same values, time (all arms in one process,
taking turns) and memory (each in a process of its own). Everything runs on the CPU, in `--threads` threads.
"""

from __future__ import annotations

import argparse
import copy
import inspect
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from benchmark_peft import PAGE, difference, peak_while_stepping, ratios, turns
from publishing import at_least_one, command_line, common_options, footer, machine, needs_peft, publish
from trimtab.backbones import Backbone
from trimtab.backbones.checkpointing import check_recomputing, recomputing
from trimtab.backbones.family import Family
from trimtab.batching import collate, micro_batches
from trimtab.config import resolve
from trimtab.initializers import PromptContext
from trimtab.injection import prefix_attention, shift_positions
from trimtab.model import PromptedModel, stacked
from trimtab.prompt_table import PromptTable, table_of
from trimtab.prompts.deep import Deep
from trimtab.registry import families, readouts
from trimtab.seeding import torch_seed
from trimtab.tasks.reading import Places
from trimtab.text_encoder import TextEncoder
from trimtab.training.encoder_pack import HEAD, EncoderPack
from trimtab.training.encoders import build_encoder
from trimtab.training.judging import dev_metrics
from trimtab.training.loop import Loop, Member
from trimtab.training.objective import Part
from trimtab.training.optimization import schedule_factor
from trimtab.training.preparing import Prepared, build_head, open_backbone, prepare
from trimtab.training.records import environment
from trimtab.types import Batch, Encoded, Row

# Families ------------------------------------------------------------------------------------------------------------

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
GROUPED = SMALL | {"num_key_value_heads": 1, "head_dim": 16}
WINDOW = 8
"""Of sliding attention: less than the prefix and the text."""
HALVES = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": WINDOW}
DISTIL = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}
RELATIVE = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False}
BART = {
    "d_model": 32, "encoder_layers": 4, "decoder_layers": 4, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "decoder_start_token_id": 2,
}  # fmt: skip
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", SMALL),
    "roberta": ("Roberta", SMALL | {"max_position_embeddings": 66, "type_vocab_size": 1}),
    "albert": ("Albert", SMALL | {"embedding_size": 24}),
    "electra": ("Electra", SMALL | {"embedding_size": 16}),
    "distilbert": ("DistilBert", DISTIL),
    "modernbert": ("ModernBert", SMALL | {"layer_types": HALVES["layer_types"], "local_attention": WINDOW}),
    "deberta-v2": ("DebertaV2", SMALL | RELATIVE | {"pooler_hidden_size": 32}),
}
CAUSAL: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", {"n_embd": 32, "n_layer": 2, "n_head": 2}),
    "gpt_neox": ("GPTNeoX", SMALL),
    "opt": (
        "OPT",
        {k: v for k, v in SMALL.items() if k != "intermediate_size"} | {"ffn_dim": 64, "word_embed_proj_dim": 32},
    ),
    "llama": ("Llama", GROUPED),
    "mistral": ("Mistral", GROUPED | {"sliding_window": WINDOW}),
    "qwen2": ("Qwen2", GROUPED),
    "qwen3": ("Qwen3", GROUPED),
    "gemma": ("Gemma", GROUPED),
    "gemma2": ("Gemma2", GROUPED | HALVES),
    "gemma3_text": ("Gemma3Text", GROUPED | HALVES),
}
SEQ2SEQ: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": ("T5", {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 4, "num_heads": 2, "decoder_start_token_id": 0}),
    "bart": ("Bart", BART),
}
FAMILIES = ENCODERS | CAUSAL | SEQ2SEQ
CLASSES = {
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
}
TEXT, PREFIX, VOCABULARY = 12, 4, 64
SAME = 1e-4
"""Relative differences below it are rounding."""


def tasks_of(name: str) -> tuple[str, ...]:
    """PEFT's task types for a family, the one that is looked into first."""
    if name in ENCODERS:
        return ("TOKEN_CLS", "SEQ_CLS")
    return ("CAUSAL_LM",) if name in CAUSAL else ("SEQ_2_SEQ_LM",)


def family_of(name: str) -> Family:
    return families.build({"kind": name})


def network(name: str, auto_class: str) -> Any:
    """A random model of a family without dropout; what is below its head is the same in every class."""
    kind, sizes = FAMILIES[name]
    special = dict.fromkeys(("cls_token_id", "sep_token_id"), 1) if kind == "ModernBert" else {}
    config = getattr(transformers, f"{kind}Config")(
        **{"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, **special, **sizes}
    )
    without_dropout(config)
    attention = "sdpa" if family_of(name).fused_attention else "eager"
    torch.manual_seed(0)
    model = getattr(transformers, auto_class).from_config(config, attn_implementation=attention)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # livelier than at their usual scale, and alike in every class
        for path, parameter in sorted(model.base_model.named_parameters()):
            if parameter.dim() > 1 and "pooler" not in path:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def without_dropout(config: Any) -> None:
    for key, value in config.to_dict().items():
        if "drop" in key and isinstance(value, float):
            setattr(config, key, 0.0)


def texts(name: str, lengths: Sequence[int]) -> list[Row]:
    """Rows of random tokens that are read everywhere; the decoders of an encoder-decoder are equally long."""
    generator = torch.Generator().manual_seed(2)
    rows = []
    for length in lengths:
        ids = tuple(torch.randint(3, VOCABULARY, (length,), generator=generator).tolist())
        decoder = tuple(torch.randint(3, VOCABULARY, (TEXT,), generator=generator).tolist()) if name in SEQ2SEQ else ()
        rows.append(Row(Encoded(ids, (), tuple(range(len(decoder or ids))), decoder=decoder), prompt=0))
    return rows


def probe(hidden: Tensor) -> Tensor:
    """A loss that depends on every number."""
    weights = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(3))
    return (hidden * weights).sum()


class PeftProbe:
    """A tiny model in PEFT's wrapper, and the last hidden states that it computes."""

    def __init__(self, name: str, task: str, recomputed: bool = False) -> None:
        """`recomputed`: gradient checkpointing is on before the model is wrapped."""
        self.name, self.task = name, task
        self.base = network(name, CLASSES[task])
        if recomputed:
            self.base.gradient_checkpointing_enable()
        self.model = self._wrapped()
        inner = self.base.base_model if name in ENCODERS else self.base.get_decoder()
        inner.register_forward_hook(self._keep)
        self.rows = self.model.prompt_encoder["default"].embedding.weight
        with torch.no_grad():
            self.rows.copy_(torch.randn(self.rows.shape, generator=torch.Generator().manual_seed(4)))

    def _wrapped(self) -> Any:
        from peft import PrefixTuningConfig, get_peft_model

        config = partial(PrefixTuningConfig, task_type=self.task, num_virtual_tokens=PREFIX)
        try:
            return get_peft_model(self.base, config())
        except ValueError as error:
            if "token_dim" not in str(error):  # it does not know how this family calls its sizes
                raise
        (site,) = family_of(self.name).sites(self.base.config).values()
        sizes = {"num_layers": site.layers, "num_attention_heads": site.heads, "token_dim": site.heads * site.size}
        return get_peft_model(self.base, config(**sizes))

    def _keep(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._hidden = output.last_hidden_state if hasattr(output, "last_hidden_state") else output[0]

    def step(self) -> None:
        """Forward with labels, and backward."""
        batch = collate(texts(self.name, [TEXT, TEXT]), 0)
        read = batch.ids if batch.decoder_ids is None else batch.decoder_ids
        labels = torch.tensor([0, 1]) if self.task == "SEQ_CLS" else read % 2 if self.task == "TOKEN_CLS" else read
        self.model(**self._inputs(batch), labels=labels).loss.backward()
        self.rows.grad = None

    def hidden(self, batch: Batch, positions: Tensor | None = None) -> Tensor:
        self.model(**self._inputs(batch), **({} if positions is None else {"position_ids": positions}))
        return self._hidden.gather(1, batch.answer_at[..., None].expand(-1, -1, self._hidden.shape[-1]))

    def _inputs(self, batch: Batch) -> dict[str, Tensor]:
        decoder = {} if batch.decoder_ids is None else {"decoder_input_ids": batch.decoder_ids}
        return {"input_ids": batch.ids, "attention_mask": batch.attention_mask, **decoder}

    def gradient(self) -> Tensor:
        """Of the probe, [P,2L,KD]; zero where none arrives."""
        loss = probe(self.hidden(collate(texts(self.name, [TEXT, TEXT]), 0)))
        if loss.requires_grad:
            loss.backward()
        found = torch.zeros_like(self.rows) if self.rows.grad is None else self.rows.grad.clone()
        self.rows.grad = None
        return found.view(PREFIX, 2 * self.model.peft_config["default"].num_layers, -1)

    @torch.no_grad()
    def keys_values(self) -> Tensor:
        """What PEFT puts before the keys and values of each layer, [L,2,P,K,D]."""
        cache = self.model.get_prompt(1, max_cache_len=PREFIX + TEXT)
        layers = getattr(cache, "self_attention_cache", cache).layers
        return torch.stack([torch.stack([layer.keys[0], layer.values[0]]) for layer in layers]).transpose(2, 3)


def peft_findings(name: str) -> dict[str, Any]:
    """What works in PEFT; `error` where nothing does."""
    found: dict[str, Any] = {"tasks": {}}
    for task in tasks_of(name):
        found["tasks"][task] = attempt(lambda task=task: PeftProbe(name, task).step())
    task = tasks_of(name)[0]
    if found["tasks"][task] != "works":
        return found
    own = PeftProbe(name, task)
    gradient = own.gradient()
    reached = gradient.norm(dim=(0, 2)) > 0
    found["layers"] = [int(reached.view(-1, 2).all(1).sum()), len(reached) // 2]
    kv = own.keys_values()
    found["different"] = len({tuple(layer.flatten().tolist()) for layer in kv})
    found["recomputed_before"] = attempt(lambda: PeftProbe(name, task, recomputed=True).step())
    found["recomputed_after"] = attempt(lambda: recomputed_after(name, task, gradient))
    found["padding"] = {"mask": padding(name, own.hidden)}
    if "position_ids" in inspect.signature(own.base.forward).parameters:
        family = family_of(name)
        found["padding"]["positions"] = padding(name, lambda b: own.hidden(b, family.positions(own.base, b)))
    return found


def recomputed_after(name: str, task: str, gradient: Tensor) -> str:
    """Gradient checkpointing that is turned on once the model is wrapped, and the gradient with it."""
    other = PeftProbe(name, task)
    other.base.gradient_checkpointing_enable()
    other.model.train()
    found = other.gradient()
    if float(found.norm()) == 0:
        return "no gradient"
    apart = difference(found, gradient)
    return "same" if apart < SAME else f"differs by {apart:.1e}"


def attempt(work: Callable[[], str | None]) -> str:
    """What it says, `works` if that is nothing; the first line of its error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return work() or "works"
    except Exception as error:  # whatever it is, it is the finding
        return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"


@torch.no_grad()
def padding(name: str, hidden: Callable[[Batch], Tensor]) -> float:
    """How far a row that is padded on the left is from the same row alone."""
    short, long = texts(name, [TEXT - 4, TEXT])
    alone, padded = hidden(collate([short], 0))[0], hidden(collate([short, long], 0, "left"))[0]
    return difference(padded[: len(alone)], alone)


class TrimtabProbe:
    """The same model with deep prompts."""

    def __init__(self, name: str, **options: Any) -> None:
        self.name, family = name, family_of(name)
        words = Tokenizer(models.WordLevel({"<pad>": 0, "a": 1}, unk_token="a"))
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="a", pad_token="<pad>")
        model = network(name, family.auto_class).requires_grad_(False)
        family.adopt(model, "sdpa" if family.fused_attention else "eager")
        self.backbone = Backbone(name, model, family, TextEncoder(tokenizer), "", "")
        context = PromptContext(
            self.backbone.embedding_weight, 1.0, (), (), lambda text: [], torch.Generator().manual_seed(4),
            hidden_size=self.backbone.hidden_size, sites=lambda: self.backbone.sites,
            takes_positions=family.takes_positions,
        )  # fmt: skip
        encoder = Deep(context, length=PREFIX, **options)
        parts = {n: value.detach()[None] for n, value in encoder.parts().items()}
        self.table = table_of(parts, encoder.layers, encoder.text_shift)

    def hidden(self, batch: Batch, table: PromptTable | None = None) -> Tensor:
        table = table or self.table
        family, model, batch = self.backbone.family, self.backbone.model, shift_positions(batch, table)
        read = family.embed(model, batch.ids)
        found = family.hidden(model, batch, read, attention=prefix_attention(table, batch))
        return found.gather(1, batch.answer_at[..., None].expand(-1, -1, found.shape[-1]))

    def gradient(self) -> dict[str, Tensor]:
        """Of the probe by site, [N,2,P,K,D]."""
        leaf = self.table.detached()
        probe(self.hidden(collate(texts(self.name, [TEXT, TEXT]), 0), leaf)).backward()
        return {n: d.keys_values.grad[0] for n, d in leaf.deep.items() if d.keys_values.grad is not None}


def trimtab_findings(name: str) -> dict[str, Any]:
    found: dict[str, Any] = {"works": attempt(lambda: TrimtabProbe(name).gradient() and None)}
    if found["works"] != "works":
        return found
    own = TrimtabProbe(name)
    gradient = own.gradient()
    reached = torch.cat([(g.flatten(2).norm(dim=2) > 0).all(1) for g in gradient.values()])
    found["layers"] = [int(reached.sum()), sum(site.layers for n, site in own.backbone.sites.items() if n != "cross")]
    found["recomputed"] = attempt(lambda: recomputed_gradient(own, gradient))
    sided = "left" in own.backbone.family.padding_sides
    found["padding"] = padding(name, own.hidden) if sided else None
    return found


def recomputed_gradient(own: TrimtabProbe, gradient: Mapping[str, Tensor]) -> str:
    check_recomputing(own.backbone.model)
    with recomputing(own.backbone.model):
        again = own.gradient()
    apart = max(difference(again[n], g) for n, g in gradient.items())
    return "same" if apart == 0 else f"differs by {apart:.1e}"


@torch.no_grad()
def agreement(name: str) -> dict[str, float]:
    """How far apart the hidden states are that the libraries make of the same keys and values, of all the text and of
    its first token; the text stands behind the prompt where a family counts positions.
    """
    theirs = PeftProbe(name, tasks_of(name)[0])
    site = "decoder" if name in SEQ2SEQ else "self"
    ours = TrimtabProbe(name, sites=[site], shift_positions=family_of(name).takes_positions)
    table = ours.table.with_tensors({**ours.table.tensors, f"deep.{site}": theirs.keys_values()[None]})
    batch = collate(texts(name, [TEXT, TEXT]), 0)
    a, b = ours.hidden(batch, table), theirs.hidden(batch)
    return {"all": difference(a, b), "first": difference(a[:, 0], b[:, 0])}


def run_families(a: argparse.Namespace) -> dict[str, Any]:
    rows = {}
    for name in a.families:
        peft, ours = peft_findings(name), trimtab_findings(name)
        both = "layers" in peft and "layers" in ours
        rows[name] = {"peft": peft, "trimtab": ours, "agreement": agreement(name) if both else None}
        print(name, json.dumps(rows[name]), flush=True)
    return {"sizes": {"text": TEXT, "prefix": PREFIX, "layers": 2, "window": WINDOW}, "families": rows}


def families_page(outcome: Mapping[str, Any]) -> list[str]:
    """The markdown page of `families`."""
    lines = [
        "# Prefix tuning by family: PEFT and trimtab",
        "",
        "Tiny random models of 2 layers (encoder-decoders: 4 and 4), float32, no dropout; text of {text} tokens, "
        "prefix of {prefix}, sliding windows of {window}.".format(**outcome["sizes"]),
        "",
        "* *PEFT*: the task types whose forward and backward pass work.",
        "* *layers*: layers whose own numbers, for keys and values, get a gradient; trimtab's are those of encoder and "
        "decoder. PEFT has a prefix in the decoder only; *n different*: so many of its layers have one of their own.",
        "* *recomputed*: the gradient when layers are recomputed in the backward pass (gradient checkpointing). PEFT: "
        "turned on before the model is wrapped / after that.",
        "* *left padding*: a row padded on the left against the row alone; the relative difference of hidden states, "
        f"or same (below {SAME:g}). PEFT: called with a mask only / with positions besides, where the model takes any. "
        "With a mask only, transformers counts pads as positions in most families. trimtab always gives positions.",
        "* *same numbers*: hidden states of both libraries from the same keys and values, the text behind the prompt "
        "where positions can be given; all tokens / the first token. In PEFT a prefix is part of the sequence: it "
        "leaves a sliding window, has relative positions in T5 and moves the text of BART's decoder on; trimtab's is "
        "seen by every token.",
        "",
        "| family | PEFT | layers | recomputed | left padding | trimtab | layers | recomputed | left padding "
        "| same numbers |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    errors: list[str] = []
    for name, row in outcome["families"].items():
        peft, ours = row["peft"], row["trimtab"]
        works = [t for t, said in peft["tasks"].items() if said == "works"]
        cells = [name, ", ".join(works) or f"no {noted(next(iter(peft['tasks'].values())), errors)}"]
        if "layers" in peft:
            alike = "" if peft["different"] == peft["layers"][1] else f", {peft['different']} different"
            before, after = (noted(peft[f"recomputed_{when}"], errors) for when in ("before", "after"))
            padded = [same(value) for value in peft["padding"].values()]
            cells += ["{} of {}".format(*peft["layers"]) + alike, f"{before} / {after}", " / ".join(padded)]
        else:
            cells += ["-"] * 3
        if "layers" in ours:
            padded = ["refused"] if ours["padding"] is None else [same(ours["padding"])]
            cells += ["works", "{} of {}".format(*ours["layers"]), noted(ours["recomputed"], errors), *padded]
        else:
            cells += [f"no {noted(ours['works'], errors)}", *["-"] * 3]
        both = row["agreement"]
        cells.append("-" if both is None else f"{same(both['all'])} / {same(both['first'])}")
        lines.append(f"| {' | '.join(cells)} |")
    numbered = (f"{i}. {text}" for i, text in enumerate(errors, 1))
    return [*lines, "", *numbered, "", *footer(outcome["command"], outcome["environment"])]


def noted(said: str, errors: list[str]) -> str:
    """A finding, or for an error the number of its note."""
    if not (": " in said and said.split(": ")[0].endswith(("Error", "Exception"))):
        return said
    if said not in errors:
        errors.append(said)
    return f"({errors.index(said) + 1})"


def same(apart: float) -> str:
    return "same" if apart < SAME else f"{apart:.1e}"


# WNUT-17 -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Arm:
    """One way to train. `moved`: the text stands at the positions behind the prompt, as always in PEFT."""

    library: str
    projected: bool = False
    moved: bool = True

    def __str__(self) -> str:
        parts = [self.library]
        parts += ["projected"] if self.projected else []
        parts += ["text moved"] if self.library == "trimtab" and self.moved else []
        return ", ".join(parts)


ARMS = [
    Arm("PEFT"), Arm("trimtab"), Arm("trimtab", moved=False),
    Arm("PEFT", projected=True), Arm("trimtab", projected=True), Arm("trimtab", projected=True, moved=False),
]  # fmt: skip
"""Each is held against PEFT's with the same projection."""


def base_of(arm: Arm) -> Arm:
    return Arm("PEFT", arm.projected)


def prepared(a: argparse.Namespace, arm: Arm, seed: int, rate: float, backbone: Backbone | None = None) -> Prepared:
    """The run that trimtab would do; PEFT's arms take all but the prompt from it."""
    recipe = {
        "seed": seed,
        "backbone": {"model": a.backbone, "dtype": "float32"},
        "task": a.task,
        "readout": {"kind": "tokens"},
        "prompt": {
            "kind": "deep", "length": a.length, "shift_positions": arm.moved,
            "reparameterization": "mlp" if arm.projected else "none",
            **({"width": a.width} if arm.projected else {}),
        },
        "training": {"learning_rate": rate, "max_steps": a.steps, "min_steps": a.steps, "evaluations": a.evaluations},
    }  # fmt: skip
    config = resolve(recipe, a.overrides).config
    return prepare(config, backbone or open_backbone(config.backbone, "cpu"), Places(a.data_dir))


class Training:
    """What both trainings have: rows, batches, and the metric."""

    def __init__(self, p: Prepared) -> None:
        rows = {s: [replace(row, prompt=0) for row in its] for s, its in p.rows.items()}
        self.p, self.test = p, rows["test"]
        self.classes = p.task.verbalizer.classes
        readout = readouts.build(p.config.readout, p.backbone, [p.rendering.plan(p.backbone.encoder)])
        self.model = PromptedModel(p.backbone, readout)
        self.member = Member(p.config.seeds, p.config.training, rows["train"], rows["dev"], (), p.rendering.grader)
        self.stream = self.member.batches()

    def step(self) -> None:
        raise NotImplementedError

    def scores(self, rows: Sequence[Row]) -> Tensor:
        """Of the words of rows, on the CPU."""
        raise NotImplementedError

    @property
    def parameters(self) -> dict[str, Tensor]:
        """What is trained, by trimtab's names and in its shapes; copies."""
        raise NotImplementedError

    def gradients(self) -> dict[str, Tensor]:
        """Of the first batch's mean loss."""
        raise NotImplementedError

    def judge(self, rows: Sequence[Row]) -> dict[str, float]:
        with torch.no_grad():
            return dev_metrics(self.model, self.scores(rows), rows, None, self.member.grader)


def unadapted(p: Prepared, classes: int) -> Any:
    """A token classifier without dropout around the weights of a backbone, which the two share."""
    config = copy.deepcopy(p.backbone.model.config)
    config.num_labels = classes
    without_dropout(config)
    kind = "sdpa" if p.backbone.family.fused_attention else "eager"
    model = transformers.AutoModelForTokenClassification.from_config(config, attn_implementation=kind)
    weights = p.backbone.model.base_model.state_dict()
    absent = model.base_model.load_state_dict(weights, strict=False, assign=True).missing_keys
    assert not absent, f"the backbone lacks {absent}"
    return model


def named(named_values: Mapping[str, Tensor], arm: Arm, p: Prepared) -> dict[str, Tensor]:
    """PEFT's parameters, or their gradients, by trimtab's names and in its shapes."""
    found = dict(named_values)
    rows = found.pop("embedding.weight")
    if arm.projected:
        return {"rows.raw": rows, **{n.replace("transform", "network"): v for n, v in found.items()}}
    (site,) = p.backbone.sites.values()
    laid_out = rows.view(len(rows), site.layers, 2, site.heads, site.size).permute(1, 2, 0, 3, 4)
    return {"rows.self": laid_out, **found}


class PeftTagging(Training):
    """PEFT's token classification with prefix tuning, in an ordinary loop."""

    def __init__(self, p: Prepared, arm: Arm, copied: bool) -> None:
        from peft import PrefixTuningConfig, get_peft_model

        super().__init__(p)
        self.arm = arm
        training = p.config.training
        base = unadapted(p, len(self.classes))
        width = {"encoder_hidden_size": p.config.prompt["width"]} if arm.projected else {}
        settings = PrefixTuningConfig(
            task_type="TOKEN_CLS",
            num_virtual_tokens=p.config.prompt["length"],
            prefix_projection=arm.projected,
            **width,
        )
        torch.manual_seed(torch_seed(p.config.seeds.init, "init:peft"))
        self.peft = get_peft_model(base, settings).train()
        self.encoder = self.peft.prompt_encoder["default"]
        self.own = dict(self.encoder.named_parameters())
        for name, value in base.classifier.named_parameters():
            if value.requires_grad:
                self.own[HEAD + name.split(".")[-1]] = value
        self._set(build_head(p), copied)
        self.trained = list(self.own.values())
        self.optimizer = torch.optim.AdamW(
            self.trained, lr=1.0, betas=(training.beta1, training.beta2), eps=training.epsilon,
            weight_decay=training.weight_decay,
        )  # fmt: skip
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._rate)

    @torch.no_grad()
    def _set(self, head: Mapping[str, Tensor], copied: bool) -> None:
        """The head's first values, and if wanted those of trimtab's prompt."""
        for name, value in head.items():
            self.own[HEAD + name].copy_(value)
        if copied:
            ours = dict(build_encoder(self.p.config, self.p.rendering, self.p.backbone).named_parameters())
            for name, value in self._named(self.own).items():  # views of PEFT's own
                if not name.startswith(HEAD):
                    value.copy_(ours[name])

    def _rate(self, step: int) -> float:
        t = self.p.config.training
        assert t.learning_rate is not None
        return t.learning_rate * schedule_factor(t.schedule, t.warmup, step, self.member.steps)

    def _named(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return named(values, self.arm, self.p)

    def _words(self, batch: Batch) -> Tensor:
        """Scores at the tokens that are read."""
        logits = self.peft(input_ids=batch.ids, attention_mask=batch.attention_mask).logits
        return logits.gather(1, batch.answer_at[..., None].expand(-1, -1, logits.shape[-1]))

    def _loss(self, indices: Sequence[int]) -> Tensor:
        batch = self.model.collate([self.member.train[i] for i in indices])
        return self.model.readout.loss(self._words(batch), batch.labels).mean()

    def step(self) -> None:
        self._loss(next(self.stream)).backward()
        clip = self.p.config.training.clip
        if clip > 0:
            torch.nn.utils.clip_grad_norm_(self.trained, clip)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()

    def gradients(self) -> dict[str, Tensor]:
        self._loss(next(self.member.batches())).backward()
        found = {name: value.grad.clone() for name, value in self.own.items() if value.grad is not None}
        self.optimizer.zero_grad()
        return self._named(found)

    @property
    def parameters(self) -> dict[str, Tensor]:
        return self._named({name: value.detach().clone() for name, value in self.own.items()})

    @torch.no_grad()
    def scores(self, rows: Sequence[Row]) -> Tensor:
        found: dict[int, Tensor] = {}
        for group in micro_batches([r.cost for r in rows], self.p.config.training.max_tokens):
            found |= zip(group, self._words(self.model.collate([rows[i] for i in group])), strict=True)
        return stacked([found[i] for i in range(len(rows))])

    def run(self) -> dict[str, Any]:
        """Train, and keep the best checkpoint on dev."""
        select = self.p.config.training.select
        best: dict[str, Any] = {}
        for step in range(self.member.steps + 1):
            if step:
                self.step()
            if step in {0, *self.member.evaluation_steps}:
                dev = self.judge(self.member.dev)
                if not best or (dev[select], -dev["loss"]) > (best["dev"][select], -best["dev"]["loss"]):
                    best = {"dev": dev, "step": step, "state": [v.detach().clone() for v in self.trained]}
        with torch.no_grad():
            for value, kept in zip(self.trained, best.pop("state"), strict=True):
                value.copy_(kept)
        return {**best, "test": self.judge(self.test)}


class TrimtabTagging(Training):
    """trimtab's own loop."""

    def __init__(self, p: Prepared) -> None:
        super().__init__(p)
        encoder = build_encoder(p.config, p.rendering, p.backbone)
        self.pack = EncoderPack([encoder], [p.config.seeds.noise], [build_head(p)])
        self.loop = Loop(self.model, self.pack, [self.member])

    def step(self) -> None:
        self.loop._step({0: next(self.stream)})
        self.loop.steps_done += 1

    def gradients(self) -> dict[str, Tensor]:
        table = self.pack.table(training=True)
        leaf = table.detached()
        rows = [self.member.train[i] for i in next(self.member.batches())]
        self.loop.objective.backward([Part(self.model.collate(rows), torch.full((len(rows),), 1 / len(rows)))], leaf)
        self.pack.backward(table, leaf)
        found = {n: v.grad[0].clone() for n, v in self.pack.stacked.items() if v.grad is not None}
        for value in self.pack.stacked.values():
            value.grad = None
        return found

    @property
    def parameters(self) -> dict[str, Tensor]:
        return {n: v.detach()[0].clone() for n, v in self.pack.stacked.items()}

    def scores(self, rows: Sequence[Row]) -> Tensor:
        return self.model.score_rows(rows, self.pack.table(training=False), self.p.config.training.max_tokens)

    def run(self) -> dict[str, Any]:
        self.loop.run()
        return {"dev": self.member.best_dev, "step": self.member.best_step, "test": self.judge(self.test)}


def start(p: Prepared, arm: Arm, copied: bool = True) -> PeftTagging | TrimtabTagging:
    return PeftTagging(p, arm, copied) if arm.library == "PEFT" else TrimtabTagging(p)


def check_gradients(a: argparse.Namespace, backbone: Backbone, steps: int = 5) -> dict[str, dict[str, Any]]:
    """trimtab's arms against PEFT's from the same first values: the gradients of the first batch, by parameter, and
    what a few steps add to the prompt and the head.
    """
    found: dict[str, dict[str, Any]] = {}
    for arm in (x for x in ARMS if x.library == "trimtab"):
        p = prepared(a, arm, a.seeds[0], a.rates[0], backbone)
        ours, theirs = start(p, arm), start(p, base_of(arm))
        first, mine, its = theirs.parameters, ours.gradients(), theirs.gradients()
        apart: dict[str, Any] = {"first_values": max(float((ours.parameters[n] - first[n]).abs().max()) for n in first)}
        apart["gradient"] = {n: difference(mine[n], its[n]) for n in its}
        for _ in range(steps):
            ours.step()
            theirs.step()
        now, theirs_now = ours.parameters, theirs.parameters
        apart["steps"] = {n: difference(now[n] - first[n], theirs_now[n] - first[n]) for n in first}
        found[str(arm)] = apart
    return found


def train_all(a: argparse.Namespace, backbone: Backbone) -> dict[str, dict[str, Any]]:
    """Every arm with every rate and seed; the rate with the best mean dev score. What `--finished` has is not trained
    again."""
    found: dict[str, dict[str, Any]] = {}
    lines = a.finished.read_text().splitlines() if a.finished and a.finished.exists() else []
    before = {(x["arm"], x["rate"], x["seed"]): x["outcome"] for x in map(json.loads, lines)}
    for arm in (x for x in ARMS if a.trained is None or str(x) in a.trained):
        grid: dict[str, list[dict[str, Any]]] = {}
        for rate in a.rates:
            grid[f"{rate:g}"] = []
            for seed in a.seeds:
                begun = time.perf_counter()
                p = prepared(a, arm, seed, rate, backbone)
                training = start(p, arm, a.first == "copied")
                outcome = before.get((str(arm), rate, seed))
                if outcome is None:
                    outcome = {"seed": seed, **training.run(), "seconds": round(time.perf_counter() - begun, 1)}
                    if a.finished:
                        with a.finished.open("a") as file:
                            line = {"arm": str(arm), "rate": rate, "seed": seed, "outcome": outcome}
                            file.write(json.dumps(line) + "\n")
                grid[f"{rate:g}"].append(outcome)
                print(arm, rate, json.dumps(outcome), flush=True)
        select = p.config.training.select
        best = max(
            grid, key=lambda r: (mean(x["dev"][select] for x in grid[r]), -mean(x["dev"]["loss"] for x in grid[r]))
        )
        count = sum(v.numel() for v in training.parameters.values())
        found[str(arm)] = {"rate": best, "select": select, "trained": count, "grid": grid}
    return found


def time_all(a: argparse.Namespace, backbone: Backbone) -> dict[str, dict[str, Any]]:
    """Seconds per step, all arms by turn on the same batches, and the ratios to PEFT's arms."""
    trainings = [start(prepared(a, arm, a.seeds[0], a.rates[0], backbone), arm) for arm in ARMS]
    taken = list(turns(trainings, a.timed))
    found = {}
    for i, arm in enumerate(ARMS):
        base = ARMS.index(base_of(arm))
        wall = ratios([t[i][0] for t in taken], [t[base][0] for t in taken])
        processor = ratios([t[i][1] for t in taken], [t[base][1] for t in taken])
        seconds = median(t[i][0] for t in taken)
        found[str(arm)] = {"seconds": seconds, "ratio": wall, "processor_ratio": processor}
    return found


def peak_of_all(a: argparse.Namespace, argv: Sequence[str] | None) -> dict[str, dict[str, float]]:
    """Peaks by arm, each in a process of its own, and their ratios to PEFT's arms."""
    given = list(sys.argv[1:] if argv is None else argv)
    found: dict[str, dict[str, float]] = {}
    for i, arm in enumerate(ARMS):
        command = [sys.executable, __file__, *given, "--peak-of", str(i)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[str(arm)] = json.loads(done.stdout.splitlines()[-1])
    for arm in ARMS:
        mine, base = found[str(arm)], found[str(base_of(arm))]
        mine["ratio"] = mine["peak"] / base["peak"]
        mine["ratio_above_loaded"] = (mine["peak"] - mine["loaded"]) / max(base["peak"] - base["loaded"], PAGE)
    return found


def run_wnut17(a: argparse.Namespace, argv: Sequence[str] | None) -> dict[str, Any] | None:
    first = prepared(a, ARMS[0], a.seeds[0], a.rates[0])
    if a.peak_of is not None:
        arm = ARMS[a.peak_of]
        own = first if arm == ARMS[0] else prepared(a, arm, a.seeds[0], a.rates[0], first.backbone)
        print(json.dumps(peak_while_stepping(start(own, arm))))
        return None
    backbone = first.backbone
    apart = check_gradients(a, backbone)
    print(json.dumps(apart), flush=True)
    timing, memory = time_all(a, backbone), peak_of_all(a, argv)
    cost = {str(arm): {**timing[str(arm)], "memory": memory[str(arm)]} for arm in ARMS}
    settings = {
        "backbone": Path(a.backbone).name, "task": first.task.name, "length": a.length, "width": a.width,
        "steps": a.steps, "evaluations": a.evaluations, "seeds": a.seeds, "rates": a.rates, "first": a.first,
        "batch_size": first.config.training.batch_size,
        "rows": {split: len(rows) for split, rows in first.rows.items()},
    }  # fmt: skip
    return {"settings": settings, "agreement": apart, "cost": cost, "arms": train_all(a, backbone)}


def wnut17_page(outcome: Mapping[str, Any]) -> list[str]:
    """The markdown page of `wnut17`."""
    s = outcome["settings"]
    drawn = "drawn by each library" if s["first"] == "own" else "trimtab's in both libraries"
    lines = [
        f"# Prefix tuning on {s['task']}: PEFT and trimtab",
        "",
        f"Backbone `{s['backbone']}` (frozen, float32, no dropout), linear head on words, prefix of {s['length']}, "
        f"projection through {s['width']}, {s['steps']} steps of {s['batch_size']} rows; the same rows, batches, head, "
        f"loss and schedule. First prefix N(0,1), {drawn}. Checkpoint of {s['evaluations']} evaluations and rate of "
        f"{', '.join(f'{r:g}' for r in s['rates'])} chosen on dev ({s['rows']['dev']} rows), test "
        f"({s['rows']['test']} rows) used once; mean and sample standard deviation over seeds "
        f"{', '.join(map(str, s['seeds']))}. *Text moved*: to the positions behind the prefix, as PEFT always does.",
        "",
        "| arm | trained | rate | dev F1 | test F1 | each |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in outcome["arms"].items():
        runs, metric = row["grid"][row["rate"]], row["select"]
        dev, test = ([x[split][metric] for x in runs] for split in ("dev", "test"))
        each = ", ".join(f"{x:.3f}" for x in test)
        lines.append(f"| {name} | {row['trained']:,} | {row['rate']} | {spread(dev)} | {spread(test)} | {each} |")
    lines += [
        "",
        "Cost against PEFT's arm with the same projection: below 1 is faster or smaller. Time: median and quartiles "
        "over turns in one process; processor: the same in processor time. Memory: highest resident size of a process "
        "of its own, and how much of it is above the loaded model.",
        "",
        "| arm | s/step | time | processor | peak MiB | peak | above the model |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in outcome["cost"].items():
        wall, memory = row["ratio"], row["memory"]
        lines.append(
            f"| {name} | {row['seconds']:.3f} | {wall['median']:.2f} ({wall['low']:.2f} to {wall['high']:.2f}) "
            f"| {row['processor_ratio']['median']:.2f} | {memory['peak']:.0f} | {memory['ratio']:.2f} "
            f"| {memory['ratio_above_loaded']:.2f} |"
        )
    lines += ["", "Relative differences from PEFT's arm, from the same first values:", ""]
    for name, row in outcome["agreement"].items():
        gradient, steps = (", ".join(f"`{n}` {v:.1e}" for n, v in row[k].items()) for k in ("gradient", "steps"))
        lines.append(f"* {name}: first gradient of {gradient}; what five steps added to {steps}")
    return [*lines, "", *footer(outcome["command"], outcome["environment"])]


def spread(values: Sequence[float]) -> str:
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


# Command line --------------------------------------------------------------------------------------------------------


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    halves = parser.add_subparsers(dest="half", required=True)
    table, study = halves.add_parser("families"), halves.add_parser("wnut17")
    table.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    study.add_argument("--backbone", default="nano-masked")
    study.add_argument("--data-dir", type=Path)
    study.add_argument("--task", type=json.loads, default={"kind": "wnut17"}, help="the task section of a recipe, JSON")
    study.add_argument("--length", type=int, default=20, help="virtual tokens")
    study.add_argument("--width", type=int, default=512, help="hidden width of the projection")
    study.add_argument("--steps", type=int, default=300)
    study.add_argument("--evaluations", type=int, default=6)
    study.add_argument("--rates", nargs="+", type=float, default=[1e-2, 3e-2])
    study.add_argument("--seeds", nargs="+", type=int, default=[13, 21, 42])
    study.add_argument("--first", choices=["own", "copied"], default="own", help="PEFT's first prefix")
    study.add_argument("--timed", type=int, default=20, help="timed steps of each arm")
    study.add_argument("--trained", nargs="+", choices=[str(arm) for arm in ARMS], help="arms; by default all")
    study.add_argument("--finished", type=Path, help="a file of runs that have ended, to go on after an interruption")
    study.add_argument("--peak-of", type=int, help=argparse.SUPPRESS)
    study.add_argument("--overrides", nargs="+", default=[], help="key=value for every run")
    for half in (table, study):
        common_options(half)
    a = parser.parse_args(argv)
    at_least_one(parser, a, "length", "width", "steps", "evaluations", "timed", "threads")
    needs_peft(parser)
    return a


def main(argv: Sequence[str] | None = None) -> None:
    a = parse(argv)
    torch.set_num_threads(a.threads)
    found = run_families(a) if a.half == "families" else run_wnut17(a, argv)
    if found is None:
        return
    outcome = {"command": command_line(__file__, argv), "environment": versions(), **found}
    publish(a.out, outcome, (families_page if a.half == "families" else wnut17_page)(outcome))


def versions() -> dict[str, Any]:
    found = {k: v for k, v in environment(TrimtabProbe("bert").backbone).items() if k != "dtype"}
    return machine(found, "peft")


if __name__ == "__main__":
    main()
