"""What there is."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from trimtab.backbones.loading import embedded_models
from trimtab.errors import ConfigError, suggest
from trimtab.files import understood
from trimtab.registry import Registry, checks, exports, families, prompts, readouts, regularizers, tasks, trackers
from trimtab.storage import RunFolder, list_runs

REGISTRIES: dict[str, Registry] = {
    "tasks": tasks,
    "prompts": prompts,
    "readouts": readouts,
    "regularizers": regularizers,
    "backbones": families,
    "trackers": trackers,
    "exports": exports,
    "checks": checks,
}


LISTS = ("runs", *REGISTRIES, "presets", "recipes")


def ls(
    what: str = "runs", *, runs_dir: str | Path = "runs", recipes_dir: str | Path = "recipes"
) -> list[dict[str, Any]]:
    """What there is: `runs`, `tasks`, `prompts`, `readouts`, `regularizers`, `backbones`, `trackers`, `exports`,
    `checks`, `presets` or `recipes`."""
    if what not in LISTS:
        raise ConfigError(f"{what!r} cannot be listed.", where="ls", fix=suggest(what, LISTS))
    if what == "runs":
        return [_run_line(folder) for folder in list_runs(Path(runs_dir))]
    if what == "recipes":
        files = sorted(Path(recipes_dir).rglob("*.yaml"))
        return [{"recipe": str(f), "about": _first_comment(f)} for f in files]
    if what == "presets":
        from trimtab.drafting.presets import presets

        return [{"architecture": a, "prompt": method, **asdict(preset)} for (a, method), preset in presets().items()]
    registry = REGISTRIES[what]
    lines = [
        {"kind": kind, "about": registry.summary(kind), "options": list(registry.options(kind))}
        for kind in registry.kinds()
    ]
    if what == "backbones":
        lines += [{"kind": m, "about": "embedded model, ready to use", "options": []} for m in embedded_models()]
    return lines


def _run_line(folder: RunFolder) -> dict[str, Any]:
    with understood(folder.path / "run.json"):
        return _shown_run(folder, folder.record)


def _shown_run(folder: RunFolder, record: dict[str, Any]) -> dict[str, Any]:
    metrics, headline = record.get("metrics", {}), record.get("metric", "accuracy")
    return {
        "run": folder.path.name,
        "status": record.get("status"),
        "task": record.get("task"),
        "prompt": record.get("prompt"),
        "backbone": record.get("backbone"),
        "metric": headline,
        "dev": metrics.get("dev", {}).get(headline),
        "test": metrics.get("test", {}).get(headline),
        "started": record.get("started"),
    }


def _first_comment(path: Path) -> str:
    first = path.read_text(encoding="utf-8").split("\n", 1)[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""
