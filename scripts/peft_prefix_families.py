"""Prefix tuning by family, PEFT and trimtab: what works, and whether it is the same.

Tiny random models. Does a step work, does a gradient reach the prefix of every layer, is it the same when layers are
recomputed in the backward pass, is a left-padded row computed as the unpadded one, and do both libraries make the same
hidden states of the same keys and values. PEFT puts a prefix into the cache that generation uses, trimtab into the
attention function.
"""

from __future__ import annotations

import argparse
import inspect
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from measuring import difference
from publishing import footer
from trimtab.backbones import Backbone
from trimtab.backbones.checkpointing import check_recomputing, recomputing
from trimtab.backbones.family import Family
from trimtab.batching import collate
from trimtab.initializers import PromptContext
from trimtab.injection import prefix_attention, shift_positions
from trimtab.prompt_table import PromptTable, table_of
from trimtab.prompts.deep import Deep
from trimtab.registry import families
from trimtab.text_encoder import TextEncoder
from trimtab.types import Batch, Encoded, Row

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
