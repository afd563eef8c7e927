"""To other programs' formats, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trimtab.errors import ConfigError
from trimtab.exporting import Source
from trimtab.exporting import export as write_export
from trimtab.exporting.from_peft import Task as ImportedTask
from trimtab.exporting.from_peft import import_peft
from trimtab.storage import find_run


def export(
    runs: Sequence[str | Path],
    to: str | Mapping[str, Any],
    out: str | Path,
    *,
    names: Sequence[str] = (),
    model: str | None = None,
    runs_dir: str | Path = "runs",
    again: bool = False,
) -> dict[str, Any]:
    """Write trained prompts in another program's format.

    Args:
        runs: folders of runs or bundles, or run ids under `runs_dir`; one, where the format holds no more.
        to: `peft`, `vllm`, `baked`, `kv` or `card`, or a mapping with options: `"baked: {dtype: bfloat16}"`.
        out: the folder to be written; whole or not at all.
        names: of the prompts, in their order; by default those of their tasks.
        model: where the backbone lies now; by default the one the bundle names.
        again: replace an earlier export.

    Returns:
        `folder`, `export`, `files` and `notes`: what to know before it is used.

    Raises:
        BundleError: the format cannot express the prompt; the message says why and what to do.
        TrimtabError: an unknown format, a folder in the way, a backbone that cannot be loaded, or a disk that refuses.
    """
    if names and len(names) != len(runs):
        what = f"every run needs a name, got {len(names)} for {len(runs)} runs."
        raise ConfigError(what, where="--name", fix="Give as many, or none.")
    folders = [find_run(str(run), Path(runs_dir)) for run in runs]
    named: Sequence[str | None] = names or [None] * len(runs)
    sources = [Source.read(folder, name, model) for folder, name in zip(folders, named, strict=True)]
    return write_export(sources, to, Path(out), again=again)


def import_prompt(
    folder: str | Path,
    out: str | Path,
    *,
    template: str | None = None,
    label_words: Any = None,
    readout: str | Mapping[str, Any] | None = None,
    name: str = "imported",
    model: str | None = None,
    again: bool = False,
) -> dict[str, Any]:
    """Make a bundle of a prompt that PEFT has trained, or that was exported to it.

    Args:
        folder: that PEFT has written; one that trimtab exported knows its task.
        out: where the bundle goes.
        template: how the prompt is used, beginning with `{prompt}`; of folders that trimtab did not write.
        label_words: a mapping class -> word or words, where it classifies; else the model writes.
        readout: how answers are read; by default as the backbone's family does.
        name: of the task.
        model: the backbone; by default the one that the folder names.
        again: replace an earlier bundle.

    Returns:
        `folder`, `prompt` (its kind) and `notes`.

    Raises:
        TrimtabError: see `trimtab.exporting.from_peft.import_peft`.
    """
    if template is None and (label_words or readout):
        raise ConfigError("label words and a readout belong to a template.", where="import", fix="Give --template.")
    if label_words is not None and not (isinstance(label_words, Mapping) and label_words):
        fix = "Write {class: word, class: [word, word]}."
        raise ConfigError(f"label words are words for each class, got {label_words!r}.", where="--label-words", fix=fix)
    task = None if template is None else ImportedTask(template, label_words, readout, name)
    return import_peft(Path(folder), Path(out), task, model=model, again=again)
