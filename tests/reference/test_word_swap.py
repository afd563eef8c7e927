"""The attack of `word_swap` against a derivation with transformers' model alone, and what no swap may do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import pre_tokenizers
from torch import Tensor
from torch.nn.functional import cross_entropy

from tests.contract.tiny_families import BUILDERS, POSITIONS, build, save
from tests.contract.toy_runs import reader
from tests.tiny import tiny_backbone
from trimtab.backbones import Backbone
from trimtab.backbones.proposals import ask, propose
from trimtab.backbones.substitutes import substitutes
from trimtab.backbones.words import Words
from trimtab.batching import collate
from trimtab.config import Seeds
from trimtab.model import PromptedModel
from trimtab.perturbations import Substitutes, TrainStep, in_all_rows, replace_tokens, text_mask
from trimtab.prompt_table import PromptTable
from trimtab.readouts import Readout, mistaken
from trimtab.registry import readouts, regularizers
from trimtab.regularizers import Needs, Regularizer
from trimtab.regularizers.english import are_opposed, english_stop_words
from trimtab.regularizers.swap_attack import Attacked, Limits, attack
from trimtab.regularizers.swap_candidates import Rules, choose, read_ids
from trimtab.regularizers.word_swap import WordSwap
from trimtab.rendering import Rendering
from trimtab.templates import Template
from trimtab.training.objective import Objective, Part
from trimtab.training.parallel import ALONE
from trimtab.types import Batch, Encoded, Example, Row
from trimtab.verbalizers import Verbalizer

LENGTH = 3
TEXTS = (
    ("the old red film was good", "positive"),
    ("not a happy song , very sad and very awful", "negative"),
    ("cat dog tree moon sea green blue seven eight nine ten book", "positive"),
    ("no", "negative"),
    ("filming it was poor", "negative"),
)
ANYTHING = Rules(proposals=500, neighbours=256, similarity=-1.0, knows_opposites=False)
MANY = Limits(rate=0.5, at_least=1, tries=4)


@dataclass
class Looks:
    """A regularizer that keeps the step that it is shown."""

    weight: float = 1.0
    needs: Needs = field(default_factory=lambda: Needs(gradient="text", text=True))
    step: TrainStep | None = None

    def penalties(self, step: TrainStep) -> Iterator[Tensor]:
        self.step = step
        yield step.loss(step.rescore({}), step.batch.labels)


@dataclass
class Lone:
    """A member of a pack."""

    train: Sequence[Row]
    regularizers: Sequence[Regularizer]
    seeds: Seeds = field(default_factory=lambda: Seeds(init=0, data_order=0, subset=0, noise=0))
    step: int = 0
    epoch: int = 0
    findings: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


@dataclass
class Scene:
    backbone: Backbone
    readout: Readout
    rows: list[Row]
    prompt: Tensor
    step: TrainStep

    @property
    def lexicon(self) -> Words:
        assert isinstance(self.step.substitutes.lexicon, Words)
        return self.step.substitutes.lexicon


def scene_of(
    backbone: Backbone,
    texts: Sequence[tuple[str, str]] = TEXTS,
    words: Mapping[str, list[str]] | None = None,
    template: str = "{prompt} {text} {answer}",
) -> Scene:
    """What a regularizer sees of the texts, with a random prompt."""
    verbalizer = Verbalizer.of(dict(words or {"positive": ["yes"], "negative": ["no"]}))
    spec = readouts.resolve(backbone.family.readouts[0], "readout")
    rendering = Rendering(Template.parse(template, LENGTH), verbalizer, POSITIONS, spec)
    rows = [
        replace(rendering.row(Example(str(i), {"text": t}, label), backbone.encoder, 0), key=i)
        for i, (t, label) in enumerate(texts)
    ]
    model = PromptedModel(backbone, reader(backbone, rendering))
    looks = Looks()
    labels = [i for its in rendering.label_ids(backbone.encoder) for ids in its for i in ids]
    objective = Objective(model, [Lone(rows, [looks])], ALONE, substitutes(backbone, labels))
    prompt = torch.randn(1, LENGTH, backbone.embedding_size, generator=torch.Generator().manual_seed(1))
    batch = model.collate(rows)
    objective.backward([Part(batch, torch.full((len(rows),), 1 / len(rows)))], PromptTable(prompt).detached())
    assert looks.step is not None
    return Scene(backbone, model.readout, rows, prompt[0], looks.step)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def opened(folder: Path, kind: str) -> Backbone:
    place = folder / kind
    return tiny_backbone(place if place.exists() else BUILDERS[kind](place))


# A derivation of its own ---------------------------------------------------------------------------------------------


def plain_words(backbone: Backbone) -> dict[int, str]:
    """The words of the tiny WordPiece vocabulary that may be swapped."""
    vocabulary = backbone.encoder.tokenizer.get_vocab()
    return {i: t for t, i in vocabulary.items() if t.isalpha() and len(t) > 1 and t not in ("yes", "no")}


def derived_candidates(
    backbone: Backbone, ids: list[int], at: int, proposals: int, neighbours: int, similarity: float
) -> set[int]:
    """From the ids of a text with its special tokens, no prompt in it."""
    words = [i for i in plain_words(backbone) if i != ids[at]]
    matrix = backbone.model.get_input_embeddings().weight.double().tolist()

    def cosine(i: int) -> float:
        a, b = matrix[ids[at]], matrix[i]
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        return dot / (sum(x * x for x in a) * sum(y * y for y in b)) ** 0.5

    near = [i for i in sorted(words, key=cosine, reverse=True)[:neighbours] if cosine(i) >= similarity]
    hidden = [*ids[:at], backbone.encoder.tokenizer.mask_token_id, *ids[at + 1 :]]
    logits = backbone.model(input_ids=torch.tensor([hidden])).logits[0, at].tolist()
    return set(near) & set(sorted(words, key=lambda i: logits[i], reverse=True)[:proposals])


def derived_loss(scene: Scene, row: Row, ids: Sequence[int], gradient: bool = False) -> tuple[float, Tensor | None]:
    """Cross-entropy between the two label words at the mask, and its gradient at the embeddings."""
    vocabulary = scene.backbone.encoder.tokenizer.get_vocab()
    embeds = scene.backbone.model.get_input_embeddings()(torch.tensor(list(ids))).clone()
    for vector, slot in zip(scene.prompt, row.encoded.slots, strict=True):
        embeds[slot] = vector
    embeds = embeds.detach().requires_grad_()
    logits = scene.backbone.model(inputs_embeds=embeds[None]).logits[0, row.encoded.answer_at[0]]
    loss = cross_entropy(logits[[vocabulary["yes"], vocabulary["no"]]][None], torch.tensor([row.label]))
    if gradient:
        loss.backward()
    return loss.item(), embeds.grad


@pytest.mark.parametrize(("proposals", "neighbours", "similarity"), [(40, 40, -1.0), (25, 90, 0.0), (90, 90, 0.1)])
def test_candidates_are_proposed_and_near(
    proposals: int, neighbours: int, similarity: float, backbone: Backbone
) -> None:
    scene = scene_of(backbone)
    rules = Rules(proposals, neighbours, similarity, knows_opposites=False)
    sizes = []
    for b, row in enumerate(scene.rows):
        slots = set(row.encoded.slots)
        bare = [i for p, i in enumerate(row.encoded.ids) if p not in slots]
        for position in row.encoded.eligible:
            old = row.encoded.ids[position]
            if (
                old not in plain_words(backbone)
                or backbone.encoder.tokens([row.encoded.ids[position + 1]])[0][:1] == "#"
            ):
                continue
            at = position - sum(s < position for s in slots)
            proposed = scene.lexicon.proposals(scene.step.batch, b, position, proposals)
            found = rules.near(old, scene.lexicon) & set(proposed)
            assert found == derived_candidates(backbone, bare, at, proposals, neighbours, similarity)
            sizes.append(len(found))
    assert len(sizes) > 15
    assert max(sizes) > 3, "the sets must not be empty"
    assert min(sizes) < 60, "nor all words"


def hidden_by_hand(backbone: Backbone, ids: list[int], at: int) -> Tensor:
    """Logits for the word at `at` by transformers alone, as a model of its kind is asked."""
    tokenizer, model = backbone.encoder.tokenizer, backbone.model
    if backbone.encoder.is_causal:
        return model(input_ids=torch.tensor([ids[:at]])).logits[0, -1]
    is_t5 = model.config.model_type == "t5"
    gap = tokenizer.convert_tokens_to_ids("<extra_id_0>") if is_t5 else tokenizer.mask_token_id
    inputs = torch.tensor([[*ids[:at], gap, *ids[at + 1 :]]])
    if not model.config.is_encoder_decoder:
        return model(input_ids=inputs).logits[0, at]
    start = model.config.decoder_start_token_id
    decoder = [start, gap] if is_t5 else [start, *ids[:at]]
    return model(input_ids=inputs, decoder_input_ids=torch.tensor([decoder])).logits[0, -1]


@pytest.mark.parametrize("kind", ["roberta", "albert", "gpt2", "llama", "gemma2", "t5", "bart", "mbart"])
def test_bare_model_is_asked_as_its_kind_wants_it(kind: str, folder: Path) -> None:
    backbone = opened(folder, kind)
    scene = scene_of(backbone, template="{prompt:1} {text} {prompt:2} {answer}")
    checked = 0
    for b in (0, 2):  # no label words in the text
        ids = backbone.encoder.tokenizer(TEXTS[b][0])["input_ids"]
        row = int((scene.step.batch.example_of == b).nonzero()[0])
        positions = scene.step.batch.eligible[row].nonzero()[:, 0].tolist()
        first = len(backbone.encoder.prefix)
        for n, position in enumerate(positions):
            assert int(scene.step.batch.ids[row, position]) == ids[first + n]
            asked = ask(backbone, scene.step.batch, row, position)
            if first + n == 0 and backbone.encoder.is_causal:
                assert asked is None, "nothing stands before the first word"
                continue
            assert asked is not None
            found = propose(backbone, asked)
            if not backbone.encoder.is_causal and backbone.encoder.mask_id is not None:
                expected = with_mask_at_the_end(backbone, scene, row, ids, first + n)
            else:
                expected = hidden_by_hand(backbone, ids, first + n)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
            checked += 1
    assert checked > 8


def with_mask_at_the_end(backbone: Backbone, scene: Scene, row: int, ids: list[int], at: int) -> Tensor:
    """The answer slot of a cloze is a mask, which stays."""
    if backbone.encoder.decoder_start_id is not None:
        return hidden_by_hand(backbone, ids, at)
    end = len(ids) - len(backbone.encoder.suffix)
    return hidden_by_hand(backbone, [*ids[:end], backbone.encoder.tokenizer.mask_token_id, *ids[end:]], at)


@pytest.mark.parametrize("tries", [1, 3])
def test_greedy_swaps_are_those_of_a_derivation(tries: int, backbone: Backbone) -> None:
    """Two swaps at most, each the best to first order of the word with the next largest gradient, kept if it helps."""
    scene = scene_of(backbone)
    rules = Rules(40, 90, 0.0, knows_opposites=False)
    found = attack(scene.step, range(len(scene.rows)), Limits(0.001, 2, tries), rules)
    matrix, undone, kept = backbone.model.get_input_embeddings().weight, 0, 0
    for x, row in enumerate(scene.rows):
        ids = list(row.encoded.ids)
        before, gradient = derived_loss(scene, row, ids, gradient=True)
        assert gradient is not None
        may = [p for p in row.encoded.eligible if ids[p] in plain_words(backbone)]
        may = [p for p in may if backbone.encoder.tokens([ids[p + 1]])[0][:2] != "##"]
        slots = row.encoded.slots
        order = sorted(may, key=lambda p: -float(gradient[p].norm()))[: 2 * tries]
        current, swaps = before, []
        bare = [i for q, i in enumerate(ids) if q not in slots]
        for p in order:
            options = derived_candidates(backbone, bare, p - sum(s < p for s in slots), 40, 90, 0.0)
            gains = {i: (gradient[p] @ (matrix[i] - matrix[ids[p]])).item() for i in options}
            best = max(gains, key=lambda i: gains[i], default=None)
            if len(swaps) == 2 or best is None or gains[best] <= 0:
                continue
            trial = [*ids[:p], best, *ids[p + 1 :]]
            loss, _ = derived_loss(scene, row, trial)
            if loss > current:
                swaps.append((row.encoded.eligible.index(p), ids[p], best))
                current, ids = loss, trial
            else:
                undone += 1
        kept += len(swaps)
        assert [tuple(s) for s in found[x].swaps] == swaps
        assert found[x].before == pytest.approx(before, rel=1e-4)
        assert found[x].after == pytest.approx(current, rel=1e-4)
    assert kept >= 5
    assert undone >= 1 or tries == 1, "some swap must have been undone"


@pytest.mark.parametrize("loss", ["ce", "kl", "sym_kl"])
@pytest.mark.parametrize("beside", [[], [{"kind": "pgd"}], [{"kind": "neftune", "alpha": 0.0}]], ids=str)
def test_swapped_texts_are_held_against_the_label_or_the_clean_scores(
    loss: str, beside: list[dict[str, Any]], backbone: Backbone
) -> None:
    """Whatever they are held against, the attack raises the loss of the label, so the swaps are the same."""
    scene = scene_of(backbone)
    batch, labels = scene.step.batch, scene.step.batch.labels
    options = {"rate": 0.5, "similarity": -1.0, "neighbours": 256, "proposals": 500, "stop_words": "none"}
    model = PromptedModel(backbone, scene.readout)

    def gradient(specs: list[dict[str, Any]]) -> tuple[Tensor, list[Regularizer]]:
        built = [regularizers.build(regularizers.resolve(s, "regularizers")) for s in specs]
        leaf, part = PromptTable(scene.prompt[None]).detached(), Part(batch, torch.full((len(labels),), 0.2))
        Objective(model, [Lone(scene.rows, built)], ALONE, scene.step.substitutes).backward([part], leaf)
        assert leaf.inputs.grad is not None
        return leaf.inputs.grad, built

    swaps = {"kind": "word_swap", "opposites": "none", "part_of_speech": "off", **options}
    found, (regularizer, *_) = gradient([{**swaps, "loss": loss, "weight": 0.5}, *beside])
    without, _ = gradient(beside)
    assert isinstance(regularizer, WordSwap)
    (kept,) = regularizer.state["runs"].values()
    attacked = attack(scene.step, range(len(TEXTS)), Limits(0.5, 1, 4), replace(ANYTHING, proposals=500))
    assert kept["found"] == {str(x): [[s.entry, s.new] for s in its.swaps] for x, its in attacked.items()}
    _, new = swapped(scene, attacked)
    prompt = scene.prompt[None].clone().requires_grad_()
    clean, noisy = (model.scores(b, PromptTable(prompt)) for b in (batch, replace_tokens(batch, new)))
    p, q = clean.log_softmax(1), noisy.log_softmax(1)
    forth, back = (p.exp() * (p - q)).sum(), (q.exp() * (q - p)).sum()
    penalty = {"ce": cross_entropy(noisy, labels, reduction="sum"), "kl": forth, "sym_kl": forth + back}[loss]
    (wanted,) = torch.autograd.grad(0.5 * penalty / 5, prompt)
    assert float(wanted.norm()) > 1e-4
    torch.testing.assert_close(found - without, wanted, rtol=1e-3, atol=1e-6)


# What no swap may do -------------------------------------------------------------------------------------------------


def swapped(scene: Scene, found: Mapping[int, Attacked]) -> tuple[Batch, Tensor]:
    new = torch.full(scene.step.mask.shape, -1)
    for x, its in found.items():
        for swap in its.swaps:
            new[x, swap.entry] = swap.new
    return replace_tokens(scene.step.batch, new), new


@pytest.mark.parametrize("kind", BUILDERS)
def test_swaps_of_every_family_keep_to_the_rules(kind: str, folder: Path) -> None:
    backbone = opened(folder, kind)
    words = {"positive": ["yes", "good"], "negative": ["no"]}
    if backbone.family.readouts[0] == "ranking":
        words["negative"] = ["not good"]  # sequences of their own
    label_words = {part for its in words.values() for word in its for part in word.split()}
    scene = scene_of(backbone, words=words)
    found = attack(scene.step, range(len(scene.rows)), MANY, ANYTHING)
    batch, new = swapped(scene, found)
    assert sum(len(its.swaps) for its in found.values()) >= 5
    after = scene.step.loss(scene.step.rescore_text(new), batch.labels).detach()
    tokenizer, specials = backbone.encoder.tokenizer, set(backbone.encoder.tokenizer.all_special_ids)
    for x, its in found.items():
        words_of_text = TEXTS[x][0].replace(",", " ").split()
        assert len(its.swaps) <= max(-(-len(words_of_text) // 2), 1)
        assert len({s.entry for s in its.swaps}) == len(its.swaps), "each word changes once at most"
        assert its.after >= its.before
        assert bool(its.swaps) == (its.after > its.before)
        assert its.after == pytest.approx(float(after[x]), rel=1e-4)
        for swap in its.swaps:
            old, new_token = tokenizer.convert_ids_to_tokens([swap.old, swap.new])
            assert old != new_token
            assert new_token.strip("Ġ▁").isalpha()
            assert not new_token.startswith("##")
            assert old[0] in "Ġ▁" if new_token[0] in "Ġ▁" else old[0] not in "Ġ▁", "the same space before it"
            assert new_token.strip("Ġ▁") not in label_words
            assert swap.new not in specials
    for b in range(len(batch)):
        before, now = (read_ids(its, b) for its in (scene.step.batch, batch))
        assert len(before) == len(now)
        text = [tokenizer.decode(ids, skip_special_tokens=True) for ids in (before, now)]
        counts = [len(tokenizer(t, add_special_tokens=False)["input_ids"]) for t in text]
        assert counts[0] == counts[1], f"as many pieces: {text}"
        changed = scene.step.batch.ids[b] != batch.ids[b]
        assert not bool((changed & ~scene.step.batch.eligible[b]).any())
        swaps = found[int(batch.example_of[b])].swaps
        assert int(changed.sum()) == len(swaps), "every sequence of an example is swapped alike"


def test_word_of_several_pieces_stays(backbone: Backbone) -> None:
    """`filming` is film + ##ing; `film` alone may be swapped."""
    scene = scene_of(backbone, [("filming film 's sun-red cat", "positive")])
    tokens = backbone.encoder.tokens(scene.step.batch.ids[0].tolist())
    whole = scene.lexicon.whole(scene.step.batch.ids)[0].tolist()
    assert tokens[4:6] == ["film", "##ing"]
    assert [t for t, its in zip(tokens, whole, strict=True) if its] == ["cat"]
    begins = scene.lexicon.begins(scene.step.batch.ids)[0].tolist()
    assert [t for t, its in zip(tokens[4:-2], begins[4:-2], strict=True) if its] == ["film", "film", "sun", "cat"]
    words, places = scene.lexicon.sentence(read_ids(scene.step.batch, 0))
    assert words[:4] == ["filming", "film's", "sun-red", "cat"]
    assert places[:10] == [-1, 0, 0, 1, 1, 1, 2, 2, 2, 3]


def test_stop_words_stay_and_are_not_put_in(backbone: Backbone) -> None:
    scene = scene_of(backbone)
    rules = replace(ANYTHING, stop_words=english_stop_words())
    found = attack(scene.step, range(len(TEXTS)), MANY, rules)
    touched = {scene.lexicon.word(i) for its in found.values() for s in its.swaps for i in (s.old, s.new)}
    assert touched
    assert not touched & english_stop_words()
    free = attack(scene.step, range(len(TEXTS)), MANY, ANYTHING)
    every = {scene.lexicon.word(i) for its in free.values() for s in its.swaps for i in (s.old, s.new)}
    assert every & english_stop_words(), "without the rule some are"
    assert {"not", "no", "never", "doesn"} <= english_stop_words()


def test_rate_of_zero_swaps_nothing_whatever_the_floor(backbone: Backbone) -> None:
    scene = scene_of(backbone)
    found = attack(scene.step, range(len(TEXTS)), Limits(0.0, 3, 4), ANYTHING)
    assert all(not its.swaps and its.after == its.before for its in found.values())
    nothing = torch.full(scene.step.mask.shape, -1)
    clean = scene.step.loss(scene.step.scores, scene.step.batch.labels)
    assert torch.equal(scene.step.loss(scene.step.rescore_text(nothing), scene.step.batch.labels), clean)


@pytest.mark.parametrize(
    ("rate", "at_least", "words", "budget"),
    [(0.1, 1, 3, 1), (0.1, 1, 21, 3), (0.1, 4, 21, 4), (0.1, 0, 0, 0), (0.0, 9, 9, 0)],
)
def test_budget(rate: float, at_least: int, words: int, budget: int) -> None:
    assert Limits(rate, at_least, 1).budget(words) == budget


def test_attack_ends_at_a_mistake_where_asked(backbone: Backbone) -> None:
    scene = scene_of(backbone)
    examples = range(len(TEXTS))
    label = scene.step.batch.labels
    right = (scene.step.scores.argmax(1) == label).tolist()
    found = attack(scene.step, examples, replace(MANY, until_mistake=True), ANYTHING)
    _, new = swapped(scene, found)
    fooled = (scene.step.rescore_text(new).argmax(1) != label).tolist()
    on = attack(scene.step, examples, MANY, ANYTHING)
    assert all(not found[x].swaps for x in examples if not right[x])
    assert any(right), "some must be right at first"
    assert any(len(found[x].swaps) < len(on[x].swaps) for x in examples if right[x] and fooled[x])
    for x in examples:
        if right[x] and not fooled[x]:
            assert found[x].swaps == on[x].swaps


def test_mistakes_are_any_wrong_answer_that_is_known(backbone: Backbone) -> None:
    classes = readouts.build({"kind": "head"}, backbone, [])
    scores = torch.tensor([[2.0, 1.0], [0.0, 1.0], [2.0, 1.0]])
    assert mistaken(classes, scores, torch.tensor([0, 0, 1])).tolist() == [False, True, True]
    tags_of_words = readouts.build({"kind": "tokens"}, backbone, [])
    words = torch.tensor([[0, 1, 1], [1, 0, 0], [0, 1, -1]])
    each = scores[None, [0, 1, 2]].expand(3, -1, -1)  # the answers 0, 1, 0
    assert mistaken(tags_of_words, each, words).tolist() == [True, True, False]


def test_words_that_sequences_do_not_share_stay(backbone: Backbone) -> None:
    """Of two sequences of one example, the second entry differs, and the first has one more."""
    long, short = (
        Encoded((2, 10, 11, 12), (), (0,), eligible=(1, 2, 3)),
        Encoded((2, 10, 14), (), (0,), eligible=(1, 2)),
    )
    rows = [Row(long, others=(short,)), Row(Encoded((2, 20, 21), (), (0,), eligible=(1, 2)))]
    batch = collate(rows, 0)
    everywhere = torch.ones_like(batch.ids, dtype=torch.bool)
    assert in_all_rows(everywhere, batch).tolist() == [[True, False, False], [True, True, False]]
    assert in_all_rows(batch.ids != 20, batch).tolist() == [[True, False, False], [False, True, False]]


# Forms ---------------------------------------------------------------------------------------------------------------


def spoken(folder: Path, words: Sequence[str]) -> Backbone:
    """A tiny GPT-2 whose pieces are bytes and these words; Ġ stands for a space."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = dict.fromkeys((word[:i], word[i]) for word in words for i in range(1, len(word)))
    tokens = dict.fromkeys([*alphabet, *("".join(pair) for pair in merges), "<|endoftext|>"])
    tokenizer = transformers.GPT2Tokenizer(vocab={t: i for i, t in enumerate(tokens)}, merges=list(merges))
    model = build("GPT2", tokenizer, "LMHeadModel", n_embd=32, n_layer=1, n_head=2, n_inner=64)
    return tiny_backbone(save(folder, model, tokenizer))


def test_forms_keep_spaces_and_capitals(tmp_path: Path) -> None:
    words = ["Ġgood", "Ġfine", "ĠGood", "ĠFine", "ĠGOOD", "ĠFINE", "Good", "Fine", "ĠMcBee", "Ġwell", "Ġa", "ĠGreat"]
    backbone = spoken(tmp_path / "gpt2", words)
    vocabulary = backbone.encoder.tokenizer.get_vocab()
    lexicon = Words(backbone, [vocabulary["Ġwell"], vocabulary["ĠGreat"]])
    text = "Good Fine good GOOD McBee a well Well good-fine Great good's fine."
    ids = backbone.encoder.encode(text).ids
    tokens = backbone.encoder.tokens(ids)
    whole = lexicon.whole(torch.tensor([ids]))[0].tolist()
    assert [t for t, its in zip(tokens, whole, strict=True) if its] == ["Good", "ĠFine", "Ġgood", "ĠGOOD", "Ġfine"]
    for token, among, not_among in (
        ("Ġgood", {"Ġfine"}, {"ĠFine", "Fine", "ĠFINE", "Ġwell", "Ġa"}),
        ("ĠGood", {"ĠFine"}, {"Ġfine", "Fine", "ĠFINE", "ĠGreat"}),
        ("Good", {"Fine"}, {"ĠFine", "fine"}),
        ("ĠGOOD", {"ĠFINE"}, {"ĠFine"}),
    ):
        near = set(backbone.encoder.tokens(lexicon.neighbours(vocabulary[token], 256, -1.0)))
        assert among <= near
        assert not near & (not_among | {token})


# Opposites -----------------------------------------------------------------------------------------------------------

VOCABULARY = ("[PAD]", "good", "bad", "fine", "great", "unfine", "chair")
VECTORS = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.9, 0.4], [0.8, 0.3], [0.9, 0.35], [0.9, 0.38], [-1.0, -0.9]])


@dataclass
class ByHand:
    """A lexicon of six words with vectors made by hand, in which a model proposes what it is told to."""

    proposed: tuple[str, ...]

    def whole(self, ids: Tensor) -> Tensor:
        return ids > 0

    def begins(self, ids: Tensor) -> Tensor:
        return ids > 0

    def word(self, token: int) -> str:
        return VOCABULARY[token]

    def sentence(self, ids: Sequence[int]) -> tuple[list[str], list[int]]:
        return [VOCABULARY[i] for i in ids], list(range(len(ids)))

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(VOCABULARY[i] for i in ids)

    def embed(self, ids: Tensor, batch: Batch, row: int, position: int) -> Tensor:
        return VECTORS[ids]

    def neighbours(self, token: int, count: int, similarity: float) -> tuple[int, ...]:
        cosines = torch.nn.functional.cosine_similarity(VECTORS, VECTORS[token][None])
        order = [i for i in cosines.argsort(descending=True).tolist() if i not in (0, token)]
        return tuple(i for i in order[:count] if cosines[i] >= similarity)

    def proposals(self, batch: Batch, row: int, position: int, count: int) -> Sequence[int]:
        return [VOCABULARY.index(w) for w in self.proposed][:count]


def tags(words: Sequence[str]) -> list[str]:
    """`great` is a noun here, everything else an adjective."""
    return ["NN" if word == "great" else "JJ" for word in words]


@pytest.mark.parametrize(
    ("options", "proposed", "chosen"),
    [
        ({}, ("bad", "great", "fine", "chair"), "great"),  # bad promises most and is an opposite; chair is not near
        ({}, ("bad", "fine", "chair"), "fine"),  # great is not proposed
        ({}, ("bad", "chair"), None),
        ({"knows_opposites": False}, ("bad", "great", "fine", "chair"), "bad"),
        ({"tagger": tags}, ("bad", "great", "fine", "chair"), "fine"),
        ({"neighbours": 1}, ("bad", "great"), None),  # the nearest one is fine
        ({"proposals": 3}, ("bad", "chair", "fine", "great"), "fine"),
        ({"similarity": -1.0, "neighbours": 9}, ("chair",), None),  # it would lower the loss
        ({"stop_words": ("great",)}, ("bad", "great", "fine"), "fine"),
        ({"stop_words": ("good",)}, ("bad", "great", "fine"), None),
    ],
)
def test_the_best_candidate_is_near_proposed_and_no_opposite(
    options: dict[str, Any], proposed: tuple[str, ...], chosen: str | None
) -> None:
    batch = collate([Row(Encoded((1, 6), (), (0,), eligible=(0, 1)), label=0)], 0)
    gradient = torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])  # upwards
    lexicon = ByHand(proposed)
    none = torch.full((1, 2), -1)
    step = TrainStep(
        batch=batch, mask=text_mask(batch), prompts=(), scores=torch.zeros(1, 2), rms={}, original=lambda name: none,
        rescore=lambda delta: torch.zeros(1, 2), rescore_text=lambda new: torch.zeros(1, 2),
        loss=lambda scores, labels: scores[:, 0], divergence=lambda p, q: p[:, 0], streams=lambda purpose: [],
        gradient={"text": gradient}, substitutes=Substitutes(None, (), lexicon),
    )  # fmt: skip
    rules = Rules(**{"proposals": 9, "neighbours": 9, "similarity": 0.8, **options})
    found = choose(step, 0, 0, 0, 0, rules, lexicon)
    assert (None if found is None else VOCABULARY[found.new]) == chosen


@pytest.mark.parametrize(
    "pair",
    ["good bad", "Good BAD", "better worse", "able unable", "willing unwilling", "longer shortest", "boys girl",
     "hated love", "minutes hour", "dozens thousands", "east west", "fiction nonfiction", "early late",
     "difficult easier", "bigger smallest", "happily sadly", "funnier boring"],
)  # fmt: skip
def test_opposites(pair: str) -> None:
    one, other = pair.split()
    assert are_opposed(one, other)
    assert are_opposed(other, one)


@pytest.mark.parametrize(
    "pair",
    ["movie film", "good great", "hour hours", "hilarious humorous", "film films", "does did", "big large", "kind sort",
     "thousand thousands", "table chair", "easier easy", "bigger big", "supper sure"],
)  # fmt: skip
def test_no_opposites(pair: str) -> None:
    one, other = pair.split()
    assert not are_opposed(one, other)
    assert not are_opposed(other, one)
