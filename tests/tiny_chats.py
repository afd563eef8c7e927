"""Tiny tokenizers with a chat template, after those of published models; vocabularies as in `tiny_families`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.contract.tiny_families import GROUPED, build, byte_level, save, sentencepiece_bpe, unigram
from tests.tiny import tiny_tokenizer

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
"""Qwen's form; `<think>` is an added token that is not special."""

INST = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'user' %}{% if loop.previtem and loop.previtem.role == 'user' %}"
    "{{ raise_exception('Roles must\nalternate.') }}{% endif %}"
    "[INST] {{ m.content | trim }} [/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content | trim }} {{ eos_token }}{% endif %}{% endfor %}"
)
"""Llama 2's form, which drops system messages here; the answer is set off by a space. It trims contents."""

ROLES = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
"""Phi-3's form: its special tokens swallow the white space behind them."""

CHARACTERS = [*"()[]/INSTL\n{}<|>_"]
ROLE_NAMES = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]


def special(tokenizer: Any, tokens: list[str], template: str, **options: bool) -> Any:
    """Add special tokens and the chat template."""
    tokenizer.add_tokens([AddedToken(t, special=True, normalized=False, **options) for t in tokens])
    tokenizer.chat_template = template
    return tokenizer


def chatml() -> Any:
    tokenizer = byte_level("Qwen2Tokenizer", [], ["<|endoftext|>"])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in ("<think>", "</think>")])
    return special(tokenizer, ["<|im_start|>", "<|im_end|>"], CHATML)


def inst() -> Any:
    specials = ["<unk>", "<s>", "</s>", *CHARACTERS]
    return special(sentencepiece_bpe("LlamaTokenizer", specials, add_bos_token=True), [], INST)


def roles() -> Any:
    specials = ["<unk>", "<s>", "</s>", *CHARACTERS]
    return special(sentencepiece_bpe("LlamaTokenizer", specials, add_bos_token=True), ROLE_NAMES, ROLES, rstrip=True)


def roles_legacy() -> Any:
    """A space before the first word after every special token, as transformers reads Llama's older files."""
    tokenizer = roles()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    return tokenizer


def roles_prepend() -> Any:
    """The same as other libraries read them: even before a space."""
    backend = roles().backend_tokenizer
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.pre_tokenizer = None
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    tokenizer.chat_template = ROLES
    return tokenizer


def t5() -> Any:
    tokenizer = unigram("T5Tokenizer", ["<pad>", "</s>", "<unk>"], extra_ids=4)
    return special(tokenizer, ["<|im_start|>", "<|im_end|>"], CHATML)


def bert() -> Any:
    return special(tiny_tokenizer(), ["<|im_start|>", "<|im_end|>"], CHATML)


TOKENIZERS: dict[str, Callable[[], Any]] = {
    "chatml": chatml,
    "inst": inst,
    "roles": roles,
    "roles-legacy": roles_legacy,
    "roles-prepend": roles_prepend,
    "t5": t5,
    "bert": bert,
}


def save_tiny_chat_model(folder: Path, tokenizer: Any) -> Path:
    """A random Llama of two layers with a tokenizer of this file."""
    return save(folder, build("Llama", tokenizer, "ForCausalLM", **GROUPED), tokenizer)
