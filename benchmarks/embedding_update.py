"""One optimizer step of a large item table: by rows, against dense Adam, and PyTorch's SparseAdam.

python -m benchmarks.embedding_update --items 1000000 --json FILE

A step takes 4,096 ids, popular ones often, and their gradients. All change their state in place.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from alkd_jax.ops import embedding
from benchmarks import peers_torch
from benchmarks.harness import Bench, compare


@dataclasses.dataclass(frozen=True)
class Cells(Bench):
    """What is asked of this benchmark.

    Attributes:
        items: V of the tables.
        named: ids a step.
        dim: D.
    """

    items: tuple[int, ...] = (100_000, 1_000_000)
    named: int = 4096
    dim: int = 64


def by_rows(
    rows: embedding.RowOptimizer, table: np.ndarray, ids: np.ndarray, gradients: np.ndarray, dtype: Any = jnp.float32
) -> Callable[[], Any]:
    """Our step."""
    stored = jnp.array(table, dtype, copy=True)
    state = stored, rows.init(stored)
    named, given = jnp.asarray(ids), jnp.asarray(gradients)
    step = jax.jit(rows.update, donate_argnums=(0, 1))

    def run() -> Any:
        nonlocal state
        state = step(*state, named, given)
        return state

    return run


def dense(table: np.ndarray, ids: np.ndarray, gradients: np.ndarray) -> Callable[[], Any]:
    """Dense Adam from a gradient of the whole table."""
    optimizer = optax.adam(1e-3)
    stored = jnp.array(table, copy=True)
    state = stored, optimizer.init(stored)
    named, given = jnp.asarray(ids), jnp.asarray(gradients)

    def update(table: jax.Array, slots: Any, ids: jax.Array, gradients: jax.Array) -> tuple[jax.Array, Any]:
        updates, slots = optimizer.update(jnp.zeros_like(table).at[ids].add(gradients), slots, table)
        return table + updates, slots

    step = jax.jit(update, donate_argnums=(0, 1))

    def run() -> Any:
        nonlocal state
        state = step(*state, named, given)
        return state

    return run


def by_torch(table: np.ndarray, ids: np.ndarray, gradients: np.ndarray) -> Callable[[], Any]:
    """PyTorch's SparseAdam on a gradient of named rows."""
    torch = peers_torch.load_torch()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    stored = torch.nn.Parameter(torch.tensor(table, device=device))
    named, given = torch.tensor(ids[None], device=device).long(), torch.tensor(gradients, device=device)
    optimizer = torch.optim.SparseAdam([stored], lr=1e-3)

    def run() -> float:
        stored.grad = torch.sparse_coo_tensor(named, given, stored.shape, check_invariants=False)
        optimizer.step()
        return float(stored.detach()[0, 0])

    return run


def measure(items: int, bench: Cells) -> None:
    """One table."""
    rng = np.random.default_rng(0)
    table = rng.standard_normal((items + 1, bench.dim), dtype=np.float32)
    # As one over the rank, by the inverse of its distribution.
    ids = np.clip(items ** rng.random(bench.named), 1, items).astype(np.int32)
    gradients = rng.standard_normal((bench.named, bench.dim), dtype=np.float32)
    candidates = {
        "rows, adam": by_rows(embedding.adam(1e-3), table, ids, gradients),
        "rows, row-wise adagrad": by_rows(embedding.adagrad(1e-3, rowwise=True), table, ids, gradients),
        "dense adam": dense(table, ids, gradients),
    }
    if peers_torch.ABSENT is None:
        candidates["torch SparseAdam"] = by_torch(table, ids, gradients)
    about: dict[str, Any] = {"items": items, "dim": bench.dim, "named": bench.named, "distinct": len(np.unique(ids))}
    compare(
        "embedding_update", candidates, bench, peers={"torch": peers_torch.ABSENT or peers_torch.version()}, **about
    )


def main(bench: Bench) -> None:
    """Measures every table."""
    asked = bench if isinstance(bench, Cells) else Cells(**dataclasses.asdict(bench))
    if bench.smoke:
        asked = dataclasses.replace(asked, items=(300,), named=20, dim=4)
    for items in asked.items:
        measure(items, asked)


if __name__ == "__main__":
    main(tyro.cli(Cells, description=__doc__))
