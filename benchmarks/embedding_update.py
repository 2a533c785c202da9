"""One optimizer step on a large item table: row-sparse updates against dense Adam and PyTorch's SparseAdam.

    python -m benchmarks.embedding_update --items 1000000 --json FILE

A step takes 4,096 ids, in which popular items repeat, and their gradients. Every candidate updates its state in place.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from alkd_jax.ops import embedding

from . import peers_torch
from .command_line import run_command
from .harness import Bench, compare


@dataclasses.dataclass(frozen=True)
class Cells(Bench):
    """Options of this benchmark.

    Attributes:
        items: V, one table for each.
        named: ids in a step, repeats included.
        dim: width D.
    """

    items: tuple[int, ...] = (100_000, 1_000_000)
    named: int = 4096
    dim: int = 64


def row_sparse_step(
    rows: embedding.RowOptimizer, table: np.ndarray, ids: np.ndarray, gradients: np.ndarray, dtype: Any = jnp.float32
) -> Callable[[], Any]:
    """One row-sparse update of alkd_jax."""
    stored = jnp.array(table, dtype, copy=True)
    state = stored, rows.init(stored)
    device_ids, device_gradients = jnp.asarray(ids), jnp.asarray(gradients)
    step = jax.jit(rows.update, donate_argnums=(0, 1))

    def run() -> Any:
        nonlocal state
        state = step(*state, device_ids, device_gradients)
        return state

    return run


def dense_step(table: np.ndarray, ids: np.ndarray, gradients: np.ndarray) -> Callable[[], Any]:
    """Dense Adam with a gradient of the whole table."""
    optimizer = optax.adam(1e-3)
    stored = jnp.array(table, copy=True)
    state = stored, optimizer.init(stored)
    device_ids, device_gradients = jnp.asarray(ids), jnp.asarray(gradients)

    def update(table: jax.Array, slots: Any, ids: jax.Array, gradients: jax.Array) -> tuple[jax.Array, Any]:
        updates, slots = optimizer.update(jnp.zeros_like(table).at[ids].add(gradients), slots, table)
        return table + updates, slots

    step = jax.jit(update, donate_argnums=(0, 1))

    def run() -> Any:
        nonlocal state
        state = step(*state, device_ids, device_gradients)
        return state

    return run


def torch_step(table: np.ndarray, ids: np.ndarray, gradients: np.ndarray) -> Callable[[], Any]:
    """PyTorch's SparseAdam with a sparse gradient."""
    torch = peers_torch.load_torch()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    stored = torch.nn.Parameter(torch.tensor(table, device=device))
    indices, values = torch.tensor(ids[None], device=device).long(), torch.tensor(gradients, device=device)
    optimizer = torch.optim.SparseAdam([stored], lr=1e-3)

    def run() -> float:
        stored.grad = torch.sparse_coo_tensor(indices, values, stored.shape, check_invariants=False)
        optimizer.step()
        return float(stored.detach()[0, 0])

    return run


def measure(items: int, bench: Cells) -> None:
    """Measures one table size."""
    rng = np.random.default_rng(0)
    table = rng.standard_normal((items + 1, bench.dim), dtype=np.float32)
    # The probability of an id falls as one over its rank; sampled by the inverse of the distribution function.
    ids = np.clip(items ** rng.random(bench.named), 1, items).astype(np.int32)
    gradients = rng.standard_normal((bench.named, bench.dim), dtype=np.float32)
    candidates = {
        "rows, adam": row_sparse_step(embedding.adam(1e-3), table, ids, gradients),
        "rows, row-wise adagrad": row_sparse_step(embedding.adagrad(1e-3, rowwise=True), table, ids, gradients),
        "dense adam": dense_step(table, ids, gradients),
    }
    if peers_torch.ABSENT is None:
        candidates["torch SparseAdam"] = torch_step(table, ids, gradients)
    about: dict[str, Any] = {"items": items, "dim": bench.dim, "named": bench.named, "unique_ids": len(np.unique(ids))}
    compare(
        "embedding_update", candidates, bench, peers={"torch": peers_torch.ABSENT or peers_torch.version()}, **about
    )


def main(bench: Bench) -> None:
    """Measures every table size."""
    args = bench if isinstance(bench, Cells) else Cells(**dataclasses.asdict(bench))
    if bench.smoke:
        args = dataclasses.replace(args, items=(300,), named=20, dim=4)
    for items in args.items:
        measure(items, args)


if __name__ == "__main__":
    run_command(main, Cells, "embedding_update", __doc__)
