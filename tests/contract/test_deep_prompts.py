"""What deep prompts promise on every family, checked over the registry; broken code shows that each check can fail."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import transformers
from torch import Tensor

from tests.contract import test_backbone_families as matrix
from tests.contract.test_backbone_families import (
    BROKEN,
    CLOSE,
    HiddenReadout,
    attentions,
    bare_rows,
    frozen,
    mixed_rows,
    on_side,
    read,
    sabotaged,
    sides,
    table_of,
)
from tests.contract.test_generation import NEW, write, writer
from tests.contract.test_generation import rows_of as rows_to_write
from trimtab import injection
from trimtab.backbones import Backbone, Family, attention, causal, encoder_decoder, load_backbone
from trimtab.backbones.attention import CountedPassage, Passage, Place
from trimtab.backbones.checkpointing import recomputed_layers, recomputing
from trimtab.errors import BackboneError
from trimtab.injection import Prefix, prefix_attention
from trimtab.model import PromptedModel
from trimtab.prompt_table import AttentionCall, AttentionPrompts, DeepPrompt, PromptTable
from trimtab.registry import families
from trimtab.tunings.all import All
from trimtab.types import Batch, Row

family_folder = matrix.family_folder

MODELS = matrix.MODELS
DIFFERENT = matrix.DIFFERENT
CAUSAL = [n for n in MODELS if issubclass(families.get(n.partition(":")[0]), causal.DecoderOnly)]
WRITERS = [n for n in MODELS if "text" in families.get(n.partition(":")[0]).readouts]
WINDOWED = ("mistral", "gemma2", "gemma3_text")
P = 4
"""Columns of the prompts; prompt 1 has one less."""


@pytest.fixture(scope="module")
def load(family_folder: Callable[[str], Path]) -> Callable[[str, str], Backbone]:
    """A tiny model of each family and attention implementation, float32; not to be damaged."""

    @cache
    def load(name: str, attention: Literal["auto", "eager", "sdpa"] = "auto") -> Backbone:
        return load_backbone(str(family_folder(name)), dtype="float32", device="cpu", attention=attention)

    return load


EVERY = [(n, a) for n in MODELS for a in attentions(n)]


@pytest.fixture(params=[(n, a) for n, a in EVERY if (n, a) == (n, attentions(n)[-1]) or n in DIFFERENT], ids="-".join)
def loaded(load: Callable[[str, str], Backbone], request: pytest.FixtureRequest) -> Backbone:
    return load(*request.param)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def shared(load: Callable[[str, str], Backbone], name: str) -> Backbone:
    """A model of one family, not to be damaged."""
    return load(name, "auto")


@pytest.fixture
def fresh(name: str, family_folder: Callable[[str], Path]) -> Backbone:
    """A model of one family that a test may damage."""
    return load_backbone(str(family_folder(name)), dtype="float32", device="cpu")


def every(names: Sequence[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", names, indirect=True)


def deep_table(backbone: Backbone, inputs: bool = False, prompts: int = 3, scale: float = 1.0) -> PromptTable:
    """Random deep prompts as large as a text's keys and values, with or without an input prompt each."""
    generator = torch.Generator().manual_seed(3)
    deep = {}
    for site, kept in backbone.keys_values(torch.tensor([7, 8, 9, 10, 11])).items():
        layers, _, _, heads, size = kept.shape
        values = torch.randn(prompts, layers, 2, P, heads, size, generator=generator)
        visible = torch.ones(prompts, layers, P, dtype=torch.bool)
        visible[1::2, :, P - 1] = False
        rms = kept.square().mean((0, 2, 3, 4)).sqrt()[:, None, None, None]
        deep[site] = DeepPrompt(scale * rms * values, tuple(range(layers)), visible)
    vectors = table_of(backbone, prompts).inputs
    return PromptTable(vectors if inputs else vectors[:, :0], deep)


def with_deep(table: PromptTable, change: Callable[[DeepPrompt], DeepPrompt]) -> PromptTable:
    return replace(table, deep={site: change(deep) for site, deep in table.deep.items()})


def gated(backbone: Backbone, table: PromptTable, gated: Sequence[bool], value: float = 0.0) -> PromptTable:
    """The same prompts, of which some are gated; `value` is every gate's."""
    deep = {
        site: replace(
            its,
            gates=torch.full((len(gated), len(its.layers), backbone.sites[site].queries), value),
            gated=torch.tensor(gated),
        )
        for site, its in table.deep.items()
    }
    return replace(table, deep=deep)


def deep_rows(backbone: Backbone) -> list[Row]:
    """Rows without slots for the prompts 0 and 1 and none, two of each, of different lengths."""
    return [replace(row, prompt=i % 3 - 1) for i, row in enumerate(bare_rows(backbone, 6))]


def state(backbone: Backbone, rows: list[Row], table: PromptTable | None) -> Tensor:
    return read(backbone, rows, table, backbone.family.padding_side)


# The promises --------------------------------------------------------------------------------------------------------


def check_gradient(backbone: Backbone) -> None:
    """Every visible key and value of every layer and site gets a gradient, float32; nothing else gets any."""
    table = deep_table(backbone)
    leaf = table.detached()
    model = PromptedModel(backbone, HiddenReadout())
    with frozen(backbone):
        model.scores(
            on_side(backbone, deep_rows(backbone), backbone.family.padding_side), leaf
        ).square().sum().backward()
    assert set(leaf.deep) == set(backbone.sites)
    for site, deep in leaf.deep.items():
        grad = deep.keys_values.grad
        assert grad is not None
        assert grad.dtype == torch.float32
        assert bool(grad.isfinite().all())
        reached = grad.abs().sum((4, 5)) > 0
        wanted = deep.visible.clone()
        wanted[2] = False  # no row uses it
        assert torch.equal(reached, wanted[:, :, None].expand_as(reached)), f"{site}: {reached.tolist()}"


def check_padding_and_mates(backbone: Backbone) -> None:
    """Neither padding nor batch mates nor their prompts change a row, whatever the padding side."""
    for rows, inputs in ((deep_rows(backbone), False), (mixed_rows(backbone)[4:], True)):
        table = deep_table(backbone, inputs)
        long_row = max(rows, key=lambda r: len(r.encoded))
        ids = long_row.encoded.ids
        longer = replace(long_row, prompt=2, encoded=replace(long_row.encoded, ids=(*ids[:-1], *ids[1:4], ids[-1])))
        alone = torch.cat([state(backbone, [row], table) for row in rows])
        for side in sides(backbone):
            torch.testing.assert_close(read(backbone, rows, table, side), alone, **CLOSE)
            torch.testing.assert_close(read(backbone, [longer, *rows[::-1]], table, side)[1:].flip(0), alone, **CLOSE)


def check_prompts_alone(backbone: Backbone) -> None:
    """A prompt does in a table of many what it does in a table of its own, as long as itself; it does something."""
    rows, table = deep_rows(backbone), deep_table(backbone)
    together, bare = state(backbone, rows, table), state(backbone, [replace(r, prompt=-1) for r in rows], None)
    for b, row in enumerate(rows):
        if row.prompt < 0:
            torch.testing.assert_close(together[b], bare[b], **CLOSE)
            continue
        own, length = slice(row.prompt, row.prompt + 1), P - row.prompt

        def cut(deep: DeepPrompt, own: slice = own, length: int = length) -> DeepPrompt:
            return replace(
                deep, keys_values=deep.keys_values[own, :, :, :length], visible=deep.visible[own, :, :length]
            )

        alone = state(backbone, [replace(row, prompt=0)], with_deep(replace(table, inputs=table.inputs[own]), cut))
        torch.testing.assert_close(together[b], alone[0], **CLOSE)
        assert float((together[b] - bare[b]).abs().max()) > 0.01, "the prompt must matter"


def check_hidden_columns(backbone: Backbone) -> None:
    """What stands where a prompt has nothing is never looked at, be it no number; nor are prompts that no row uses."""

    def poison(deep: DeepPrompt) -> DeepPrompt:
        used = deep.visible.clone()
        used[2] = False
        hole = ~used[:, :, None, :, None, None]
        return replace(deep, keys_values=deep.keys_values.masked_fill(hole, float("nan")))

    rows, table = deep_rows(backbone), deep_table(backbone)
    assert torch.equal(state(backbone, rows, table), state(backbone, rows, with_deep(table, poison)))


def check_layers(backbone: Backbone) -> None:
    """A prompt of some layers is one of all layers that is hidden in the others; each layer makes a difference."""
    rows, whole = deep_rows(backbone), deep_table(backbone)
    found = []
    for site, deep in whole.deep.items():
        for layer in deep.layers:
            some = DeepPrompt(deep.keys_values[:, layer : layer + 1], (layer,), deep.visible[:, layer : layer + 1])
            only = torch.zeros_like(deep.visible)
            only[:, layer] = deep.visible[:, layer]
            one = state(backbone, rows, replace(whole, deep={site: some}))
            two = state(backbone, rows, replace(whole, deep={site: replace(deep, visible=only)}))
            torch.testing.assert_close(one, two, **CLOSE)
            found.append(one)
    for i, one in enumerate(found):
        for other in found[:i]:
            assert not torch.allclose(one, other), "two layers do the same"


def check_bare(backbone: Backbone) -> None:
    """A batch of rows that have no deep prompt takes the model's own path, bit for bit."""
    rows = [replace(row, prompt=-1) for row in deep_rows(backbone)]
    expected = state(backbone, rows, None)
    assert torch.equal(state(backbone, rows, deep_table(backbone)), expected)
    assert prefix_attention(deep_table(backbone), on_side(backbone, rows, "right")) is None
    nothing = with_deep(deep_table(backbone), lambda deep: replace(deep, visible=torch.zeros_like(deep.visible)))
    assert torch.equal(state(backbone, deep_rows(backbone), nothing), expected)
    assert prefix_attention(nothing, on_side(backbone, deep_rows(backbone), "right")) is None


def check_order(backbone: Backbone) -> None:
    """Layers are numbered in the order in which they run, in each site."""
    seen: list[Place] = []

    def watches(call: AttentionCall) -> Tensor:
        seen.append(Place(call.site, call.layer))
        return call.bare()

    batch = on_side(backbone, deep_rows(backbone), backbone.family.padding_side)
    for _ in range(2):
        seen.clear()
        backbone.family.hidden(backbone.model, batch, None, None, watches)
        found = {site: [place.layer for place in seen if place.site == site] for site, _ in seen}
        assert found == {site: list(range(s.layers)) for site, s in backbone.sites.items()}


def check_gates(backbone: Backbone) -> None:
    """Gates of 0 are the bare model, bit for bit; rows of other prompts do not notice; gates of 1 do something."""
    rows, table = deep_rows(backbone), deep_table(backbone)
    bare = state(backbone, [replace(row, prompt=-1) for row in rows], None)
    assert torch.equal(state(backbone, rows, gated(backbone, table, [True] * 3)), bare)
    plain = state(backbone, rows, table)
    of_one = torch.tensor([row.prompt == 1 for row in rows])
    for value in (0.0, 1.0):
        some = state(backbone, rows, gated(backbone, table, [True, False, True], value))
        torch.testing.assert_close(some[of_one], plain[of_one], **CLOSE)
        same = torch.isclose(some, bare, **CLOSE).all(1)
        assert same.tolist() == [row.prompt < 0 or (row.prompt == 0 and value == 0) for row in rows]
    leaf = gated(backbone, table, [True, False, True], 0.3).detached()
    model = PromptedModel(backbone, HiddenReadout())
    model.scores(on_side(backbone, rows, backbone.family.padding_side), leaf).square().sum().backward()
    for deep in leaf.deep.values():
        assert deep.gates is not None
        assert deep.gates.grad is not None
        assert (deep.gates.grad.abs() > 0).all(2).tolist() == [[p == 0] * len(deep.layers) for p in range(3)]


def test_gradient_reaches_every_layer_and_column_of_every_site_and_no_weight(loaded: Backbone) -> None:
    check_gradient(loaded)


def test_padding_and_batch_mates_change_nothing(loaded: Backbone) -> None:
    check_padding_and_mates(loaded)


def test_prompts_mixed_in_a_batch_are_each_as_alone(loaded: Backbone) -> None:
    check_prompts_alone(loaded)


def test_hidden_columns_are_never_looked_at(loaded: Backbone) -> None:
    check_hidden_columns(loaded)


def test_a_prompt_may_have_some_layers(loaded: Backbone) -> None:
    check_layers(loaded)


def test_rows_without_a_prompt_take_the_models_own_path(loaded: Backbone) -> None:
    check_bare(loaded)


def test_layers_are_numbered_as_they_run(loaded: Backbone) -> None:
    check_order(loaded)


def test_gates(loaded: Backbone) -> None:
    check_gates(loaded)


@every([*WINDOWED, "modernbert", "llama", "t5", "deberta-v2"])
def test_every_query_sees_the_prompt_and_of_the_text_what_it_saw_before(shared: Backbone) -> None:
    """Windows and the future hide text only."""
    rows = sorted(deep_rows(shared), key=lambda r: r.prompt)  # two of each
    batch, hides = on_side(shared, rows, shared.family.padding_side), False
    prefix = prefix_attention(deep_table(shared), batch)
    assert prefix is not None

    def watches(call: AttentionCall) -> Tensor:
        nonlocal hides
        masks: list[Tensor] = []

        def attend(key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
            assert mask is not None
            masks.append(mask)
            return call.attend(key, value, mask)

        output = prefix(replace(call, attend=attend))
        (mask,) = masks
        columns, hidden = mask[..., :P], torch.finfo(mask.dtype).min
        assert bool((columns[:2] == hidden).all()), "no prompt"
        assert bool((columns[2:4] == 0).all())
        assert bool((columns[4:, ..., :-1] == 0).all())
        assert bool((columns[4:, ..., -1] == hidden).all()), "the shorter prompt"
        own = torch.zeros(()) if call.mask is None else call.mask
        assert torch.equal(mask[..., P:], own.expand_as(mask[..., P:]))
        hides |= bool((mask[..., P:] < -1e9).any())
        return output

    with torch.no_grad():
        shared.family.hidden(shared.model, batch, None, None, watches)
    assert hides, "something of the text must be hidden"


@every(["bert", "albert", "deberta-v2", "t5"])
def test_a_copy_that_is_trained_takes_prompts_as_its_original_does(shared: Backbone) -> None:
    rows, table, copy = deep_rows(shared), deep_table(shared), shared.trainable(All().open)
    torch.testing.assert_close(state(copy, rows, table), state(shared, rows, table), **CLOSE)


# The model's own numbers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loaded", EVERY, ids="-".join, indirect=True)
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "dropout"])
def test_without_prompts_attention_is_the_model_s_own_bit_for_bit(loaded: Backbone, training: bool) -> None:
    """The same model, loaded by transformers alone."""
    kind = loaded.model.config._attn_implementation.removeprefix("trimtab_")
    loader = getattr(transformers, loaded.family.auto_class)
    stock = loader.from_pretrained(loaded.name, attn_implementation=kind, dtype=torch.float32)
    assert stock.config._attn_implementation == kind
    batch = on_side(loaded, bare_rows(loaded, 4), "right")
    inputs = {"input_ids": batch.ids, "attention_mask": batch.attention_mask}
    inputs |= {} if batch.decoder_ids is None else {"decoder_input_ids": batch.decoder_ids}
    logits = []
    for model in (stock, loaded.model):
        torch.manual_seed(1)
        with torch.no_grad():
            logits.append(model.train(training)(**inputs).logits)
        model.eval()
    assert torch.equal(*logits)


def test_reordered_attention_of_gpt2_stays_its_own(tmp_path: Path) -> None:
    model = transformers.GPT2LMHeadModel.from_pretrained(matrix.BUILDERS["gpt2"](tmp_path))
    model.config.reorder_and_upcast_attn = model.config.scale_attn_by_inverse_layer_idx = True
    model.save_pretrained(tmp_path)
    own = load_backbone(str(tmp_path), dtype="bfloat16", device="cpu", attention="eager")
    stock = transformers.GPT2LMHeadModel.from_pretrained(tmp_path, attn_implementation="eager", dtype=torch.bfloat16)
    ids = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12]])
    with torch.no_grad():
        assert torch.equal(own.model(ids).logits, stock(ids).logits)
    check_padding_and_mates(load_backbone(str(tmp_path), dtype="float32", device="cpu", attention="eager"))


# Other ways to the same --------------------------------------------------------------------------------------------


def cached(backbone: Backbone, table: PromptTable, prompt: int, site: str = "self") -> Any:
    """The prompt as past keys and values."""
    past = transformers.DynamicCache()
    for layer, both in enumerate(table.deep[site].keys_values[prompt]):
        key, value = both.transpose(1, 2)[:, None]
        past.update(key, value, layer)
    return past


def check_past(backbone: Backbone, shift: bool = False) -> None:
    """A prompt in attention is a prompt in the cache, with the positions told; the released code's route."""
    table = deep_table(backbone)
    table = replace(table, shifts=torch.full((3,), P) if shift else None)
    row = min((r for r in deep_rows(backbone) if r.prompt == 0), key=lambda r: len(r.encoded))
    ids = torch.tensor([row.encoded.ids])
    assert ids.shape[1] + P <= 16, "the row must fit the window"
    positions = torch.arange(ids.shape[1])[None] + (P if shift else 0)
    if not backbone.family.auto_class.endswith("CausalLM"):
        positions = backbone.family.positions(
            backbone.model, replace(on_side(backbone, [row], "right"), position_ids=positions)
        )
    with torch.no_grad():
        out = backbone.model.base_model(
            ids,
            attention_mask=torch.ones(1, P + ids.shape[1]),
            position_ids=positions,
            past_key_values=cached(backbone, table, 0),
        )
    torch.testing.assert_close(
        state(backbone, [row], table)[0], out.last_hidden_state[0, row.encoded.answer_at[0]], **CLOSE
    )


PAST = [*CAUSAL, "bert", "roberta", "xlm-roberta", "camembert", "electra"]
"""Models that take a cache from outside."""


@pytest.mark.parametrize("shift", [False, True], ids=["", "shifted"])
@every(PAST)
def test_a_prompt_does_what_past_keys_and_values_do(shared: Backbone, shift: bool) -> None:
    check_past(shared, shift)


def check_capture(backbone: Backbone) -> None:
    """In a causal model the keys and values of a text are the text, where what follows is counted on from it."""
    row = min((r for r in deep_rows(backbone) if r.prompt == 0), key=lambda r: len(r.encoded))
    text, rest = row.encoded.ids[:P], row.encoded.ids[P:]
    assert len(row.encoded) <= 16, "the row must fit the window"
    kept = backbone.keys_values(torch.tensor(text))
    assert {site: tuple(v.shape) for site, v in kept.items()} == {
        site: (s.layers, 2, P, s.heads, s.size) for site, s in backbone.sites.items()
    }
    deep = {
        site: DeepPrompt(v[None], tuple(range(len(v))), torch.ones(1, len(v), P, dtype=torch.bool))
        for site, v in kept.items()
    }
    table = PromptTable(torch.zeros(1, 0, backbone.embedding_size), deep, shifts=torch.tensor([P]))
    short = replace(row.encoded, ids=rest, answer_at=tuple(a - P for a in row.encoded.answer_at), eligible=(), text=())
    torch.testing.assert_close(
        state(backbone, [replace(row, encoded=short)], table), state(backbone, [replace(row, prompt=-1)], None), **CLOSE
    )


@every(CAUSAL)
def test_the_keys_and_values_of_a_text_are_the_text(shared: Backbone) -> None:
    check_capture(shared)


@every(["t5", "mbart"])
def test_the_keys_and_values_of_an_encoder_decoder_are_those_of_the_text_in_all_sites(shared: Backbone) -> None:
    """A decoder that reads nothing of a text but its keys and values sees what it would see with the text before."""
    ids = torch.tensor([7, 8, 9, 10])
    kept = shared.keys_values(ids)
    with torch.no_grad():
        out = shared.model(ids[None], decoder_input_ids=ids[None], use_cache=True)
    for layer, past in enumerate(out.past_key_values.cross_attention_cache.layers):
        torch.testing.assert_close(kept["cross"][layer, 0].transpose(0, 1)[None], past.keys, **CLOSE)
        torch.testing.assert_close(kept["cross"][layer, 1].transpose(0, 1)[None], past.values, **CLOSE)
    for layer, past in enumerate(out.past_key_values.self_attention_cache.layers):
        torch.testing.assert_close(kept["decoder"][layer, 0].transpose(0, 1)[None], past.keys, **CLOSE)
    assert not torch.allclose(kept["encoder"], kept["decoder"])


@every(["t5", "bart"])
def test_an_encoder_decoder_without_decoder_ids_gives_the_encoder_s_states(shared: Backbone) -> None:
    batch = replace(on_side(shared, deep_rows(shared), "right"), decoder_ids=None)
    with torch.no_grad():
        found = shared.family.hidden(shared.model, batch, None)
        expected = shared.model.get_encoder()(batch.ids, attention_mask=batch.attention_mask).last_hidden_state
        prompted = shared.family.hidden(shared.model, batch, None, None, prefix_attention(deep_table(shared), batch))
    assert torch.equal(found, expected)
    assert ((prompted - found).abs().amax((1, 2)) > 1e-3).tolist() == (batch.prompt_of >= 0).tolist()


# Writing -------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def own_words(backbone: Backbone, row: Row, table: PromptTable) -> tuple[int, ...]:
    """The most likely tokens, one whole forward pass over the row alone for each, without a cache."""
    opened, written = row.encoded.opened(), []
    for _ in range(NEW):
        grown = {"decoder": (*opened.decoder, *written)} if opened.decoder else {"ids": (*opened.ids, *written)}
        at = len(grown.get("decoder", grown.get("ids", ()))) - 1
        one = replace(row, encoded=replace(opened, **grown, answer_at=(at,)))  # type: ignore[arg-type]
        family, model = backbone.family, backbone.model
        features = family.vocabulary_features(model, state(backbone, [one], table)[:, None])
        weight, bias = family.vocabulary_rows(model, slice(None))
        written.append(int((features[0, 0] @ weight.T + bias).argmax()))
    return tuple(written)


def check_words(backbone: Backbone, monkeypatch: pytest.MonkeyPatch | None = None) -> None:
    """Padded rows of several prompts and none, written with a cache, are what whole passes over each row write; without
    a cache too."""
    rows = [replace(r, prompt=(-1, 0, 1)[i % 3]) for i, r in enumerate(rows_to_write(backbone)[:5])]
    table = deep_table(backbone, inputs=True, scale=2.0)
    expected = [own_words(backbone, row, table) for row in rows]
    assert len(set(expected)) > 3, "the rows must differ"
    assert write(backbone, rows, table) == expected
    assert write(backbone, [replace(r, prompt=-1) for r in rows], table) != expected, "the prompt must matter"
    if monkeypatch is not None:
        uncached(monkeypatch)
        assert write(backbone, rows, table) == expected


def uncached(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (causal, encoder_decoder):
        plain = module.greedy

        def slow(*args: Any, plain: Any = plain, **special: Any) -> Any:
            config = plain(*args, **special)
            config.use_cache = False
            return config

        monkeypatch.setattr(module, "greedy", slow)


@every(WRITERS)
def test_words_are_those_of_whole_passes_with_and_without_a_cache(
    name: str, family_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = writer(family_folder(name))
    hooks = sum(len(m._forward_pre_hooks) for m in backbone.model.modules())
    check_words(backbone, monkeypatch)
    assert sum(len(m._forward_pre_hooks) for m in backbone.model.modules()) == hooks


@every(["gemma", "t5"])
def test_a_static_cache_whose_keys_are_yet_to_be_written_hides_them(
    name: str, family_folder: Callable[[str], Path]
) -> None:
    """Rows without pads have no mask of their own, and a cache of a fixed size has more keys than queries."""
    backbone = writer(family_folder(name))
    row, table = replace(rows_to_write(backbone)[0], prompt=0), deep_table(backbone, inputs=True, scale=2.0)
    expected = own_words(backbone, row, table)
    config = backbone.model.generation_config
    config.cache_implementation, config.disable_compile = "static", True
    assert write(backbone, [row], table) == [expected]


@every(["gpt2", "bart"])
def test_a_thread_that_writes_prompts_no_other(shared: Backbone) -> None:
    rows = deep_rows(shared)
    prefix = prefix_attention(deep_table(shared), on_side(shared, rows, "right"))
    assert prefix is not None
    modules = [shared.model.get_decoder()]
    bare = [replace(row, prompt=-1) for row in rows]
    here, there = state(shared, bare, None), []
    with attention.prompted(modules, Passage(prefix)):
        thread = threading.Thread(target=lambda: there.append(state(shared, bare, None)))
        thread.start()
        thread.join()
        prompted = state(shared, bare, None)
    assert torch.equal(there[0], here)
    assert not torch.allclose(prompted, here)
    assert torch.equal(state(shared, bare, None), here)


@every(["llama", "t5"])
def test_rows_that_stand_several_times_in_a_batch_keep_their_prompt(shared: Backbone) -> None:
    """As beams do: each row is repeated, and its prompt with it."""
    rows, table = deep_rows(shared), deep_table(shared)
    batch = on_side(shared, rows, "right")
    beams = on_side(shared, [row for row in rows for _ in range(3)], "right")
    hidden = shared.family.hidden
    with torch.no_grad():
        one = hidden(shared.model, batch, None, None, prefix_attention(table, batch))
        three = hidden(shared.model, beams, None, None, prefix_attention(table, batch))
        gates = gated(shared, table, [True, False, True], 1.0)
        gated_one = hidden(shared.model, batch, None, None, prefix_attention(gates, batch))
        gated_three = hidden(shared.model, beams, None, None, prefix_attention(gates, batch))
    torch.testing.assert_close(three[::3], one, **CLOSE)
    torch.testing.assert_close(three[2::3], one, **CLOSE)
    torch.testing.assert_close(gated_three[1::3], gated_one, **CLOSE)


# Numbers of other kinds ----------------------------------------------------------------------------------------------


@every(DIFFERENT)
def test_a_float32_prompt_enters_a_bfloat16_backbone(name: str, family_folder: Callable[[str], Path]) -> None:
    folder = str(family_folder(name))
    exact, rough = (load_backbone(folder, dtype=d, device="cpu") for d in ("float32", "bfloat16"))
    table, rows = deep_table(exact), deep_rows(exact)
    leaf = table.detached()
    model = PromptedModel(rough, HiddenReadout())
    with frozen(rough):
        found = model.scores(on_side(rough, rows, rough.family.padding_side), leaf)
        found.square().sum().backward()
    expected = state(exact, rows, table)
    assert float((found.detach() - expected).norm() / expected.norm()) < 0.1
    for deep in leaf.deep.values():
        assert deep.keys_values.grad is not None
        assert deep.keys_values.grad.dtype == torch.float32
        assert bool((deep.keys_values.grad[0].abs().sum((3, 4)) > 0).all())


def gradients(backbone: Backbone, table: PromptTable) -> list[Tensor]:
    leaf = table.detached()
    batch = on_side(backbone, mixed_rows(backbone), backbone.family.padding_side)
    PromptedModel(backbone, HiddenReadout()).scores(batch, leaf).square().sum().backward()
    return [v.grad for v in leaf.tensors.values() if v.grad is not None]


def check_recomputing(backbone: Backbone) -> None:
    """Layers that are computed anew give the same gradients and are really computed anew; nothing is left behind."""
    table = gated(backbone, deep_table(backbone, inputs=True), [True, False, True], 0.5)
    expected = gradients(backbone, table)
    calls: list[str] = []
    inside = [m for layer in recomputed_layers(backbone.model) for m in layer.modules() if not any(m.children())]
    handles = [module.register_forward_hook(lambda *_: calls.append("")) for module in inside]
    gradients(backbone, table)
    once, calls[:] = len(calls), []
    with recomputing(backbone.model), frozen(backbone):
        found = gradients(backbone, table)
    assert once < len(calls) <= 2 * once  # a layer is left where nothing more of it is needed
    for handle in handles:
        handle.remove()
    assert len(expected) == len(table.tensors)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
    assert not any("forward" in vars(module) for module in backbone.model.modules())


@every([n for n in MODELS if n != "albert"])
def test_layers_that_are_computed_anew_give_the_same_gradients(shared: Backbone) -> None:
    check_recomputing(shared)


@every(["bert", "t5"])
def test_layers_that_are_computed_anew_drop_out_the_same(fresh: Backbone) -> None:
    table, found = deep_table(fresh, inputs=True), []
    fresh.model.train()
    for context in (nullcontext(), recomputing(fresh.model)):
        torch.manual_seed(2)
        with context:
            found.append(gradients(fresh, table))
    fresh.model.eval()
    for one, other, without in zip(*found, gradients(fresh, table), strict=True):
        assert torch.equal(one, other)
        assert not torch.allclose(one, without)


@every(["albert"])
def test_albert_s_layers_cannot_be_computed_anew(shared: Backbone) -> None:
    with (
        pytest.raises(BackboneError, match=r"layers of AlbertForMaskedLM cannot be computed anew"),
        recomputing(shared.model),
    ):
        pass


# Refusals ------------------------------------------------------------------------------------------------------------


@every(["bert", "deberta-v2", "llama", "t5"])
def test_a_model_without_the_interface_is_refused(fresh: Backbone) -> None:
    table = deep_table(fresh)
    del fresh.model.takes_passages
    stranger = replace(fresh)
    with pytest.raises(BackboneError, match="does not use the attention interface"):
        _ = stranger.sites
    with pytest.raises(BackboneError, match="does not use the attention interface"):
        state(stranger, deep_rows(fresh), table)
    state(stranger, deep_rows(fresh), table_of(fresh))


def test_a_model_whose_code_has_no_interface_is_left_as_it_is(
    family_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = transformers.BertForMaskedLM.from_pretrained(family_folder("bert"))
    before = model.config._attn_implementation
    monkeypatch.setattr(type(model), "_can_set_attn_implementation", classmethod(lambda cls: False))
    families.build({"kind": "bert"}).adopt(model, "sdpa")
    assert model.config._attn_implementation == before
    assert not hasattr(model, "takes_passages")


@pytest.mark.parametrize("name", ["t5", "mbart", "deberta-v2"], indirect=True)
def test_a_shift_is_refused_where_it_would_do_nothing(shared: Backbone, name: str) -> None:
    table = replace(deep_table(shared), shifts=torch.full((3,), P))
    with pytest.raises(BackboneError, match="count positions by themselves"):
        state(shared, deep_rows(shared), table)


@every([n for n in DIFFERENT if families.get(n.partition(":")[0]).takes_positions])
def test_a_shift_moves_the_text_of_prompted_rows_only(shared: Backbone) -> None:
    rows, table = deep_rows(shared), deep_table(shared)
    still, moved = state(shared, rows, table), state(shared, rows, replace(table, shifts=torch.tensor([P, 0, P])))
    same = torch.isclose(still, moved, **CLOSE).all(1)
    assert same.tolist() == [row.prompt != 0 for row in rows]


@every(["gpt2"])
def test_positions_behind_a_prompt_count_for_what_is_written(shared: Backbone) -> None:
    row = next(r for r in deep_rows(shared) if r.prompt == 0)
    table = replace(deep_table(shared), shifts=torch.full((3,), P))
    model = PromptedModel(shared, HiddenReadout())
    room = shared.max_positions - len(row.encoded.opened())
    assert model.generate_rows([row], replace(table, shifts=None), 1000, room)
    assert model.generate_rows([row], table, 1000, room - P)
    with pytest.raises(BackboneError, match="need 65 positions"):
        model.generate_rows([row], table, 1000, room - P + 1)


# Saboteurs -----------------------------------------------------------------------------------------------------------


def shows_everything(self: Prefix, rows: int) -> Prefix:
    """Every row sees all columns."""
    return replace(REPEATED(self, rows), used=torch.ones_like(self.used))


def swaps(self: Prefix, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Values for keys."""
    return GATHERED(self, dtype)[::-1]


def cuts(self: Prefix, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """No gradient."""
    key, value = GATHERED(self, dtype)
    return key.detach(), value.detach()


def first_prompt(self: Prefix, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The first prompt for all."""
    return GATHERED(replace(self, prompt_of=self.prompt_of.clamp(max=0)), dtype)


def leaves_holes(self: Prefix, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Relies on the mask alone."""
    return GATHERED(replace(self, used=torch.ones_like(self.used)), dtype)


def always_a_softmax(table: PromptTable, batch: Batch) -> AttentionPrompts | None:
    """Goes the long way where nothing is to be done."""
    own = prefix_attention(table, batch)
    return own or (lambda call: call.attend(call.key, call.value, call.mask) * (1 + 2e-7))


def before_and_beside(self: Any, call: AttentionCall) -> Tensor:
    """Gated rows see their prompt twice."""
    layers = {k: replace(v, gated=torch.zeros_like(v.gated), any_shown=True) for k, v in self._layers.items()}
    return CALLED(self, call) + 0.1 * CALLED(injection.PrefixAttention(layers), call)


REPEATED, GATHERED, CALLED = Prefix.repeated, Prefix.gathered, injection.PrefixAttention.__call__


@pytest.mark.parametrize(
    ("owner", "method", "saboteur", "check"),
    [
        (Prefix, "repeated", shows_everything, check_prompts_alone),
        (Prefix, "gathered", swaps, check_past),
        (Prefix, "gathered", swaps, check_capture),
        (Prefix, "gathered", cuts, check_gradient),
        (Prefix, "gathered", first_prompt, check_prompts_alone),
        (Prefix, "gathered", leaves_holes, check_hidden_columns),
        (injection.PrefixAttention, "__call__", before_and_beside, check_gates),
    ],
)
@every(["llama"])
def test_sabotaged_injection_is_caught(
    shared: Backbone,
    owner: type,
    method: str,
    saboteur: Callable[..., Any],
    check: Callable[[Backbone], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check(shared)
    monkeypatch.setattr(owner, method, saboteur)
    with pytest.raises(BROKEN):
        check(shared)


@every(["bert"])
def test_a_model_whose_bare_rows_go_the_long_way_is_caught(shared: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimtab.model.prefix_attention", always_a_softmax)
    with pytest.raises(AssertionError):
        check_bare(shared)


@pytest.mark.parametrize("check", [check_past, check_order])
@every(["gpt2", "llama"])
def test_layers_in_the_wrong_order_are_caught(fresh: Backbone, check: Callable[[Backbone], None]) -> None:
    for module in fresh.model.modules():
        if hasattr(module, "trimtab_place"):
            module.trimtab_place = Place("self", 1 - module.trimtab_place.layer)
    with pytest.raises(AssertionError):
        check(fresh)


class CountsOn(Family):
    """ALBERT that goes on counting where the pass before it ended."""

    def passage(self, model: Any, prompts: AttentionPrompts | None) -> Passage | None:
        own = super().passage(model, prompts)
        if isinstance(own, CountedPassage):
            own._calls = vars(self).setdefault("seen", []).count(1)
            self.seen.extend((1, 1))  # type: ignore[attr-defined]
        return own


class CountsNothing(Family):
    """ALBERT whose layers are all the first."""

    def passage(self, model: Any, prompts: AttentionPrompts | None) -> Passage | None:
        own = super().passage(model, prompts)
        return own if own is None else Passage(own.prompts)


@pytest.mark.parametrize(("saboteur", "check"), [(CountsOn, check_prompts_alone), (CountsNothing, check_gradient)])
@every(["albert"])
def test_albert_that_counts_wrongly_is_caught(
    fresh: Backbone, saboteur: type[Family], check: Callable[[Backbone], None]
) -> None:
    check(fresh)
    with pytest.raises((*BROKEN, KeyError)):
        check(sabotaged(fresh, saboteur))


class ForgetsAttention(Family):
    """Writes without what enters attention."""

    def generate(self, model: Any, batch: Batch, *rest: Any) -> Tensor:
        return super().generate(model, batch, *rest[:-1])


@every(["gpt2", "t5"])
def test_a_writer_that_forgets_its_prompt_is_caught(name: str, family_folder: Callable[[str], Path]) -> None:
    with pytest.raises(AssertionError):
        check_words(sabotaged(writer(family_folder(name)), ForgetsAttention))


@every(["gpt2", "t5"])
def test_a_prompt_that_only_the_first_step_of_writing_sees_is_caught(
    name: str, family_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Once(Passage):
        def place(self, module: Any) -> Place:
            seen = vars(self).setdefault("seen", set())
            place = super().place(module)
            if place in seen:
                return Place("nowhere", 0)
            seen.add(place)
            return place

    backbone = writer(family_folder(name))
    once = type("Once", (Family,), {"passage": lambda self, m, a: None if a is None else Once(a)})
    plain = PromptedModel.scores
    own = backbone.family

    def scores(self: PromptedModel, *rest: Any) -> Tensor:
        return plain(replace(self, backbone=replace(self.backbone, family=own)), *rest)

    monkeypatch.setattr(PromptedModel, "scores", scores)
    with pytest.raises(AssertionError):
        check_words(sabotaged(backbone, once))


@every(["bert"])
def test_recomputing_that_does_nothing_is_caught(shared: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimtab.backbones.checkpointing.checkpoint", lambda run, *a, use_reentrant, **k: run(*a, **k))
    with pytest.raises(AssertionError):
        check_recomputing(shared)


def no_mask(*arguments: Any) -> None:
    """Nothing is hidden."""


@pytest.mark.parametrize("check", [check_padding_and_mates, check_capture])
@every(["llama"])
def test_attention_that_forgets_the_model_s_mask_is_caught(
    shared: Backbone, check: Callable[[Backbone], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "added", no_mask)
    with pytest.raises(AssertionError):
        check(shared)
