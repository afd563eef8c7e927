"""From a manifest to files in the data directory."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from tests.unit.fetching.conftest import Web, zipped
from tests.unit.refusals import refused
from trimtab.errors import BusyError, DataError, StorageError
from trimtab.fetching import fetch, unpacking
from trimtab.fetching.download import Waits
from trimtab.fetching.records import check, read_record
from trimtab.files import hold

FAST = Waits(first=0.001)
FILES: dict[str, str | bytes] = {"CB/train.jsonl": "t" * 100, "CB/dev.jsonl": "d", "CB/README": "r"}


def files(data: Path) -> dict[str, str]:
    """What lies in the data directory, records and locks aside."""
    return {
        p.relative_to(data).as_posix(): p.read_text()
        for p in sorted(data.rglob("*"))
        if p.is_file() and ".trimtab" not in p.parts
    }


def own(data: Path) -> list[str]:
    return sorted(p.relative_to(data / ".trimtab").as_posix() for p in (data / ".trimtab").rglob("*") if p.is_file())


@pytest.fixture
def toy(web: Web) -> Any:
    web.serve("cb.zip", zipped(FILES))
    web.serve("words.txt", b"sun\n")

    def make(**more: Any) -> Any:
        archive = web.archive("cb.zip", into="toy/CB", inside="CB", files=("train.jsonl", "dev.jsonl"), **more)
        return web.manifest(archive, web.archive("words.txt"))

    return make


def test_files_come_into_their_places_and_are_recorded(toy: Any, web: Web, tmp_path: Path) -> None:
    events: list[str] = []
    found = fetch(toy(), tmp_path, waits=FAST, report=lambda e: events.append(e["event"]))
    assert files(tmp_path) == {"toy/CB/dev.jsonl": "d", "toy/CB/train.jsonl": "t" * 100, "toy/words.txt": "sun\n"}
    assert own(tmp_path) == ["toy.json"], "no download, nothing half unpacked"
    assert [f.was_there for f in found] == [False, False]
    assert found[0].files == ("toy/CB/dev.jsonl", "toy/CB/train.jsonl")
    assert [e for e in events if e != "progress"] == ["begin", "end"] * 2
    assert [(c.name, c.files, c.changed, c.added) for c in check(tmp_path)] == [("toy", 3, (), ())]


def test_what_was_fetched_is_not_fetched_again_unless_asked(toy: Any, web: Web, tmp_path: Path) -> None:
    fetch(toy(), tmp_path, waits=FAST)
    asked = len(web.asked)
    assert all(f.was_there for f in fetch(toy(), tmp_path, waits=FAST))
    assert len(web.asked) == asked
    fetch(toy(), tmp_path, waits=FAST, again=True)
    assert len(web.asked) == 2 * asked
    (tmp_path / "toy" / "words.txt").unlink()
    assert [f.was_there for f in fetch(toy(), tmp_path, waits=FAST)] == [True, False]


def test_a_file_that_was_changed_is_an_error(toy: Any, web: Web, tmp_path: Path) -> None:
    fetch(toy(), tmp_path, waits=FAST)
    place = tmp_path / "toy" / "CB" / "dev.jsonl"
    place.write_text("edited")
    with refused(DataError, "the file has changed since it was fetched", where=str(place), fix="--again"):
        fetch(toy(), tmp_path, waits=FAST)
    fetch(toy(), tmp_path, waits=FAST, again=True)
    assert place.read_text() == "d"


def test_files_of_others_are_not_overwritten_and_nothing_is_loaded_for_that(toy: Any, web: Web, tmp_path: Path) -> None:
    place = tmp_path / "toy" / "CB" / "train.jsonl"
    place.parent.mkdir(parents=True)
    place.write_text("mine")
    with refused(DataError, "here lies a file that was not fetched", where=str(place), fix="Use it as it is"):
        fetch(toy(), tmp_path, waits=FAST)
    assert web.asked == []
    assert files(tmp_path) == {"toy/CB/train.jsonl": "mine"}


def test_files_that_patterns_find_are_not_overwritten_either(web: Web, tmp_path: Path) -> None:
    web.serve("cb.zip", zipped(FILES))
    manifest = web.manifest(web.archive("cb.zip", into="toy", inside="CB", files=("*.jsonl",)))
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "dev.jsonl").write_text("mine")
    with refused(
        DataError, "here lies a file that was not fetched", where=str(tmp_path / "toy" / "dev.jsonl"), fix="again"
    ):
        fetch(manifest, tmp_path, waits=FAST)
    assert files(tmp_path) == {"toy/dev.jsonl": "mine"}


def test_an_unknown_hash_must_be_accepted_and_is_told_and_recorded(web: Web, tmp_path: Path) -> None:
    web.serve("words.txt", b"sun\n")
    manifest = web.manifest(web.archive("words.txt", sha256=None, bytes=None))
    what = f"no SHA-256 is known of {web.url}/words.txt"
    with refused(DataError, what, where="toy", fix="--accept-unverified"):
        fetch(manifest, tmp_path, waits=FAST)
    assert web.asked == []
    events: list[dict[str, Any]] = []
    (found,) = fetch(manifest, tmp_path, waits=FAST, accept_unverified=True, report=lambda e: events.append(dict(e)))
    digest = hashlib.sha256(b"sun\n").hexdigest()
    assert (found.sha256, found.is_verified) == (digest, False)
    assert [e["sha256"] for e in events if e["event"] == "unverified"] == [digest]
    (entry,) = read_record(tmp_path, "toy")["archives"].values()
    assert entry == {"sha256": digest, "verified": False, "files": ["toy/words.txt"]}
    assert fetch(manifest, tmp_path, waits=FAST)[0].was_there


def test_a_wrong_hash_leaves_the_directory_as_it_was(toy: Any, web: Web, tmp_path: Path) -> None:
    with refused(DataError, "the file is not what the manifest says", where=f"{web.url}/cb.zip", fix="do not trust"):
        fetch(toy(sha256="0" * 64), tmp_path, waits=FAST)
    assert files(tmp_path) == {}
    assert own(tmp_path) == []


def test_a_disk_that_is_full_while_unpacking_leaves_nothing_half(
    toy: Any, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *ignored: Any) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(unpacking, "_write", full)
    with refused(
        StorageError,
        "the files cannot be written: No space left on device",
        where=str(tmp_path / ".trimtab"),
        fix="Free",
    ):
        fetch(toy(), tmp_path, waits=FAST)
    assert files(tmp_path) == {}
    assert [p for p in own(tmp_path) if "unpacking" in p] == []


def test_two_do_not_fetch_at_once(toy: Any, tmp_path: Path) -> None:
    with hold([tmp_path / ".trimtab"], "busy", "--data-dir"), pytest.raises(BusyError, match="fetching into this data"):
        fetch(toy(), tmp_path, waits=FAST)
