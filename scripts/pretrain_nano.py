"""Pretrain the embedded `nano` backbones from scratch on plain text.

    python scripts/pretrain_nano.py --kind masked --corpus ../shared/corpus/wikipedia-en.txt.xz \
        --valid ../shared/corpus/wikipedia-en-valid.txt --tokens 60e6 --out src/trimtab/assets/nano-masked

What it does, in order: train an uncased WordPiece tokenizer (skipped when the output folder holds one; `--tokenizer`
takes the vocabulary of another nano), encode the corpus once into a memory-mapped array of token ids, pretrain,
evaluate on held-out text, write the model as bfloat16 safetensors and a model card with the measured figures.

`--kind` picks the network and its objective: masked (BERT), causal (Llama) or seq2seq (T5 v1.1); see
`nano_objectives.py`.

The loop keeps float32 master weights and computes in bfloat16. The schedule is warm-up, constant, linear decay over
the last fifth, so a run can be ended early or extended by resuming it with another `--tokens`. A killed run continues
from its last checkpoint; `--init-from FOLDER` starts from committed weights instead of from scratch. Batches depend on
(seed, step) only.
"""

from __future__ import annotations

import argparse
import json
import lzma
import math
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from nano_objectives import LENGTH_WEIGHTS, LENGTHS, OBJECTIVES, POSITIONS, SENTINELS, SPECIALS, Draw, Objective


@dataclass(frozen=True)
class Settings:
    """One pretraining run; everything that changes the weights."""

    kind: str = "masked"
    tokens: float = 60e6
    batch_tokens: int = 8192
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.01
    warmup_steps: int = 300
    decay_fraction: float = 0.2
    seed: int = 13
    hidden: int = 256
    layers: int = 4
    vocabulary: int = 8192

    @property
    def steps(self) -> int:
        return max(1, round(self.tokens / self.batch_tokens))

    def rate_at(self, step: int) -> float:
        """Learning rate of step `step` (0-based): linear warm-up, constant, linear decay to 2 %."""
        warm = min(1.0, (step + 1) / self.warmup_steps)
        left = (self.steps - step) / max(1.0, self.decay_fraction * self.steps)
        return self.learning_rate * min(warm, max(0.02, min(1.0, left)))


def read_paragraphs(path: Path) -> Iterator[str]:
    """Lines of a text file (plain or .xz); an empty string ends an article."""
    with lzma.open(path, "rt", encoding="utf-8") if path.suffix == ".xz" else path.open(encoding="utf-8") as lines:
        for line in lines:
            yield line.strip()


def train_tokenizer(corpus: Path, vocabulary: int) -> Tokenizer:
    """An uncased WordPiece tokenizer, to be shared by all nano models."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary, special_tokens=SPECIALS, min_frequency=5, limit_alphabet=200, show_progress=False
    )
    tokenizer.train_from_iterator((p for i, p in enumerate(read_paragraphs(corpus)) if p and i % 2 == 0), trainer)
    return tokenizer


def save_tokenizer(backend: Tokenizer, objective: type[Objective], folder: Path) -> None:
    """Write a tokenizer with the special tokens of an objective around every text."""
    backend.post_processor = objective.frame(backend)
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens=SENTINELS,
        model_max_length=POSITIONS,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(folder)


@dataclass(frozen=True)
class Text:
    """An encoded corpus: one stream of ids with [SEP] between articles, and where its paragraphs begin."""

    ids: np.ndarray
    starts: np.ndarray
    bytes_per_token: float

    @classmethod
    def encode(cls, source: Path, tokenizer: PreTrainedTokenizerFast, cache: Path) -> Text:
        """Encode `source` once; later calls memory-map the arrays in `cache`."""
        name = cache / source.name.split(".")[0]
        ids_file, starts_file, meta = (name.with_suffix(s) for s in (".ids.npy", ".starts.npy", ".meta.json"))
        if not meta.exists():
            cache.mkdir(parents=True, exist_ok=True)
            chunks, starts, position, n_bytes = [], [], 0, 0
            batch: list[str] = []
            sep = np.array([tokenizer.convert_tokens_to_ids("[SEP]")], dtype=np.uint16)

            def flush() -> None:
                nonlocal position
                for encoding in tokenizer.backend_tokenizer.encode_batch(batch, add_special_tokens=False):
                    piece = np.array(encoding.ids, dtype=np.uint16) if encoding.ids else sep
                    starts.append(position)
                    chunks.append(piece)
                    position += len(piece)
                batch.clear()

            for paragraph in read_paragraphs(source):
                n_bytes += len(paragraph.encode())
                batch.append(paragraph)
                if len(batch) == 4096:
                    flush()
            flush()
            ids = np.concatenate(chunks)
            np.save(ids_file, ids)
            np.save(starts_file, np.array(starts, dtype=np.int64))
            meta.write_text(json.dumps({"bytes_per_token": n_bytes / len(ids)}))
        ratio = json.loads(meta.read_text())["bytes_per_token"]
        return cls(np.load(ids_file, mmap_mode="r"), np.load(starts_file), ratio)

    def windows(self, rng: np.random.Generator, rows: int, length: int) -> np.ndarray:
        """`rows` windows [rows, length]: half begin at a paragraph, half anywhere."""
        at = rng.integers(0, len(self.ids) - length, rows)
        paragraphs = rng.choice(self.starts, rows)
        at = np.where(rng.random(rows) < 0.5, np.minimum(paragraphs, len(self.ids) - length), at)
        return np.stack([self.ids[a : a + length] for a in at]).astype(np.int64)


@torch.no_grad()
def evaluate(model: Any, objective: Objective, text: Text, batches: int = 40) -> dict:
    """Held-out loss (fixed seed), unigram entropy of the same text beside it."""
    losses, weights = [], []
    for i in range(batches):
        draw = objective.draw(text.windows, np.random.default_rng((7, i)), 8192, training=False)
        losses.append(objective.loss(model, on_device(draw, model.device)).item())
        weights.append(draw.predicted)
    loss = float(np.average(losses, weights=weights))
    counts = np.bincount(np.asarray(text.ids), minlength=len(objective.tokenizer))[len(SPECIALS) :].astype(float)
    p = counts[counts > 0] / counts.sum()
    return {
        "heldout_loss": loss,
        "perplexity": math.exp(loss),
        "bits_per_byte": loss / math.log(2) / text.bytes_per_token,
        "unigram_entropy": float(-(p * np.log(p)).sum()),
        "predicted_tokens": int(sum(weights)),
    }


def on_device(draw: Draw, device: torch.device) -> Draw:
    return Draw(*(None if v is None else v.to(device) for v in (draw.ids, draw.targets, draw.at)))


@torch.no_grad()
def sample_fills(model: Any, objective: Objective) -> dict[str, list[str]]:
    """Top-5 fills of a few fixed sentences."""
    return {sentence: objective.fills(model, sentence) for sentence in objective.sentences}


def optimizer_groups(master: dict[str, torch.Tensor], weight_decay: float, is_rate_relative: bool) -> list[dict]:
    """No decay on biases and LayerNorm (vectors). Tensors whose rates are relative to their size are groups of their
    own.
    """
    if is_rate_relative:
        return [{"params": [p], "weight_decay": weight_decay if p.ndim > 1 else 0.0} for p in master.values()]
    decayed = [p for p in master.values() if p.ndim > 1]
    rest = [p for p in master.values() if p.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def set_rates(optimizer: torch.optim.Optimizer, rate: float, is_rate_relative: bool) -> None:
    """The learning rate of every group; if relative, times the root mean square of its tensor (at least 0.001)."""
    for group in optimizer.param_groups:
        scale = 1.0
        if is_rate_relative:
            scale = max(1e-3, float(group["params"][0].detach().square().mean().sqrt()))
        group["lr"] = rate * scale


def write_checkpoint(path: Path, state: dict) -> None:
    """Atomic: a killed run finds either the old or the new checkpoint."""
    scratch = path.with_suffix(".new")
    torch.save(state, scratch)
    scratch.replace(path)


def model_card(settings: Settings, objective: Objective, measured: dict, command: str) -> str:
    """The README.md beside the weights; every figure in it comes from `measured`."""
    rows = "\n".join(f"| {s} | {', '.join(t)} |" for s, t in measured["fills"].items())
    lengths = ", ".join(f"{w:.0%} of {n}" for n, w in zip(LENGTHS, LENGTH_WEIGHTS, strict=True))
    architecture = type(objective).__doc__ or ""
    relative = " times the root mean square of each tensor" if objective.is_rate_relative else ""
    begun = objective.loss_name + ("" if objective.loss_name.endswith("(") else ", ")
    return f"""# nano-{settings.kind}: {objective.title}

{" ".join(architecture.split())}

Hidden size {settings.hidden}, {measured["parameters"]:,} parameters, uncased WordPiece vocabulary of
{measured["vocabulary"]:,} pieces, {POSITIONS} positions, bfloat16, no dropout. Small enough to come with the package,
so that a first run needs no download. It knows simple English and few facts; use a larger backbone for real work.

| figure | value |
|---|---|
| tokens seen | {measured["tokens_seen"] / 1e6:.1f} M |
| held-out {begun}Wikipedia articles not trained on) | {measured["heldout_loss"]:.3f} nats |
| held-out perplexity | {measured["perplexity"]:.1f} |
| held-out bits per byte (of predicted tokens) | {measured["bits_per_byte"]:.3f} |
| unigram entropy of the same text, for comparison | {measured["unigram_entropy"]:.3f} nats |

Top-5 fills of `___`:

| sentence | fills |
|---|---|
{rows}

* **Data.** English Wikipedia text (Simple English Wikipedia, then core articles of English Wikipedia), 180 MB,
  licensed CC BY-SA. The weights are released under Apache-2.0 with the project; the text itself is not included.
* **Training.** {objective.training}. Sequence lengths {lengths} (share of batches), {settings.batch_tokens} tokens a
  batch, AdamW (learning rate {settings.learning_rate}{relative}, weight decay {settings.weight_decay}), warm-up
  {settings.warmup_steps} steps, linear decay over the last {settings.decay_fraction:.0%}, float32 master weights,
  bfloat16 compute, seed {settings.seed}.
* **Command.** `{command}`
* **Limits.** Not a source of facts; reflects the biases of its text; English only; no safety training.
"""


def export(model: Any, tokenizer: PreTrainedTokenizerFast, folder: Path, card: str, measured: dict) -> None:
    """Write bfloat16 safetensors, tokenizer, card and figures."""
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(card, encoding="utf-8")
    (folder / "training.json").write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")


def pretrain(settings: Settings, text: Text, valid: Text, objective: Objective, arguments: argparse.Namespace) -> None:
    """Train, checkpoint every few minutes, export at each evaluation and at the end."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    compute = torch.bfloat16
    torch.manual_seed(settings.seed)
    model = objective.build(settings.hidden, settings.layers)
    if arguments.init_from:
        committed = type(model).from_pretrained(arguments.init_from, dtype=torch.float32)
        model.load_state_dict(committed.state_dict())
    model = model.to(device)
    master = {n: p.detach().clone().float().requires_grad_() for n, p in model.named_parameters()}
    model = model.to(compute)
    optimizer = torch.optim.AdamW(
        optimizer_groups(master, settings.weight_decay, objective.is_rate_relative),
        lr=settings.learning_rate,
        betas=(0.9, 0.98),
        fused=True,
    )
    checkpoint = arguments.cache / f"{arguments.out.name}.checkpoint.pt"
    step, seconds = 0, 0.0
    if checkpoint.exists() and not arguments.fresh:
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        for name, value in state["master"].items():
            master[name].data.copy_(value)
        optimizer.load_state_dict(state["optimizer"])
        step, seconds = state["step"], state["seconds"]
        print(f"resuming at step {step}", flush=True)

    def refresh() -> None:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(master[name])

    def save_and_report() -> None:
        write_checkpoint(
            checkpoint,
            {"master": master, "optimizer": optimizer.state_dict(), "step": step, "seconds": seconds},
        )
        measured = evaluate(model, objective, valid) | {
            "fills": sample_fills(model, objective),
            "tokens_seen": step * settings.batch_tokens + (arguments.tokens_before or 0),
            "parameters": sum(p.numel() for p in model.parameters()),
            "vocabulary": len(objective.tokenizer),
            "seconds": round(seconds),
            "settings": asdict(settings),
        }
        command = "python " + shlex.join(sys.argv)
        card = model_card(settings, objective, measured, command)
        export(model, objective.tokenizer, arguments.out, card, measured)
        print(f"  held-out {measured['heldout_loss']:.3f} nats at step {step}", flush=True)

    refresh()
    begun, running = time.time(), None
    last_save = begun
    while step < settings.steps:
        rng = np.random.default_rng((settings.seed, step))
        draw = objective.draw(text.windows, rng, settings.batch_tokens, training=True)
        loss = objective.loss(model, on_device(draw, device))
        loss.backward()
        for name, parameter in model.named_parameters():
            master[name].grad = None if parameter.grad is None else parameter.grad.float()
            parameter.grad = None
        torch.nn.utils.clip_grad_norm_(list(master.values()), 1.0)
        set_rates(optimizer, settings.rate_at(step), objective.is_rate_relative)
        optimizer.step()
        refresh()
        step += 1
        running = loss.item() if running is None else 0.98 * running + 0.02 * loss.item()
        if step % 50 == 0:
            now = time.time()
            rate = 50 * settings.batch_tokens / (now - begun)
            seconds += now - begun
            begun = now
            print(f"step {step}/{settings.steps} loss {running:.3f} {rate:,.0f} tokens/s", flush=True)
        if time.time() - last_save > 60 * arguments.minutes:
            save_and_report()
            last_save = begun = time.time()
    save_and_report()


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=sorted(OBJECTIVES), default="masked")
    parser.add_argument("--tokenizer", type=Path, help="folder of another nano whose vocabulary is shared")
    parser.add_argument("--corpus", type=Path, required=True, help="text, one paragraph a line, plain or .xz")
    parser.add_argument("--valid", type=Path, required=True, help="held-out text")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights, tokenizer and card")
    parser.add_argument("--cache", type=Path, default=Path("work/nano"), help="encoded text and checkpoints")
    parser.add_argument("--tokens", type=float, default=Settings.tokens)
    parser.add_argument("--seed", type=int, default=Settings.seed)
    parser.add_argument("--batch-tokens", type=int, default=Settings.batch_tokens)
    parser.add_argument("--learning-rate", type=float, help="by default the objective's")
    parser.add_argument("--hidden", type=int, default=Settings.hidden)
    parser.add_argument("--layers", type=int, default=Settings.layers)
    parser.add_argument("--vocabulary", type=int, default=Settings.vocabulary)
    parser.add_argument("--minutes", type=float, default=10.0, help="between checkpoints")
    parser.add_argument("--init-from", type=Path, help="start from these committed weights")
    parser.add_argument("--tokens-before", type=float, help="tokens that --init-from had seen, for the card")
    parser.add_argument("--fresh", action="store_true", help="ignore an existing checkpoint")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    arguments = parse(argv)
    arguments.learning_rate = arguments.learning_rate or OBJECTIVES[arguments.kind].learning_rate
    names = ("kind", "tokens", "seed", "batch_tokens", "learning_rate", "hidden", "layers", "vocabulary")
    settings = Settings(**{name: getattr(arguments, name) for name in names})
    tokenizer = open_tokenizer(arguments, settings)
    print("encoding", flush=True)
    text = Text.encode(arguments.corpus, tokenizer, arguments.cache)
    valid = Text.encode(arguments.valid, tokenizer, arguments.cache)
    print(f"{len(text.ids) / 1e6:.1f} M tokens, {text.bytes_per_token:.2f} bytes a token", flush=True)
    pretrain(settings, text, valid, OBJECTIVES[settings.kind](tokenizer), arguments)


def open_tokenizer(arguments: argparse.Namespace, settings: Settings) -> PreTrainedTokenizerFast:
    """The tokenizer in the output folder, made there first if there is none."""
    if not (arguments.out / "tokenizer.json").exists():
        if arguments.tokenizer:
            backend = Tokenizer.from_file(str(arguments.tokenizer / "tokenizer.json"))
        else:
            print("training the tokenizer", flush=True)
            backend = train_tokenizer(arguments.corpus, settings.vocabulary)
        save_tokenizer(backend, OBJECTIVES[settings.kind], arguments.out)
    return AutoTokenizer.from_pretrained(arguments.out)


if __name__ == "__main__":
    main()
