"""Fast tokenizers from SentencePiece model files: checkpoints with a `tokenizer.model` and no `tokenizer.json`
(stories260k, OpenLLaMA, Llama 2 and Mistral as first published).

Transformers 5.23 converts such files only where `sentencepiece` and `protobuf` are installed, and where the folder has
no tokenizer_config.json it then forgets the space that SentencePiece puts before a text ("Once" becomes `O n ce`, not
`▁Once`) and BOS. The file is a protocol buffer of three fields, so it is read here without either package:

    ModelProto:  1 pieces {1 piece, 2 score, 3 type},  2 trainer_spec,  3 normalizer_spec  (sentencepiece_model.proto)

SentencePiece's BPE (Kudo and Richardson 2018) merges the adjacent pair whose *joint* piece has the highest score, the
leftmost of equals. Merge lists rank *pairs*, so every split of a piece into two pieces is listed, by the score of the
piece, the longer left part first.

Deviations: two splits of one piece have equal priority in SentencePiece and follow each other here, which could matter
where a piece overlaps itself (no difference met in 100,000 strings over 400 random piece lists of "a", "b" and space).
Pieces of type UNUSED count as normal ones. Unigram models are left to transformers: its classes move their ids about.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from trimtab.errors import BackboneError

SPACE = "▁"
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5
_BPE = 2
_WORD_PIECES = (_NORMAL, _USER_DEFINED, _UNUSED)
_FILES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "spm.model")
_BETTER_FILES = ("tokenizer.json", "vocab.json", "vocab.txt")


@dataclass(frozen=True)
class SentencePieceModel:
    """What a model file says.

    Attributes:
        pieces: (piece, score, type) by token id.
        trainer: numbers of the trainer's specification, by field number.
        normalizer: fields of the normalizer's specification, by field number.
    """

    pieces: tuple[tuple[str, float, int], ...]
    trainer: dict[int, Any]
    normalizer: dict[int, Any]

    @classmethod
    def read(cls, path: Path) -> SentencePieceModel:
        """Read a model file.

        Raises:
            BackboneError: the file is damaged.
        """
        try:
            parts = list(_fields(path.read_bytes()))
            raw = [dict(_fields(value)) for number, value in parts if number == 1]
            specs = {number: dict(_fields(value)) for number, value in parts if number in (2, 3)}
            pieces = tuple((p[1].decode("utf-8"), p.get(2, 0.0), p.get(3, _NORMAL)) for p in raw)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise BackboneError(
                f"{path.name} in {str(path.parent)!r} is no complete SentencePiece model.",
                where="backbone.model",
                fix="Fetch the file again.",
            ) from error
        return cls(pieces, specs.get(2, {}), specs.get(3, {}))

    @property
    def is_byte_pair(self) -> bool:
        """Whether it is a byte-pair model with spaces before words, as this module can build."""
        return self.trainer.get(3, 1) == _BPE and not self.trainer.get(24, 0)

    @property
    def special(self) -> dict[str, str]:
        """Control and unknown tokens by their roles; roles that the model does not have are absent."""
        ids = {"unk_token": (40, 0), "bos_token": (41, 1), "eos_token": (42, 2), "pad_token": (43, -1)}
        places = {role: self.trainer.get(number, default) for role, (number, default) in ids.items()}
        return {role: self.pieces[i][0] for role, i in places.items() if 0 <= i < len(self.pieces)}

    def tokenizer(self) -> Tokenizer:
        """A fast tokenizer that splits as SentencePiece does."""
        user_defined = sorted((p for p, _, kind in self.pieces if kind == _USER_DEFINED), key=len, reverse=True)
        tokenizer = Tokenizer(
            models.BPE(
                vocab={piece: i for i, (piece, _, _) in enumerate(self.pieces)},
                merges=self._merges(),
                unk_token=self.special.get("unk_token"),
                fuse_unk=True,
                byte_fallback=bool(self.trainer.get(35, 0)),
                ignore_merges=bool(user_defined),  # a user-defined symbol is a stretch of its own, and one token
            )
        )
        tokenizer.normalizer = self._normalizer()
        if user_defined:
            tokenizer.pre_tokenizer = self._stretches(user_defined)
        tokenizer.decoder = self._decoder()
        control = [p for p, _, kind in self.pieces if kind == _CONTROL]
        tokenizer.add_special_tokens([AddedToken(p, normalized=False, special=True) for p in control])
        return tokenizer

    def _stretches(self, user_defined: Sequence[str]) -> Any:
        """Cut out user-defined symbols; and cut up what spells a reserved token, lest it be taken for one."""
        reserved = [p for p, _, kind in self.pieces if kind not in _WORD_PIECES and len(p) > 1]
        patterns = (
            "|".join(re.escape(p) for p in user_defined),
            "|".join(rf"\A{re.escape(p[0])}(?={re.escape(p[1:])}\z)" for p in reserved),
        )
        return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(p), "isolated") for p in patterns])

    def _merges(self) -> list[tuple[str, str]]:
        words = {p: (-score, i) for i, (p, score, kind) in enumerate(self.pieces) if kind in _WORD_PIECES}
        splits = [
            (*priority, -k, word[:k], word[k:])
            for word, priority in words.items()
            for k in range(1, len(word))
            if word[:k] in words and word[k:] in words
        ]
        return [(left, right) for *_, left, right in sorted(splits)]

    def _normalizer(self) -> Any:
        """The character map, then spaces: stripped and collapsed, one put in front, all made visible."""
        spec = self.normalizer
        steps: list[Any] = [normalizers.Precompiled(spec[2])] if spec.get(2) else []
        if spec.get(4, 1):
            rules = {r"\A +": "", rf"[ {SPACE}]+\z": "", r" {2,}": " "}
            steps += [normalizers.Replace(Regex(rule), to) for rule, to in rules.items()]
        steps += [normalizers.Prepend(SPACE)] if self._has_dummy_prefix else []
        steps += [normalizers.Replace(" ", SPACE)] if spec.get(5, 1) else []
        return normalizers.Sequence(steps)

    def _decoder(self) -> Any:
        steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
        return decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if self._has_dummy_prefix else steps)

    @property
    def _has_dummy_prefix(self) -> bool:
        return bool(self.normalizer.get(3, 1))


def load_tokenizer(place: str, *, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """The fast tokenizer of a folder or Hugging Face id; of a lone `tokenizer.model` the one that it describes.

    Special tokens and their use follow tokenizer_config.json; what it leaves open follows the model file, and a text
    begins with BOS where the model has one.

    Raises:
        BackboneError: the vocabulary is there only as a file that cannot be read here.
    """
    import transformers

    source: dict[str, Any] = {"revision": revision} if revision else {}
    path = _lone_file(place, revision)
    model = None if path is None else SentencePieceModel.read(path)
    if path is None or model is None or path.name != _FILES[0] or not model.is_byte_pair:
        if path is not None:
            _check_convertible(place, path.name)
        return transformers.AutoTokenizer.from_pretrained(place, trust_remote_code=trust_remote_code, **source)
    settings = transformers.models.auto.tokenization_auto.get_tokenizer_config(place, **source)
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(
        place,
        tokenizer_object=model.tokenizer(),
        vocab_file="",  # otherwise transformers finds the model file and converts it in its own way
        **source,
    )
    tokenizer.add_special_tokens({r: token for r, token in model.special.items() if getattr(tokenizer, r) is None})
    tokenizer.add_bos_token = settings.get("add_bos_token", tokenizer.bos_token is not None)
    tokenizer.add_eos_token = settings.get("add_eos_token", False)  # given up above where only the model file names it
    return tokenizer


def _lone_file(place: str, revision: str | None) -> Path | None:
    """The SentencePiece model of a checkpoint that has no better file; tiktoken's `tokenizer.model` is text."""
    if any(_find(place, name, revision) for name in _BETTER_FILES):
        return None
    path = next((found for name in _FILES if (found := _find(place, name, revision))), None)
    if path is None:
        return None
    with path.open("rb") as file:
        return path if file.read(1) == b"\n" else None  # the tag of the first piece


def _check_convertible(place: str, name: str) -> None:
    """Without the packages that it needs for this, transformers asks for a third one."""
    from transformers.utils import is_protobuf_available, is_sentencepiece_available

    if not (is_sentencepiece_available() and is_protobuf_available()):
        raise BackboneError(
            f"{place!r} has its vocabulary as {name} only, and only byte-pair models in a tokenizer.model are read "
            "without further packages.",
            where="backbone.model",
            fix="Install sentencepiece and protobuf, with which transformers converts it, or put a tokenizer.json "
            "beside it (AutoTokenizer.from_pretrained and save_pretrained write one).",
        )


def _find(place: str, name: str, revision: str | None) -> Path | None:
    """A file of a folder or of a Hugging Face id; None where it is absent."""
    from transformers.utils import cached_file

    lenient = {f"_raise_exceptions_for_{what}": False for what in ("missing_entries", "connection_errors")}
    found = cached_file(place, name, revision=revision, **lenient)
    return None if found is None else Path(found)


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Fields of a protocol buffer message: (number, integer, float or bytes)."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value - (1 << 64) if value >> 63 else value

    while at < len(data):
        number, wire = divmod(varint(), 8)
        if wire == 0:
            yield number, varint()
            continue
        size = varint() if wire == 2 else {1: 8, 5: 4}[wire]
        value = data[at : at + size]
        at += size
        if len(value) < size:
            raise ValueError("the message ends early")
        yield number, struct.unpack("<f", value)[0] if wire == 5 else value
