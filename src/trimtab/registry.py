"""Registries: a folder is scanned on first look-up, and a constructor is its own schema.

A component is a class whose *keyword-only* constructor parameters are its options; positional parameters are context
that trimtab supplies. From that signature the registry builds a strict pydantic model, so an unknown or misspelt key
is an error that names its path. A parameter annotated `Annotated[Interface, registry]` nests another component, one
annotated `Annotated[list[Interface], registry]` several of them.

A YAML file in the folder is a preset: it names the `kind` it builds on and gives options for it. Third parties add
components by an entry point of the group `trimtab` that names a module to import, or by the environment variable
TRIMTAB_PLUGINS, which names modules, separated by commas.
"""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache, partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

import pydantic
from pydantic import BaseModel, ConfigDict

from trimtab.documents import read_yaml
from trimtab.errors import ConfigError, TrimtabError, suggest

Spec = Mapping[str, Any] | str
C = TypeVar("C", bound=type)

PLUGINS = "TRIMTAB_PLUGINS"
"""The environment variable that names modules to import."""


class Registry:
    """All components of one extension point.

    Args:
        noun: what one of them is called in messages, such as "prompt encoder".
        module: the package or module that holds them; scanned on first use.
    """

    def __init__(self, noun: str, module: str) -> None:
        self.noun, self.module = noun, module
        self._classes: dict[str, type] = {}
        self._presets: dict[str, dict[str, Any]] = {}
        self._scanned = False

    def register(self, kind: str) -> Callable[[C], C]:
        """Class decorator: make a component known under `kind`."""

        def keep(cls: C) -> C:
            known = self._classes.get(kind)
            if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
                raise ConfigError(f"two components of the sort {self.noun!r} are called {kind!r}.")
            self._classes[kind] = cls
            return cls

        return keep

    def _scan(self) -> None:
        if self._scanned:
            return
        self._scanned = True
        package = importlib.import_module(self.module)
        for folder in map(Path, getattr(package, "__path__", ())):
            for info in pkgutil.walk_packages([str(folder)], prefix=f"{self.module}."):
                importlib.import_module(info.name)
            for file in sorted(folder.rglob("*.yaml")):
                self._presets[file.relative_to(folder).with_suffix("").as_posix()] = read_yaml(file)
        try:
            _import_plugins()
        except TrimtabError:
            self._scanned = False
            raise

    def kinds(self) -> list[str]:
        """All known kinds, presets included, sorted."""
        self._scan()
        return sorted({*self._classes, *self._presets})

    def get(self, kind: str, path: str = "") -> type:
        """The class behind `kind` (behind a preset: the class it builds on).

        Raises:
            ConfigError: no such kind; the message suggests the nearest one.
        """
        self._scan()
        kind = str(self._presets.get(kind, {}).get("kind", kind))
        if kind not in self._classes:
            where = f"{path}.kind" if path else None
            raise ConfigError(f"there is no {self.noun} {kind!r}.", where=where, fix=suggest(kind, self.kinds()))
        return self._classes[kind]

    def summary(self, kind: str) -> str:
        """One line about a kind: the preset's `about`, or the first line of the class docstring."""
        cls = self.get(kind)
        about = self._presets.get(kind, {}).get("about")
        return str(about or (inspect.getdoc(cls) or "").split("\n")[0])

    def options(self, kind: str) -> dict[str, inspect.Parameter]:
        """The keyword-only constructor parameters of a kind, with resolved annotations."""
        return dict(_options(self.get(kind)))

    def nested(self, kind: str, option: str) -> tuple[Registry, Any] | None:
        """The registry behind an option that is itself a component, and its default as a spec; None for other options.

        An option that is left out, or given without a kind, is filled up from the default.
        """
        parameter = self.options(kind).get(option)
        registry = None if parameter is None else _nested_registry(parameter.annotation)
        if parameter is None or registry is None:
            return None
        registry._scan()
        return registry, registry.describe(parameter.default)

    def resolve(self, spec: Spec, path: str) -> dict[str, Any]:
        """Plain data with every option filled in, presets expanded and nested components resolved.

        Options that a component names in `controls` are left out where they are at their defaults, so ids of runs are
        those of before there were such options.

        Raises:
            ConfigError: no kind, an unknown kind, an unknown or missing option, a value of the wrong type.
        """
        given: dict[str, Any] = {"kind": spec} if isinstance(spec, str) else dict(spec)
        if not isinstance(given.get("kind"), str):
            raise ConfigError(
                f"a {self.noun} needs a kind, got {given!r}.", where=path, fix=f"Known: {', '.join(self.kinds())}."
            )
        name = given["kind"]
        cls = self.get(name, path)
        options = self.options(name)
        if name in self._presets:
            preset = {k: v for k, v in self._presets[name].items() if k != "about"}
            given = {**preset, **given, "kind": preset["kind"]}
            if "name" in options:
                given.setdefault("name", name)
        kind = given.pop("kind")
        for option in options:
            if (nested := self.nested(kind, option)) is not None:
                registry, default = nested
                value = given.get(option, default)
                if (value is None and default is None) or value is inspect.Parameter.empty:
                    continue
                if _is_list(options[option].annotation):
                    given[option] = registry._resolve_list(value, f"{path}.{option}")
                    continue
                if not isinstance(value, Mapping | str):
                    raise ConfigError(f"this must be a kind or a mapping, got {value!r}.", where=f"{path}.{option}")
                if isinstance(value, Mapping) and isinstance(default, Mapping) and "kind" not in value:
                    value = {**default, **value}
                given[option] = registry.resolve(value, f"{path}.{option}")
        full = validated(_schema(cls), given, path).model_dump()
        off = [name for name in getattr(cls, "controls", ()) if full[name] == options[name].default]
        return {"kind": kind, **{name: value for name, value in full.items() if name not in off}}

    def _resolve_list(self, given: Any, path: str) -> list[dict[str, Any]]:
        """Several components of this sort."""
        if not isinstance(given, Sequence) or isinstance(given, str):
            raise ConfigError(f"this must be a list of kinds or mappings, got {given!r}.", where=path)
        for i, spec in enumerate(given):
            if not isinstance(spec, Mapping | str):
                raise ConfigError(f"this must be a kind or a mapping, got {spec!r}.", where=f"{path}.{i}")
        return [self.resolve(spec, f"{path}.{i}") for i, spec in enumerate(given)]

    def build(self, resolved: Mapping[str, Any], *context: Any) -> Any:
        """Construct a component from resolved plain data and its positional context, which a component of the same
        sort inside it shares."""
        options = self.options(resolved["kind"])
        values = {}
        for option, value in resolved.items():
            if option != "kind":
                nested = _nested_registry(options[option].annotation)
                is_component = nested is not None and value is not None
                inner = context if nested is self else ()
                if is_component and isinstance(value, list):
                    values[option] = [nested.build(its, *inner) for its in value]  # type: ignore[union-attr]
                else:
                    values[option] = nested.build(value, *inner) if is_component else value  # type: ignore[union-attr]
        return self.get(resolved["kind"])(*context, **values)

    def describe(self, component: Any) -> Any:
        """The spec of a dataclass component, such as a constructor's default; anything else passes through."""
        if isinstance(component, str | Mapping) or not is_dataclass(component):
            return component
        kind = next(k for k, cls in self._classes.items() if cls is type(component))
        return {"kind": kind, **{f.name: getattr(component, f.name) for f in fields(component)}}


def _import_plugins() -> None:
    """Import what others add.

    Raises:
        ConfigError: a module cannot be imported. It is not passed over: a recipe that needs it would be told that there
            is no such kind.
    """
    wanted: list[tuple[str, Callable[[], Any], str]]
    wanted = [(point.value, point.load, f"entry point {point.name}") for point in entry_points(group="trimtab")]
    named = filter(None, (name.strip() for name in os.environ.get(PLUGINS, "").split(",")))
    wanted += [(name, partial(importlib.import_module, name), PLUGINS) for name in named]
    for name, load, where in wanted:
        try:
            load()
        except TrimtabError:
            raise
        except Exception as error:
            raise ConfigError(
                f"the plug-in {name!r} cannot be imported ({type(error).__name__}: {error}).",
                where=where,
                fix="Install its package and what it needs, or put its folder on PYTHONPATH; or leave it out.",
            ) from error


def _is_list(annotation: Any) -> bool:
    """Whether an annotation nests several components."""
    return typing.get_origin(typing.get_args(annotation)[0]) is list


def _nested_registry(annotation: Any) -> Registry | None:
    return next((m for m in getattr(annotation, "__metadata__", ()) if isinstance(m, Registry)), None)


@cache
def _options(cls: type) -> Mapping[str, inspect.Parameter]:
    """The keyword-only constructor parameters of a class, with resolved annotations."""
    hints = typing.get_type_hints(inspect.unwrap(cls.__init__), include_extras=True)  # type: ignore[misc]
    parameters = inspect.signature(cls).parameters.values()
    return {
        p.name: p.replace(annotation=hints.get(p.name, p.annotation))
        for p in parameters
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    }


@cache
def _schema(cls: type) -> type[BaseModel]:
    """What checks the options of a class against its signature, and fills in defaults."""
    definitions: dict[str, Any] = {}
    for option, p in _options(cls).items():
        annotation = Any if _nested_registry(p.annotation) is not None else p.annotation
        definitions[option] = (annotation, ... if p.default is inspect.Parameter.empty else p.default)
    config = ConfigDict(extra="forbid", coerce_numbers_to_str=True, allow_inf_nan=False, arbitrary_types_allowed=True)
    return pydantic.create_model(cls.__name__, __config__=config, **definitions)


M = TypeVar("M", bound=BaseModel)


def validated(schema: type[M], given: Mapping[str, Any], path: str) -> M:
    """`schema(**given)`, with pydantic's complaint turned into one sentence that names the key.

    Raises:
        ConfigError: an unknown key (with a suggestion), a missing one, or a value that does not fit.
    """
    try:
        return schema.model_validate(dict(given))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        if isinstance(ours := first.get("ctx", {}).get("error"), TrimtabError):
            raise ours from None
        where = ".".join([path, *map(str, first["loc"])]).strip(".")
        if first["type"] == "extra_forbidden":
            key = str(first["loc"][-1])
            known = _known_keys(schema, first["loc"][:-1])
            raise ConfigError("there is no such key.", where=where, fix=suggest(key, known)) from None
        if first["type"] == "missing":
            raise ConfigError("this key is required.", where=where) from None
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{message}, got {first['input']!r}.", where=where) from None


def _known_keys(schema: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    for step in location:
        annotation = schema.model_fields[step].annotation if step in schema.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        schema = annotation
    return list(schema.model_fields)


initializers = Registry("initializer", "trimtab.initializers")
families = Registry("backbone family", "trimtab.backbones")
prompts = Registry("prompt encoder", "trimtab.prompts")
readouts = Registry("readout", "trimtab.readouts")
tasks = Registry("task", "trimtab.tasks")
regularizers = Registry("regularizer", "trimtab.regularizers")
trackers = Registry("tracker", "trimtab.trackers")
tunings = Registry("way to train a backbone", "trimtab.tunings")
exports = Registry("export", "trimtab.exporting")
checks = Registry("check", "trimtab.diagnosis.checks")
