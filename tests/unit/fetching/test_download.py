"""Downloads: what was cut off goes on, what is wrong is not used, a full disk leaves nothing."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from tests.unit.fetching.conftest import Web
from tests.unit.refusals import refused
from trimtab.errors import DataError, StorageError
from trimtab.fetching import download as downloads
from trimtab.fetching.download import Source, Waits, retrieve

CONTENT = bytes(range(256)) * 4000
FAST = Waits(answer=5.0, first=0.001, tries=4)


@pytest.fixture
def get(web: Web, tmp_path: Path) -> Callable[..., tuple[bytes, list[dict[str, Any]]]]:
    def run(waits: Waits = FAST, copies: Path | None = None, **more: Any) -> tuple[bytes, list[dict[str, Any]]]:
        events: list[dict[str, Any]] = []
        archive = web.archive("a.bin", **more)
        path = retrieve(Source(archive, copies), tmp_path / "d", lambda event: events.append(dict(event)), waits)
        assert path.name.endswith("-a.bin")
        return path.read_bytes(), events

    return run


def left(folder: Path) -> list[str]:
    return sorted(p.name.partition("-")[2] for p in (folder / "d").glob("*"))


def test_a_file_comes_whole_with_progress(web: Web, get: Any, tmp_path: Path) -> None:
    web.serve("a.bin", CONTENT)
    content, events = get()
    assert content == CONTENT
    progress = [e for e in events if e["event"] == "progress"]
    assert progress[-1]["got"] == progress[-1]["of"] == len(CONTENT)
    assert web.asked == [("/a.bin", None)]
    assert left(tmp_path) == ["a.bin"]


def test_what_was_cut_off_goes_on_where_it_stopped(web: Web, get: Any) -> None:
    web.serve("a.bin", CONTENT, cuts=[300_000, 200_000])
    content, events = get()
    assert content == CONTENT
    assert [asked for _, asked in web.asked] == [None, "bytes=300000-", "bytes=500000-"]
    reasons = [e["reason"] for e in events if e["event"] == "retry"]
    assert reasons == [f"the connection ended after {n:,} of {len(CONTENT):,} bytes" for n in (300_000, 500_000)]
    assert [e["seconds"] for e in events if e["event"] == "retry"] == [0.001, 0.002]


def test_another_call_goes_on_too(web: Web, get: Any, tmp_path: Path) -> None:
    web.serve("a.bin", CONTENT, cuts=[1000, 1000])
    what = f"the connection ended after 2,000 of {len(CONTENT):,} bytes. 2,000 bytes are kept, and the next try goes on"
    with refused(DataError, what, where=f"{web.url}/a.bin", fix="--from FOLDER with a.bin"):
        get(Waits(first=0.001, tries=2))
    assert left(tmp_path) == ["a.bin", "a.bin.json"]
    assert get()[0] == CONTENT
    assert [asked for _, asked in web.asked] == [None, "bytes=1000-", "bytes=2000-"]


@pytest.mark.parametrize("change", ["etag", "ranges", "shorter"])
def test_where_the_rest_is_of_another_file_it_begins_anew(change: str, web: Web, get: Any) -> None:
    its = web.serve("a.bin", CONTENT, cuts=[1000])
    with refused(DataError, "the connection ended", where=f"{web.url}/a.bin", fix="later"):
        get(Waits(first=0.001, tries=1))
    new = CONTENT[::-1] if change != "shorter" else CONTENT[:500]
    its.content, its.etag, its.ranges = new, '"2"' if change == "etag" else its.etag, change != "ranges"
    if change == "ranges":
        its.etag = None
    content, _ = get()
    assert content == new


def test_a_file_that_is_whole_already_is_not_asked_for_again(web: Web, get: Any) -> None:
    web.serve("a.bin", CONTENT)
    get()
    get()
    assert len(web.asked) == 1


@pytest.mark.parametrize("more", [{}, {"bytes": None}])
def test_a_wrong_hash_is_an_error_and_the_file_is_gone(
    more: dict[str, Any], web: Web, get: Any, tmp_path: Path
) -> None:
    web.serve("a.bin", CONTENT)
    got, wanted = hashlib.sha256(CONTENT).hexdigest(), "0" * 64
    what = f"the file is not what the manifest says: SHA-256 {got} ({len(CONTENT):,} bytes), not {wanted}"
    with refused(DataError, what, where=f"{web.url}/a.bin", fix="do not trust it"):
        get(sha256=wanted, **more)
    assert left(tmp_path) == []


def test_more_bytes_than_stated_are_not_taken(web: Web, get: Any) -> None:
    web.serve("a.bin", CONTENT)
    with refused(DataError, "the file is not what the manifest says", where=f"{web.url}/a.bin", fix="removed"):
        get(sha256="0" * 64, bytes=10)
    assert len(web.asked) == 1
    assert get(sha256=None, bytes=None)[0] == CONTENT


def test_servers_that_are_busy_are_asked_again_and_others_not(web: Web, get: Any) -> None:
    web.serve("a.bin", CONTENT, codes=[503, 429])
    content, events = get()
    assert content == CONTENT
    assert [e["reason"] for e in events if e["event"] == "retry"] == [
        "the server answers 503 Service Unavailable", "the server answers 429 Too Many Requests"
    ]  # fmt: skip
    web.serve("a.bin", b"other", codes=[404])
    with refused(
        DataError, "the download has failed: the server answers 404 Not Found.", where=f"{web.url}/a.bin", fix="later"
    ):
        get(sha256="1" * 64)
    assert len(web.asked) == 4


def test_no_server_at_all(web: Web, get: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    web.serve("a.bin", CONTENT)
    monkeypatch.setattr(
        downloads.urllib.request, "urlopen", lambda *a, **o: (_ for _ in ()).throw(ConnectionRefusedError("refused"))
    )
    with refused(DataError, "the download has failed: refused.", where=f"{web.url}/a.bin", fix="--from FOLDER"):
        get()


def test_a_full_disk_leaves_nothing(web: Web, get: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    web.serve("a.bin", CONTENT)

    class Full:
        def __init__(self, file: BinaryIO) -> None:
            self._file = file

        def write(self, block: bytes) -> int:
            self._file.write(block[:1000])
            raise OSError(errno.ENOSPC, "No space left on device")

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *ignored: object) -> None:
            self._file.close()

    opened = Path.open
    monkeypatch.setattr(
        Path, "open", lambda p, mode="r", *a, **o: Full(opened(p, mode)) if mode == "wb" else opened(p, mode, *a, **o)
    )
    with refused(StorageError, "no space left on the disk", where=str(tmp_path / "d"), fix="Free some space"):
        get()
    assert left(tmp_path) == []


def test_a_copy_is_taken_in_the_place_of_the_network(web: Web, get: Any, tmp_path: Path) -> None:
    web.serve("a.bin", CONTENT)
    (tmp_path / "copies").mkdir()
    (tmp_path / "copies" / "a.bin").write_bytes(CONTENT)
    assert get(copies=tmp_path / "copies")[0] == CONTENT
    assert web.asked == []
    (tmp_path / "copies" / "a.bin").write_bytes(b"spoiled")
    with refused(DataError, "SHA-256", where=str(tmp_path / "copies" / "a.bin"), fix="removed"):
        get(copies=tmp_path / "copies")
    assert (tmp_path / "copies" / "a.bin").exists(), "the user's own file is left"
