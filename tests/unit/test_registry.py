"""Registries: scanning, presets, schemas from constructors, nesting, and errors that name the key."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import pytest
from pydantic import Field

from tests.unit.refusals import refused
from trimtab.errors import ConfigError
from trimtab.registry import Registry, families, initializers, prompts, readouts, regularizers, tasks

inner = Registry("filling", "tests.unit.refusals")
outer = Registry("cake", "tests.unit.refusals")


class Filling(Protocol):
    """What is inside."""


@inner.register("jam")
@dataclass(frozen=True, kw_only=True)
class Jam(Filling):
    """Sweet.

    Args:
        fruit: which one.
    """

    fruit: str = "plum"
    grams: Annotated[int, Field(ge=0)] = 20


@inner.register("cream")
@dataclass(frozen=True, kw_only=True)
class Cream(Filling):
    """White."""

    fat: float


@outer.register("tart")
class Tart:
    """Flat and round.

    More about it.
    """

    def __init__(
        self,
        oven: str,
        *,
        layers: Annotated[int, Field(ge=1)],
        filling: Annotated[Filling, inner] = Jam(fruit="cherry"),
        shape: Literal["round", "square"] = "round",
        name: str = "tart",
        tags: list[str] = [],  # noqa: B006
        height: float = 1.0,
    ) -> None:
        self.oven, self.layers, self.filling, self.shape = oven, layers, filling, shape


bakery = Registry("bakery", "tests.unit.refusals")
bakery.register("tart")(Tart)


@bakery.register("tray")
class Tray:
    """Several of them."""

    def __init__(self, oven: str, *, tarts: Annotated[list[Tart], bakery], fillings: Annotated[list[Filling], inner]):
        self.oven, self.tarts, self.fillings = oven, tarts, fillings


def test_several_components_are_resolved_and_built_one_by_one() -> None:
    spec = {"kind": "tray", "tarts": [{"kind": "tart", "layers": 1}], "fillings": ["jam", {"kind": "cream", "fat": 3}]}
    found = bakery.resolve(spec, "cake")
    assert [its["kind"] for its in found["fillings"]] == ["jam", "cream"]
    assert found["tarts"][0]["filling"]["fruit"] == "cherry"
    tray = bakery.build(found, "gas")
    assert (tray.oven, tray.tarts[0].oven, tray.tarts[0].layers) == ("gas", "gas", 1), "one of their sort is theirs"
    assert tray.fillings == [Jam(), Cream(fat=3)]


@pytest.mark.parametrize(
    ("fillings", "what", "where"),
    [
        ("jam", "this must be a list of kinds or mappings, got 'jam'", "cake.fillings"),
        ({"kind": "jam"}, "this must be a list of kinds or mappings", "cake.fillings"),
        (["jam", 3], "this must be a kind or a mapping, got 3", "cake.fillings.1"),
    ],
)
def test_a_list_of_components_is_a_list(fillings: Any, what: str, where: str) -> None:
    with refused(ConfigError, what, where=where):
        bakery.resolve({"kind": "tray", "tarts": [], "fillings": fillings}, "cake")


def test_what_is_wrong_in_a_list_of_components_is_named() -> None:
    with refused(ConfigError, "there is no filling 'jem'", where="cake.fillings.1.kind", fix="Did you mean 'jam'?"):
        bakery.resolve({"kind": "tray", "tarts": [], "fillings": ["jam", "jem"]}, "cake")
    with refused(ConfigError, "this key is required", where="cake.fillings"):
        bakery.resolve({"kind": "tray", "tarts": []}, "cake")


def test_resolve_fills_in_every_option_and_the_nested_ones() -> None:
    assert outer.resolve({"kind": "tart", "layers": 2}, "cake") == {
        "kind": "tart",
        "layers": 2,
        "filling": {"kind": "jam", "fruit": "cherry", "grams": 20},
        "shape": "round",
        "name": "tart",
        "tags": [],
        "height": 1.0,
    }


def test_a_control_that_is_off_is_left_out() -> None:
    @inner.register("glaze")
    @dataclass(frozen=True, kw_only=True)
    class Glaze(Filling):
        """Shiny."""

        controls = ("salted",)
        sugar: int = 1
        salted: bool = False

    assert inner.resolve("glaze", "f") == inner.resolve({"kind": "glaze", "salted": False}, "f")
    assert inner.resolve("glaze", "f") == {"kind": "glaze", "sugar": 1}
    salted = inner.resolve({"kind": "glaze", "salted": True}, "f")
    assert salted == {"kind": "glaze", "sugar": 1, "salted": True}
    assert [inner.build(its).salted for its in (salted, inner.resolve("glaze", "f"))] == [True, False]


def test_positional_parameters_are_context_and_no_options() -> None:
    assert "oven" not in outer.options("tart")
    with refused(ConfigError, "there is no such key", where="cake.oven", fix="Known: filling"):
        outer.resolve({"kind": "tart", "layers": 2, "oven": "x"}, "cake")


def test_a_kind_alone_is_short_for_a_mapping() -> None:
    assert inner.resolve("jam", "f") == inner.resolve({"kind": "jam"}, "f")


def test_resolving_a_resolved_spec_changes_nothing() -> None:
    once = outer.resolve({"kind": "tart", "layers": 2, "filling": {"kind": "cream", "fat": 3}}, "cake")
    assert outer.resolve(once, "cake") == once
    assert once["filling"] == {"kind": "cream", "fat": 3.0}


def test_a_number_where_text_belongs_is_taken_as_text() -> None:
    """YAML reads `name: 7` as a number."""
    assert outer.resolve({"kind": "tart", "layers": 1, "name": 7}, "cake")["name"] == "7"


def test_resolve_does_not_change_what_it_is_given() -> None:
    given: dict[str, Any] = {"kind": "tart", "layers": 2}
    outer.resolve(given, "cake")
    assert given == {"kind": "tart", "layers": 2}


def test_build_constructs_nested_components_and_passes_context() -> None:
    tart = outer.build(outer.resolve({"kind": "tart", "layers": 3, "filling": "jam"}, "cake"), "gas")
    assert (tart.oven, tart.layers, tart.filling) == ("gas", 3, Jam())


def test_misspelt_option_is_refused_with_path_and_suggestion() -> None:
    with refused(ConfigError, "there is no such key", where="cake.layer", fix="Did you mean 'layers'?"):
        outer.resolve({"kind": "tart", "layers": 1, "layer": 2}, "cake")


def test_misspelt_nested_option_is_refused_with_its_full_path() -> None:
    with refused(ConfigError, "there is no such key", where="cake.filling.friut", fix="Did you mean 'fruit'?"):
        outer.resolve({"kind": "tart", "layers": 1, "filling": {"kind": "jam", "friut": "x"}}, "cake")


def test_unknown_kind_is_refused_with_suggestion() -> None:
    with refused(ConfigError, "there is no filling 'jan'", where="cake.filling.kind", fix="Did you mean 'jam'?"):
        outer.resolve({"kind": "tart", "layers": 1, "filling": "jan"}, "cake")


def test_unknown_kind_without_a_path_names_no_place() -> None:
    with refused(ConfigError, "there is no cake 'pie'", fix="Known: tart"):
        outer.get("pie")


def test_missing_required_option_is_named() -> None:
    with refused(ConfigError, "this key is required", where="cake.layers"):
        outer.resolve("tart", "cake")


def test_missing_required_nested_option_is_named() -> None:
    with refused(ConfigError, "this key is required", where="cake.filling.fat"):
        outer.resolve({"kind": "tart", "layers": 1, "filling": "cream"}, "cake")


@pytest.mark.parametrize(
    ("option", "value", "what"),
    [
        ("layers", 0, "greater than or equal to 1, got 0"),
        ("layers", 2.5, "got 2.5"),
        ("layers", "many", "got 'many'"),
        ("shape", "oval", "'round' or 'square', got 'oval'"),
        ("tags", "a", "valid list, got 'a'"),
        ("height", float("nan"), "finite number, got nan"),
        ("height", float("inf"), "finite number, got inf"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_its_path(option: str, value: Any, what: str) -> None:
    with refused(ConfigError, what, where=f"cake.{option}"):
        outer.resolve({"kind": "tart", "layers": 1, option: value}, "cake")


@pytest.mark.parametrize("spec", [{}, {"layers": 1}, {"kind": 3}, {"kind": None}, {"kind": ["tart"]}])
def test_a_spec_without_a_kind_is_refused(spec: dict[str, Any]) -> None:
    with refused(ConfigError, "a cake needs a kind, got", where="cake", fix="Known: tart."):
        outer.resolve(spec, "cake")


@pytest.mark.parametrize("value", [3, None, ["jam"], True])
def test_a_nested_spec_that_is_no_mapping_is_refused(value: Any) -> None:
    with refused(ConfigError, "this must be a kind or a mapping, got", where="cake.filling"):
        outer.resolve({"kind": "tart", "layers": 1, "filling": value}, "cake")


def test_two_components_of_one_name_are_refused() -> None:
    with refused(ConfigError, "two components of the sort 'filling' are called 'jam'"):
        inner.register("jam")(Cream)


def test_registering_the_same_class_twice_is_harmless() -> None:
    assert inner.register("jam")(Jam) is Jam


def test_summary_is_the_first_line_of_the_docstring() -> None:
    assert outer.summary("tart") == "Flat and round."


def test_describe_turns_a_dataclass_default_into_a_spec() -> None:
    assert inner.describe(Jam(fruit="fig")) == {"kind": "jam", "fruit": "fig", "grams": 20}
    assert inner.describe("jam") == "jam"


@pytest.fixture
def plugin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package `bakery` with one component in a module of its own, and presets beside it."""
    package = tmp_path / "bakery"
    (package / "sets").mkdir(parents=True)
    (package / "__init__.py").write_text("from trimtab.registry import Registry\nbakes = Registry('bake', 'bakery')\n")
    (package / "bun.py").write_text(
        "from bakery import bakes\n@bakes.register('bun')\nclass Bun:\n    'Round.'\n"
        "    def __init__(self, *, name: str = 'bun', seeds: int = 0): self.name, self.seeds = name, seeds\n"
    )
    (package / "sesame.yaml").write_text("about: With seeds.\nkind: bun\nseeds: 50\n")
    (package / "sets" / "box.yaml").write_text("kind: bun\nname: boxed\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield package
    for name in [n for n in sys.modules if n.startswith(("bakery", "thirdparty"))]:
        del sys.modules[name]


def test_a_folder_is_scanned_on_first_look_up(plugin_folder: Path) -> None:
    from bakery import bakes  # type: ignore[import-not-found]

    assert bakes.kinds() == ["bun", "sesame", "sets/box"]


def test_a_preset_gives_options_and_the_user_overrides_them(plugin_folder: Path) -> None:
    from bakery import bakes

    assert bakes.resolve("sesame", "x") == {"kind": "bun", "name": "sesame", "seeds": 50}
    assert bakes.resolve({"kind": "sesame", "seeds": 3}, "x")["seeds"] == 3
    assert bakes.resolve("sets/box", "x")["name"] == "boxed"
    assert bakes.summary("sesame") == "With seeds."
    assert bakes.summary("sets/box") == "Round."
    assert bakes.get("sesame") is bakes.get("bun")


def test_a_misspelt_key_in_a_preset_s_section_is_refused(plugin_folder: Path) -> None:
    from bakery import bakes

    with refused(ConfigError, "there is no such key", where="x.seed", fix="Did you mean 'seeds'?"):
        bakes.resolve({"kind": "sesame", "seed": 1}, "x")


def test_a_broken_preset_names_its_file(plugin_folder: Path) -> None:
    from bakery import bakes

    (plugin_folder / "broken.yaml").write_text("a: 1\na: 2\n")
    with refused(ConfigError, "stands twice", where=f"{plugin_folder / 'broken.yaml'}:2"):
        bakes.kinds()


def test_entry_points_add_components(plugin_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bakery import bakes

    (plugin_folder.parent / "thirdparty.py").write_text(
        "from bakery import bakes\n@bakes.register('roll')\nclass Roll:\n    'Long.'\n"
    )
    point = importlib.metadata.EntryPoint("mine", "thirdparty", "trimtab")
    monkeypatch.setattr("trimtab.registry.entry_points", lambda group: [point] if group == "trimtab" else [])
    assert "roll" in bakes.kinds()


def test_modules_that_the_environment_names_add_components(
    plugin_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bakery import bakes

    for kind in ("roll", "knot"):
        (plugin_folder.parent / f"thirdparty_{kind}.py").write_text(
            f"from bakery import bakes\n@bakes.register('{kind}')\nclass Some:\n    'Long.'\n"
        )
    monkeypatch.setenv("TRIMTAB_PLUGINS", "thirdparty_roll, thirdparty_knot,")
    assert {"roll", "knot"} <= set(bakes.kinds())


def test_a_plugin_that_cannot_be_imported_is_named_every_time(
    plugin_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bakery import bakes

    (plugin_folder.parent / "thirdparty.py").write_text("1 / 0\n")
    point = importlib.metadata.EntryPoint("mine", "thirdparty", "trimtab")
    for _ in range(2):
        with monkeypatch.context() as changed:
            changed.setattr("trimtab.registry.entry_points", lambda group: [point])
            what = "the plug-in 'thirdparty' cannot be imported (ZeroDivisionError: division by zero)"
            with refused(ConfigError, what, where="entry point mine", fix="PYTHONPATH"):
                bakes.kinds()
    monkeypatch.setenv("TRIMTAB_PLUGINS", "thirdparty_that_is_not_there")
    with refused(ConfigError, "No module named", where="TRIMTAB_PLUGINS", fix="leave it out"):
        bakes.kinds()


@pytest.mark.parametrize(
    ("registry", "kinds"),
    [
        (prompts, {"prompt_tuning", "p_tuning_lstm", "p_tuning_mlp", "residual"}),
        (initializers, {"sampled_vocab", "uniform", "class_labels", "text", "from_run"}),
        (readouts, {"cloze"}),
        (tasks, {"table", "support_desk", "product_reviews"}),
        (regularizers, {"gaussian"}),
        (families, {"bert"}),
    ],
)
def test_shipped_components_are_found(registry: Registry, kinds: set[str]) -> None:
    assert kinds <= set(registry.kinds())
    assert all(registry.summary(k) for k in kinds)


@pytest.mark.parametrize("registry", [prompts, initializers, readouts, tasks, regularizers])
def test_every_option_of_a_shipped_component_is_described_in_its_docstring(registry: Registry) -> None:
    for kind in registry.kinds():
        text = registry.get(kind).__doc__ or ""
        for option in registry.options(kind):
            assert f"    {option}:" in text, (kind, option)
