"""The data directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trimtab.api.inputs import places_of
from trimtab.errors import ConfigError, suggest
from trimtab.fetching import fetch
from trimtab.fetching.manifests import manifest_of, manifests
from trimtab.fetching.records import check as check_records
from trimtab.fetching.records import recorded, refuse_changes
from trimtab.training.loop import Report


def fetch_data(
    names: Sequence[str],
    *,
    data_dir: str | Path | None = None,
    accept_unverified: bool = False,
    again: bool = False,
    copies: str | Path | None = None,
    report: Report | None = None,
) -> list[dict[str, Any]]:
    """Download official data into the data directory, each file with the right SHA-256.

    Args:
        names: of manifests, see `list_data`; or files of one's own of that form.
        accept_unverified: also what no SHA-256 is known of.
        again: fetch what is there, too.
        copies: a folder where archives may lie already.
        report: receives events, see `trimtab.fetching.fetch`.

    Raises:
        TrimtabError: an unknown name, an unknown hash, a mismatch, a server or a disk that refuses.
    """
    data, wanted = _data_folder(data_dir), [manifest_of(name) for name in names]
    if not wanted:
        raise ConfigError("name what shall be fetched.", where="data fetch", fix=suggest("", manifests()))
    folder = None if copies is None else Path(copies)
    options: dict[str, Any] = {
        "accept_unverified": accept_unverified,
        "again": again,
        "copies": folder,
        "report": report,
    }
    return [{"name": m.name, **its.as_json()} for m in wanted for its in fetch(m, data, **options)]


def list_data(*, data_dir: str | Path | None = None) -> list[dict[str, Any]]:
    """What can be fetched: name, size, license, whether every SHA-256 is known, and whether it is recorded here."""
    data = places_of(data_dir).data
    there = [] if data is None else recorded(data)
    return [
        {"name": m.name, "about": m.about, "bytes": m.bytes, "license": m.license, "verified": m.is_verified,
         "recorded": m.name in there, "homepage": m.homepage}
        for m in manifests().values()
    ]  # fmt: skip


def check_data(
    names: Sequence[str] = (), *, data_dir: str | Path | None = None, write: bool = False
) -> list[dict[str, Any]]:
    """Compare the data directory with its records; write one for what has none.

    Raises:
        DataError: a file has changed or is gone; the message names it.
    """
    data = _data_folder(data_dir)
    found = check_records(data, names, write=write)
    refuse_changes(found, data)
    return [its.as_json() for its in found]


def _data_folder(data_dir: str | Path | None) -> Path:
    data = places_of(data_dir).data
    if data is None:
        raise ConfigError("no data directory is set.", where="data", fix="Give --data-dir or set TRIMTAB_DATA.")
    return data
