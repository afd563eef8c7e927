"""Prefix tuning for entities: a training by PEFT, and the same by trimtab.

Entities (the readout `tokens`) on a masked language model, backbone frozen and without dropout. PEFT's token
classification wrapper in an ordinary PyTorch loop: rows, batches and their order, the head and its first values, the
loss, AdamW, schedule, clipping, evaluations, choice of the checkpoint and the metric are trimtab's own. The prefix is
N(0,1) in both; PEFT draws its own (`--first own`) or gets trimtab's (`--first copied`).
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import transformers
from torch import Tensor

from peft_prefix_families import without_dropout
from trimtab.backbones import Backbone
from trimtab.batching import micro_batches
from trimtab.config import resolve
from trimtab.model import PromptedModel, stacked
from trimtab.registry import readouts
from trimtab.seeding import torch_seed
from trimtab.tasks.reading import Places
from trimtab.training.encoder_pack import HEAD, EncoderPack
from trimtab.training.encoders import build_encoder
from trimtab.training.judging import dev_metrics
from trimtab.training.loop import Loop, Member
from trimtab.training.objective import Part
from trimtab.training.optimization import schedule_factor
from trimtab.training.preparing import Prepared, build_head, open_backbone, prepare
from trimtab.types import Batch, Row


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
