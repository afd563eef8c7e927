"""Files that are whole or not there, and what reading them may meet."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.unit.disks import contents, failing
from tests.unit.refusals import refused
from trimtab.errors import BundleError, StorageError, TrimtabError
from trimtab.files import (
    hold,
    read_json,
    read_tensors,
    sha256_of,
    sweep,
    write_atomically,
    write_json,
    write_jsonl,
    write_tensors,
    write_text,
)

VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a" * 300_000)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"a" * 300_000).hexdigest()
    assert write_tensors(tmp_path / "b", {"t": VALUES}) == sha256_of(tmp_path / "b")


def test_a_written_file_is_complete_readable_by_all_and_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.txt"
    write_text(path, "größe 😀\n")
    assert path.read_bytes() == "größe 😀\n".encode()
    assert contents(path.parent) == ["a.txt"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("call", ["fsync", "replace", "chmod"])
def test_a_full_disk_leaves_the_old_file_and_no_scratch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing(code))
        with refused(StorageError, "no space left on the disk", where=str(path), fix="Free some space"):
            write_json(path, {"new": 1})
    assert read_json(path) == {"old": 1}
    assert contents(tmp_path) == ["a.json"]


def test_a_disk_that_fills_up_while_writing_leaves_nothing(tmp_path: Path) -> None:
    def half(file: Any) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "full")

    with refused(StorageError, "no space left", where=str(tmp_path / "a.bin"), fix="another folder"):
        write_atomically(tmp_path / "a.bin", half)
    assert contents(tmp_path) == []


def test_an_interrupted_write_leaves_nothing_and_is_not_hidden(tmp_path: Path) -> None:
    def interrupt(file: Any) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "a.bin", interrupt)
    assert contents(tmp_path) == []


def test_another_failure_is_named_without_advice_about_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "replace", failing(errno.EROFS))
    with refused(StorageError, "cannot be written: Read-only file system", where=str(tmp_path / "a.txt")):
        write_text(tmp_path / "a.txt", "x")


def test_a_folder_below_a_file_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "run" / "a.txt"
    with refused(StorageError, "the file cannot be written", where=str(path)):
        write_text(path, "x")


def test_jsonl_is_one_object_a_line(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"a": "x\ny"}, {"b": "é"}])
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"a": "x\ny"}, {"b": "é"}]


def test_a_disk_that_dies_is_told_of_though_the_scratch_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for call in ("fsync", "unlink"):
        monkeypatch.setattr(os, call, failing(errno.EIO))
    with refused(StorageError, "cannot be written: Input/output error", where=str(tmp_path / "a.txt")):
        write_text(tmp_path / "a.txt", "x")


def test_what_a_kill_has_left_is_swept_up_and_nothing_else(tmp_path: Path) -> None:
    for name in (".run.json.ab12cd34.part", ".wandb", "run.json", "a.part"):
        (tmp_path / name).write_text("")
    (tmp_path / ".folder.part").mkdir()
    sweep(tmp_path)
    assert contents(tmp_path) == [".folder.part", ".wandb", "a.part", "run.json"]


@pytest.mark.parametrize("call", ["mkdir", "open"])
def test_a_folder_that_cannot_be_held_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing(errno.EROFS))
        what = "the folder cannot be written: Read-only file system"
        with refused(StorageError, what, where=str(tmp_path / "r")), hold([tmp_path / "r"], "busy", "--runs-dir"):
            raise AssertionError("it was held")
    assert contents(tmp_path) == []


def test_tensors_come_back_equal_even_if_not_contiguous(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a.safetensors", {"t": VALUES.T})
    assert np.array_equal(read_tensors(tmp_path / "a.safetensors")["t"], VALUES.T)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda raw: b"", id="empty"),
        pytest.param(lambda raw: raw[:4], id="shorter than its header's length"),
        pytest.param(lambda raw: raw[:20], id="truncated header"),
        pytest.param(lambda raw: raw[:-1], id="truncated data"),
        pytest.param(lambda raw: raw + b"x", id="too long"),
        pytest.param(lambda raw: b"\xff" * len(raw), id="noise"),
        pytest.param(lambda raw: raw[:10] + b"\xff" + raw[11:], id="a flipped byte in the header"),
    ],
)
def test_a_damaged_safetensors_file_is_refused(tmp_path: Path, damage: Any) -> None:
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"t": VALUES})
    path.write_bytes(damage(path.read_bytes()))
    with refused(BundleError, "the file is truncated or corrupted", where=str(path), fix="Copy it again"):
        read_tensors(path)


def test_a_tensor_type_that_numpy_lacks_is_refused(tmp_path: Path) -> None:
    save_file({"inputs": torch.ones(2, 3, dtype=torch.bfloat16)}, tmp_path / "a.safetensors")
    with refused(BundleError, "bfloat16", where=str(tmp_path / "a.safetensors"), fix="Copy it again"):
        read_tensors(tmp_path / "a.safetensors")


def test_a_missing_tensor_file_is_refused(tmp_path: Path) -> None:
    with refused(BundleError, "there is no such file", where=str(tmp_path / "a.safetensors")):
        read_tensors(tmp_path / "a.safetensors")


@pytest.mark.parametrize("raw", [b'{"a": ', b"\xff{}", b""])
def test_malformed_json_is_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "a.json").write_bytes(raw)
    with refused(BundleError, "this is not readable JSON", where=str(tmp_path / "a.json")):
        read_json(tmp_path / "a.json")


def test_json_that_is_no_object_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1]")
    with refused(BundleError, "a JSON object is expected, got list", where=str(tmp_path / "a.json")):
        read_json(tmp_path / "a.json")


def test_missing_json_is_refused(tmp_path: Path) -> None:
    with refused(BundleError, "there is no such file", where=str(tmp_path / "a.json")):
        read_json(tmp_path / "a.json")


def test_a_folder_in_place_of_json_is_refused(tmp_path: Path) -> None:
    with refused(BundleError, "this is not readable JSON", where=str(tmp_path)):
        read_json(tmp_path)


def test_a_number_that_json_does_not_know_is_not_written(tmp_path: Path) -> None:
    for write, content in ((write_json, {"a": math.nan}), (write_jsonl, [{"a": [math.inf]}])):
        with refused(TrimtabError, "a number that is not finite has no place in JSON", where=str(tmp_path / "a")):
            write(tmp_path / "a", content)
    assert contents(tmp_path) == []


@pytest.mark.parametrize("content", ["[" * 100_000, '{"x": ' + "9" * 9999 + "}"], ids=["levels", "digits"])
def test_json_that_is_too_much_for_the_reader_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with refused(BundleError, "this is not readable JSON", where=str(tmp_path / "a.json")):
        read_json(tmp_path / "a.json")
