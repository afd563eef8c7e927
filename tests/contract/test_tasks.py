"""What every task preset promises, checked over the registry, with the tokenizer of the embedded model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import combinations
from pathlib import Path

import pytest
import torch
from torch import Tensor

import trimtab.tasks
from tests.conftest import SHARED
from tests.contract.toy_runs import reader, toy_rendering
from trimtab.backbones import Backbone
from trimtab.backbones.loading import load_encoder
from trimtab.documents import read_yaml
from trimtab.errors import TemplateError
from trimtab.model import PromptedModel
from trimtab.predictor import Predictor
from trimtab.prompt_table import PromptTable
from trimtab.registry import tasks
from trimtab.rendering import Rendering
from trimtab.tasks import SPLITS, Task
from trimtab.tasks.reading import Places
from trimtab.text_encoder import TextEncoder
from trimtab.training.preparing import render_task
from trimtab.types import Example, Row

POSITIONS = 256
LENGTH = 10
MOST_ROWS = 60
"""Larger splits are sampled evenly."""
BUNDLED = ("support_desk", "product_reviews")
MODEL_OF_DATA = "minilm-l6-mlm"
"""The model that the presets over the data folder are meant for; the embedded vocabulary is too small for them."""


@cache
def nano() -> TextEncoder:
    return load_encoder("nano-masked")[0]


@dataclass(frozen=True)
class Case:
    """A loaded preset and the tokenizer that it is checked with."""

    kind: str
    task: Task
    encoder: TextEncoder

    @cached_property
    def rendering(self) -> Rendering:
        return replace(render_task(self.task, LENGTH, self.encoder, POSITIONS), max_length=POSITIONS)

    @cached_property
    def examples(self) -> list[Example]:
        found: list[Example] = []
        for split in SPLITS:
            found += sampled(self.task.splits[split])
        return found


def sampled(rows: Sequence[Example]) -> Sequence[Example]:
    """At most `MOST_ROWS` of them, evenly."""
    return rows[:: -(-len(rows) // MOST_ROWS)]


def needs_data(kind: str) -> bool:
    preset = Path(str(trimtab.tasks.__file__)).parent / f"{kind}.yaml"
    return preset.exists() and any(str(v).startswith("data:") for v in read_yaml(preset).values())


@cache
def load(kind: str) -> Case:
    places = Places(SHARED / "data") if needs_data(kind) else Places()
    encoder = load_encoder(str(SHARED / "models" / MODEL_OF_DATA))[0] if needs_data(kind) else nano()
    return Case(kind, tasks.build(tasks.resolve(kind, "task")).load(0, places), encoder)


def is_checked(kind: str) -> bool:
    """Whether a preset is a table of classes whose files are there."""
    if kind == "table" or kind.startswith("fewglue/") or tasks.get(kind) is not tasks.get("table"):
        return False
    options = tasks.resolve(kind, "task")
    files = f"{options['train']} {options['test']}"
    has_files = (options["path"] or options["train"]) and "/ReCoRD/" not in files
    return bool(has_files and options["label_words"])


PRESETS = [k for k in tasks.kinds() if is_checked(k)]
"""`table` itself needs a user's file; tests/unit covers it. Tasks of other answers than classes are checked in
test_tokens.py, test_choice.py, test_span.py and test_superglue.py; so are, in the last, ReCoRD, whose files are not
whole, and FewGLUE, which is a part of FewGLUE_32dev."""


@pytest.fixture(params=[pytest.param(p, marks=pytest.mark.slow) if p.endswith("_text") else p for p in PRESETS])
def case(request: pytest.FixtureRequest) -> Case:
    kind = str(request.param)
    if needs_data(kind) and not all((SHARED / f).is_dir() for f in ("data", f"models/{MODEL_OF_DATA}")):
        pytest.skip(f"{kind} reads the data folder {SHARED.name}/ beside the repository (or TRIMTAB_SHARED)")
    return load(kind)


@dataclass(frozen=True)
class Oracle(PromptedModel):
    """Scores the gold class highest, or, shifted, always another one."""

    classes: int
    shift: int = 0

    def score_rows(self, rows: Sequence[Row], table: PromptTable | None, max_tokens: int) -> Tensor:
        gold = torch.tensor([int(row.label) for row in rows])  # type: ignore[arg-type]
        return torch.nn.functional.one_hot((gold + self.shift) % self.classes, self.classes).float()


@pytest.mark.parametrize("split", SPLITS)
def test_perfect_predictions_score_one(case: Case, split: str, backbone: Backbone) -> None:
    readout = reader(backbone, toy_rendering(backbone))
    rows, classes = case.task.splits[split], len(case.task.verbalizer.classes)
    firsts = {row.label: row for row in reversed(rows)}  # every class that there is
    examples = [*firsts.values(), *(row for row in sampled(rows) if row not in firsts.values())]
    own = replace(backbone, encoder=case.encoder)
    found = Predictor(Oracle(own, readout, classes), case.rendering, None, {}).evaluate(examples).metrics
    assert found["accuracy"] == 1.0
    assert found["macro_f1"] == 1.0
    assert {found[name] for name in case.task.metrics} <= {1.0}
    assert found["rows"] == len(examples)
    wrong = Predictor(Oracle(own, readout, classes, shift=1), case.rendering, None, {}).evaluate(examples).metrics
    assert wrong["accuracy"] == 0.0


def test_every_example_renders_with_its_slots_intact(case: Case) -> None:
    lengths = {len(word) for words in case.rendering.label_ids(case.encoder) for word in words}
    for example in case.examples:
        variants = case.rendering.row(example, case.encoder).variants
        assert {len(v.answer_at) for v in variants} == lengths, example.id
        for encoded in variants:
            assert len(encoded) <= POSITIONS, example.id
            assert len(encoded.slots) == LENGTH, example.id
            assert {encoded.ids[i] for i in encoded.answer_at} == {case.encoder.mask_id}, example.id
            assert encoded.eligible, f"{example.id}: nothing of the text is left"
            assert not {*encoded.slots, *encoded.answer_at} & set(encoded.eligible), example.id
            assert not [i for i in encoded.slots if encoded.ids[i] != case.encoder.filler_id], example.id


def test_bundled_examples_are_never_truncated_and_hardly_unknown() -> None:
    for kind in BUNDLED:
        case = load(kind)
        unknown = total = 0
        for example in case.examples:
            encoded = case.rendering.row(example, nano()).encoded
            assert encoded.dropped == 0, example.id
            total += len(encoded.eligible)
            unknown += sum(encoded.ids[i] == nano().unk_id for i in encoded.eligible)
        assert unknown <= total / 200, f"{kind}: {unknown} of {total} pieces are unknown"


def test_every_label_is_verbalizable(case: Case) -> None:
    ids = case.rendering.label_ids(case.encoder)
    assert len(ids) == len(case.task.verbalizer.classes) >= 2
    assert all(len(words) >= 1 for words in ids)
    flat = [i for words in ids for i in words]
    assert len(set(flat)) == len(flat), "two classes share a label word"
    assert case.encoder.unk_id not in flat
    assert {e.label for s in SPLITS for e in case.task.splits[s]} <= set(case.task.verbalizer.classes)


def test_every_class_occurs_in_every_split(case: Case) -> None:
    for split in SPLITS:
        assert {e.label for e in case.task.splits[split]} == set(case.task.verbalizer.classes), split


def test_truncation_never_eats_a_slot(case: Case) -> None:
    refused = fitted = 0
    for example in case.examples[::40]:
        full = len(replace(case.rendering, max_length=10**6).row(example, case.encoder).encoded)
        for limit in (1, LENGTH, LENGTH + 3, LENGTH + 5, LENGTH + 8, LENGTH + 12, full - 1, full):
            try:
                encoded = replace(case.rendering, max_length=limit).row(example, case.encoder).encoded
            except TemplateError:
                refused += 1
                assert limit < full
                continue
            fitted += 1
            assert len(encoded) <= limit
            assert len(encoded.slots) == LENGTH
            assert encoded.ids[encoded.answer_at[0]] == case.encoder.mask_id
            assert encoded.eligible
            assert encoded.dropped == full - len(encoded)
    assert refused, "limits below the number of slots must be refused"
    assert fitted, "limits above it must be met"


GOLDEN: Mapping[str, Mapping[tuple[str, int], str]] = {
    "support_desk": {
        (
            "train",
            0,
        ): "[CLS] {P} [MASK] : could the pack ##age be dropped at the post office near the station so i can pick it "
        "up my ##self ? [SEP]",
        (
            "train",
            7,
        ): "[CLS] {P} [MASK] : since sunday , the search in your app shows nothing , what ##ever i type . the site on "
        "my computer is all right . [SEP]",
        ("dev", 3): "[CLS] {P} [MASK] : the trial was meant to cost nothing . explain the 19 . 90 , pleas ##e . [SEP]",
        ("test", 5): "[CLS] {P} [MASK] : i ' d like to have my log ##in back . it was closed because i had not used it "
        "for two years . [SEP]",
    },
    "product_reviews": {
        (
            "train",
            0,
        ): "[CLS] {P} i reg ##ret getting this , the plastic is so weak that the li ##d cra ##ck ##ed when i "
        "closed it . it was [MASK] . [SEP]",
        (
            "train",
            7,
        ): "[CLS] {P} so gl ##ad i got the big size , it holds a week of shop ##ping . it was [MASK] . [SEP]",
        ("dev", 3): "[CLS] {P} i had given up on ra ##zo ##r ##s until this one it was [MASK] . [SEP]",
        ("test", 5): "[CLS] {P} the glass cra ##ck ##ed when i po ##ured in warm tea . it was [MASK] . [SEP]",
    },
}
"""Rows as the embedded model reads them; {P} stands for the slots."""


@pytest.mark.parametrize("kind", BUNDLED)
def test_golden_rendering(kind: str) -> None:
    case = load(kind)
    for (split, index), expected in GOLDEN[kind].items():
        encoded = case.rendering.row(case.task.splits[split][index], nano()).encoded
        tokens = nano().tokens(encoded.ids)
        for slot in encoded.slots:
            tokens[slot] = "{P}"
        shown = " ".join(tokens).replace(" ".join(["{P}"] * LENGTH), "{P}")
        assert shown == expected, f"{split} {index}"


@pytest.mark.parametrize("kind", BUNDLED)
def test_eligible_positions_are_the_field_text_without_label_words(kind: str) -> None:
    case = load(kind)
    words = {ids for its in case.rendering.label_ids(nano()) for ids in its}
    assert all(len(ids) == 1 for ids in words)
    left_out = 0
    for example in case.examples[::5]:
        encoded, text = case.rendering.row(example, nano()).encoded, nano().encode(example.fields["text"]).ids
        assert [encoded.ids[i] for i in encoded.eligible] == [i for i in text if (i,) not in words]
        left_out += len(text) - len(encoded.eligible)
    assert left_out > 0, "some text must hold a label word"


# The bundled data ----------------------------------------------------------------------------------------------------


def trigrams(text: str) -> frozenset[tuple[str, ...]]:
    """Word trigrams; texts of fewer words count as one."""
    words = re.findall(r"[a-z0-9']+", text.lower())
    return frozenset(tuple(words[i : i + 3]) for i in range(max(1, len(words) - 2)))


def likeness(a: frozenset[tuple[str, ...]], b: frozenset[tuple[str, ...]]) -> float:
    """Jaccard index."""
    return len(a & b) / len(a | b)


def near_duplicates(splits: Mapping[str, Iterable[tuple[str, str]]], limit: float = 0.5) -> list[str]:
    """Pairs of texts in different splits whose word trigrams overlap by at least `limit`."""
    grams = {s: [(name, trigrams(text)) for name, text in rows] for s, rows in splits.items()}
    return [
        f"{one} ~ {two}"
        for left, right in combinations(grams, 2)
        for one, a in grams[left]
        for two, b in grams[right]
        if likeness(a, b) >= limit
    ]


@pytest.mark.parametrize("kind", BUNDLED)
def test_splits_have_no_near_duplicates(kind: str) -> None:
    task = load(kind).task
    assert near_duplicates({s: [(e.id, e.fields["text"]) for e in task.splits[s]] for s in SPLITS}) == []


@pytest.mark.parametrize("kind", BUNDLED)
def test_no_text_stands_twice_within_a_split(kind: str) -> None:
    for split, rows in load(kind).task.splits.items():
        texts = Counter(e.fields["text"].lower() for e in rows)
        assert [t for t, n in texts.items() if n > 1] == [], split


def test_near_duplicates_are_found_where_they_are() -> None:
    splits = {
        "train": [("a", "My parcel has not arrived after two weeks."), ("b", "The lamp is broken.")],
        "test": [("c", "My parcel has still not arrived after two weeks!"), ("d", "the lamp is broken")],
        "dev": [("e", "Where do I change my password?")],
    }
    assert near_duplicates(splits, limit=0.4) == ["a ~ c", "b ~ d"]
    assert near_duplicates(splits) == ["b ~ d"]


def test_support_desk_has_at_least_400_rows_in_six_balanced_classes() -> None:
    task = load("support_desk").task
    labels = Counter(e.label for s in SPLITS for e in task.splits[s])
    assert sum(labels.values()) >= 400
    assert len(labels) == 6
    assert max(labels.values()) <= 1.5 * min(labels.values())


def test_product_reviews_has_two_balanced_classes() -> None:
    labels = Counter(e.label for s in SPLITS for e in load("product_reviews").task.splits[s])
    assert sorted(labels) == ["negative", "positive"]
    assert sum(labels.values()) >= 200
    assert max(labels.values()) <= 1.5 * min(labels.values())


def test_ids_are_unique_over_the_splits() -> None:
    for kind in BUNDLED:
        ids = [e.id for s in SPLITS for e in load(kind).task.splits[s]]
        assert len(set(ids)) == len(ids)
