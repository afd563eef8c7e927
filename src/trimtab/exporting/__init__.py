"""Trained prompts in the formats of other programs: one file per target, which is a class that writes a folder.

Every folder has a `trimtab.json`: what was exported (the content of each bundle.json), how its text is to be written,
and the version that wrote it. A target writes nothing that it cannot say exactly; what it cannot, it refuses with the
reason, and where the program that reads the folder would itself go wrong, a note says so.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

from trimtab.documents import parse_yaml
from trimtab.errors import BundleError, ConfigError
from trimtab.exporting.folders import RECORD, whole_folder
from trimtab.files import write_json
from trimtab.loading import load
from trimtab.predictor import Predictor
from trimtab.registry import Spec, exports
from trimtab.storage import Bundle, read_bundle

RECORD_SCHEMA = 1


@dataclass(frozen=True)
class Source:
    """A trained prompt that is to be exported.

    Attributes:
        name: what it is called where several stand side by side.
        path: its run folder or bundle.
        bundle: its content.
        model: where its backbone lies now; None where the bundle says.
    """

    name: str
    path: Path
    bundle: Bundle
    model: str | None = None

    @classmethod
    def read(cls, path: Path, name: str | None = None, model: str | None = None) -> Source:
        """The bundle in a folder; it is called as its task is unless `name` says otherwise.

        Raises:
            BundleError: as `read_bundle`; also a bundle of several tasks, as each has its own text and answers.
        """
        bundle = read_bundle(path)
        if bundle.tasks:
            raise BundleError(
                f"the prompt is of several tasks: {', '.join(bundle.tasks)}.",
                where=str(path),
                fix=f"Take one out and export that: trimtab take {path} {bundle.tasks[0]} -o FOLDER.",
            )
        return cls(name or str(bundle.metadata["task"].get("name") or path.name), path, bundle, model)

    def open(self, dtype: str | None = None) -> Predictor:
        """The prompt on its backbone, on the CPU.

        Raises:
            TrimtabError: as `trimtab.load`.
        """
        return load(self.path, backbone=self.model, device="cpu", dtype=dtype)  # type: ignore[arg-type]

    @cached_property
    def predictor(self) -> Predictor:
        """The same in the dtype that the run had, loaded once."""
        return self.open()


@dataclass(frozen=True)
class Written:
    """What a target tells of the folder that it wrote.

    Attributes:
        tasks: for each source, what `trimtab.json` has beside its bundle.
        notes: what a user must know.
    """

    tasks: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...] = ()


class Export(ABC):
    """A target. Options are keyword-only parameters of the constructor.

    Attributes:
        takes_several: whether one folder may hold several prompts.
    """

    takes_several: ClassVar[bool] = False

    @abstractmethod
    def write(self, sources: Sequence[Source], folder: Path) -> Written:
        """Write everything but `trimtab.json` into an empty folder.

        Raises:
            TrimtabError: the target cannot express a source, or the disk refuses.
        """


def export(sources: Sequence[Source], to: Spec, out: Path, *, again: bool = False) -> dict[str, Any]:
    """Write an export; nothing is there before all of it is.

    Args:
        to: a target: `peft`, `"baked: {dtype: bfloat16}"`, or a mapping with its kind and options.
        again: replace the folder of an earlier export.

    Returns:
        `folder`, `export` (the target with its options), `files` and `notes`.

    Raises:
        ConfigError: no such target or option, several prompts where one fits, or a folder that is in the way.
        TrimtabError: as `Export.write`.
    """
    resolved = exports.resolve(_spec(to), "export")
    target: Export = exports.build(resolved)
    if len(sources) != 1 and not (sources and target.takes_several):
        several = ", ".join(k for k in exports.kinds() if exports.get(k).takes_several)  # type: ignore[attr-defined]
        raise ConfigError(
            f"this export takes one run, got {len(sources)}.", where="export", fix=f"Several fit into: {several}."
        )
    with whole_folder(out, again=again) as folder:
        written = target.write(sources, folder)
        tasks = [
            {"name": s.name, **its, "bundle": dict(s.bundle.metadata)}
            for s, its in zip(sources, written.tasks, strict=True)
        ]
        about = {"schema": RECORD_SCHEMA, "trimtab": version("trimtab"), "export": resolved, "tasks": tasks}
        write_json(folder / RECORD, about)
        files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return {"folder": str(out), "export": resolved, "files": files, "notes": list(written.notes)}


def _spec(to: Spec) -> Spec:
    """A target as it is given on the command line: `kind`, or `kind: {option: value}`."""
    found = parse_yaml(to, "export") if isinstance(to, str) else to
    if isinstance(found, Mapping) and len(found) == 1 and "kind" not in found:
        ((kind, options),) = found.items()
        found = {**(options or {}), "kind": kind} if options is None or isinstance(options, Mapping) else found
    if isinstance(found, str) or (isinstance(found, Mapping) and "kind" in found):
        return found
    fix = "Write its name, or name: {option: value}, such as baked: {dtype: bfloat16}."
    raise ConfigError(f"this is no export: {to!r}.", where="export", fix=fix)
