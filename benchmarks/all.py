"""All benchmarks worth running on a GPU, in under ten minutes and into one file; they run on a CPU too, with more time.

    python -m benchmarks.all --json FILE

The most important parts run first; the parts for which no time is left are listed at the end.

The first line is a canary: jaxlib 0.10.2 to 0.11.0 compile float32 scatter-add on a GPU to a loop that is hundreds of
times slower where many updates hit few rows. A ratio above 20 in that line means that the installed jaxlib is one of
them, and that the other lines are meaningless without XLA_FLAGS=--xla_backend_extra_options=-nvptx-allow-ftz-atomics.
"""

import dataclasses
import functools
import sys
import time

import jax
import jax.numpy as jnp

from . import embedding_update, evaluation, large, retrieval, scaling, serve, training
from .command_line import run_command
from .harness import Bench, compare


@dataclasses.dataclass(frozen=True)
class Budget(Bench):
    """Options of this benchmark.

    Attributes:
        minutes: after this many minutes no further part is started.
    """

    minutes: float = 9.0


def canary(bench: Bench) -> None:
    """Scatter-add of 40,960 rows of width 128 into 399 rows: spread evenly, and all into one row."""
    num, width = (400, 8) if bench.smoke else (40_960, 128)
    add = jax.jit(lambda table, ids, rows: table.at[ids].add(rows))
    table, rows = jnp.zeros((399, width)), jnp.ones((num, width))
    even, same = jnp.arange(num, dtype=jnp.int32) % 399, jnp.full(num, 7, jnp.int32)
    candidates = {"even": lambda: add(table, even, rows), "all in one row": lambda: add(table, same, rows)}
    compare("scatter-add canary", candidates, bench, updates=num, width=width)


def parts(bench: Bench) -> list[functools.partial[None]]:
    """The parts to run, the most important first."""
    on_gpu = jax.default_backend() == "gpu"
    base = dataclasses.asdict(bench)
    lists = [(1_000_000, 4096), (10_000_000, 4096), (100_000, 4096)] if on_gpu else [(100_000, 256), (1_000_000, 64)]
    cells = [retrieval.Cells(**base, items=(items,), batches=(batch,)) for items, batch in lists]
    tables = embedding_update.Cells(**base, items=(1_000_000, 10_000_000) if on_gpu else (1_000_000,))
    runs = large.Cells(**base, items=(1_000_000, 10_000_000) if on_gpu else (100_000,))
    return [
        functools.partial(canary, bench),
        *(functools.partial(retrieval.main, cell) for cell in cells),
        functools.partial(embedding_update.main, tables),
        functools.partial(large.main, runs),
        functools.partial(serve.main, bench),
        functools.partial(scaling.main, bench),
        *training.parts(bench),
        *evaluation.parts(bench),
    ]


def main(bench: Bench) -> None:
    """Runs part after part while there is time, and lists the parts left out."""
    args = bench if isinstance(bench, Budget) else Budget(**dataclasses.asdict(bench))
    common = Bench(args.json, args.rounds, args.smoke)
    start, left_out = time.monotonic(), []
    for part in parts(common):
        if time.monotonic() - start < 60 * args.minutes:
            part()
        else:
            values = (str(value) for value in part.args if not isinstance(value, Bench))
            left_out.append(" ".join([f"{part.func.__module__}.{part.func.__name__}", *values]))
    if left_out:
        print(f"no time was left for {'; '.join(left_out)}", file=sys.stderr)


if __name__ == "__main__":
    run_command(main, Budget, "all", __doc__)
