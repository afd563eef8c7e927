"""How other programs get the token ids that a prompt was trained with.

`leading`: what every sequence of a task begins with, up to its last virtual token: special tokens, words of the
template, slots. Programs that put a prompt before everything else (PEFT, vLLM) get all of it as vectors, so that a BOS
stays before the prompt; the text that follows is tokenized without special tokens.

`spell`: the rest, or all of it with a token for each slot, as a text with `{field}`s in which special tokens are
written out. Tokenizers differ in what they make of white space behind a special token, so several spellings are tried,
and the one is taken whose ids are those of the template, on a few probes; where none is, the text says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product, zip_longest
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from trimtab.errors import BundleError
from trimtab.exporting import Source
from trimtab.predictor import Predictor
from trimtab.rewriting import rewritten
from trimtab.tasks.tagged import with_words
from trimtab.template_pieces import Piece
from trimtab.types import Encoded, Example

PROBES = ("the cat sat", "A", "It's 3 o'clock, isn't it?", "naïve café: 1,234.5 (yes)", "one two three four five six")


@dataclass(frozen=True)
class Leading:
    """What every sequence begins with.

    Attributes:
        ids: token ids, -1 for a virtual token.
        vectors: the same as input vectors, as `inputs_embeds` has them.
    """

    ids: tuple[int, ...]
    vectors: Float[Tensor, "P E"]


@dataclass(frozen=True)
class Spelling:
    """A text to be tokenized without added special tokens.

    Attributes:
        text: with `{field}`s, for `str.format`; fields without white space at their ends.
        is_exact: whether the ids were those of the template on all probes.
        changes: how fields are changed before they are put in: `rewrite` and `replace` of the task, where it has them.
    """

    text: str
    is_exact: bool
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def notes(self) -> list[str]:
        """What a user must know of it."""
        said = []
        if not self.is_exact:
            said.append("no spelling of the text gave the trained token ids on all probes: compare ids before you rely "
                        "on it.")  # fmt: skip
        if self.changes:
            names = ", ".join(dict.fromkeys(name for its in self.changes.values() for name in its))
            said.append(f"fields are changed before they enter the text ({names}): see {' and '.join(self.changes)}.")
        return said

    def as_json(self) -> dict[str, Any]:
        """`{text, add_special_tokens, exact}`, and the changes."""
        return {"text": self.text, "add_special_tokens": False, "exact": self.is_exact, **self.changes}


def probe(predictor: Predictor, number: int) -> tuple[dict[str, str], Encoded]:
    """The fields of a made-up example, and what the model reads of it before it answers."""
    rendering, encoder = predictor.rendering, predictor.model.backbone.encoder
    names = rendering.wanted(encoder)
    texts = {name: PROBES[(number + i) % len(PROBES)] for i, name in enumerate(names)}
    fields = {name: next(iter(rendering.replace.get(name, ())), text) for name, text in texts.items()}
    if rendering.allowed:
        fields["relation"] = next(iter(rendering.allowed))
    example = with_words(Example("probe", fields, None), fields)
    encoded = rendering.row(example, encoder).encoded
    changed = rewritten(fields, rendering.rewrite)
    written = {name: rendering.replace.get(name, {}).get(value, value) for name, value in changed.items()}
    fills = rendering.plan(encoder).fills
    return written, encoded.opened() if any(f.is_last for f in fills) else encoded


def leading(source: Source, to: str) -> Leading:
    """What every sequence of the task begins with, up to the last virtual token.

    Raises:
        BundleError: a text stands before a virtual token, or one stands in the decoder.
    """
    predictor = source.predictor
    template, backbone = predictor.rendering.template, predictor.model.backbone
    if template.decoder_rows:
        _refuse(source, f"virtual tokens stand in the decoder, and {to} puts a prompt before what the encoder reads")
    last = max(i for i, piece in enumerate(template.pieces) if piece.kind == "prompt")
    before = [p for p in template.pieces[:last] if p.kind in ("field", "answer")]
    if before:
        name = before[0].value or "answer"
        _refuse(source, f"{{{name}}} stands before a virtual token, and {to} puts the prompt before everything")
    _, encoded = probe(predictor, 0)
    end = max(encoded.slots) + 1
    ids = [-1 if at in encoded.slots else token for at, token in enumerate(encoded.ids[:end])]
    filled = torch.tensor([[max(i, 0) for i in ids]], device=backbone.device)
    with torch.no_grad():
        vectors = backbone.family.embed(backbone.model, filled)[0].float().cpu()
    for row, at in enumerate(encoded.slots):
        vectors[at] = torch.from_numpy(source.bundle.prompt[row])
    return Leading(tuple(ids), vectors)


def _refuse(source: Source, why: str) -> None:
    raise BundleError(
        f"the prompt cannot be exported so: {why}; got {source.predictor.rendering.template.source!r}.",
        where=str(source.path),
        fix="Export it to baked, which takes virtual tokens anywhere, or let the template begin with {prompt}.",
    )


def spell(predictor: Predictor, slots: Sequence[str] = (), begin: int = 0, tokenizer: Any = None) -> Spelling:
    """The text of a task for a plain tokenizer.

    Args:
        slots: the token that stands for each row of the prompt; none where only what follows the last one is spelled.
        begin: how many tokens of a sequence are left out at its beginning.
        tokenizer: that knows the tokens of the slots; the backbone's by default.
    """
    encoder = predictor.model.backbone.encoder
    tokenizer = tokenizer or encoder.tokenizer
    units = _units(predictor, slots)
    if not slots:
        units = units[max((i for i, unit in enumerate(units) if unit.kind == "slots"), default=-1) + 1 :]
    plan = predictor.rendering.plan(encoder)
    is_verbatim, its = predictor.rendering.template.is_verbatim, predictor.rendering
    changes = {name: how for name, how in (("rewrite", its.rewrite), ("replace", its.replace)) if how}
    candidates = [_joined(units, first, later, is_verbatim) for first, later in product((None, "", " "), repeat=2)]
    is_formatted = not any(set(name) & set(".[]!:") for name in predictor.rendering.template.fields)
    if plan.each is not None or plan.compose is not None or not is_formatted:
        return Spelling(candidates[0], False, changes)
    known = [probe(predictor, n) for n in range(len(PROBES))]
    names = tokenizer.convert_tokens_to_ids(list(slots))
    wanted = [_with_names(encoded, names)[begin:] for _, encoded in known]
    for text in candidates:
        texts = [text.format(**fields) for fields, _ in known]
        got = [tokenizer(t, add_special_tokens=False, verbose=False)["input_ids"] for t in texts]
        if got == wanted:
            return Spelling(text, True, changes)
    return Spelling(candidates[0], False, changes)


@dataclass(frozen=True)
class _Unit:
    """A stretch of text and fields (`run`), special tokens, slots, or what stands in the answer slot."""

    kind: str
    text: str


def _with_names(encoded: Encoded, names: Sequence[int]) -> list[int]:
    ids = list(encoded.ids)
    for row, at in enumerate(encoded.slots[: len(names)]):
        if at >= 0:
            ids[at] = names[row]
    return ids


def _units(predictor: Predictor, slots: Sequence[str]) -> list[_Unit]:
    """The template as units, special tokens of the tokenizer included, up to where the model begins to answer."""
    template, encoder = predictor.rendering.template, predictor.model.backbone.encoder
    fill = predictor.rendering.plan(encoder).fills[0]
    ends = () if template.is_verbatim else encoder.prefix
    units = [_Unit("special", token) for token in encoder.tokens(ends)]
    rows = iter([s for i, s in enumerate(slots) if i not in template.decoder_rows])
    for piece in template.pieces:
        if piece.kind in ("text", "field"):
            text = _escaped(piece)
            if units and units[-1].kind == "run":
                units[-1] = _Unit("run", units[-1].text + text)
            else:
                units.append(_Unit("run", text))
        elif piece.kind == "prompt":
            units.append(_Unit("slots", "".join(next(rows, "") for _ in range(piece.count))))
        elif piece.kind == "answer":
            units.append(_Unit("answer", "" if fill.is_last else "".join(encoder.tokens(fill.ids))))
            if fill.is_last:
                break
        elif piece.kind == "special":
            units.append(_Unit("special", piece.value))
        else:
            units.append(_Unit("special", encoder.tokens([encoder.sep_id])[0] if encoder.sep_id is not None else "\n"))
    suffix = () if template.is_verbatim or fill.is_last else encoder.suffix
    units += [_Unit("special", token) for token in encoder.tokens(suffix)]
    return [u if u.kind == "run" else _Unit(u.kind, doubled(u.text)) for u in units]


def _escaped(piece: Piece) -> str:
    if piece.kind == "field":
        return f"{{{piece.value}}}"
    return doubled(piece.value)


def doubled(text: str) -> str:
    """Braces as `str.format` wants them."""
    return text.replace("{", "{{").replace("}", "}}")


def _joined(units: Sequence[_Unit], first: str | None, later: str | None, is_verbatim: bool) -> str:
    """The units as one text. White space before a run becomes `first` or `later`; None leaves what the template has."""
    text, is_first = "", True
    for unit, follower in zip_longest(units, units[1:]):
        if unit.kind != "run":
            text += unit.text
            continue
        is_before_slot = follower is not None and follower.kind in ("slots", "answer")
        if is_verbatim:
            run = unit.text.rstrip(" ") if is_before_slot else unit.text
        else:
            run = unit.text.rstrip(" ") if follower is None else unit.text.rstrip()
        space = first if is_first else later
        text += run if space is None else space + run.lstrip()
        is_first = False
    return text
