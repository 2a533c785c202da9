"""Serves a shipped student over HTTP, without JAX; see `alkd_jax.serving.http` for the routes.

    python -m experiments.serve --model DIR --port 8000
    curl localhost:8000/recommend -d '{"session": ["2571", "1196"], "k": 10}'

One process answers one request at a time, which takes a fraction of a millisecond; run one process per core behind a
load balancer. Ctrl-C and SIGTERM end it after every request that was sent is answered, within seconds; the exit code is
130 or 143.
"""

import dataclasses
import gc
import logging
import os
import pathlib

from alkd_jax.errors import import_extra
from alkd_jax.serving.recommender import Recommender

from .pipeline.command_line import parse
from .pipeline.exits import one_line_errors
from .pipeline.shipped import model_folder


@dataclasses.dataclass(frozen=True)
class ServeSettings:
    """Options of the command.

    Attributes:
        model: folder of a shipped student, or of a run of `train`.
        port: port to listen on; 0 for any free one.
        host: address to listen on; 0.0.0.0 for all addresses of this machine.
    """

    model: pathlib.Path
    port: int = 8000
    host: str = "127.0.0.1"


def serve(args: ServeSettings) -> None:
    """Serves until a signal ends the process.

    Raises:
        ValueError: the folder is no shipped student, or host or port is none.
        OSError: the port is in use.
    """
    for package in ("starlette", "uvicorn"):
        import_extra(package)
    # Without these packages the two modules cannot be imported.
    from alkd_jax.serving import http
    from alkd_jax.serving.server import create_server, listen

    recommender = Recommender.load(model_folder(args.model))
    # The first answer builds tables that all later answers use.
    recommender.rank([1], 1)
    server = create_server(http.application(recommender))
    sockets = listen(args.host, args.port)
    log = logging.getLogger("uvicorn.error")
    if workers := os.environ.get("WEB_CONCURRENCY"):
        log.warning("WEB_CONCURRENCY is %r and has no effect: run this command once per core", workers[:20])
    print(f"{recommender.backbone} with {recommender.num_items} items, {recommender.version[:12]}", flush=True)
    for each in sockets:
        host, port = each.getsockname()[:2]
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        log.info("Uvicorn running on http://%s (Press CTRL+C to quit)", address)
    # The catalogue stays until the end, so the garbage collector need not look at it again.
    gc.freeze()
    server.run(sockets=sockets)


def main() -> None:
    """Entry point."""
    with one_line_errors():
        serve(parse(ServeSettings, "serve", __doc__))


if __name__ == "__main__":
    main()
