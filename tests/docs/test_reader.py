"""The reader of pages finds what is wrong on them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import Reader, agrees, blocks, commands, nothing_stays, parse, trimtab_commands
from trimtab.errors import TrimtabError
from trimtab.registry import prompts


def follow(tmp_path: Path, text: str) -> Reader:
    page = tmp_path / "page.md"
    page.write_text(text)
    reader = Reader(tmp_path)
    reader.follow(page)
    return reader


@pytest.mark.parametrize(
    ("shown", "actual", "tolerance"),
    [
        ("a  b\n c", "a b\nc ", ""),
        ("a ... d", "a b c d", ""),
        ("first\n...\nlast", "first\nany\nany\nlast", ""),
        ("accuracy 0.41, 96 rows", "accuracy 0.38, 96 rows", "0.1"),
        ("1,280 of 3", "2,560 of 7", "any"),
        ("took 3.1 s", "took 98 s", ""),
        ("about 57 s on 1 worker", "about 2 min 20 s on 1 worker", ""),
        ("38 MiB  30 s", "46 MiB  1 min 13 s", ""),
        ("in runs/a-residual-45c63aaef1", "in runs/a-residual-0123456789", ""),
    ],
)
def test_what_agrees(shown: str, actual: str, tolerance: str) -> None:
    assert agrees(shown, actual, tolerance)


@pytest.mark.parametrize(
    ("shown", "actual", "tolerance"),
    [
        ("a b", "a b c", ""),
        ("a ... d", "a b c", ""),
        ("took 3 s on 1 worker", "took 3 s on 2 workers", ""),
        ("accuracy 0.41", "accuracy 0.40", ""),
        ("accuracy 0.41, 96 rows", "accuracy 0.41, 95 rows", "0.1"),
        ("accuracy 0.41", "accuracy 0.52", "0.1"),
        ("accuracy 0.41", "accuracy -", "any"),
        ("precision 0.41", "accuracy 0.41", "any"),
        ("-0.5", "0.5", "0.6"),
        ("runs/a-residual-45c63aaef1", "runs/a-deep-45c63aaef1", ""),
    ],
)
def test_what_does_not_agree(shown: str, actual: str, tolerance: str) -> None:
    assert not agrees(shown, actual, tolerance)


def test_blocks_have_their_marks_options_and_lines() -> None:
    text = "# A\n\n<!-- check: parsed, numbers 0.2 -->\n```{code-block} yaml\n:caption: a.yaml\n\nseed: 1\n```\n"
    (block,) = blocks(Path("a.md"), text)
    assert (block.language, block.text, block.options) == ("yaml", "seed: 1\n", {"caption": "a.yaml"})
    assert (block.tolerance, block.is_run, str(block)) == ("0.2", False, "a.md:7")


def test_an_included_file_is_read_as_if_it_stood_there(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def f() -> int:\n    return 1\n")
    text = "```{literalinclude} a.py\n:language: python\n:caption: b.py\n```\n"
    (block,) = blocks(tmp_path / "a.md", text)
    assert (block.language, block.options["caption"]) == ("python", "b.py")
    assert block.text == (tmp_path / "a.py").read_text()


def test_marks_that_mean_nothing_are_found() -> None:
    with pytest.raises(AssertionError, match="mean nothing"):
        blocks(Path("a.md"), "<!-- check: parsd -->\n```console\n$ ls\n```\n")


def test_commands_and_their_output() -> None:
    (block,) = blocks(Path("a.md"), "```console\n$ one \\\n    two\nout\n$ three\n```\n")
    assert list(commands(block)) == [("one \\\n    two", "out\n"), ("three", "")]
    assert list(trimtab_commands("A=1 trimtab ls tasks | head; trimtab run a.yaml &")) == [
        ["ls", "tasks"],
        ["run", "a.yaml"],
    ]


@pytest.mark.parametrize(
    "block",
    [
        "```console\n$ trimtab rn recipes/quickstart/residual.yaml\n```\n",
        "```console\n$ trimtab run recipes/quickstart/no.yaml\n```\n",
        "```console\n$ trimtab run recipes/quickstart/residual.yaml --no-such-option\n```\n",
        "```console\n$ trimtab run recipes/quickstart/residual.yaml prompt.lenth=3\n```\n",
        "```console\n$ trimtab study recipes/quickstart/study.yaml seds=3\n```\n",
        "```yaml\nprompt: {kind: residul}\n```\n",
        "```yaml\nrecipe: {}\naxes: {prompt.kind: []}\n```\n",
        "```python\nprint(\n```\n",
        "```console\n$ python scripts/method_table.py --no-such-option\n```\n",
        "```console\n$ torchrun -m trimtab run recipes/quickstart/no.yaml\n```\n",
        "```console\nno command\n```\n",
    ],
)
def test_blocks_that_are_wrong_are_found_without_running_them(block: str) -> None:
    (found,) = blocks(Path("a.md"), block)
    with pytest.raises((AssertionError, TrimtabError, SyntaxError, Exception)) as raised:
        parse(found)
    assert not isinstance(raised.value, KeyError | AttributeError | TypeError)


def test_a_page_is_followed_from_its_top(tmp_path: Path) -> None:
    text = (
        "```python\nx = 20\n```\n```python\nprint(x + 1)\n```\n```output\n21\n```\n"
        "```{code-block} text\n:caption: a.txt\n\nfirst\n```\n"
        "```console\n$ cat a.txt\nfirst\n$ echo two | tr t T\nTwo\n```\n"
        "<!-- check: fails -->\n```console\n$ trimtab ls no-such-thing\nerror: ...no-such-thing...\n```\n"
    )
    assert [printed for _, printed in follow(tmp_path, text).seen[:3]] == ["21\n", "first\n", "Two\n"]


@pytest.mark.parametrize(
    "text",
    [
        "```python\nprint(1)\n```\n```output\n2\n```\n",
        "```console\n$ echo one\ntwo\n```\n",
        "```console\n$ false\n```\n",
        "```console\n$ trimtab ls nothing-of-the-sort\n```\n",
        "<!-- check: fails -->\n```console\n$ trimtab ls prompts\n```\n",
        "<!-- check: fails -->\n```console\n$ trimtab ls nothing-of-the-sort\nerror: another message\n```\n",
    ],
)
def test_pages_that_are_wrong_are_found(tmp_path: Path, text: str) -> None:
    with pytest.raises(AssertionError):
        follow(tmp_path, text)


def test_what_a_page_registers_does_not_stay(tmp_path: Path) -> None:
    (tmp_path / "made_here.py").write_text("KNOWN = 1\n")
    with nothing_stays(tmp_path):
        import made_here  # type: ignore[import-not-found]

        prompts.register("made_here")(type("MadeHere", (), {"__module__": "made_here"}))
        assert made_here.KNOWN == 1
        assert "made_here" in prompts.kinds()
    assert "made_here" not in prompts.kinds()
    with pytest.raises(ModuleNotFoundError):
        import made_here
