"""OpenPrompt's side of `benchmark_openprompt.py`: its usual loop, one step or one evaluation whenever it is asked.

OpenPrompt 1.0.1 needs a transformers of its day, so this runs in a process of its own, with packages of its own, and
knows nothing of trimtab. A line of JSON says what to train; then every line of the input is `train` or `evaluate`, and
is answered by a line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from itertools import count
from typing import Any


def contestant(work: dict[str, Any]) -> dict[str, Callable[[], dict[str, Any]]]:
    """What it can be asked for, by word. As in OpenPrompt's tutorials: `SoftTemplate`, `ManualVerbalizer`, a loader
    that pads every row to one length, cross-entropy, AdamW over the soft tokens."""
    import torch
    from openprompt import PromptDataLoader, PromptForClassification
    from openprompt.data_utils import InputExample
    from openprompt.plms import load_plm
    from openprompt.prompts import ManualVerbalizer, SoftTemplate

    torch.set_num_threads(work["threads"])
    plm, tokenizer, _, wrapper = load_plm("bert", work["model"])
    text = '{"placeholder":"text_a"} {"mask"}'
    template = SoftTemplate(model=plm, tokenizer=tokenizer, text=text, num_tokens=work["prompt"])
    words = [[word] for word in work["label_words"]]
    verbalizer = ManualVerbalizer(tokenizer, classes=["0", "1"], label_words=words)
    model = PromptForClassification(plm=plm, template=template, verbalizer=verbalizer, freeze_plm=True)
    model.eval()  # no dropout, on neither side

    def loader(rows: list[dict[str, Any]]) -> Any:
        examples = [InputExample(guid=i, text_a=" ".join(r["words"]), label=r["label"]) for i, r in enumerate(rows)]
        return PromptDataLoader(
            dataset=examples, template=template, tokenizer=tokenizer, tokenizer_wrapper_class=wrapper,
            max_seq_length=work["longest"], decoder_max_length=3, batch_size=work["batch"], shuffle=False,
        )  # fmt: skip

    optimizer = torch.optim.AdamW([template.soft_embeds], lr=work["rate"], weight_decay=0.0)
    loss_of = torch.nn.CrossEntropyLoss()
    training, held_out = loader(work["training"]), loader(work["held_out"])
    batches = (batch for _ in count() for batch in training)

    def train() -> dict[str, Any]:
        batch = next(batches)
        loss = loss_of(model(batch), batch["label"])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return {"loss": loss.item()}

    def evaluate() -> dict[str, Any]:
        with torch.no_grad():
            return {"classes": [c for batch in held_out for c in model(batch).argmax(-1).tolist()]}

    return {"train": train, "evaluate": evaluate}


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries say things, too
    asked = contestant(json.loads(sys.stdin.readline()))
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        wall, processor = time.perf_counter(), time.process_time()
        found = asked[line.strip()]()
        taken = {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}
        print(json.dumps({**found, **taken}), file=answers, flush=True)


if __name__ == "__main__":
    main()
