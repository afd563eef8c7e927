"""Recipes and overrides: what resolves to what, and every way to get a key wrong."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.refusals import refused
from trimtab.config import RunConfig, read_recipe, resolve
from trimtab.documents import dump_yaml, parse_yaml
from trimtab.errors import ConfigError, TrimtabError

TASK = {
    "kind": "table",
    "train": "train.csv",
    "template": "{prompt} {text} {answer}.",
    "label_words": {"positive": "yes", "negative": "no"},
}


def recipe(**sections: Any) -> dict[str, Any]:
    return {"task": TASK, **sections}


def config(*overrides: str, **sections: Any) -> RunConfig:
    return resolve(recipe(**sections), overrides).config


def test_the_shortest_recipe_resolves_to_defaults() -> None:
    c = config()
    assert c.prompt["kind"] == "prompt_tuning"
    assert c.readout == {"kind": "auto"}
    assert c.backbone.model == "nano-masked"
    assert c.seeds.model_dump() == {"init": 13, "data_order": 13, "subset": 13, "noise": 13}
    assert c.task["shots"] == 0
    assert c.regularizers == ()


def test_a_preset_is_a_whole_task() -> None:
    assert resolve({"task": "support_desk"}).config.task["name"] == "support_desk"
    assert resolve({"task": "support_desk"}, ["task.shots=16"]).config.task["shots"] == 16


def test_seed_sets_all_streams_and_seeds_sets_single_ones() -> None:
    assert config("seed=5", "seeds.noise=7").seeds.model_dump() == {"init": 5, "data_order": 5, "subset": 5, "noise": 7}


def test_learning_rate_comes_from_the_method_unless_given() -> None:
    assert config(prompt="prompt_tuning").training.learning_rate == 1e-2
    assert config(prompt="residual").training.learning_rate == 3e-3
    assert config("training.learning_rate=1e-3", prompt="residual").training.learning_rate == 0.001


def test_a_config_survives_its_yaml() -> None:
    c = config(
        prompt={"kind": "residual", "initializer": {"kind": "text", "text": "no: 1e-3"}}, regularizers=["gaussian"]
    )
    again = resolve(parse_yaml(dump_yaml(c.as_dict()), "config.yaml")).config
    assert again == c
    assert again.digest() == c.digest()


def test_digest_changes_with_every_part() -> None:
    base = config().digest("data")
    assert base == config().digest("data")
    others = {
        config().digest("other"), config("seeds.noise=1").digest("data"), config("training.epochs=2").digest("data"),
        config("prompt=residual").digest("data"), config("task.label_words.positive=good").digest("data"),
    }  # fmt: skip
    assert base not in others
    assert len(others) == 5


def test_a_config_is_frozen() -> None:
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        config().training.epochs = 3  # type: ignore[misc]


def test_recipe_is_not_changed_by_overrides() -> None:
    given_recipe = recipe(prompt={"kind": "residual", "bottleneck": 8})
    resolve(given_recipe, ["prompt.kind=prompt_tuning", "task.label_words.positive=good"])
    assert given_recipe == recipe(prompt={"kind": "residual", "bottleneck": 8})


# Overrides


def test_override_values_are_yaml_without_traps() -> None:
    c = config("task.label_words.negative=no", "training.epsilon=1e-6", "task.name=1:30", "training.keep_encoder=yes")
    assert c.task["label_words"]["negative"] == "no"
    assert c.training.epsilon == 1e-6
    assert c.task["name"] == "1:30"
    assert c.training.keep_encoder is True


def test_override_may_hold_equals_signs_and_lists() -> None:
    c = config("task.label_words.positive=[good, great]", "task.template='{prompt} {text} a=b {answer}'")
    assert c.task["label_words"]["positive"] == ["good", "great"]
    assert c.task["template"] == "{prompt} {text} a=b {answer}"


CHAT = {"chat": [{"role": "user", "content": "{prompt} {text}"}], "options": {}}


@pytest.mark.parametrize(
    "overrides",
    [
        ["task.template.chat={prompt} {text}"],
        ["task.template.chat='{prompt} {text}'"],
        ["task.template={chat: '{prompt} {text}'}"],
        ["task.template.chat=[{role: user, content: '{prompt} {text}'}]"],
        ["task.template.chat=[{role: user, content: x}]", "task.template.chat.0.content={prompt} {text}"],
        {"task.template": {"chat": "{prompt} {text}"}},
    ],
)
def test_a_chat_is_given_as_text_or_as_yaml_and_replaces_a_plain_template(overrides: Any) -> None:
    c = resolve(recipe(), overrides).config
    assert c.task["template"] == CHAT
    assert resolve(parse_yaml(dump_yaml(c.as_dict()), "x")).config == c


def test_options_of_a_chat_stay_beside_it() -> None:
    c = config("task.template.chat={prompt} {text}", "task.template.options.enable_thinking=false")
    assert c.task["template"] == CHAT | {"options": {"enable_thinking": False}}
    assert config("task.template=[{prompt}] {text} {answer}").task["template"] == "[{prompt}] {text} {answer}"


@pytest.mark.parametrize("value", [[1], None, True])
def test_a_template_that_is_neither_text_nor_chat_is_refused(value: Any) -> None:
    what = f"a template is a text, or a mapping with the key chat, got {value!r}."
    with refused(ConfigError, what, where="task.template"):
        resolve(recipe(), {"task.template": value})


def test_a_mistake_in_a_chat_is_named_by_its_own_path() -> None:
    with refused(ConfigError, "this key is required.", where="task.template.chat.0.content"):
        resolve(recipe(), {"task.template": {"chat": [{"role": "user"}]}})


def test_overrides_may_be_a_mapping() -> None:
    assert resolve(recipe(), {"training.epochs": 4}).config.training.epochs == 4


def test_the_last_override_of_a_key_wins() -> None:
    assert config("training.epochs=1", "training.epochs=2").training.epochs == 2


def test_overrides_do_not_change_what_was_given() -> None:
    given = {"prompt": {"kind": "residual"}, "prompt.length": 3}
    resolve(recipe(), given)
    assert given == {"prompt": {"kind": "residual"}, "prompt.length": 3}


def test_override_descends_into_a_section_that_is_only_a_kind() -> None:
    c = config("prompt.length=3", "backbone.dtype=float32", "prompt.initializer.range=0.5",
               prompt={"kind": "residual", "initializer": "uniform"}, backbone="some/model")  # fmt: skip
    assert c.prompt["length"] == 3
    assert c.prompt["initializer"] == {"kind": "uniform", "range": 0.5}
    assert (c.backbone.model, c.backbone.dtype) == ("some/model", "float32")


def test_override_of_a_list_entry() -> None:
    c = config("regularizers.0.weight=2", "regularizers.1.sigma=0.5", regularizers=["gaussian", {"kind": "gaussian"}])
    assert (c.regularizers[0]["weight"], c.regularizers[1]["sigma"]) == (2.0, 0.5)


def test_override_of_a_null_section() -> None:
    assert config("training.epochs=3", training=None).training.epochs == 3


def test_changed_kind_drops_options_that_no_longer_exist_and_says_so() -> None:
    resolution = resolve(
        recipe(prompt={"kind": "residual", "bottleneck": 8, "length": 7}), ["prompt.kind=prompt_tuning"]
    )
    assert resolution.dropped == ("prompt.bottleneck",)
    assert (resolution.config.prompt["kind"], resolution.config.prompt["length"]) == ("prompt_tuning", 7)


def test_changed_kind_is_applied_before_other_overrides() -> None:
    assert config("prompt.bottleneck=8", "prompt.kind=residual", prompt="prompt_tuning").prompt["bottleneck"] == 8


def test_unchanged_kind_keeps_misspelt_options_for_the_error() -> None:
    with refused(ConfigError, "no such key", where="prompt.botleneck", fix="Did you mean 'bottleneck'?"):
        config("prompt.kind=residual", prompt={"kind": "residual", "botleneck": 8})


def test_kind_of_a_list_entry_can_change() -> None:
    assert config("regularizers.0.kind=gaussian", regularizers=["gaussian"]).regularizers[0]["kind"] == "gaussian"
    with refused(ConfigError, "there is no regularizer 'x'", where="regularizers.0.kind", fix="gaussian"):
        config("regularizers.0.kind=x", regularizers=["gaussian"])


def test_overrides_reach_into_one_of_several_tasks() -> None:
    table = {"kind": "table", "path": "a.csv", "label_words": {"a": "b", "c": "d"}, "name": "own"}
    given = recipe(task={"kind": "multitask", "tasks": ["support_desk", table]})
    c = config("task.tasks.0.shots=4", "task.tasks.1.name=other", task=given["task"])
    assert [its["name"] for its in c.task["tasks"]] == ["support_desk", "other"]
    assert c.task["tasks"][0]["shots"] == 4
    dropped = resolve(given, {"task.tasks.1.kind": "squad", "task.tasks.1.path": "b.json"}).dropped
    assert dropped == ("task.tasks.1.label_words",)


def test_changed_kind_of_an_initializer_drops_the_options_of_the_old_one() -> None:
    given = recipe(prompt={"kind": "residual", "initializer": {"kind": "uniform", "range": 0.5}})
    resolution = resolve(given, ["prompt.initializer.kind=class_labels"])
    assert resolution.config.prompt["initializer"] == {"kind": "class_labels"}
    assert resolution.dropped == ("prompt.initializer.range",)
    given["prompt"] = {"initializer": {"kind": "uniform", "range": 0.5}}
    assert resolve(given, ["prompt.initializer.kind=class_labels"]).dropped == ("prompt.initializer.range",)


def test_changed_kinds_of_a_section_and_of_what_lies_in_it_work_together() -> None:
    given = recipe(prompt={"kind": "residual", "bottleneck": 8, "initializer": {"kind": "uniform", "range": 0.5}})
    kinds = ["prompt.initializer.kind=text", "prompt.initializer.text=hello", "prompt.kind=prompt_tuning"]
    for overrides in (kinds, kinds[::-1]):
        resolution = resolve(given, overrides)
        assert resolution.config.prompt["initializer"] == {"kind": "text", "text": "hello"}
        assert resolution.config.prompt["kind"] == "prompt_tuning"
        assert sorted(resolution.dropped) == ["prompt.bottleneck", "prompt.initializer.range"]


def test_a_readout_that_becomes_auto_drops_the_options_of_the_old_one() -> None:
    resolution = resolve(recipe(readout={"kind": "cloze", "combine": "max"}), ["readout.kind=auto"])
    assert (resolution.config.readout, resolution.dropped) == ({"kind": "auto"}, ("readout.combine",))


def test_options_given_beside_a_new_kind_stay_in_whichever_order() -> None:
    given = recipe(prompt={"kind": "prompt_tuning", "initializer": {"kind": "text", "text": "hello"}})
    overrides = [
        "prompt.initializer.range=0.5", "prompt.initializer.kind=uniform", "prompt.bottleneck=8", "prompt.kind=residual"
    ]  # fmt: skip
    for order in (overrides, overrides[::-1]):
        prompt = resolve(given, order).config.prompt
        assert (prompt["kind"], prompt["bottleneck"]) == ("residual", 8)
        assert prompt["initializer"] == {"kind": "uniform", "range": 0.5}


def test_a_whole_section_is_replaced_before_its_parts_in_whichever_order() -> None:
    for order in (["prompt=residual", "prompt.length=7"], ["prompt.length=7", "prompt=residual"]):
        prompt = config(*order, prompt={"kind": "p_tuning_lstm", "length": 3}).prompt
        assert (prompt["kind"], prompt["length"]) == ("residual", 7)


def test_options_given_beside_a_kind_that_lacks_them_are_refused_not_dropped() -> None:
    for override in ("prompt.bottleneck=8", "prompt={kind: residual, bottleneck: 8}"):
        with refused(ConfigError, "there is no such key", where="prompt.bottleneck", fix="Known: initializer, length."):
            config(override, "prompt.kind=prompt_tuning", prompt={"kind": "residual", "bottleneck": 9})


def test_an_option_of_a_section_without_a_kind_goes_to_the_default_kind() -> None:
    assert config("prompt.length=3").prompt["length"] == 3
    assert config("prompt.length=3").prompt["kind"] == "prompt_tuning"
    assert config(prompt={"length": 3}).prompt == config("prompt.length=3").prompt
    assert config("prompt.initializer.first=50").prompt["initializer"] == {"kind": "sampled_vocab", "first": 50}
    assert config("prompt.kind=residual", "prompt.initializer.first=50").prompt["initializer"]["first"] == 50
    with refused(ConfigError, "there is no such key", where="prompt.lenght", fix="Did you mean 'length'?"):
        config("prompt.lenght=3", "prompt.kind=prompt_tuning")
    with refused(ConfigError, "there is no such key", where="prompt.lenght", fix="Did you mean 'length'?"):
        config("prompt.kind=prompt_tuning", prompt={"lenght": 3})


def test_an_option_of_a_readout_without_a_kind_is_refused_with_advice() -> None:
    with refused(ConfigError, "the kind auto takes no options", where="readout", fix="Name the kind: cloze"):
        config("readout.combine=max")


def test_an_option_of_a_task_without_a_kind_is_refused_with_the_kinds() -> None:
    with refused(ConfigError, "a task needs a kind", where="task", fix="support_desk"):
        resolve({}, ["task.shots=16"])


@pytest.mark.parametrize("number", ["1234e56", "010", "1_000", "1.50", "7"])
def test_text_written_as_a_number_keeps_its_spelling(number: str) -> None:
    words = f"task.label_words={{{number}: {number}, other: [{number}1, x]}}"
    c = config(f"backbone.revision={number}", f"task.name={number}", words, f"task.truncate=[{number}]")
    assert (c.backbone.revision, c.task["name"], c.task["truncate"]) == (number, number, [number])
    assert c.task["label_words"] == {number: number, "other": [f"{number}1", "x"]}
    in_recipe = resolve({**recipe(), "backbone": parse_yaml(f"{{revision: {number}}}", "r.yaml")}).config
    assert in_recipe.backbone.revision == number
    assert resolve(parse_yaml(dump_yaml(c.as_dict()), "config.yaml")).config == c


def test_numbers_stay_plain_numbers_however_they_are_written() -> None:
    c = config("training.learning_rate=1e-3", "training.epochs=010", "backbone.quantization={a: 1e3}")
    assert c.as_dict()["training"]["learning_rate"] == 0.001
    assert c.training.epochs == 10
    assert c.digest() == resolve(recipe(), {"training.learning_rate": 0.001, "training.epochs": 10,
                                            "backbone.quantization": {"a": 1000.0}}).config.digest()  # fmt: skip


def test_a_switch_that_is_off_is_left_out_so_ids_are_those_of_before_it() -> None:
    off = config("training.shuffle=every_epoch", "backbone.embed_twice=false")
    assert "shuffle" not in off.as_dict()["training"]
    assert "embed_twice" not in off.as_dict()["backbone"]
    on = [config(switch) for switch in ("training.shuffle=once", "backbone.embed_twice=true")]
    assert len({off.digest(), config().digest(), *(its.digest() for its in on)}) == 3
    assert len({off.pack_key, *(its.pack_key for its in on)}) == 3


# What is refused


@pytest.mark.parametrize("given_recipe", ["x", [1], None, 3])
def test_a_recipe_that_is_no_mapping_is_refused(given_recipe: Any) -> None:
    with refused(ConfigError, "a recipe is a mapping of sections", where="recipe"):
        inspect.unwrap(resolve)(given_recipe)  # without the type checks that only tests have


def test_a_recipe_without_a_task_is_refused() -> None:
    with refused(ConfigError, "a recipe needs a task", where="task", fix="support_desk"):
        resolve({})


def test_misspelt_section_is_refused_with_suggestion() -> None:
    with refused(ConfigError, "there is no such section", where="trainig", fix="Did you mean 'training'?"):
        resolve(recipe(trainig={"epochs": 3}))


@pytest.mark.parametrize(
    ("override", "where", "fix"),
    [
        ("training.epoch=3", "training.epoch", "Did you mean 'epochs'?"),
        ("backbone.modle=x", "backbone.modle", "Did you mean 'model'?"),
        ("seeds.nois=1", "seeds.nois", "Did you mean 'noise'?"),
        ("prompt.lenght=3", "prompt.lenght", "Did you mean 'length'?"),
        ("task.label_word=x", "task.label_word", "Did you mean 'label_words'?"),
        ("prompt.initializer.rnge=3", "prompt.initializer.rnge", "Did you mean 'range'?"),
        ("regularizers.0.sigm=3", "regularizers.0.sigm", "Did you mean 'sigma'?"),
        ("training.zzz=3", "training.zzz", "Known: batch_size"),
    ],
)
def test_misspelt_key_is_refused_with_path_and_suggestion(override: str, where: str, fix: str) -> None:
    with refused(ConfigError, "there is no such key", where=where, fix=fix):
        config(override, prompt={"kind": "residual", "initializer": {"kind": "uniform"}}, regularizers=["gaussian"])


@pytest.mark.parametrize(
    ("override", "what", "where", "fix"),
    [
        ("prompt.kind=resdiual", "there is no prompt encoder 'resdiual'", "prompt.kind", "Did you mean 'residual'?"),
        ("readout.kind=clze", "there is no readout 'clze'", "readout.kind", "Did you mean 'cloze'?"),
        ("task=support_dek", "there is no task 'support_dek'", "task.kind", "Did you mean 'support_desk'?"),
        (
            "prompt.initializer=unifrom",
            "no initializer 'unifrom'",
            "prompt.initializer.kind",
            "Did you mean 'uniform'?",
        ),
    ],
)
def test_misspelt_kind_is_refused_with_path_and_suggestion(override: str, what: str, where: str, fix: str) -> None:
    with refused(ConfigError, what, where=where, fix=fix):
        config(override, prompt="residual")


@pytest.mark.parametrize(
    ("override", "what", "where"),
    [
        ("training.epochs=0", "greater than or equal to 1, got 0", "training.epochs"),
        ("training.epochs=3.5", "got 3.5", "training.epochs"),
        ("training.epochs=many", "got 'many'", "training.epochs"),
        ("training.learning_rate=0", "greater than 0", "training.learning_rate"),
        ("training.learning_rate=.nan", "finite number", "training.learning_rate"),
        ("training.learning_rates.prompt=-1", "greater than or equal to 0", "training.learning_rates.prompt"),
        (
            "training.learning_rates.promt=1",
            "'prompt', 'encoder', 'head' or 'backbone', got 'promt'",
            "training.learning_rates.promt.[key]",
        ),
        ("training.schedule=linaer", "got 'linaer'", "training.schedule"),
        ("training.warmup=1", "less than 1", "training.warmup"),
        ("training.keep_encoder=maybe", "got 'maybe'", "training.keep_encoder"),
        ("backbone.dtype=float16", "got 'float16'", "backbone.dtype"),
        ("seed=-1", "greater than or equal to 0, got -1", "seeds.init"),
        ("seed=x", "got 'x'", "seeds.init"),
        ("seeds=5", "got 5", "seeds"),
        ("backbone=3", "got 3", "backbone"),
        ("training=3", "this must be a mapping, got 3", "training"),
        ("training=adamw", "this must be a mapping, got 'adamw'", "training"),
        ("prompt=5", "this must be a kind or a mapping, got 5", "prompt"),
        ("prompt.length=0", "greater than or equal to 1, got 0", "prompt.length"),
        ("prompt.initializer=3", "this must be a kind or a mapping, got 3", "prompt.initializer"),
        ("task.truncate=text", "valid list, got 'text'", "task.truncate"),
        ("task.label_words=5", "got 5", "task.label_words"),
        ("task.dev_fraction=1", "less than 1", "task.dev_fraction"),
        ("regularizers={kind: gaussian}", "this must be a list such as", "regularizers"),
        ("regularizers=[3]", "this must be a kind or a mapping, got 3", "regularizers.0"),
        ("regularizers=[{kind: gaussian, weight: -1}]", "greater than or equal to 0", "regularizers.0.weight"),
        ("regularizers.0.weight=1", "this must be a list such as", "regularizers"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_its_path(override: str, what: str, where: str) -> None:
    with refused(ConfigError, what, where=where):
        config(override, prompt={"kind": "prompt_tuning"})


# What is trained


@pytest.mark.parametrize(
    ("kind", "group", "known"),
    [
        ("prompt_tuning", "encoder", "prompt, backbone"),
        ("prompt_tuning", "head", "prompt, backbone"),
        ("residual", "head", "prompt, encoder, backbone"),
        ("none", "prompt", "backbone"),
    ],
)
def test_a_rate_for_a_group_that_the_run_does_not_have_is_refused(kind: str, group: str, known: str) -> None:
    what = f"a run with the prompt {kind!r} and the readout 'cloze' has no parameters of the group {group!r}"
    with refused(ConfigError, what, where=f"training.learning_rates.{group}", fix=f"Its groups: {known}."):
        config(f"training.learning_rates.{group}=0.1", "readout.kind=cloze", prompt=kind)


def test_a_changed_prompt_drops_the_rate_of_the_network_that_it_lacks() -> None:
    given = recipe(prompt="residual", training={"learning_rates": {"encoder": 0.1, "backbone": 1e-5}})
    changed = resolve(given, ["prompt.kind=prompt_tuning"])
    assert changed.config.training.learning_rates == {"backbone": 1e-5}
    assert changed.dropped == ("training.learning_rates.encoder",)
    kept = resolve(given, ["prompt.kind=p_tuning_mlp"])
    assert kept.config.training.learning_rates == {"encoder": 0.1, "backbone": 1e-5}
    assert kept.dropped == ()
    with refused(ConfigError, "'encoder'", where="training.learning_rates.encoder", fix="prompt, head, backbone"):
        resolve(given, ["prompt.kind=prompt_tuning", "training.learning_rates.encoder=0.2"])


def test_a_head_is_trained_where_there_is_one() -> None:
    for readout in ("head", "auto"):  # which readout `auto` is, the backbone and the task decide
        assert config("training.learning_rates.head=0.1", f"readout.kind={readout}").training.learning_rates
    given = recipe(prompt="residual", training={"learning_rates": {"head": 0.1}}, readout="head")
    assert resolve(given, ["readout.kind=cloze"]).dropped == ("training.learning_rates.head",)


def test_a_run_trains_something() -> None:
    with refused(ConfigError, "'none' with the readout 'cloze' trains nothing", where="prompt.kind", fix="head"):
        config("readout.kind=cloze", prompt="none")
    assert config("readout.kind=head", prompt="none").prompt == {"kind": "none"}
    assert config("readout.kind=cloze", "training.learning_rates.backbone=1e-5", prompt="none").training.tunes_backbone


def test_a_trained_backbone_is_float32() -> None:
    rate = "training.learning_rates.backbone=1e-5"
    assert config(rate).backbone.dtype == "float32"
    assert config(rate, "backbone.dtype=float32").training.tunes_backbone
    for frozen in (config(), config("training.learning_rates.backbone=0")):
        assert frozen.backbone.dtype == "auto"
        assert not frozen.training.tunes_backbone
    advice = "training.learning_rates.backbone=0"
    with refused(ConfigError, "is float32, got bfloat16", where="backbone.dtype", fix=advice):
        config(rate, "backbone.dtype=bfloat16")
    with refused(ConfigError, "quantized weights cannot be trained", where="backbone.quantization", fix=advice):
        config(rate, "backbone.quantization={quant_method: bitsandbytes}")


@pytest.mark.parametrize("override", ["epochs", "=3", " =3", ""])
def test_an_override_that_is_no_assignment_is_refused(override: str) -> None:
    with refused(ConfigError, f"an override is written key=value, got {override!r}", where="command line"):
        config(override)


def test_an_override_with_broken_yaml_names_its_key() -> None:
    with refused(ConfigError, "not valid YAML", where="task.truncate:1"):
        config("task.truncate=[")


def test_an_override_below_a_value_is_refused() -> None:
    with refused(ConfigError, "this is a value (3), so it has no keys below it", where="training.epochs"):
        config("training.epochs.x=1", training={"epochs": 3})


@pytest.mark.parametrize("position", ["1", "x", "-1"])
def test_an_override_beyond_a_list_is_refused(position: str) -> None:
    where = f"regularizers.{position}"
    with refused(ConfigError, f"the list has 1 entries; write a position from 0, got {position!r}", where=where):
        config(f"regularizers.{position}.weight=1", regularizers=["gaussian"])


def test_options_beside_an_auto_readout_are_refused_not_ignored() -> None:
    with refused(ConfigError, "the kind auto takes no options", where="readout", fix="cloze"):
        config(readout={"kind": "auto", "combine": "max"})


@pytest.mark.parametrize("name", ["task", "prompt", "readout"])
def test_a_section_that_is_a_number_is_refused_though_its_kind_is_given(name: str) -> None:
    with refused(ConfigError, "this is a value (3), so it has no keys below it", where=name):
        config(f"{name}.kind=zzz", **{name: 3})


def test_read_recipe_refuses_a_list(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("- task\n")
    with refused(ConfigError, "a recipe is a mapping of sections such as task", where=str(tmp_path / "r.yaml")):
        read_recipe(tmp_path / "r.yaml")


def test_read_recipe_of_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("")
    with refused(ConfigError, "a recipe is a mapping", where=str(tmp_path / "r.yaml")):
        read_recipe(tmp_path / "r.yaml")


def test_read_recipe_of_a_study_says_what_to_type(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("recipe: {task: support_desk}\nseeds: 3\n")
    with refused(ConfigError, "this is a study", where=str(path), fix=f"trimtab study {path} --dry-run"):
        read_recipe(path)


WORDS = (
    "task prompt readout regularizers training backbone seed seeds kind length initializer 0 1 weight epochs model x"
)
KEYS = st.sampled_from([*WORDS.split(), "label_words", "truncate", ""])
VALUES = st.sampled_from(
    ["", "3", "-1", "x", "[]", "{}", "[gaussian]", "{kind: gaussian}", "residual", "null", "true", ".nan"]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.lists(KEYS, min_size=1, max_size=4), VALUES), max_size=4))
def test_any_overrides_resolve_or_are_refused_as_ours(overrides: list[tuple[list[str], str]]) -> None:
    try:
        resolve(recipe(), [f"{'.'.join(path)}={value}" for path, value in overrides])
    except TrimtabError as error:
        text = str(error)
    else:
        text = "resolved"
    assert text


def test_tokens_of_a_pass_fit_the_device_unless_given() -> None:
    training = resolve({"task": {"kind": "support_desk"}}).config.training
    assert (training.tokens_per_pass("cpu"), training.tokens_per_pass("cuda")) == (2048, 8192)
    assert training.model_copy(update={"max_tokens": 64}).tokens_per_pass("cuda") == 64
