"""What hides a word, by family, and which tokens are words."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.tiny_families import BUILDERS
from tests.tiny import tiny_backbone
from trimtab.backbones.substitutes import hiding_token, substitutes


@pytest.mark.parametrize(
    ("kind", "token"), [("roberta", "<mask>"), ("t5", "<extra_id_2>"), ("llama", "<unk>"), ("gpt2", None)]
)
def test_what_hides_a_word(kind: str, token: str | None, tmp_path: Path) -> None:
    """GPT-2 has its unknown token for the end of a text, and the answer of a T5 stands between the other sentinels."""
    backbone = tiny_backbone(BUILDERS[kind](tmp_path / kind))
    encoder, found = backbone.encoder, hiding_token(backbone.encoder)
    assert (None if found is None else encoder.tokens([found])[0]) == token
    label = encoder.encode(" good").ids[-1]
    all_words, words = substitutes(backbone).words, substitutes(backbone, [label]).words
    assert label in all_words
    assert set(all_words) - set(words) == {label}
    assert found not in all_words
    assert not set(all_words) & set(encoder.special_ids.values())
    assert all(encoder.decode([i]).isalpha() for i in all_words)
