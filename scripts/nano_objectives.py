"""What `pretrain_nano.py` learns: one class per nano model, each with its network, its batches, its loss and its card.

All three share one uncased WordPiece vocabulary; they differ in the special tokens around a text.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from tokenizers import processors
from torch.nn.functional import cross_entropy
from transformers import (
    BertConfig,
    BertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

SENTINELS = [f"<extra_id_{i}>" for i in range(32)]
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<s>", "</s>", *SENTINELS]
LENGTHS, LENGTH_WEIGHTS = (32, 64, 128, 256), (0.15, 0.25, 0.50, 0.10)
POSITIONS = 256


@dataclass(frozen=True)
class Draw:
    """One batch. `ids` [B,T] is what the model reads, `targets` what it predicts (flat, or [B,T'] for a decoder).

    `at` holds the flat positions of the targets where not every position is predicted.
    """

    ids: torch.Tensor
    targets: torch.Tensor
    at: torch.Tensor | None = None

    @property
    def predicted(self) -> int:
        return self.targets.numel()


class Objective(ABC):
    """A network and how it is trained. Sentences for the card hold `___` where the model fills in."""

    kind: ClassVar[str]
    title: ClassVar[str]
    loss_name: ClassVar[str]
    training: ClassVar[str]
    sentences: ClassVar[tuple[str, ...]]
    learning_rate: ClassVar[float] = 1.5e-3
    is_rate_relative: ClassVar[bool] = False
    """Whether a tensor's learning rate is a multiple of its root mean square."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        self.separator = tokenizer.convert_tokens_to_ids("[SEP]")

    @staticmethod
    @abstractmethod
    def frame(backend: Any) -> Any:
        """The post-processor that puts special tokens around a text."""

    @abstractmethod
    def build(self, hidden: int, layers: int) -> Any:
        """A freshly initialized network."""

    @abstractmethod
    def draw(self, windows: Any, rng: np.random.Generator, tokens: int, *, training: bool) -> Draw:
        """One batch of about `tokens` tokens; `windows(rng, rows, length)` cuts them from the text."""

    @abstractmethod
    def loss(self, model: Any, draw: Draw) -> torch.Tensor:
        """Mean cross-entropy in nats over the predicted tokens."""

    @abstractmethod
    def fills(self, model: Any, sentence: str) -> list[str]:
        """The five likeliest tokens for `___`."""

    def _rows(self, rng: np.random.Generator, tokens: int) -> tuple[int, int]:
        length = int(rng.choice(LENGTHS, p=LENGTH_WEIGHTS))
        return max(1, tokens // length), length

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _top(self, logits: torch.Tensor) -> list[str]:
        return self.tokenizer.convert_ids_to_tokens(logits.float().topk(5).indices.tolist())


class Masked(Objective):
    """BERT in the shape of BERT-mini (Turc et al. 2019) with the masked-LM objective of Devlin et al. 2019; 20 % of the
    tokens are predicted (Wettig et al. 2023 find this better than 15 % for small models), no next-sentence prediction.
    """

    kind = "masked"
    title = "the embedded masked language model"
    loss_name = "masked-LM loss (15 % masked"
    training = "Masked-LM objective, 20 % of tokens predicted (80/10/10 rule)"
    sentences = (
        "the capital of france is ___ .",
        "water is made of hydrogen and ___ .",
        "she was very ___ because her dog had died .",
        "he plays the ___ in a rock band .",
        "the film was boring and the acting was ___ .",
        "the cat sat on the ___ .",
    )

    @staticmethod
    def frame(backend: Any) -> Any:
        cls, sep = backend.token_to_id("[CLS]"), backend.token_to_id("[SEP]")
        return processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", cls), ("[SEP]", sep)]
        )

    def build(self, hidden: int, layers: int) -> BertForMaskedLM:
        return BertForMaskedLM(
            BertConfig(
                vocab_size=len(self.tokenizer),
                hidden_size=hidden,
                num_hidden_layers=layers,
                num_attention_heads=max(1, hidden // 64),
                intermediate_size=4 * hidden,
                max_position_embeddings=POSITIONS,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
                pad_token_id=self.tokenizer.pad_token_id,
                attn_implementation="eager",
            )
        )

    def draw(self, windows: Any, rng: np.random.Generator, tokens: int, *, training: bool) -> Draw:
        """Training: 20 %, BERT's 80/10/10 rule. Else 15 %, every predicted token is [MASK]."""
        t = self.tokenizer
        rows, length = self._rows(rng, tokens)
        body = windows(rng, rows, length - 2)
        frame = np.full((rows, length), t.cls_token_id, dtype=np.int64)
        frame[:, 1:-1], frame[:, -1] = body, self.separator
        chosen = (frame >= len(SPECIALS)) & (rng.random(frame.shape) < (0.20 if training else 0.15))
        chosen[0, 1] |= not chosen.any()
        targets = frame[chosen]
        dice = rng.random(len(targets)) if training else np.zeros(len(targets))
        random_ids = rng.integers(len(SPECIALS), len(t), len(targets))
        frame[chosen] = np.where(dice < 0.8, t.mask_token_id, np.where(dice < 0.9, random_ids, targets))
        at = np.flatnonzero(chosen.ravel())
        return Draw(torch.from_numpy(frame), torch.from_numpy(targets), torch.from_numpy(at))

    def loss(self, model: BertForMaskedLM, draw: Draw) -> torch.Tensor:
        """The vocabulary head runs on predicted positions only."""
        hidden = model.bert(input_ids=draw.ids).last_hidden_state
        return cross_entropy(model.cls(hidden.flatten(0, 1)[draw.at]).float(), draw.targets)

    def fills(self, model: BertForMaskedLM, sentence: str) -> list[str]:
        ids = self.tokenizer(sentence.replace("___", "[MASK]"), return_tensors="pt")["input_ids"].to(model.device)
        where = (ids[0] == self.tokenizer.mask_token_id).nonzero()[0, 0]
        return self._top(model(input_ids=ids).logits[0, where])


class Causal(Objective):
    """Llama's architecture (Touvron et al. 2023): rotary positions, RMSNorm, SwiGLU; next-token objective."""

    kind = "causal"
    title = "the embedded causal language model"
    loss_name = "next-token loss ("
    training = "Next-token objective on windows that begin with `<s>`; `</s>` stands between articles"
    sentences = (
        "the capital of france is ___",
        "water is made of hydrogen and ___",
        "he was born in the city of new ___",
        "he plays the guitar in a rock ___",
        "the earth goes around the ___",
        "it is one of the most ___",
    )

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__(tokenizer)
        self.bos, self.eos = (tokenizer.convert_tokens_to_ids(t) for t in ("<s>", "</s>"))

    @staticmethod
    def frame(backend: Any) -> Any:
        return processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", backend.token_to_id("<s>"))]
        )

    def build(self, hidden: int, layers: int) -> LlamaForCausalLM:
        heads = max(1, hidden // 64)
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(self.tokenizer),
                hidden_size=hidden,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                num_key_value_heads=heads,
                intermediate_size=8 * hidden // 3 // 8 * 8,
                max_position_embeddings=POSITIONS,
                rope_theta=10_000.0,
                tie_word_embeddings=True,
                bos_token_id=self.bos,
                eos_token_id=self.eos,
                pad_token_id=self.tokenizer.pad_token_id,
                attn_implementation="eager",
            )
        )

    def draw(self, windows: Any, rng: np.random.Generator, tokens: int, *, training: bool) -> Draw:
        rows, length = self._rows(rng, tokens)
        body = windows(rng, rows, length)
        body[body == self.separator] = self.eos
        ids = np.concatenate([np.full((rows, 1), self.bos), body[:, :-1]], axis=1)
        return Draw(torch.from_numpy(ids), torch.from_numpy(body.ravel()))

    def loss(self, model: LlamaForCausalLM, draw: Draw) -> torch.Tensor:
        hidden = model.model(input_ids=draw.ids, use_cache=False).last_hidden_state
        return cross_entropy(model.lm_head(hidden.flatten(0, 1)).float(), draw.targets)

    def fills(self, model: LlamaForCausalLM, sentence: str) -> list[str]:
        ids = torch.tensor([[self.bos, *self._ids(sentence.replace("___", ""))]], device=model.device)
        return self._top(model(input_ids=ids).logits[0, -1])


class Seq2Seq(Objective):
    """T5 v1.1 (gated GELU, no biases; Shazeer 2020) with span corruption (Raffel et al. 2020, section 3.1.4): 25 % of
    the tokens in spans of 3 become sentinels, the decoder spells the spans out. The decoder has one layer less than the
    encoder; word embeddings are tied to the output, unlike v1.1, to stay small.

    T5's embeddings begin with a root mean square of 1, its queries with 0.008: one absolute learning rate does not fit
    both, so rates are relative, as in T5's own Adafactor.
    """

    kind = "seq2seq"
    title = "the embedded encoder-decoder language model"
    loss_name = "span-corruption loss (25 % of tokens in spans of 3"
    training = "Span corruption, 25 % of tokens in spans of 3, sentinels `<extra_id_0>` to `<extra_id_31>`"
    sentences = Masked.sentences
    learning_rate = 2e-2
    is_rate_relative = True
    corrupted = 0.25

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__(tokenizer)
        self.eos = tokenizer.convert_tokens_to_ids("</s>")
        self.sentinels = tokenizer.convert_tokens_to_ids(SENTINELS)

    @staticmethod
    def frame(backend: Any) -> Any:
        return processors.TemplateProcessing(
            single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", backend.token_to_id("</s>"))]
        )

    def build(self, hidden: int, layers: int) -> T5ForConditionalGeneration:
        model = T5ForConditionalGeneration(
            T5Config(
                vocab_size=len(self.tokenizer),
                d_model=hidden,
                d_kv=min(64, hidden),
                d_ff=2 * hidden,
                num_layers=max(1, layers - 1),
                num_decoder_layers=max(1, layers - 2),
                num_heads=max(1, hidden // 64),
                feed_forward_proj="gated-gelu",
                dropout_rate=0.0,
                tie_word_embeddings=True,
                pad_token_id=self.tokenizer.pad_token_id,
                eos_token_id=self.eos,
                decoder_start_token_id=self.tokenizer.pad_token_id,
            )
        )
        model.config.n_positions = POSITIONS
        return model

    def draw(self, windows: Any, rng: np.random.Generator, tokens: int, *, training: bool) -> Draw:
        rows, length = self._rows(rng, tokens)
        body = windows(rng, rows, length)
        body[body == self.separator] = self.eos
        pairs = [self._corrupt(row, rng) for row in body]
        return Draw(*(torch.from_numpy(np.stack(side)) for side in zip(*pairs, strict=True)))

    def _corrupt(self, row: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Input and target of one row; their lengths depend on the row's length only."""
        n_noise = max(1, round(self.corrupted * len(row)))
        n_spans = max(1, min(len(SENTINELS), round(n_noise / 3)))
        noise, kept = _parts(n_noise, n_spans, rng), _parts(len(row) - n_noise, n_spans, rng)
        source: list[Any] = []
        target: list[Any] = []
        at = 0
        for i, (keep, drop) in enumerate(zip(kept, noise, strict=True)):
            sentinel = self.sentinels[i : i + 1]
            source += [row[at : at + keep], sentinel]
            target += [sentinel, row[at + keep : at + keep + drop]]
            at += keep + drop
        ends = [np.array([self.eos])]
        return np.concatenate(source + ends).astype(np.int64), np.concatenate(target + ends).astype(np.int64)

    def loss(self, model: T5ForConditionalGeneration, draw: Draw) -> torch.Tensor:
        start = torch.full_like(draw.targets[:, :1], model.config.decoder_start_token_id)
        decoder_ids = torch.cat([start, draw.targets[:, :-1]], dim=1)
        logits = model(input_ids=draw.ids, decoder_input_ids=decoder_ids, use_cache=False).logits
        return cross_entropy(logits.flatten(0, 1).float(), draw.targets.flatten())

    def fills(self, model: T5ForConditionalGeneration, sentence: str) -> list[str]:
        before, after = (self._ids(part) for part in sentence.split("___"))
        ids = torch.tensor([[*before, self.sentinels[0], *after, self.eos]], device=model.device)
        start = torch.tensor([[model.config.decoder_start_token_id, self.sentinels[0]]], device=model.device)
        return self._top(model(input_ids=ids, decoder_input_ids=start).logits[0, -1])


def _parts(total: int, n: int, rng: np.random.Generator) -> list[int]:
    """`total` cut into `n` random positive parts."""
    cuts = np.sort(rng.choice(np.arange(1, total), n - 1, replace=False)) if n > 1 else np.array([], dtype=int)
    return np.diff(np.concatenate([[0], cuts, [total]])).tolist()


OBJECTIVES: dict[str, type[Objective]] = {o.kind: o for o in (Masked, Causal, Seq2Seq)}
