"""Candidates of the search against HotFlip's first-order rule by loops, and the choice among them by whole losses."""

from __future__ import annotations

import numpy as np
import torch

from tests.contract.toy_runs import LENGTH, build, context, model_of, toy_run
from trimtab.backbones import Backbone
from trimtab.prompt_table import PromptTable
from trimtab.prompts.discrete_search import DiscreteSearch
from trimtab.training.searching import best_of, spelled


def test_candidates_are_those_that_promise_most() -> None:
    encoder = build({"kind": "discrete_search", "candidates": 6})
    assert isinstance(encoder, DiscreteSearch)
    its = context()
    words = [i for i in its.words if i not in its.label_ids]
    rows = encoder.rows.detach()
    gradient = torch.randn(rows.shape, generator=torch.Generator().manual_seed(3))
    tried = encoder.alternatives(rows, gradient, np.random.default_rng(5))
    (at,) = {int(p) for k in tried for p in (k != rows).any(1).nonzero()}
    promise = {}
    for word in words:
        vector = its.embeddings[word]
        if not torch.equal(vector, rows[at]):
            promise[word] = -sum(float(g * (v - old)) for g, v, old in zip(gradient[at], vector, rows[at], strict=True))
    best = sorted(promise, key=lambda w: -promise[w])[:6]
    assert len(tried) == 6
    for candidate, word in zip(tried, best, strict=True):
        assert torch.equal(candidate[at], its.embeddings[word])
    places = {int(np.random.default_rng(s).integers(LENGTH)) for s in range(50)}
    assert places == set(range(LENGTH)), "every position has its turn"


def test_search_begins_at_the_words_nearest_to_the_initializer() -> None:
    uniform = {"kind": "uniform"}
    encoder = build({"kind": "discrete_search", "initializer": uniform})
    raw = build({"kind": "prompt_tuning", "initializer": uniform}).rows.detach()  # type: ignore[union-attr]
    its = context()
    words = [i for i in its.words if i not in its.label_ids]
    for row, start in zip(encoder.rows.detach(), raw, strict=True):  # type: ignore[arg-type]
        distance = {w: float((its.embeddings[w] - start).square().sum()) for w in words}
        assert torch.equal(row, its.embeddings[min(distance, key=lambda w: distance[w])])


def test_the_best_is_found_by_the_mean_loss_of_all_rows(backbone: Backbone, tmp_path: object) -> None:
    run = toy_run(tmp_path, backbone, n=8)  # type: ignore[arg-type]
    model, rows = model_of(run), run.rows["train"]
    ids = torch.arange(20, 20 + LENGTH)
    present = backbone.embedding_rows.detach()[ids]
    others = torch.stack([backbone.embedding_rows.detach()[ids + k] for k in (1, 5, 9)])
    table = PromptTable(torch.stack([torch.zeros_like(present), present]))

    def losses(its: object, own: PromptTable) -> torch.Tensor:
        scores = model.score_rows(its, own, 8192)  # type: ignore[arg-type]
        return model.readout.loss(scores, torch.tensor([r.label for r in its]))  # type: ignore[attr-defined]

    means = []
    for prompt in (present, *others):
        own = PromptTable(prompt[None])
        each = [float(losses([row], own)) for row in rows]
        means.append(sum(each) / len(each))
    best, loss = best_of(table, 1, others, rows, losses)
    assert best == min(range(4), key=lambda k: means[k]) - 1
    assert abs(loss - min(means)) < 1e-5
    winner = others[best] if best >= 0 else present
    kept, _ = best_of(PromptTable(torch.stack([winner, winner])), 1, winner[None].repeat(2, 1, 1), rows, losses)
    assert kept == -1, "a tie is won by what is there"
    assert spelled(backbone, present) == backbone.encoder.tokens(ids.tolist())
