"""Whatever the bytes of an archive or of its files are, the answer is a bundle or an error of ours."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from tests.serving_bundles import bundle_of
from tests.unit.refusals import refused
from tests.unit.serving.conftest import packed, zipped
from trimtab.backbones import Backbone
from trimtab.errors import BundleError, TrimtabError
from trimtab.serving.fitting import fitted
from trimtab.serving.refusals import DiskError, ForbiddenError, TokenError, TooLargeError
from trimtab.serving.uploads import bundle_from, check_token

MOST = 100_000
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def taken(archive: bytes, backbone: Backbone) -> None:
    """Read, and fitted to the backbone; only errors of ours may come out."""
    with suppress(TrimtabError):
        fitted(bundle_from(archive, MOST), backbone, "the archive")


def test_a_bundle_goes_through(backbone: Backbone) -> None:
    bundle = bundle_of(backbone)
    got = bundle_from(zipped(bundle), MOST)
    assert got.metadata == bundle.metadata
    np.testing.assert_array_equal(got.prompt, bundle.prompt)


def test_a_member_without_a_name_is_refused(backbone: Backbone) -> None:
    with refused(BundleError, "a name that leads out of it: ''", where="the uploaded archive", fix="Send a zip"):
        bundle_from(packed({"Q": b""}).replace(b"Q", b"\0"), MOST)


def test_a_full_disk_is_no_fault_of_the_archive(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*rest: object) -> None:
        raise OSError(28, "No space left on device")

    archive = zipped(bundle_of(backbone))
    monkeypatch.setattr(Path, "write_bytes", full)
    with refused(DiskError, "cannot unpack it: No space left on device", where="the uploaded archive", fix="later"):
        bundle_from(archive, MOST)
    assert DiskError.status == 507


@FUZZ
@given(st.binary(max_size=400))
def test_any_bytes(backbone: Backbone, noise: bytes) -> None:
    taken(noise, backbone)


@FUZZ
@given(st.data())
def test_an_archive_with_some_bytes_changed_cut_or_put_in(backbone: Backbone, data: st.DataObject) -> None:
    archive = bytearray(zipped(bundle_of(backbone)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(archive) - 1))
        archive[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    taken(bytes(archive), backbone)


@FUZZ
@given(st.data())
def test_tensors_with_some_bytes_changed(backbone: Backbone, data: st.DataObject) -> None:
    bundle = bundle_of(backbone)
    tensors = bytearray(save(dict(bundle.tensors)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(120, len(tensors) - 1)))
        tensors[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    meta = json.dumps(dict(bundle.metadata)).encode()
    taken(packed({"bundle.json": meta, "prompt.safetensors": bytes(tensors)}), backbone)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in nested mappings and lists."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at] * bool(at) + [p for key, its in inner for p in places(its, (*at, key))]


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=20),
    st.sampled_from(["{prompt}", "{prompt} {text} {answer} {answer}", "{", "{x} " * 50, "../../etc/passwd", "head"]),
    st.lists(st.integers(-3, 3), max_size=3), st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
)  # fmt: skip


@FUZZ
@given(st.data())
def test_metadata_with_anything_anywhere(backbone: Backbone, data: st.DataObject) -> None:
    bundle = bundle_of(backbone)
    meta = json.loads(json.dumps(dict(bundle.metadata)))
    *path, last = data.draw(st.sampled_from(places(meta)))
    inner = meta
    for key in path:
        inner = inner[key]
    inner[last] = data.draw(ODD)
    written = json.dumps(meta).encode("utf-8", "surrogatepass")
    files = {"bundle.json": written, "prompt.safetensors": save(dict(bundle.tensors))}
    taken(packed(files), backbone)


def test_a_file_that_unpacks_to_too_much_is_refused_unread(backbone: Backbone) -> None:
    with refused(TooLargeError, "is larger than 100 bytes", where="the uploaded archive", fix="--max-bundle-mb"):
        bundle_from(zipped(bundle_of(backbone)), 100)


def test_files_in_different_folders_are_no_bundle(backbone: Backbone) -> None:
    files = {"a/bundle.json": b"{}", "b/prompt.safetensors": b""}
    with refused(BundleError, "lie in different folders", where="the uploaded archive", fix="zip -j"):
        bundle_from(packed(files), MOST)


def test_the_token_must_be_there_and_be_right() -> None:
    check_token("Bearer secret", "secret")
    with refused(ForbiddenError, "this server takes no bundles", where="server", fix="--uploads"):
        check_token("Bearer secret", None)
    with refused(TokenError, "there is no token", where="Authorization", fix="Bearer TOKEN"):
        check_token(None, "secret")
    for wrong in ("", "Bearer", "Bearer ", "Bearer secre", "Bearer secrets", "Basic secret", "Bearer \udc80"):
        with refused(TokenError, "this is not the token", where="Authorization", fix="Bearer TOKEN"):
            check_token(wrong, "secret")


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    import hmac

    seen: list[tuple[int, int]] = []
    honest = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: seen.append((len(a), len(b))) or honest(a, b))
    for wrong in ("Bearer x", "Bearer " + "x" * 500):
        with pytest.raises(TokenError):
            check_token(wrong, "secret")
    assert seen == [(32, 32)] * 2, "hashes of one length, whatever was given"
