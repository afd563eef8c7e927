"""One fault at one call of one command: what it leaves, and what the next command makes of that."""

from __future__ import annotations

import json
import re
import shutil
import signal
from pathlib import Path
from typing import Any

from commands import Ended, Reference, carried_out
from folders import beneath, checkpoints, content, entered, finished, is_hidden, snapshot
from injection import ERRORS, KILL, TERM
from scenarios import Scenario

_ENDED_BY = {KILL: {-signal.SIGKILL}, TERM: {-signal.SIGTERM, 128 + signal.SIGTERM}}


def referenced(scenario: Scenario, inputs: Path, scratch: Path) -> Reference:
    """Carry a scenario out undisturbed."""
    start = scratch / "start"
    shutil.copytree(inputs, start)
    for command in scenario.before:
        ended = carried_out(command, start)
        assert ended.code == 0, f"{scenario.name}: {command}: {ended.said}"
    if scenario.change is not None:
        scenario.change(start)
    shutil.copytree(start, scratch / "case")
    ended = carried_out(scenario.command, scratch / "case")
    assert ended.code == 0, f"{scenario.name}: {ended.said}"
    reference = Reference(start, snapshot(start), snapshot(scratch / "case"), ended.calls)
    shutil.rmtree(scratch / "case")
    return reference


def tried(scenario: Scenario, reference: Reference, fault: str, at: int, folder: Path) -> tuple[str, list[str]]:
    """One case: how the disturbed command has ended, and what was found wrong."""
    shutil.copytree(reference.start, folder)
    ended = carried_out(scenario.command, folder, fault, at)
    found = [*_wrong_end(ended, fault), *looked_over(folder, reference), *_not_rescued(ended, reference)]
    done, lines, steps = finished(folder), entered(folder), checkpoints(folder)
    command = scenario.command if scenario.again is None else scenario.again
    if scenario.verb == "run" and "--again" in scenario.command and not done:
        command = scenario.command.replace(" --again", "")
    after = carried_out(command, folder)
    if after.code != 0:
        found.append(f"the second command ended with {after.code}: {after.said[-400:]}")
        return _end(ended), found
    now = {n: its for n, its in snapshot(folder).items() if not (n.endswith(".part") and str(Path(n).parent) in done)}
    goods = [reference.new] + (
        [reference.old] if " --again" in scenario.command and command != scenario.command else []
    )
    good = goods[-1] if now == goods[-1] else goods[0]
    different = [n for n in sorted({*now, *good}) if now.get(n) != good.get(n)]
    if different:
        found.append(f"in the end these differ: {', '.join(different[:6])}")
    again = finished(folder)
    found += [f"{name} was done, and was written again" for name, its in done.items() if again.get(name) != its]
    if entered(folder)[: len(lines)] != lines:
        found.append("a line of the ledger is gone")
    if steps and sorted(after.begun)[-len(steps) :] < steps:
        found.append(f"checkpoints of {steps} steps, and trainings went on from {after.begun}")
    return _end(ended), found


def _end(ended: Ended) -> str:
    names = {0: "went on", 2: "told", None: "hung", 1: "defect", 70: "crashed"}
    return names.get(ended.code) or ("stopped" if ended.code in {c for its in _ENDED_BY.values() for c in its} else "?")


def _wrong_end(ended: Ended, fault: str) -> list[str]:
    allowed = {0, *_ENDED_BY.get(fault, ()), *([2] if fault in ERRORS else [])}
    if ended.code not in allowed:
        return [f"{fault}: it ended with {ended.code}: {ended.said[-600:]}"]
    if ended.code == 2 and (not re.search(r"^error: .+\Z", ended.said, re.M) or "Traceback" in ended.said):
        return [f"{fault}: it said: {ended.said[-600:]}"]
    return []


def _not_rescued(ended: Ended, reference: Reference) -> list[str]:
    """A prompt that is said to be safe elsewhere must be the one that was trained."""
    from trimtab.errors import TrimtabError
    from trimtab.storage import read_bundle

    if (said := re.search(r"is safe in the bundle (\S+?)\.$", ended.said, re.M)) is None:
        return []
    try:
        read_bundle(Path(said[1]))
    except TrimtabError as error:
        return [f"said to be safe, and is not: {error}"]
    prompts = [its for name, its in reference.new.items() if name.endswith("prompt.safetensors")]
    return [] if content(Path(said[1]) / "prompt.safetensors") in prompts else ["another prompt was rescued"]


def looked_over(folder: Path, reference: Reference) -> list[str]:
    """What is wrong in a folder that a fault has left."""
    from trimtab.errors import TrimtabError
    from trimtab.files import read_jsonl
    from trimtab.storage import read_bundle

    now, found = snapshot(folder), []
    for name, its in now.items():
        if any(part.startswith(".") for part in Path(name).parts):
            continue
        if name.endswith(".jsonl") and isinstance(its, str):
            read_jsonl(folder / name)  # what a kill has cut off is dropped
        elif isinstance(its, str) and its.startswith("broken"):
            found.append(f"{name} is {its}")
    for place in sorted({p.parent for p in folder.glob("**/*.json") if p.name in ("run.json", "bundle.json")}):
        name = place.relative_to(folder).as_posix()
        if name.startswith((".", "tmp")):
            continue
        goods = [beneath(known, name) for known in (reference.old, reference.new)]
        part = {n: its for n, its in beneath(now, name).items() if not is_hidden(Path(n), Path())}
        part.pop(f"{name}/resume.safetensors", None)  # the last to go
        if json.loads((place / "run.json").read_text())["status"] == "done" and part not in goods:
            differ = [n for n in {**part, **goods[1]} if part.get(n) != goods[1].get(n)]
            found.append(f"{name} is done, and is not what it should be: {', '.join(sorted(differ))}")
        try:
            read_bundle(place)
        except TrimtabError:
            continue
        prompt, about = f"{name}/prompt.safetensors", f"{name}/bundle.json"
        if not any(g.get(prompt) == part[prompt] and _same(g.get(about), part[about]) for g in goods):
            found.append(f"{name} is read as a bundle, and is a mixture")
    if (folder / "out").exists() and beneath(now, "out") not in [
        beneath(r, "out") for r in (reference.old, reference.new)
    ]:
        found.append("out is an export, and is not what it should be")
    return found


def _same(good: Any, got: Any) -> bool:
    """A bundle without its scores is as good."""
    return isinstance(good, dict) and got in (good, {k: v for k, v in good.items() if k != "metrics"})
