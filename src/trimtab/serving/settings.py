"""What a server is started with."""

from __future__ import annotations

from dataclasses import dataclass, field

from trimtab.serving.engine import Pace
from trimtab.serving.service import Limits


@dataclass(frozen=True)
class Settings:
    """
    Attributes:
        host: where it listens; the loopback is reached from this machine alone.
        port: 0 takes a free one.
        token: who knows it may upload and remove bundles; None: nobody may.
        body_bytes: of a request.
        bundle_bytes: of an uploaded archive, and of what it unpacks to.
        in_flight: requests at once; more are told to come back.
        body_seconds: until a request's body must be there.
        drain_seconds: for what is under way when the server is told to stop.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = field(default=None, repr=False)
    body_bytes: int = 1 << 20
    bundle_bytes: int = 256 << 20
    in_flight: int = 256
    body_seconds: float = 30.0
    drain_seconds: float = 30.0
    pace: Pace = field(default_factory=Pace)
    limits: Limits = field(default_factory=Limits)
