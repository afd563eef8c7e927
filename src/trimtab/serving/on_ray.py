"""The server as a deployment of Ray Serve (extra `serve-ray`): replicas, each with its own backbone and all prompts.

A replica is the application that `trimtab serve` runs by itself, so routes, errors and limits are the same; Ray's proxy
stands before them and hands each request to one. What is true of a replica is true of no other: `/metrics` and
`/healthz` speak of the one that was asked, limits on requests at once count for each, and a bundle that is uploaded
would be known to one alone, so several replicas take none. Bundles and backbone lie where every machine of the cluster
finds them under the same path.
"""

from __future__ import annotations

import re
import signal
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.errors import BundleError, ConfigError
from trimtab.serving.server import cannot_listen, check_anything, open_service, url_of
from trimtab.serving.settings import Settings
from trimtab.storage import read_bundle

NAME = "trimtab"
"""Of the application and its deployment, as `serve status` lists them."""
SLACK = 64
"""Requests that Ray hands to a replica beyond those that it serves, so that it is the replica that says 429."""


@dataclass(frozen=True)
class Scaling:
    """How many replicas there are.

    Attributes:
        fewest: at any time.
        most: Ray adds and removes replicas in between.
        target: requests under way per replica that it aims at.
        cpus: of a replica.
        gpus: likewise.
    """

    fewest: int = 1
    most: int = 1
    target: float = 32.0
    cpus: float = 1.0
    gpus: float = 0.0

    @classmethod
    def read(cls, said: str, **more: Any) -> Scaling:
        """`N` replicas, or `N-M`.

        Raises:
            ConfigError: it is neither.
        """
        found = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", said)
        fewest, most = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
        if not 1 <= fewest <= most:
            raise ConfigError(
                f"replicas are a number of at least 1, or a range, got {said!r}.",
                where="--replicas",
                fix="For example: --replicas 2, or --replicas 1-4 to let Ray add and remove them.",
            )
        return cls(fewest, most, **more)

    @property
    def options(self) -> dict[str, Any]:
        """As Ray's deployments take them."""
        actor = {"ray_actor_options": {"num_cpus": self.cpus, "num_gpus": self.gpus}}
        if self.fewest == self.most:
            return {"num_replicas": self.fewest, **actor}
        scaling = {"min_replicas": self.fewest, "max_replicas": self.most, "target_ongoing_requests": self.target}
        return {"autoscaling_config": scaling, **actor}


@dataclass(frozen=True)
class Replica:
    """What a replica is made of; travels to the machine where it runs."""

    bundles: Mapping[str, Path]
    settings: Settings
    backbone: str | None = None
    device: str = "auto"
    dtype: str | None = None
    log_level: str = "info"
    trust_remote_code: bool = False

    def application(self) -> Any:
        """The web application, with a service of its own."""
        from trimtab.serving.http import application
        from trimtab.serving.journal import open_journal

        open_journal(self.log_level)
        service = open_service(
            dict(self.bundles),
            self.settings,
            backbone=self.backbone,
            device=self.device,
            dtype=self.dtype,
            trust_remote_code=self.trust_remote_code,
        )
        return application(service, self.settings)


def run_on_ray(
    replica: Replica, scaling: Scaling, *, address: str | None = None, said: Callable[[str], None] = print
) -> None:
    """Deploy, and serve until told to stop (SIGINT, SIGTERM).

    Args:
        address: `host:port` of a cluster's head or `auto`; None starts one of this machine alone.
        said: is told where the proxy listens, once every replica is ready.

    Raises:
        ConfigError: Ray Serve is not installed, the port is taken, uploads to several replicas, or a replica does not
            start.
        BundleError: a bundle is unreadable, or of another backbone than the first.
    """
    _check(replica, scaling)
    settings = replica.settings
    port = _free_port(settings)
    ray, serve = _installed()
    from trimtab.studies.executors.ray import Ray

    with Ray(address, cpus=0, gpus=0):
        _check_room(scaling, ray.cluster_resources())
        stopped = _until_signal()
        try:
            serve.start(http_options={"host": settings.host, "port": port})
            try:
                serve.run(_deployment(serve, replica, scaling), name=NAME, route_prefix="/")
            except Exception as error:
                raise ConfigError(
                    f"no replica starts ({_reason(error)}).",
                    where="--on ray",
                    fix="Bundles and backbone must lie under the same path on every machine; see the logs of Ray.",
                ) from None
            said(url_of(settings.host, port))
            stopped.wait()
        finally:
            serve.shutdown()


def _installed() -> tuple[Any, Any]:
    try:
        import ray
        from ray import serve
    except ImportError:
        raise ConfigError(
            "Ray Serve is not installed.", where="--on ray", fix="Install it: pip install 'trimtab[serve-ray]'."
        ) from None
    return ray, serve


def _check(replica: Replica, scaling: Scaling) -> None:
    """What can be wrong is told here, before a cluster tries it again and again."""
    if replica.settings.token is not None and scaling.most > 1:
        raise ConfigError(
            f"an uploaded bundle would reach one of up to {scaling.most} replicas, and the others would not know it.",
            where="--uploads",
            fix="Use --replicas 1, or put bundles into the folder that is served and start again.",
        )
    check_anything(replica.bundles, replica.backbone)
    first: tuple[str, bool] | None = None
    for name, path in replica.bundles.items():
        bundle = read_bundle(path)
        found = (str(bundle.metadata["backbone"]["fingerprint"]), bundle.embed_twice)
        first = first or found
        if found != first:
            which = "backbone" if found[0] != first[0] else "backbone.embed_twice"
            what = f"it was trained with another {which} than the first bundle."
            raise BundleError(what, where=f"the bundle {name!r}", fix="Serve one backbone at a time.")


def _check_room(scaling: Scaling, there: Mapping[str, float]) -> None:
    """Refuse replicas that the cluster has no room for; Ray would wait for ever."""
    asked = {"CPU": scaling.cpus * scaling.fewest, "GPU": scaling.gpus * scaling.fewest}
    lacking = [name for name, n in asked.items() if n > there.get(name, 0)]
    if lacking:
        name = lacking[0]
        raise ConfigError(
            f"{scaling.fewest} replicas ask for {asked[name]:g} {name}s, and the whole cluster has "
            f"{there.get(name, 0):g}.",
            where="--replicas",
            fix=f"Ask for fewer, or lower --replica-{name.lower()}s.",
        )


def _deployment(serve: Any, replica: Replica, scaling: Scaling) -> Any:
    """The application of Ray Serve."""

    def build() -> Any:
        return replica.application()

    settings = replica.settings
    deployed = serve.deployment(
        serve.ingress(build)(),
        name=NAME,
        max_ongoing_requests=settings.in_flight + SLACK,
        graceful_shutdown_timeout_s=settings.drain_seconds + 5.0,
        max_constructor_retry_count=2,
        **scaling.options,
    )
    return deployed.bind()


def _free_port(settings: Settings) -> int:
    """The port that is asked for, or a free one; Ray would try a taken one for long."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((settings.host, settings.port))
            return int(tried.getsockname()[1])
    except OSError:
        raise cannot_listen(settings) from None


def _until_signal() -> threading.Event:
    """Set when the process is told to stop."""
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    return stopped


def _reason(error: Exception) -> str:
    """The last line of what Ray says, which is the replica's own error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    own = [line for line in lines if "Error" in line]
    return (own or lines or [type(error).__name__])[-1][:300]
