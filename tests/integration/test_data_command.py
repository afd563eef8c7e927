"""`trimtab data` end to end, against a server on the loopback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.fetching.conftest import Web, web, zipped
from trimtab.cli import main
from trimtab.documents import dump_yaml

__all__ = ["web"]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.delenv("TRIMTAB_DATA", raising=False)

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["data", *arguments])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, " ".join(err.split())

    return call


@pytest.fixture
def manifest(web: Web, tmp_path: Path) -> str:
    """A manifest of two archives, of one of which the hash is not known."""
    web.serve("cb.zip", zipped({"CB/train.jsonl": "t", "CB/val.jsonl": "v"}), cuts=[50])
    web.serve("words.txt", b"sun\n")
    known = web.archive("cb.zip", into="toy/CB", inside="CB", files=("train.jsonl", "val.jsonl"))
    toy = web.manifest(known, web.archive("words.txt", sha256=None, bytes=None))
    path = tmp_path / "toy.yaml"
    path.write_text(dump_yaml(toy.model_dump(mode="json", exclude={"name"})))
    return str(path)


def test_fetch_check_and_notice_a_change(run: Run, manifest: str, web: Web, tmp_path: Path) -> None:
    data = tmp_path / "data"
    where = ("--data-dir", str(data))
    code, _, err = run("fetch", manifest, *where)
    assert code == 2
    assert "no SHA-256 is known of" in err
    assert "--accept-unverified" in err
    assert "the connection ended after 50" in err
    code, out, err = run("fetch", manifest, "--accept-unverified", *where)
    assert code == 0
    assert "cb.zip there already, 2 files" in out
    assert "words.txt fetched, not verified, SHA-256" in " ".join(out.split())
    assert "note: no SHA-256 is known of" in err
    code, out, _ = run("check", *where)
    assert (code, out) == (0, "toy: 3 files as recorded\n")
    (data / "toy" / "CB" / "val.jsonl").write_text("V")
    code, _, err = run("check", *where)
    assert code == 2
    assert err.startswith(f"error: {data}/toy/CB/val.jsonl: the file has changed since it was recorded.")
    assert run("check", "--write", *where)[0] == 0
    assert run("check", "--json", *where)[0] == 0


def test_json_and_quiet(run: Run, manifest: str, tmp_path: Path) -> None:
    where = ("--data-dir", str(tmp_path / "data"), "--accept-unverified", "--json", "--quiet")
    code, out, err = run("fetch", manifest, *where)
    assert code == 0
    first, second = json.loads(out)
    assert (first["name"], first["verified"], first["there"]) == ("toy", True, False)
    assert first["files"] == ["toy/CB/train.jsonl", "toy/CB/val.jsonl"]
    assert second["verified"] is False
    assert err.startswith("note: no SHA-256 is known of"), "what is not verified is always said, and nothing else"
    assert err.count("words.txt") == 1


def test_list(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("list", "--json")
    found: list[dict[str, Any]] = json.loads(out)
    by_name = {m["name"]: m for m in found}
    assert code == 0
    assert by_name["lama"]["verified"] is True
    assert by_name["fewglue"]["verified"] is False
    assert not any(m["recorded"] for m in found)
    code, out, _ = run("list")
    assert "superglue" in out
    assert "58.3 MB" in out


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("fetsh", "lama"), "there is no action 'fetsh'. Did you mean 'fetch'?"),
        (("fetch", "lama"), "no data directory is set. Give --data-dir or set TRIMTAB_DATA."),
        (("fetch", "llama", "--data-dir", "d"), "there is no manifest 'llama'. Did you mean 'lama'?"),
        (("fetch", "--data-dir", "d"), "name what shall be fetched. Known:"),
        (("check",), "no data directory is set."),
    ],
)
def test_mistakes(arguments: tuple[str, ...], what: str, run: Run) -> None:
    code, _, err = run(*arguments)
    assert code == 2
    assert what in err
