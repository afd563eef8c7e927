"""Prompt learning by PEFT, as its documentation and examples have it.

Each call is the usual one; where another documented one does better, that is taken, and a comment says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import peft
import torch
from peft import (
    MultitaskPromptTuningConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    get_peft_model,
)
from torch import Tensor
from torch.nn.functional import cross_entropy

from correctness.checks import SAME
from correctness.examples import EXAMPLES, SEVERAL
from correctness.families import FAMILIES, network
from correctness.peft_batches import Batches
from correctness.peft_training import trained_best, trained_on
from correctness.reads import positions_read
from correctness.subject import Cell, Library, NotApplicable, Refused, Side, Subject, apart

LENGTH = 5
METHODS: dict[str, dict[str, Any]] = {
    "prompt tuning": {"config": PromptTuningConfig, "rate": 3e-2},
    "p-tuning, MLP": {"config": PromptEncoderConfig, "rate": 1e-3},
    "p-tuning, LSTM": {"config": PromptEncoderConfig, "rate": 1e-3, "encoder_reparameterization_type": "LSTM"},
    "prefix tuning": {"config": PrefixTuningConfig, "rate": 1e-2},
    "prefix tuning, projected": {"config": PrefixTuningConfig, "rate": 1e-2, "prefix_projection": True},
    "multitask prompt tuning": {"config": MultitaskPromptTuningConfig, "rate": 3e-2, "num_tasks": 2},
}
"""Rates as in the guides of PEFT's documentation: 3e-2 for prompt tuning, 1e-2 for prefix tuning, 1e-3 for P-tuning."""

CLASSES = {
    "head": ("SEQ_CLS", "AutoModelForSequenceClassification"),
    "tokens": ("TOKEN_CLS", "AutoModelForTokenClassification"),
    "span": ("QUESTION_ANS", "AutoModelForQuestionAnswering"),
    # There is no task type for multiple choice, and with AutoModelForMultipleChoice every task type raises. What works
    # by hand: a sequence classifier with one output, and the choices of all rows one under the other.
    "choice": ("SEQ_CLS", "AutoModelForSequenceClassification"),
}
LANGUAGE = {
    # There is no task type for masked language models, and CAUSAL_LM raises. FEATURE_EXTRACTION passes the model's
    # output on, so that the logits at the mask can be read by hand, behind those of the prompt.
    "encoder": ("FEATURE_EXTRACTION", "AutoModelForMaskedLM"),
    "causal": ("CAUSAL_LM", "AutoModelForCausalLM"),
    "seq2seq": ("SEQ_2_SEQ_LM", "AutoModelForSeq2SeqLM"),
}


@contextmanager
def asking() -> Iterator[None]:
    """While a model is being made, switched or loaded: an error with a reason is a refusal."""
    try:
        yield
    except (ValueError, NotImplementedError) as error:
        raise Refused(f"{type(error).__name__}: {str(error).splitlines()[0][:200]}") from error


class PeftSubject(Subject):
    """A wrapped model. Its prompt keeps PEFT's first values."""

    def __init__(self, cell: Cell) -> None:
        super().__init__(cell)
        self.task_type, self.auto_class = _classes(cell)
        self.batches = Batches(cell)
        self.model = self.wrapped()

    def base(self) -> Any:
        """transformers' own model, always the same."""
        task = self.cell.task
        options = {"num_labels": {"choice": 1}.get(task, 2)} if task in ("head", "tokens", "choice") else {}
        try:
            return network(self.cell.family, self.auto_class, **options)
        except ValueError as error:
            raise NotApplicable("transformers has no such head for the family") from error

    def config(self, defaults: bool = False) -> Any:
        """A method's config: the number of virtual tokens and the task type are all that has to be said.

        Without `defaults` also what PEFT cannot find out by itself and lets a user state: sizes of embeddings that
        differ from those of hidden states, and what DistilBERT and T5 call their heads and layers.
        """
        options = {k: v for k, v in METHODS[self.cell.method].items() if k not in ("config", "rate")}
        stated = {} if defaults else _sizes(self.cell)
        made = METHODS[self.cell.method]["config"]
        return made(task_type=self.task_type, num_virtual_tokens=LENGTH, **stated, **options)

    def wrapped(self, defaults: bool = False) -> Any:
        """A fresh model with a fresh prompt, the same every time."""
        base = self.base()
        torch.manual_seed(1)
        with asking():
            # The one documented way to put a method around a model; the task type picks the class of the wrapper.
            return get_peft_model(base, self.config(defaults)).eval()

    # What is said ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def said(self, rows: Sequence[int], side: Side = "right", prompts: Sequence[int] | None = None) -> list[Tensor]:
        return self.batches.read(self.model, rows, side, **self._naming(rows, prompts))

    def _naming(self, rows: Sequence[int], prompts: Sequence[int] | None) -> dict[str, Any]:
        """How a row says which prompt it uses: `adapter_names`, which PEFT documents for batches of several adapters;
        of multitask prompt tuning `task_ids`."""
        if self.cell.method == "multitask prompt tuning":
            return {"task_ids": torch.tensor(prompts or [0] * len(rows)).repeat_interleave(self.batches.per_row)}
        if prompts is None:
            return {}
        if "other" not in self.model.peft_config:
            torch.manual_seed(2)
            with asking():
                # A second adapter on the same base model; the active one is chosen by `set_adapter`.
                self.model.add_adapter("other", self.config())
            self.model.eval()
        names = ("default", "other")
        self.model.set_adapter(names[prompts[0]])
        if len(set(prompts)) == 1:
            return {}
        self.model.set_adapter("default")
        return {"adapter_names": [names[k] for k in prompts]}

    @torch.no_grad()
    def written(
        self,
        rows: Sequence[int],
        side: Side | None = None,
        prompts: Sequence[int] | None = None,
        static: bool = False,
    ) -> list[tuple[int, ...]]:
        # Tokenizers are set to pad causal models on the left for generation, as transformers asks for.
        side = side or ("left" if self.cell.kind == "causal" else "right")
        return self.batches.write(self.model, rows, side, static, **self._naming(rows, prompts))

    @cached_property
    def plain(self) -> Any:
        """transformers' own model, never wrapped."""
        return self.base()

    @torch.no_grad()
    def bears_pads(self, side: Side, written: bool = False) -> bool:
        if written:
            alone = [self.batches.write(self.plain, [i], side, False)[0] for i in SEVERAL]
            return self.batches.write(self.plain, SEVERAL, side, False) == alone
        each = [self.batches.read(self.plain, [i], side)[0] for i in SEVERAL]
        return apart(self.batches.read(self.plain, SEVERAL, side), each) <= SAME

    @torch.no_grad()
    def plain_said(self, rows: Sequence[int]) -> list[Tensor]:
        return self.batches.read(self.plain, rows, "right")

    @torch.no_grad()
    def plain_written(self, rows: Sequence[int], static: bool = False) -> list[tuple[int, ...]]:
        return self.batches.write(self.plain, rows, "left", static)

    @torch.no_grad()
    def off_said(self, rows: Sequence[int]) -> list[Tensor]:
        # The documented context for running the base model, here and for generation.
        with self.model.disable_adapter():
            return self.batches.read(self.model, rows, "right")

    @torch.no_grad()
    def off_written(self, rows: Sequence[int]) -> list[tuple[int, ...]]:
        with self.model.disable_adapter():
            return self.batches.write(self.model, rows, "left", False)

    # Labels and reads ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def loss(self, rows: Sequence[int]) -> float:
        return float(self._loss(self.model, rows))

    def _loss(self, model: Any, rows: Sequence[int]) -> Tensor:
        """The model's own loss where it has one; else the cross-entropy that a user would take of its output."""
        if self.batches.has_loss:
            inputs = self.batches.inputs(rows, "right", labels=True)
            loss: Tensor = model(**inputs.given, **self._naming(rows, None)).loss
            return loss
        said = self.batches.read(model, rows, "right", **self._naming(rows, None))
        return cross_entropy(torch.stack(said), torch.tensor([EXAMPLES[i].number for i in rows]))

    @torch.no_grad()
    def loss_by_hand(self, rows: Sequence[int]) -> float:
        said = [self._by_hand(i) if self.cell.task == "words" else self.said([i])[0] for i in rows]
        return float(cross_entropy(torch.cat([s.reshape(-1, s.shape[-1]) for s in self.batches.as_scores(said)]),
                                   torch.cat([self.batches.targets(i) for i in rows]), ignore_index=-100))  # fmt: skip

    def _by_hand(self, row: int) -> Tensor:
        """Logits of the label words, the prompt put before the row by hand."""
        given, base = self.batches.inputs([row], "right").given, self.model.get_base_model()
        prompt = self.model.get_prompt(1, **self._naming([row], None))
        words, labels = base.get_input_embeddings(), given.get("labels")
        decoder = {} if labels is None else {"labels": labels}
        if not isinstance(prompt, Tensor):
            logits = base(input_ids=given["input_ids"], past_key_values=prompt, **decoder).logits
        else:
            if self.cell.method == "multitask prompt tuning" and labels is not None:
                begun = base.prepare_decoder_input_ids_from_labels(labels)
                decoder = {"decoder_inputs_embeds": torch.cat([prompt[:, LENGTH:], words(begun)], 1)}
            embeds = torch.cat([prompt[:, :LENGTH], words(given["input_ids"])], 1)
            logits = base(inputs_embeds=embeds, **decoder).logits
        return self.batches.words_in(logits, [row], self.batches.inputs([row], "right"))[0]

    def positions_read(self) -> tuple[set[int], set[int]]:
        inputs = self.batches.inputs([3], "right")
        found, length = positions_read(
            self.model.get_base_model(), lambda: self.model(**inputs.given, **self._naming([3], None)).logits
        )
        return found, {length - inputs.length if self.cell.kind == "encoder" else length - 1}

    # Training --------------------------------------------------------------------------------------------------------

    def gradients(self, recomputed: bool = False) -> Mapping[str, Tensor]:
        model = self.wrapped()
        if recomputed:
            with asking():
                # As the Trainer does it for `gradient_checkpointing=True`, once the model is wrapped.
                model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            model.train()  # dropout is 0
        self._loss(model, range(len(EXAMPLES))).backward()
        found = {n: p for n, p in model.prompt_encoder.named_parameters() if p.requires_grad}
        return {
            n: self._rows(n, torch.zeros_like(p) if p.grad is None else p.grad).detach().clone()
            for n, p in found.items()
        }

    def _rows(self, name: str, gradient: Tensor) -> Tensor:
        """A virtual token is a row, and with it its keys or values in one layer; of a network a whole matrix is."""
        if "embedding" not in name:
            return gradient[None]
        if self.cell.method == "prefix tuning":
            layers = self.model.peft_config["default"].num_layers
            return gradient.reshape(LENGTH * 2 * layers, -1)
        return gradient

    def train(self, steps: int) -> tuple[float, float]:
        """A plain PyTorch loop with AdamW over the trainable parameters, as in PEFT's examples."""
        model = self.wrapped(defaults=True).train()
        rows = list(range(8))
        before = float(self._loss(model, rows))
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=METHODS[self.cell.method]["rate"])
        for _ in range(steps):
            optimizer.zero_grad()
            self._loss(model, rows).backward()
            optimizer.step()
        return before, float(self._loss(model, rows))

    # Keeping ---------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def reloaded(self, rows: Sequence[int], folder: Path) -> list[Tensor]:
        # As every example saves and loads: the adapter alone, around a base model that is loaded anew.
        self.model.save_pretrained(folder)
        with asking():
            loaded = PeftModel.from_pretrained(self.base(), folder).eval()
        return self.batches.read(loaded, rows, "right", **self._naming(rows, None))

    def best(self, folder: Path) -> tuple[float, float]:
        return trained_best(self.wrapped().train(), self.batches, folder, self._naming)

    def resumed(self, folder: Path) -> tuple[list[Tensor], list[Tensor]]:
        rows = (0, 1, 2, 3)

        def said(model: Any) -> list[Tensor]:
            with torch.no_grad():
                return self.batches.read(model.eval(), rows, "right", **self._naming(rows, None))

        straight, again = self.wrapped().train(), self.wrapped().train()
        trained_on(straight, self.batches, folder, self._naming)
        with asking():
            trained_on(again, self.batches, folder, self._naming, resume=True)
        return said(straight), said(again)


def _classes(cell: Cell) -> tuple[str, str]:
    """PEFT's task type and transformers' class.

    Raises:
        NotApplicable: the method has no such task, or text-to-text is the usual way.
    """
    if cell.method == "multitask prompt tuning" and (cell.kind == "encoder" or cell.task not in ("words", "text")):
        raise NotApplicable("multitask prompt tuning is made for language models")
    if cell.task in ("words", "text"):
        if cell.kind == "encoder" and cell.task == "text":
            raise NotApplicable("masked language models do not write")
        return LANGUAGE[cell.kind]
    if cell.kind == "seq2seq":
        raise NotApplicable("encoder-decoders are used as text to text")
    return CLASSES[cell.task]


def _sizes(cell: Cell) -> dict[str, int]:
    """What PEFT's documentation lets a user state where it does not find it, or takes something else."""
    is_prefix, sizes = cell.method.startswith("prefix"), FAMILIES[cell.family].sizes
    if cell.family == "distilbert":
        return {"num_layers": 2, "num_attention_heads": 2, "token_dim": 32}
    if not is_prefix and "embedding_size" in sizes:
        return {"token_dim": sizes["embedding_size"]}
    if not is_prefix and "num_key_value_heads" in sizes:
        return {}
    if is_prefix and "d_kv" in sizes:
        return {"token_dim": sizes["d_kv"] * sizes["num_heads"]}
    return {}


PEFT = Library("peft", peft.__version__, METHODS, PeftSubject)
