"""`trimtab import`: prompts that PEFT has trained, as bundles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trimtab.cli.console import AsJson, err, print_json, say


def command(
    folder: Annotated[Path, typer.Argument(help="A folder that PEFT has written, or `trimtab export --to peft`.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the bundle goes.")],
    template: Annotated[
        str | None, typer.Option("--template", help='How it is used, such as "{prompt} {text} {answer}".')
    ] = None,
    label_words: Annotated[
        str | None, typer.Option("--label-words", help='Where it classifies: "{good: great, bad: [awful, poor]}".')
    ] = None,
    readout: Annotated[str | None, typer.Option("--readout", help="How answers are read, if not as usual.")] = None,
    name: Annotated[str, typer.Option("--name", help="Of the task.")] = "imported",
    model: Annotated[str | None, typer.Option("--model", help="The backbone, if not the one it names.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Replace an earlier bundle.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a bundle of a prompt from PEFT: prompt tuning, P-tuning or prefix tuning, from safetensors."""
    from trimtab import api
    from trimtab.overrides import parse_overrides

    words = None if label_words is None else parse_overrides([f"words={label_words}"])["words"]
    reading = None if readout is None else parse_overrides([f"readout={readout}"])["readout"]
    found = api.import_prompt(
        folder, out, template=template, label_words=words, readout=reading, name=name, model=model, again=again
    )
    for note in found["notes"]:
        err.print(f"note: {note}", markup=False, soft_wrap=True)
    if as_json:
        print_json(found)
    else:
        say(f"bundle  {found['folder']}")
