"""Manifests: what is to be had where, under which license, and by which hash one knows it."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from trimtab.documents import read_yaml
from trimtab.errors import ConfigError, suggest
from trimtab.registry import validated

FOLDER = Path(__file__).parent / "manifests"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _inside(value: str) -> str:
    """A relative path that leads nowhere else."""
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts or "\\" in value:
        raise ConfigError(f"a path in a manifest stays inside its folder, got {value!r}.", where="manifest")
    return value


class Archive(_Section):
    """One download: a .zip, a .tar.gz, or a single file.

    Attributes:
        url: its public address.
        sha256: of the download; None where it is not known.
        bytes: its size; None where it is not known.
        into: folder in the data directory.
        inside: folder of the archive, at whatever depth, whose content comes out; empty for all.
        files: what comes out, relative to it; `*` stands for any name. Empty for a single file, which keeps its name.
    """

    url: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    bytes: int | None = None
    into: str
    inside: str = ""
    files: tuple[str, ...] = ()

    @field_validator("url")
    @classmethod
    def _is_https(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
            raise ConfigError(f"an address begins with https, got {value!r}.", where="manifest")
        return value

    @field_validator("into", "inside", "files")
    @classmethod
    def _stay_inside(cls, value: Any) -> Any:
        for part in (value,) if isinstance(value, str) else value:
            _inside(part)
        return value

    @property
    def file_name(self) -> str:
        """The last part of the address."""
        return PurePosixPath(urlsplit(self.url).path).name or "download"


class Manifest(_Section):
    """Data that belongs together.

    Attributes:
        license: what its authors say, in short; read theirs before use.
        known_by: where the hashes are from.
    """

    name: str
    about: str
    homepage: str
    license: str
    known_by: str
    archives: Annotated[tuple[Archive, ...], Field(min_length=1)]

    @property
    def bytes(self) -> int | None:
        """Of all downloads, where known."""
        sizes = [a.bytes for a in self.archives]
        return None if None in sizes else sum(s for s in sizes if s is not None)

    @property
    def is_verified(self) -> bool:
        """Every hash is known."""
        return all(a.sha256 for a in self.archives)


@cache
def manifests() -> dict[str, Manifest]:
    """All that come with the package, by name."""
    return {path.stem: read_manifest(path) for path in sorted(FOLDER.glob("*.yaml"))}


def read_manifest(path: Path) -> Manifest:
    """A manifest from a file; its name is the file's.

    Raises:
        ConfigError: a key that is missing or unknown, an address without https, a path that leads elsewhere.
    """
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        raise ConfigError("a manifest is a mapping with archives.", where=str(path))
    return validated(Manifest, {"name": path.stem, **raw}, path.stem)


def manifest_of(name: str) -> Manifest:
    """A manifest by its name, or by the path of a file of one's own.

    Raises:
        ConfigError: there is none.
    """
    if re.search(r"[/\\]|\.ya?ml$", name):
        return read_manifest(Path(name))
    known = manifests()
    if name not in known:
        raise ConfigError(f"there is no manifest {name!r}.", where="data", fix=suggest(name, known))
    return known[name]
