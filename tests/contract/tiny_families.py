"""A tiny random model of every family on disk, with a tokenizer of the kind and class that its checkpoints have.

Every weight is drawn, LayerNorms and biases too: at their usual 1 and 0, forgetting one would not show. Some random
models are deaf to the toy's words, so each has a seed with which a prompt can learn.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, pre_tokenizers
from torch import nn

from tests.tiny import LETTERS, WORDS, tiny_bert, tiny_tokenizer

POSITIONS = 64
"""Longest sequence of every tiny model."""

LAYERS = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
}


# Tokenizers ----------------------------------------------------------------------------------------------------------


def byte_level(kind: str, specials: list[str], at_the_end: list[str], **options: Any) -> Any:
    """Byte-level BPE: " good" is one piece, "good" is four; special tokens lie where the real ones do."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [(f"Ġ{word[:i]}", word[i]) for word in WORDS for i in range(len(word))]
    merges = [pair for pair in dict.fromkeys(merges) if all(c in alphabet for c in "".join(pair))]
    tokens = dict.fromkeys([*specials, *alphabet, *("".join(pair) for pair in merges), *at_the_end])
    table = {token: i for i, token in enumerate(tokens)}
    return getattr(transformers, kind)(vocab=table, merges=merges, model_max_length=POSITIONS, **options)


def unigram(kind: str, specials: list[str], at_the_end: list[str] | None = None, **options: Any) -> Any:
    """A SentencePiece vocabulary: "▁good" is one piece with or without a space before it."""
    words = [(f"▁{word}", -1.0) for word in WORDS]
    letters = [(letter, -9.0) for letter in (*LETTERS, *".,?!:'-", "▁")]
    vocabulary = [*((s, 0.0) for s in specials), *words, *letters, *((s, 0.0) for s in at_the_end or ())]
    return getattr(transformers, kind)(vocab=vocabulary, model_max_length=POSITIONS, **options)


def roberta_tokenizer() -> Any:
    """`<mask>` swallows the space before it, as in the published tokenizer."""
    mask = AddedToken("<mask>", lstrip=True, special=True)
    return byte_level("RobertaTokenizer", ["<s>", "<pad>", "</s>", "<unk>"], ["<mask>"], mask_token=mask)


def modernbert_tokenizer() -> Any:
    """Special tokens behind all others, the pad among them."""
    specials = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    like = byte_level("DebertaTokenizer", [], specials)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=like.backend_tokenizer,
        unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", mask_token="[MASK]",
        model_max_length=POSITIONS,
    )  # fmt: skip


# Models --------------------------------------------------------------------------------------------------------------


def drawn(model: nn.Module, seed: int = 0) -> Any:
    """Draw what initialization leaves constant: gains around 1, biases around 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def save(folder: Path, model: Any, tokenizer: Any) -> Path:
    """Write both, as `from_pretrained` wants them."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def build(name: str, tokenizer: Any, head: str = "ForMaskedLM", seed: int = 0, **options: Any) -> Any:
    """A random model of the transformers class `name`, its special ids those of the tokenizer."""
    kind = "Gemma3Text" if name == "Gemma3" else name
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=len(tokenizer),
        initializer_range=0.3,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **{"max_position_embeddings": POSITIONS, **options},
    )
    torch.manual_seed(seed)
    return drawn(getattr(transformers, name + head)(config), seed)


# Encoders ------------------------------------------------------------------------------------------------------------


def bert(folder: Path) -> Path:
    return save(folder, drawn(tiny_bert()), tiny_tokenizer())


def roberta(folder: Path, seed: int = 2) -> Path:
    """RoBERTa's positions start behind the pad's, so it has two more than can be used."""
    tokenizer = roberta_tokenizer()
    model = build("Roberta", tokenizer, seed=seed, **LAYERS, max_position_embeddings=POSITIONS + 2, type_vocab_size=1)
    return save(folder, model, tokenizer)


def xlm_roberta(folder: Path) -> Path:
    tokenizer = unigram("XLMRobertaTokenizer", ["<s>", "<pad>", "</s>", "<unk>"], ["<mask>"])
    model = build("XLMRoberta", tokenizer, seed=1, **LAYERS, max_position_embeddings=POSITIONS + 2, type_vocab_size=1)
    return save(folder, model, tokenizer)


def camembert(folder: Path) -> Path:
    specials = ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>"]
    tokenizer = unigram("CamembertTokenizer", specials, ["<mask>"])
    model = build("Camembert", tokenizer, seed=2, **LAYERS, max_position_embeddings=POSITIONS + 2, type_vocab_size=1)
    return save(folder, model, tokenizer)


def albert(folder: Path) -> Path:
    """E = 24, H = 32."""
    tokenizer = unigram("AlbertTokenizer", ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"])
    return save(folder, build("Albert", tokenizer, seed=3, **LAYERS, embedding_size=24), tokenizer)


def electra(folder: Path, head: str = "ForMaskedLM", seed: int = 5, embedding_size: int = 16) -> Path:
    """E = 16, H = 32. `ForPreTraining` makes a discriminator."""
    tokenizer = tiny_tokenizer()
    return save(folder, build("Electra", tokenizer, head, seed, **LAYERS, embedding_size=embedding_size), tokenizer)


def distilbert(folder: Path) -> Path:
    sizes = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "dropout": 0.1, "attention_dropout": 0.1}
    return save(folder, build("DistilBert", tiny_tokenizer(), seed=1, **sizes), tiny_tokenizer())


def modernbert(folder: Path) -> Path:
    """One global layer, one that sees two tokens to each side: fewer than there are pads."""
    tokenizer = modernbert_tokenizer()
    sizes = {k: v for k, v in LAYERS.items() if not k.endswith("prob")}
    layers = {"global_attn_every_n_layers": 2, "local_attention": 4, "embedding_dropout": 0.1, "norm_bias": True}
    special = {"cls_token_id": tokenizer.cls_token_id, "sep_token_id": tokenizer.sep_token_id}
    return save(folder, build("ModernBert", tokenizer, **sizes, **layers, **special), tokenizer)


def deberta_v2(folder: Path, **options: Any) -> Path:
    """Relative positions in logarithmic buckets, as in v2 and v3."""
    tokenizer = unigram("DebertaV2Tokenizer", ["[PAD]", "[CLS]", "[SEP]", "[UNK]"], ["[MASK]"])
    relative = {
        "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False,
        "position_buckets": 8, "share_att_key": True, "norm_rel_ebd": "layer_norm", "pooler_hidden_size": 32,
    }  # fmt: skip
    return save(folder, build("DebertaV2", tokenizer, seed=3, **LAYERS, **relative, **options), tokenizer)


def deberta_v2_own_head(folder: Path) -> Path:
    """Microsoft's own head, and the convolution of v2-xlarge."""
    return deberta_v2(folder, legacy=False, conv_kernel_size=3, conv_act="gelu")


# Causal models -------------------------------------------------------------------------------------------------------

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
GROUPED = SMALL | {"num_key_value_heads": 1, "head_dim": 16}
"""Two query heads share one key and value head, as in most models since Llama 2."""


def sentencepiece_bpe(kind: str, specials: list[str], **options: Any) -> Any:
    """SentencePiece's BPE, as Llama and Gemma have it: "▁good" is one piece."""
    words = [f"▁{word}" for word in WORDS]
    merges = dict.fromkeys((word[:i], word[i]) for word in words for i in range(1, len(word)))
    letters = [*LETTERS, *".,?!:'-", "▁"]
    tokens = dict.fromkeys([*specials, *letters, *("".join(pair) for pair in merges)])
    table = {token: i for i, token in enumerate(tokens)}
    return getattr(transformers, kind)(vocab=table, merges=list(merges), model_max_length=POSITIONS, **options)


def gpt2(folder: Path) -> Path:
    """Tied matrices, and no pad token, no BOS before a text."""
    tokenizer = byte_level("GPT2Tokenizer", [], ["<|endoftext|>"])
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_inner": 64}
    return save(folder, build("GPT2", tokenizer, "LMHeadModel", **sizes), tokenizer)


def gpt_neox(folder: Path) -> Path:
    """Half of each head is rotated."""
    tokenizer = byte_level("GPTNeoXTokenizer", ["<|endoftext|>", "<|padding|>"], [])
    return save(folder, build("GPTNeoX", tokenizer, "ForCausalLM", **SMALL, rotary_pct=0.5), tokenizer)


def opt(folder: Path) -> Path:
    """`</s>` before a text, as in the published models; learned positions begin at 2."""
    tokenizer = byte_level(
        "GPT2Tokenizer", ["<s>", "<pad>", "</s>"], [], bos_token="</s>", eos_token="</s>", unk_token="</s>",
        pad_token="<pad>", add_bos_token=True,
    )  # fmt: skip
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 64}
    options = {"word_embed_proj_dim": 32, "init_std": 0.3}
    return save(folder, build("OPT", tokenizer, "ForCausalLM", **sizes, **options), tokenizer)


def llama(folder: Path) -> Path:
    """No pad token; matrices of their own at both ends."""
    tokenizer = sentencepiece_bpe("LlamaTokenizer", ["<unk>", "<s>", "</s>"], add_bos_token=True)
    return save(folder, build("Llama", tokenizer, "ForCausalLM", **GROUPED), tokenizer)


def mistral(folder: Path) -> Path:
    """Each token sees the 16 before it."""
    tokenizer = sentencepiece_bpe("LlamaTokenizer", ["<unk>", "<s>", "</s>"], add_bos_token=True)
    return save(folder, build("Mistral", tokenizer, "ForCausalLM", **GROUPED, sliding_window=16), tokenizer)


def qwen(folder: Path, name: str) -> Path:
    """Tied, as the small models are; no BOS."""
    tokenizer = byte_level("Qwen2Tokenizer", [], ["<|endoftext|>"])
    return save(folder, build(name, tokenizer, "ForCausalLM", **GROUPED, tie_word_embeddings=True), tokenizer)


def gemma(folder: Path, name: str, **options: Any) -> Path:
    """Tied matrices; embeddings are scaled by the root of the hidden size."""
    tokenizer = sentencepiece_bpe("GemmaTokenizer", ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"], add_bos_token=True)
    model = build(name, tokenizer, "ForCausalLM", **GROUPED, hidden_activation="gelu_pytorch_tanh", **options)
    return save(folder, model, tokenizer)


# Encoder-decoders ----------------------------------------------------------------------------------------------------


def t5(folder: Path, name: str = "T5", seed: int = 1, **options: Any) -> Path:
    """Relative positions; tied, so that hidden states are scaled before the vocabulary."""
    tokenizer = unigram("T5Tokenizer", ["<pad>", "</s>", "<unk>"], extra_ids=4)
    sizes = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
    start = {"decoder_start_token_id": 0, "n_positions": POSITIONS, "initializer_factor": 1.0}
    model = build(name, tokenizer, "ForConditionalGeneration", seed, **sizes, **start, **options)
    return save(folder, model, tokenizer)


def t5_own_head(folder: Path) -> Path:
    """T5 v1.1 and Flan-T5: gated, no scale, and a vocabulary matrix of its own."""
    return with_own_head(t5(folder, tie_word_embeddings=False, feed_forward_proj="gated-gelu"))


def mt5(folder: Path) -> Path:
    return with_own_head(t5(folder, "MT5", tie_word_embeddings=False, feed_forward_proj="gated-gelu"))


def with_own_head(folder: Path) -> Path:
    """Saving ties the matrices of T5 and says so in the config; the published checkpoints have two and say that."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    head = torch.randn(weights["shared.weight"].shape, generator=torch.Generator().manual_seed(2))
    save_file({**weights, "lm_head.weight": head}, path, metadata={"format": "pt"})
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"tie_word_embeddings": False}))
    return folder


def bart(folder: Path, name: str = "Bart", tokenizer: Any = None, **options: Any) -> Path:
    """A bias on the vocabulary that is no parameter."""
    tokenizer = tokenizer or roberta_tokenizer()
    sizes = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
             "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "init_std": 0.3}  # fmt: skip
    start = {"decoder_start_token_id": tokenizer.eos_token_id}
    model = build(name, tokenizer, "ForConditionalGeneration", **sizes, **start, **options)
    model.final_logits_bias.normal_(generator=torch.Generator().manual_seed(0))
    return save(folder, model, tokenizer)


def mbart(folder: Path) -> Path:
    """LayerNorm first, scaled embeddings; the language stands behind the text."""
    tokenizer = unigram("MBartTokenizer", ["<s>", "<pad>", "</s>", "<unk>"], ["<mask>"])
    return bart(folder, "MBart", tokenizer, scale_embedding=True)


BUILDERS: dict[str, Callable[[Path], Path]] = {
    "bert": bert,
    "roberta": roberta,
    "xlm-roberta": xlm_roberta,
    "camembert": camembert,
    "albert": albert,
    "electra": electra,
    "distilbert": distilbert,
    "modernbert": modernbert,
    "deberta-v2": deberta_v2,
    "gpt2": gpt2,
    "gpt_neox": gpt_neox,
    "opt": opt,
    "llama": llama,
    "mistral": mistral,
    "qwen2": lambda folder: qwen(folder, "Qwen2"),
    "qwen3": lambda folder: qwen(folder, "Qwen3"),
    "gemma": lambda folder: gemma(folder, "Gemma"),
    "gemma2": lambda folder: gemma(
        folder, "Gemma2", sliding_window=16, attn_logit_softcapping=2.0, final_logit_softcapping=3.0
    ),
    "gemma3_text": lambda folder: gemma(folder, "Gemma3", sliding_window=16),
    "t5": t5,
    "mt5": mt5,
    "bart": bart,
    "mbart": mbart,
}
"""model_type -> a function that writes a tiny model of that family, with its tokenizer, to a folder."""

VARIANTS: dict[str, Callable[[Path], Path]] = {
    "deberta-v2:own_head": deberta_v2_own_head,
    "electra:wide": lambda folder: electra(folder, seed=0, embedding_size=32),
    "t5:own_head": t5_own_head,
}
"""Models that differ within a family, named `family:variant`."""
