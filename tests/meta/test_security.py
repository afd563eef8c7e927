"""What SECURITY.md promises of the code: nothing is evaluated or unpickled, no foreign code runs unasked, YAML is data,
an import speaks with nobody, and every dependency has a reason.
"""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import bundle_metadata
from tests.unit.refusals import refused
from trimtab.backbones.loading import load_backbone, load_encoder
from trimtab.backbones.sentencepiece import load_tokenizer
from trimtab.config import BackboneConfig
from trimtab.documents import parse_yaml
from trimtab.errors import BundleError, ConfigError
from trimtab.loading import TRUST, backbone_of, check_code
from trimtab.storage import Bundle

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src"

CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load",
         "yaml.full_load", "torch.load", "torch.save", "np.load", "numpy.load", "tempfile.mktemp"}  # fmt: skip
METHODS = {"extractall", "unsafe_load", "full_load"}
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "code", "codeop"}
OPTIONS = {"trust_remote_code": True, "allow_pickle": True, "shell": True, "weights_only": False, "verify": False}

ALLOWED = {
    "src/trimtab/documents.py": {"yaml.load"},  # with a loader of its own, which makes what JSON has
    "src/trimtab/exporting/vllm_client.py": {"torch.save"},  # what vLLM takes, made as a request is sent
}


def dotted(node: ast.expr) -> str:
    """`a.b.c`; of what is no name, the part that is."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def findings(source: str) -> Iterator[str]:
    """Calls, imports and options by which data could become code."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom):
            yield from ([node.module] if (node.module or "").split(".")[0] in MODULES else [])
        elif isinstance(node, ast.Call):
            name = dotted(node.func)
            if name in CALLS or name.removeprefix("builtins.") in CALLS or name.rpartition(".")[2] in METHODS:
                yield name
            for given in node.keywords:
                if given.arg in OPTIONS and isinstance(given.value, ast.Constant):
                    yield from ([given.arg] if given.value.value is OPTIONS[given.arg] else [])


def test_nothing_is_evaluated_or_unpickled() -> None:
    every = {p.relative_to(ROOT).as_posix(): set(findings(p.read_text(encoding="utf-8"))) for p in SRC.rglob("*.py")}
    assert len(every) > 100
    assert {path: found for path, found in every.items() if found} == ALLOWED


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("eval(text)", ["eval"]),
        ("builtins.exec(text)", ["builtins.exec"]),
        ("import pickle", ["pickle"]),
        ("from joblib import load", ["joblib"]),
        ("torch.load(path, weights_only=False)", ["torch.load", "weights_only"]),
        ("np.load(path, allow_pickle=True)", ["np.load", "allow_pickle"]),
        ("subprocess.run(text, shell=True)", ["shell"]),
        ("AutoModel.from_pretrained(name, trust_remote_code=True)", ["trust_remote_code"]),
        ("archive.extractall(folder)", ["archive.extractall"]),
        ("yaml.load(text, Loader=yaml.Loader)", ["yaml.load"]),
        ("model.eval()\nre.compile('x')\nload(path, trust_remote_code=given)", []),
    ],
)
def test_each_of_these_would_be_found(source: str, found: list[str]) -> None:
    assert list(findings(source)) == found


# Code that comes with checkpoints ------------------------------------------------------------------------------------


def test_code_of_checkpoints_does_not_run_unasked() -> None:
    assert BackboneConfig.model_fields["trust_remote_code"].default is False
    for load in (load_backbone, load_encoder, load_tokenizer):
        assert inspect.signature(load).parameters["trust_remote_code"].default is False


def asking(**options: Any) -> Bundle:
    """A bundle that wants the code of a checkpoint to run."""
    metadata = bundle_metadata((2, 3))
    metadata["backbone"]["options"] |= {"trust_remote_code": True, **options}
    return Bundle(metadata, {})


def test_a_bundle_cannot_have_code_run(monkeypatch: pytest.MonkeyPatch) -> None:
    class Loaded(Exception):
        pass

    def loaded(*names: str, **options: Any) -> None:
        raise Loaded(options["trust_remote_code"])

    monkeypatch.setattr("trimtab.loading.load_backbone", loaded)
    for value in (None, "0", ""):
        if value is None:
            monkeypatch.delenv(TRUST, raising=False)
        else:
            monkeypatch.setenv(TRUST, value)
        with refused(BundleError, "asks to run it", where="backbone.options.trust_remote_code",
                     fix=f"{TRUST}=1"):  # fmt: skip
            backbone_of(asking())
    monkeypatch.setenv(TRUST, "1")
    with pytest.raises(Loaded, match="True"):
        backbone_of(asking())


def test_a_bundle_that_asks_for_no_code_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TRUST, raising=False)
    check_code(bundle_metadata((2, 3))["backbone"])


# YAML ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['true']",
        "!!python/name:os.system",
        "x: !!python/object:trimtab.errors.TrimtabError {}",
        "!!timestamp 2001-01-01",
        "!!binary aGk=",
        "!custom x",
    ],
)
def test_yaml_makes_plain_data_only(text: str) -> None:
    with pytest.raises(ConfigError, match="not valid YAML"):
        parse_yaml(text, "recipe.yaml")


# Network -------------------------------------------------------------------------------------------------------------

LISTENING = """
import sys

def heard(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "urllib.Request"):
        sys.exit(f"{event} {arguments}")

sys.addaudithook(heard)
"""
EVERYTHING = "import trimtab.api, trimtab.serving.http, trimtab.exporting.baked, trimtab.studies.executors.ray"


def listened(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", LISTENING + code], capture_output=True, text=True, timeout=120, cwd=ROOT
    )


@pytest.mark.parametrize("code", ["import trimtab, trimtab.cli", pytest.param(EVERYTHING, marks=pytest.mark.slow)])
def test_importing_speaks_with_nobody(code: str) -> None:
    done = listened(code)
    assert done.returncode == 0, done.stderr


def test_whoever_speaks_with_somebody_is_heard() -> None:
    done = listened("import urllib.request\nurllib.request.urlopen('http://192.0.2.1/', timeout=1)")
    assert "urllib.Request" in done.stderr
