"""SuperGLUE's ten tasks in their official file formats, with rows that were made up here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Line = dict[str, Any]

BOOLQ = (
    ("Rivers -- The Alba is a river in the north. It ends in the sea", "does the alba end in the sea", True),
    ("Rivers -- The Borr is a river in the south. It ends in a lake", "does the borr end in the sea", False),
    ("Towns -- Mill is a town with two bridges", "does mill have a bridge", True),
    ("Towns -- Ford is a town without a bridge", "does ford have a bridge", False),
)
CB = (
    ("It is true that the dog barked.", "the dog barked", "entailment"),
    ("I do not think that the cat slept.", "the cat slept", "contradiction"),
    ("Who knows if the bird sang?", "the bird sang", "neutral"),
    ("She saw that the boat left.", "the boat left", "entailment"),
)
COPA = (
    ("The glass fell.", "It broke into many small pieces.", "It grew.", "effect", 0),
    ("The man was wet.", "He ate.", "He had walked in the rain.", "cause", 1),
    ("The lamp went out.", "It became dark.", "It became cold outside.", "effect", 0),
    ("She laughed.", "The door was shut.", "The joke was good.", "cause", 1),
)
RTE = (
    ("The train to Mill left at noon.", "The train left.", "entailment"),
    ("The train to Mill was late.", "The train was early.", "not_entailment"),
    ("Anna bought three apples.", "Anna bought fruit.", "entailment"),
    ("Anna sold a pear.", "Anna bought fruit.", "not_entailment"),
)
WIC = (
    ("bank", "The bank of the river was steep.", "She sat on the bank by the water.", True),
    ("bank", "The bank of the river was steep.", "The bank lent him money.", False),
    ("run", "He runs each day.", "I ran to the bus.", True),
    ("run", "He runs a shop.", "I ran to the bus.", False),
)
WSC = (
    ("The cup did not fit in the bag because it was too big.", "The cup", 0, "it", 9, True),
    ("The cup did not fit in the bag because it was too small.", "The cup", 0, "it", 9, False),
    ("Anna thanked Berta for the help she had given.", "Berta", 2, "she", 6, True),
    ("Anna thanked Berta for the help she had got.", "Berta", 2, "she", 6, False),
)
MULTIRC = (
    ("Anna has a dog and a cat. The dog is old.", (
        ("What does Anna have?", (("A dog", 1), ("A bird", 0), ("A cat", 1))),
        ("Who is old?", (("The dog", 1), ("The cat", 0))),
    )),
    ("Ben went to sea in May. He came back in June.", (("When did Ben go?", (("In June", 0), ("In May", 1))),)),
)  # fmt: skip
RECORD = (
    ("Anna Berg met Carl in Mill.\n@highlight\nAnna sang for Carl", ("Anna Berg", "Carl", "Mill", "Anna"), (
        ("After the song, @placeholder thanked Carl.", ("Anna Berg", "Anna")),
        ("The song was heard all over @placeholder.", ("Mill",)),
    )),
    ("Dora won in Ford. Emil came second.", ("Dora", "Ford", "Emil"), (("@placeholder lost to Dora.", ("Emil",)),)),
)  # fmt: skip
AX_B = (
    ("The cat sat down.", "The cat did not sit down.", "not_entailment", "Negation"),
    ("The cat sat down.", "A cat sat down.", "entailment", ""),
)
AX_G = (
    ("The guest met the cook to praise his soup.", "The guest praised soup.", "entailment"),
    ("The guest met the cook to praise her soup.", "The guest praised soup.", "entailment"),
    ("The nurse called the guest about his bill.", "The nurse had a bill.", "not_entailment"),
    ("The nurse called the guest about her bill.", "The nurse had a bill.", "not_entailment"),
)


def _numbered(rows: Sequence[Line]) -> list[Line]:
    return [{**row, "idx": i} for i, row in enumerate(rows)]


def multirc(passages: Sequence[Any] = MULTIRC) -> list[Line]:
    """Questions and answers are numbered through the whole file, as in the official ones."""
    lines, q, a = list[Line](), 0, 0
    for p, (text, questions) in enumerate(passages):
        its = []
        for question, answers in questions:
            found = [{"text": t, "idx": a + i, "label": label} for i, (t, label) in enumerate(answers)]
            its.append({"question": question, "answers": found, "idx": q})
            q, a = q + 1, a + len(found)
        lines.append({"idx": p, "version": 1.1, "passage": {"text": text, "questions": its}})
    return lines


def record(passages: Sequence[Any] = RECORD) -> list[Line]:
    """Offsets count the last character in."""
    lines, q = list[Line](), 0

    def marked(text: str, entity: str) -> Line:
        return {"start": text.index(entity), "end": text.index(entity) + len(entity) - 1}

    for p, (text, entities, queries) in enumerate(passages):
        passage = {"text": text, "entities": [marked(text, e) for e in entities]}
        qas = []
        for query, answers in queries:
            found = [{**marked(text, e), "text": e} for e in answers]
            qas.append({"query": query, "answers": found, "idx": q})
            q += 1
        lines.append({"source": "made up", "passage": passage, "qas": qas, "idx": p})
    return lines


def wsc() -> list[Line]:
    return _numbered(
        [
            {"text": text, "label": label,
             "target": {"span1_text": one, "span1_index": i, "span2_text": two, "span2_index": j}}
            for text, one, i, two, j, label in WSC
        ]
    )  # fmt: skip


def tables() -> dict[str, list[Line]]:
    """The labeled lines of the eight tasks."""
    named = {
        "BoolQ": (("passage", "question", "label"), BOOLQ),
        "CB": (("premise", "hypothesis", "label"), CB),
        "COPA": (("premise", "choice1", "choice2", "question", "label"), COPA),
        "RTE": (("premise", "hypothesis", "label"), RTE),
        "WiC": (("word", "sentence1", "sentence2", "label"), WIC),
    }
    flat = {
        task: _numbered([dict(zip(names, row, strict=True)) for row in rows]) for task, (names, rows) in named.items()
    }
    return {**flat, "MultiRC": multirc(), "ReCoRD": record(), "WSC": wsc()}


def unlabeled(lines: Sequence[Line]) -> list[Line]:
    """The same as a test file has them."""

    def bare(value: Any) -> Any:
        if isinstance(value, list):
            return [bare(v) for v in value]
        if isinstance(value, Mapping):
            is_query = "query" in value
            return {k: bare(v) for k, v in value.items() if k != "label" and not (is_query and k == "answers")}
        return value

    return [bare(line) for line in lines]


def repeated(lines: Sequence[Line], times: int) -> list[Line]:
    """More lines, each passage with a number of its own."""
    return [{**line, "idx": n * len(lines) + i} for n in range(times) for i, line in enumerate(lines)]


def write_superglue(folder: Path, times: int = 6) -> Path:
    """Files as the data directory has them: `superglue`, `fewglue`, `fewglue_32dev`."""

    def write(path: Path, lines: Sequence[Line]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    for task, lines in tables().items():
        many = repeated(lines, times)
        for suite, names in (
            ("superglue", ("train", "val")), ("fewglue", ("train",)), ("fewglue_32dev", ("train", "dev32", "val"))
        ):  # fmt: skip
            for name in names:
                write(folder / suite / task / f"{name}.jsonl", many if name == "train" else lines)
        write(folder / "superglue" / task / "test.jsonl", unlabeled(lines))
    names = ("sentence1", "sentence2", "label", "logic")
    ax_b = [{**dict(zip(names, row, strict=True)), "idx": str(i)} for i, row in enumerate(AX_B)]
    write(folder / "superglue" / "AX-b" / "AX-b.jsonl", ax_b)
    ax_g = _numbered([dict(zip(("premise", "hypothesis", "label"), row, strict=True)) for row in AX_G])
    write(folder / "superglue" / "AX-g" / "AX-g.jsonl", ax_g)
    return folder
