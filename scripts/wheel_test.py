"""Build the package, install it where the checkout cannot be seen, and use it there as its first user would.

    make wheel
    python scripts/wheel_test.py --dist dist

The sdist is built from a copy of what the checkout holds, the wheel from the sdist alone, both by the setuptools that
is here, offline. The wheel must hold every file of src/trimtab and no other. It is installed into a fresh environment
that finds the dependencies in this one's folder: a .pth file names that folder, and Python does not read the .pth files
that lie in it, so an editable install of the checkout stays out of sight. In an empty folder, without the network,
every command of `WALK` must succeed and print what stands beside it; then a server must answer.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]

SETTINGS = """\
  backbone: {model: nano-masked}
  task: {kind: product_reviews}
  prompt: {kind: prompt_tuning, length: 4}
  training: {max_steps: 4, min_steps: 1, evaluations: 1}
"""
FILES = {
    "recipe.yaml": re.sub("^  ", "", SETTINGS, flags=re.MULTILINE),
    "few.yaml": f"recipe:\n{SETTINGS}axes:\n  prompt.kind: [prompt_tuning, residual]\nseeds: 2\n",
    "texts.txt": "a lamp that I love\nit broke after a day\n",
}
"""What lies in the empty folder before the first command."""

WALK = (
    ("trimtab --help", "Soft prompts for frozen language models"),
    ("trimtab ls tasks", "superglue/boolq"),
    ("trimtab data list", "superglue"),
    ("trimtab validate recipe.yaml backbone.model=nano-seq2seq task.kind=support_desk", "prompt_tuning"),
    ("trimtab run recipe.yaml --runs-dir runs", "test"),
    ("trimtab predict {run} --input texts.txt", '"label"'),
    ("trimtab export {run} --to baked --out exported", "model.safetensors"),
    ("trimtab study few.yaml", "report.html"),
)
"""Commands, and what each must print. `{run}` is the folder of the run."""

PATIENCE = 1800
"""Seconds for a command, or until the server listens: many times what they take on a machine that does nothing else."""

WHERE = 'import sys, trimtab; print(trimtab.__file__, *sys.path, sep="\\n")'


def build(root: Path, dist: Path, scratch: Path) -> Path:
    """The wheel of a checkout, built from its sdist; both are left in `dist`."""
    source = scratch / "source"
    shutil.copytree(root / "src", source / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, source / name)
    sdist = _hook("build_sdist", source, dist)
    with tarfile.open(sdist) as archive:
        archive.extractall(scratch / "sdist", filter="data")
    (unpacked,) = (scratch / "sdist").iterdir()
    return _hook("build_wheel", unpacked, dist)


def _hook(name: str, source: Path, dist: Path) -> Path:
    """What setuptools makes of a folder, called as pip calls it."""
    dist.mkdir(parents=True, exist_ok=True)
    code = f"from setuptools import build_meta; print(build_meta.{name}({str(dist.resolve())!r}))"
    return dist.resolve() / done([sys.executable, "-c", code], source).splitlines()[-1]


def differences(wheel: Path, package: Path) -> list[str]:
    """Files of the package that the wheel lacks, and files of the wheel that the package has not."""
    wanted = {
        f"{package.name}/{path.relative_to(package).as_posix()}"
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name and not name.endswith("/")}
    lacking = [f"{name}: the wheel lacks it; see package-data in pyproject.toml" for name in sorted(wanted - held)]
    return lacking + [f"{name}: the wheel has it, src has not" for name in sorted(held - wanted)]


def install(wheel: Path, environment: Path) -> None:
    """A fresh environment with the wheel, and with the dependencies of the one that runs this."""
    done([sys.executable, "-m", "venv", "--without-pip", str(environment)], environment.parent)
    python = str(environment / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "--quiet"]
    done([*pip, "install", "--no-index", "--no-deps", str(wheel)], environment.parent)
    # only now: pip would take an editable install that it sees for the one to be replaced
    (site,) = environment.glob("lib/python*/site-packages")
    ours = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
    (site / "dependencies.pth").write_text("\n".join(ours) + "\n")


def done(command: Sequence[str], folder: Path, environ: dict[str, str] | None = None) -> str:
    """What a command prints.

    Raises:
        SystemExit: it failed; what it said is shown.
    """
    end = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=PATIENCE)
    if end.returncode:
        sys.exit(f"{shlex.join(command)}\nexit code {end.returncode}\n{end.stdout}{end.stderr}")
    return end.stdout


def environ_of(environment: Path, home: Path) -> dict[str, str]:
    """Of a user who has the installed programs and nothing else: no PYTHONPATH, no cache, no network."""
    kept = {k: v for k, v in os.environ.items() if k in ("OMP_NUM_THREADS", "LANG", "TMPDIR")}
    path = f"{environment / 'bin'}{os.pathsep}{os.defpath}"
    return {**kept, "PATH": path, "HOME": str(home), "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}


def check_place(environment: Path, folder: Path, environ: dict[str, str], root: Path = ROOT) -> None:
    """The package that is imported is the installed one, and nothing of the checkout can be.

    Raises:
        SystemExit: another one is imported, or the checkout can be seen.
    """
    home, *path = done([str(environment / "bin" / "python"), "-P", "-c", WHERE], folder, environ).splitlines()
    seen = [p for p in path if Path(p).resolve() in (root.resolve(), root.resolve() / "src")]
    if not Path(home).is_relative_to(environment) or seen:
        sys.exit(f"the wheel must be what is imported; got {home}, with {seen} of the checkout in sight.")


def walk(folder: Path, environ: dict[str, str]) -> Path:
    """Do every command in an empty folder; the run that came out."""
    for name, text in FILES.items():
        (folder / name).write_text(text)
    run = Path()
    for line, expected in WALK:
        begun = time.monotonic()
        run = next((folder / "runs").glob("*/"), run)
        printed = done(shlex.split(line.format(run=run)), folder, environ)
        if expected not in printed:
            sys.exit(f"{line}\nmust print {expected!r}, and printed\n{printed}")
        print(f"{time.monotonic() - begun:5.1f} s  {line}", flush=True)
    report = (folder / "studies/few/report.html").read_text(encoding="utf-8")
    if not all(f"</{tag}>" in report for tag in ("style", "script", "svg")):
        sys.exit("studies/few/report.html must have its style, its script and its charts.")
    return run


@contextmanager
def serving(run: Path, folder: Path, environ: dict[str, str]) -> Iterator[str]:
    """The address of a server of one prompt, while it lasts."""
    command = ["trimtab", "serve", f"reviews={run}", "--port", "0"]
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, env=environ, stdout=log, stderr=log)
    try:
        begun, found = time.monotonic(), None
        while not found and server.poll() is None and time.monotonic() - begun < PATIENCE:
            time.sleep(0.5)
            found = re.search(r"http://127\.0\.0\.1:\d+", (folder / "server.log").read_text())
        if not found:
            sys.exit(f"{shlex.join(command)} must listen, and said\n{(folder / 'server.log').read_text()}")
        yield found[0]
    finally:
        server.terminate()
        server.wait(60)


def ask(url: str) -> None:
    """A label, and the page with all that it loads.

    Raises:
        SystemExit: an answer without what it must hold.
    """
    asked = json.dumps({"inputs": ["a lamp that I love"]}).encode()
    wanted = (("/tasks/reviews", asked, '"label"'), ("/", None, "page.js"), ("/page.js", None, "fetch("),
              ("/page.css", None, "{"))  # fmt: skip
    for route, body, expected in wanted:
        request = urllib.request.Request(url + route, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            got = answer.read().decode()
        if expected not in got:
            sys.exit(f"{route} must answer with {expected!r}, and answered\n{got}")
        print(f"         {'GET' if body is None else 'POST'} {route}")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dist", type=Path, help="keep sdist and wheel in this folder")
    given = parser.parse_args(argv).dist
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name).resolve()
        wheel = build(ROOT, given or scratch / "dist", scratch)
        if wrong := differences(wheel, ROOT / "src" / "trimtab"):
            sys.exit("\n".join(wrong))
        environment, folder = scratch / "environment", scratch / "empty"
        folder.mkdir()
        install(wheel, environment)
        environ = environ_of(environment, scratch)
        check_place(environment, folder, environ)
        with serving(walk(folder, environ), folder, environ) as url:
            ask(url)
        print(f"{wheel.name} ({wheel.stat().st_size / 1e6:.1f} MB) works outside the checkout")


if __name__ == "__main__":
    main()
