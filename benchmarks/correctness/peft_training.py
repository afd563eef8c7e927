"""The Trainer of transformers on PEFT models, as a user runs it: the best checkpoint, and resuming."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PrinterCallback, Trainer, TrainingArguments

from correctness.examples import EXAMPLES
from correctness.peft_batches import IGNORED, Batches

Naming = Callable[[Sequence[int], None], dict[str, Any]]
STEPS, EVERY = 4, 2
RATE = 3e-2


def trainer_of(model: Any, batches: Batches, folder: Path, naming: Naming, **options: Any) -> Trainer:
    """A Trainer on the examples that saves every two steps.

    `label_names` has to be said, as the Trainer cannot read it off a PEFT model; with it, it takes a loss on dev.
    """

    def collate(items: Sequence[dict[str, int]]) -> dict[str, Tensor]:
        rows = [item["row"] for item in items]
        return {**batches.inputs(rows, "right", labels=True).given, **naming(rows, None)}

    def at_the_mask(output: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
        """FEATURE_EXTRACTION models take no loss: that at the mask, behind the logits of the prompt."""
        logits = output["logits"][:, -labels.shape[1] :]
        return cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)

    is_masked = batches.cell.kind == "encoder" and batches.cell.task == "words"
    arguments = TrainingArguments(
        output_dir=str(folder), max_steps=STEPS, per_device_train_batch_size=4, learning_rate=RATE, save_steps=EVERY,
        save_strategy="steps", label_names=["labels"], remove_unused_columns=False, report_to=[], use_cpu=True, seed=0,
        logging_strategy="no", disable_tqdm=True, dataloader_pin_memory=False, **options,
    )  # fmt: skip
    items = [{"row": i} for i in range(len(EXAMPLES))]
    loss = {"compute_loss_func": at_the_mask} if is_masked else {}
    trainer = Trainer(model, arguments, collate, items[:8], items[8:], **loss)
    trainer.remove_callback(PrinterCallback)
    return trainer


def trained_best(model: Any, batches: Batches, folder: Path, naming: Naming) -> tuple[float, float]:
    """The best loss on dev that was recorded, and that of the model which `load_best_model_at_end` leaves."""
    options = {"eval_strategy": "steps", "eval_steps": EVERY, "metric_for_best_model": "eval_loss"}
    trainer = trainer_of(model, batches, folder, naming, load_best_model_at_end=True, **options)
    trainer.train()
    return float(trainer.state.best_metric), float(trainer.evaluate()["eval_loss"])


def trained_on(model: Any, batches: Batches, folder: Path, naming: Naming, resume: bool = False) -> None:
    """Train to the end; with `resume` from the checkpoint that an earlier training has left on its way there."""
    trainer_of(model, batches, folder, naming).train(
        resume_from_checkpoint=str(folder / f"checkpoint-{EVERY}") if resume else None
    )
