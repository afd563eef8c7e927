"""What other programs cannot express, each with its reason and with what to do instead."""

from __future__ import annotations

from typing import NamedTuple

from trimtab.errors import BundleError
from trimtab.exporting import Source
from trimtab.storage import Bundle


class Refusal(NamedTuple):
    """Why a part of a prompt cannot be exported. `{to}` stands for the target."""

    what: str
    fix: str


USE_TRIMTAB = "Use the bundle with trimtab (`trimtab predict`), or `trimtab export --to card`."

REFUSALS: dict[str, Refusal] = {
    "gate": Refusal(
        "its keys and values have a softmax of their own, faded in by gates; as plain keys and values, which is all "
        "that {to} knows, they would say something else.",
        "Train with prompt.gate=none.",
    ),
    "text_offset": Refusal(
        "it moves the embeddings of the text itself (an offset for each token, as in DePT), and {to} holds vectors "
        "only.",
        f"Train a prompt of vectors, such as prompt.kind=prompt_tuning. {USE_TRIMTAB}",
    ),
    "router": Refusal(
        "it is several prompts and a router that reads the text and chooses one, and {to} holds a single one.",
        f"Train a prompt of vectors, such as prompt.kind=prompt_tuning. {USE_TRIMTAB}",
    ),
    "head": Refusal(
        "its answers are read by a head that was trained with the prompt, for which {to} has no place.",
        "Train with a readout of label words or text (readout.kind=ranking or text).",
    ),
    "deep": Refusal(
        "it stands in the attention of every layer (keys and values), and {to} holds input vectors only.",
        "Export it to kv or peft, or train an input prompt, such as prompt.kind=prompt_tuning.",
    ),
    "tuned": Refusal(
        "the backbone was trained with it, so it means nothing on the backbone that {to} would put it on.",
        "Export it to baked, which holds the backbone too, or train with a frozen backbone.",
    ),
    "drawn": Refusal(
        "the weights of its backbone were drawn from a seed, so no checkpoint holds them.",
        "Train without backbone.random_weights.",
    ),
    "embed_twice": Refusal(
        "it was trained with text that is embedded twice, and {to} embeds it once.",
        "Train without backbone.embed_twice.",
    ),
    "nothing": Refusal("it has no virtual tokens at all, so there is nothing to export.", "Name a run with a prompt."),
}
"""Parts of a prompt, or of its run, by what they are called here."""

EXPORTED_ALONE = ("gate", "text_offset", "router", "tuned", "drawn", "embed_twice", "nothing")
"""What nothing but its own bundle can express, unless the backbone goes along."""


def found(bundle: Bundle) -> set[str]:
    """Which of these a bundle has."""
    its = {"deep" if name.startswith("deep.") else name.partition(".")[0] for name in bundle.tensors}
    if bundle.tuned:
        its.add("tuned")
    if bundle.metadata["backbone"]["options"].get("random_weights") is not None:
        its.add("drawn")
    if bundle.embed_twice:
        its.add("embed_twice")
    if not bundle.slots and "deep" not in its:
        its.add("nothing")
    return its


def refuse(source: Source, to: str, *parts: str) -> None:
    """Refuse a prompt that has any of these parts.

    Args:
        to: what the target is called in the message.

    Raises:
        BundleError: it has one.
    """
    its = found(source.bundle)
    for part in parts:
        if part in its:
            refusal = REFUSALS[part]
            kind = source.bundle.metadata["prompt"].get("kind", "?")
            what = f"the prompt ({kind}) cannot be exported: {refusal.what.format(to=to)}"
            raise BundleError(what, where=str(source.path), fix=refusal.fix)
