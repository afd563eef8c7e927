"""`trimtab show`: examples as the backbone will see them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from trimtab.cli.console import AsJson, DataDir, Overrides, out, print_json

if TYPE_CHECKING:
    from trimtab.api import Shown


def command(
    recipe: Annotated[Path, typer.Argument(help="A recipe file.")],
    overrides: Overrides = None,
    n: Annotated[int, typer.Option("-n", min=1, help="How many examples.")] = 2,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show training examples with prompt slots, answer slot, label words and truncation."""
    from trimtab import api

    shown = api.show(recipe, overrides or [], n=n, data_dir=data_dir)
    if as_json:
        print_json(
            {
                "parameters": shown.parameters,
                "examples": [
                    {
                        "id": s.example.id,
                        **({"task": s.task} if s.task else {}),
                        **({"part": s.part} if s.part else {}),
                        "label": s.example.label,
                        "label_words": list(s.label_words),
                        "tags": list(s.tags),
                        "tokens": list(s.tokens),
                        "slots": list(s.encoded.slots),
                        "decoder_tokens": list(s.decoder_tokens),
                        "decoder_slots": list(s.encoded.decoder_slots),
                        "special": list(s.special),
                        "answer_at": list(s.encoded.answer_at),
                        "dropped": s.encoded.dropped,
                    }
                    for s in shown.examples
                ],
            }
        )
        return
    counts = shown.parameters
    out.print(f"{counts['trained']:,} parameters trained, {counts['kept']:,} kept")
    for s in shown.examples:
        cut = f", {s.encoded.dropped} tokens cut off" if s.encoded.dropped else ""
        answer = f"{len(s.tags)} of {len(s.example.tags)} words read" if s.tags else f"label {s.example.label!r}"
        part = f", {s.part}" if s.part else ""
        of = f"{s.task}  " if s.task else ""
        out.print(Text(f"{of}{s.example.id}  {answer}{part}, {len(s.tokens)} tokens{cut}", style="bold"))
        line = Text("  ")
        slots = {position: i for i, position in enumerate(s.encoded.slots, 1)}
        answer = f"<answer: {'|'.join(s.label_words)}>"
        tags = dict(zip(s.encoded.answer_at, s.tags, strict=False))
        for position, token in enumerate([*s.tokens, ""]):
            if position == s.encoded.answer_slot and s.label_words:
                line.append(answer, style="green").append(" ")
            if position in slots:
                line.append(f"<P{slots[position]}>", style="cyan").append(" ")
            elif token and not 0 <= s.encoded.answer_slot <= position < s.encoded.answer_slot + s.answer_tokens:
                style = "" if position in s.encoded.eligible else "magenta" if position in s.special else "dim"
                line.append(token.replace("\n", "\\n"), style=style)
                if position in tags:
                    line.append(f"/{tags[position]}", style="dim" if tags[position] == "O" else "green")
                line.append(" ")
        out.print(line, soft_wrap=True)
        if s.decoder_tokens:
            out.print(_decoder(s), soft_wrap=True)


def _decoder(shown: Shown) -> Text:
    """What the decoder reads: slots by their row of the prompt, the rest as it is."""
    line = Text("  decoder: ")
    slots = {position: i for i, position in enumerate(shown.encoded.decoder_slots, 1)}
    for position, token in enumerate(shown.decoder_tokens):
        if position in slots:
            line.append(f"<P{slots[position]}>", style="cyan").append(" ")
        else:
            line.append(token, style="dim").append(" ")
    return line
