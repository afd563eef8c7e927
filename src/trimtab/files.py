"""Files that are written whole or not at all, and what reading them may meet. Nothing here knows what they mean."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from trimtab.errors import BundleError, BusyError, StorageError, TrimtabError

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]

PART = ".part"
"""How the names of files and folders end that are not whole yet; they begin with a dot."""


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a file so that a reader finds the old content or the new one, never half of it.

    Raises:
        StorageError: no space, no permission, or another failure of the file system; nothing is left behind.
    """
    with told("file", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PART)
        try:
            with os.fdopen(descriptor, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(scratch, 0o644)
            os.replace(scratch, path)
        except BaseException:
            with suppress(OSError):
                Path(scratch).unlink(missing_ok=True)
            raise


def settle(folder: Path) -> None:
    """Have the names in a folder survive a power cut, where the file system can do that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sweep(folder: Path) -> None:
    """Remove the halves of files that a killed process has left; only by whoever holds the folder.

    Raises:
        StorageError: they cannot be removed.
    """
    with told("folder", folder):
        for file in folder.glob(f".*{PART}"):
            if file.is_file():
                file.unlink(missing_ok=True)


@contextmanager
def told(what: str, path: Path) -> Iterator[None]:
    """What the file system refuses while a file or folder is written, as an error that says what to do.

    Raises:
        StorageError: no space, no permission, or another failure.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise StorageError(
            f"the {what} cannot be written: {'no space left on the disk' if full else error.strerror or error}.",
            where=str(path),
            fix="Free some space or choose another folder." if full else None,
        ) from None


@contextmanager
def hold(folders: Sequence[Path], by: str, option: str) -> Iterator[None]:
    """Hold folders for this process; the operating system lets go of them when it dies, however it dies.

    The lock is on the folder itself (flock), so it leaves no file. Systems without flock (Windows) are not guarded.

    Args:
        by: what another process must be doing if it holds one, for the message.
        option: of the command line, with which to choose another folder.

    Raises:
        BusyError: another process holds one of them.
        StorageError: one cannot be made or locked.
    """
    locks: list[int] = []
    try:
        for folder in folders:
            with told("folder", folder):
                folder.mkdir(parents=True, exist_ok=True)
                if fcntl is None:
                    continue
                locks.append(os.open(folder, os.O_RDONLY))
                try:
                    fcntl.flock(locks[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    what = f"another process is {by}."
                    raise BusyError(what, where=str(folder), fix=f"Wait for it, or choose another {option}.") from None
        yield
    finally:
        for descriptor in locks:
            os.close(descriptor)
        for folder in folders:
            with suppress(OSError):
                folder.rmdir()  # only if nothing was written


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_atomically(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically.

    Raises:
        TrimtabError: as `write_atomically`; also a number that is not finite, which JSON cannot say.
    """
    write_text(path, _json(value, path, indent=1) + "\n")


def write_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line, atomically; errors as `write_json`."""
    write_text(path, "".join(_json(r, path) + "\n" for r in records))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file that is appended to; what a crash has left of a last line is dropped.

    Raises:
        BundleError: a line is not a JSON object.
    """
    if not path.exists():
        return []
    with understood(path):
        whole, _, _ = path.read_bytes().rpartition(b"\n")
    found = []
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            found.append(json.loads(line))
            if not isinstance(found[-1], dict):
                raise ValueError
        except (ValueError, RecursionError):
            what = "this line is not a JSON object: the file was edited or damaged."
            raise BundleError(what, where=f"{path}:{number}", fix="Restore it, or remove the line.") from None
    return found


@contextmanager
def understood(path: Path) -> Iterator[None]:
    """Around what makes sense of a file that trimtab has written: what is missing there, or of another sort, because
    the file was edited or damaged, is an error that says so.

    Raises:
        BundleError: anything that is no error of ours already.
    """
    try:
        yield
    except TrimtabError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, OSError) as error:
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        what = f"this is not what trimtab writes there: the file was edited or damaged ({said})."
        raise BundleError(what, where=str(path), fix="Restore it, or have it written anew.") from None


def _json(value: Any, path: Path, indent: int | None = None) -> str:
    try:
        return json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    except ValueError:
        raise TrimtabError("a number that is not finite has no place in JSON.", where=str(path)) from None


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray]) -> str:
    """Write a safetensors file atomically; returns its SHA-256."""
    data = save({k: np.ascontiguousarray(v) for k, v in tensors.items()})
    write_atomically(path, lambda file: file.write(data))
    return hashlib.sha256(data).hexdigest()


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Read a safetensors file.

    Raises:
        BundleError: missing, truncated or corrupted.
    """
    try:
        return load_file(path)
    except FileNotFoundError:
        raise BundleError("there is no such file.", where=str(path)) from None
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise BundleError(
            f"the file is truncated or corrupted ({str(error).strip()}).",
            where=str(path),
            fix="Copy it again or rerun the training.",
        ) from None


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        BundleError: missing, malformed, or not an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError("there is no such file.", where=str(path)) from None
    except (ValueError, RecursionError, OSError) as error:  # ValueError: also numbers of too many digits
        raise BundleError(f"this is not readable JSON ({error}).", where=str(path)) from None
    if not isinstance(value, dict):
        raise BundleError(f"a JSON object is expected, got {type(value).__name__}.", where=str(path))
    return value
