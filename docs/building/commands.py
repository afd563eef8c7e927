"""Directive `commands`: a section for each verb of the command line, from the definitions that typer reads."""

from __future__ import annotations

import inspect
import re
from typing import Any

import typer

from building.directive import WrittenByCode, escaped, table
from trimtab.cli import app as command_line


def verbs() -> dict[str, Any]:
    """Name -> command, in the order of `trimtab --help`."""
    group = typer.main.get_command(command_line)
    return dict(group.commands)  # type: ignore[attr-defined]


def section(name: str, command: Any) -> str:
    """Heading, usage, help, arguments and options of a verb."""
    context = command.make_context(name, [], resilient_parsing=True)
    pieces = [re.sub("[{}]", "", piece).upper() for piece in command.collect_usage_pieces(context)]
    usage = " ".join(["trimtab", name, *pieces])
    rows = [_line(p, context) for p in command.params if not getattr(p, "hidden", False)]
    text = marked(inspect.cleandoc(command.help or ""))
    return "\n\n".join([f"## {name}", text, f"```text\n{usage}\n```", table(["option", "meaning", "default"], rows)])


def marked(text: str) -> str:
    """Help as Markdown, its options as code: in prose two dashes would become one.

    >>> marked("an id under --runs-dir, `--to peft`")
    'an id under `--runs-dir`, `--to peft`'
    """
    parts = text.split("`")
    parts[::2] = [re.sub(r"(?<!\S)--[a-z][a-z-]*", r"`\g<0>`", part) for part in parts[::2]]
    return escaped("`".join(parts))


def _line(parameter: Any, context: Any) -> list[str]:
    """How it is written, what it means, what it is if it is left out."""
    is_option = parameter.param_type_name == "option"
    written = ", ".join(parameter.opts) if is_option else (parameter.metavar or str(parameter.name).upper())
    default = parameter.get_default(context)
    shown = "required" if parameter.required else "" if default in (None, False, [], ()) else f"`{default}`"
    if getattr(parameter, "envvar", None):
        shown += f" or `{parameter.envvar}`"
    return [f"`{written}`".replace("|", "\\|"), marked(parameter.help or ""), shown]


class Commands(WrittenByCode):
    """All verbs."""

    def markdown(self) -> str:
        return "\n\n".join(section(name, command) for name, command in verbs().items())


def setup(app: Any) -> dict[str, Any]:
    """Make the directive known to Sphinx."""
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True}
