"""A tiny random model of every family, under any head that transformers has for it, and a tokenizer for it.

One vocabulary of whole words serves all; what the tokenizers put around a text is that of the published ones. Every
weight is drawn, biases and gains too: at their usual 0 and 1, forgetting one would not show.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

Kind = Literal["encoder", "causal", "seq2seq"]
PAD, BEGIN, END, UNKNOWN, MASK = "<pad>", "<s>", "</s>", "<unk>", "<mask>"
SENTINELS = ("<extra_id_0>", "<extra_id_1>", "<extra_id_2>")
WORDS = (
    "a the of and to it was is in on who what sun moon sea cat dog bird tree good great fine bad poor awful yes no not "
    "very film book song happy sad old new big small red blue green one two three four five six seven eight nine . ?"
).split()
POSITIONS = 64
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
GROUPED = SMALL | {"num_key_value_heads": 1, "head_dim": 16}
WINDOW = 64
"""Of sliding attention: no text is longer, so what a window would hide is not measured here."""
HALVES = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": WINDOW}


@dataclass(frozen=True)
class Tiny:
    """What a family's tiny model is made of.

    Attributes:
        kind: what it reads and writes.
        name: of its transformers config, without `Config`.
        around: what the tokenizer puts around a text, `$A` being the text.
        sizes: options of the config.
    """

    kind: Kind
    name: str
    around: str
    sizes: dict[str, Any] = field(default_factory=dict)


BRACKETS, BEGUN, ENDED, PLAIN = f"{BEGIN} $A {END}", f"{BEGIN} $A", f"$A {END}", "$A"
DISTIL = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}
RELATIVE = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False}
OPT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 64, "word_embed_proj_dim": 32}
T5 = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
BART = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
}  # fmt: skip
MODERN = SMALL | {"layer_types": ["sliding_attention", "full_attention"], "local_attention": WINDOW}

FAMILIES: dict[str, Tiny] = {
    "bert": Tiny("encoder", "Bert", BRACKETS, SMALL),
    "roberta": Tiny("encoder", "Roberta", BRACKETS, SMALL | {"type_vocab_size": 1}),
    "xlm-roberta": Tiny("encoder", "XLMRoberta", BRACKETS, SMALL | {"type_vocab_size": 1}),
    "camembert": Tiny("encoder", "Camembert", BRACKETS, SMALL | {"type_vocab_size": 1}),
    "albert": Tiny("encoder", "Albert", BRACKETS, SMALL | {"embedding_size": 24}),
    "electra": Tiny("encoder", "Electra", BRACKETS, SMALL | {"embedding_size": 16}),
    "distilbert": Tiny("encoder", "DistilBert", BRACKETS, DISTIL),
    "modernbert": Tiny("encoder", "ModernBert", BRACKETS, MODERN),
    "deberta-v2": Tiny("encoder", "DebertaV2", BRACKETS, SMALL | RELATIVE | {"pooler_hidden_size": 32}),
    "gpt2": Tiny("causal", "GPT2", PLAIN, {"n_embd": 32, "n_layer": 2, "n_head": 2}),
    "gpt_neox": Tiny("causal", "GPTNeoX", PLAIN, SMALL),
    "opt": Tiny("causal", "OPT", BEGUN, OPT),
    "llama": Tiny("causal", "Llama", BEGUN, GROUPED),
    "mistral": Tiny("causal", "Mistral", BEGUN, GROUPED | {"sliding_window": WINDOW}),
    "qwen2": Tiny("causal", "Qwen2", PLAIN, GROUPED),
    "qwen3": Tiny("causal", "Qwen3", PLAIN, GROUPED),
    "gemma": Tiny("causal", "Gemma", BEGUN, GROUPED),
    "gemma2": Tiny("causal", "Gemma2", BEGUN, GROUPED | HALVES),
    "gemma3_text": Tiny("causal", "Gemma3Text", BEGUN, GROUPED | HALVES),
    "t5": Tiny("seq2seq", "T5", ENDED, T5),
    "mt5": Tiny("seq2seq", "MT5", ENDED, T5 | GATED | {"d_kv": 8}),
    "bart": Tiny("seq2seq", "Bart", BRACKETS, BART),
    "mbart": Tiny("seq2seq", "MBart", BRACKETS, BART | {"scale_embedding": True}),
}
"""As trimtab names them. mT5's heads are together narrower than its hidden states, as in the small published ones."""


@cache
def tokenizer(family: str) -> PreTrainedTokenizerFast:
    """Whole words between spaces, and what belongs around a text."""
    tiny = FAMILIES[family]
    specials = [PAD, BEGIN, END, UNKNOWN, MASK, *(SENTINELS if tiny.sizes.keys() & {"d_kv"} else ())]
    table = {token: i for i, token in enumerate([*specials, *WORDS])}
    inner = Tokenizer(models.WordLevel(table, unk_token=UNKNOWN))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(
        single=tiny.around, special_tokens=[(token, table[token]) for token in (BEGIN, END)]
    )
    roles = {"pad_token": PAD, "unk_token": UNKNOWN, "eos_token": END, "model_max_length": POSITIONS}
    if tiny.kind == "encoder":
        roles |= {"cls_token": BEGIN, "sep_token": END, "mask_token": MASK}
    elif tiny.around != PLAIN:
        roles |= {"bos_token": BEGIN}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **roles)


def network(family: str, auto_class: str, seed: int = 0, **options: Any) -> Any:
    """A random model without dropout, the same for the same seed.

    Raises:
        ValueError: transformers has no such head for the family.
    """
    torch.manual_seed(seed)
    model = getattr(transformers, auto_class).from_config(config_of(family, **options))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            scale = 0.3 if parameter.dim() > 1 else 0.1
            drawn = scale * torch.randn(parameter.shape, generator=generator)
            is_gain = parameter.dim() == 1 and "norm" in name.lower() and name.endswith("weight")
            parameter.copy_(drawn + 1.0 if is_gain and float(parameter.mean()) == 1.0 else drawn)
    return model.eval()


def config_of(family: str, **options: Any) -> Any:
    """The config of a family's tiny model, with the ids of its tokenizer and without dropout."""
    tiny, words = FAMILIES[family], tokenizer(family)
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
    if tiny.kind == "seq2seq":
        ids["decoder_start_token_id"] = 0 if tiny.around == ENDED else 2
    else:
        ids["max_position_embeddings"] = POSITIONS + (2 if tiny.name.endswith(("oberta", "RoBERTa", "embert")) else 0)
    config = getattr(transformers, f"{tiny.name}Config")(vocab_size=len(words), **(ids | tiny.sizes | options))
    for key, value in config.to_dict().items():
        if "drop" in key and isinstance(value, float):
            setattr(config, key, 0.0)
    return config


def save(family: str, auto_class: str, folder: Path) -> Path:
    """Write the model and its tokenizer, as `from_pretrained` wants them."""
    network(family, auto_class).save_pretrained(folder)
    tokenizer(family).save_pretrained(folder)
    return folder
