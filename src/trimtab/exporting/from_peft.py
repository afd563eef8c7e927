"""Prompts that PEFT has trained, as bundles: prompt tuning and P-tuning (their vectors), prefix tuning (its keys).

PEFT saves what its encoders made, so nothing of an LSTM, MLP or projection is needed; of T5's two halves of a prompt
its forward pass reads the first alone, and so does this. Weights are read from safetensors; a pickle
(`adapter_model.bin`) is refused. PEFT puts a prompt before all special tokens, so where the tokenizer has a BOS the
template is written out with it behind the prompt.

A folder that `trimtab export --to peft` wrote holds its task, too, and becomes the bundle that it was. For others the
template must be given: what PEFT knows ends with the vectors.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from trimtab.backbones import Backbone, load_backbone
from trimtab.bundle_schema import check_metadata
from trimtab.errors import BundleError, ConfigError
from trimtab.exporting.folders import RECORD, whole_folder
from trimtab.exporting.rotation import turned_on
from trimtab.exporting.spelling import PROBES, probe
from trimtab.files import read_json, read_tensors
from trimtab.loading import from_bundle
from trimtab.registry import readouts
from trimtab.storage import Bundle, read_bundle, write_bundle
from trimtab.template_pieces import read_pieces
from trimtab.templates import Template
from trimtab.text_encoder import TextEncoder
from trimtab.types import Fill

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_MOST_BYTES = 4 << 30
"""No prompt is as large; a file that is was not meant."""


class _Adapter(BaseModel):
    """What is read of adapter_config.json."""

    model_config = ConfigDict(extra="ignore", strict=True)

    peft_type: Literal["PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING"]
    base_model_name_or_path: str | None = None
    revision: str | None = None
    num_virtual_tokens: int = Field(ge=1)
    num_transformer_submodules: int | None = None


@dataclass(frozen=True)
class Task:
    """What a user says of a prompt that PEFT knows nothing of.

    Attributes:
        template: that begins with `{prompt}`.
        label_words: class -> words; none where the model writes.
        readout: a kind, or a mapping with its options; by default that of the backbone's family, or `text`.
        name: of the task.
    """

    template: str
    label_words: Mapping[str, str | Sequence[str]] | None = None
    readout: str | Mapping[str, Any] | None = None
    name: str = "imported"


def read_adapter(folder: Path) -> tuple[_Adapter, Float[Tensor, "P X"]]:
    """The settings and the vectors of a PEFT folder, float32.

    Raises:
        BundleError: not such a folder, another method, a pickle, or vectors that are missing, damaged or of another
            shape than the settings say.
    """
    if not (folder / CONFIG).is_file():
        raise BundleError(f"there is no {CONFIG}.", where=str(folder), fix="Name a folder that PEFT has written.")
    try:
        adapter = _Adapter.model_validate(read_json(folder / CONFIG))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise BundleError(
            f"the key {key!r} must be otherwise: {first['msg']}, got {first['input']!r}.",
            where=str(folder / CONFIG),
            fix="Prompt tuning, P-tuning and prefix tuning can be imported.",
        ) from None
    path = folder / WEIGHTS
    if not path.is_file():
        pickles = sorted(p.name for p in folder.glob("*.bin"))
        what = f"the weights are a pickle ({pickles[0]}), which could run code" if pickles else f"there is no {WEIGHTS}"
        raise BundleError(
            f"{what}.",
            where=str(folder),
            fix="Load it with PEFT where you trust it, and save it again with safe_serialization=True.",
        )
    return adapter, _vectors(path, adapter)


def _vectors(path: Path, adapter: _Adapter) -> Float[Tensor, "P X"]:
    if path.stat().st_size > _MOST_BYTES:
        raise BundleError(f"the file has {path.stat().st_size:,} bytes, and no prompt is as large.", where=str(path))
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        what = f"the file is truncated or corrupted ({str(error).strip()})."
        raise BundleError(what, where=str(path), fix="Copy it again.") from None
    found = tensors.get("prompt_embeddings")
    if found is None or set(tensors) != {"prompt_embeddings"}:
        known = ", ".join(sorted(tensors)[:4]) or "nothing"
        raise BundleError(f"one tensor `prompt_embeddings` is expected, got {known}.", where=str(path))
    rows = adapter.num_virtual_tokens * (adapter.num_transformer_submodules or 1)
    fitting = {adapter.num_virtual_tokens, rows}
    if found.dim() != 2 or found.shape[0] not in fitting or not found.is_floating_point():
        raise BundleError(
            f"the vectors must be {adapter.num_virtual_tokens} rows of numbers, as {CONFIG} says, got shape "
            f"{tuple(found.shape)} of {str(found.dtype).removeprefix('torch.')}.",
            where=str(path),
        )
    vectors = found[: adapter.num_virtual_tokens].float()
    if not vectors.isfinite().all():
        raise BundleError("the prompt holds values that are not finite.", where=str(path))
    return vectors


def import_peft(
    folder: Path, out: Path, task: Task | None = None, *, model: str | None = None, again: bool = False
) -> dict[str, Any]:
    """Write the bundle of a prompt that PEFT has trained, or that was exported to it.

    Args:
        folder: what `save_pretrained` of a PEFT model wrote.
        out: where the bundle goes.
        task: how the prompt is used; left out for a folder that trimtab wrote.
        model: the backbone, where it lies now; by default what the folder names.
        again: replace an earlier bundle.

    Returns:
        `folder`, `prompt` (its kind) and `notes`.

    Raises:
        BundleError: as `read_adapter`; also a prompt that does not fit the backbone.
        ConfigError: no template for a folder that has none of its own, or one beside its own.
        TrimtabError: the backbone cannot be loaded, the template does not parse, or the disk refuses.
    """
    adapter, vectors = read_adapter(folder)
    record = _record(folder)
    if (record is None) == (task is None):
        what = "the folder has no template, as PEFT stores none." if record is None else "the folder has its own task."
        fix = "Give --template '{prompt} ...'." if record is None else f"Leave the template out, or remove {RECORD}."
        raise ConfigError(what, where=str(folder), fix=fix)
    name = model or adapter.base_model_name_or_path
    if not name:
        raise ConfigError("the folder names no base model.", where=str(folder), fix="Give --model.")
    notes: list[str] = []
    if record is not None:
        bundle, backbone = _restored(folder, record, vectors, model)
    else:
        assert task is not None
        backbone = load_backbone(name, dtype="float32", device="cpu", revision=adapter.revision)
        bundle, notes = _adopted(folder, adapter, vectors, backbone, task)
    _check_use(bundle, backbone, str(folder))
    with whole_folder(out, again=again, marks=("bundle.json",)) as scratch:
        write_bundle(scratch, bundle)
        read_bundle(scratch)
    return {"folder": str(out), "prompt": bundle.metadata["prompt"]["kind"], "notes": notes}


def _check_use(bundle: Bundle, backbone: Backbone, where: str) -> None:
    """Render a made-up example, so that a bundle that is of no use is not written."""
    probe(from_bundle(bundle, backbone, where), 0)


# What trimtab has exported -------------------------------------------------------------------------------------------


def _record(folder: Path) -> dict[str, Any] | None:
    """What trimtab.json says of the one task in the folder; None where there is none."""
    path = folder / RECORD
    if not path.exists():
        return None
    about = read_json(path)
    tasks = about.get("tasks")
    found = tasks[0] if isinstance(tasks, list) and len(tasks) == 1 and about.get("schema") == 1 else None
    if not isinstance(found, dict) or not isinstance(found.get("bundle"), dict) or "tasks" in found["bundle"]:
        raise BundleError("this is not what `trimtab export --to peft` writes.", where=str(path), fix="Remove it.")
    check_metadata(found["bundle"], str(path))
    return found


def _restored(
    folder: Path, record: Mapping[str, Any], vectors: Float[Tensor, "P X"], model: str | None
) -> tuple[Bundle, Backbone]:
    """The bundle that was exported."""
    metadata = {k: v for k, v in record["bundle"].items() if k != "schema"}
    if metadata["backbone"]["options"]["trust_remote_code"]:
        raise BundleError(
            "the folder asks to run code that comes with its model, which an import does not do.",
            where=str(folder / RECORD),
            fix="Copy the bundle itself, if you trust it.",
        )
    options = {k: metadata["backbone"]["options"][k] for k in ("revision", "attention")}
    backbone = load_backbone(model or metadata["backbone"]["model"], dtype="float32", device="cpu", **options)
    tensors = {"inputs": np.zeros((0, backbone.embedding_size), np.float32)}
    if record.get("form") == "prefix":
        values = _keys_values(folder, vectors, backbone)
        if record.get("turned"):
            values = turned_on(values, backbone, -len(vectors))
        tensors["deep.self"] = values.numpy()
    else:
        ids = record.get("leading")
        if not isinstance(ids, list) or len(ids) != len(vectors):
            what = f"`leading` must have an entry for each of the {len(vectors)} vectors."
            raise BundleError(what, where=str(folder / RECORD))
        tensors["inputs"] = vectors[[i for i, token in enumerate(ids) if token == -1]].numpy()
    head = folder / "head.safetensors"
    if head.is_file():
        tensors |= {f"head.{name}": v for name, v in read_tensors(head).items()}
    stated = {**metadata["prompt"].get("tensors", {}), "inputs": metadata["prompt"]["shape"]}
    got = {name: list(v.shape) for name, v in tensors.items()}
    if wrong := sorted(n for n in {*stated, *got} if stated.get(n) != got.get(n)):
        raise BundleError(
            f"the tensor {wrong[0]!r} must have the shape {stated.get(wrong[0])}, got {got.get(wrong[0])}.",
            where=str(folder),
            fix="Export it again.",
        )
    return Bundle(metadata, tensors), backbone


# What PEFT has trained -----------------------------------------------------------------------------------------------


def _keys_values(folder: Path, vectors: Float[Tensor, "P X"], backbone: Backbone) -> Float[Tensor, "L 2 P K D"]:
    """Rows of a prefix as keys and values of the backbone's layers."""
    site = backbone.sites.get("self")
    if site is None:
        raise BundleError(
            "PEFT's prefix enters the decoder at positions behind it, which trimtab does not do in encoder-decoders.",
            where=str(folder),
            fix="Train a deep prompt (prompt.kind=deep), which enters the encoder too.",
        )
    wanted = 2 * site.layers * site.heads * site.size
    if vectors.shape[1] != wanted:
        raise BundleError(
            f"a prefix for {backbone.name!r} has {wanted} numbers per virtual token ({site.layers} layers, "
            f"{site.heads} heads of {site.size}, keys and values), got {vectors.shape[1]}.",
            where=str(folder),
            fix="Give the model that it was trained on as --model.",
        )
    return vectors.reshape(len(vectors), site.layers, 2, site.heads, site.size).permute(1, 2, 0, 3, 4).contiguous()


def _adopted(
    folder: Path, adapter: _Adapter, vectors: Float[Tensor, "P X"], backbone: Backbone, task: Task
) -> tuple[Bundle, list[str]]:
    """A bundle for the task that the user has named, and what to know of it."""
    notes = []
    if adapter.peft_type == "PREFIX_TUNING":
        values = _keys_values(folder, vectors, backbone)
        backbone.check_shifts()
        tensors = {"inputs": np.zeros((0, backbone.embedding_size), np.float32), "deep.self": values.numpy()}
        prompt: dict[str, Any] = {"kind": "deep", "layers": {"self": list(range(len(values)))}, "shift": len(vectors)}
        template: str | dict[str, str] = task.template
    else:
        if vectors.shape[1] != backbone.embedding_size:
            raise BundleError(
                f"vectors for {backbone.name!r} have {backbone.embedding_size} numbers, got {vectors.shape[1]}.",
                where=str(folder),
                fix="Give the model that it was trained on as --model.",
            )
        tensors, prompt = {"inputs": vectors.numpy()}, {"kind": "prompt_tuning", "layers": {}, "shift": 0}
        template, is_exact = placed_first(task.template, len(vectors), backbone.encoder)
        if not is_exact:
            notes.append("no template gives the tokenizer's own ids on all probes: compare before you rely on it.")
    prompt |= {
        "shape": list(tensors["inputs"].shape),
        "tensor": "inputs",
        "tensors": {name: list(v.shape) for name, v in tensors.items()},
    }
    return Bundle(_metadata(folder, prompt, template, backbone, task, adapter), tensors), notes


def placed_first(source: str, length: int, encoder: TextEncoder) -> tuple[str | dict[str, str], bool]:
    """A template in which the prompt stands before the tokenizer's special tokens, as PEFT has it.

    Returns:
        The template, and whether its ids are those of prompt and tokenizer on all probes.

    Raises:
        ConfigError: the prompt does not stand first.
    """
    pieces = read_pieces(source, "--template")
    if not pieces or pieces[0].kind != "prompt" or any(p.kind in ("prompt", "decoder_prompt") for p in pieces[1:]):
        what = f"PEFT puts a prompt before everything, so the template must begin with {{prompt}}, got {source!r}."
        raise ConfigError(what, where="--template")
    if not encoder.prefix:
        return source, True
    rest = source[source.index("}") + 1 :].lstrip()
    ends = ["".join(f"{{special:{t}}}" for t in encoder.tokens(ids)) for ids in (encoder.prefix, encoder.suffix)]
    for space in ("", " "):
        written = f"{{prompt:{length}}}{ends[0]}{space}{rest}{ends[1]}"
        if _is_exact(written, rest, length, encoder):
            return {"verbatim": written}, True
    return {"verbatim": f"{{prompt:{length}}}{ends[0]}{rest}{ends[1]}"}, False


def _is_exact(written: str, rest: str, length: int, encoder: TextEncoder) -> bool:
    """Whether a template gives the ids of prompt and tokenizer, up to the answer."""
    template = Template.parse(written, length, is_verbatim=True)
    until = rest.partition("{answer}")[0].rstrip()
    names = [p.value for p in read_pieces(until, "--template") if p.kind == "field"]
    for n in range(len(PROBES)):
        fields = {name: PROBES[(n + i) % len(PROBES)] for i, name in enumerate(template.fields)}
        got = template.render(fields, encoder, 10**6, "probe", Fill((), ()))
        own = encoder.tokenizer(until.format(**{name: fields[name] for name in names}), verbose=False)["input_ids"]
        own = own[: len(own) - len(encoder.suffix)]
        if list(got.ids[length : length + len(own)]) != own:
            return False
    return True


def _metadata(
    folder: Path,
    prompt: Mapping[str, Any],
    template: str | dict[str, str],
    backbone: Backbone,
    task: Task,
    adapter: _Adapter,
) -> dict[str, Any]:
    """The content of bundle.json."""
    words = {c: [w] if isinstance(w, str) else list(w) for c, w in (task.label_words or {}).items()}
    kind = backbone.family.readouts[0] if words else "text"
    plain = {"sentinel": "no"} if "sentinel" in readouts.options(kind) else {}  # PEFT's users write none
    config = backbone.model.config
    metadata = {
        "prompt": dict(prompt),
        "backbone": {
            "model": backbone.name,
            "revision": backbone.revision,
            "model_type": config.model_type,
            "fingerprint": backbone.fingerprint,
            "embedding_size": backbone.embedding_size,
            "embedding_rms": backbone.embedding_rms,
            "options": {
                "dtype": "float32",
                "revision": adapter.revision,
                "trust_remote_code": False,
                "attention": "auto",
                "quantization": None,
            },
        },
        "tokenizer": {"fingerprint": backbone.tokenizer_fingerprint, "add_special_tokens": isinstance(template, str)},
        "task": {
            "name": task.name,
            "template": template,
            "rendered": None if isinstance(template, str) else template["verbatim"],
            "truncate": [],
            "max_length": backbone.max_positions - int(prompt["shift"]),
            "label_words": words,
            "answer": "class" if words else "text",
        },
        "readout": readouts.resolve(task.readout or {"kind": kind, **plain}, "readout"),
        "provenance": {
            "imported": {"from": "peft", "peft_type": adapter.peft_type, "folder": folder.name},
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "environment": {"trimtab": version("trimtab"), "python": platform.python_version(), "dtype": "float32"},
        },
    }
    check_metadata(metadata, "bundle.json")
    return metadata
