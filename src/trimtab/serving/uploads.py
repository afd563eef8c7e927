"""A bundle that comes as a zip archive, from anybody: read with limits on everything, or refused.

An archive holds `bundle.json` and `prompt.safetensors`, at its top or in one folder, and nothing else. Nothing is
unpickled, and nothing of it stays on the disk: the two files pass through a scratch folder, under their own names.
"""

from __future__ import annotations

import hmac
import io
import zipfile
import zlib
from hashlib import sha256
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from trimtab.archives import is_link, leads_out
from trimtab.errors import BundleError
from trimtab.serving.refusals import DiskError, ForbiddenError, TokenError, TooLargeError
from trimtab.storage import Bundle, read_bundle

FILES = {"bundle.json": 1 << 20, "prompt.safetensors": None}
"""What an archive holds, and how large each may be at most; None: as the server allows."""
HEADER_BYTES = 1 << 20
"""The longest header of a safetensors file: a prompt has a handful of tensors."""
_WHERE = "the uploaded archive"
_ADVICE = "Send a zip of bundle.json and prompt.safetensors, as `zip -j b.zip RUN/bundle.json RUN/prompt.safetensors`."


def check_token(given: str | None, token: str | None) -> None:
    """Whether whoever asks may add and remove bundles. The comparison takes as long whatever is given.

    Args:
        given: the header `Authorization`.
        token: the server's; None where it was started without one.

    Raises:
        ForbiddenError: nobody may.
        TokenError: not with this token.
    """
    if token is None:
        raise ForbiddenError(
            "this server takes no bundles.", where="server", fix="Start it with --uploads and a token in TRIMTAB_TOKEN."
        )
    said = (given or "").removeprefix("Bearer ").encode("utf-8", "replace")
    if not hmac.compare_digest(sha256(said).digest(), sha256(token.encode()).digest()):
        what = "there is no token." if given is None else "this is not the token."
        raise TokenError(what, where="Authorization", fix="Send the header `Authorization: Bearer TOKEN`.")


def bundle_from(archive: bytes, most_bytes: int) -> Bundle:
    """The bundle in an archive.

    Raises:
        BundleError: not a zip, damaged, with names that lead out of it, links, other files or the same one twice; or
            what `read_bundle` refuses.
        TooLargeError: it unpacks to more than is allowed.
        DiskError: the server's disk is full or fails.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            parts = {name: _read(opened, info, most_bytes) for name, info in _members(opened).items()}
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, OSError, ValueError) as error:
        if isinstance(error, BundleError | TooLargeError):
            raise
        said = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise BundleError(f"this is not a readable zip archive: {said}.", where=_WHERE, fix=_ADVICE) from None
    _check_header(parts["prompt.safetensors"])
    try:
        with TemporaryDirectory(prefix="trimtab-upload-", ignore_cleanup_errors=True) as scratch:
            for name, content in parts.items():
                (Path(scratch) / name).write_bytes(content)
            return _read_bundle(scratch)
    except OSError as error:
        what = f"the server cannot unpack it: {error.strerror or error}."
        raise DiskError(what, where=_WHERE, fix="Send it again later.") from None


def _read_bundle(scratch: str) -> Bundle:
    """The bundle in the scratch folder, of which no error tells."""
    try:
        return read_bundle(Path(scratch))
    except BundleError as error:
        where = (error.where or "").replace(scratch, _WHERE)
        raise BundleError(error.what.replace(scratch, _WHERE), where=where, fix=error.fix) from None


def _members(opened: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The two files, by their names without a folder."""
    found: dict[str, zipfile.ZipInfo] = {}
    folders = set()
    for info in opened.infolist():
        path = PurePosixPath(info.filename)
        if is_link(info) or leads_out(info.filename):
            what = "a link" if is_link(info) else "a name that leads out of it"
            raise BundleError(f"the archive holds {what}: {info.filename[:100]!r}.", where=_WHERE, fix=_ADVICE)
        if info.is_dir():
            continue
        if path.name not in FILES or len(path.parts) > 2 or path.name in found:
            raise BundleError(f"the archive holds {info.filename[:100]!r}, too.", where=_WHERE, fix=_ADVICE)
        found[path.name] = info
        folders.add(path.parent)
    missing = [name for name in FILES if name not in found]
    if missing or len(folders) > 1:
        what = f"the archive has no {missing[0]}." if missing else "the two files lie in different folders."
        raise BundleError(what, where=_WHERE, fix=_ADVICE)
    return found


def _read(opened: zipfile.ZipFile, info: zipfile.ZipInfo, most_bytes: int) -> bytes:
    """A member, never more of it than is allowed, whatever the archive says of its size."""
    most = FILES[PurePosixPath(info.filename).name] or most_bytes
    with opened.open(info) as file:
        content = file.read(most + 1)
    if len(content) > most:
        what = f"{info.filename[:100]!r} is larger than {most:,} bytes."
        raise TooLargeError(what, where=_WHERE, fix="Raise the server's --max-bundle-mb, if this is meant.")
    return content


def _check_header(content: bytes) -> None:
    """A header must be there, and be as short as that of a prompt."""
    stated = int.from_bytes(content[:8], "little")
    if len(content) < 8 or stated > min(HEADER_BYTES, len(content) - 8):
        what = f"the header of prompt.safetensors says that it has {stated:,} bytes, of a file of {len(content):,}."
        raise BundleError(what, where=_WHERE, fix="Copy it again or rerun the training.")
