"""A model card: README.md from what the run folder says of data, scores, seeds and limits, nothing made up.

Where the run belongs to a study whose report was written (study.json two folders above it), the card has the mean and
the standard deviation over the seeds of its line, as one seed says little.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

from trimtab.documents import dump_yaml
from trimtab.exporting import Export, Source, Written
from trimtab.files import read_json, write_text
from trimtab.registry import exports

SCORES = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "entity_f1": "entity F1",
    "exact_match": "exact match",
    "token_f1": "token F1",
    "rouge_l": "ROUGE-L",
    "f1": "F1",
    "p_at_1": "P@1",
    "p_at_10": "P@10",
    "mrr": "MRR",
    "matthews": "Matthews correlation",
    "loss": "loss",
}
"""Metrics that a card names in words; others stand by their own names."""


@final
@exports.register("card")
class Card(Export):
    """A model card (README.md) from the run folder.

    Args:
        license: an SPDX name such as apache-2.0, of the prompt; left out by default.
    """

    def __init__(self, *, license: str | None = None) -> None:
        self.license = license

    def write(self, sources: Sequence[Source], folder: Path) -> Written:
        (source,) = sources
        write_text(folder / "README.md", card(source, self.license))
        notes = [] if self.license else ["no license is given; name one: --to 'card: {license: apache-2.0}'."]
        return Written(({},), tuple(notes))


def card(source: Source, license: str | None) -> str:
    """The text of a card."""
    meta, path = source.bundle.metadata, source.path
    record = read_json(path / "run.json") if (path / "run.json").exists() else {}
    backbone, task = meta["backbone"], meta["task"]
    front = {
        **({"license": license} if license else {}),
        "base_model": backbone["model"],
        "library_name": "trimtab",
        "tags": ["soft-prompt", str(meta["prompt"].get("kind", "prompt"))],
    }
    name = task.get("name") or source.name
    parts = [
        f"---\n{dump_yaml(front)}---\n\n# {name}: a soft prompt for {backbone['model']}",
        _about(source),
        _scores(source, record),
        _use(source),
        _data(record, task),
        _limits(source, record, license),
        _provenance(meta, record),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _about(source: Source) -> str:
    meta = source.bundle.metadata
    numbers = sum(v.size for v in source.bundle.tensors.values())
    parts = ", ".join(f"`{n}` {list(v.shape)}" for n, v in sorted(source.bundle.tensors.items()) if v.size)
    tuned = " The backbone was trained with it, and its weights lie beside it." if source.bundle.tuned else ""
    state = "trained" if source.bundle.tuned else "frozen"
    return (
        f"{numbers:,} numbers ({meta['prompt'].get('kind', 'prompt')}: {parts}) for a {state} "
        f"`{meta['backbone']['model']}`; answers are read by `{meta['readout']['kind']}`.{tuned}"
    )


def _scores(source: Source, record: Mapping[str, Any]) -> str:
    found = record.get("metrics") or source.bundle.metadata.get("metrics") or {}
    if not found:
        return "## Scores\n\nNone are known: the folder is a bundle without its run's history."
    lines = ["## Scores", "", "| | dev | test |", "|---|---|---|"]
    names = [k for k, v in found.get("test", {}).items() if isinstance(v, int | float) and k != "rows"]
    lines += [
        f"| {SCORES.get(n, n)} | {_number(found.get('dev', {}).get(n))} | {_number(found['test'][n])} |" for n in names
    ]
    lines.append(f"| rows | {found.get('dev', {}).get('rows', '-')} | {found['test'].get('rows', '-')} |")
    baselines = {k: v for k, v in record.get("baselines", {}).items() if v is not None}
    if baselines:
        said = ", ".join(f"{k.replace('_', ' ')} {_number(v)}" for k, v in baselines.items())
        lines += ["", f"Baselines on test ({SCORES.get(record.get('metric', ''), record.get('metric'))}): {said}."]
    lines += ["", "One run; dev chose the checkpoint, test chose nothing."]
    return "\n".join([*lines, *_line(source)])


def _line(source: Source) -> list[str]:
    """What the study of a run says of all seeds of its line."""
    study = source.path.resolve().parent.parent / "study.json"
    if not study.is_file():
        return []
    facts = read_json(study)
    for line in facts.get("lines", []):
        if any(its.get("run") == source.path.name for its in line.get("scores", [])):
            spread = "" if line.get("sd") is None else f" ± {line['sd']:.3f}"
            low, high = (_number(line.get(end)) for end in ("min", "max"))
            metric = SCORES.get(line["metric"], line["metric"])
            return [
                "",
                f"In the study `{facts.get('study')}` the same setting ({line['label']}, {line['setting']}) has a test "
                f"{metric} of {line['mean']:.3f}{spread} over {line['n']} seeds, from {low} to {high} (mean ± sample "
                "standard deviation).",
            ]
    return []


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.3f}"


def _use(source: Source) -> str:
    task = source.bundle.metadata["task"]
    template = task["template"] if isinstance(task["template"], str) else task.get("rendered", "")
    words = "\n".join(f"* {c}: {', '.join(w)}" for c, w in task["label_words"].items())
    shown = f"\n\nThe text is written as\n\n    {template.replace(chr(10), chr(10) + '    ')}\n"
    classes = f"\nwith the label words\n\n{words}" if words else ""
    call = f"print(predictor.predict([{json.dumps(_example(source))}]))"
    code = f'```python\nimport trimtab\n\npredictor = trimtab.load("prompt")\n{call}\n```'
    copied = "Copy `bundle.json` and `*.safetensors` of the run to one folder, here `prompt/`:"
    return f"## How to use it\n\n{copied}\n\n{code}{shown}{classes}".rstrip()


def _example(source: Source) -> dict[str, str]:
    from trimtab.template_pieces import read_pieces

    task = source.bundle.metadata["task"]
    pieces = read_pieces(task.get("rendered") or str(task["template"]), "task.template")
    return {piece.value: "..." for piece in pieces if piece.kind == "field"}


def _data(record: Mapping[str, Any], task: Mapping[str, Any]) -> str:
    if not record:
        return ""
    rows = ", ".join(f"{n} {split}" for split, n in record.get("rows", {}).items())
    cut = sum(record.get("truncated", {}).values())
    classes = f" Classes: {', '.join(task['label_words'])}." if task["label_words"] else ""
    fingerprint = record.get("fingerprints", {}).get("data", "")
    return (
        f"## Data\n\n`{record.get('task')}`: {rows} rows, {cut} of them truncated; SHA-256 of the data `{fingerprint}`."
        f"{classes}"
    )


def _limits(source: Source, record: Mapping[str, Any], license: str | None) -> str:
    meta = source.bundle.metadata
    limits = [
        f"It works on `{meta['backbone']['model']}` with the fingerprint `{meta['backbone']['fingerprint'][:16]}` and "
        "its tokenizer alone; on any other model its vectors mean nothing, and trimtab refuses it.",
        f"Texts are cut where more than {meta['task']['max_length']} positions would be needed, slots included.",
        f"It was trained in {record.get('environment', {}).get('dtype', 'an unknown dtype')}; other dtypes and devices "
        "change the last bits of scores.",
        "The answers are those of the classes above, whatever the text is about."
        if meta["task"]["label_words"]
        else "What it writes or marks was learned from the rows above, and nothing checks it.",
        "It has whatever biases the backbone and the data have; nothing was measured here beyond the scores above.",
    ]
    if not license:
        limits.append("No license was stated for it; that of the backbone and of the data hold as well.")
    return "## Limits\n\n" + "\n".join(f"* {limit}" for limit in limits)


def _provenance(meta: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    its = meta.get("provenance", {})
    environment = record.get("environment") or its.get("environment") or {}
    said = [f"* {k}: {v}" for k, v in {"run": its.get("run"), "created": its.get("created")}.items() if v]
    if its.get("seeds"):
        said.append("* seeds: " + ", ".join(f"{k} {v}" for k, v in its["seeds"].items()))
    if record.get("steps") is not None:
        said.append(f"* best step {record.get('best_step')} of {record['steps']}, {record.get('seconds', 0):.0f} s")
    said += [f"* {k}: {v}" for k, v in environment.items()]
    return "## Provenance\n\n" + "\n".join(said) if said else ""
