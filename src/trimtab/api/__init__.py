"""The verbs, as Python functions. The command line prints what these return."""

from __future__ import annotations

from trimtab.api.data import check_data, fetch_data, list_data
from trimtab.api.drafts import init
from trimtab.api.examining import doctor
from trimtab.api.exchange import export, import_prompt
from trimtab.api.inputs import Overrides, Recipe, tasks_of
from trimtab.api.inspecting import Preview, Shown, Validation, show, validate
from trimtab.api.landscapes import landscape
from trimtab.api.listing import LISTS, REGISTRIES, ls
from trimtab.api.studies import plan, report, study
from trimtab.api.training import run
from trimtab.api.using import evaluate, predict, reading_of, submit, take_task

__all__ = [
    "LISTS",
    "REGISTRIES",
    "Overrides",
    "Preview",
    "Recipe",
    "Shown",
    "Validation",
    "check_data",
    "doctor",
    "evaluate",
    "export",
    "fetch_data",
    "import_prompt",
    "init",
    "landscape",
    "list_data",
    "ls",
    "plan",
    "predict",
    "reading_of",
    "report",
    "run",
    "show",
    "study",
    "submit",
    "take_task",
    "tasks_of",
    "validate",
]
