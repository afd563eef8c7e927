"""Overrides: dotted keys set in a copy of a recipe. The order in which they are given does not matter.

First, where a `kind` changes, the recipe's options that the new component lacks are dropped. Then all overrides are
set, whole sections before their parts, so options given beside a new kind stay, and are checked strictly.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.documents import parse_yaml
from trimtab.errors import ConfigError
from trimtab.registry import Registry, prompts, readouts, regularizers, tasks

SECTIONS: dict[str, Registry] = {"task": tasks, "prompt": prompts, "readout": readouts}
"""Sections of a recipe that are components. `regularizers` is a list of such sections."""

DEFAULT_KINDS = {"prompt": "prompt_tuning", "readout": "auto"}
"""Kinds of sections that name none. The readout `auto` is settled when the backbone is known; it has no options."""

Path = tuple[str, ...]

_TEMPLATE = re.compile(r"(.*\.)?template(\.chat(\.\d+\.content)?)?")
_CHAT = re.compile(r"\{\s*chat\s*:\s")


def parse_overrides(overrides: Sequence[str] | Mapping[str, Any]) -> dict[str, Any]:
    """Dotted key -> value, from a mapping or from `key=value` texts with the value in YAML.

    Raises:
        ConfigError: no `=`, no key, or malformed YAML.
    """
    if isinstance(overrides, Mapping):
        return dict(overrides)
    parsed: dict[str, Any] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"an override is written key=value, got {text!r}.", where="command line")
        parsed[key.strip()] = value if _is_template(key.strip(), value) else parse_yaml(value, key.strip())
    return parsed


def _is_template(key: str, value: str) -> bool:
    """Whether a value is the text of a template, whose braces would mean something else in YAML."""
    is_yaml = value[:1] in "\"'" or _CHAT.match(value) or (key.endswith(".chat") and value.startswith("["))
    return bool(_TEMPLATE.fullmatch(key)) and not is_yaml


def apply_overrides(recipe: Mapping[str, Any], overrides: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The recipe with the overrides set, and the dotted names of the options that were dropped.

    Raises:
        ConfigError: a key below a plain value, or a position beyond a list.
    """
    raw, dropped = _copied(recipe), []
    given: dict[Path, Any] = {tuple(key.split(".")): _copied(value) for key, value in overrides.items()}
    for path in sorted(given, key=len):
        if path[-1] == "kind" and len(path) > 1:
            dropped += _change_kind(raw, path[:-1], given[path])
    for path in sorted(given, key=len):
        _set(raw, path, given[path])
    return raw, dropped


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _copied(v) for k, v in value.items()}
    return [_copied(v) for v in value] if isinstance(value, list | tuple) else value


def _change_kind(raw: dict[str, Any], section: Path, kind: Any) -> list[str]:
    """Where the kind of a section changes: drop the options that the new component lacks; returns their names."""
    old, component = _look(raw, section), _component(raw, section)
    if not isinstance(old, dict) or component is None:
        return []
    registry, default = component
    options = _options(registry, kind)
    if options is None or old.get("kind", default) == kind:
        return []
    lost = [option for option in old if option not in ("kind", *options)]
    for option in lost:
        del old[option]
    old["kind"] = kind
    return [".".join((*section, option)) for option in lost]


def _options(registry: Registry, kind: Any) -> Sequence[str] | None:
    """Names of the options of a kind; None where there is no such kind, which is refused later."""
    if kind == "auto":
        return ()
    return tuple(registry.options(kind)) if isinstance(kind, str) and kind in registry.kinds() else None


def _component(raw: Mapping[str, Any], section: Path) -> tuple[Registry, Any] | None:
    """The registry of a section such as `prompt`, `regularizers.0` or `prompt.initializer`, and its default kind."""
    head = 2 if section[0] == "regularizers" else 1
    registry = regularizers if head == 2 else SECTIONS.get(section[0])
    if registry is None or len(section) < head:
        return None
    default: Any = DEFAULT_KINDS.get(section[0])
    for i in range(head, len(section)):
        outer = _look(raw, section[:i])
        if isinstance(outer, list):  # of components of one sort, which have no default
            default = None
            continue
        kind = outer.get("kind", default) if isinstance(outer, dict) else outer or default
        nested = registry.nested(kind, section[i]) if _options(registry, kind) else None
        if nested is None:
            return None
        registry, spec = nested
        default = spec.get("kind") if isinstance(spec, Mapping) else spec
    return registry, default


def _look(node: Any, path: Path) -> Any:
    """What stands at a path; None where there is nothing."""
    for step in path:
        if isinstance(node, list):
            node = node[int(step)] if step.isdecimal() and int(step) < len(node) else None
        else:
            node = node.get(step) if isinstance(node, dict) else None
    return node


def _set(raw: dict[str, Any], path: Path, value: Any) -> None:
    node: Any = raw
    for i, step in enumerate(path[:-1]):
        node = _child(node, step, ".".join(path[: i + 1]))
    node[_index(node, path[-1], ".".join(path)) if isinstance(node, list) else path[-1]] = value


def _child(node: Any, step: str, where: str) -> Any:
    """Descend one step; a section that is only a kind becomes a mapping, a missing one is made."""
    key: Any = _index(node, step, where) if isinstance(node, list) else step
    child = node[key] if isinstance(node, list) else node.get(key)
    if isinstance(child, str):
        child = {} if step == "template" else {"model" if where == "backbone" else "kind": child}
    elif child is None:
        child = {}
    if not isinstance(child, dict | list):
        raise ConfigError(f"this is a value ({child!r}), so it has no keys below it.", where=where)
    node[key] = child
    return child


def _index(node: list[Any], step: str, where: str) -> int:
    if not step.isdecimal() or int(step) >= len(node):
        raise ConfigError(f"the list has {len(node)} entries; write a position from 0, got {step!r}.", where=where)
    return int(step)
