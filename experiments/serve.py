"""Serves a shipped student over HTTP, without JAX; see `alkd_jax.serving.http` for the routes.

    python -m experiments.serve --model DIR --port 8000
    curl localhost:8000/recommend -d '{"session": ["2571", "1196"], "k": 10}'

One process answers one request at a time, which takes a fraction of a millisecond; run one process per core behind a
load balancer.
"""

import dataclasses
import pathlib

import tyro
import uvicorn

from alkd_jax.checks import check_between
from alkd_jax.serving import http
from alkd_jax.serving.recommender import Recommender

from .pipeline.exits import one_line_errors


@dataclasses.dataclass(frozen=True)
class ServeSettings:
    """Options of the command.

    Attributes:
        model: folder of a shipped student.
        port: port to listen on; 0 for any free one.
        host: address to listen on; 0.0.0.0 for all addresses of this machine.
    """

    model: pathlib.Path
    port: int = 8000
    host: str = "127.0.0.1"


def main() -> None:
    """Entry point."""
    with one_line_errors():
        args = tyro.cli(ServeSettings, description=__doc__)
        check_between(0, 65535, **{"--port": args.port})
        recommender = Recommender.load(args.model)
        # The first answer builds tables that all later answers use.
        recommender.rank([1], 1)
        print(f"{recommender.backbone} with {recommender.num_items} items, {recommender.version[:12]}", flush=True)
        application = http.application(recommender)
        uvicorn.run(application, host=args.host, port=args.port, access_log=False, timeout_keep_alive=30)


if __name__ == "__main__":
    main()
