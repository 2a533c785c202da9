"""Exact top k of the whole catalogue, against PyTorch's product and topk and faiss's brute force.

python -m benchmarks.retrieval --items 10000 100000 1000000 --json FILE

A sample lists every session of a batch; the line tells what share of the lists' places agree with each peer.
"""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from alkd_jax import scoring
from benchmarks import peers_retrieval, peers_torch
from benchmarks.harness import Bench, compare

# Peers on the same GPU need room beside JAX; read when JAX first asks for the device.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


@dataclasses.dataclass(frozen=True)
class Cells(Bench):
    """What is asked of this benchmark.

    Attributes:
        items: V of the catalogues.
        batches: B, sessions listed at a time.
        ks: list lengths.
        dtypes: the table is stored in; peers are measured beside float32.
        dim: D.
    """

    items: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    batches: tuple[int, ...] = (1, 256)
    ks: tuple[int, ...] = (10, 100)
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    dim: int = 64


def ours(vectors: np.ndarray, table: jax.Array, k: int) -> Callable[[], jax.Array]:
    """One compiled program; ten items a session are left out (here all padding, so that lists can be compared)."""
    u, exclude = jnp.asarray(vectors), jnp.zeros((len(vectors), 10), jnp.int32)
    lists = jax.jit(lambda u, y, seen: scoring.top_k(u, y, k, exclude=seen)[1])
    return lambda: lists(u, table, exclude)


def measure(items: int, batch: int, table: np.ndarray, on_device: jax.Array, k: int, bench: Bench) -> None:
    """One cell: us, and the peers beside float32."""
    vectors = np.random.default_rng(1).standard_normal((batch, table.shape[1]), dtype=np.float32)
    candidates: dict[str, Callable[[], Any]] = {"alkd_jax": ours(vectors, on_device, k)}
    if on_device.dtype == jnp.float32:
        if peers_torch.ABSENT is None:
            candidates["torch"] = peers_retrieval.by_torch(vectors, table, k)
        if peers_retrieval.FAISS_ABSENT is None:
            candidates["faiss"] = peers_retrieval.by_faiss(vectors, table, k)
    listed = {label: np.asarray(work()) for label, work in candidates.items()}
    agreed = {label: float((ids == listed["alkd_jax"]).mean()) for label, ids in listed.items()}
    about: dict[str, Any] = {"items": items, "batch": batch, "k": k, "dim": table.shape[1], "agreed": agreed}
    about |= {"dtype": str(on_device.dtype), "peers": peers_retrieval.versions()}
    compare("retrieval", candidates, bench, sessions_a_call=batch, flop=2.0 * batch * items * table.shape[1], **about)


def main(bench: Bench) -> None:
    """Measures every cell, catalogue by catalogue."""
    asked = bench if isinstance(bench, Cells) else Cells(**dataclasses.asdict(bench))
    if bench.smoke:
        asked = dataclasses.replace(asked, items=(3000,), batches=(5,), ks=(3,), dim=8)
    for items in asked.items:
        # Row 0 is no item of ours; to the peers it scores 0, which no list of a real catalogue reaches.
        table = np.random.default_rng(0).standard_normal((items + 1, asked.dim), dtype=np.float32)
        table[0] = 0.0
        for dtype in asked.dtypes:
            on_device = jnp.asarray(table, dtype)
            for batch in asked.batches:
                for k in asked.ks:
                    measure(items, batch, table, on_device, k, bench)


if __name__ == "__main__":
    main(tyro.cli(Cells, description=__doc__))
