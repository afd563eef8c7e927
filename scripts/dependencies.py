"""Every dependency with its license and its reason; fails on one that nothing imports, or that nobody can explain.

    make audit
    python scripts/dependencies.py --root .

What pyproject.toml declares is held against `WHY` below and against the imports of the code: dependencies and extras
must be imported by the package, those of `dev` by package, tests or scripts, unless they are tools. What the package
imports must be declared, or come with something that is. Licenses are what the installed distributions state.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

TOOL = ""
"""In the place of a module: it is run, not imported."""

WHY: dict[str, tuple[str, str]] = {
    "torch": ("torch", "tensors, autograd, optimizers"),
    "transformers": ("transformers", "the frozen language models and their tokenizers"),
    "safetensors": ("safetensors", "tensors on disk without pickle"),
    "numpy": ("numpy", "arrays of bundles, statistics and landscapes"),
    "pydantic": ("pydantic", "strict options of components, schemas of files"),
    "PyYAML": ("yaml", "recipes and study files"),
    "typer": ("typer", "the command line"),
    "rich": ("rich", "tables and progress in terminals"),
    "jaxtyping": ("jaxtyping", "shapes of tensors as types"),
    "scikit-learn": ("sklearn", "F1, confusion matrices, stratified draws"),
    "scipy": ("scipy", "distributions and tests of the statistics"),
    "seqeval": ("seqeval", "entity F1 as it is published"),
    "pyarrow": ("pyarrow", "Parquet tables"),
    "datasets": ("datasets", "tables of the Hugging Face hub"),
    "ray": ("ray", "studies on a cluster"),
    "optuna": ("optuna", "search in studies"),
    "tensorboard": ("tensorboard", "a tracker"),
    "wandb": ("wandb", "a tracker"),
    "trackio": ("trackio", "a tracker"),
    "mlflow": ("mlflow", "a tracker"),
    "peft": ("peft", "LoRA as a baseline; what exports and imports are held against"),
    "matplotlib": ("matplotlib", "pictures of landscapes"),
    "lm-eval": ("lm_eval", "scores exported prompts as others do"),
    "fastapi": ("fastapi", "routes and schema of the server"),
    "uvicorn": ("uvicorn", "HTTP"),
    "beartype": (TOOL, "checks shapes whenever tests run"),
    "hypothesis": ("hypothesis", "property-based tests"),
    "jsonschema": ("jsonschema", "answers of the server against its schema"),
    "mypy": (TOOL, "types"),
    "types-PyYAML": (TOOL, "types of PyYAML"),
    "ruff": (TOOL, "style"),
    "playwright": ("playwright", "the pages in a browser"),
    "pytest": ("pytest", "tests"),
    "pytest-xdist": (TOOL, "tests side by side"),
    "requests": ("requests", "tests speak HTTP with it"),
    "schemathesis": ("schemathesis", "requests made from the server's schema"),
    "sphinx": (TOOL, "the documentation site"),
    "myst-parser": (TOOL, "its pages in Markdown"),
    "furo": (TOOL, "how it looks"),
    "sphinx-copybutton": (TOOL, "copies its commands"),
    "sentencepiece": ("sentencepiece", "the tokenizer that ours is held against"),
}
"""Name -> the module that is imported, and what for."""

COMPANIONS = {"tokenizers": "transformers", "starlette": "fastapi", "nltk": None}
"""Modules that come with a dependency; None: used where it happens to be installed."""

BENCHES = {"benchmark", "lm-eval"}
"""Extras whose modules tests and scripts import, beside `dev`."""

ALLOWED = re.compile(r"Apache|MIT|BSD|MPL|PSF|Python Software Foundation|matplotlib|ISC", re.IGNORECASE)


@dataclass(frozen=True)
class Declared:
    """A dependency, and the lists of pyproject.toml that name it: `package`, or extras."""

    name: str
    lists: tuple[str, ...]


def declared(root: Path) -> list[Declared]:
    """What pyproject.toml asks for, in its order."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: dict[str, list[str]] = {}
    for where, lines in {"package": project["dependencies"], **project["optional-dependencies"]}.items():
        for line in lines:
            found.setdefault(re.split(r"[\s<>=!~\[;]", line)[0], []).append(where)
    return [Declared(name, tuple(lists)) for name, lists in found.items()]


def imported(folder: Path) -> set[str]:
    """Top-level modules that code below a folder imports."""
    return {name for path in folder.rglob("*.py") for name in _imports(path.read_text(encoding="utf-8"))}


def mentioned(folders: Sequence[Path]) -> set[str]:
    """Modules that code seems to import, or names to something that does: enough to tell that none is forgotten."""
    ways = (r"^\s*(?:from|import)\s+(\w+)", r"(?:importorskip|import_module|find_spec)\([\"'](\w+)",
            r'^ +module\b.*= .*"(\w+)"$')  # fmt: skip
    pattern = re.compile("|".join(ways), re.MULTILINE)
    texts = (path.read_text(encoding="utf-8") for folder in folders for path in folder.rglob("*.py"))
    return {name for text in texts for names in pattern.findall(text) for name in names}


def _imports(source: str) -> Iterator[str]:
    """
    >>> sorted(_imports("import a.b\\nfrom c import d\\nfrom . import e"))
    ['a', 'c']
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (a.name.split(".")[0] for a in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module.split(".")[0]


def license_of(name: str) -> str | None:
    """What the installed distribution states; None where it is not installed."""
    try:
        its = metadata(name)
    except PackageNotFoundError:
        return None
    classifiers = [c.rpartition(" :: ")[2] for c in its.get_all("Classifier") or () if c.startswith("License")]
    stated = its.get("License-Expression") or ", ".join(classifiers) or its.get("License") or "none stated"
    return stated.strip().splitlines()[0]


def complaints(root: Path) -> list[str]:
    """What is wrong with the dependencies."""
    known, package = declared(root), imported(root / "src")
    named = package | mentioned([root / "src"])
    everywhere = named | mentioned([root / folder for folder in ("tests", "scripts", "benchmarks")])
    found = [
        f"{name}: WHY explains it, and pyproject.toml does not ask for it"
        for name in WHY.keys() - {d.name for d in known}
    ]
    for its in known:
        if its.name not in WHY:
            found.append(f"{its.name}: nobody says why; add a line to WHY")
            continue
        module, stated = WHY[its.name][0], license_of(its.name)
        there = named if set(its.lists) - {"dev", *BENCHES} else everywhere
        if module != TOOL and module not in there:
            found.append(f"{its.name}: nothing imports {module} any more ({', '.join(its.lists)})")
        if stated is not None and not ALLOWED.search(stated):
            found.append(f"{its.name}: its license is {stated!r}, which ALLOWED does not have")
    given = {module for module, _ in WHY.values()} | COMPANIONS.keys() | set(sys.stdlib_module_names) | {"trimtab"}
    return found + [
        f"{module}: the package imports it, and pyproject.toml does not ask for it" for module in package - given
    ]


def page(root: Path) -> str:
    """The table."""
    rows = [f"| {d.name} | {', '.join(d.lists)} | {license_of(d.name) or 'not installed'} | {WHY[d.name][1]} |"
            for d in declared(root) if d.name in WHY]  # fmt: skip
    return "\n".join(["| dependency | asked for by | license | what for |", "|---|---|---|---|", *rows])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1])
    root = parser.parse_args(argv).root
    print(page(root))
    found = sorted(complaints(root))
    for line in found:
        print(line, file=sys.stderr)
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
