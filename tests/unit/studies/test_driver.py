"""The driver: packs, kills, failures, memory; whatever happens, the study ends as an undisturbed one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract.fake_services import pretend
from tests.contract.toy_studies import Recorder, carried_out, outcome, toy_recipe, toy_study
from tests.unit.refusals import refused
from tests.unit.training.test_tracking import history
from trimtab.errors import BundleError, BusyError, ConfigError, DataError, StorageError, TemplateError
from trimtab.files import hold
from trimtab.studies import work
from trimtab.studies.definition import PackLimits, check_study
from trimtab.studies.driver import Course, Driver, grouped
from trimtab.studies.folder import StudyFolder
from trimtab.studies.plan import grid_runs
from trimtab.studies.work import Fit, Job
from trimtab.trackers import check_trackers
from trimtab.training.packs import Rehearsal
from trimtab.training.preparing import Prepared


class Killed(BaseException):
    """What no handler of errors may catch."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> dict[str, Any]:
    """The study of two prompts, two rates and two seeds, carried out in peace."""
    place = tmp_path_factory.mktemp("undisturbed")
    study, executor, events = toy_study(place, tiny_folder), Recorder(), list[Mapping[str, Any]]()
    folder = StudyFolder(place / "study")
    Driver(study, folder, executor, events=events.append).run()
    return {"place": place, "study": study, "executor": executor, "folder": folder, "events": events}


def test_every_run_of_the_plan_ends_and_is_entered_once(undisturbed: dict[str, Any]) -> None:
    folder = undisturbed["folder"]
    keys = [run.key for run in grid_runs(undisturbed["study"])]
    assert [run.key for run in folder.read()] == keys
    assert {run.status for run in folder.read()} == {"done"}
    lines = [json.loads(line) for line in (folder.path / "ledger.jsonl").read_text().splitlines()]
    assert sorted(line["key"] for line in lines) == sorted(keys)
    assert all(run.record["metrics"]["test"]["rows"] for run in folder.read())


def test_runs_of_one_pack_key_train_together(undisturbed: dict[str, Any]) -> None:
    study, jobs = undisturbed["study"], undisturbed["executor"].jobs
    assert [len(job.keys) for job in jobs] == [4, 4]
    assert [k for job in jobs for k in job.keys] == [run.key for run in grid_runs(study)]
    assert [p["keys"] for p in undisturbed["folder"].packs()] == [list(job.keys) for job in jobs]


def test_events_tell_of_plan_fits_packs_and_ends(undisturbed: dict[str, Any]) -> None:
    kinds = [e["event"] for e in undisturbed["events"]]
    assert kinds == ["plan", "fit", "fit", "pack", *["run"] * 8]
    plan = undisturbed["events"][0]
    assert (plan["runs"], plan["ended"], len(plan["todo"])) == (8, 0, 8)


def test_each_run_equals_the_same_run_alone(undisturbed: dict[str, Any], tmp_path: Path) -> None:
    alone = toy_study(undisturbed["place"], Path(undisturbed["study"].recipe["backbone"]["model"]), pack={"most": 1})
    executor = Recorder()
    folder = carried_out(alone, tmp_path / "alone", executor)
    assert [len(job.keys) for job in executor.jobs] == [1] * 8
    together = {run.key: run for run in undisturbed["folder"].read()}
    for run in folder.read():
        mine, its = run.record["metrics"]["dev"]["loss"], together[run.key].record["metrics"]["dev"]["loss"]
        assert mine == pytest.approx(its, rel=1e-4)


def test_a_finished_study_trains_nothing_again(undisturbed: dict[str, Any]) -> None:
    before = sorted((p, p.stat().st_mtime_ns) for p in undisturbed["folder"].path.rglob("*"))
    executor = Recorder()
    carried_out(undisturbed["study"], undisturbed["folder"].path, executor)
    assert executor.jobs == executor.fitted == []
    assert sorted((p, p.stat().st_mtime_ns) for p in undisturbed["folder"].path.rglob("*")) == before


@pytest.mark.parametrize("at", ["before the second pack", "in the second pack", "between two entries"])
def test_a_killed_study_ends_as_an_undisturbed_one(
    undisturbed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    study, jobs = undisturbed["study"], list[Job]()

    def before(job: Job) -> None:
        jobs.append(job)
        if len(jobs) == 2 and at == "before the second pack":
            raise Killed

    def dies_in_training(event: Mapping[str, Any]) -> None:
        if len(jobs) == 2 and at == "in the second pack" and event["event"] == "step" and event["step"] == 3:
            raise Killed

    with monkeypatch.context() as patch:
        if at == "between two entries":
            enter, entered = StudyFolder.enter, list[str]()

            def dies(self: StudyFolder, line: Mapping[str, Any]) -> None:
                if len(entered) == 2:
                    raise Killed
                entered.append(line["key"])
                enter(self, line)

            patch.setattr(StudyFolder, "enter", dies)
        with pytest.raises(Killed):
            carried_out(study, tmp_path / "study", Recorder(before, dies_in_training))
    executor = Recorder()
    folder = carried_out(study, tmp_path / "study", executor)
    assert outcome(folder) == outcome(undisturbed["folder"])
    packs = [tuple(p["keys"]) for p in folder.packs()]
    assert packs == [tuple(p["keys"]) for p in undisturbed["folder"].packs()], "the same runs train together"
    assert {job.keys for job in executor.jobs} <= set(packs)
    lines = (folder.path / "ledger.jsonl").read_text().splitlines()
    assert len(lines) == 8, "nothing twice"


def test_a_removed_run_folder_is_trained_again(undisturbed: dict[str, Any], tmp_path: Path) -> None:
    shutil.copytree(undisturbed["folder"].path, tmp_path / "study")
    folder = StudyFolder(tmp_path / "study")
    gone = folder.read()[5]
    assert gone.folder is not None
    shutil.rmtree(gone.folder)
    executor = Recorder()
    carried_out(undisturbed["study"], folder.path, executor)
    assert [job.keys for job in executor.jobs] == [tuple(folder.packs()[1]["keys"])]
    assert {run.status for run in folder.read()} == {"done"}


def test_a_run_folder_edited_by_hand_stops_the_study(undisturbed: dict[str, Any], tmp_path: Path) -> None:
    shutil.copytree(undisturbed["folder"].path, tmp_path / "study")
    edited = next((tmp_path / "study" / "runs").iterdir())
    (edited / "run.json").write_text("{}")
    with refused(BundleError, "not as it was when the run ended: run.json", where=str(edited), fix="remove the folder"):
        carried_out(undisturbed["study"], tmp_path / "study")


def test_more_seeds_extend_a_study_and_keep_its_runs(undisturbed: dict[str, Any], tmp_path: Path) -> None:
    shutil.copytree(undisturbed["folder"].path, tmp_path / "study")
    more = undisturbed["study"].model_copy(update={"seeds": 3})
    with refused(ConfigError, "lacks 4 of its 12", where=str(tmp_path / "study"), fix="--extend"):
        carried_out(more, tmp_path / "study")
    executor = Recorder()
    folder = carried_out(more, tmp_path / "study", executor, extend=True)
    assert sum(len(job.keys) for job in executor.jobs) == 4
    assert len(folder.read()) == 12
    assert outcome(folder).items() >= outcome(undisturbed["folder"]).items()


def test_data_that_changed_since_the_study_began_stops_it(tmp_path: Path, tiny_folder: Path) -> None:
    study = toy_study(tmp_path, tiny_folder, axes={}, seeds=1)
    carried_out(study, tmp_path / "study")
    file = Path(study.recipe["task"]["train"])
    file.write_text(file.read_text().replace("good", "great"))
    for options in ({}, {"extend": True}):
        with refused(DataError, f"since the study began: {file}", where=str(tmp_path / "study"), fix="--name"):
            carried_out(study.model_copy(update={"seeds": 2}), tmp_path / "study", **options)


def test_two_studies_cannot_share_a_folder(undisturbed: dict[str, Any]) -> None:
    place = undisturbed["folder"].path
    with (
        hold([place], "running this study", "--name"),
        refused(BusyError, "another process is running this study", where=str(place), fix="choose another --name"),
    ):
        carried_out(undisturbed["study"], place)


def test_a_failed_run_is_kept_counted_and_tried_again_when_asked(
    undisturbed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = undisturbed["study"]
    bad = grid_runs(study)[2]
    run_pack = work.run_pack

    def breaks(pack: Sequence[Prepared], *rest: Any, **options: Any) -> Any:
        if any(p.config.seeds == bad.config.seeds and p.config.prompt == bad.config.prompt
               and p.config.training.learning_rate == bad.config.training.learning_rate for p in pack):  # fmt: skip
            raise RuntimeError("a cosmic ray")
        return run_pack(pack, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(work, "run_pack", breaks)
        folder = carried_out(study, tmp_path / "study")
    found = {run.key: run for run in folder.read()}
    assert [key for key, run in found.items() if run.status == "failed"] == [bad.key]
    assert found[bad.key].error is not None
    assert found[bad.key].error["type"] == "RuntimeError"
    assert found[bad.key].error["message"] == "a cosmic ray"
    assert "breaks" in found[bad.key].error["traceback"]
    assert [run.status for run in found.values()].count("done") == 7, "the others of its pack are trained by halves"
    executor = Recorder()
    carried_out(study, tmp_path / "study", executor)
    assert executor.jobs == []
    Driver(study, folder, executor, Course(retry=True)).run()
    assert {run.status for run in folder.read()} == {"done"}
    assert bad.key in executor.jobs[0].keys


def test_folders_that_a_dying_worker_still_holds_are_waited_for(
    undisturbed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, run_pack = list[int](), work.run_pack

    def busy(pack: Sequence[Prepared], *rest: Any, **options: Any) -> Any:
        held.append(len(held))
        if len(held) % 3:
            raise BusyError("another process is training this run.", where="x")
        return run_pack(pack, *rest, **options)

    monkeypatch.setattr(work, "run_pack", busy)
    monkeypatch.setattr(work.time, "sleep", lambda seconds: None)
    folder = carried_out(undisturbed["study"], tmp_path / "study")
    assert outcome(folder) == outcome(undisturbed["folder"])
    monkeypatch.setattr(work, "PATIENCE", -1.0)
    with refused(BusyError, "another process", where="x"):
        carried_out(undisturbed["study"], tmp_path / "other")


def test_a_full_disk_stops_the_study_and_loses_nothing(
    undisturbed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, packs, run_pack = undisturbed["study"], list[int](), work.run_pack

    def fills_up(pack: Sequence[Prepared], *rest: Any, **options: Any) -> Any:
        packs.append(len(pack))
        if len(packs) == 2:
            raise StorageError("there are 3 MiB left on the disk, a run needs 16.", where="x")
        return run_pack(pack, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(work, "run_pack", fills_up)
        with refused(StorageError, "3 MiB left", where="x"):
            carried_out(study, tmp_path / "study")
    folder = StudyFolder(tmp_path / "study")
    assert [run.status for run in folder.read()] == ["done"] * 4 + ["missing"] * 4, "none of them has failed"
    assert outcome(carried_out(study, tmp_path / "study")) == outcome(undisturbed["folder"])


def test_a_pack_that_runs_out_of_memory_is_halved(
    undisturbed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_pack, sizes, events = work.run_pack, list[int](), list[Mapping[str, Any]]()

    def small(pack: Sequence[Prepared], *rest: Any, **options: Any) -> Any:
        sizes.append(len(pack))
        if len(pack) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return run_pack(pack, *rest, **options)

    monkeypatch.setattr(work, "run_pack", small)
    folder = carried_out(undisturbed["study"], tmp_path / "study", Recorder(events=events.append))
    assert sizes == [4, 2, 2] * 2
    assert {run.status for run in folder.read()} == {"done"}
    assert [e["runs"] for e in events if e["event"] == "halved"] == [4, 4]


@pytest.mark.parametrize("why", ["error", "limit"])
def test_the_size_of_packs_is_found_by_trying_and_kept(
    undisturbed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    tried: list[int] = []

    def rehearse(pack: Sequence[Prepared]) -> Rehearsal:
        tried.append(len(pack))
        if why == "error" and len(pack) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return Rehearsal(len(pack) << 20, 1.0)

    monkeypatch.setattr(work, "rehearse", rehearse)
    pack = {} if why == "error" else {"memory": "3 MiB"}
    study = undisturbed["study"].model_copy(
        update={"seeds": 3, "pack": undisturbed["study"].pack.model_copy(update=pack)}
    )
    executor = Recorder()
    folder = carried_out(study, tmp_path / "study", executor)
    assert tried == [6, 3, 2] * 2 if why == "error" else [6, 3] * 2
    expected = [2, 2, 2] * 2 if why == "error" else [3, 3] * 2
    assert [len(job.keys) for job in executor.jobs] == expected
    assert {f["size"] for f in folder.fits().values()} == {expected[0]}
    tried.clear()
    shutil.rmtree(folder.runs_dir)
    (folder.path / "packs.jsonl").unlink()
    carried_out(study, tmp_path / "study", executor)
    assert tried == []


def test_an_error_that_is_not_of_memory_stops_before_training(
    undisturbed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(pack: Sequence[Prepared]) -> Rehearsal:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(work, "rehearse", broken)
    executor = Recorder()
    with pytest.raises(RuntimeError, match="shapes do not match"):
        carried_out(undisturbed["study"], tmp_path / "study", executor)
    assert executor.jobs == []


def test_what_no_run_of_a_group_can_do_is_said_before_training(tmp_path: Path, tiny_folder: Path) -> None:
    study = toy_study(tmp_path, tiny_folder, axes={"prompt.length": [3, 70]}, seeds=1)
    executor = Recorder()
    with pytest.raises(TemplateError, match="needs at least 75 positions"):
        carried_out(study, tmp_path / "study", executor)
    assert executor.jobs == []
    assert not (tmp_path / "study" / "ledger.jsonl").exists()


def test_a_diverged_run_is_kept_as_such_and_not_repeated(tmp_path: Path, tiny_folder: Path) -> None:
    recipe = toy_recipe(tmp_path, tiny_folder, learning_rate=1e30, clip=0)
    study = toy_study(tmp_path, tiny_folder, recipe=recipe, axes={"training.learning_rate": [0.01, 1e38]}, seeds=1)
    folder = carried_out(study, tmp_path / "study")
    assert [run.status for run in folder.read()] == ["done", "diverged"]
    executor = Recorder()
    carried_out(study, tmp_path / "study", executor)
    assert executor.jobs == []


def test_a_plan_says_what_a_study_would_do_and_trains_nothing(undisturbed: dict[str, Any], tmp_path: Path) -> None:
    study = undisturbed["study"].model_copy(update={"pack": PackLimits(most=3)})
    executor = Recorder()
    found = Driver(study, StudyFolder(tmp_path / "scratch"), executor).plan("toy")
    assert executor.jobs == []
    assert not (tmp_path / "scratch" / "plan.json").exists()
    assert found["expected"] == {"grid": 8}
    assert [(g["runs"], g["packs"], g["pack"]) for g in found["groups"]] == [(4, 2, 2)] * 2
    assert all(g["seconds"] > 0 and g["bytes"] >= 0 for g in found["groups"])
    assert [len(g["cells"]) for g in found["groups"]] == [2, 2]


def test_trackers_know_the_study_and_what_they_note_reaches_the_events_and_not_the_ledger(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pretend(monkeypatch, "wandb")
    (tmp_path / "a file").write_text("")
    chosen = check_trackers(["wandb", {"tensorboard": {"folder": str(tmp_path / "a file")}}])
    study = toy_study(tmp_path, tiny_folder, axes={"training.learning_rate": [0.01, 0.05]}, seeds=1)
    folder, executor, events = StudyFolder(tmp_path / "study of rates"), Recorder(), list[Mapping[str, Any]]()
    Driver(study, folder, executor, Course(trackers=chosen), events.append).run()
    assert json.loads(json.dumps(executor.jobs[0].trackers)) == list(chosen), "plain data, so it can travel"
    for run in folder.read():
        assert run.folder is not None
        shown = wandb.latest(run.folder.name)
        assert shown is not None
        assert (shown.group, shown.status) == ("study of rates", ("done", 0))
        assert [step for step, _ in shown.points] == [0, 2, 4]
        assert shown.points[-1][1]["dev/accuracy"] == history(run.folder)[4]["dev/accuracy"]
    (note,) = [e for e in events if e["event"] == "note"]
    assert "the tracker tensorboard failed and is left out" in note["text"]
    assert note["key"] == executor.jobs[0].keys[0]
    assert "notes" not in (folder.path / "ledger.jsonl").read_text()


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from(["prompt_tuning", "residual", "p_tuning_lstm"]), min_size=1, max_size=3, unique=True),
       st.integers(1, 6), st.integers(1, 4), st.randoms(use_true_random=False))  # fmt: skip
def test_packs_hold_every_run_once_those_alike_together_in_nearly_equal_parts(
    kinds: list[str], seeds: int, most: int, draw: Any
) -> None:
    class Fits(Driver):
        """As many fit as the test says."""

        def fit(self, group: Sequence[Any]) -> Fit:
            return Fit(min(len(group), most), None, 1.0, None)

    recipe = {"task": {"kind": "support_desk"}, "training": {"learning_rate": 0.01}}
    study = check_study({"recipe": recipe, "axes": {"prompt.kind": kinds}, "seeds": seeds})
    runs = list(grid_runs(study))
    draw.shuffle(runs)
    packs = Fits(study, StudyFolder(Path("nowhere")), Recorder()).packed(runs)
    assert sorted(run.key for pack in packs for run in pack) == sorted(run.key for run in runs)
    assert all(len(pack) <= most and len({run.pack_key for run in pack}) == 1 for pack in packs)
    for group in grouped(runs):
        sizes = [len(pack) for pack in packs if pack[0].pack_key == group[0].pack_key]
        assert max(sizes) - min(sizes) <= 1
        assert len(sizes) == -(-len(group) // most)
