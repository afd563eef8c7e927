"""Asks a vLLM server with the soft prompt that lies beside this file. Needs torch, safetensors and tokenizers.

    vllm serve MODEL --enable-prompt-embeds
    python client.py MODEL_FOLDER http://localhost:8000 text="the parcel never came" --max-tokens 8

MODEL_FOLDER is the model as it was downloaded: the rows of its embedding matrix are read from its safetensors, as the
server wants vectors for the whole text. Vectors travel as base64 of `torch.save`, which is made for each request; no
pickle is stored or read. Only servers that you trust and that trust you should have --enable-prompt-embeds.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from tokenizers import Tokenizer


class SoftPrompt:
    """The prompt of this folder, on a model.

    Args:
        model: folder of the model.
        folder: that of the prompt; by default where this file lies.
        served: what the server calls the model; by default the name that the prompt was trained with.
    """

    def __init__(self, model: str | Path, folder: str | Path | None = None, served: str | None = None) -> None:
        self.model, self.folder = Path(model), Path(folder or Path(__file__).parent)
        self.about = json.loads((self.folder / "trimtab.json").read_text(encoding="utf-8"))["tasks"][0]
        self.served = served or self.about["bundle"]["backbone"]["model"]
        self.tokenizer = Tokenizer.from_file(str(self.model / "tokenizer.json"))
        added = self.tokenizer.get_added_tokens_decoder().values()
        self.special = [t.content for t in added if t.special]
        with safe_open(self.folder / "prompt.safetensors", "pt") as file:
            self.vectors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

    def embeds(self, **fields: str) -> torch.Tensor:
        """The vectors of a whole prompt: soft tokens (BOS before them where the model has one), then the text."""
        if "leading" not in self.vectors:
            raise ValueError("virtual tokens stand inside the text of this prompt: use chat().")
        return torch.cat([self.vectors["leading"], self._rows(self._text(self.about["text"], fields))])

    def completion(self, *, max_tokens: int = 16, **fields: str) -> dict[str, Any]:
        """The body of a request to /v1/completions."""
        body = {"model": self.served, "prompt_embeds": encoded(self.embeds(**fields)), "max_tokens": max_tokens}
        return {**body, "temperature": 0.0}

    def chat(self, *, max_tokens: int = 16, **fields: str) -> dict[str, Any]:
        """The body of a request to /v1/chat/completions, for prompts that were trained inside a chat."""
        if self.about.get("messages") is None:
            raise ValueError("this prompt was trained on plain text, not inside a chat: use completion().")
        messages = [
            {"role": m["role"], "content": [self._part(part, fields) for part in m["content"]]}
            for m in self.about["messages"]
        ]
        options = {"model": self.served, "messages": messages, "max_tokens": max_tokens, "temperature": 0.0}
        return {**options, **self.about["chat_options"]}

    def _part(self, part: Mapping[str, Any], fields: Mapping[str, str]) -> dict[str, Any]:
        if "rows" in part:
            first, end = part["rows"]
            return {"type": "prompt_embeds", "data": encoded(self.vectors["prompt"][first:end])}
        return {"type": "text", "text": self._text(part["text"], fields)}

    def _text(self, template: str, fields: Mapping[str, str]) -> str:
        for name, value in fields.items():
            if found := next((token for token in self.special if token in value), None):
                raise ValueError(f"the field {name!r} holds the special token {found!r}, which would be read as one.")
        return template.format(**{name: value.strip() for name, value in fields.items()})

    def _rows(self, text: str) -> torch.Tensor:
        """Embeddings of a text, float32, as the model has them behind its embedding layer."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        stated = self.about["embedding"]
        with safe_open(self._file_of(stated["tensor"]), "pt") as file:
            matrix = file.get_slice(stated["tensor"])
            rows = [matrix[i : i + 1].float() for i in ids]
        empty = self.vectors["leading"][:0]
        return torch.cat([empty, *rows]) * stated["scale"]

    def _file_of(self, tensor: str) -> Path:
        index = self.model / "model.safetensors.index.json"
        if not index.exists():
            return self.model / "model.safetensors"
        return self.model / str(json.loads(index.read_text(encoding="utf-8"))["weight_map"][tensor])


def encoded(vectors: torch.Tensor) -> str:
    """Vectors as vLLM reads them: base64 of `torch.save` of a tensor (tokens, hidden size)."""
    buffer = io.BytesIO()
    torch.save(vectors.contiguous().clone(), buffer)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def post(url: str, body: Mapping[str, Any], timeout: float = 60.0) -> dict[str, Any]:
    """Send a body, and return the answer."""
    data = json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def main(arguments: Sequence[str]) -> None:
    """Ask once, and print the answer."""
    parser = argparse.ArgumentParser(description="Ask a vLLM server with a soft prompt.")
    parser.add_argument("model", help="folder of the model")
    parser.add_argument("url", help="of the server, such as http://localhost:8000")
    parser.add_argument("fields", nargs="+", metavar="FIELD=TEXT", help="fields of the prompt's text")
    parser.add_argument("--served", help="what the server calls the model")
    parser.add_argument("--chat", action="store_true", help="ask /v1/chat/completions")
    parser.add_argument("--max-tokens", type=int, default=16)
    given = parser.parse_args(arguments)
    prompt = SoftPrompt(given.model, served=given.served)
    fields = dict(field.split("=", 1) for field in given.fields)
    ask, route = (prompt.chat, "chat/completions") if given.chat else (prompt.completion, "completions")
    choice = post(f"{given.url.rstrip('/')}/v1/{route}", ask(max_tokens=given.max_tokens, **fields))["choices"][0]
    print(choice["message"]["content"] if given.chat else choice["text"])


if __name__ == "__main__":
    main(sys.argv[1:])
