"""Whatever stands in a file, its reader gives what it promises or an error of ours: nothing else escapes.

Every reader is given noise, a good file with bytes changed, cut or put in, and, where it reads JSON or YAML, a good
file with one value of another sort. A new reader is a line in `READERS`. `make test-all` tries far more.
"""

from __future__ import annotations

import copy
import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from tests.study_folders import Result, write_study
from tests.tiny import bundle_metadata
from trimtab.api.listing import ls
from trimtab.config import read_recipe, resolve
from trimtab.errors import TrimtabError
from trimtab.exporting.from_peft import _record, read_adapter
from trimtab.fetching.manifests import Archive
from trimtab.fetching.records import check
from trimtab.fetching.unpacking import unpack
from trimtab.landscape.surface import read_landscape
from trimtab.reports.sharpness import read_sharpness, sharpness_tables
from trimtab.reports.study import write_report
from trimtab.storage import read_bundle
from trimtab.studies.definition import read_study
from trimtab.studies.folder import StudyFolder
from trimtab.studies.results import FILE as FILE_OF_RESULTS
from trimtab.studies.results import read_results, write_results
from trimtab.tasks.facts import Relation, read_facts, read_relations, read_words
from trimtab.tasks.forms import Reading
from trimtab.tasks.reading import read_table
from trimtab.tasks.squad import read_squad
from trimtab.tasks.tagged import read_conll, read_rows, with_words
from trimtab.training.loop import LoopState
from trimtab.training.resume import FILE, Checkpoint, read_checkpoint, write_checkpoint
from trimtab.types import Example

COUNTS = [4, pytest.param(300, marks=pytest.mark.slow)]
"""Examples per reader and way of damage."""


@dataclass(frozen=True)
class Reader:
    """A reader, and the good files that it reads.

    Attributes:
        files: name -> content: text, bytes, or plain data that is written as JSON, a list as lines of it.
        target: the file that is damaged.
    """

    read: Callable[[Path], Any]
    files: Mapping[str, Any]
    target: str
    zipped: bool = field(default=False)


def raw(content: Any) -> bytes:
    if isinstance(content, bytes):
        return content
    if isinstance(content, str):
        return content.encode()
    lines = [json.dumps(line) for line in content] if isinstance(content, list) else [json.dumps(content)]
    return "".join(line + "\n" for line in lines).encode()


def form(kind: str | None, **rename: str) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        return [with_words(Example("1", {}, None, row.source), row.cells)
                for row in Reading(kind, rename).rows(read_table(folder / "t.jsonl"))]  # fmt: skip

    return read


def checkpoint() -> bytes:
    """The file of a small checkpoint."""
    from tempfile import TemporaryDirectory

    facts = {"steps_done": 3, "seconds_in_steps": 1.5, "members": [{"status": "running", "step": 3}]}
    with TemporaryDirectory() as folder:
        write_checkpoint(Path(folder), Checkpoint(("a",), LoopState({"prompt.x": torch.ones(1, 2)}, facts)))
        return (Path(folder) / FILE).read_bytes()


MADE = {"axes": {"prompt.kind": ["prompt_tuning", "residual"]}, "seeds": 2}
"""A study whose runs have ended elsewhere."""


def results() -> list[Any]:
    """The lines of its file, as `trimtab study --from` takes them."""
    from tempfile import TemporaryDirectory

    sharp = {"text": {"top_eigenvalue": 1.0}, "prompt": None, "words": {"mean_absolute": 0.1}}
    with TemporaryDirectory() as folder:
        ended = write_study(Path(folder) / "s", MADE, lambda run: Result(0.5, sharpness=sharp))
        write_results(ended, ended.read())
        lines = [json.loads(line) for line in gzip.decompress((ended.path / FILE_OF_RESULTS).read_bytes()).splitlines()]
    for line in lines[1:]:
        stated = line["record"]["metrics"]["test"]["confusion"]
        stated["counts"] = [[3] * len(stated["classes"])] * len(stated["classes"])
    return lines


def taken_over(folder: Path) -> Any:
    study = write_study(folder / "s", MADE, lambda run: Result(status="missing"))
    assert study.adopt(folder / "r.gz") <= 4
    return write_report(study)


def tar_of(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def zip_of(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def unpacked(folder: Path) -> Any:
    (scratch := folder / "scratch").mkdir()
    wanted = Archive(url="https://example.org/a.zip", into="x", files=("a.txt", "b/*.txt"))
    return unpack(folder / "a", wanted, scratch)


PROMPT = {"inputs": np.arange(6, dtype=np.float32).reshape(2, 3)}
RECIPE = {
    "seed": 13,
    "backbone": {"model": "nano-masked", "dtype": "float32"},
    "task": {"kind": "table", "path": "t.csv", "label": "y", "template": "{prompt} {x} {answer}",
             "label_words": {"a": "one", "b": ["two", "three"]}},
    "prompt": {"kind": "residual", "length": 4, "initializer": {"kind": "uniform"}},
    "regularizers": [{"kind": "gaussian", "weight": 1.0}],
    "training": {"epochs": 2, "batch_size": 4, "learning_rate": 0.001},
}  # fmt: skip
STUDY = {"recipe": RECIPE, "axes": {"prompt.kind": ["residual", "deep"]}, "seeds": 2, "pack": {"most": 3}}
ENTRY = {"key": "k", "stage": "grid", "cell": {"prompt.kind": "residual"}, "seeds": {"init": 1}}
LINE = {**ENTRY, "status": "done", "run": "r", "pack": 0, "files": {"run.json": ""}}
PLAN = {"schema": 1, "name": "s", "digest": "d", "searched": True, "compared": [], "tuned": [], "factors": [],
        "lines": [{}], "expected": {"grid": 1}, "runs": [ENTRY], "sources": {}}  # fmt: skip
RUN = {"schema": 1, "id": "r", "task": "t", "status": "done", "metric": "accuracy",
       "metrics": {"dev": {"accuracy": 0.5}, "test": {"accuracy": 0.5}}, "started": "2026-01-01"}  # fmt: skip
STUDY_FILES = {"plan.json": PLAN, "ledger.jsonl": [{**LINE, "run": None}], "packs.jsonl": [{"number": 0, "keys": []}],
               "adopted.jsonl": [{"key": "k", "record": {}}], "fits.json": {}}  # fmt: skip
MULTIRC = {"idx": 0, "passage": {"text": "p", "questions": [
    {"idx": 0, "question": "q", "answers": [{"idx": 0, "text": "a", "label": 1}]}]}}  # fmt: skip
ANN = {"start": 0, "end": 2, "text": "Ann"}
RECORD = {"idx": 0, "passage": {"text": "Ann ran", "entities": [ANN]},
          "qas": [{"idx": 0, "query": "@placeholder ran", "answers": [ANN]}]}  # fmt: skip
WSC = {"idx": 0, "text": "Ann ran as she was", "label": True,
       "target": {"span1_text": "Ann", "span1_index": 0, "span2_text": "she", "span2_index": 3}}  # fmt: skip
SQUAD = {"version": "1.1", "data": [{"title": "t", "paragraphs": [{"context": "a b c", "qas": [
    {"id": "1", "question": "q", "answers": [{"text": "b", "answer_start": 2}]}]}]}]}  # fmt: skip
FACT = {"uuid": "u", "sub_label": "Ann", "obj_label": "Rome", "sub_uri": "Q1", "obj_uri": "Q2", "predicate_id": "P1",
        "evidences": [{"masked_sentence": "Ann is in [MASK]."}]}  # fmt: skip
RELATION = {"relation": "P1", "template": "[X] is in [Y] .", "label": "in", "type": "1-1"}
ADAPTER = {"peft_type": "PROMPT_TUNING", "task_type": "CAUSAL_LM", "num_virtual_tokens": 2, "token_dim": 3,
           "base_model_name_or_path": "x", "num_layers": 1, "num_attention_heads": 1}  # fmt: skip
BUNDLE = {"schema": 1, **bundle_metadata((2, 3))}
EXPORTED = {"schema": 1, "export": {"kind": "peft"}, "tasks": [{"name": "t", "bundle": BUNDLE, "form": "prompt"}]}
SURFACE = save({"y": np.zeros(2, np.float64), "x": np.zeros(2, np.float64), "losses": np.zeros((2, 2, 3), np.float64)})
FACTS = {"schema": 1, "view": "text", "label": "r",
         "arrays": {"file": "text.safetensors", "sha256": sha256(SURFACE).hexdigest()}}  # fmt: skip
SHARP = {"schema": 1, "run": "r", "loss": 0.5, "batch": {}, "prompt": {"top": [1.0], "trace": 2.0}, "input": {}}
DATA = {"schema": 1, "archives": {"https://example.org/a": {"sha256": "0", "verified": True, "files": ["x/a.txt"]}},
        "files": {"x/a.txt": "0"}}  # fmt: skip
RESULTS = [{"schema": 1, "name": "s", "plan": {"digest": "d"}, "packs": [], "fits": {}}, {"line": LINE, "record": RUN}]
ARCHIVE = {"a.txt": b"hello" * 20, "b/c.txt": b"x"}

READERS: dict[str, Reader] = {
    "recipe": Reader(lambda f: resolve(read_recipe(f / "r.yaml")), {"r.yaml": RECIPE}, "r.yaml"),
    "study": Reader(lambda f: read_study(f / "s.yaml"), {"s.yaml": STUDY}, "s.yaml"),
    "csv": Reader(lambda f: read_table(f / "t.csv"), {"t.csv": 'a,b\n1,"x ""y"""\n'}, "t.csv"),
    "tsv": Reader(lambda f: read_table(f / "t.tsv"), {"t.tsv": "a\tb\n1\tx\n"}, "t.tsv"),
    "jsonl": Reader(form(None, a="x"), {"t.jsonl": [{"a": "1", "b": 2, "choices": ["x", "y"]}]}, "t.jsonl"),
    "multirc": Reader(form("multirc"), {"t.jsonl": [MULTIRC]}, "t.jsonl"),
    "record": Reader(form("record"), {"t.jsonl": [RECORD]}, "t.jsonl"),
    "record_query": Reader(form("record_query"), {"t.jsonl": [RECORD]}, "t.jsonl"),
    "wsc": Reader(form("wsc"), {"t.jsonl": [WSC]}, "t.jsonl"),
    "conll": Reader(lambda f: read_conll(f / "t"), {"t": "Ann\tB-x\nis\tO\n\nRome\tB-y\n"}, "t"),
    "tagged jsonl": Reader(
        lambda f: read_rows(f / "t.jsonl", predicate="at"),
        {"t.jsonl": [{"tokens": ["Ann", "ran"], "tags": ["B-x", "O"], "at": 1, "id": "1"}]}, "t.jsonl",
    ),
    "squad": Reader(lambda f: read_squad(f / "t.json"), {"t.json": SQUAD}, "t.json"),
    "squad, repaired": Reader(lambda f: read_squad(f / "t.json", repair_offsets=True), {"t.json": SQUAD}, "t.json"),
    "lama facts": Reader(
        lambda f: read_facts(f / "t.jsonl", Relation("P1", "[X] is in [Y] .")), {"t.jsonl": [FACT]}, "t.jsonl"
    ),
    "lama relations": Reader(lambda f: read_relations(f / "t.jsonl"), {"t.jsonl": [RELATION]}, "t.jsonl"),
    "lama words": Reader(lambda f: read_words(f / "t.txt", None), {"t.txt": "one\ntwo\n"}, "t.txt"),
    "lama words of an entry": Reader(lambda f: read_words(f / "t.json", "a"), {"t.json": {"a": ["one"]}}, "t.json"),
    "bundle.json": Reader(read_bundle, {"bundle.json": BUNDLE, "prompt.safetensors": save(PROMPT)}, "bundle.json"),
    "prompt": Reader(read_bundle, {"bundle.json": BUNDLE, "prompt.safetensors": save(PROMPT)}, "prompt.safetensors"),
    "checkpoint": Reader(read_checkpoint, {FILE: checkpoint()}, FILE),
    "runs": Reader(lambda f: ls("runs", runs_dir=f), {"r/run.json": RUN}, "r/run.json"),
    **{f"study, {name}": Reader(lambda f: StudyFolder(f).read(), STUDY_FILES, name)
       for name in ("plan.json", "ledger.jsonl", "adopted.jsonl")},
    "study, packs.jsonl": Reader(lambda f: StudyFolder(f).packs(), STUDY_FILES, "packs.jsonl"),
    "study, fits.json": Reader(lambda f: StudyFolder(f).fits(), STUDY_FILES, "fits.json"),
    "results": Reader(lambda f: read_results(f / "r.gz"), {"r.gz": gzip.compress(raw(RESULTS), mtime=0)}, "r.gz"),
    "results, unpacked": Reader(lambda f: read_results(f / "r.gz"), {"r.gz": RESULTS}, "r.gz", zipped=True),
    "results, taken over": Reader(taken_over, {"r.gz": results()}, "r.gz", zipped=True),
    "adapter": Reader(
        read_adapter, {"adapter_config.json": ADAPTER,
                       "adapter_model.safetensors": save({"prompt_embeddings": PROMPT["inputs"]})},
        "adapter_config.json",
    ),
    "adapter, vectors": Reader(
        read_adapter, {"adapter_config.json": ADAPTER,
                       "adapter_model.safetensors": save({"prompt_embeddings": PROMPT["inputs"]})},
        "adapter_model.safetensors",
    ),
    "exported": Reader(_record, {"trimtab.json": EXPORTED}, "trimtab.json"),
    "landscape": Reader(
        lambda f: read_landscape(f, "text"),
        {"landscape/text.json": FACTS, "landscape/text.safetensors": SURFACE}, "landscape/text.json",
    ),
    "landscape, arrays": Reader(
        lambda f: read_landscape(f, "text"),
        {"landscape/text.json": FACTS, "landscape/text.safetensors": SURFACE}, "landscape/text.safetensors",
    ),
    "sharpness": Reader(
        lambda f: sharpness_tables(read_sharpness([f])), {"landscape/sharpness.json": SHARP}, "landscape/sharpness.json"
    ),
    "data record": Reader(check, {".trimtab/x.json": DATA, "x/a.txt": "a"}, ".trimtab/x.json"),
    "zip": Reader(unpacked, {"a": zip_of(ARCHIVE)}, "a"),
    "tar": Reader(unpacked, {"a": tar_of(ARCHIVE)}, "a"),
}  # fmt: skip
JSON = [name for name, its in READERS.items() if not isinstance(its.files[its.target], bytes | str)]

ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([2**70, -(2**70), 1e308, 0.5]), st.text(max_size=4),
    st.sampled_from(["", "\ud800", "a/../../b", "\0", "!!", "{", "1e999", "-", "x" * 300]),
    st.lists(st.integers(0, 2), max_size=2), st.dictionaries(st.text(max_size=2), st.integers(0, 2), max_size=2),
    st.just([[[[]]]]), st.just({"kind": "residual"}),
)  # fmt: skip


def tried(reader: Reader, folder: Path, content: bytes) -> bool:
    """Read it with the target so; True if that went well."""
    place = folder / f"{len(list(folder.iterdir()))}"
    for name, good in reader.files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content if name == reader.target else raw(good))
    try:
        reader.read(place)
    except TrimtabError:
        return False
    return True


def changed(data: Any, draw: Callable[[Any], Any]) -> Any:
    """Plain data with one value, at any depth, of another sort or gone."""
    whole = [copy.deepcopy(data)]
    holder, key = whole, 0
    while isinstance(holder[key], list | dict) and holder[key] and (holder is whole or draw(st.booleans())):
        holder = holder[key]
        key = draw(st.sampled_from(list(holder) if isinstance(holder, dict) else range(len(holder))))
    if holder is not whole and draw(st.integers(0, 3)) == 0:
        del holder[key]
    else:
        holder[key] = draw(ODD)
    return whole[0]


def fuzzed(name: str, count: int, folder: Path, content: Callable[[Any, Callable[[Any], Any]], bytes]) -> None:
    """Read many files that `content` makes of the good one."""
    reader = READERS[name]

    @settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.data())
    def read(data: st.DataObject) -> None:
        tried(reader, folder, content(reader, data.draw))

    read()


def noise(reader: Reader, draw: Callable[[Any], Any]) -> bytes:
    found: bytes = draw(st.one_of(st.binary(max_size=80), st.text(max_size=80).map(str.encode)))
    return found


def bytes_changed(reader: Reader, draw: Callable[[Any], Any]) -> bytes:
    content = bytearray(raw(reader.files[reader.target]))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(content)))
        content[at : at + draw(st.integers(0, 4))] = draw(
            st.one_of(st.binary(max_size=4), st.sampled_from([b'"', b"{}", b"[", b"]", b",", b"\n", b"null", b"1"]))
        )
    return bytes(content)


def value_changed(reader: Reader, draw: Callable[[Any], Any]) -> bytes:
    found = changed(reader.files[reader.target], draw)
    content = raw(found if isinstance(found, list | dict) else json.dumps(found))
    return gzip.compress(content, mtime=0) if reader.zipped else content


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", READERS)
def test_noise(name: str, count: int, tmp_path: Path) -> None:
    fuzzed(name, count, tmp_path, noise)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", READERS)
def test_a_good_file_with_bytes_changed(name: str, count: int, tmp_path: Path) -> None:
    fuzzed(name, count, tmp_path, bytes_changed)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", JSON)
def test_a_good_file_with_a_value_of_another_sort(name: str, count: int, tmp_path: Path) -> None:
    fuzzed(name, count, tmp_path, value_changed)


@pytest.mark.parametrize("name", READERS)
def test_the_good_file_is_read(name: str, tmp_path: Path) -> None:
    reader = READERS[name]
    content = raw(reader.files[reader.target])
    assert tried(reader, tmp_path, gzip.compress(content) if reader.zipped else content), name


def test_an_error_that_is_not_ours_would_be_seen(tmp_path: Path) -> None:
    careless = Reader(
        lambda f: json.loads((f / "a.json").read_bytes())["a"]["b"], {"a.json": {"a": {"b": 1}}}, "a.json"
    )
    assert tried(careless, tmp_path, b'{"a": {"b": 2}}')
    for content in (b"", b'{"a": 1}', b"{}"):
        with pytest.raises((ValueError, TypeError, KeyError)), suppress(TrimtabError):
            tried(careless, tmp_path, content)
