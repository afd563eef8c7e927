"""Dev scores of members: row by row those of their own task, whoever is judged beside them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.contract.test_multitask import several
from trimtab.backbones import Backbone
from trimtab.model import PromptedModel
from trimtab.registry import readouts
from trimtab.training.encoder_pack import EncoderPack
from trimtab.training.judging import Judge, dev_metrics, merit
from trimtab.training.loop import Member
from trimtab.training.parallel import ALONE
from trimtab.training.preparing import build_head, encoder_of


def test_members_are_judged_task_by_task(tmp_path: Path, backbone: Backbone) -> None:
    pack = [several(tmp_path, backbone, f"seed={seed}") for seed in (1, 2)]
    plans = [part.rendering.plan(backbone.encoder) for part in pack[0].each]
    model = PromptedModel(backbone, readouts.build(pack[0].config.readout, backbone, plans))
    table = EncoderPack([encoder_of(p) for p in pack], [1, 1], [build_head(p) for p in pack]).table(training=False)
    members = {r: Member(p.config.seeds, p.config.training, p.rows["train"], p.rows["dev"], grader=p.grader)
               for r, p in enumerate(pack)}  # fmt: skip
    judge = Judge(model, ALONE, 8192)
    found = judge.metrics(members, table)
    assert found[0] != found[1]
    for r, p in enumerate(pack):
        alone = judge.metrics({r: members[r]}, table)[r]
        assert alone == pytest.approx(found[r], rel=1e-5)
        for k, (name, part) in enumerate(p.task.parts.items()):
            own, own_table = model.parts(table)[k]
            rows = [replace(row, prompt=r) for row in p.parts[k].rows["dev"]]
            assert len(rows) == len(part.splits["dev"])
            expected = dev_metrics(own, own.score_rows(rows, own_table, 8192), rows, None, p.grader.parts[name])
            for metric, value in expected.items():
                assert found[r][f"{name}.{metric}"] == pytest.approx(value, rel=1e-5), (name, metric)


def test_ties_go_to_the_lower_loss() -> None:
    assert merit({"loss": 1.0, "score": 0.5}, "score") > merit({"loss": 2.0, "score": 0.5}, "score")
    assert merit({"loss": 2.0, "score": 0.6}, "score") > merit({"loss": 1.0, "score": 0.5}, "score")
    assert merit({"loss": 1.0, "score": 0.0}, "loss") > merit({"loss": 2.0, "score": 0.5}, "loss")
