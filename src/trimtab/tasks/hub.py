"""Tables of the Hugging Face hub as files: `hub:OWNER/NAME?split=train&config=rte&revision=abc123`.

They come through the library `datasets` (extra `hub`), are written down once as JSON lines, and are read from there
ever after, without the network: under `~/.cache/trimtab/hub`, or `TRIMTAB_CACHE`. So name a revision where it matters
which one it is. Class labels are written by their names, unknown ones (-1) as nothing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from trimtab.errors import DataError, suggest
from trimtab.files import write_jsonl

SCHEME = "hub:"
_KEYS = ("split", "config", "revision")


def hub_file(address: str) -> Path:
    """The file of a table, which is written first if it is not there.

    Raises:
        DataError: an address of another form, no `datasets`, or a dataset that cannot be had.
    """
    name, options = _parsed(address)
    cache = Path(os.environ.get("TRIMTAB_CACHE") or Path.home() / ".cache" / "trimtab")
    digest = hashlib.sha256(address.encode()).hexdigest()[:12]
    path = cache / "hub" / f"{name.rpartition('/')[2]}-{options['split']}-{digest}.jsonl"
    if not path.exists():
        write_jsonl(path, _rows(address, name, options))
    return path


def _parsed(address: str) -> tuple[str, dict[str, str]]:
    name, _, query = address.removeprefix(SCHEME).partition("?")
    given = {key: values[-1] for key, values in parse_qs(query).items()}
    form = f"Write {SCHEME}OWNER/NAME?split=train, and where needed &config=NAME&revision=COMMIT."
    for key in given:
        if key not in _KEYS:
            raise DataError(f"there is no option {key!r}.", where=address, fix=suggest(key, _KEYS))
    if not name or "split" not in given:
        raise DataError("a table of the hub has a name and a split.", where=address, fix=form)
    return name, given


def _rows(address: str, name: str, options: Mapping[str, str]) -> list[dict[str, Any]]:
    try:
        from datasets import load_dataset
    except ImportError:
        what = "reading tables of the hub needs the library datasets."
        raise DataError(what, where=address, fix="pip install 'trimtab[hub]'") from None
    try:
        table = load_dataset(name, options.get("config"), split=options["split"], revision=options.get("revision"))
        labels = {column: its for column, its in table.features.items() if hasattr(its, "int2str")}
        return [{c: _said(v, labels.get(c)) for c, v in row.items()} for row in table]
    except Exception as error:  # of many kinds, from that library and those below it
        reason = (" ".join(str(error).split()) or type(error).__name__).rstrip(".")
        what = f"the table cannot be had: {reason}."
        raise DataError(what, where=address, fix="Check name, config and split.") from error


def _said(value: Any, label: Any) -> Any:
    """A cell; a class by its name."""
    if label is None or not isinstance(value, int):
        return value
    return label.int2str(value) if value >= 0 else None
