"""Tiny models and toy data for tests, built from config in milliseconds.

`initializer_range` is 0.3: at the default 0.02 a random BERT is inert and no prompt can learn.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from trimtab.backbones import Backbone, load_backbone

WORDS = (
    "the a of and to it was is in on red blue green sun moon sea cat dog bird tree good great fine bad poor awful "
    "yes no maybe one two three four five six seven eight nine ten very not film book song happy sad old new big small "
    ". , ? ! : ' -"
).split()
PIECES = ["##s", "##ed", "##ing", "##ly", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")]
LETTERS = list("abcdefghijklmnopqrstuvwxyz")
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """An uncased WordPiece tokenizer of about 150 entries."""
    vocabulary = [*SPECIALS, *dict.fromkeys([*WORDS, *LETTERS, *PIECES])]
    table = {token: i for i, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(table, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", table["[CLS]"]), ("[SEP]", table["[SEP]"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
    )


def tiny_bert(seed: int = 0, positions: int = 64, **options: Any) -> BertForMaskedLM:
    """A random two-layer BERT, hidden 32."""
    settings = {
        "vocab_size": len(tiny_tokenizer()),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": positions,
        "initializer_range": 0.3,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        **options,
    }
    torch.manual_seed(seed)
    return BertForMaskedLM(BertConfig(**settings)).eval()


def save_tiny_model(folder: Path, seed: int = 0, **options: Any) -> Path:
    """Write a tiny model with its tokenizer, as `from_pretrained` wants it."""
    tiny_bert(seed, **options).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def tiny_backbone(folder: Path) -> Backbone:
    """Load a tiny model in float32 on the CPU."""
    return load_backbone(str(folder), dtype="float32", device="cpu")


def toy_rows(n: int, seed: int) -> list[dict[str, str]]:
    """A two-class toy: a few neutral words, then `good` or `bad`."""
    generator = torch.Generator().manual_seed(seed)

    def pick(words: Sequence[str]) -> str:
        return words[int(torch.randint(len(words), (1,), generator=generator))]

    neutral = ("film", "book", "song", "cat", "dog", "tree", "old", "new", "big", "small")
    rows = []
    for i in range(n):
        label = ("positive", "negative")[i % 2]
        length = 1 + int(torch.randint(3, (1,), generator=generator))
        words = [pick(neutral) for _ in range(length)]
        words.append("good" if label == "positive" else "bad")
        rows.append({"id": f"{seed}-{i}", "text": "the " + " ".join(words), "label": label})
    return rows


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as JSON lines."""
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def toy_task(folder: Path, n: int = 32, **options: Any) -> dict[str, Any]:
    """The `task` section of a recipe for the toy, its files written to `folder`."""
    files = {s: str(write_jsonl(folder / f"{s}.jsonl", toy_rows(n, i))) for i, s in enumerate(("train", "dev", "test"))}
    return {
        "kind": "table",
        "name": "toy",
        **files,
        "template": "{prompt} {text} {answer}.",
        "label_words": {"positive": "yes", "negative": "no"},
        **options,
    }


ANSWERS = {"positive": "yes", "negative": "not good"}
"""What is to be written in the toy, of different lengths."""


def written_task(folder: Path, n: int = 16, **options: Any) -> dict[str, Any]:
    """The `task` section of a recipe whose answers are free text: the toy's rows with a text for each class."""
    files = {}
    for i, split in enumerate(("train", "dev", "test")):
        rows = [{"id": r["id"], "text": r["text"], "answer": ANSWERS[r["label"]]} for r in toy_rows(n, i)]
        files[split] = str(write_jsonl(folder / f"{split}-written.jsonl", rows))
    return {
        "kind": "table",
        "name": "written",
        **files,
        "template": "{prompt} {text} {answer}.",
        "target": "answer",
        **options,
    }


NAMES = {"cat": "animal", "dogs": "animal", "bird": "animal", "sun": "sky", "moons": "sky"}
"""The first words of entities in the toy of tags; those with an s are two tokens."""


def tagged_rows(n: int, seed: int) -> list[dict[str, Any]]:
    """A toy of tags: a few neutral words, one or two names, and sometimes `old` behind them, which belongs to them."""
    generator = torch.Generator().manual_seed(seed)

    def draw(most: int) -> int:
        return int(torch.randint(most, (1,), generator=generator))

    neutral = ("film", "book", "song", "tree", "was", "big", "small", "filming")
    rows = []
    for i in range(n):
        words, tags = [], []
        for _ in range(1 + draw(2)):
            filling = [neutral[draw(len(neutral))] for _ in range(1 + draw(2))]
            name = list(NAMES)[draw(len(NAMES))]
            more = ["old"] * draw(2)
            words += [*filling, name, *more]
            tags += ["O"] * len(filling) + [f"B-{NAMES[name]}"] + [f"I-{NAMES[name]}"] * len(more)
        rows.append({"id": f"{seed}-{i}", "tokens": words, "tags": tags})
    return rows


def tagged_task(folder: Path, n: int = 32, **options: Any) -> dict[str, Any]:
    """The `task` section of a recipe for the toy of tags, its files written to `folder`."""
    splits = enumerate(("train", "dev", "test"))
    files = {s: str(write_jsonl(folder / f"{s}-tagged.jsonl", tagged_rows(n, i))) for i, s in splits}
    return {"kind": "tagged", "name": "names", **files, **options}


def bundle_metadata(shape: Sequence[int], fingerprint: str = "f1", **changes: Any) -> dict[str, Any]:
    """The least that bundle.json must hold, for a prompt of this shape."""
    options = {"dtype": "float32", "revision": None, "trust_remote_code": False, "attention": "auto"}
    return {
        "prompt": {"kind": "prompt_tuning", "shape": list(shape)},
        "backbone": {"model": "x", "fingerprint": fingerprint, "options": {**options, "quantization": None}},
        "tokenizer": {"fingerprint": "f2"},
        "task": {
            "template": "{prompt} {text} {answer}.",
            "truncate": [],
            "max_length": 32,
            "label_words": {"positive": ["yes", "good"], "negative": ["no"]},
        },
        "readout": {"kind": "cloze", "combine": "mean"},
        **changes,
    }


LIVES = {"cat": "sea", "dog": "tree", "bird": "sun", "book": "moon"}
"""What the objects in the toy of facts follow from: the first word of the subject."""


def fact_rows(n: int, seed: int = 0) -> list[dict[str, str]]:
    """A toy of facts, as T-REx has them: the object follows from the subject's first word, and one is frequent."""
    generator = torch.Generator().manual_seed(seed)
    others = ("red", "blue", "green", "old", "new", "big", "small", "happy", "sad", "fine")
    pairs = [f"{a} {b}" for a in others for b in others]
    order = torch.randperm(len(pairs), generator=generator).tolist()
    firsts = [list(LIVES)[max(0, i % 6 - 2)] for i in range(n)]  # half of them cats
    return [{"sub_label": f"{a} {pairs[order[i]]}", "obj_label": LIVES[a]} for i, a in enumerate(firsts)]


def facts_task(folder: Path, n: int = 60, **options: Any) -> dict[str, Any]:
    """The `task` section of a recipe for the toy of facts, its file written to `folder`."""
    path = write_jsonl(folder / "P1.jsonl", fact_rows(n))
    section = {"kind": "lama", "name": "toy", "path": str(path), "relation": "P1"}
    return {**section, "templates": {"P1": "the [X] is in the [Y] ."}, **options}
