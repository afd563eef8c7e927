"""From bundles on disk to a running server."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trimtab.backbones import Backbone, load_backbone
from trimtab.errors import BundleError, ConfigError, TrimtabError, suggest
from trimtab.loading import backbone_of
from trimtab.serving.journal import open_journal, tell
from trimtab.serving.service import Service
from trimtab.serving.settings import Settings
from trimtab.storage import Bundle, find_run, read_bundle

MIN_TOKEN = 16
"""Characters of a token that is not guessed."""
DTYPES = ("auto", "float32", "bfloat16")
PLACES = ("local", "ray")
LEVELS = ("debug", "info", "warning", "error")


def found_bundles(places: Sequence[str], runs_dir: Path) -> dict[str, Path]:
    """Bundles by the names that they are served under.

    Args:
        places: `PATH` or `NAME=PATH`: a bundle or run folder, a run's id, or a folder of such folders.
        runs_dir: where runs are looked for by id.

    Raises:
        BundleError: nothing is there.
        ConfigError: two bundles have one name.
    """
    found: dict[str, Path] = {}
    for place in places:
        name, is_named, rest = place.partition("=")
        path = find_run(rest if is_named else place, runs_dir)
        if (path / "bundle.json").exists():
            its = {name if is_named else path.resolve().name: path}
        else:
            its = {p.parent.name: p.parent for p in sorted(path.glob("*/bundle.json"))}
            if not its or is_named:
                raise BundleError("there is no bundle here.", where=str(path), fix="Give a folder with bundle.json.")
        for own, folder in its.items():
            if own in found and found[own].resolve() != folder.resolve():
                raise ConfigError(
                    f"two bundles are called {own!r}: {found[own]} and {folder}.",
                    where=place,
                    fix="Name one of them: NAME=PATH.",
                )
            found[own] = folder
    return found


def by_task(name: str, bundle: Bundle) -> dict[str, Bundle]:
    """A bundle by its name; one of several tasks as a bundle of each, `NAME.TASK`."""
    if not bundle.tasks:
        return {name: bundle}
    return {f"{name}.{re.sub('[^A-Za-z0-9._-]', '-', task)}": bundle.of_task(task) for task in bundle.tasks}


def open_service(
    bundles: dict[str, Path],
    settings: Settings,
    *,
    backbone: str | None = None,
    device: str = "auto",
    dtype: Any = None,
    trust_remote_code: bool = False,
) -> Service:
    """A service of these bundles, on the backbone of the first, or on one that lies elsewhere now.

    Args:
        trust_remote_code: let the first bundle run the code that comes with its model, if it asks for that. What is
            uploaded later shares the backbone that is there.

    Raises:
        TrimtabError: a bundle is unreadable or of another backbone, or the backbone cannot be loaded.
    """
    check_anything(bundles, backbone)
    read = {name: its for own, path in bundles.items() for name, its in by_task(own, read_bundle(path)).items()}
    loaded = _loaded(next(iter(read.values()), None), backbone, device, dtype, trust_remote_code)
    service = Service(loaded, settings.pace, settings.limits)
    try:
        for name, bundle in read.items():
            service.add(name, bundle, f"the bundle {name!r}")
    except TrimtabError:
        service.close(0.0)
        raise
    return service


def check_anything(bundles: Mapping[str, Path], backbone: str | None) -> None:
    """Refuse to serve nothing.

    Raises:
        ConfigError: there is neither a bundle nor a backbone.
    """
    if not bundles and backbone is None:
        raise ConfigError("there is nothing to serve.", where="trimtab serve", fix="Give a bundle, or --backbone.")


def _loaded(first: Bundle | None, backbone: str | None, device: str, dtype: Any, trust_remote_code: bool) -> Backbone:
    if first is None:
        assert backbone is not None
        return load_backbone(backbone, device=device, dtype=dtype or "auto", trust_remote_code=trust_remote_code)
    return backbone_of(first, backbone, device, dtype, trust_remote_code=trust_remote_code)


def check_options(settings: Settings, *, uploads: bool, dtype: str | None, log_level: str, on: str = "local") -> None:
    """What the command line cannot check by itself, before a model is loaded.

    Raises:
        ConfigError: FastAPI is not installed, uploads without a token that is worth one, or an unknown word.
    """
    import trimtab.serving.http  # noqa: F401 - says what to install

    if uploads and len(settings.token or "") < MIN_TOKEN:
        raise ConfigError(
            f"uploads need a token of at least {MIN_TOKEN} characters.",
            where="TRIMTAB_TOKEN",
            fix="For example: export TRIMTAB_TOKEN=$(openssl rand -hex 24).",
        )
    words = (("--dtype", dtype, DTYPES), ("--log-level", log_level, LEVELS), ("--on", on, PLACES))
    for option, got, known in words:
        if got is not None and got not in known:
            raise ConfigError(f"there is no {got!r}.", where=option, fix=suggest(got, known))


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def run(service: Service, settings: Settings, *, log_level: str = "info", said: Callable[[str], None] = print) -> None:
    """Serve until told to stop (SIGINT, SIGTERM); what is under way is finished first.

    Args:
        said: is told the address, once the server listens there.
    """
    import uvicorn

    from trimtab.serving.http import application  # says what to install, if need be

    open_journal(log_level)
    config = uvicorn.Config(
        application(service, settings),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
        timeout_keep_alive=15,
    )
    server = uvicorn.Server(config)
    began = server.startup

    async def startup(sockets: Any = None) -> None:
        await began(sockets)
        if server.started:
            host, port = server.servers[0].sockets[0].getsockname()[:2]
            url = url_of(host, port)
            tell("listening", url=url, prompts=len(service.catalog), backbone=service.name)
            said(url)

    server.startup = startup  # type: ignore[method-assign]
    try:
        server.run()
    except SystemExit:  # what uvicorn does where it cannot begin
        server.started = False
    if not server.started:
        service.close(0.0)
        raise cannot_listen(settings)
    tell("stopped")


def url_of(host: str, port: int) -> str:
    """The address of a server; one of IPv6 stands in brackets.

    >>> url_of("127.0.0.1", 80), url_of("::1", 80)
    ('http://127.0.0.1:80', 'http://[::1]:80')
    """
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def cannot_listen(settings: Settings) -> ConfigError:
    """Why there is no server."""
    return ConfigError(
        f"the server cannot listen at {settings.host}:{settings.port}.",
        where="--port",
        fix="Is the port taken? --port 0 takes a free one.",
    )
