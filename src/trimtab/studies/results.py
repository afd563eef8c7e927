"""What a study has found, in one small file that can lie beside code: `results.jsonl.gz`.

The first line names the plan; each following line is a run that has ended: its ledger line, its record, its learning
curve, and the sharpness that was measured. Prompts and predictions stay in the run folders. A study goes on from such a
file on another machine (`trimtab study STUDY --from FILE`): the runs in it count as ended and are not trained again.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from trimtab.errors import BundleError, ConfigError
from trimtab.files import write_atomically
from trimtab.studies.results_schema import check_results

if TYPE_CHECKING:
    from trimtab.studies.folder import StudyFolder, StudyRun

FILE = "results.jsonl.gz"
SCHEMA = 1
MAX_BYTES = 1 << 30
"""Of an unpacked file; a study of 10,000 runs takes about 40 MB."""
_FIX = "Take the file that lies beside the report of the study."
_OF_THE_MACHINE = ("working_directory",)


def write_results(folder: StudyFolder, runs: Sequence[StudyRun]) -> None:
    """Write the file of a study into its folder; of equal studies it is equal to the byte.

    Args:
        runs: all runs of the study, as the folder reads them.

    Raises:
        StorageError: it cannot be written.
    """
    lines = "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in _lines(folder, runs))
    write_atomically(folder.path / FILE, lambda file: file.write(gzip.compress(lines.encode(), mtime=0)))


def read_results(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The head and the runs of such a file.

    Raises:
        BundleError: it is not one, is of another schema version, damaged, or larger than `MAX_BYTES`.
    """
    what = f"this is no {FILE} of a study"
    try:
        with gzip.open(path) as file:
            data = file.read(MAX_BYTES + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise BundleError(f"{what}, or it is damaged.", where=str(path), fix=_FIX) from None
    except OSError as error:
        raise BundleError(f"{what}: {error.strerror}.", where=str(path), fix=_FIX) from None
    if len(data) > MAX_BYTES:
        raise BundleError(f"{what}: unpacked it has more than {MAX_BYTES:,} bytes.", where=str(path), fix=_FIX)
    try:
        head, *runs = [json.loads(line) for line in data.splitlines()]
        check_results(head, runs)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        said = f"the key {key!r} must be otherwise: {first['msg']}"
        raise BundleError(f"{what}, or it is damaged ({said}).", where=str(path), fix=_FIX) from None
    except (ValueError, RecursionError):
        raise BundleError(f"{what}, or it is damaged.", where=str(path), fix=_FIX) from None
    if head.get("schema") != SCHEMA:
        what = f"the results have schema {head.get('schema')!r}, this version of trimtab reads {SCHEMA}."
        raise BundleError(what, where=str(path), fix="Use the version they were made with.")
    return head, runs


def check_same_plan(head: Mapping[str, Any], plan: Mapping[str, Any], path: Path) -> None:
    """Compare the plan of a file with that of the study that is to go on from it.

    Raises:
        ConfigError: they differ.
    """
    if head["plan"].get("digest") != plan["digest"]:
        raise ConfigError(
            f"these results are of another plan, {head['plan'].get('digest')}; the study's is {plan['digest']}.",
            where=str(path),
            fix="Use the study file that they were made with, or --extend to take the runs that both have.",
        )


def _lines(folder: StudyFolder, runs: Sequence[StudyRun]) -> Iterator[dict[str, Any]]:
    plan = folder.plan
    yield {"schema": SCHEMA, "name": plan["name"], "plan": {k: plan[k] for k in ("digest", "sources") if k in plan},
           "packs": folder.packs(), "fits": folder.fits()}  # fmt: skip
    ledger = folder.ledger()
    for run in runs:
        if run.status != "missing":
            record = {k: v for k, v in run.record.items() if k not in _OF_THE_MACHINE}
            kept = {"record": record, "events": run.events(), "sharpness": run.sharpness()}
            yield {"line": ledger[run.key], **{k: v for k, v in kept.items() if v}}
