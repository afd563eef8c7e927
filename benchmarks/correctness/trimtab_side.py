"""Prompts by trimtab, with its defaults: what a recipe says is the method, the task and the readout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

import trimtab
from correctness.families import save, tokenizer
from correctness.reads import positions_read
from correctness.subject import Cell, Library, NotApplicable, Refused, Side, Subject
from correctness.trimtab_by_hand import ByHand
from correctness.trimtab_tasks import READOUTS, section
from trimtab import loading
from trimtab.backbones import Backbone, load_backbone
from trimtab.backbones.checkpointing import recomputing
from trimtab.batching import collate
from trimtab.config import resolve
from trimtab.errors import TrimtabError
from trimtab.injection import choose
from trimtab.model import PromptedModel
from trimtab.prompt_table import PromptTable, table_of
from trimtab.registry import readouts
from trimtab.storage import write_bundle
from trimtab.text_encoder import TextEncoder
from trimtab.training.encoder_pack import EncoderPack
from trimtab.training.encoders import build_encoder
from trimtab.training.packs import Trained, train_pack
from trimtab.training.preparing import Prepared, build_head, prepare
from trimtab.training.records import make_bundle
from trimtab.types import Batch, Row

LENGTH = 5
NEW_TOKENS = 6
METHODS: dict[str, dict[str, Any]] = {
    "prompt_tuning": {},
    "p_tuning_mlp": {},
    "p_tuning_lstm": {},
    "residual": {},
    "deep": {},
    "dept": {},
    "dpt": {"rank": 2},
    "smop": {},
    "superpos": {"words": 40},
}
"""Options where defaults are too large for a prompt of five and a vocabulary of a hundred words."""
MODELS = {"encoder": "AutoModelForMaskedLM", "causal": "AutoModelForCausalLM", "seq2seq": "AutoModelForSeq2SeqLM"}


@contextmanager
def asking() -> Iterator[None]:
    """While a recipe is checked: an error is a refusal."""
    try:
        yield
    except TrimtabError as error:
        raise Refused(str(error)) from error


@cache
def loaded(family: str, kind: str) -> Backbone:
    """The backbone of a family; it is frozen, so all subjects share it. Transformers takes any tokenizer beside a
    Qwen 2 for Qwen's own, so the tokenizer is given."""
    with TemporaryDirectory() as folder:
        found = load_backbone(str(save(family, MODELS[kind], Path(folder))), dtype="float32", device="cpu")
    encoder = found.encoder
    return replace(found, encoder=TextEncoder(tokenizer(family), encoder.decoder_start_id, encoder.is_causal))


class TrimtabSubject(Subject):
    """A prepared run and a table of two prompts, which begin as the runs of two seeds would."""

    def __init__(self, cell: Cell) -> None:
        super().__init__(cell)
        if cell.kind == "encoder" and cell.task == "text":
            raise NotApplicable("masked language models do not write")
        self.backbone = loaded(cell.family, cell.kind)
        self.run = self.prepared()
        self.rows = [replace(row, prompt=0) for row in self.run.rows["train"]]

    def prepared(self, **training: Any) -> Prepared:
        """The run of a recipe that says no more than it has to."""
        cell = self.cell
        recipe = {
            "task": section(cell),
            "readout": {"kind": READOUTS[cell.task, cell.kind]},
            "prompt": {"kind": cell.method, "length": LENGTH, **METHODS[cell.method]},
            "training": training,
        }
        with asking():
            return prepare(resolve(recipe).config, self.backbone)

    @cached_property
    def model(self) -> PromptedModel:
        rendering = self.run.rendering
        reader = readouts.build(rendering.readout, self.backbone, [rendering.plan(self.backbone.encoder)])
        return PromptedModel(self.backbone, reader)

    @cached_property
    def pack(self) -> EncoderPack:
        """Two prompts with their heads."""
        runs = [self.run, replace(self.run, config=self.run.config.model_copy(update={"seeds": self._other_seeds}))]
        encoders = [build_encoder(run.config, run.rendering, self.backbone) for run in runs]
        pack = EncoderPack(encoders, [1, 2], [build_head(run) for run in runs])
        with torch.no_grad():  # what starts at zero would hide what it is multiplied with
            for name, value in pack.stacked.items():
                value.add_(0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(len(name))))
        return pack

    @property
    def _other_seeds(self) -> Any:
        return self.run.config.seeds.model_copy(update={"init": self.run.config.seeds.init + 1})

    @cached_property
    def table(self) -> PromptTable:
        return self.pack.table(training=False).detached()

    # What is said ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def said(self, rows: Sequence[int], side: Side = "right", prompts: Sequence[int] | None = None) -> list[Tensor]:
        return self._said(self._rows(rows, prompts), side)

    def _rows(self, rows: Sequence[int], prompts: Sequence[int] | None = None) -> list[Row]:
        return [replace(self.rows[i], prompt=k) for i, k in zip(rows, prompts or [0] * len(rows), strict=True)]

    def _said(self, rows: list[Row], side: Side, table: PromptTable | None = None) -> list[Tensor]:
        """Scores of each row; of readouts that read in several places without those that pad other rows."""
        scores = self.model.scores(self._collated(rows, side), table or self.table)
        if self.cell.task not in ("tokens", "span"):
            return list(scores)
        return [its[: len(row.encoded.answer_at)] for its, row in zip(scores, rows, strict=True)]

    def _collated(self, rows: list[Row], side: Side) -> Batch:
        if side not in self.backbone.family.padding_sides:
            raise NotApplicable("trimtab pads this family on the other side only")
        return collate(rows, self.backbone.pad_id, side)

    @torch.no_grad()
    def written(
        self,
        rows: Sequence[int],
        side: Side | None = None,
        prompts: Sequence[int] | None = None,
        static: bool = False,
    ) -> list[tuple[int, ...]]:
        return self._written(self._rows(rows, prompts), side or self.backbone.family.padding_side, static)

    def _written(self, rows: list[Row], side: Side, static: bool = False) -> list[tuple[int, ...]]:
        """What the backbone's family generates for a batch that is padded on this side."""
        family, model = self.backbone.family, self.backbone.model
        if family.is_causal and side == "right":
            raise NotApplicable("causal models write behind their text, so pads stand on the left")
        opened = [replace(row, encoded=row.encoded.opened(), others=()) for row in rows]
        batch, *entered = self.model.prompted.entered(self._collated(opened, side), self.table)
        embeds, decoder_embeds, attention = entered
        with self._cache(static):
            found = family.generate(
                model, batch, embeds, NEW_TOKENS, None, self.backbone.pad_id, decoder_embeds, attention
            )
        return [tuple(its[-NEW_TOKENS:].tolist()) for its in found]

    @contextmanager
    def _cache(self, static: bool) -> Iterator[None]:
        """trimtab leaves the sort of cache to the model's generation config, which it empties when it loads one."""
        config = self.backbone.model.generation_config
        before = config.cache_implementation, config.disable_compile
        config.cache_implementation, config.disable_compile = ("static", True) if static else before
        try:
            yield
        finally:
            config.cache_implementation, config.disable_compile = before

    # The bare model --------------------------------------------------------------------------------------------------

    def bears_pads(self, side: Side, written: bool = False) -> bool:
        """trimtab always gives positions, so it promises this for the sides that a family names."""
        return side in self.backbone.family.padding_sides

    @torch.no_grad()
    def plain_said(self, rows: Sequence[int]) -> list[Tensor]:
        return [self._by_hand.at_labels(self._plain_logits(row), row) for row in self._bare(rows)]

    def _bare(self, rows: Sequence[int]) -> list[Row]:
        """The examples without a prompt and without slots for one."""
        rendering = self.run.rendering
        bare = replace(rendering, template=rendering.template.without_prompt())
        return [bare.row(self.rows[i].origin, self.backbone.encoder, prompt=-1) for i in rows]

    def _plain_logits(self, row: Row) -> Tensor:
        """Of the model on the ids of one row alone."""
        decoder = {"decoder_input_ids": torch.tensor([row.encoded.decoder])} if row.encoded.decoder else {}
        logits: Tensor = self.backbone.model(input_ids=torch.tensor([row.encoded.ids]), **decoder).logits[0]
        return logits

    @torch.no_grad()
    def plain_written(self, rows: Sequence[int], static: bool = False) -> list[tuple[int, ...]]:
        found = []
        cache = {"cache_implementation": "static", "disable_compile": True} if static else {}
        for row in self._bare(rows):
            opened = row.encoded.opened()
            begun = torch.tensor([opened.decoder])
            decoder = (
                {"decoder_input_ids": begun, "decoder_start_token_id": opened.decoder[0]} if opened.decoder else {}
            )
            ids = torch.tensor([opened.ids])
            options = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "pad_token_id": self.backbone.pad_id, **cache}
            its = self.backbone.model.generate(ids, attention_mask=torch.ones_like(ids), **decoder, **options)
            found.append(tuple(its[0, -NEW_TOKENS:].tolist()))
        return found

    @torch.no_grad()
    def off_said(self, rows: Sequence[int]) -> list[Tensor]:
        return self._said(self._bare(rows), self.backbone.family.padding_side)

    @torch.no_grad()
    def off_written(self, rows: Sequence[int]) -> list[tuple[int, ...]]:
        return self._written(self._bare(rows), self.backbone.family.padding_side)

    # Labels and reads ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def loss(self, rows: Sequence[int]) -> float:
        batch = self.model.collate(self._rows(rows))
        return float(self.model.readout.loss(self.model.scores(batch, self.table), batch.labels).mean())

    @property
    def _by_hand(self) -> ByHand:
        return ByHand(self.cell, self.model.prompted, self.table, self.run.task.verbalizer.classes)

    @torch.no_grad()
    def loss_by_hand(self, rows: Sequence[int]) -> float:
        return float(torch.stack([self._by_hand.loss(self.rows[i], i) for i in rows]).mean())

    def positions_read(self) -> tuple[set[int], set[int]]:
        row, network = self.rows[3], self.backbone.model
        batch, table = collate([row], self.backbone.pad_id), self.pack.table(training=False)
        inner = network.get_encoder() if self.cell.kind == "seq2seq" else network
        found, length = positions_read(inner, lambda: self.model.scores(batch, table))
        return found, self._by_hand.own(length, row.encoded.slots)

    # Training --------------------------------------------------------------------------------------------------------

    def gradients(self, recomputed: bool = False) -> Mapping[str, Tensor]:
        """Of the virtual tokens (of a deep prompt in every layer) as rows, of what makes them as whole matrices."""
        if recomputed:
            self.prepared(recompute_layers=True)
        table = self.pack.table(training=True)
        leaf = table.detached()
        batch = self.model.collate(self.rows)
        with recomputing(self.backbone.model) if recomputed else torch.enable_grad():
            self.model.readout.loss(self.model.scores(batch, leaf), batch.labels).sum().backward()
        for value in self.pack.stacked.values():
            value.grad = None
        self.pack.backward(table, leaf)
        deep = {site: its.keys_values.grad[0].flatten(0, 2) for site, its in leaf.deep.items()}  # type: ignore[index]
        inputs = {} if leaf.inputs.grad is None or not leaf.inputs.shape[1] else {"inputs": self._chosen(leaf, batch)}
        own = {n: v.grad[0][None] for n, v in self.pack.stacked.items() if v.grad is not None}
        missing = {n: torch.zeros(1, 1) for n, v in self.pack.stacked.items() if v.grad is None}
        return {**inputs, **deep, **own, **missing}

    def _chosen(self, leaf: PromptTable, batch: Batch) -> Tensor:
        """Gradients of the virtual tokens; where a router chooses among several prompts, of those that a row took."""
        assert leaf.inputs.grad is not None
        with torch.no_grad():
            route = choose(self.model.embed(batch), leaf, batch)
        if route is None:
            return leaf.inputs.grad[0]
        return torch.cat([leaf.inputs.grad[0, first : first + LENGTH] for first in sorted(set(route.first.tolist()))])

    def train(self, steps: int) -> tuple[float, float]:
        losses: list[float] = []

        def heard(event: Mapping[str, Any]) -> None:
            if event["event"] == "step":
                losses.append(event["loss"])

        train_pack([self.prepared(max_steps=steps, evaluations=1, select="loss")], heard)
        return losses[0], losses[-1]

    # Keeping ---------------------------------------------------------------------------------------------------------

    def reloaded(self, rows: Sequence[int], folder: Path) -> list[Tensor]:
        (trained,) = train_pack([self.prepared(max_steps=2, evaluations=1, select="loss")])
        self.table = self._table_of(trained)
        write_bundle(folder, make_bundle(trained))
        found = loading.load(folder, backbone=self.backbone)
        assert found.table is not None
        return self._said(self._rows(rows), "right", found.table)

    def _table_of(self, trained: Trained) -> PromptTable:
        parts = {name: torch.from_numpy(value)[None] for name, value in trained.tensors.items()}
        return table_of(parts, trained.layers, trained.shift)

    def best(self, folder: Path) -> tuple[float, float]:
        (trained,) = train_pack([self.prepared(max_steps=4, evaluations=2, select="loss")])
        write_bundle(folder, make_bundle(trained))
        found = loading.load(folder, backbone=self.backbone)
        rows = [replace(row, prompt=0) for row in trained.prepared.rows["dev"]]
        batch = self.model.collate(rows)
        with torch.no_grad():
            left = self.model.readout.loss(self.model.scores(batch, found.table), batch.labels).mean()
        return min(event["dev"]["loss"] for event in trained.member.history), float(left)

    def resumed(self, folder: Path) -> tuple[list[Tensor], list[Tensor]]:
        run, rows = self.prepared(max_steps=4, evaluations=2, select="loss"), self._rows(range(4))
        (straight,) = train_pack([run])

        def interrupted(event: Mapping[str, Any]) -> None:
            if event["event"] == "step" and event["step"] == 3:
                raise KeyboardInterrupt

        try:
            train_pack([run], interrupted, folder)
        except KeyboardInterrupt:
            (again,) = train_pack([run], None, folder)
        with torch.no_grad():
            one, two = (self._said(rows, "right", self._table_of(its)) for its in (straight, again))
        return one, two


TRIMTAB = Library("trimtab", trimtab.__version__, METHODS, TrimtabSubject)
