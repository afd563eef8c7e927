"""Folders that appear whole or not at all, and replace nothing that they must not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.refusals import refused
from trimtab.errors import ConfigError, StorageError
from trimtab.exporting import folders
from trimtab.exporting.folders import whole_folder


def write(place: Path, text: str, **options: object) -> None:
    with whole_folder(place, **options) as folder:  # type: ignore[arg-type]
        (folder / "text").write_text(text)
        (folder / "trimtab.json").write_text('{"schema": 1, "trimtab": "0", "export": {}, "tasks": []}')


def test_it_is_there_when_the_block_has_ended_and_not_before(tmp_path: Path) -> None:
    place = tmp_path / "deep" / "out"
    with whole_folder(place) as folder:
        (folder / "a.txt").write_text("a")
        assert not place.exists()
    assert (place / "a.txt").read_text() == "a"
    assert place.stat().st_mode & 0o755 == 0o755
    assert [p.name for p in place.parent.iterdir()] == ["out"]


def test_what_is_there_stays_unless_asked_and_when_writing_fails(tmp_path: Path) -> None:
    place = tmp_path / "out"
    write(place, "old")
    with refused(ConfigError, "there is something already", where=str(place), fix="--again"):
        write(place, "new")
    with pytest.raises(TypeError):
        write(place, None, again=True)  # type: ignore[arg-type]
    assert (place / "text").read_text() == "old"
    write(place, "new", again=True)
    assert (place / "text").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_folder_comes_back_if_its_successor_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "out"
    write(place, "old")
    moves, move = [], os.replace

    def failing(source: Path, target: Path) -> None:
        moves.append(target)
        if len(moves) == 2:
            raise OSError(5, "Input/output error")
        move(source, target)

    monkeypatch.setattr(folders.os, "replace", failing)
    with refused(StorageError, "cannot be written: Input/output error", where=str(place)):
        write(place, "new", again=True)
    assert (place / "text").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_only_exports_are_replaced(tmp_path: Path) -> None:
    others, run, link, file = (tmp_path / name for name in ("others", "run", "link", "file"))
    others.mkdir()
    (others / "thesis.txt").write_text("all of it")
    write(run, "{}")
    (run / "run.json").write_text("{}")
    write(tmp_path / "real", "{}")
    link.symlink_to(tmp_path / "real")
    file.write_text("")
    for place in (others, run, link, file):
        with refused(
            ConfigError, "here is no trimtab.json of trimtab's, or a run", where=str(place), fix="another --out"
        ):
            write(place, "new", again=True)
    assert (others / "thesis.txt").exists()


@pytest.mark.parametrize("text", ["", "{", "[1]", '"schema"', "[" * 100_000, "{}", '{"schema": 1, "export": {}}'])
def test_a_file_that_only_has_the_name_of_ours_marks_nothing(tmp_path: Path, text: str) -> None:
    place = tmp_path / "settings"
    write(place, "old")
    (place / "trimtab.json").write_text(text)
    with refused(ConfigError, "here is no trimtab.json of trimtab's", where=str(place), fix="another --out"):
        write(place, "new", again=True)
    assert (place / "text").read_text() == "old"
    (place / "trimtab.json").write_bytes(b"\xff\xfe")
    with refused(ConfigError, "here is no trimtab.json of trimtab's", where=str(place), fix="another --out"):
        write(place, "new", again=True)


def test_a_disk_that_refuses_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with refused(StorageError, "the folder cannot be written", where=str(tmp_path / "file" / "out")):
        write(tmp_path / "file" / "out", "x")


def test_a_full_disk_is_told_of(tmp_path: Path) -> None:
    with (
        refused(StorageError, "no space left on the disk", where=str(tmp_path / "out"), fix="Free some space"),
        whole_folder(tmp_path / "out"),
    ):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


class Killed(BaseException):
    """As if by kill -9: nothing of ours cleans up."""


def killed_at(place: Path, move: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write `new` over what is there, and die instead of the `move`-th renaming of folders."""
    count, replace = 0, os.replace

    def moved(source: Path, target: Path) -> None:
        nonlocal count
        count += 1
        if count == move:
            raise Killed
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(folders.os, "replace", moved)
        patch.setattr(folders.shutil, "rmtree", lambda *rest, **options: None)
        with pytest.raises(Killed):
            write(place, "new", again=True)


@pytest.mark.parametrize("move", [1, 2])
def test_what_a_kill_has_left_goes_and_what_it_moved_aside_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, move: int
) -> None:
    place = tmp_path / "out"
    write(place, "old")
    killed_at(place, move, monkeypatch)
    assert place.exists() == (move == 1)
    assert len(list(tmp_path.iterdir())) == 2
    with refused(ConfigError, "there is something already", where=str(place), fix="--again"):
        write(place, "newer")
    assert (place / "text").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    write(place, "newer", again=True)
    assert (place / "text").read_text() == "newer"


def test_what_another_process_is_writing_is_left_alone(tmp_path: Path) -> None:
    place = tmp_path / "out"
    with whole_folder(place) as first:
        (first / "trimtab.json").write_text("first")
        write(place, "second")
        assert first.exists()
        place.rename(tmp_path / "other")
    assert (place / "trimtab.json").read_text() == "first"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other", "out"]


def test_folders_with_names_alike_are_left_alone(tmp_path: Path) -> None:
    names = [".out.part", ".out.abcdefgh", ".out.abcdefgh.other", ".output.abcdefgh.part", ".out.abc.part"]
    for name in names:
        (tmp_path / name).mkdir()
    write(tmp_path / "out", "new")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*names, "out"])
