"""The shape of the house: who imports whom, what files are called, what a bare import costs, and that guards guard."""

from __future__ import annotations

import ast
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError

import trimtab
from tests.contract.toy_runs import one_mask
from trimtab.backbones import Backbone
from trimtab.batching import collate
from trimtab.injection import place_prompt
from trimtab.prompt_table import PromptTable
from trimtab.registry import Registry, families, initializers, prompts, readouts, regularizers, tasks
from trimtab.types import Encoded, Row

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "trimtab"

LAYERS: tuple[frozenset[str], ...] = tuple(
    frozenset(names.split())
    for names in (
        "lookup",
        "types predictions prompt_table errors archives sizes seeding rewriting text_encoder metric_names",
        "documents bundle_schema files template_pieces stored",
        "registry storage template_tokens",
        "overrides",
        "config",
        "templates metrics span_metrics fact_metrics initializers injection batching perturbations",
        "verbalizers backbones chat benchmark_metrics",
        "prompts readouts regularizers tasks trackers tunings fetching",
        "model grading submission",
        "rendering",
        "predictor",
        "loading",
        "training",
        "drafting studies exporting landscape diagnosis",
        "reports serving",
        "api",
        "cli",
        "__init__ __main__",
    )
)
"""A module or package imports from lower layers and from itself, never sideways or up (architecture.md, section 1)."""

FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}


def layer_of(room: str) -> int:
    for level, rooms in enumerate(LAYERS):
        if room in rooms:
            return level
    raise AssertionError(f"src/trimtab/{room} has no place in LAYERS of {Path(__file__).name}")


def room_of(module: str) -> str:
    """`trimtab.training.loop` -> `training`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports(tree: ast.AST) -> Iterator[str]:
    """Absolute names of trimtab modules that are imported when the code runs; TYPE_CHECKING blocks do not run."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for other in node.orelse:
                yield from imports(ast.Module([other], []))
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] == "trimtab")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute in this project"
            module = node.module or ""
            if module == "trimtab":
                submodules = {p.stem for p in PACKAGE.iterdir()}
                yield from (f"trimtab.{a.name}" if a.name in submodules else "trimtab" for a in node.names)
            elif module.startswith("trimtab."):
                yield module
        else:
            yield from imports(node)


def wrong_imports(room: str, source: str) -> list[str]:
    """Imports that go sideways or up."""
    return [
        name
        for name in imports(ast.parse(source))
        if room_of(name) != room and layer_of(room_of(name)) >= layer_of(room)
    ]


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of_file(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_imports_point_down(path: Path) -> None:
    assert wrong_imports(room_of_file(path), path.read_text(encoding="utf-8")) == []


def test_imports_that_point_up_or_sideways_are_found() -> None:
    assert wrong_imports("types", "from trimtab.model import PromptedModel") == ["trimtab.model"]
    assert wrong_imports("prompts", "def f():\n    from trimtab.readouts import Readout\n") == ["trimtab.readouts"]
    assert wrong_imports("storage", "import trimtab.training.loop") == ["trimtab.training.loop"]
    assert wrong_imports("model", "from trimtab import cli") == ["trimtab.cli"]
    assert wrong_imports("model", "if TYPE_CHECKING:\n    from trimtab.cli import main\nimport torch\n") == []
    assert wrong_imports("model", "from trimtab.types import Batch\nfrom trimtab.model import x\n") == []
    with pytest.raises(AssertionError, match="has no place in LAYERS"):
        wrong_imports("model", "import trimtab.cellar")


def test_every_room_has_a_place() -> None:
    rooms = {room_of_file(p) for p in modules()}
    assert rooms, "no modules found"
    for room in rooms:
        layer_of(room)


def test_no_file_is_called_by_a_name_that_says_nothing() -> None:
    files = [p for top in ("src", "tests", "scripts") for p in (ROOT / top).rglob("*.py")]
    assert len(files) > 30
    assert [str(p) for p in files if p.stem.removeprefix("test_") in FORBIDDEN_NAMES] == []
    folders = {p.parent.name for p in files}
    assert not folders & FORBIDDEN_NAMES


MOST_LINES = 400


def test_long_files_are_one_idea_and_the_architecture_says_why() -> None:
    files = [
        *modules(),
        *(path for top in ("scripts", "benchmarks", "examples") for path in (ROOT / top).rglob("*.py")),
    ]
    lengths = {p.relative_to(ROOT).as_posix(): len(p.read_text(encoding="utf-8").splitlines()) for p in files}
    assert len(lengths) > 300
    told = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("\n## Files\n")[2]
    excused = re.findall(r"^\* `([^`]+)`: \w", told.partition("\n## ")[0], re.MULTILINE)
    long = sorted(name for name, n in lengths.items() if n > MOST_LINES)
    assert long == sorted(excused), f"over {MOST_LINES} lines: split it, or say in architecture.md why it is one idea"


# Axes meet in two files, and these know no component by name ---------------------------------------------------------

REGISTRIES: tuple[Registry, ...] = (families, initializers, prompts, readouts, regularizers, tasks)


def mentions(source: str) -> list[str]:
    """Names of components in a module: as text (docstrings aside), as an import, or in a comparison with a `kind`."""
    tree = ast.parse(source)
    kinds = {kind for registry in REGISTRIES for kind in registry.kinds()}
    homes = {registry.get(kind).__module__ for registry in REGISTRIES for kind in registry.kinds()}
    classes = {registry.get(kind).__name__ for registry in REGISTRIES for kind in registry.kinds()}
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and isinstance(node.body[0], ast.Expr)
        and isinstance(node.body[0].value, ast.Constant)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in kinds and id(node) not in docstrings:
            found.append(f"{node.lineno}: {node.value!r}")
        elif isinstance(node, ast.Compare | ast.Match) and "kind" in _words(node):
            found.append(f"{node.lineno}: a branch on a kind")
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names = {node.module} if isinstance(node, ast.ImportFrom) else {a.name for a in node.names}
            found += [f"{node.lineno}: {name}" for name in names & homes]
        elif isinstance(node, ast.Name | ast.Attribute):
            name = node.id if isinstance(node, ast.Name) else node.attr
            if name in classes:
                found.append(f"{node.lineno}: {name}")
    return found


def _words(node: ast.Compare | ast.Match) -> set[str]:
    """Names, attributes and text in what is compared."""
    compared: list[ast.expr] = [node.subject] if isinstance(node, ast.Match) else [node.left, *node.comparators]
    words = set()
    for part in (n for c in compared for n in ast.walk(c)):
        if isinstance(part, ast.Name):
            words.add(part.id)
        elif isinstance(part, ast.Attribute):
            words.add(part.attr)
        elif isinstance(part, ast.Constant):
            words.add(str(part.value))
    return words


@pytest.mark.parametrize("name", ["model.py", "training/loop.py", "training/encoder_pack.py", "injection.py"])
def test_where_axes_meet_no_component_is_known_by_name(name: str) -> None:
    assert mentions((PACKAGE / name).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        'if config.kind == "something":\n    pass',
        'if spec["kind"] in ("a", "b"):\n    pass',
        'match self.kind:\n    case "x":\n        pass',
        'name = "residual"',
        'if family == "bert":\n    pass',
        "from trimtab.prompts.residual import Residual",
        "isinstance(encoder, PTuningLSTM)",
        "isinstance(readout, cloze.Cloze)",
    ],
)
def test_branches_on_a_method_are_found(source: str) -> None:
    assert mentions(source)
    assert mentions('"""About residual."""\ndef f(kind):\n    """bert"""\n    return kind\n') == []


# What importing costs, and the public names --------------------------------------------------------------------------


HEAVY = {"torch", "transformers", "sklearn", "scipy", "numpy", "pydantic", "yaml"}


@pytest.mark.parametrize(("module", "heavy"), [("trimtab", {*HEAVY, "rich", "typer"}), ("trimtab.cli", HEAVY)])
def test_importing_imports_nothing_heavy(module: str, heavy: set[str]) -> None:
    code = f"import sys, {module}\nprint(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_are_few_and_all_exist() -> None:
    names = trimtab.__all__
    assert len([name for name in names if not name.startswith("__")]) <= 15
    assert len(set(names)) == len(names)
    for name in names:
        assert getattr(trimtab, name) is not None, name
    assert set(names) <= set(dir(trimtab))


# Canaries: the guards that all other tests rely on -------------------------------------------------------------------


def test_a_wrong_shape_raises() -> None:
    with pytest.raises(TypeCheckError):
        PromptTable(torch.zeros(2, 3))


def test_a_wrong_dtype_raises() -> None:
    with pytest.raises(TypeCheckError):
        PromptTable(torch.zeros(2, 3, 4, dtype=torch.long))


def test_a_wrong_shape_raises_in_a_function() -> None:
    batch = collate([Row(Encoded((1, 2, 3, 4), (1, 2), (3,)), prompt=0)], 0)
    table = PromptTable(torch.zeros(1, 2, 8))
    assert place_prompt(torch.ones(1, 4, 8), table, batch).shape == (1, 4, 8)
    with pytest.raises(TypeCheckError):
        place_prompt(torch.ones(4, 8), table, batch)


def test_shapes_that_do_not_agree_with_each_other_raise(backbone: Backbone) -> None:
    readout = readouts.build({"kind": "cloze"}, backbone, [one_mask([[5], [6]])])
    assert readout.loss(torch.zeros(3, 2), torch.tensor([0, 1, 0])).shape == (3,)
    with pytest.raises(TypeCheckError):
        readout.loss(torch.zeros(3, 2), torch.tensor([0, 1]))


def test_network_access_raises() -> None:
    with pytest.raises(OSError, match="network access in a test"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    with pytest.raises(OSError, match="network access in a test"):
        urllib.request.urlopen("http://192.0.2.1/", timeout=1)


def test_loopback_is_allowed() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname(), timeout=5) as client,
    ):
        assert client.getpeername() == server.getsockname()
