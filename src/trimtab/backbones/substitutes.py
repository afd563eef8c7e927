"""Tokens of a vocabulary that may stand in for words of a text."""

from __future__ import annotations

from collections.abc import Collection

from trimtab.backbones.backbone import Backbone
from trimtab.backbones.words import BYTES_MARK, MARKS, Words
from trimtab.perturbations import Substitutes
from trimtab.text_encoder import TextEncoder


def substitutes(backbone: Backbone, label_ids: Collection[int] = ()) -> Substitutes:
    """What may stand in for tokens of a text, tokens of label words left out."""
    labels = set(label_ids)
    words = tuple(i for i in whole_words(backbone) if i not in labels)
    return Substitutes(hiding_token(backbone.encoder), words, Words(backbone, labels))


def hiding_token(encoder: TextEncoder) -> int | None:
    """The mask token; of T5 the sentinel `<extra_id_2>`, as the first two frame the answer; else the unknown token,
    unless the vocabulary uses it for something else, too. None where there is nothing of the sort.
    """
    tokenizer = encoder.tokenizer
    others = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    unknown = encoder.unk_id if encoder.unk_id not in others else None
    if encoder.mask_id is not None:
        return encoder.mask_id
    return encoder.third_sentinel_id if encoder.third_sentinel_id is not None else unknown


def whole_words(backbone: Backbone) -> tuple[int, ...]:
    """Ids of tokens that are a word by themselves, as it stands after a space: letters only."""
    encoder, found = backbone.encoder, []
    tokens = dict(zip(backbone.ordinary_words, encoder.tokens(backbone.ordinary_words), strict=True))
    is_spaced = any(t.startswith(MARKS) for t in tokens.values())
    of_bytes = any(t.startswith(BYTES_MARK) for t in tokens.values())  # where letters beyond ASCII stand for bytes
    for i, token in tokens.items():
        word = token[1:] if is_spaced and token.startswith(MARKS) else token
        if word.isalpha() and (word.isascii() or not of_bytes) and (token != word or not is_spaced):
            found.append(i)
    return tuple(found)
