"""Manifests that come with the package, and what a manifest may not say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.refusals import refused
from trimtab.documents import dump_yaml
from trimtab.errors import ConfigError
from trimtab.fetching.manifests import manifest_of, manifests, read_manifest
from trimtab.registry import tasks

GOOD: dict[str, Any] = {
    "about": "a toy", "homepage": "https://example.org", "license": "none", "known_by": "nobody",
    "archives": [{"url": "https://example.org/a.zip", "into": "toy", "files": ["train.jsonl"]}],
}  # fmt: skip


def test_those_of_the_package_are_whole() -> None:
    known = manifests()
    assert {"superglue", "lama", "fewglue", "fewglue_32dev", "wnut17", "xquad_en", "squad"} <= set(known)
    for name, manifest in known.items():
        assert manifest.name == name
        assert all(a.url.startswith("https://") for a in manifest.archives), name
        assert len({a.url for a in manifest.archives}) == len(manifest.archives), name
        assert "no hash is known" in manifest.known_by or manifest.is_verified, name
        assert all((a.sha256 is None) == (a.bytes is None) for a in manifest.archives), name
        places = [f"{a.into}/{f}" for a in manifest.archives for f in (a.files or (a.file_name,))]
        assert len(set(places)) == len(places), name
    assert len(known["superglue"].archives) == 10
    assert known["superglue"].bytes == 58_335_821


def test_presets_find_their_files_where_manifests_put_them() -> None:
    places = {
        f"data:{a.into}/{f}" for m in manifests().values() for a in m.archives for f in (a.files or (a.file_name,))
    }
    official = [k for k in tasks.kinds() if k.startswith("superglue/")]
    assert len(official) > 8
    for kind in (*official, "wnut17", "xquad_en"):
        files = tasks.build(tasks.resolve(kind, "task")).files
        assert set(files.values()) <= places, kind
    assert "data:lama/TREx/*.jsonl" in places
    assert "data:lama/relations.jsonl" in places


def test_one_of_ones_own_is_named_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(dump_yaml(GOOD))
    assert manifest_of(str(path)).name == "mine"
    assert not manifest_of(str(path)).is_verified
    assert manifest_of(str(path)).bytes is None
    with refused(ConfigError, "there is no manifest 'superglu'", where="data", fix="Did you mean 'superglue'?"):
        manifest_of("superglu")


@pytest.mark.parametrize(
    ("change", "what", "where"),
    [
        ({"url": "http://example.org/a.zip"}, "an address begins with https", "manifest"),
        ({"url": "file:///etc/passwd"}, "an address begins with https", "manifest"),
        ({"into": "../out"}, "a path in a manifest stays inside its folder", "manifest"),
        ({"into": "/out"}, "a path in a manifest stays inside its folder", "manifest"),
        ({"files": ["a/../../b"]}, "a path in a manifest stays inside its folder", "manifest"),
        ({"sha256": "abc"}, "String should match pattern", "mine.archives.0.sha256"),
        ({"sha": "abc"}, "there is no such key", "mine.archives.0.sha"),
    ],
)
def test_what_a_manifest_may_not_say(change: dict[str, Any], what: str, where: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(dump_yaml({**GOOD, "archives": [{**GOOD["archives"][0], **change}]}))
    with pytest.raises(ConfigError) as caught:
        read_manifest(path)
    assert what in caught.value.what
    assert caught.value.where == where


def test_a_manifest_is_a_mapping(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("- a\n")
    with refused(ConfigError, "a manifest is a mapping with archives", where=str(tmp_path / "mine.yaml")):
        read_manifest(tmp_path / "mine.yaml")
