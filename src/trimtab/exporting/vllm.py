"""What it takes to ask a vLLM server with a soft prompt (prompt embeddings, vLLM 0.33, `--enable-prompt-embeds`).

`prompt.safetensors` holds `leading`, all that stands before the text ([BOS; prompt], as input vectors), and `prompt`
alone; `client.py` puts a text's own embeddings behind it and makes the request:

    /v1/completions        prompt_embeds: base64 of torch.save of [tokens, hidden size]; no chat template is applied
    /v1/chat/completions   content parts {type: prompt_embeds, data: base64} between text parts, for runs whose template
                           was a chat; the server writes the chat template around them

The payload is a pickle by vLLM's definition; the client makes it at request time, and nothing pickled is on disk. Where
the embedding module scales its rows, the client does so too (`embedding.scale`): vLLM takes vectors behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import torch
from safetensors import safe_open

from trimtab.backbones import Backbone
from trimtab.backbones.fingerprints import weight_files
from trimtab.backbones.loading import locate
from trimtab.chat import Chat, write_chat
from trimtab.errors import BackboneError, BundleError
from trimtab.exporting import Export, Source, Written, vllm_client
from trimtab.exporting.refusals import EXPORTED_ALONE, refuse
from trimtab.exporting.spelling import doubled, leading, spell
from trimtab.files import write_tensors, write_text
from trimtab.registry import exports
from trimtab.template_pieces import read_pieces


@final
@exports.register("vllm")
class Vllm(Export):
    """Vectors and a small client for a vLLM server with --enable-prompt-embeds."""

    def write(self, sources: Sequence[Source], folder: Path) -> Written:
        (source,) = sources
        refuse(source, "vLLM", *EXPORTED_ALONE, "deep", "head")
        backbone = source.predictor.model.backbone
        _check_causal(source, backbone)
        vectors, about = {"prompt": source.bundle.prompt}, dict(_chat(source))
        notes = ["the server reads pickles from its clients with --enable-prompt-embeds: serve to those you trust."]
        if about.get("messages") is None or not _stands_inside(source):
            ahead = leading(source, "vLLM")
            spelled = spell(source.predictor, begin=len(ahead.ids))
            vectors["leading"] = ahead.vectors.numpy()
            about |= {"leading": list(ahead.ids), **spelled.as_json()}
            notes += spelled.notes
        about["embedding"] = {"tensor": embedding_tensor(source, backbone), "scale": backbone.embedding_scale}
        about["spaced_answer"] = source.predictor.rendering.template.answer_is_spaced
        write_tensors(folder / "prompt.safetensors", vectors)
        write_text(folder / "client.py", Path(vllm_client.__file__).read_text(encoding="utf-8"))
        return Written((about,), tuple(notes))


def _check_causal(source: Source, backbone: Backbone) -> None:
    why = None
    if not backbone.family.is_causal:
        why = f"vLLM takes vectors for decoder-only models, and {backbone.name!r} is none"
    elif getattr(backbone.model.get_decoder(), "project_in", None) is not None:
        why = "vLLM takes vectors of the hidden size, and this model projects its embeddings to that size first"
    if why is not None:
        fix = "Export it to baked, or serve it with trimtab."
        raise BundleError(f"the prompt cannot be exported to vLLM: {why}.", where=str(source.path), fix=fix)


def _stands_inside(source: Source) -> bool:
    """Whether a field stands before a virtual token."""
    kinds = [piece.kind for piece in source.predictor.rendering.template.pieces]
    last = max(i for i, kind in enumerate(kinds) if kind == "prompt")
    return "field" in kinds[:last]


def _chat(source: Source) -> Mapping[str, Any]:
    """Messages as content parts, rows of the prompt between texts; `messages` is None where the template was no chat,
    or one that the server would write otherwise."""
    template = source.bundle.metadata["task"]["template"]
    if not isinstance(template, Mapping) or "chat" not in template:
        return {"messages": None}
    chat, rows = Chat.model_validate(template), 0
    messages = []
    for message in chat.chat:
        parts: list[dict[str, Any]] = []
        for piece in read_pieces(message.content, "task.template"):
            if piece.kind == "answer":
                break
            if piece.kind == "prompt":
                count = piece.count or source.bundle.slots
                parts.append({"rows": [rows, rows + count]})
                rows += count
            else:
                _add(parts, f"{{{piece.value}}}" if piece.kind == "field" else doubled(piece.value))
        messages.append({"role": message.role, "content": _trimmed(parts, "{answer}" in message.content)})
    options: dict[str, Any] = {"chat_template_kwargs": dict(chat.options)} if chat.options else {}
    if chat.has_answer and messages[-1]["content"]:
        options |= {"add_generation_prompt": False, "continue_final_message": True}
    elif chat.has_answer:
        messages.pop()
        if not _opens_alike(source, chat):
            return {"messages": None}
    return {"messages": messages, "chat_options": options}


def _opens_alike(source: Source, chat: Chat) -> bool:
    """Whether the server's opening of the assistant's turn is what stands before the answer in the run."""
    opened = write_chat(chat.model_copy(update={"chat": chat.chat[:-1]}), source.predictor.model.backbone.encoder)
    ours, its = (text.partition("{answer}")[0] for text in (source.predictor.rendering.template.source, opened))
    return ours == its


def _add(parts: list[dict[str, Any]], text: str) -> None:
    if parts and "text" in parts[-1]:
        parts[-1]["text"] += text
    else:
        parts.append({"text": text})


def _trimmed(parts: list[dict[str, Any]], is_before_answer: bool) -> list[dict[str, Any]]:
    """Without the spaces before slots and the answer, which templates leave out."""
    last = len(parts) if is_before_answer else len(parts) - 1
    trimmed = [{"text": p["text"].rstrip(" ")} if "text" in p and i < last else p for i, p in enumerate(parts)]
    return [p for p in trimmed if p.get("text") != ""]


def embedding_tensor(source: Source, backbone: Backbone) -> str:
    """What the checkpoint calls the input embeddings: that of its matrices which has the same rows.

    Raises:
        BackboneError: none has.
    """
    stated = source.bundle.metadata["backbone"]
    own = backbone.embedding_weight.detach().cpu()
    paths = [name for name, module in backbone.model.named_modules() if module is backbone.model.get_input_embeddings()]
    last = f"{paths[0].rpartition('.')[2]}.weight"
    for path in weight_files(locate(source.model or stated["model"]), stated["options"]["revision"]):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                if name.endswith(last) and tuple(file.get_slice(name).get_shape()) == tuple(own.shape):
                    some = file.get_slice(name)[:64]
                    if torch.equal(some.to(own.dtype), own[:64]):
                        return str(name)
    raise BackboneError(
        f"the checkpoint of {backbone.name!r} has no matrix {last!r} with the embeddings of the model.",
        where=str(source.path),
        fix="Export it to baked.",
    )
