"""Runs the code on the pages of docs/ as a reader would, and compares what comes out with what the page shows.

A page is run from its top in a folder of its own, which has the repository's recipes:

* `console`: lines that begin with `$ ` are commands, the lines below each are its standard output.
* `python`: runs in one namespace for the page; an `output` block right behind it is what it prints.
* `sh`: commands that are parsed and not run.
* `yaml`: a recipe or a study, which must be valid; any block with a `:caption:` is also written to a file of that name.
* `{literalinclude}`: a file of the repository, as if it stood on the page.

In shown output `...` stands for anything. Seconds, sizes of white space and the hashes of runs are not compared.
Comments before a block change what is done with it: `<!-- check: parsed -->` runs nothing (a large backbone, a network
or data are needed) but parses it, commands with the real command line and recipes with the real schema; `fails` expects
exit code 2 and compares the message; `numbers 0.2` lets decimals differ by as much, `numbers any` all numbers.
A comment `<!-- page: quick -->` at the top says that a page takes seconds.
"""

from __future__ import annotations

import contextlib
import glob
import io
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from trimtab.cli import app, main
from trimtab.config import resolve
from trimtab.documents import parse_yaml, read_yaml
from trimtab.registry import Registry, families, initializers, prompts, readouts, regularizers, tasks
from trimtab.studies.definition import check_study, read_study
from trimtab.studies.driver import planned_runs

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FENCE = re.compile(
    r"(?P<marks>(?:^<!-- [^\n]*? -->\n)*)^(?P<fence>`{3,}|:{3,})(?P<info>[^\n]*)\n"
    r"(?P<options>(?::[\w-]+:[^\n]*\n)*)\n?(?P<text>.*?)^(?P=fence)$",
    re.MULTILINE | re.DOTALL,
)
NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")
UNSETTLED = re.compile(r"\d[\d,.]* (?:s|min|h|ms|MiB)\b(?: \d+ (?:s|min)\b)*|(?<=-)[0-9a-f]{10}\b|\b\d{4}-\d\d-\d\d\S*")
PORT = "8000"
REGISTRIES: tuple[Registry, ...] = (families, initializers, prompts, readouts, regularizers, tasks)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str
    options: dict[str, str]
    marks: tuple[str, ...]
    fence: str = "```"

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def is_run(self) -> bool:
        return "parsed" not in self.marks

    @property
    def tolerance(self) -> str:
        """How far numbers may be from those shown: empty, a number or `any`."""
        return next((mark.split()[1] for mark in self.marks if mark.startswith("numbers ")), "")


def pages() -> list[Path]:
    """All pages that are written by hand: results and the log show what happened, they are not to be run again."""
    found = sorted(DOCS.rglob("*.md"))
    return [
        p for p in found if "results" not in p.relative_to(DOCS).parts and p.name not in ("LOG.md", "reproducing.md")
    ]


def is_quick(page: Path) -> bool:
    return "<!-- page: quick -->" in page.read_text(encoding="utf-8")


def blocks(page: Path, text: str | None = None) -> list[Block]:
    """The fenced blocks of a page, in their order."""
    text = page.read_text(encoding="utf-8") if text is None else text
    found = []
    for match in FENCE.finditer(text):
        marks = [m.strip() for part in re.findall(r"<!-- check: (.*?) -->", match["marks"]) for m in part.split(",")]
        unknown = [m for m in marks if not re.fullmatch(r"parsed|fails|numbers (any|\d*\.?\d+)", m)]
        assert not unknown, f"{page.name}: marks that mean nothing: {unknown}"
        options = dict(re.findall(r"^:([\w-]+): *(.*)$", match["options"], re.MULTILINE))
        line = text[: match.start("text")].count("\n") + 1
        language, shown = match["info"].removeprefix("{code-block}").strip(), match["text"]
        if language.startswith("{literalinclude}"):
            shown = (page.parent / language.split()[1]).read_text(encoding="utf-8")
            language = options.get("language", "")
        found.append(Block(page.name, line, language, shown, options, tuple(marks), match["fence"]))
    return found


def commands(block: Block) -> Iterator[tuple[str, str]]:
    """Each command of a console block with the output that is shown below it."""
    parts = re.split(r"^\$ ", block.text, flags=re.MULTILINE)
    assert parts[0].strip() == "", f"{block}: a console block begins with a command"
    for part in parts[1:]:
        lines = part.split("\n")
        last = next(i for i, line in enumerate(lines) if not line.endswith("\\"))
        yield "\n".join(lines[: last + 1]), "\n".join(lines[last + 1 :])


def lines_of(block: Block) -> list[str]:
    """The commands of an `sh` block."""
    return [line for line in block.text.replace("\\\n", " ").splitlines() if line.strip()]


def agrees(shown: str, actual: str, tolerance: str = "") -> bool:
    """Whether output is what the page shows, but for what may differ."""
    shown, actual = (UNSETTLED.sub("<unsettled>", text).strip() for text in (shown, actual))
    pattern, expected, end = [], [], 0
    for match in re.finditer(rf"(?P<gap>\.\.\.)|(?P<space>\s+)|(?P<number>{NUMBER.pattern})", shown):
        pattern.append(re.escape(shown[end : match.start()]))
        end = match.end()
        if match["gap"]:
            pattern.append(".*?")
        elif match["space"]:
            pattern.append(r"\s+")
        elif tolerance == "any" or (tolerance and "." in match["number"]):
            pattern.append(f"({NUMBER.pattern})")
            expected.append(match["number"])
        else:
            pattern.append(re.escape(match["number"]))
    found = re.fullmatch("".join([*pattern, re.escape(shown[end:])]), actual, re.DOTALL)
    if found is None or tolerance in ("", "any"):
        return found is not None
    pairs = zip(expected, found.groups(), strict=True)
    return all(abs(_value(a) - _value(b)) <= float(tolerance) + 1e-9 for a, b in pairs)


def _value(number: str) -> float:
    return float(number.replace(",", ""))


# Blocks that are not run --------------------------------------------------------------------------------------------


def parse(block: Block, folder: Path = ROOT) -> int:
    """Check a block without running it; how many things were checked. What is to fail is not checked."""
    if "fails" in block.marks:
        return 0
    if block.language == "python":
        compile(block.text, str(block), "exec")
        return 1
    if block.language == "yaml":
        check_document(parse_yaml(block.text, str(block)))
        return 1
    if block.language not in ("console", "sh"):
        return 0
    checked = 0
    for command, _ in commands(block) if block.language == "console" else [(line, "") for line in lines_of(block)]:
        for words in trimtab_commands(command):
            check_command(words, folder)
            checked += 1
        checked += check_script(command)
    return checked


def trimtab_commands(command: str) -> Iterator[list[str]]:
    """The calls of trimtab in a shell command."""
    lexer = shlex.shlex(command.replace("\\\n", " "), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = list(lexer)
    ends = [i for i, word in enumerate(words) if set(word) <= set("|&;<>()")]
    for first, last in zip([-1, *ends], [*ends, len(words)], strict=True):
        part = [w for w in words[first + 1 : last] if not re.fullmatch(r"[A-Z_]+=\S*", w)]
        if part[:1] == ["trimtab"]:
            yield part[1:]
        elif part and "-m" in part and part[part.index("-m") + 1] == "trimtab":
            yield part[part.index("-m") + 2 :]


def check_script(command: str) -> int:
    """Scripts of the repository that a command names exist and know the options; how many there are."""
    named = re.findall(r"python (scripts/\w+\.py|examples/\w+\.py)", command)
    for script in named:
        text = (ROOT / script).read_text(encoding="utf-8")
        unknown = [o for o in re.findall(r"(?<= )--[\w-]+", command) if f'"{o}"' not in text]
        assert not unknown, f"{script} has no option {unknown}"
    return len(named)


def check_command(words: list[str], folder: Path) -> None:
    """The verb and its options exist; a recipe or study that is named exists and resolves with the overrides."""
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    if not words or words[0].startswith("-"):
        return
    assert words[0] in verbs, f"trimtab has no verb {words[0]}"
    if "--help" in words:
        return
    context = verbs[words[0]].make_context(words[0], words[1:])
    recipe, overrides = context.params.get("recipe"), context.params.get("overrides") or []
    study = context.params.get("study") if words[0] == "study" else None
    if recipe is not None and (folder / recipe).exists():
        resolve(read_yaml(folder / recipe), overrides)
    elif study is not None and (folder / study).exists():
        planned_runs(read_study(folder / study, overrides))
    else:
        named = str(recipe or study or "")
        assert not named.startswith("recipes/"), f"{named} does not exist"


def check_document(raw: Any) -> None:
    """A recipe or a study."""
    if "recipe" in raw:
        check_study({**raw, "recipe": raw["recipe"] if isinstance(raw["recipe"], dict) else {}})
    else:
        resolve(raw)


# Blocks that are run -------------------------------------------------------------------------------------------------


@dataclass
class Reader:
    """Someone who follows a page from its top, in an empty folder with the repository's recipes.

    Attributes:
        seen: what each command printed, for those who write pages.
        done: how many blocks were done.
    """

    folder: Path
    namespace: dict[str, Any] = field(default_factory=lambda: {"__name__": "__main__"})
    servers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    port: str = ""
    printed: str = ""
    seen: list[tuple[str, str]] = field(default_factory=list)
    done: int = 0

    def follow(self, page: Path) -> None:
        """Run all blocks of a page.

        Raises:
            AssertionError: something failed, or printed something else than the page shows.
        """
        shutil.copytree(ROOT / "recipes", self.folder / "recipes", dirs_exist_ok=True)
        try:
            with contextlib.chdir(self.folder), nothing_stays(self.folder):
                for block in blocks(page):
                    self.do(block)
                    self.done += 1
        finally:
            for server in self.servers:
                server.terminate()
                server.wait(timeout=60)

    def do(self, block: Block) -> None:
        """Run one block, or parse it."""
        if "caption" in block.options:
            Path(block.options["caption"]).write_text(self.with_port(block.text), encoding="utf-8")
        if block.language == "output":
            self.compare(block, "python", block.text, self.printed)
        elif not block.is_run or block.language in ("yaml", "sh"):
            parse(block, self.folder)
        elif block.language == "console":
            for command, shown in commands(block):
                printed = self.call(command, fails="fails" in block.marks)
                self.compare(block, command, shown, printed)
        elif block.language == "python" and "caption" not in block.options:
            self.printed = self.python(block)

    def compare(self, block: Block, command: str, shown: str, printed: str) -> None:
        self.seen.append((command, printed))
        if shown.strip():
            assert agrees(shown, printed, block.tolerance), f"{block}: {command}\nshown:\n{shown}\nprinted:\n{printed}"

    def with_port(self, text: str) -> str:
        """A free port in the place of the one that pages name."""
        if PORT in text:
            self.port = self.port or _free_port()
        return text.replace(PORT, self.port) if self.port else text

    def python(self, block: Block) -> str:
        """What a block of Python prints."""
        caught = io.StringIO()
        with contextlib.redirect_stdout(caught):
            exec(compile(block.text, str(block), "exec"), self.namespace)
        return caught.getvalue()

    def call(self, command: str, *, fails: bool) -> str:
        """What a command prints: a lone call of trimtab in this process, as torch is here already, else by bash."""
        command = self.with_port(command)
        if command.endswith("&"):
            return self.serve(command.rstrip("& "))
        is_plain = not re.search(r"[|<>;&$(]", re.sub(r"'[^']*'|\"[^\"]*\"", "", command))
        if command.startswith("trimtab ") and is_plain:
            code, out, err = in_process(_words(command))
        else:
            done = subprocess.run(
                ["bash", "-c", command], capture_output=True, text=True, timeout=900, env=environment()
            )
            code, out, err = done.returncode, done.stdout, done.stderr
        assert code == (2 if fails else 0), f"{command}\nexit code {code}\n{out}\n{err}"
        printed = err if fails else out
        return printed.replace(self.port, PORT) if self.port else printed

    def serve(self, command: str) -> str:
        """Begin a server and wait until it listens."""
        with (self.folder / "server.log").open("wb") as log:
            server = subprocess.Popen(["bash", "-c", f"exec {command}"], stdout=log, stderr=log, env=environment())
        self.servers.append(server)
        for _ in range(600):
            assert server.poll() is None, (self.folder / "server.log").read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", int(self.port)), timeout=1):
                return ""
            time.sleep(0.5)
        raise AssertionError(f"{command} does not listen")


@contextlib.contextmanager
def nothing_stays(folder: Path) -> Iterator[None]:
    """Modules of the folder can be imported; afterwards neither they nor what they registered are known."""
    known = {registry: dict(registry._classes) for registry in REGISTRIES if registry.kinds()}
    modules = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for registry, classes in known.items():
            registry._classes = classes
        for name in set(sys.modules) - modules:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
                del sys.modules[name]


def in_process(words: list[str]) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `trimtab`."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(words)
        except SystemExit as end:
            code = int(end.code or 0)
    return code, out.getvalue(), err.getvalue()


def environment() -> dict[str, str]:
    """Of commands: this source tree, this interpreter's programs, no network."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"}


def _words(command: str) -> list[str]:
    """The arguments, with `*` as a shell reads it."""
    found = []
    for word in shlex.split(command.replace("\\\n", " "), comments=True)[1:]:
        found += sorted(glob.glob(word)) or [word] if "*" in word else [word]
    return found


def _free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])
