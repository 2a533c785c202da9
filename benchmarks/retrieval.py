"""Exact top-k of the full catalogue, against PyTorch's product and topk and faiss's brute-force index.

    python -m benchmarks.retrieval --items 10000 100000 1000000 --json FILE

A sample lists the top k for every session of a batch; the line holds the share of list positions that agree with each
peer's.
"""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alkd_jax import scoring

from . import peers_retrieval, peers_torch
from .command_line import run_command
from .harness import Bench, compare

# Peers on the same GPU need memory beside JAX; JAX reads this variable when it first uses the device.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


@dataclasses.dataclass(frozen=True)
class Cells(Bench):
    """Options of this benchmark.

    Attributes:
        items: V, sizes of the catalogue.
        batches: B, sessions in a call.
        ks: list lengths.
        dtypes: in which the table is stored; peers are measured with float32 only.
        dim: width D.
    """

    items: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    batches: tuple[int, ...] = (1, 256)
    ks: tuple[int, ...] = (10, 100)
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    dim: int = 64


def alkd_top_k(vectors: np.ndarray, table: jax.Array, k: int) -> Callable[[], jax.Array]:
    """One compiled program; it excludes ten items per session, here all padding, so that the lists can be compared."""
    u, exclude = jnp.asarray(vectors), jnp.zeros((len(vectors), 10), jnp.int32)
    top_k = jax.jit(lambda u, y, seen: scoring.top_k(u, y, k, exclude=seen)[1])
    return lambda: top_k(u, table, exclude)


def measure(items: int, batch: int, table: np.ndarray, on_device: jax.Array, k: int, bench: Bench) -> None:
    """Measures one cell: alkd_jax, and with float32 the peers that are installed."""
    vectors = np.random.default_rng(1).standard_normal((batch, table.shape[1]), dtype=np.float32)
    candidates: dict[str, Callable[[], Any]] = {"alkd_jax": alkd_top_k(vectors, on_device, k)}
    if on_device.dtype == jnp.float32:
        if peers_torch.ABSENT is None:
            candidates["torch"] = peers_retrieval.torch_top_k(vectors, table, k)
        if peers_retrieval.FAISS_ABSENT is None:
            candidates["faiss"] = peers_retrieval.faiss_top_k(vectors, table, k)
    lists = {label: np.asarray(work()) for label, work in candidates.items()}
    agreed = {label: float((ids == lists["alkd_jax"]).mean()) for label, ids in lists.items()}
    about: dict[str, Any] = {"items": items, "batch": batch, "k": k, "dim": table.shape[1], "agreed": agreed}
    about |= {"dtype": str(on_device.dtype), "peers": peers_retrieval.versions()}
    compare("retrieval", candidates, bench, sessions_per_call=batch, flop=2.0 * batch * items * table.shape[1], **about)


def main(bench: Bench) -> None:
    """Measures every cell, catalogue by catalogue."""
    args = bench if isinstance(bench, Cells) else Cells(**dataclasses.asdict(bench))
    if bench.smoke:
        args = dataclasses.replace(args, items=(3000,), batches=(5,), ks=(3,), dim=8)
    for items in args.items:
        # Row 0 is padding; the peers give it the score 0, which is too low for any list of a large catalogue.
        table = np.random.default_rng(0).standard_normal((items + 1, args.dim), dtype=np.float32)
        table[0] = 0.0
        for dtype in args.dtypes:
            on_device = jnp.asarray(table, dtype)
            for batch in args.batches:
                for k in args.ks:
                    measure(items, batch, table, on_device, k, bench)


if __name__ == "__main__":
    run_command(main, Cells, "retrieval", __doc__)
