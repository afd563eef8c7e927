"""A load test of `trimtab serve` over HTTP on the loopback: every answer is held against its prompt, asked alone.

    OMP_NUM_THREADS=1 python scripts/load_test.py --minutes 10 --out docs/results/serving-load

A server of some forty prompts on nano-causal: input prompts of several lengths and places, deep ones, label words,
heads and texts that are written. Clients ask them and the bare model, one to four inputs at a time, by the routes of
tasks and by OpenAI's, streams among them; meanwhile others upload prompts, ask them, and remove them. What is right is
known beforehand: a prompt's own predictor says it, of texts on the bare model plain `generate` of transformers.

Lost is what has no answer, mixed up what has another than its own. Either ends with exit code 1.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import requests
import torch
from safetensors.numpy import save

from publishing import command_line, footer, machine, publish
from serving_tasks import CAUSAL, Kind, texts, trained, variants
from trimtab.backbones import Backbone
from trimtab.loading import backbone_of, from_bundle
from trimtab.storage import Bundle, write_bundle
from trimtab.training.records import environment

MODEL, TOKEN, FAR = "nano-causal", "the token of a load test", 1e-4
WRITES = {"kind": "text", "max_new_tokens": 8}
KINDS: dict[str, tuple[int, Kind]] = {
    "short": (6, Kind(MODEL, {"kind": "prompt_tuning", "length": 3}, {"kind": "ranking"}, CAUSAL)),
    "long": (8, Kind(MODEL, {"kind": "prompt_tuning", "length": 40}, {"kind": "ranking"}, CAUSAL)),
    "infix": (4, Kind(MODEL, {"kind": "residual", "length": 6}, {"kind": "ranking"},
                      "{prompt:3} {text} {prompt:3} topic: {answer}")),
    "deep": (6, Kind(MODEL, {"kind": "deep", "length": 10}, {"kind": "ranking"}, "{text} topic: {answer}")),
    "head": (6, Kind(MODEL, {"kind": "prompt_tuning", "length": 8}, {"kind": "head"}, "{prompt} {text}")),
    "deep-head": (4, Kind(MODEL, {"kind": "deep", "length": 5}, {"kind": "head"}, "{text}")),
    "writer": (4, Kind(MODEL, {"kind": "prompt_tuning", "length": 8}, WRITES, CAUSAL)),
    "deep-writer": (2, Kind(MODEL, {"kind": "deep", "length": 5}, WRITES, "{text} topic: {answer}")),
}  # fmt: skip
"""How many prompts of each kind there are; one more of each comes and goes."""


@dataclass(frozen=True)
class Ask:
    """A question: to which prompt (the model's name for a text on the bare model), and whether without the prompt."""

    task: str
    text: str
    bare: bool = False


@dataclass
class Tally:
    """What came of all requests."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    sent: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    told_to_wait: int = 0
    lost: list[str] = field(default_factory=list)
    mixed_up: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    furthest: float = 0.0

    def check(self, ask: Ask, got: Any, right: Any) -> None:
        """Scores to a ten-thousandth, texts to the letter."""
        if isinstance(right, str):
            far = 0.0 if got == right else 1.0
        else:
            far = max(abs(got.get(c, 9.0) - p) for c, p in right.items()) if got.keys() == right.keys() else 9.0
        with self.lock:
            self.furthest = max(self.furthest, far)
            if far > FAR:
                self.mixed_up.append(f"{ask}: {got}, not {right}")


# What is right -------------------------------------------------------------------------------------------------------


@dataclass
class World:
    """Prompts that are served from the beginning, those that come and go, and all right answers."""

    folder: Path
    guests: dict[str, Bundle]
    right: dict[Ask, Any]
    by_task: dict[str, list[Ask]]
    backbone: Backbone


def made(folder: Path, asked: int) -> World:
    backbone: Backbone | None = None
    guests: dict[str, Bundle] = {}
    right: dict[Ask, Any] = {}
    for kind_name, (count, kind) in KINDS.items():
        first = trained(kind, "float32")
        backbone = backbone or backbone_of(first, dtype="float32", device="cpu")
        for i, bundle in enumerate(variants(first, backbone, count + 1)):
            name = f"guest-{kind_name}" if i == count else f"{kind_name}-{i}"
            if i == count:
                guests[name] = bundle
            else:
                write_bundle(folder / name, bundle)
            right |= answers(name, bundle, backbone, random.Random(name).sample(texts(), asked))
    assert backbone is not None
    right |= {Ask(MODEL, text): said for text, said in written(backbone, texts()[:asked]).items()}
    by_task: dict[str, list[Ask]] = {}
    for ask in right:
        by_task.setdefault(ask.task, []).append(ask)
    return World(folder, guests, right, by_task, backbone)


def answers(name: str, bundle: Bundle, backbone: Backbone, chosen: Sequence[str]) -> dict[Ask, Any]:
    """What a prompt says by itself, and the bare model in its place."""
    predictor = from_bundle(bundle, backbone)
    ways = [(False, predictor)] if predictor.model.readout.trains else [(False, predictor), (True, predictor.bare)]
    found: dict[Ask, Any] = {}
    for is_bare, its in ways:
        for text in chosen:  # one by one: alone means alone
            answer = its(text)
            found[Ask(name, text, is_bare)] = answer.text if its.model.readout.writes else dict(answer.scores)
    return found


def written(backbone: Backbone, chosen: Sequence[str], new_tokens: int = 12) -> dict[str, str]:
    """What transformers lets the bare model write."""
    encoder, found = backbone.encoder, {}
    for text in chosen:
        ids = torch.tensor([[*encoder.prefix, *encoder.encode(text).ids]])
        made = backbone.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new_tokens,
                                       do_sample=False, eos_token_id=encoder.end_id, pad_token_id=0)  # fmt: skip
        found[text] = encoder.tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True).strip()
    return found


# The server ----------------------------------------------------------------------------------------------------------


def started(folder: Path, options: Sequence[str], journal: Any) -> tuple[subprocess.Popen[str], str]:
    """`trimtab serve`, and its address."""
    command = [sys.executable, "-m", "trimtab", "serve", str(folder), "--port", "0", "--device", "cpu", "--uploads"]
    process = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True,
                               env={**os.environ, "TRIMTAB_TOKEN": TOKEN})  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        journal.write(line)
        if url := re.search(r"prompts on .*(http://\S+)", line):
            threading.Thread(target=lambda: journal.writelines(process.stderr or ()), daemon=True).start()
            return process, url[1]
    raise RuntimeError(f"the server did not start: {process.wait()}")


def resident(process: subprocess.Popen[str]) -> float:
    """MiB of the server. Linux."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


# Clients -------------------------------------------------------------------------------------------------------------


class Client:
    """Asks one thing after the other, and judges what it is told."""

    def __init__(self, url: str, world: World, tally: Tally, seed: int) -> None:
        self.url, self.world, self.tally = url, world, tally
        self.random, self.session = random.Random(seed), requests.Session()
        self.names = sorted(world.by_task.keys() - world.guests.keys())

    def run(self, until: float) -> None:
        while time.monotonic() < until:
            self.ask(self.random.choice(self.names))

    def ask(self, name: str) -> None:
        """One to four questions to a task in one request, or a text."""
        asks = self.world.by_task[name]
        if name == MODEL or (isinstance(self.world.right[asks[0]], str) and self.random.random() < 0.5):
            chosen = self.random.choice([a for a in asks if not a.bare])
            self._complete(chosen, is_stream=self.random.random() < 0.5)
            return
        is_bare = self.random.random() < 0.2 and any(a.bare for a in asks)
        chosen_asks = self.random.choices([a for a in asks if a.bare == is_bare], k=self.random.randint(1, 4))
        self._task(name, chosen_asks, is_bare)

    def _task(self, name: str, asks: Sequence[Ask], is_bare: bool) -> None:
        kind = "bare, by task" if is_bare else "task"
        body = {"inputs": [a.text for a in asks], "bare": is_bare}
        response = self._sent(kind, lambda: self.session.post(f"{self.url}/tasks/{name}", json=body, timeout=120))
        if response is None:
            return
        found = response.json()["predictions"]
        if len(found) != len(asks):
            self._lose(kind, f"{len(asks)} questions, {len(found)} answers")
        for ask, its in zip(asks, found, strict=False):
            right = self.world.right[ask]
            self.tally.check(ask, its.get("text") if isinstance(right, str) else its.get("scores"), right)

    def _complete(self, ask: Ask, is_stream: bool) -> None:
        kind = "stream" if is_stream else "completion"
        body = {"model": ask.task, "prompt": ask.text, "stream": is_stream}
        body |= {"max_tokens": 12} if ask.task == MODEL else {}
        response = self._sent(kind, lambda: self.session.post(f"{self.url}/v1/completions", json=body, timeout=120))
        if response is None:
            return
        if is_stream:
            lines = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
            if not lines or lines[-1] != "[DONE]":
                self._lose(kind, f"a stream that does not end: {response.text[-200:]}")
                return
            text = "".join(json.loads(line)["choices"][0]["text"] for line in lines[:-1])
        else:
            text = response.json()["choices"][0]["text"]
        self.tally.check(ask, text, self.world.right[ask])

    def _sent(self, kind: str, send: Callable[[], requests.Response]) -> requests.Response | None:
        """The answer to a request, which is repeated where the server is full; None where there is none."""
        with self.tally.lock:
            self.tally.sent[kind] += 1
        while True:
            began = time.perf_counter()
            try:
                response = send()
            except requests.RequestException as error:
                self._lose(kind, repr(error))
                return None
            if response.status_code == 429:
                with self.tally.lock:
                    self.tally.told_to_wait += 1
                time.sleep(float(response.headers["Retry-After"]))
                continue
            if not response.ok:
                self._lose(kind, f"{response.status_code}: {response.text[:300]}")
                return None
            with self.tally.lock:
                self.tally.answered[kind] += 1
                self.tally.seconds.append(time.perf_counter() - began)
            return response

    def _lose(self, kind: str, what: str) -> None:
        with self.tally.lock:
            self.tally.lost.append(f"{kind}: {what}")


class Host(Client):
    """Uploads a prompt, asks it, removes it, and sees that it is gone; again and again."""

    def run(self, until: float) -> None:
        while time.monotonic() < until:
            name = self.random.choice(sorted(self.world.guests))
            own = f"{name}-{threading.get_ident()}"
            archive, head = packed(self.world.guests[name]), {"Authorization": f"Bearer {TOKEN}"}
            place = f"{self.url}/bundles/{own}"
            if self._sent("added", lambda: self.session.put(place, data=archive, headers=head, timeout=120)) is None:  # noqa: B023
                continue
            chosen = [a for a in self.world.by_task[name] if not a.bare]
            for _ in range(5):
                self._task(own, self.random.choices(chosen, k=2), False)
            self._sent("removed", lambda: self.session.delete(place, headers=head, timeout=120))  # noqa: B023
            gone = self.session.post(f"{self.url}/tasks/{own}", json={"inputs": ["x"]}, timeout=120)
            if gone.status_code not in (404, 429):
                self._lose("removed", f"a prompt that is gone answers {gone.status_code}")
            time.sleep(0.5)


def packed(bundle: Bundle) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("bundle.json", json.dumps(dict(bundle.metadata)))
        archive.writestr("prompt.safetensors", save(dict(bundle.tensors)))
    return out.getvalue()


def play(world: World, url: str, tally: Tally, seconds: float, clients: int) -> None:
    until = time.monotonic() + seconds
    actors = [Client(url, world, tally, i) for i in range(clients)] + [Host(url, world, tally, -1 - i) for i in (0, 1)]
    threads = [threading.Thread(target=actor.run, args=(until,)) for actor in actors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# Command line --------------------------------------------------------------------------------------------------------


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--texts", type=int, default=12, help="that each prompt is asked")
    parser.add_argument("--serve", default="", help="more options of trimtab serve")
    parser.add_argument("--out", type=Path, help="writes OUT.json and OUT.md")
    a = parser.parse_args(argv)
    for name in ("minutes", "clients", "texts"):
        if getattr(a, name) <= 0:
            parser.error(f"--{name} must be above 0, got {getattr(a, name)}")
    return a


def main(argv: Sequence[str] | None = None) -> int:
    a = parse(argv)
    tally = Tally()
    with TemporaryDirectory() as scratch, (Path(scratch) / "journal").open("w") as journal:
        world = made(Path(scratch) / "bundles", a.texts)
        print(f"{len(world.right)} right answers of {len(world.by_task)} prompts", flush=True)
        process, url = started(world.folder, shlex.split(a.serve), journal)
        try:
            play(world, url, tally, min(20.0, 6 * a.minutes), 4)  # memory is looked at behind the first requests
            before = resident(process)
            tally.seconds.clear()
            play(world, url, tally, 60 * a.minutes, a.clients)
            after, health = resident(process), requests.get(f"{url}/healthz", timeout=30).json()
            metrics = requests.get(f"{url}/metrics", timeout=30).text
        finally:
            process.send_signal(signal.SIGTERM)
            ended = process.wait(60)
    counts = {
        k: int(float(v))
        for k, v in re.findall(r"^trimtab_(engine_\w+|prefix_\w+|prompts_loaded) (\S+)$", metrics, re.M)
    }
    outcome = {
        "command": command_line(__file__, argv),
        "environment": machine(environment(world.backbone)),
        "minutes": a.minutes,
        "clients": a.clients,
        "prompts": len(world.by_task) - len(world.guests) - 1,
        "sent": dict(tally.sent),
        "answered": dict(tally.answered),
        "told_to_wait": tally.told_to_wait,
        "lost": tally.lost,
        "mixed_up": tally.mixed_up,
        "furthest_score": tally.furthest,
        "per_second": len(tally.seconds) / (60 * a.minutes),
        "p50_ms": 1000 * float(np.percentile(tally.seconds, 50)),
        "p99_ms": 1000 * float(np.percentile(tally.seconds, 99)),
        "resident_mib": {"after_first_requests": before, "at_the_end": after},
        "health": health,
        "metrics": counts,
        "exit_code": ended,
    }
    publish(a.out, outcome, page(outcome))
    return 1 if tally.lost or tally.mixed_up else 0


def page(o: Mapping[str, Any]) -> list[str]:
    """The markdown page."""
    m = o["metrics"]
    return [
        "# Serving: a load test over HTTP",
        "",
        f"{o['minutes']:g} minutes on the loopback, {o['clients']} clients that ask one thing after the other, and two "
        f"that upload prompts, ask and remove them. {o['prompts']} prompts on {MODEL}, float32: input prompts of 3 to "
        "40 virtual tokens, before and inside the text, deep ones, label words, heads, written texts; the bare model. "
        "Every answer is held against the one that its prompt gives alone.",
        "",
        "| requests | sent | answered |",
        "|---|---|---|",
        *(f"| {kind} | {n} | {o['answered'].get(kind, 0)} |" for kind, n in sorted(o["sent"].items())),
        f"| all | {sum(o['sent'].values())} | {sum(o['answered'].values())} |",
        "",
        f"* lost: {len(o['lost'])}; mixed up: {len(o['mixed_up'])}; told to come back (429): {o['told_to_wait']}",
        f"* scores are at most {o['furthest_score']:.1e} from those that are found alone; texts are equal",
        f"* {o['per_second']:.0f} requests a second, p50 {o['p50_ms']:.0f} ms, p99 {o['p99_ms']:.0f} ms; the clients, "
        "which check everything, and other work shared the machine, so these say little",
        f"* {m['engine_rows_total']} rows in {m['engine_steps_total']} passes, "
        f"{m['engine_rows_total'] / max(1, m['engine_steps_total']):.1f} a pass; {m['engine_written_tokens_total']} "
        f"tokens written in {m['engine_writing_steps_total']} steps; passes that failed: {m['engine_repeats_total']}",
        f"* resident memory of the server: {o['resident_mib']['after_first_requests']:.0f} MiB behind the first ones, "
        f"{o['resident_mib']['at_the_end']:.0f} MiB at the end",
        f"* stopped by SIGTERM with code {o['exit_code']}",
        "",
        *footer(o["command"], o["environment"]),
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
