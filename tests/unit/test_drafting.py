"""`draft_recipe`: a recipe for a user's table, or an error that says what the table lacks."""

from __future__ import annotations

import csv
import json
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

import trimtab.drafting as drafting
from tests.contract.tiny_families import BUILDERS
from tests.unit.refusals import refused
from trimtab.backbones import loading
from trimtab.config import resolve
from trimtab.documents import parse_yaml
from trimtab.drafting import Draft, draft_recipe
from trimtab.drafting.label_words import _log_odds, choose_words, looks_like_rating
from trimtab.drafting.presets import Preset, presets
from trimtab.drafting.survey import Survey
from trimtab.drafting.writing import quoted
from trimtab.errors import BackboneError, ConfigError, DataError, TemplateError
from trimtab.registry import tasks
from trimtab.tasks import Task
from trimtab.tasks.reading import Places, Table
from trimtab.text_encoder import TextEncoder
from trimtab.training.preparing import render_task, slots_of

TOPICS = {
    "billing": ["the invoice shows a charge twice", "why is my card charged", "this price is not what I paid"],
    "late_delivery": ["my package is a week late", "the order has not come yet", "where does the parcel stay so long"],
    "praise": ["thank you for the quick answer", "lovely service as always", "I am very happy with the lamp"],
}
PLACES = ("here", "again", "today", "since Monday", "for the second time", "and I wait", "as you know")


load_encoder = cache(loading.load_encoder)


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return load_encoder("nano-masked")[0]


@pytest.fixture(autouse=True)
def _working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are named as a user would, relative to the current folder; each tokenizer is loaded once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(drafting, "load_encoder", load_encoder)


def write(name: str, rows: Sequence[Mapping[str, Any]], delimiter: str = ",") -> Path:
    """Write a CSV or TSV, or JSON lines, as the name says."""
    path = Path(name)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(r) + "\n" for r in rows))
        return path
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def tickets(n: int = 60) -> list[dict[str, Any]]:
    """Support tickets with the columns that an export has."""
    pick = random.Random(0)
    rows = []
    for i in range(n):
        label = list(TOPICS)[i % 3]
        body = f"{pick.choice(TOPICS[label])} {pick.choice(PLACES)}, and my order number is {i}"
        rows.append(
            {
                "id": f"T-{i:04}",
                "date": f"2024-{1 + i % 12:02}-{1 + i % 28:02}",
                "subject": " ".join(body.split()[:4]),
                "body": body,
                "priority": ("low", "normal", "high")[pick.randrange(3)],
                "category": label,
            }
        )
    return rows


def labelled(
    labels: Sequence[Any], text: Callable[[int], str] = "the lamp number {} came".format
) -> list[dict[str, Any]]:
    return [{"text": text(i), "label": label} for i, label in enumerate(labels)]


def parsed(draft: Draft) -> dict[str, Any]:
    return parse_yaml(draft.recipe, "recipe")


def loaded(draft: Draft) -> Task:
    """The task, loaded and rendered as `run` would."""
    config = resolve(parsed(draft)).config
    task = tasks.build(config.task).load(config.seeds.subset, Places())
    text_encoder, positions = load_encoder(config.backbone.model)[:2]
    rendering = render_task(task, slots_of(config), text_encoder, positions)
    for examples in task.splits.values():
        for example in examples:
            rendering.row(example, text_encoder)
    return task


def words_of(draft: Draft) -> dict[str, str]:
    return parsed(draft)["task"]["label_words"]


def noted(draft: Draft, part: str) -> bool:
    return any(part in note for note in draft.notes)


class TestRealisticTables:
    def test_tickets_read_subject_and_body_and_ignore_the_rest(self) -> None:
        draft = draft_recipe(write("tickets.csv", tickets()), "category", output=Path("my tickets.yaml"))
        task = parsed(draft)["task"]
        assert task["template"] == "{prompt} {answer}: {subject}. {body}"
        assert (task["path"], task["name"], task["label"], task["id_column"]) == (
            "tickets.csv",
            "tickets",
            "category",
            "id",
        )
        assert noted(draft, "text is read from 'subject', 'body'")
        (left,) = [n for n in draft.notes if n.startswith("columns not read")]
        assert "'id' (ids, addresses or links)" in left
        assert "'date' (dates or times)" in left
        assert "'priority' (few different values)" in left
        assert "category" not in left
        assert len(loaded(draft).splits["train"]) + len(loaded(draft).splits["dev"]) == 48

    def test_the_first_lines_say_command_classes_and_splits_as_they_are(self) -> None:
        draft = draft_recipe(write("tickets.csv", tickets()), "category", output=Path("my tickets.yaml"))
        head = draft.recipe.split("\n\n")[0].replace("\n# ", " ")
        assert "trimtab run 'my tickets.yaml'" in head
        assert '60 rows in 3 classes: "billing" 20, "late_delivery" 20, "praise" 20.' in head
        sizes = {s: len(e) for s, e in loaded(draft).splits.items()}
        assert f"train {sizes['train']} rows, dev {sizes['dev']} (picks the checkpoint), test {sizes['test']}" in head
        assert all(line.startswith("#") for line in draft.recipe.split("\n\n")[0].splitlines())

    def test_every_option_has_a_comment_and_the_recipe_fits_a_screen(self) -> None:
        lines = draft_recipe(write("tickets.csv", tickets()), "category").recipe.splitlines()
        bare = [
            line
            for i, line in enumerate(lines)
            if line and "#" not in line and not lines[i - 1].strip().startswith("#")
        ]
        assert [line.strip() for line in bare] == ["backbone:", "task:", "kind: table", "prompt:", "training:"]
        assert len(lines) < 50
        assert max(map(len, lines)) <= 110

    def test_why_each_label_word_was_chosen_stands_beside_it(self) -> None:
        recipe = draft_recipe(write("tickets.csv", tickets()), "category").recipe
        lines = {line.split(":")[0].strip(' "'): line for line in recipe.splitlines() if "[" in line}
        assert lines["billing"].endswith("# from its name")
        assert lines["late_delivery"].endswith("# part of its name")
        assert lines["praise"].endswith("# usual word for praise")
        assert [line.split("[")[1].split(",")[0] for line in lines.values()] == ['"bill"', '"late"', '"good"']

    def test_only_training_rows_have_a_say_in_typical_words(self) -> None:
        rows = [{**row, "split": ("train", "train", "dev", "test")[i // 3 % 4]} for i, row in enumerate(tickets(96))]
        for row in rows:
            if row["split"] != "train" and row["category"] == "billing":
                row["body"] += " water"
        words = words_of(draft_recipe(write("tickets.csv", rows), "category"))
        assert "water" not in words["billing"]
        for row in rows:
            row["split"] = "train" if row["split"] == "dev" else "dev" if row["split"] == "train" else "test"
        assert "water" in words_of(draft_recipe(write("tickets.csv", rows), "category"))["billing"]

    def test_stars_get_words_from_bad_to_good_in_their_order(self) -> None:
        draft = draft_recipe(write("reviews.csv", labelled([1, 5, 3, 2, 4] * 6)), "label")
        words = words_of(draft)
        assert list(words) == ["1", "2", "3", "4", "5"]
        assert (words["2"], words["4"], words["5"]) == ("bad", "good", "great")
        assert len(set(words.values())) == 5
        assert noted(draft, "look like ratings")
        loaded(draft)

    def test_yes_and_no_stay_text_and_get_words_that_belong_together(self) -> None:
        draft = draft_recipe(write("urgent.csv", labelled(["yes", "no"] * 10)), "label")
        assert words_of(draft) == {"no": "false", "yes": "true"}
        assert yaml.safe_load(draft.recipe)["task"]["label_words"] == {"no": "false", "yes": "true"}
        assert loaded(draft).verbalizer.classes == ("no", "yes")

    def test_integers_that_are_no_ratings_get_typical_words(self) -> None:
        topics = ("music", "football")
        rows = labelled([11, 12] * 10, lambda i: f"we talk about {topics[i % 2]} number {i}")
        draft = draft_recipe(write("topics.csv", rows), "label")
        assert words_of(draft) == {"11": "music", "12": "football"}
        assert re.search(r"typical: in (\d+) of \1 of its rows", draft.recipe)

    @pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ";"), ("a.tsv", "\t"), ("a.jsonl", "")])
    def test_other_formats_give_the_same_recipe(self, name: str, delimiter: str) -> None:
        expected = parsed(draft_recipe(write("comma.csv", tickets()), "category"))
        draft = draft_recipe(write(name, tickets(), delimiter), "category")
        assert parsed(draft) == {**expected, "task": {**expected["task"], "path": name, "name": "a"}}
        loaded(draft)

    def test_parquet_with_other_types_than_text(self) -> None:
        parquet = pytest.importorskip("pyarrow.parquet")
        table = pytest.importorskip("pyarrow").Table.from_pylist(labelled([True, False] * 10))
        parquet.write_table(table, "flags.parquet")
        draft = draft_recipe(Path("flags.parquet"), "label")
        assert words_of(draft) == {"false": "false", "true": "true"}
        loaded(draft)

    def test_a_path_in_a_folder_is_kept_as_given(self) -> None:
        Path("data").mkdir()
        draft = draft_recipe(write("data/tickets.csv", tickets()), "category")
        assert parsed(draft)["task"]["path"] == "data/tickets.csv"
        assert "trimtab run tickets.yaml " in draft.recipe

    def test_relative_paths_start_at_the_given_place(self, tmp_path: Path) -> None:
        folder = tmp_path / "elsewhere"
        folder.mkdir()
        write(str(folder / "t.csv"), tickets())
        draft = draft_recipe(Path("t.csv"), "category", places=Places(root=folder))
        assert parsed(draft)["task"]["path"] == "t.csv"

    def test_another_backbone_chooses_among_its_own_words(self, tiny_folder: Path) -> None:
        draft = draft_recipe(write("u.csv", labelled(["yes", "no"] * 10)), "label", backbone=str(tiny_folder))
        assert words_of(draft) == {"no": "no", "yes": "yes"}
        assert parsed(draft)["backbone"]["model"] == str(tiny_folder)
        loaded(draft)

    def test_prompt_method_is_taken_over(self) -> None:
        draft = draft_recipe(write("tickets.csv", tickets()), "category", prompt="p_tuning_lstm")
        assert parsed(draft)["prompt"]["kind"] == "p_tuning_lstm"
        assert "# or another method: trimtab ls prompts" in draft.recipe

    @pytest.mark.parametrize("architecture", ["masked", "causal", "seq2seq"])
    def test_rate_length_and_first_values_are_those_of_the_preset(self, architecture: str) -> None:
        draft = draft_recipe(write("t.csv", tickets()), "category", backbone=f"nano-{architecture}", prompt="residual")
        recipe, preset = parsed(draft), presets()[architecture, "residual"]
        assert recipe["training"]["learning_rate"] == preset.learning_rate
        assert recipe["prompt"] == {"kind": "residual", **preset.prompt()}
        assert "trimtab ls presets" in draft.recipe
        loaded(draft)

    def test_an_unusual_start_is_written_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        chosen = {("masked", "residual"): Preset(0.25, 7, "class_labels")}
        monkeypatch.setattr(drafting, "presets", lambda: chosen)
        draft = draft_recipe(write("t.csv", tickets()), "category")
        assert parsed(draft)["prompt"] == {"kind": "residual", "length": 7, "initializer": "class_labels"}
        assert parsed(draft)["training"]["learning_rate"] == 0.25
        loaded(draft)

    def test_a_method_without_a_preset_has_its_own_defaults(self) -> None:
        recipe = parsed(draft_recipe(write("t.csv", tickets()), "category", prompt="dept"))
        assert recipe["prompt"] == {"kind": "dept", "length": 10}
        assert "learning_rate" not in recipe["training"]

    def test_a_method_without_vectors_has_no_length(self) -> None:
        draft = draft_recipe(write("t.csv", tickets()), "category", prompt="manual")
        assert parsed(draft)["prompt"] == {"kind": "manual"}
        loaded(draft)

    def test_a_method_that_trains_nothing_is_refused(self) -> None:
        with refused(ConfigError, "trains nothing", where="prompt.kind", fix="prompt.kind=manual"):
            draft_recipe(write("t.csv", tickets()), "category", prompt="none")

    def test_a_model_that_reads_from_left_to_right_answers_last(self) -> None:
        for rows, label in ((tickets(), "category"), (labelled([str(i % 5 + 1) for i in range(50)]), "label")):
            recipe = parsed(draft_recipe(write("t.csv", rows), label, backbone="nano-causal"))
            assert recipe["task"]["template"].endswith(f"{label}: {{answer}}")

    def test_large_tables_get_fewer_epochs(self) -> None:
        epochs = [drafting.training_options(n, "accuracy")["epochs"] for n in (30, 1_000, 100_000)]
        assert epochs == sorted(epochs, reverse=True)
        assert len(set(epochs)) == 3


class TestColumns:
    def test_given_text_columns_are_used_in_their_order(self) -> None:
        draft = draft_recipe(write("t.csv", tickets()), "category", ["subject", "body", "subject"])
        assert parsed(draft)["task"]["template"] == "{prompt} {answer}: {subject}. {body}"
        draft = draft_recipe(write("t.csv", tickets()), "category", ["priority", "body"])
        assert parsed(draft)["task"]["template"] == "{prompt} {answer}: {priority}. {body}"
        assert not noted(draft, "columns not read")

    @pytest.mark.parametrize("name", ["prompt", "answer", "sep", "prompt:3", "field:x", "field"])
    def test_a_column_that_is_called_like_a_slot_is_read_as_a_field(self, name: str) -> None:
        rows = [{name: r["body"], "label": r["category"]} for r in tickets()]
        draft = draft_recipe(write("t.csv", rows), "label")
        task = loaded(draft)
        assert "order number is" in task.splits["train"][0].fields[name]
        assert render_task(task, 10, *load_encoder("nano-masked")[:2]).template.fields == [name]

    @pytest.mark.parametrize("name", ["a{b", "{x}", " edge", ""])
    def test_a_column_that_no_template_can_name_is_refused(self, name: str) -> None:
        rows = [{name: r["body"], "label": r["category"]} for r in tickets()]
        with pytest.raises(DataError, match=r"t\.jsonl: a template cannot name the column .*Rename the column\."):
            draft_recipe(write("t.jsonl", rows), "label")

    def test_single_words_are_read_where_there_is_no_running_text(self) -> None:
        names = ["anna", "berta", "clara", "dora", "karl", "otto", "paul", "rolf"] * 3
        rows = [{"n": i, "word": w, "who": "f" if w[-1] == "a" else "m"} for i, w in enumerate(names)]
        assert parsed(draft_recipe(write("t.csv", rows), "who"))["task"]["template"] == "{prompt} {answer}: {word}"

    def test_text_without_spaces_between_words_is_text(self) -> None:
        rows = labelled(["yes", "no"] * 6, lambda i: "这个灯很好我很喜欢" + "很" * i)
        assert not noted(draft_recipe(write("t.jsonl", rows), "label"), "single words")

    def test_links_numbers_names_and_lists_are_no_text(self) -> None:
        rows = [
            {
                **r,
                "url": f"https://shop.example/{i}",
                "amount": f"€ {i}.50",
                "agent name": f"Ann Lee of {r['body']}",
                "tags": [i],
            }
            for i, r in enumerate(tickets())
        ]
        draft = draft_recipe(write("t.jsonl", rows), "category")
        assert parsed(draft)["task"]["template"] == "{prompt} {answer}: {subject}. {body}"
        for reason in (
            "'url' (ids, addresses or links)",
            "'amount' (numbers)",
            "'agent name' (details",
            "'tags' (lists",
        ):
            assert noted(draft, reason), reason

    def test_no_text_at_all_is_an_error_that_lists_what_there_is(self) -> None:
        rows = [
            {"n": i, "day": f"2024-01-{1 + i:02}", "one": "same", "gap": "x" if i == 3 else "", "label": "ab"[i % 2]}
            for i in range(20)
        ]
        found = (
            "'n' holds numbers, 'day' holds dates or times, 'one' holds the same everywhere, 'gap' holds mostly empty"
        )
        with pytest.raises(DataError, match=rf"no column looks like text: {found}\. Name the text columns"):
            draft_recipe(write("t.csv", rows), "label")

    def test_a_table_of_labels_only_has_no_text(self) -> None:
        with pytest.raises(DataError, match=r"no column looks like text\. Name"):
            draft_recipe(write("t.csv", [{"label": "ab"[i % 2]} for i in range(20)]), "label")

    def test_an_unknown_text_column_is_an_error_with_a_suggestion(self) -> None:
        with pytest.raises(DataError, match=r"t\.csv: there is no column 'bodi'\. Did you mean 'body'\?"):
            draft_recipe(write("t.csv", tickets()), "category", ["bodi"])

    def test_the_label_is_no_text(self) -> None:
        with pytest.raises(DataError, match="'category' is the label; as text it would give the answer away"):
            draft_recipe(write("t.csv", tickets()), "category", ["body", "category"])

    def test_a_text_column_of_lists_is_an_error(self) -> None:
        with pytest.raises(DataError, match=r"t\.jsonl:1: the column 'body' must hold text, got list"):
            draft_recipe(write("t.jsonl", [{**r, "body": ["a"]} for r in tickets()]), "category", ["body"])

    def test_rows_without_text_are_listed(self) -> None:
        rows = tickets()
        for i in (1, 4, 7, 8):
            rows[i] |= {"body": "  "}
        message = r"4 rows have no text in 'body': t\.csv:3, t\.csv:6, t\.csv:9 and 1 more\. Remove the rows"
        with pytest.raises(DataError, match=message):
            draft_recipe(write("t.csv", rows), "category", ["body"])

    def test_a_row_with_one_of_two_texts_is_kept(self) -> None:
        rows = tickets()
        rows[1] |= {"subject": ""}
        loaded(draft_recipe(write("t.csv", rows), "category", ["subject", "body"]))

    def test_repeated_texts_and_their_contradictions_are_noted(self) -> None:
        rows = tickets()
        for i in (3, 6, 7):
            rows[i] |= {"subject": rows[0]["subject"], "body": rows[0]["body"]}
        draft = draft_recipe(write("t.csv", rows), "category")
        assert noted(
            draft, "3 of 60 rows repeat the text of an earlier row; 1 of these texts have contradicting labels"
        )

    def test_repeated_texts_with_equal_labels_contradict_nothing(self) -> None:
        rows = [*tickets(), {**tickets()[0], "id": "new"}]
        draft = draft_recipe(write("t.csv", rows), "category")
        assert noted(draft, "1 of 61 rows repeat")
        assert not noted(draft, "contradicting")

    def test_texts_longer_than_the_model_are_noted(self) -> None:
        rows = labelled(["yes", "no"] * 10, lambda i: "the lamp came " * (5 if i % 2 else 100))
        assert noted(
            draft_recipe(write("t.csv", rows), "label"), "about 50 % of the rows exceed the model's 256 positions"
        )


class TestSplitsAndIds:
    def test_a_split_column_is_used_and_explained(self) -> None:
        rows = [{**r, "Split": ("train", "Train", "validation", "test")[i // 3 % 4]} for i, r in enumerate(tickets())]
        draft = draft_recipe(write("t.csv", rows), "category")
        options = parsed(draft)["task"]
        assert options["split_column"] == "Split"
        assert not {"test_fraction", "dev_fraction", "split_seed"} & set(options)
        assert {s: len(e) for s, e in loaded(draft).splits.items()} == {"train": 30, "dev": 15, "test": 15}
        assert 'Splits, as the column "Split" says: train 30 rows, dev 15' in draft.recipe
        assert "{Split}" not in options["template"]

    def test_a_missing_dev_split_is_drawn(self) -> None:
        rows = [{**r, "split": "test" if i < 15 else "train"} for i, r in enumerate(tickets())]
        draft = draft_recipe(write("t.csv", rows), "category")
        assert {"dev_fraction", "split_seed"} <= set(parsed(draft)["task"])
        assert "test_fraction" not in parsed(draft)["task"]
        assert "dev drawn from its train rows" in draft.recipe.replace("\n# ", " ")
        assert len(loaded(draft).splits["test"]) == 15

    @pytest.mark.parametrize("values", [("train", "holdout"), ("dev", "test"), ("train", "")])
    def test_a_split_column_that_says_other_things_is_not_used(self, values: tuple[str, str]) -> None:
        rows = [{**r, "split": values[i % 2]} for i, r in enumerate(tickets())]
        draft = draft_recipe(write("t.csv", rows), "category")
        assert "split_column" not in parsed(draft)["task"]
        assert noted(draft, "the column 'split' does not make splits")
        loaded(draft)

    def test_a_class_that_the_split_column_keeps_from_train_is_an_error(self) -> None:
        rows = [{**r, "split": "test" if r["category"] == "praise" else "train"} for r in tickets()]
        with pytest.raises(DataError, match="the class 'praise' has label words but no row in train"):
            draft_recipe(write("t.csv", rows), "category")

    @pytest.mark.parametrize("name", ["ID", "ticket_id", "messageId", "uuid"])
    def test_unique_ids_are_recognized_by_name(self, name: str) -> None:
        rows = [{name: i, **{k: v for k, v in r.items() if k != "id"}} for i, r in enumerate(tickets())]
        draft = draft_recipe(write("t.csv", rows), "category")
        assert parsed(draft)["task"]["id_column"] == name
        assert loaded(draft).splits["test"][0].id.isdecimal()

    def test_ids_that_repeat_are_not_used(self) -> None:
        rows = [{"customer_id": i // 2, **{k: v for k, v in r.items() if k != "id"}} for i, r in enumerate(tickets())]
        assert "id_column" not in parsed(draft_recipe(write("t.csv", rows), "category"))["task"]

    def test_another_id_column_stands_in_for_an_id_that_repeats(self) -> None:
        rows = [{**r, "id": i // 2, "ticket_id": i} for i, r in enumerate(tickets())]
        draft = draft_recipe(write("t.csv", rows), "category")
        assert parsed(draft)["task"]["id_column"] == "ticket_id"
        loaded(draft)

    def test_a_column_id_that_repeats_is_an_error(self) -> None:
        rows = [{**r, "id": i // 2} for i, r in enumerate(tickets())]
        with pytest.raises(
            DataError, match=r"t\.csv:3: the column 'id' must name rows, and '0' stands at t\.csv:2 too"
        ):
            draft_recipe(write("t.csv", rows), "category")

    def test_an_id_column_with_a_gap_is_not_named_and_the_column_id_is_filled_by_position(self) -> None:
        rows = [{**r, "id": r["id"] if i else "", "ticket_id": i or ""} for i, r in enumerate(tickets())]
        draft = draft_recipe(write("t.csv", rows), "category")
        assert "id_column" not in parsed(draft)["task"]
        loaded(draft)


class TestLabels:
    def test_an_unknown_label_column_is_an_error_with_a_suggestion(self) -> None:
        with pytest.raises(DataError, match=r"t\.csv: there is no column 'catgory'\. Did you mean 'category'\?"):
            draft_recipe(write("t.csv", tickets()), "catgory")

    def test_a_missing_table_is_an_error(self) -> None:
        with pytest.raises(DataError, match=r"none\.csv: there is no such file"):
            draft_recipe(Path("none.csv"), "label")

    def test_rows_without_label_are_listed(self) -> None:
        rows = labelled(["yes", "no"] * 10)
        rows[0]["label"] = ""
        rows[5]["label"] = " "
        with pytest.raises(
            DataError, match=r"2 rows have no label in the column 'label': t\.csv:2, t\.csv:7\. Fill in"
        ):
            draft_recipe(write("t.csv", rows), "label")

    @pytest.mark.parametrize("value", [None, math.nan])
    def test_a_label_that_is_null_or_nan_is_missing(self, value: float | None) -> None:
        with pytest.raises(DataError, match=r"1 row has no label in the column 'label': t\.jsonl:21\."):
            draft_recipe(write("t.jsonl", labelled([*([1, 2] * 10), value])), "label")

    def test_one_class_is_an_error(self) -> None:
        with pytest.raises(DataError, match="every row has the label 'yes'; at least two are needed"):
            draft_recipe(write("t.csv", labelled(["yes"] * 9)), "label")

    def test_many_numbers_look_like_a_number_to_predict(self) -> None:
        with pytest.raises(DataError, match="60 different values in 240 rows, so it looks like a number to predict"):
            draft_recipe(write("t.csv", labelled([f"{i % 60}.5" for i in range(240)])), "label")

    @pytest.mark.parametrize("labels", [[f"word {i % 60}" for i in range(240)], [f"id-{i}" for i in range(20)]])
    def test_many_labels_look_like_text_or_ids(self, labels: list[str]) -> None:
        with pytest.raises(DataError, match=r"it looks like free text or ids, not like classes \(at most 50\)"):
            draft_recipe(write("t.csv", labelled(labels)), "label")

    def test_a_long_label_looks_like_text(self) -> None:
        with pytest.raises(DataError, match=r"t\.csv:3: the column 'label' looks like free text.*a value has 101 char"):
            draft_recipe(write("t.csv", labelled(["a", "b" * 101] * 9)), "label")

    def test_a_label_of_a_hundred_escaped_characters_is_still_a_key(self) -> None:
        labels = ["a", "\U000f0000" * 100]
        assert set(words_of(draft_recipe(write("t.csv", labelled(labels * 9)), "label"))) == set(labels)

    def test_classes_with_fewer_than_three_rows_are_an_error(self) -> None:
        with pytest.raises(DataError, match=r"a class needs 3 rows or more.*too few: 'c' 2, 'd' 1\. Add rows, join"):
            draft_recipe(write("t.csv", labelled([*"aaaaaaaabbbbbbbb", "c", "c", "d"])), "label")

    def test_classes_with_three_rows_are_noted_and_reach_every_split(self) -> None:
        draft = draft_recipe(write("t.csv", labelled(["yes"] * 8 + ["no"] * 3)), "label")
        assert noted(draft, "few rows: 'no' has 3")
        assert all({e.label for e in split} == {"yes", "no"} for split in loaded(draft).splits.values())

    def test_uneven_classes_are_noted_and_select_by_macro_f1(self) -> None:
        draft = draft_recipe(write("t.csv", labelled(["no"] * 50 + ["yes"] * 10)), "label")
        assert noted(draft, "uneven (50 rows in the largest, 10 in the smallest)")
        assert parsed(draft)["training"]["select"] == "macro_f1"

    def test_even_classes_select_by_accuracy(self) -> None:
        draft = draft_recipe(write("t.csv", labelled(["no"] * 49 + ["yes"] * 10)), "label")
        assert not noted(draft, "uneven")
        assert parsed(draft)["training"]["select"] == "accuracy"

    def test_a_small_test_split_is_noted(self) -> None:
        assert noted(draft_recipe(write("t.csv", tickets()), "category"), "only 12 rows are left for the test")

    def test_a_class_that_may_mean_a_missing_label_is_noted(self) -> None:
        draft = draft_recipe(write("t.csv", labelled(["yes", "no", "N/A"] * 6)), "label")
        assert noted(draft, "'N/A' counts as a class; if it means that the label is missing")

    def test_lists_of_labels_are_refused(self) -> None:
        with pytest.raises(
            DataError, match=r"t\.jsonl:1: the label is a list; tasks with several labels per row are not"
        ):
            draft_recipe(write("t.jsonl", labelled([["a"], ["b"]] * 5)), "label")

    @pytest.mark.parametrize("mark", ["|", ";", ",", "; "])
    def test_joined_labels_are_refused_where_their_parts_are_labels(self, mark: str) -> None:
        rows = labelled(["bill", "late", f"bill{mark}late"] * 5)
        with pytest.raises(
            DataError, match=r"t\.jsonl:3: the label .* names several classes; tasks with several labels"
        ):
            draft_recipe(write("t.jsonl", rows), "label")

    def test_joined_labels_are_refused_where_their_parts_recur_in_others(self) -> None:
        with pytest.raises(DataError, match="names several classes"):
            draft_recipe(write("t.csv", labelled(["a|b", "b|c", "a|c"] * 5)), "label")

    def test_a_comma_in_a_name_alone_is_no_second_label(self) -> None:
        draft = draft_recipe(
            write("t.csv", labelled(["food, drink", "food, other", "Sci/Tech", "home|garden"] * 5)), "label"
        )
        assert len(words_of(draft)) == 4

    def test_white_space_around_labels_is_no_other_class(self) -> None:
        draft = draft_recipe(write("t.csv", labelled(["yes", " yes", "no", "no "] * 5)), "label")
        assert set(words_of(draft)) == {"yes", "no"}
        loaded(draft)


class TestLabelWords:
    def test_names_come_first_even_where_another_class_has_them_as_a_part(self, encoder: TextEncoder) -> None:
        texts = {"account_money": ["x"], "money": ["x"], "account": ["x"]}
        words = choose_words(texts, encoder, "label")
        assert (words["money"].word, words["account"].word) == ("money", "account")
        assert words["account_money"].word not in ("money", "account")

    def test_the_part_that_distinguishes_is_preferred(self, encoder: TextEncoder) -> None:
        words = choose_words({"service_late": ["x"], "service_bad": ["x"], "serviceGood": ["x"]}, encoder, "label")
        assert [c.word for c in words.values()] == ["late", "bad", "good"]

    @pytest.mark.parametrize(("name", "stem"), [("shipping", "ship"), ("delivery", "deliver"), ("returns", "return")])
    def test_the_stem_of_a_name_stands_for_it(self, encoder: TextEncoder, name: str, stem: str) -> None:
        assert choose_words({name: ["x"], "water": ["x"]}, encoder, "label")[name].word == stem

    @pytest.mark.parametrize(
        ("labels", "expected"),
        [
            (("0", "1"), ("false", "true")),
            (("-1", "0", "1"), ("negative", "neutral", "positive")),
            (("entailment", "neutral", "contradiction"), ("true", "perhaps", "false")),
            (("relevant", "not_relevant"), ("true", "false")),
            (("POS", "NEG"), ("positive", "negative")),
            (("1 star", "5 stars"), ("worst", "great")),
            (("spam", "ham"), ("bad", "normal")),
        ],
    )
    def test_scales_are_worded_as_one(
        self, encoder: TextEncoder, labels: tuple[str, ...], expected: tuple[str, ...]
    ) -> None:
        words = choose_words({label: ["x"] for label in labels}, encoder, "label")
        assert tuple(c.word for c in words.values()) == expected

    def test_numbers_are_ratings_only_where_that_is_likely(self) -> None:
        assert looks_like_rating(["1", "2", "3", "4", "5"], "label")
        assert looks_like_rating(["1.0", "3.0", "5.0"], "Rating")
        assert looks_like_rating(["1 star", "5 stars"], "label")
        assert not looks_like_rating(["1", "2", "3"], "label")
        assert not looks_like_rating(["1", "2", "3", "4", "5"], "priority")
        assert not looks_like_rating(["1", "2", "6"], "rating")

    def test_typical_words_are_whole_telling_and_distinct(self, encoder: TextEncoder) -> None:
        texts = {
            "K1": ["the music was with you in 2020 xyzzyq"] * 9 + ["the game"],
            "K2": ["the music and a game with you"] * 5 + ["the game of a ball"] * 5,
        }
        words = choose_words(texts, encoder, "label")
        assert (words["K1"].word, words["K1"].reason) == ("music", "typical: in 9 of 10 of its rows")
        assert words["K2"].word in ("game", "ball")

    def test_log_odds_are_those_of_the_paper(self) -> None:
        counts = {"a": Counter(x=6, y=2), "b": Counter(x=1, y=3)}
        prior = 20.0
        ax = prior * 7 / 12
        odds = [math.log((n + ax) / (total + prior - n - ax)) for n, total in ((6, 8), (1, 4))]
        z = (odds[0] - odds[1]) / math.sqrt(1 / (6 + ax) + 1 / (1 + ax))
        found = _log_odds(counts, "a")
        if z < 1:
            assert "x" not in found
        else:
            assert found["x"] == pytest.approx(z)
        assert "y" not in found

    def test_every_class_gets_a_word_even_where_nothing_tells(self, encoder: TextEncoder) -> None:
        texts = {f"§{i}§": ["€"] for i in range(50)}
        words = choose_words(texts, encoder, "label")
        assert len({encoder.encode(f" {c.word}").ids[0] for c in words.values()}) == 50
        assert all(len(encoder.encode(f" {c.word}").ids) == 1 for c in words.values())
        assert words["§49§"].reason == "arbitrary: no better word found"

    def test_words_that_an_uncased_tokenizer_takes_for_one_are_not_shared(self, encoder: TextEncoder) -> None:
        words = choose_words({"Water": ["x"], "water": ["x"], "WATER": ["x"]}, encoder, "label")
        assert len({encoder.encode(f" {c.word}").ids[0] for c in words.values()}) == 3

    def test_a_vocabulary_that_is_too_small_is_an_error(self, tiny_folder: Path) -> None:
        tiny = load_encoder(str(tiny_folder))[0]
        with pytest.raises(DataError, match="the tokenizer has too few whole words for 90 classes"):
            choose_words({f"§{i}": ["€"] for i in range(90)}, tiny, "label")


class TestErrorsFromElsewhere:
    def test_an_unknown_prompt_method(self) -> None:
        with pytest.raises(ConfigError, match=r"there is no prompt encoder 'residul'\. Did you mean 'residual'\?"):
            draft_recipe(write("t.csv", tickets()), "category", prompt="residul")

    def test_an_unknown_backbone(self) -> None:
        with pytest.raises(BackboneError, match="'no/such-model' is unknown or unreachable"):
            draft_recipe(write("t.csv", tickets()), "category", backbone="no/such-model")

    def test_a_recipe_that_does_not_read_back_is_never_returned(self, monkeypatch: pytest.MonkeyPatch) -> None:
        broken = "seed: 13\n"
        monkeypatch.setattr(drafting, "write_recipe", lambda *_: broken)
        with pytest.raises(RuntimeError, match="does not read back as it was meant"):
            draft_recipe(write("t.csv", tickets()), "category")


class TestYaml:
    TRAPS = (
        *("no", "true", "1e3", "1.0", "null", "~", "2024-01-01", "a: b", "a #b", "'q'", '"', "\\", "a\nb", "- x"),
        *("é\u2028é", "👍", "*a", "0x1F", "1_000"),
    )

    def test_labels_that_yaml_would_misread_survive(self) -> None:
        draft = draft_recipe(write("t.jsonl", labelled(self.TRAPS * 3)), "label")
        assert set(words_of(draft)) == set(self.TRAPS)
        assert yaml.safe_load(draft.recipe) == parsed(draft)
        loaded(draft)

    @pytest.mark.parametrize("name", TRAPS)
    def test_columns_that_yaml_would_misread_survive(self, name: str) -> None:
        rows = [{name: r["body"], "label": r["category"]} for r in tickets(12)]
        draft = draft_recipe(write("t.jsonl", rows), "label", [name])
        assert name in loaded(draft).splits["train"][0].fields

    def test_a_file_name_with_spaces_and_quotes_survives(self) -> None:
        path = write("my 'new' #1: tickets\n.csv", tickets())
        draft = draft_recipe(path, "category", output=Path("a\nb.yaml"))
        assert parsed(draft)["task"]["path"] == str(path)
        loaded(draft)

    @given(st.text())
    def test_a_quoted_scalar_is_one_line_and_reads_back(self, text: str) -> None:
        assert len(quoted(text).splitlines()) == 1 or not text.isprintable()
        assert "\n" not in quoted(text)
        assert parse_yaml(f"a: {quoted(text)}", "a") == {"a": text}

    printable = st.text(st.characters(codec="utf-8", exclude_categories=("C",)), min_size=1, max_size=12)

    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(labels=st.lists(printable, min_size=2, max_size=5, unique=True), column=printable, label=printable)
    def test_any_names_give_a_recipe_that_loads_or_a_clear_error(
        self, labels: list[str], column: str, label: str
    ) -> None:
        rows = [{column: f"the lamp {i}", label: name} for i, name in enumerate(labels * 4)]
        path = write("any.jsonl", rows)
        try:
            draft = draft_recipe(path, label, [column])
        except (DataError, ConfigError, TemplateError) as error:
            event(type(error).__name__)
            return
        task = loaded(draft)
        assert set(task.verbalizer.classes) == {name.strip() for name in labels}
        assert column in task.splits["train"][0].fields


def test_survey_knows_the_order_of_number_and_word_classes() -> None:
    def classes(labels: Sequence[str]) -> list[str]:
        rows = tuple({"label": name} for name in labels)
        return Survey(Table(("label",), rows, tuple(map(str, range(len(rows))))), "label", "t").classes

    assert classes(["10"] * 5 + ["9"] * 4) == ["9", "10"]
    assert classes(["b"] * 3 + ["c"] * 4 + ["a"] * 3) == ["c", "a", "b"]


class TestFreeText:
    """`--target`: the model learns to write a column."""

    @pytest.fixture
    def writer(self, tmp_path_factory: pytest.TempPathFactory) -> str:
        return str(BUILDERS["llama"](tmp_path_factory.mktemp("models") / "llama"))

    def draft(self, rows: Sequence[Mapping[str, Any]], writer: str, target: str = "reply", **options: Any) -> Draft:
        return draft_recipe(write("mail.csv", rows), target, is_free=True, backbone=writer, **options)

    def mails(self, n: int = 60, reply: str = "yes , the {} was good") -> list[dict[str, Any]]:
        nouns = ("film", "book", "song")
        return [{"mail_id": i, "text": f"was the {nouns[i % 3]} good ? {i}", "reply": reply.format(nouns[i % 3])}
                for i in range(n)]  # fmt: skip

    def test_the_recipe_has_a_target_and_what_may_be_written(self, writer: str) -> None:
        draft = self.draft(self.mails(), writer)
        data = parsed(draft)
        task = data["task"]
        assert (task["target"], task["id_column"]) == ("reply", "mail_id")
        assert "label" not in task
        assert "label_words" not in task
        assert task["template"] == "{prompt} {text}. reply: {answer}"
        assert data["readout"] == {"kind": "text", "max_new_tokens": 7}
        assert data["training"]["select"] == "rouge_l"
        assert data["backbone"]["model"] == writer

    def test_its_comments_speak_of_writing(self, writer: str) -> None:
        recipe = self.draft(self.mails(), writer).recipe
        assert recipe.startswith('# Write "reply" in mail.csv with a soft prompt')
        assert "# 60 rows.\n" in recipe
        assert "drawn at random" in recipe
        assert "where the model writes" in recipe
        assert "exact_match, token_f1, rouge_l, or loss" in recipe
        assert "class" not in recipe

    def test_short_answers_are_picked_by_exact_match(self, writer: str) -> None:
        data = parsed(self.draft(self.mails(reply="the {}"), writer))
        assert data["training"]["select"] == "exact_match"
        assert data["readout"]["max_new_tokens"] == 3

    def test_a_column_with_several_words_and_braces_is_named_in_the_template(self, writer: str) -> None:
        rows = [{"text": r["text"], "our_{reply}  text": r["reply"]} for r in self.mails()]
        data = parsed(self.draft(rows, writer, "our_{reply}  text"))
        assert data["task"]["template"] == "{prompt} {text}. our reply text: {answer}"

    def test_few_different_answers_look_like_classes(self, writer: str) -> None:
        note = "the column 'reply' has only 3 different answers; --label reply would treat them as classes"
        assert noted(self.draft(self.mails(), writer), note)
        many = [{**r, "reply": f"it was {i}"} for i, r in enumerate(self.mails())]
        assert not noted(self.draft(many, writer), "different answers")

    def test_answers_that_the_vocabulary_lacks_are_noted(self, writer: str) -> None:
        rows = self.mails()
        rows[5]["reply"] = "good 中 film"
        note = "1 of 60 answers have signs that the model's vocabulary lacks, such as 'good 中 film'"
        assert noted(self.draft(rows, writer), note)
        assert not noted(self.draft(self.mails(), writer), "signs")

    def test_repeated_texts_may_have_different_answers(self, writer: str) -> None:
        rows = self.mails()
        rows += [{**rows[0], "mail_id": 99, "reply": "no"}]
        assert noted(self.draft(rows, writer), "1 of these texts have different answers")

    def test_rows_without_an_answer_are_listed(self, writer: str) -> None:
        rows = self.mails()
        rows[3]["reply"] = " "
        with refused(DataError, "no answer in the column 'reply': mail.csv:5", where="mail.csv", fix="the answers"):
            self.draft(rows, writer)

    def test_an_answer_longer_than_the_model_is_refused(self, writer: str) -> None:
        rows = self.mails()
        rows[0]["reply"] = "good " * 70
        with refused(ConfigError, "needs 71 positions, there are 64", where="readout.max_new_tokens", fix="Lower it"):
            self.draft(rows, writer)

    def test_a_masked_model_is_refused(self, tiny_folder: Path) -> None:
        with refused(ConfigError, "cannot write", where="backbone.model", fix="nano-causal"):
            self.draft(self.mails(), str(tiny_folder))

    def test_without_a_name_the_embedded_model_that_writes_is_taken(
        self, writer: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(drafting, "load_encoder", lambda name: load_encoder(writer))
        draft = draft_recipe(write("mail.csv", self.mails()), "reply", is_free=True)
        assert parsed(draft)["backbone"]["model"] == "nano-causal"
