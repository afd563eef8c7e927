"""YAML without its traps: 1.2 booleans only, `1e-3` is a number, keys are text, duplicate keys are errors.

PyYAML reads `no`, `off` and `y`-like words as booleans and `1e-3` as text; a label called `no` would become False.
Whether `010` is ten or a word only its reader knows, so a number remembers how it was written: `str(number)` says it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeVar

import yaml

from trimtab.errors import ConfigError

_FLOAT = re.compile(r"^[-+]?(\d+\.\d*|\.\d+|\d+)([eE][-+]?\d+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$")
_INT = re.compile(r"^[-+]?\d+$")


class _WrittenInt(int):
    """An int that `str` shows as it was written."""

    spelling: str

    def __str__(self) -> str:
        return self.spelling


class _WrittenFloat(float):
    """A float that `str` shows as it was written."""

    spelling: str

    def __str__(self) -> str:
        return self.spelling


N = TypeVar("N", _WrittenInt, _WrittenFloat)


class _Loader(yaml.SafeLoader):
    """SafeLoader with the YAML 1.2 core schema for booleans and numbers."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012  (PyYAML's own class attribute)
    yaml_constructors = {  # noqa: RUF012  (likewise; only what JSON has too, so no dates, sets or bytes)
        tag: yaml.SafeLoader.yaml_constructors[tag]
        for tag in (None, *(f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "str", "seq", "map")))
    }


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
        if key is None:
            raise yaml.constructor.ConstructorError(None, None, "a key must be plain text", key_node.start_mark)
        if key in result:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", key_node.start_mark)
        result[key] = loader.construct_object(value_node, deep=True)
    return result


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    return _written(_WrittenInt(node.value), node.value)


def _construct_float(loader: _Loader, node: yaml.ScalarNode) -> float:
    return _written(_WrittenFloat(re.sub(r"\.(?=inf|nan)", "", node.value.lower())), node.value)


def _written(number: N, spelling: str) -> N:
    number.spelling = spelling
    return number


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_mapping)
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|True|false|False)$"), list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)


def parse_yaml(text: str, where: str) -> Any:
    """Parse YAML text.

    Raises:
        ConfigError: malformed YAML or a duplicate key, with `where` and the line.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"{where}:{mark.line + 1}" if mark is not None else where
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"this is not valid YAML: {problem}.", where=line) from None
    except (ValueError, RecursionError) as error:  # `!!int x`, thousands of digits, thousands of brackets
        raise ConfigError(f"this is not valid YAML: {error}.", where=where) from None


def read_yaml(path: Path) -> Any:
    """Read a YAML file; the same rules and errors as `parse_yaml`."""
    where = str(path).encode("utf-8", "replace").decode()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError("there is no such file.", where=where) from None
    except OSError as error:
        raise ConfigError(f"the file cannot be read: {error.strerror}.", where=where) from None
    except UnicodeDecodeError:
        raise ConfigError("the file is not UTF-8 text.", where=where) from None
    except ValueError:  # half of a surrogate pair, or a null
        raise ConfigError("no file can be called that.", where=where) from None
    return parse_yaml(text, where)


class _Dumper(yaml.SafeDumper):
    """Writes text that both this module and plain YAML 1.1 read back alike."""


def _represent_float(dumper: _Dumper, value: float) -> yaml.ScalarNode:
    text = float.__repr__(value)
    if "e" in text and "." not in text:
        text = text.replace("e", ".0e")
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


def _represent_text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    """PyYAML writes these line breaks raw, and reads them back as a space."""
    style = '"' if any(c in value for c in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


def _represent_int(dumper: _Dumper, value: int) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:int", int.__repr__(value))


_Dumper.add_representer(float, _represent_float)
_Dumper.add_representer(_WrittenFloat, _represent_float)
_Dumper.add_representer(_WrittenInt, _represent_int)
_Dumper.add_representer(str, _represent_text)
for _tag, _pattern, _first in (("float", _FLOAT, "-+0123456789."), ("int", _INT, "-+0123456789")):
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, list(_first))


def dump_yaml(value: Any) -> str:
    """Write plain data as YAML, keys in their order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
