"""A backbone trained with the prompt, against torch.optim.AdamW on the model's own parameters in a loop by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.contract.tiny_families import BUILDERS
from tests.contract.toy_runs import toy_run
from tests.tiny import tiny_backbone
from trimtab.training import judging
from trimtab.training.encoders import build_encoder
from trimtab.training.packs import train_pack
from trimtab.training.preparing import Prepared

STEPS, N, RATES, DECAY, CLIP, WARMUP = 5, 8, {"prompt": 0.02, "backbone": 0.003}, 0.1, 0.7, 0.4
EPSILON = 1e-5
"""Not Adam's 1e-8: the gradient of attention's key biases is zero but for rounding, whose sign Adam would follow."""


def prepared(folder: Path, kind: str, **training: Any) -> Prepared:
    """Whole-batch steps, so that the order of rows has no say; micro-batches of a few rows."""
    settings = {
        "max_steps": STEPS, "evaluations": STEPS, "batch_size": N, "max_tokens": 48, "learning_rates": RATES,
        "weight_decay": DECAY, "clip": CLIP, "warmup": WARMUP, "epsilon": EPSILON, **training,
    }  # fmt: skip
    words = {"positive": ["yes", "good"], "negative": ["no"]}
    backbone = tiny_backbone(BUILDERS[kind](folder / kind))
    task = {"template": "{prompt} {text} {answer}", "label_words": words}
    return toy_run(folder, backbone, {"training": settings}, n=N, **task)


def loss_by_hand(p: Prepared, model: Any, prompt: Tensor) -> Tensor:
    """Row by row without padding, all logits of the model's own forward; the mean logit of a class's label words."""
    words = [[w[0] for w in its] for its in p.rendering.label_ids(p.backbone.encoder)]
    losses = []
    for row in p.rows["train"]:
        vectors = list(model.get_input_embeddings()(torch.tensor(row.encoded.ids)))
        for i, slot in enumerate(row.encoded.slots):
            vectors[slot] = prompt[i]
        logits = model(inputs_embeds=torch.stack(vectors)[None]).logits[0, row.encoded.answer_at[0]]
        scores = torch.stack([sum(logits[i] for i in ids) / len(ids) for ids in words])  # type: ignore[misc]
        losses.append(scores.logsumexp(0) - scores[row.label])
    return torch.stack(losses).mean()


def factor(step: int) -> float:
    """Two steps of warm-up, then linear to zero at the end."""
    return [1 / 2, 1, 1, 2 / 3, 1 / 3][step]


def train_by_hand(p: Prepared) -> tuple[Tensor, dict[str, Tensor], list[float]]:
    """Prompt, weights and losses after `STEPS` steps of torch's AdamW; vectors of the backbone do not decay."""
    model = tiny_backbone(Path(p.backbone.name)).model.requires_grad_(True)
    prompt = nn.Parameter(build_encoder(p.config, p.rendering, p.backbone).materialize()["inputs"])
    everything = [prompt, *model.parameters()]
    optimizer = torch.optim.AdamW(
        [
            {"params": [prompt], "lr": RATES["prompt"], "weight_decay": DECAY},
            {"params": [w for w in model.parameters() if w.ndim > 1], "lr": RATES["backbone"], "weight_decay": DECAY},
            {"params": [w for w in model.parameters() if w.ndim == 1], "lr": RATES["backbone"], "weight_decay": 0.0},
        ],
        eps=EPSILON,
    )
    rates, losses = [group["lr"] for group in optimizer.param_groups], []
    for step in range(STEPS):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor(step)
        optimizer.zero_grad()
        loss = loss_by_hand(p, model, prompt)
        loss.backward()
        nn.utils.clip_grad_norm_(everything, CLIP)
        optimizer.step()
        losses.append(loss.item())
    return prompt.detach(), {n: w.detach() for n, w in model.named_parameters()}, losses


def compare(p: Prepared) -> None:
    prompt, weights, losses = train_by_hand(p)
    trained = train_pack([p])[0]
    last = {n.removeprefix("backbone."): v for n, v in trained.member.best.items()}
    assert trained.member.best_step == STEPS, "the last state is what is compared"
    assert [h["train_loss"] for h in trained.member.history[1:]] == pytest.approx(losses, rel=1e-4)
    close = {"rtol": 1e-3, "atol": 2e-5}
    torch.testing.assert_close(last.pop("rows"), prompt, **close)
    assert last.keys() == weights.keys()
    untouched = dict(p.backbone.model.named_parameters())
    for name, value in weights.items():
        torch.testing.assert_close(last[name], value, **close, msg=lambda m, at=name: f"{at}: {m}")
    moved = [n for n, v in weights.items() if float((v - untouched[n]).abs().max()) > 1e-3]
    assert len(moved) > len(weights) / 2, moved
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_prompt_and_backbone_are_trained_as_by_torch(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    better = iter(range(1 + STEPS))
    monkeypatch.setattr(
        judging, "dev_metrics", lambda *args: {"accuracy": float(next(better)), "macro_f1": 0.0, "loss": 1.0}
    )
    p = prepared(tmp_path, kind)
    model = p.backbone.model
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight, "tied, so read and embedded"
    compare(p)
