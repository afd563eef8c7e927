"""`trimtab data`: fetch official data, list what can be fetched, check what lies in the data directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from trimtab.cli.console import AsJson, DataDir, Quiet, err, print_json, print_table, say
from trimtab.sizes import of_file

ACTIONS = ("fetch", "list", "check")


def command(
    action: Annotated[str, typer.Argument(help="fetch, list or check.")],
    names: Annotated[
        list[str] | None, typer.Argument(help="What to fetch or to check; see `trimtab data list`.")
    ] = None,
    data_dir: DataDir = None,
    accept_unverified: Annotated[
        bool, typer.Option("--accept-unverified", help="Also fetch what no SHA-256 is known of.")
    ] = False,
    again: Annotated[bool, typer.Option("--again", help="Fetch what is there, too, and replace it.")] = False,
    copies: Annotated[
        Path | None, typer.Option("--from", help="A folder where archives may lie already, by the names of the web.")
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="With check: record what lies there now.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Fetch official data with checksums, list what can be fetched, check what is there."""
    from trimtab import api
    from trimtab.errors import ConfigError, suggest

    if action not in ACTIONS:
        raise ConfigError(f"there is no action {action!r}.", where="data", fix=suggest(action, ACTIONS))
    if action == "fetch":
        told = Downloads(quiet)
        found = api.fetch_data(
            names or [], data_dir=data_dir, accept_unverified=accept_unverified, again=again, copies=copies, report=told
        )
        show: Any = _say_fetched
    elif action == "check":
        found, show = api.check_data(names or [], data_dir=data_dir, write=write), _say_checked
    else:
        found, show = api.list_data(data_dir=data_dir), _print_list
    if as_json:
        print_json(found)
    else:
        show(found)


class Downloads:
    """Events of downloads as lines on stderr, a line per tenth of a file."""

    def __init__(self, quiet: bool) -> None:
        self._quiet, self._tenth = quiet, -1

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Receive one event of `trimtab.fetching.fetch`. What is not verified is said even if quiet."""
        if event["event"] == "unverified":
            self._say(f"note: no SHA-256 is known of {event['url']}; found and recorded: {event['sha256']}")
        elif self._quiet:
            return
        elif event["event"] == "begin":
            self._tenth = -1
            self._say(f"{event['url']} ({size(event['bytes'])})")
        elif event["event"] == "retry":
            self._say(f"  {event['reason']}; next try in {event['seconds']:g} s")
        elif event["event"] == "progress" and event["of"]:
            tenth = 10 * event["got"] // event["of"]
            if tenth != self._tenth:
                self._tenth = tenth
                self._say(f"  {size(event['got'])} of {size(event['of'])}")
        elif event["event"] == "end":
            self._say(f"  {event['files']} files unpacked")

    def _say(self, line: str) -> None:
        err.print(line, markup=False, soft_wrap=True)


def size(count: int | None) -> str:
    """Bytes for a person.

    >>> size(None), size(999), size(4118001)
    ('size unknown', '999 B', '4.1 MB')
    """
    return "size unknown" if count is None else of_file(count)


def _say_fetched(found: list[dict[str, Any]]) -> None:
    for its in found:
        state = "there already" if its["there"] else "fetched"
        known = "" if its["verified"] else f", not verified, SHA-256 {its['sha256']}"
        say(f"{its['name']}: {its['url']} {state}{known}, {len(its['files'])} files")


def _say_checked(found: list[dict[str, Any]]) -> None:
    for its in found:
        more = f", {len(its['added'])} more are not recorded (--write)" if its["added"] else ""
        say(f"{its['name']}: {its['files']} files {'recorded' if its['new'] else 'as recorded'}{more}")


def _print_list(found: list[dict[str, Any]]) -> None:
    columns = ["name", "size", "SHA-256", "here", "license", "about"]
    rows = [
        [m["name"], size(m["bytes"]), "known" if m["verified"] else "not known", "yes" if m["recorded"] else "no",
         m["license"], m["about"]]
        for m in found
    ]  # fmt: skip
    print_table(columns, rows)
