"""The command line: one file per verb. Exit codes: 0 done, 2 the user's mistake, 1 ours."""

from __future__ import annotations

import sys
import time
from typing import NoReturn

import typer
from typer.exceptions import TyperException

from trimtab.cli import (
    data,
    doctor,
    evaluate,
    export,
    import_,
    init,
    landscape,
    ls,
    predict,
    report,
    run,
    serve,
    show,
    study,
    take,
    validate,
)
from trimtab.cli.console import IS_FIRST, complain, plain_help
from trimtab.errors import TrimtabError

VERBS = (
    run, study, report, evaluate, predict, take, export, import_, serve, landscape, init, show, validate, doctor, ls,
    data,
)  # fmt: skip

app = typer.Typer(
    name="trimtab",
    help="Soft prompts for frozen language models: train, compare, use, serve.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=plain_help(),
    context_settings={"help_option_names": ["-h", "--help"]},
)
NAMES = {verb.__name__.rpartition(".")[2].rstrip("_"): verb for verb in VERBS}
for name, verb in NAMES.items():
    app.command(name=name)(verb.command)


def main(argv: list[str] | None = None) -> None:
    """Entry point. `--debug`, anywhere, shows tracebacks."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"] or ["--help"]
    try:
        code = app(arguments, standalone_mode=False)
    except TrimtabError as error:
        if debug:
            raise
        complain(str(error))
        _refuse()
    except TyperException as error:  # the command line cannot be read
        complain(f"{error.format_message().rstrip('.')}. See trimtab{_verb(arguments)} --help.")
        _refuse()
    except (KeyboardInterrupt, typer.Abort):
        complain("interrupted")
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:  # the system's refusal where none was foreseen: a name too long, a folder without access
        if debug:
            raise
        what = f"{error.strerror}: {error.filename}" if error.filename else str(error)
        complain(f"the system refuses: {what}. Run again with --debug for a traceback.", always=True)
        _refuse()
    except Exception as error:
        if debug:
            raise
        what = f"{type(error).__name__}: {error}"
        complain(f"trimtab has a defect: {what}. Run again with --debug for a traceback.", always=True)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _refuse() -> NoReturn:
    if not IS_FIRST:
        time.sleep(2)  # launchers end all processes when one ends: let the first finish its sentence
    sys.exit(2)


def _verb(arguments: list[str]) -> str:
    return f" {arguments[0]}" if arguments and arguments[0] in NAMES else ""
