"""What answers requests in the benchmarks of serving: trimtab's service, and PEFT as its users serve many adapters."""

from __future__ import annotations

import json
import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import torch
from safetensors.torch import load_file
from torch import Tensor

from serving_tasks import Job
from trimtab.backbones import Backbone
from trimtab.backbones.loading import locate, resolve_attention
from trimtab.exporting import Source, export
from trimtab.predictor import Predictor
from trimtab.serving.engine import Pace
from trimtab.serving.service import Service
from trimtab.storage import Bundle

Scores = Mapping[str, float]
Done = Callable[[Scores], None]


class Server(Protocol):
    """What answers. `done` is given the probability of each class, from any thread."""

    def ask(self, job: Job, done: Done) -> None: ...

    def close(self) -> None: ...


class Ours:
    """trimtab's service. What the engine finds is made to answers in a thread of its own, as the server's routes do."""

    def __init__(self, backbone: Backbone, bundles: Mapping[str, Bundle], pace: Pace) -> None:
        self.service = Service(backbone, pace)
        for name, bundle in bundles.items():
            self.service.add(name, bundle)
        self._found: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._conclude, daemon=True)
        self._thread.start()

    def ask(self, job: Job, done: Done) -> None:
        question = self.service.ask(job.task, [job.text])
        question.futures[0].add_done_callback(lambda _: self._found.put((question, done)))

    def _conclude(self) -> None:
        while (item := self._found.get()) is not None:
            question, done = item
            done(question.records()[0].scores)

    def close(self) -> None:
        self.service.close()
        self._found.put(None)
        self._thread.join()


class Adapters:
    """A model of PEFT with an adapter for each prompt, as trimtab exports them, and what a user writes around it."""

    def __init__(self, bundles: Mapping[str, Bundle], predictors: Mapping[str, Predictor]) -> None:
        self._texts: dict[str, str] = {}
        self._classes: dict[str, tuple[str, ...]] = {}
        self._words: dict[str, Tensor] = {}
        self._heads: dict[str, dict[str, Tensor]] = {}
        self._length = 0
        self.model: Any = None
        for name, predictor in predictors.items():
            with TemporaryDirectory() as scratch:
                source = Source(name, Path(scratch), bundles[name])
                vars(source)["predictor"] = predictor  # the one that the source would load from its place
                folder = Path(scratch) / "adapter"
                export([source], "peft", folder)
                self._load(name, predictor, folder)
        self.model.eval()

    def _load(self, name: str, predictor: Predictor, folder: Path) -> None:
        from peft import PeftModel

        backbone = predictor.model.backbone
        if self.model is None:
            from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

            place, kind = locate(backbone.name), AutoModelForCausalLM if backbone.family.is_causal else AutoModel
            attention = resolve_attention("auto", backbone.family, backbone.dtype, backbone.device)  # as trimtab's own
            base = kind.from_pretrained(place, dtype=backbone.dtype, attn_implementation=attention)
            self.model = PeftModel.from_pretrained(base, str(folder), adapter_name=name)
            self._tokenizer = AutoTokenizer.from_pretrained(place, padding_side="right")
        else:
            self.model.load_adapter(str(folder), adapter_name=name)
        self._texts[name] = json.loads((folder / "trimtab.json").read_text())["tasks"][0]["text"]
        self._classes[name] = tuple(predictor.classes)
        if (folder / "head.safetensors").exists():
            head = load_file(folder / "head.safetensors")
            self._heads[name] = {n: v.float() for n, v in head.items()}
        else:
            ids = predictor.rendering.label_ids(backbone.encoder)
            assert all(len(its) == len(its[0]) == 1 for its in ids), "a class is a word of one token"
            self._words[name] = torch.tensor([its[0][0] for its in ids])
            self._length = int(self.model.peft_config[name].num_virtual_tokens)

    @torch.inference_mode()
    def answers(self, task: str, texts: Sequence[str]) -> list[Scores]:
        """The probability of each class, for texts of one task."""
        self.model.set_adapter(task)
        written = [self._texts[task].replace("{text}", text) for text in texts]
        read = self._tokenizer(written, add_special_tokens=False, padding=True, return_tensors="pt")
        read = {name: read[name] for name in ("input_ids", "attention_mask")}
        if task in self._heads:
            head = self._heads[task]
            hidden = self.model(**read).last_hidden_state[:, 0].float()
            scores = hidden @ head["weight"].T + head["bias"]
        else:
            last = read["attention_mask"].sum(1) - 1 + self._length
            kept, place = last.unique(return_inverse=True)  # the vocabulary head runs where it is read
            logits = self.model(**read, logits_to_keep=kept).logits
            scores = logits[torch.arange(len(texts)), place][:, self._words[task]].float()
        classes = self._classes[task]
        return [dict(zip(classes, its, strict=True)) for its in scores.softmax(1).tolist()]


class Peft:
    """Adapters behind a queue: the task whose request waits longest is next, with all that waits for it.

    Args:
        most: how many requests of one task share a forward pass.
    """

    def __init__(self, adapters: Adapters, most: int) -> None:
        self._adapters, self._most = adapters, most
        self._waiting: dict[str, deque[tuple[int, Job, Done]]] = {}
        self._asked = 0
        self._there, self._is_open = threading.Condition(), True
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def ask(self, job: Job, done: Done) -> None:
        with self._there:
            self._asked += 1
            self._waiting.setdefault(job.task, deque()).append((self._asked, job, done))
            self._there.notify()

    def _run(self) -> None:
        while taken := self._next():
            found = self._adapters.answers(taken[0][1].task, [job.text for _, job, _ in taken])
            for (_, _, done), scores in zip(taken, found, strict=True):
                done(scores)

    def _next(self) -> list[tuple[int, Job, Done]]:
        with self._there:
            self._there.wait_for(lambda: self._waiting or not self._is_open)
            if not self._waiting:
                return []
            task = min(self._waiting, key=lambda task: self._waiting[task][0][0])
            its = self._waiting[task]
            taken = [its.popleft() for _ in range(min(self._most, len(its)))]
            if not its:
                del self._waiting[task]
            return taken

    def close(self) -> None:
        with self._there:
            self._is_open = False
            self._there.notify()
        self._thread.join()
