"""Attention over a prompt and a text, derived anew with einsum from the weights of one layer.

    p = softmax([q PK^T; q K^T] s + [0; bias])        out = p [PV; V]
    gated:  out = softmax(q K^T s + bias) V + tanh(g) softmax(q PK^T s) PV

s is 1/sqrt(D) in BERT (Devlin et al. 2019), 1 in T5 (Raffel et al. 2020), whose bias is that of relative positions, and
1/sqrt(3 D) in DeBERTa (He et al. 2021, equation 4), whose bias is the content-to-position and position-to-content terms
under the same root. Columns of a prompt have no bias. Shares no code with the package but the call itself.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.contract.tiny_families import BUILDERS
from tests.contract.toy_runs import batch_read_by
from trimtab.backbones import Backbone, load_backbone
from trimtab.injection import prefix_attention
from trimtab.prompt_table import DeepPrompt, PromptTable
from trimtab.types import Batch

LAYER, HEADS, SIZE, COLUMNS, LENGTH = 1, 2, 16, 3, 6


def batch() -> Batch:
    """Three rows of six tokens, the last two of the second row padding; prompts 0, 1 and none."""
    ids = torch.randint(5, 40, (3, LENGTH), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    plain = batch_read_by([0, 0, 0])
    return Batch(**vars(plain) | {
        "ids": ids, "attention_mask": mask, "position_ids": torch.arange(LENGTH).expand(3, -1), "eligible": mask > 0,
        "prompt_of": torch.tensor([0, 1, -1]),
    })  # fmt: skip


def prompts(site: str, gate: float | None) -> PromptTable:
    """Two prompts of one layer; the second is shorter, and the first is gated where there is a gate."""
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(2, 1, 2, COLUMNS, HEADS, SIZE, generator=generator)
    visible = torch.ones(2, 1, COLUMNS, dtype=torch.bool)
    visible[1, 0, 2] = False
    gates = None if gate is None else torch.tensor([[[gate, -2 * gate]], [[9.0, 9.0]]])
    own = None if gate is None else torch.tensor([True, False])
    return PromptTable(torch.zeros(2, 0, 32), {site: DeepPrompt(values, (LAYER,), visible, gates, own)})


def expected(
    hidden: Tensor, projections: list[nn.Linear], bias: Tensor, scale: float, table: PromptTable, mask: Tensor
) -> Tensor:
    """Row by row, with a bias for each or one for all: what enters the last projection, [B,T,Q*D]."""
    (deep,) = table.deep.values()
    rows = []
    for b, prompt in enumerate([0, 1, -1]):
        real = mask[b].bool()
        q, k, v = (p(hidden[b]).view(LENGTH, HEADS, SIZE) for p in projections)
        k, v, own = k[real], v[real], bias[b % len(bias)][:, :, real]
        scores = torch.einsum("tqd,sqd->qts", q, k) * scale + own
        columns = 0 if prompt < 0 else COLUMNS - prompt
        prefix_k, prefix_v = deep.keys_values[prompt, 0, :, :columns]
        beside = torch.einsum("tqd,pqd->qtp", q, prefix_k) * scale
        if deep.gates is not None and prompt == 0:
            gate = torch.tanh(deep.gates[0, 0])[None, :, None]
            text = torch.einsum("qts,sqd->tqd", scores.softmax(-1), v)
            rows.append(text + gate * torch.einsum("qtp,pqd->tqd", beside.softmax(-1), prefix_v))
        else:
            weights = torch.cat([beside, scores], -1).softmax(-1)
            rows.append(torch.einsum("qts,sqd->tqd", weights, torch.cat([prefix_v, v])))
    return torch.stack(rows).flatten(2)


def entered(module: Any) -> tuple[list[Any], Any]:
    """What goes into a module."""
    seen: list[Any] = []
    return seen, module.register_forward_pre_hook(
        lambda m, positional, named: seen.append((positional, named)), with_kwargs=True
    )


def bert(model: Any) -> tuple[Any, Any, list[nn.Linear], Callable[[Tensor], Tensor], float, str]:
    attention = model.bert.encoder.layer[LAYER].attention
    own = attention.self
    parts = [own.query, own.key, own.value]
    return own, attention.output.dense, parts, lambda hidden: torch.zeros(1, HEADS, LENGTH, LENGTH), SIZE**-0.5, "self"


def t5(model: Any) -> tuple[Any, Any, list[nn.Linear], Callable[[Tensor], Tensor], float, str]:
    blocks = model.encoder.block
    own = blocks[LAYER].layer[0].SelfAttention

    def bias(hidden: Tensor) -> Tensor:
        """Half of the buckets are for what follows; distances below a quarter of them have one each."""
        table = blocks[0].layer[0].SelfAttention.relative_attention_bias.weight
        half = len(table) // 2
        assert half // 2 >= LENGTH
        bucket = torch.tensor([[abs(s - t) + half * (s > t) for s in range(LENGTH)] for t in range(LENGTH)])
        return table[bucket].permute(2, 0, 1)[None]

    return own, own.o, [own.q, own.k, own.v], bias, 1.0, "encoder"


def deberta(model: Any) -> tuple[Any, Any, list[nn.Linear], Callable[[Tensor], Tensor], float, str]:
    encoder = model.deberta.encoder
    attention = encoder.layer[LAYER].attention
    own = attention.self
    parts = [own.query_proj, own.key_proj, own.value_proj]

    def bias(hidden: Tensor) -> Tensor:
        """Distances up to half of the buckets have one each; the projections are those of the content."""
        span = model.config.position_buckets
        relative = encoder.LayerNorm(encoder.rel_embeddings.weight)
        pos_q, pos_k = (p(relative).view(-1, HEADS, SIZE) for p in parts[:2])
        q, k = (p(hidden).view(len(hidden), LENGTH, HEADS, SIZE) for p in parts[:2])
        both = torch.zeros(len(hidden), HEADS, LENGTH, LENGTH)
        for t in range(LENGTH):
            for s in range(LENGTH):
                at = span + bucket(t - s, span)
                c2p = torch.einsum("bqd,qd->bq", q[:, t], pos_k[at])
                p2c = torch.einsum("bqd,qd->bq", k[:, s], pos_q[at])
                both[:, :, t, s] = (c2p + p2c) / (3 * SIZE) ** 0.5
        return both

    def bucket(distance: int, span: int) -> int:
        mid = span // 2
        if abs(distance) <= mid:
            return distance
        far = (
            torch.tensor(abs(distance) / mid).log()
            / torch.tensor((model.config.max_position_embeddings - 1) / mid).log()
        )
        return int((far * (mid - 1)).ceil() + mid) * (1 if distance > 0 else -1)

    return encoder.layer[LAYER], attention.output.dense, parts, bias, (3 * SIZE) ** -0.5, "self"


@pytest.fixture(params=[("bert", bert), ("t5", t5), ("deberta-v2", deberta)], ids=["bert", "t5", "deberta-v2"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Backbone, Any]:
    name, parts = request.param
    return load_backbone(str(BUILDERS[name](tmp_path)), dtype="float32", device="cpu", attention="eager"), parts


@pytest.mark.parametrize("gate", [None, 0.0, 0.7], ids=["", "zero", "gated"])
@torch.no_grad()
def test_one_layer_of_attention_is_the_papers(case: tuple[Backbone, Any], gate: float | None) -> None:
    backbone, parts = case
    first, last, projections, bias, scale, site = parts(backbone.model)
    table, rows = prompts(site, gate), batch()
    (inputs, one), (outputs, two) = entered(first), entered(last)
    backbone.family.hidden(backbone.model, rows, None, None, prefix_attention(table, rows))
    one.remove()
    two.remove()
    (((hidden, *_), _),), (((found,), _),) = inputs, outputs
    wanted = expected(hidden, projections, bias(hidden), scale, table, rows.attention_mask)
    real = rows.attention_mask.bool()
    torch.testing.assert_close(found[real], wanted[real], rtol=1e-5, atol=1e-5)
