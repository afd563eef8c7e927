"""A first recipe for a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab.errors import ConfigError
from trimtab.files import write_text

if TYPE_CHECKING:
    from trimtab.drafting import Draft


def init(
    table: str | Path,
    label: str | None = None,
    text: Sequence[str] = (),
    *,
    target: str | None = None,
    output: str | Path | None = None,
    backbone: str | None = None,
    prompt: str = "residual",
    force: bool = False,
) -> Draft:
    """Look at a table and write a complete, commented recipe for it.

    Args:
        table: CSV, TSV, JSONL or Parquet.
        label: the column of classes; or give `target`.
        text: text columns; found by themselves if none are given.
        target: a column of free text, which the model shall learn to write.
        output: where the recipe goes; nothing is written if absent.
        force: overwrite an existing file.

    Raises:
        DataError: the table cannot be read, or its labels are no classes.
        ConfigError: the output exists, or neither or both of label and target are given.
    """
    from trimtab.drafting import draft_recipe

    if (label is None) == (target is None):
        raise ConfigError("name one column: either of classes (--label) or of free text (--target).", where="init")
    place = None if output is None else Path(output)
    if place is not None and place.exists() and not force:
        raise ConfigError("the file exists already.", where=str(place), fix="Give another -o, or --force.")
    column = str(label if target is None else target)
    draft = draft_recipe(
        Path(table), column, text, is_free=target is not None, backbone=backbone, prompt=prompt, output=place
    )
    if place is not None:
        write_text(place, draft.recipe)
    return draft
