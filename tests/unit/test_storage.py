"""Run folders and bundles: the steps of their life, and refusals of what is broken."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.tiny import bundle_metadata
from tests.unit.disks import contents, failing
from tests.unit.refusals import refused
from trimtab import storage
from trimtab.documents import read_yaml
from trimtab.errors import BundleError, StorageError
from trimtab.files import read_json, write_json, write_tensors
from trimtab.storage import Bundle, RunFolder, find_run, list_runs, read_bundle, read_prompt, write_bundle

METADATA = bundle_metadata((2, 3))
PROMPT = np.arange(6, dtype=np.float32).reshape(2, 3)


def bundle_in(folder: Path, **changes: Any) -> Path:
    write_bundle(folder, Bundle({**METADATA, **changes}, {"inputs": PROMPT}))
    return folder


# Runs on a disk that fails


def test_of_a_finished_run_files_and_then_names_are_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, fsync, replace = [], os.fsync, os.replace

    def synced(descriptor: int) -> None:
        seen.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def replaced(source: str, target: Path) -> None:
        seen.append(target)
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    RunFolder(tmp_path).finish({}, "done")
    scratch, *rest = seen
    assert (scratch.parent, scratch.name[:10], scratch.suffix) == (tmp_path, ".run.json.", ".part")
    assert rest == [tmp_path / "run.json", tmp_path]


def test_a_file_system_that_cannot_sync_folders_is_good_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def synced(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            failing(errno.EINVAL)()
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", synced)
    RunFolder(tmp_path).finish({}, "done")
    assert RunFolder(tmp_path).status == "done"


def test_a_run_that_begins_again_sweeps_up(tmp_path: Path) -> None:
    run = RunFolder(bundle_in(tmp_path / "r"))
    (run.path / ".bundle.json.ab12cd34.part").write_text("{")
    run.begin({}, {})
    assert contents(run.path) == ["bundle.json", "config.yaml", "prompt.safetensors", "run.json"]


def test_a_folder_that_cannot_be_cleared_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(bundle_in(tmp_path / "r"))
    monkeypatch.setattr(os, "unlink", failing(errno.EROFS))
    with refused(StorageError, "the folder cannot be written: Read-only file system", where=str(run.path)):
        run.clear()


# Bundles


def test_a_bundle_comes_back_equal(tmp_path: Path) -> None:
    bundle = read_bundle(bundle_in(tmp_path / "b"))
    digest = hashlib.sha256((tmp_path / "b" / "prompt.safetensors").read_bytes()).hexdigest()
    assert bundle.metadata == {"schema": 1, **METADATA, "prompt": {**METADATA["prompt"], "sha256": digest}}
    assert np.array_equal(bundle.prompt, PROMPT)
    assert np.array_equal(read_prompt(tmp_path / "b"), PROMPT)
    assert contents(tmp_path / "b") == ["bundle.json", "prompt.safetensors"]


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with refused(BundleError, "there is no such folder", where=str(tmp_path / "b"), fix="trimtab ls runs"):
        read_bundle(tmp_path / "b")


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with refused(BundleError, "there is no bundle.json", where=str(tmp_path), fix="trimtab run"):
        read_bundle(tmp_path)


def test_an_unfinished_run_is_refused_with_its_status(tmp_path: Path) -> None:
    RunFolder(tmp_path / "r").begin({}, {})
    what = "the run has the status 'running' and no bundle"
    with refused(BundleError, what, where=str(tmp_path / "r"), fix="again"):
        read_bundle(tmp_path / "r")


@pytest.mark.parametrize("schema", [2, None, "1"])
def test_another_schema_is_refused(tmp_path: Path, schema: Any) -> None:
    bundle_in(tmp_path, schema=schema)
    with refused(BundleError, f"the bundle has schema {schema!r}", where=str(tmp_path / "bundle.json")):
        read_bundle(tmp_path)


NEEDED = (
    "prompt prompt.shape backbone backbone.model backbone.fingerprint backbone.options backbone.options.dtype "
    "backbone.options.revision backbone.options.trust_remote_code backbone.options.attention "
    "backbone.options.quantization tokenizer tokenizer.fingerprint task task.template task.truncate task.max_length "
    "task.label_words readout readout.kind"
).split()


@pytest.mark.parametrize("key", NEEDED)
def test_a_bundle_that_lacks_a_key_is_refused(tmp_path: Path, key: str) -> None:
    bundle_in(tmp_path)
    metadata = read_json(tmp_path / "bundle.json")
    node = metadata
    *outer, last = key.split(".")
    for step in outer:
        node = node[step]
    del node[last]
    write_json(tmp_path / "bundle.json", metadata)
    with refused(BundleError, f"the key {key!r} is missing", where=str(tmp_path / "bundle.json"), fix="Copy it again"):
        read_bundle(tmp_path)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"prompt": {"shape": 6}}, "the key 'prompt.shape' must be otherwise"),
        ({"prompt": {"shape": [6]}}, "the key 'prompt.shape' must be otherwise"),
        ({"tokenizer": {"fingerprint": None}}, "the key 'tokenizer.fingerprint' must be otherwise"),
        ({"task": {**METADATA["task"], "max_length": "x"}}, "the key 'task.max_length' must be otherwise"),
        ({"task": {**METADATA["task"], "label_words": ["yes"]}}, "the key 'task.label_words' must be otherwise"),
        ({"task": None}, "the key 'task' must be otherwise"),
        ({"backbone": {**METADATA["backbone"], "tuned": "yes"}}, "the key 'backbone.tuned' must be otherwise"),
        (
            {"task": {**METADATA["task"], "template": {"chat": []}}},
            "nothing else, needs the key 'rendered'",
        ),
        ({"task": {**METADATA["task"], "rendered": "{text}"}}, "nothing else, needs the key 'rendered'"),
    ],
)
def test_a_bundle_with_a_value_of_another_sort_is_refused(tmp_path: Path, changes: Any, what: str) -> None:
    with refused(BundleError, what, where=str(tmp_path / "bundle.json"), fix="Copy it again"):
        read_bundle(bundle_in(tmp_path, **changes))


def test_a_prompt_of_another_shape_than_stated_is_refused(tmp_path: Path) -> None:
    bundle_in(tmp_path, prompt={"shape": [3, 2]})
    what = "the prompt must have shape (3, 2), got shape (2, 3)"
    with refused(BundleError, what, where=str(tmp_path / "prompt.safetensors")):
        read_bundle(tmp_path)


def test_a_prompt_file_without_the_tensor_is_refused(tmp_path: Path) -> None:
    write_tensors(bundle_in(tmp_path) / "prompt.safetensors", {"other": PROMPT})
    with refused(BundleError, "got no tensor `inputs`", where=str(tmp_path / "prompt.safetensors")):
        read_bundle(tmp_path)


@pytest.mark.parametrize("kind", [np.float64, np.float16, np.int64, np.bool_])
def test_a_prompt_of_other_numbers_is_refused(tmp_path: Path, kind: type) -> None:
    write_tensors(bundle_in(tmp_path) / "prompt.safetensors", {"inputs": PROMPT.astype(kind)})
    what = f"the tensor 'inputs' must be float32, got {np.dtype(kind)}"
    with refused(BundleError, what, where=str(tmp_path / "prompt.safetensors")):
        read_bundle(tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_prompt_that_is_not_finite_is_refused(tmp_path: Path, value: float) -> None:
    bad = PROMPT.copy()
    bad[0, 0] = value
    write_tensors(bundle_in(tmp_path) / "prompt.safetensors", {"inputs": bad})
    with refused(BundleError, "values that are not finite", where=str(tmp_path / "prompt.safetensors")):
        read_bundle(tmp_path)


def test_a_bundle_without_its_prompt_is_refused(tmp_path: Path) -> None:
    (bundle_in(tmp_path) / "prompt.safetensors").unlink()
    with refused(BundleError, "there is no such file", where=str(tmp_path / "prompt.safetensors")):
        read_bundle(tmp_path)


def test_a_prompt_of_another_run_or_with_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    path = bundle_in(tmp_path) / "prompt.safetensors"
    raw = path.read_bytes()
    for other in (PROMPT + 1, PROMPT):
        write_tensors(path, {"inputs": other})
        if other is PROMPT:
            assert path.read_bytes() == raw
            path.write_bytes(raw[:-3] + bytes([raw[-3] ^ 1]) + raw[-2:])
        with refused(BundleError, "the prompt is not what bundle.json states", where=str(path), fix="Copy it again"):
            read_bundle(tmp_path)


PARTS = st.dictionaries(
    st.from_regex(r"(deep|gate|head)\.[a-z]{1,4}", fullmatch=True),
    st.lists(st.integers(0, 3), min_size=1, max_size=4), max_size=3,
)  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PARTS, st.integers(0, 4), st.integers(1, 5), st.integers(0, 2**32 - 1), st.data())
def test_any_bundle_comes_back_to_the_bit_and_no_byte_of_it_may_change(
    tmp_path: Path, parts: dict[str, list[int]], rows: int, width: int, seed: int, data: st.DataObject
) -> None:
    draw = np.random.default_rng(seed)
    tensors = {n: draw.normal(size=s).astype(np.float32) for n, s in {"inputs": [rows, width], **parts}.items()}
    stated = {"kind": "x", "shape": [rows, width], "tensors": {n: list(v.shape) for n, v in tensors.items()}}
    written = write_bundle(tmp_path, Bundle({**METADATA, "prompt": stated}, tensors))
    got = read_bundle(tmp_path)
    assert (got.metadata, set(got.tensors)) == (written, set(tensors))
    assert all(got.tensors[n].tobytes() == v.tobytes() and got.tensors[n].shape == v.shape for n, v in tensors.items())
    path = tmp_path / "prompt.safetensors"
    raw = bytearray(path.read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(raw)
    with pytest.raises(BundleError):
        read_bundle(tmp_path)


def test_a_bundle_of_before_hashes_is_read(tmp_path: Path) -> None:
    metadata = read_json(bundle_in(tmp_path) / "bundle.json")
    del metadata["prompt"]["sha256"]
    write_json(tmp_path / "bundle.json", metadata)
    assert np.array_equal(read_bundle(tmp_path).prompt, PROMPT)


@pytest.mark.parametrize("at", range(2))
def test_a_bundle_that_is_written_anew_is_never_half_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    class Killed(BaseException):
        pass

    def kill(source: str, target: Path) -> None:
        if Path(target).name == ("prompt.safetensors", "bundle.json")[at]:
            raise Killed
        replace(source, target)

    replace = os.replace
    bundle_in(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", kill)
        with pytest.raises(Killed):
            write_bundle(tmp_path, Bundle(METADATA, {"inputs": PROMPT + 1}))
    with refused(BundleError, "there is no bundle.json", where=str(tmp_path), fix="again"):
        read_bundle(tmp_path)
    write_bundle(tmp_path, Bundle(METADATA, {"inputs": PROMPT + 1}))
    assert np.array_equal(read_bundle(tmp_path).prompt, PROMPT + 1)


def test_a_full_disk_leaves_no_bundle_json_without_its_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", failing(errno.ENOSPC))
    with refused(StorageError, "no space left", where=str(tmp_path / "prompt.safetensors"), fix="Free"):
        bundle_in(tmp_path)
    assert contents(tmp_path) == []


# Run folders


def test_a_run_folder_tells_its_status_from_begin_to_finish(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "runs" / "r")
    assert run.status is None
    run.begin({"training": {"epsilon": 1e-8}}, {"id": "r"})
    assert run.status == "running"
    assert read_yaml(run.path / "config.yaml") == {"training": {"epsilon": 1e-8}}
    run.write_history([{"step": 1}])
    run.write_predictions("dev", [{"id": "1"}])
    assert run.finish({"id": "r", "metrics": {}}, "done") == run.record
    assert (run.status, run.record["schema"]) == ("done", 1)
    assert contents(run.path) == ["config.yaml", "metrics.jsonl", "predictions.dev.jsonl", "run.json"]


Usage = namedtuple("Usage", "total used free")


def test_a_nearly_full_disk_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda path: Usage(9, 9, 3 << 20))
    run = RunFolder(tmp_path / "runs" / "r")
    with refused(StorageError, "there are 3 MiB left on the disk, a run needs 16", where=str(run.path)):
        run.begin({}, {})
    with refused(StorageError, "there are 3 MiB left on the disk, a run needs 26", where=str(run.path)):
        run.begin({}, {}, 10 << 20)
    assert contents(tmp_path) == []


def test_a_nearly_full_disk_does_not_cost_an_earlier_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(bundle_in(tmp_path / "r"))
    run.finish({"id": "r"}, "done")
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda path: Usage(9, 9, 0))
    with refused(StorageError, "there are 0 MiB left", where=str(run.path)):
        run.begin({}, {})
    assert run.status == "done"
    assert np.array_equal(read_prompt(run.path), PROMPT)


def test_a_full_disk_leaves_no_half_begun_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path / "r")
    replace = os.replace

    def only_config(source: str, target: Path) -> None:
        if Path(target).name != "config.yaml":
            failing(errno.ENOSPC)()
        replace(source, target)

    monkeypatch.setattr(os, "replace", only_config)
    with refused(StorageError, "no space left", where=str(run.path / "run.json"), fix="Free"):
        run.begin({}, {})
    assert not run.path.exists()


def test_a_full_disk_keeps_an_earlier_run_when_it_begins_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(bundle_in(tmp_path / "r"))
    run.finish({"id": "r"}, "done")
    monkeypatch.setattr(os, "fsync", failing(errno.ENOSPC))
    with refused(StorageError, "no space left", where=str(run.path / "config.yaml"), fix="Free"):
        run.begin({}, {})
    assert run.status == "done"


def test_list_runs_finds_folders_with_a_record_by_name(tmp_path: Path) -> None:
    for name in ("b", "a"):
        RunFolder(tmp_path / name).begin({}, {})
    (tmp_path / "other").mkdir()
    assert [r.path.name for r in list_runs(tmp_path)] == ["a", "b"]
    assert list_runs(tmp_path / "none") == []


@pytest.fixture
def three_runs(tmp_path: Path) -> Path:
    for name in ("toy-residual-11", "toy-residual-12", "toy-prompt_tuning-21"):
        RunFolder(tmp_path / name).begin({}, {})
    return tmp_path


def test_find_run_takes_a_path_or_a_unique_part_of_an_id(three_runs: Path) -> None:
    wanted = three_runs / "toy-prompt_tuning-21"
    for name in (str(wanted), "toy-prompt_tuning-21", "toy-p", "21"):
        assert find_run(name, three_runs) == wanted


def test_find_run_prefers_the_exact_id(three_runs: Path) -> None:
    RunFolder(three_runs / "toy-residual-1").begin({}, {})
    assert find_run("toy-residual-1", three_runs) == three_runs / "toy-residual-1"


def test_an_ambiguous_run_is_refused_with_the_candidates(three_runs: Path) -> None:
    what = "'toy-residual' fits 2 runs: toy-residual-11, toy-residual-12"
    with refused(BundleError, what, where=str(three_runs)):
        find_run("toy-residual", three_runs)


def test_an_unknown_run_is_refused_with_a_suggestion(three_runs: Path) -> None:
    with refused(BundleError, "no run or bundle 'toy-residul-11'", where=str(three_runs), fix="'toy-residual-11'"):
        find_run("toy-residul-11", three_runs)


def test_an_unknown_run_in_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with refused(BundleError, "there is no run or bundle 'x'", where=str(tmp_path)):
        find_run("x", tmp_path)
