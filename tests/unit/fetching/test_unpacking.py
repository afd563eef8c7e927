"""Unpacking: what is wanted and nothing else, nowhere else."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.unit.fetching.conftest import zipped
from tests.unit.refusals import refused
from trimtab.errors import DataError
from trimtab.fetching import unpacking
from trimtab.fetching.manifests import Archive
from trimtab.fetching.unpacking import move_into, unpack

URL = "https://example.org/a.zip"


def tarred(files: dict[str, bytes], **odd: Any) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for name, (kind, target) in odd.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
    return out.getvalue()


def run(folder: Path, content: bytes, **options: Any) -> dict[str, str]:
    """Path -> text of what was unpacked; nothing may be left elsewhere."""
    file, scratch = folder / "in" / "a.zip", folder / "out" / "scratch"
    for part in (file.parent, scratch):
        part.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    archive = Archive(url=URL, into="toy", **{"files": ("train.jsonl", "dev.jsonl"), **options})
    try:
        names = unpack(file, archive, scratch)
    finally:
        outside = [p for p in folder.rglob("*") if p.is_file() and scratch not in p.parents and p != file]
        assert outside == []
    assert sorted(p.relative_to(scratch).as_posix() for p in scratch.rglob("*") if p.is_file()) == names
    return {name: (scratch / name).read_text() for name in names}


WANTED = {"CB/train.jsonl": "t", "CB/dev.jsonl": "d"}
OTHERS = {"CB/README.md": "r", "__MACOSX/CB/._train.jsonl": "m", "BoolQ/train.jsonl": "b"}


@pytest.mark.parametrize("depth", ["", "repository-main/", "a/b/"])
def test_the_files_of_a_folder_come_out_at_whatever_depth_it_is(depth: str, tmp_path: Path) -> None:
    files = {f"{depth}{name}": text for name, text in {**WANTED, **OTHERS}.items()}
    assert run(tmp_path, zipped(files), inside="CB") == {"train.jsonl": "t", "dev.jsonl": "d"}


def test_patterns_and_tar(tmp_path: Path) -> None:
    files = {"./TREx/P19.jsonl": b"1", "TREx/P20.jsonl": b"2", "TREx/deep/P1.jsonl": b"3", "Squad/test.jsonl": b"4",
             "TREx/._P19.jsonl": b"x", "other": b"5"}  # fmt: skip
    found = run(tmp_path, tarred(files), files=("TREx/*.jsonl", "Squad/test.jsonl"))
    assert found == {"TREx/P19.jsonl": "1", "TREx/P20.jsonl": "2", "Squad/test.jsonl": "4"}


def test_a_single_file_keeps_its_name(tmp_path: Path) -> None:
    assert run(tmp_path, b"content", files=()) == {"a.zip": "content"}


def linked() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        info = zipfile.ZipInfo("CB/train.jsonl")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    return out.getvalue()


# An archive holds the time at which it was made: the cases are named by their place, the same in every process.
WRONG = [
    (zipped({"../evil": "x", **WANTED}), "a name that leads out of its folder: '../evil'"),
    (zipped({"/evil": "x"}), "a name that leads out of its folder: '/evil'"),
    (zipped({"CB/../../evil": "x"}), "a name that leads out of its folder"),
    (zipped({"..\\evil": "x"}), "a name that leads out of its folder"),
    (zipped({"C:/evil": "x"}), "a name that leads out of its folder"),
    (tarred({"../evil": b"x"}), "a name that leads out of its folder"),
    (tarred({"CB/dev.jsonl": b"x"}, **{"CB/train.jsonl": (tarfile.SYMTYPE, "/etc/passwd")}), "a link or a device"),
    (tarred({"CB/dev.jsonl": b"x"}, **{"CB/train.jsonl": (tarfile.LNKTYPE, "../x")}), "a link or a device"),
    (tarred({}, **{"CB/train.jsonl": (tarfile.FIFOTYPE, "")}), "a link or a device: 'CB/train.jsonl'"),
    (linked(), "a link: 'CB/train.jsonl'"),
    (zipped({**WANTED, "old/CB/train.jsonl": "2"}), "two files of the archive belong at train.jsonl"),
    (zipped({"CB/train.jsonl": "t"}), "the archive has no 'dev.jsonl' in 'CB'"),
    (b"not an archive", "this is neither a zip nor a tar archive"),
    (zipped(WANTED)[:-30], "this is neither a zip nor a tar archive"),
    (zipped({k: v * 9000 for k, v in WANTED.items()}).replace(b"t", b"u", 1), "this is not a readable archive"),
    (tarred({k: bytes(range(256)) * 90 for k in WANTED})[:300], "this is not a readable archive"),
]


@pytest.mark.parametrize(("content", "what"), WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_is_refused_and_leaves_nothing_elsewhere(content: bytes, what: str, tmp_path: Path) -> None:
    fix = "It is not the one" if "has no" in what else None
    with refused(DataError, what, where=URL, fix=fix):
        run(tmp_path, content, inside="CB")


def test_too_much_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "MOST_BYTES", 10)
    with refused(DataError, "the archive unpacks to 20 bytes, at most 10 are", where=URL):
        run(tmp_path, zipped({"CB/train.jsonl": "t" * 10, "CB/dev.jsonl": "d" * 10}), inside="CB")


def test_files_move_over_others_at_once(tmp_path: Path) -> None:
    (tmp_path / "s" / "a").mkdir(parents=True)
    (tmp_path / "s" / "a" / "x").write_text("new")
    (tmp_path / "d" / "a").mkdir(parents=True)
    (tmp_path / "d" / "a" / "x").write_text("old")
    move_into(tmp_path / "s", ["a/x"], tmp_path / "d")
    assert (tmp_path / "d" / "a" / "x").read_text() == "new"
    assert not (tmp_path / "s" / "a" / "x").exists()


def test_a_member_without_a_name_is_refused(tmp_path: Path) -> None:
    with refused(DataError, "a name that leads out of its folder: ''; nothing of it was unpacked", where=URL):
        run(tmp_path, zipped({"Q": b""}).replace(b"Q", b"\0"))
