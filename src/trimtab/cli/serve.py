"""`trimtab serve`: many prompts on one frozen backbone, over HTTP."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from trimtab.cli.console import Device, Quiet, RunsDir, TrustRemoteCode, err


def command(
    bundles: Annotated[
        list[str] | None,
        typer.Argument(metavar="BUNDLE_OR_DIR", help="Bundles, runs by folder or id, NAME=PATH, folders of them."),
    ] = None,
    host: Annotated[str, typer.Option(help="Where to listen; by default for this machine alone.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", "-p", min=0, max=65535, help="0 takes a free one.")] = 8000,
    backbone: Annotated[str | None, typer.Option(help="Where the model lies now.")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32 or bfloat16; as trained by default.")] = None,
    latency_ms: Annotated[float, typer.Option(min=0, help="How long a row waits for batch mates.")] = 3.0,
    batch_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a batch, padding included.")] = 8192,
    writers: Annotated[int, typer.Option(min=1, help="Texts that are written at once.")] = 64,
    max_in_flight: Annotated[int, typer.Option(min=1, help="Requests at once; more get 429.")] = 256,
    max_inputs: Annotated[int, typer.Option(min=1, help="Inputs of one request.")] = 128,
    max_body_kb: Annotated[int, typer.Option(min=1, help="Size of a request.")] = 1024,
    uploads: Annotated[
        bool, typer.Option("--uploads", help="Whoever knows the token in TRIMTAB_TOKEN may add and remove bundles.")
    ] = False,
    max_bundle_mb: Annotated[int, typer.Option(min=1, help="Size of an uploaded bundle.")] = 256,
    prefix_cache_mb: Annotated[int, typer.Option(min=0, help="For keys and values of prefix prompts.")] = 256,
    drain_seconds: Annotated[float, typer.Option(min=0, help="For what is under way at the end.")] = 30.0,
    on: Annotated[
        str, typer.Option(help="local: this process; ray: replicas of Ray Serve (extra serve-ray).")
    ] = "local",
    address: Annotated[str | None, typer.Option(help="HOST:PORT of a Ray cluster; by default of this machine.")] = None,
    replicas: Annotated[str, typer.Option(help="On Ray: N, or N-M to let Ray add and remove them.")] = "1",
    replica_load: Annotated[float, typer.Option(min=0.1, help="Requests under way that N-M aims at, each.")] = 32.0,
    replica_cpus: Annotated[float, typer.Option(min=0, help="CPUs that a replica asks for.")] = 1.0,
    replica_gpus: Annotated[float, typer.Option(min=0, help="GPUs that a replica asks for.")] = 0.0,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    runs_dir: RunsDir = Path("runs"),
    device: Device = "auto",
    trust_remote_code: TrustRemoteCode = False,
    quiet: Quiet = False,
) -> None:
    """Serve prompts that share one backbone; a page at / asks several of them the same.

    Rows of all tasks, and of the bare model, share batches. Routes are listed at /docs. Logs are JSON lines on stderr.
    """
    from trimtab.serving.engine import Pace
    from trimtab.serving.server import check_options, found_bundles, is_loopback, open_service, run
    from trimtab.serving.service import Limits
    from trimtab.serving.settings import Settings

    def say(what: str) -> None:
        if not quiet:
            err.print(what + ("" if is_loopback(host) else " (anybody who reaches this machine may ask)"), markup=False)

    settings = Settings(
        host=host,
        port=port,
        token=os.environ.get("TRIMTAB_TOKEN") if uploads else None,
        body_bytes=max_body_kb << 10,
        bundle_bytes=max_bundle_mb << 20,
        in_flight=max_in_flight,
        drain_seconds=drain_seconds,
        pace=Pace(latency=latency_ms / 1000, tokens=batch_tokens, writers=writers, prefix_bytes=prefix_cache_mb << 20),
        limits=Limits(inputs=max_inputs),
    )
    check_options(settings, uploads=uploads, dtype=dtype, log_level=log_level, on=on)
    found = found_bundles(bundles or [], runs_dir)
    if on == "ray":
        from trimtab.serving.on_ray import Replica, Scaling, run_on_ray

        scaling = Scaling.read(replicas, target=replica_load, cpus=replica_cpus, gpus=replica_gpus)
        paths = {name: path.resolve() for name, path in found.items()}
        replica = Replica(paths, settings, backbone, device, dtype, log_level, trust_remote_code)
        run_on_ray(replica, scaling, address=address, said=lambda url: say(f"{len(paths)} bundles on Ray: {url}"))
        return
    service = open_service(
        found, settings, backbone=backbone, device=device, dtype=dtype, trust_remote_code=trust_remote_code
    )
    run(
        service,
        settings,
        log_level=log_level,
        said=lambda u: say(f"{len(service.catalog)} prompts on {service.name}: {u}"),
    )
